//! The ladder's decisions: what to fetch for whom, and whether a download should go on. Pure but for taking slots.
//!
//! Called under the content's lock by `file.rs` (a read came) and `fetch.rs` (an answer came, a piece was written).
//! It must never do I/O; starting the threads it asks for is the caller's, after unlocking.

use std::time::Instant;

use super::blocks::BLOCK;
use super::hosts::Ranges;
use super::state::{Ask, Fetch, Path, Reading, State};

/// Files up to this size are fetched whole by their first read: one block more or less costs less than a round trip.
pub(super) const SMALL: u64 = 1024 * 1024;

/// A range brings at least so much, or the round trips before them would cost more than they bring side by side; and at
/// most so much, or a reader would be done with the first long before the others are.
const SHORTEST: u64 = 1024 * 1024;
const LONGEST: u64 = 16 * 1024 * 1024;

/// For each range, how far to fetch ahead at least of a reader that reads on, once there are several ranges at once.
pub(super) const WIDE: u64 = 4 * 1024 * 1024;

/// For each range, the window of somebody who waits for the whole file.
const FOR_ALL: u64 = 8 * 1024 * 1024;

/// What the plan needs to know of the world around one file.
pub(super) trait Around {
    /// What the repository's hosts do with ranges, as far as is known.
    fn ranges(&self) -> Option<Ranges>;
    /// How many ranges to fetch side by side.
    fn width(&self) -> usize;
    /// A slot for a read that waits; false puts the content in line.
    fn slot(&mut self) -> bool;
    /// A slot for read-ahead, or not.
    fn slot_ahead(&mut self) -> bool;
}

/// Starts what the waiters need and isn't on its way. Returns the numbers of the downloads to start.
pub(super) fn for_waiters(state: &mut State, around: &mut impl Around) -> Vec<u64> {
    let mut start = Vec::new();
    if state.queued {
        return start;
    }
    let mut waiter = 0;
    while waiter < state.waiters.len() {
        let ask = &state.waiters[waiter];
        let Some((path, from)) = next_for(state, ask, around.ranges(), around.width()) else {
            waiter += 1;
            continue;
        };
        if !around.slot() {
            state.queued = true;
            break;
        }
        // The same waiter is looked at again: a read over two gaps needs two downloads.
        start.push(begin(state, path, from));
    }
    start
}

/// What to start for one waiter; `None` if all it lacks is on its way, or has to wait for what is.
fn next_for(state: &State, ask: &Ask, ranges: Option<Ranges>, width: usize) -> Option<(Path, u64)> {
    let mut from = state.lacks(ask)?;
    // Reads are at most a few blocks long, so this loop is short; asks for everything look at their first gap only.
    while state.is_coming(from) {
        if ask.wants_all() {
            return None;
        }
        let next = (from / BLOCK + 1) * BLOCK;
        from = state.first_missing(next, ask.end)?;
    }
    let is_cold = state.fetches.is_empty() && state.presence.bytes() == 0;
    match ranges {
        // One stream serves all; a byte behind it waits for the stream to end and the next one to begin.
        Some(Ranges::Ignored) if state.has_whole() => return None,
        Some(Ranges::Ignored) => return Some((Path::Whole, first_gap(state))),
        // Before the first answer nobody knows whether a second request would be for the same bytes again.
        None if state.fetches.iter().any(|fetch| !fetch.answered) => return None,
        _ => {}
    }
    let wants_most = ask.offset == 0 && !ask.wants_all() && ask.end >= state.size.div_ceil(2);
    if is_cold && (state.size <= SMALL || wants_most) {
        return Some((Path::Whole, 0));
    }
    let (window, limit) = if ask.wants_all() {
        (Some(FOR_ALL * width as u64), u64::MAX)
    } else {
        let reading = state.readers.get(&ask.reader)?;
        (
            reading.ahead().map(|(position, to)| to - position),
            reading.limit.max(ask.end),
        )
    };
    if let Some(window) = window {
        let block = from / BLOCK;
        if state.is_held(block, 0) {
            // A range is on its way there, but far: a reader doesn't wait for it.
            return (!ask.wants_all()).then(|| (part(state, from, ask.end), block * BLOCK));
        }
        // A stream would bring more than a reader wants that stops before the end.
        if (width > 1 && ranges.is_some()) || limit < state.size {
            let most = (block + range_blocks(window, width)).min(limit.div_ceil(BLOCK));
            let last = state.end_of_run(block, most) - 1;
            return Some((Path::Range { last }, block * BLOCK));
        }
        return Some((Path::Ahead, from / BLOCK * BLOCK));
    }
    Some((part(state, from, ask.end), from / BLOCK * BLOCK))
}

