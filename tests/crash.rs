//! Daemons that die: at every point between two steps, and at random under load. What was closed is never lost.
//!
//! Each test takes the whole machine for a minute or two, so they run one after another.

#[path = "crash/matrix.rs"]
mod matrix;
#[path = "crash/outages.rs"]
mod outages;
#[path = "crash/renames.rs"]
mod renames;
#[path = "mount/support.rs"]
#[allow(
    dead_code,
    reason = "shared with the tests in tests/mount, which need all of it"
)]
mod support;

/// Held by the test that runs. A failed one must not fail the other.
fn alone() -> impl Drop {
    static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    ALONE.lock()
}
