//! The commands as people run them: the real binary, a repository on this machine, and for some a real mount.
//!
//! `refused` and `settings` need no working mount; all that does is in `mounted` and `uploads`.

#[path = "cli/api.rs"]
mod api;
#[path = "cli/cache.rs"]
mod cache;
#[path = "cli/community.rs"]
mod community;
#[path = "cli/decide.rs"]
mod decide;
#[path = "cli/life.rs"]
mod life;
#[path = "cli/machine.rs"]
mod machine;
#[path = "cli/mounted.rs"]
mod mounted;
#[path = "cli/refused.rs"]
mod refused;
#[path = "cli/requests.rs"]
mod requests;
#[path = "cli/search.rs"]
mod search;
#[path = "cli/settings.rs"]
mod settings;
#[path = "cli/share.rs"]
mod share;
#[path = "cli/uploads.rs"]
mod uploads;
#[path = "cli/user.rs"]
mod user;
