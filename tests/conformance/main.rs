//! One suite, two servers: each test is one exchange through our own client, and it asserts the same meaning on the
//! sandbox and on a real InvenioRDM. Where they differ, the sandbox is wrong.
//!
//! The real server is the one at `RDMFS_TEST_URL`, with the token of an ordinary user in `RDMFS_TEST_TOKEN` and that of
//! another one in `RDMFS_TEST_TOKEN_OTHER` (optional). The tests make records there and publish some of them.

mod any;
mod communities;
mod containers;
mod content;
mod curations;
mod decisions;
mod drafts;
mod exports;
mod files;
mod flavours;
mod identity;
mod links;
mod multipart;
mod records;
mod requests;
mod search;
mod server;
mod vocabularies;

/// Makes two tests of each function: one on a sandbox of its own, one on the real server.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        $crate::on_both_with!((); $($name),*);
    };
}

/// As [`on_both`], but those on the real server run one at a time: it remembers of which communities a user is a member, and
/// forgets it at a wrong moment when several are made at once.
#[macro_export]
macro_rules! on_both_one_at_a_time {
    ($($name:ident),* $(,)?) => {
        $crate::on_both_with!($crate::server::alone(); $($name),*);
    };
}

/// What the two have in common: `$guard` is held while a test runs on the real server.
#[macro_export]
macro_rules! on_both_with {
    ($guard:expr; $($name:ident),*) => {
        mod on_the_sandbox {
            $(#[test]
            fn $name() {
                super::$name(&$crate::server::Server::sandbox());
            })*
        }
        mod on_a_real_server {
            $(#[test]
            fn $name() {
                if let Some(server) = $crate::server::Server::real() {
                    let _guard = $guard;
                    super::$name(&server);
                }
            })*
        }
    };
}
