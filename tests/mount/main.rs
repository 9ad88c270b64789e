//! The mount, as programs see it: a real kernel, the real binary, the sandbox repository.
//!
//! One module for each family of calls. Every test has a repository and a mount of its own, and leaves none behind.

mod archives;
mod closing;
mod communities;
mod control;
mod crowd;
mod details;
mod documents;
mod doi;
mod drafts;
mod exports;
mod faults;
mod hostile;
mod junk;
mod killed;
mod labels;
mod lanes;
mod large;
mod large_listings;
mod leftovers;
mod names;
mod offline;
mod politeness;
mod published;
mod races;
mod reading;
mod real;
mod refresh;
mod remembered;
mod rename;
mod search;
mod sums;
mod support;
mod tools;
mod user;
mod users;
mod versions;
mod vocabularies;
mod warm;
mod writing;