/// The run of missing blocks, not on their way, from `from` to `end`.
fn part(state: &State, from: u64, end: u64) -> Path {
    let first = from / BLOCK;
    let mut last = first;
    while (last + 1) * BLOCK < end && !state.presence.has(last + 1) && !state.is_coming((last + 1) * BLOCK) {
        last += 1;
    }
    Path::Part { last }
}

fn first_gap(state: &State) -> u64 {
    state.presence.next_missing(0).map_or(0, |block| block * BLOCK)
}

/// Starts what a reader that reads on will ask for next, if it isn't there or on its way.
pub(super) fn for_reader(state: &mut State, reader: u64, around: &mut impl Around) -> Vec<u64> {
    let ahead = state
        .readers
        .get(&reader)
        .filter(|reading| reading.failed.is_none())
        .and_then(|reading| Some((reading.ahead()?, reading.limit)));
    match ahead {
        Some((window, limit)) if !state.is_complete() && !state.queued => {
            for_window(state, window, limit, around)
        }
        _ => Vec::new(),
    }
}

/// The same for all readers, and for those that wait for the whole file.
pub(super) fn for_readers(state: &mut State, around: &mut impl Around) -> Vec<u64> {
    let mut start = Vec::new();
    let mut readers: Vec<u64> = state.readers.keys().copied().collect();
    readers.sort_unstable();
    for reader in readers {
        start.append(&mut for_reader(state, reader, around));
    }
    let width = around.width();
    if width > 1 && !state.queued && state.waiters.iter().any(Ask::wants_all) {
        let gap = first_gap(state);
        let to = gap.saturating_add(FOR_ALL * width as u64);
        start.append(&mut for_window(state, (gap, to), u64::MAX, around));
    }
    start
}

/// Fills the window of somebody who reads up to `limit`.
fn for_window(
    state: &mut State,
    (position, to): (u64, u64),
    limit: u64,
    around: &mut impl Around,
) -> Vec<u64> {
    let (path, from) = match around.ranges() {
        None if state.fetches.iter().any(|fetch| !fetch.answered) => return Vec::new(),
        Some(Ranges::Ignored) if state.has_whole() => return Vec::new(),
        Some(Ranges::Ignored) => (Path::Whole, first_gap(state)),
        Some(Ranges::Honoured) if around.width() > 1 => {
            return ranges(state, (position, to), limit, around);
        }
        _ => {
            // Half a window of what is there is enough to begin the next request in time.
            let near = position + (to - position) / 2;
            let Some(gap) = state.presence.next_missing(position / BLOCK) else {
                return Vec::new();
            };
            let gap = gap * BLOCK;
            let is_coming = state.is_coming(gap.max(position)) || state.is_held(gap / BLOCK, 0);
            if gap >= near.min(state.size) || is_coming {
                return Vec::new();
            }
            if limit < state.size {
                let block = gap / BLOCK;
                let most = (block + range_blocks(to - position, 1)).min(limit.div_ceil(BLOCK));
                let last = state.end_of_run(block, most.max(block + 1)) - 1;
                (Path::Range { last }, gap)
            } else {
                (Path::Ahead, gap)
            }
        }
    };
    if around.slot_ahead() {
        vec![begin(state, path, from)]
    } else {
        Vec::new()
    }
}

/// Fills a window with ranges side by side. The last one begins in the window and may end beyond it.
fn ranges(state: &mut State, (position, to): (u64, u64), limit: u64, around: &mut impl Around) -> Vec<u64> {
    let mut start = Vec::new();
    let width = around.width();
    let length = range_blocks(to - position, width);
    let mut from = position / BLOCK;
    while let Some(block) = state.next_unplanned(from, length) {
        // A stream that goes on from before there were ranges is one of them; ranges about to end are none.
        let side_by_side = state
            .fetches
            .iter()
            .filter(|fetch| !matches!(fetch.path, Path::Part { .. }) && !fetch.ending)
            .count();
        if block * BLOCK >= to || side_by_side >= width || !around.slot_ahead() {
            break;
        }
        let end = state.end_of_run(block, (block + length).min(limit.div_ceil(BLOCK)));
        start.push(begin(state, Path::Range { last: end - 1 }, block * BLOCK));
        from = end;
    }
    start
}

