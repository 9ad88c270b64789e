//! The mount, as programs see it: a real kernel, the real binary, the sandbox repository.
//!
//! One module for each family of calls. Every test has a repository and a mount of its own, and leaves none behind.

mod archives;
mod closing;
mod control;
mod crowd;
mod details;
mod documents;
mod drafts;
mod faults;
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
mod remembered;
mod rename;
mod sums;
mod support;
mod tools;
mod users;
mod warm;
mod writing;
