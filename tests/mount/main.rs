//! The mount, as programs see it: a real kernel, the real binary, the sandbox repository.
//!
//! One module for each family of calls. Every test has a repository and a mount of its own, and leaves none behind.

mod closing;
mod details;
mod faults;
mod lanes;
mod large;
mod leftovers;
mod names;
mod politeness;
mod published;
mod races;
mod reading;
mod real;
mod support;
mod tools;
mod users;
mod writing;