/// How many blocks a range has: small ones while the window is small, so that all of it comes side by side.
fn range_blocks(window: u64, width: usize) -> u64 {
    (window / width as u64).clamp(SHORTEST, LONGEST) / BLOCK
}

fn begin(state: &mut State, path: Path, position: u64) -> u64 {
    let id = state.fresh_id();
    state.fetches.push(Fetch {
        id,
        generation: state.generation,
        path,
        answered: false,
        begin: position,
        position,
        filling: None,
        started: Instant::now(),
        received: 0,
        note: None,
        ending: false,
    });
    id
}

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
    if stranded && fetch.path == Path::Whole {
        // Its host sends nothing but whole files, so the byte behind has to wait until this one ends.
        return Verdict::Stop;
    }
    let is_read_towards = state.readers.values().any(|reader| {
        reader
            .ahead()
            .is_some_and(|(position, to)| fetch.floor() < to && near_stream(fetch, position))
    });
    if is_read_towards || (fetch.path == Path::Whole && state.is_worth_finishing()) {
        Verdict::Ahead
    } else {
        Verdict::Enough
    }
}

/// A range goes on while a reader is on its way there. It never pauses: it is short, and the next ones are not begun.
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
            .any(|(position, to)| position < end && fetch.begins_before(to))
    };
    if is_read_towards() || is_waited_for() {
        Verdict::Demanded
    } else {
        Verdict::Stop
    }
}

/// A reader behind a stream is served by it, however far behind, if it is the stream's own or the only stream. Only
/// readers in front of it need a look.
fn near_stream(fetch: &Fetch, position: u64) -> bool {
    fetch.path == Path::Whole || fetch.covers(position.max(fetch.floor()))
}

#[cfg(test)]
mod tests {
    use super::super::blocks::BLOCK;
    use super::super::readahead::Pattern;
    use super::super::state::Purpose;
    use super::*;
    use crate::repository::model::{FilePlace, Owner, RecordId};

    const SIZE: u64 = 100 * SMALL;

    struct Fake {
        ranges: Option<Ranges>,
        slots: usize,
        width: usize,
    }

    impl Around for Fake {
        fn ranges(&self) -> Option<Ranges> {
            self.ranges
        }
        fn width(&self) -> usize {
            self.width
        }
        fn slot(&mut self) -> bool {
            self.slots = self.slots.wrapping_sub(1);
            self.slots != usize::MAX
        }
        fn slot_ahead(&mut self) -> bool {
            self.slot()
        }
    }

    fn with_reads(ranges: Option<Ranges>, slots: usize, reads: &[(u64, u64)]) -> (State, Vec<Path>) {
        let place = FilePlace {
            owner: Owner::Record(RecordId::new("abcde-12345").unwrap()),
            key: "a".into(),
        };
        let mut state = State::new(place, SIZE, true);
        let mut around = Fake {
            ranges,
            slots,
            width: 1,
        };
        for (i, (offset, length)) in reads.iter().enumerate() {
            let reader = i as u64;
            let reading = Reading {
                pattern: Pattern::Fresh,
                limit: u64::MAX,
                share: None,
                since: 0,
                failed: None,
            };
            state.readers.insert(reader, reading);
            let reply = Purpose::Read(Box::new(|_| {}));
            state
                .waiters
                .push(Ask::new(reader, *offset, offset + length, reply));
            for_waiters(&mut state, &mut around);
        }
        let paths = state.fetches.iter().map(|fetch| fetch.path).collect();
        (state, paths)
    }

