//! A draft under the programs that exercise file systems: fsx, which does random operations on one file and compares
//! every byte, and pjdfstest, which asks hundreds of questions about what POSIX says of calls.
//!
//! `scripts/test` installs both from crates.io. Where they are not, these tests say so and do nothing.

#[path = "posix/fsx.rs"]
mod fsx;
#[path = "posix/pjdfstest.rs"]
mod pjdfstest;
#[path = "posix/programs.rs"]
mod programs;
#[path = "mount/support.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests in tests/mount, which need all of it"
)]
mod support;
