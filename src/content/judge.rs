//! The ladder's other decision: whether a download should go on. Pure.
//!
//! Called under the content's lock by `fetch.rs` when an answer came and when a piece was written; what is begun is decided
//! in `plan.rs`.

use super::blocks::BLOCK;
use super::plan::LONGEST;
use super::state::{Fetch, Path, Reading, State};

/// Whether a download goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody waits for what it brings.
    Demanded,
    /// Nobody waits yet, but a reader is on its way there.
    Ahead,
    /// Far enough ahead for now.
    Enough,
    /// Nobody wants it any more, or it writes to a copy that was dropped.
    Stop,
}

/// Judges download `id`.
pub(super) fn judge(state: &State, id: u64) -> Verdict {
    let Some(fetch) = state.fetches.iter().find(|fetch| fetch.id == id) else {
        return Verdict::Stop;
    };
    if fetch.generation != state.generation || state.is_complete() {
        return Verdict::Stop;
    }
    if state.readers.is_empty() {
        return match fetch.path {
            Path::Whole if state.is_worth_finishing() => Verdict::Ahead,
            // The block in hand is finished: what comes of half a block is lost.
            Path::Part { .. } if fetch.filling.is_some() => Verdict::Demanded,
            _ => Verdict::Stop,
        };
    }
    if matches!(fetch.path, Path::Part { .. }) {
        return Verdict::Demanded;
    }
    if let Path::Range { last } = fetch.path {
        return judge_range(state, fetch, (last + 1) * BLOCK);
    }
    let mut stranded = false;
    for ask in &state.waiters {
        let Some(byte) = state.lacks(ask) else { continue };
        if fetch.covers(byte) {
            return Verdict::Demanded;
        }
        stranded |= byte < fetch.floor() && !state.is_coming(byte);
    }
    if stranded {
        // Its host sends nothing but whole files, so the byte behind has to wait until this one ends.
        return Verdict::Stop;
    }
    // Stopping means beginning again at the first byte, so a stream goes on for whoever reads on, if there is room.
    let is_read_towards = state.readers.values().any(|reader| {
        let ahead = reader.ahead();
        ahead.is_some_and(|(_, to)| state.has_room || fetch.floor() < to)
    });
    if is_read_towards || state.is_worth_finishing() {
        Verdict::Ahead
    } else {
        Verdict::Enough
    }
}

/// A range goes on while a reader is on its way there. It never pauses, as it is short and the next one is not begun, unless
/// it was made longer than the window.
fn judge_range(state: &State, fetch: &Fetch, end: u64) -> Verdict {
    let floor = fetch.floor();
    let is_waited_for = || {
        state
            .waiters
            .iter()
            .any(|ask| ask.wants_all() || state.lacks(ask).is_some_and(|byte| floor <= byte && byte < end))
    };
    let is_read_towards = || {
        state
            .readers
            .values()
            .filter_map(Reading::ahead)
            // Its window may have become smaller since.
            .any(|(position, to)| position < end && fetch.begin < to.max(position + 2 * LONGEST))
    };
    if !(is_read_towards() || is_waited_for()) {
        return Verdict::Stop;
    }
    let is_near = || {
        let aheads = state.readers.values().filter_map(Reading::ahead);
        aheads.map(|(_, to)| to).max().is_some_and(|to| floor < to)
    };
    if fetch.held_back && !is_waited_for() && !is_near() {
        return Verdict::Enough;
    }
    Verdict::Demanded
}
