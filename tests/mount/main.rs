//! The mount, as programs see it: a real kernel, the real binary, the sandbox repository.
//!
//! One module for each family of calls. Every test has a repository and a mount of its own, and leaves none behind.

mod archives;
mod closing;
mod control;
mod details;
mod documents;
mod drafts;
mod faults;
mod junk;
mod labels;
mod lanes;
mod large;
mod leftovers;
mod names;
mod politeness;
mod published;
mod races;
mod reading;
mod real;
mod remembered;
mod rename;
mod support;
mod tools;
mod users;
mod writing;