    #[test]
    fn before_the_first_answer_only_one_request_is_made() {
        let (mut state, paths) = with_reads(None, 9, &[(50 * BLOCK, 10), (90 * BLOCK, 10)]);
        assert_eq!(paths, [Path::Part { last: 50 }]);
        // What it told decides what comes next.
        state.fetches[0].answered = true;
        let ranges = Some(Ranges::Honoured);
        assert_eq!(
            for_waiters(
                &mut state,
                &mut Fake {
                    ranges,
                    slots: 9,
                    width: 1
                }
            )
            .len(),
            1
        );
        assert_eq!(state.fetches[1].path, Path::Part { last: 90 });
    }

    #[test]
    fn a_read_gets_its_missing_blocks_and_no_more() {
        let reads = [
            (50 * BLOCK + 5, 2 * BLOCK),
            (51 * BLOCK, BLOCK),
            (52 * BLOCK, 2 * BLOCK),
        ];
        let (_, paths) = with_reads(Some(Ranges::Honoured), 9, &reads);
        assert_eq!(paths, [Path::Part { last: 52 }, Path::Part { last: 53 }]);
    }

    #[test]
    fn a_reader_that_stops_before_the_end_gets_nothing_beyond() {
        let limit = 3 * SMALL + BLOCK + 5;
        for (width, ranges) in [
            (1, None),
            (1, Some(Ranges::Honoured)),
            (4, Some(Ranges::Honoured)),
        ] {
            let (mut state, _) = with_reads(ranges, 9, &[(0, 10)]);
            state.waiters.clear();
            state.fetches.clear();
            let reading = state.readers.get_mut(&0).unwrap();
            reading.limit = limit;
            reading.pattern.note(0, SMALL, SIZE);
            reading.pattern.note(SMALL, SMALL, SIZE);
            let mut around = Fake {
                ranges,
                slots: 9,
                width,
            };
            let reply = Purpose::Read(Box::new(|_| {}));
            state.waiters.push(Ask::new(0, 2 * SMALL, 2 * SMALL + 10, reply));
            for_waiters(&mut state, &mut around);
            for_reader(&mut state, 0, &mut around);
            assert!(!state.fetches.is_empty());
            for fetch in &state.fetches {
                let Path::Range { last } = fetch.path else {
                    panic!("{:?}", fetch.path);
                };
                assert!(last <= limit / BLOCK, "{last} of {}", limit / BLOCK);
            }
        }
    }

    #[test]
    fn a_server_without_ranges_sends_one_stream_for_all() {
        let reads = [(50 * BLOCK, 10), (90 * BLOCK, 10), (0, 10)];
        let (state, paths) = with_reads(Some(Ranges::Ignored), 9, &reads);
        assert_eq!(paths, [Path::Whole]);
        assert_eq!(state.fetches[0].position, 0);
    }

    #[test]
    fn without_a_slot_the_file_stands_in_line_once() {
        let reads = [(50 * BLOCK, 10), (90 * BLOCK, 10), (0, 10)];
        let (state, paths) = with_reads(Some(Ranges::Honoured), 1, &reads);
        assert_eq!(paths.len(), 1);
        assert!(state.queued);
        assert_eq!(state.waiters.len(), 3);
    }

    #[test]
    fn a_stream_goes_on_while_a_reader_is_near_and_stops_when_all_have_left() {
        let (mut state, _) = with_reads(Some(Ranges::Honoured), 9, &[(0, 10)]);
        state.waiters.clear();
        let id = state.fetches[0].id;
        state.fetches[0].path = Path::Ahead;
        assert_eq!(judge(&state, id), Verdict::Enough, "nobody reads on");
        let reading = state.readers.get_mut(&0).unwrap();
        reading.pattern.note(0, 100, SMALL);
        reading.pattern.note(100, 100, SMALL);
        assert_eq!(judge(&state, id), Verdict::Ahead);
        state.fetches[0].position = 2 * SMALL;
        assert_eq!(judge(&state, id), Verdict::Enough, "a window ahead");
        state.readers.clear();
        assert_eq!(judge(&state, id), Verdict::Stop);
        // A stream of the whole goes on if little is missing, and stops if much is.
        state.fetches[0].path = Path::Whole;
        assert_eq!(judge(&state, id), Verdict::Stop);
        for block in 0..SIZE / BLOCK / 2 {
            state.presence.set(block, true);
        }
        assert_eq!(judge(&state, id), Verdict::Ahead);
    }
}
