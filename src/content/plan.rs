//! The ladder's decisions: what to fetch for whom. Pure but for taking slots.
//!
//! Called under the content's lock by `file.rs` (a read came) and `fetch.rs` (an answer came). Whether a download goes on is
//! `judge.rs`'s; the tests of both are here.
//! It must never do I/O; starting the threads it asks for is the caller's, after unlocking.

use std::time::Instant;

use super::ask::Ask;
use super::blocks::BLOCK;
use super::hosts::Ranges;
use super::state::{Fetch, Path, Reading, State};
use super::thrift::Shape;

/// Files up to this size are fetched whole by their first read: one block more or less costs less than a round trip.
pub(super) const SMALL: u64 = 1024 * 1024;

/// A range brings at least so much, or the round trips before them would cost more than they bring side by side; and at
/// most so much, or a reader would be done with the first long before the others are.
const SHORTEST: u64 = 512 * 1024;
pub(super) const LONGEST: u64 = 16 * 1024 * 1024;

/// The last ranges of a file bring at least so much. Shorter ones would end together, but after a wait for each.
const SHORTEST_LAST: u64 = 1024 * 1024;

/// How far to fetch ahead at first of a reader that reads on, over so many connections: if each brought less, it would
/// spend more time on waiting for answers than on what they bring.
pub(super) fn first_window(width: usize) -> u64 {
    1024 * 1024 * width as u64
}

/// For each range, the window of somebody who waits for the whole file.
const FOR_ALL: u64 = 8 * 1024 * 1024;

/// What the plan needs to know of the world around one file.
pub(super) trait Around {
    /// What the repository's hosts do with ranges, as far as is known.
    fn ranges(&self) -> Option<Ranges>;
    /// How many ranges to fetch side by side.
    fn width(&self) -> usize;
    /// How to cut a window of so many bytes into ranges.
    fn shape(&self, window: u64) -> Shape;
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
        cut_for(state, waiter);
        let ask = &state.waiters[waiter];
        let Some(next) = next_for(state, ask, around) else {
            waiter += 1;
            continue;
        };
        if !around.slot() {
            state.queued = true;
            break;
        }
        // The same waiter is looked at again: a read over two gaps needs two downloads.
        start.push(begin(state, next));
    }
    start
}

/// A range that is held back for one reader ends where another one reads on, far beyond: that one would get its blocks by a
/// request for each.
fn cut_for(state: &mut State, waiter: usize) {
    let ask = &state.waiters[waiter];
    let reads_on = |reading: &Reading| reading.pattern.ahead().is_some();
    if ask.wants_all() || !state.readers.get(&ask.reader).is_some_and(reads_on) {
        return;
    }
    let Some(from) = state.lacks(ask) else { return };
    let block = from / BLOCK;
    for fetch in &mut state.fetches {
        // What it holds but doesn't cover is some blocks from where it is.
        if fetch.held_back && fetch.holds(block) && !fetch.covers(from) {
            fetch.path = Path::Range { last: block - 1 };
        }
    }
}

/// A download to begin.
#[derive(Clone, Copy)]
struct Next {
    path: Path,
    /// The first byte.
    from: u64,
    /// It is longer than the window, and pauses at its end.
    held_back: bool,
}

impl Next {
    fn new(path: Path, from: u64) -> Self {
        Next {
            path,
            from,
            held_back: false,
        }
    }
}

/// What to start for one waiter; `None` if all it lacks is on its way, or has to wait for what is.
fn next_for(state: &State, ask: &Ask, around: &impl Around) -> Option<Next> {
    let (ranges, width) = (around.ranges(), around.width());
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
        Some(Ranges::Ignored) => return Some(Next::new(Path::Whole, first_gap(state))),
        // Before the first answer nobody knows whether a second request would be for the same bytes again.
        None if state.fetches.iter().any(|fetch| !fetch.answered) => return None,
        _ => {}
    }
    let wants_most = ask.offset == 0 && !ask.wants_all() && ask.end >= state.size.div_ceil(2);
    if is_cold && (state.size <= SMALL || wants_most) {
        return Some(Next::new(Path::Whole, 0));
    }
    let window = if ask.wants_all() {
        Some((from, from.saturating_add(FOR_ALL * width as u64)))
    } else {
        state.readers.get(&ask.reader)?.ahead()
    };
    let block = from / BLOCK;
    if let Some((position, to)) = window {
        if state.is_held(block, 0) {
            // A range is on its way there, but far: a reader doesn't wait for it.
            return (!ask.wants_all()).then(|| Next::new(part(state, from, ask.end), block * BLOCK));
        }
        let window = to - position;
        let shape = around.shape(window);
        let length = range_blocks(state, block, window, shape);
        let held_back = shape.least > 0;
        let needed = if held_back {
            u64::MAX
        } else {
            ask.end.max(to).div_ceil(BLOCK)
        };
        let end = state.end_of_run(block, (block + length).min(needed));
        return Some(Next {
            path: Path::Range { last: end - 1 },
            from: block * BLOCK,
            held_back,
        });
    }
    Some(Next::new(part(state, from, ask.end), block * BLOCK))
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
    let start = match ahead {
        Some((window, limit)) if !state.is_complete() && !state.queued => {
            for_window(state, window, limit, around)
        }
        _ => Vec::new(),
    };
    state.count_ahead(reader);
    start
}

/// The same for all readers, and for those that wait for the whole file.
pub(super) fn for_readers(state: &mut State, around: &mut impl Around) -> Vec<u64> {
    let mut start = Vec::new();
    let mut readers: Vec<u64> = state.readers.keys().copied().collect();
    readers.sort_unstable();
    for reader in readers {
        start.append(&mut for_reader(state, reader, around));
    }
    if !state.queued && state.waiters.iter().any(Ask::wants_all) {
        let gap = first_gap(state);
        let to = gap.saturating_add(FOR_ALL * around.width() as u64);
        start.append(&mut for_window(state, (gap, to), u64::MAX, around));
    }
    start
}

/// Fills the window of somebody who stops at `limit`, if not before.
fn for_window(state: &mut State, window: (u64, u64), limit: u64, around: &mut impl Around) -> Vec<u64> {
    match around.ranges() {
        None if state.fetches.iter().any(|fetch| !fetch.answered) => Vec::new(),
        Some(Ranges::Ignored) if state.has_whole() || state.is_complete() => Vec::new(),
        Some(Ranges::Ignored) if !around.slot_ahead() => Vec::new(),
        Some(Ranges::Ignored) => {
            let from = first_gap(state);
            vec![begin(state, Next::new(Path::Whole, from))]
        }
        _ => ranges(state, window, limit, around),
    }
}

/// Fills a window with ranges side by side.
fn ranges(state: &mut State, (position, to): (u64, u64), limit: u64, around: &mut impl Around) -> Vec<u64> {
    let mut start = Vec::new();
    let window = to - position;
    let shape = around.shape(window);
    let (width, held_back) = (shape.width, shape.least > 0);
    // A small window is kept to. In a large one, the last range may end beyond it: else a connection would lie idle until
    // the reader is at the end of the first.
    let may_end_beyond = width > 1 && window >= LONGEST;
    let last = limit.min(state.size);
    let to = to.min(last);
    let mut from = position / BLOCK;
    while let Some(block) = state.next_unplanned(from) {
        let length = range_blocks(state, block, window, shape);
        let fits = (block + length) * BLOCK <= to.next_multiple_of(BLOCK)
            || to == last
            || may_end_beyond
            || held_back;
        // Ranges about to end have successors.
        let side_by_side = state
            .fetches
            .iter()
            .filter(|fetch| matches!(fetch.path, Path::Range { .. }) && !fetch.ending)
            .count();
        if block * BLOCK >= to || !fits || side_by_side >= width || !around.slot_ahead() {
            break;
        }
        let end = state.end_of_run(block, (block + length).min(last.div_ceil(BLOCK)));
        let next = Next {
            path: Path::Range { last: end - 1 },
            from: block * BLOCK,
            held_back,
        };
        start.push(begin(state, next));
        from = end;
    }
    start
}

/// How many blocks a range has that begins with `block`: a connection's part of the window, or of what is left of the
/// file, so that all of them end at about the same time.
fn range_blocks(state: &State, block: u64, window: u64, shape: Shape) -> u64 {
    let left = state.size - block * BLOCK;
    if shape.least > 0 {
        return shape.least.clamp(BLOCK, left.max(BLOCK)).div_ceil(BLOCK);
    }
    let rest = (left / shape.width as u64).max(SHORTEST_LAST);
    part_of(window, shape.width).min(rest).div_ceil(BLOCK)
}

/// How many bytes of a window one of so many ranges brings.
pub(super) fn part_of(window: u64, width: usize) -> u64 {
    // A third of the window is left to those that are done before the first: else they would wait for it. A single one
    // leaves room for its successor.
    let part = match width as u64 {
        0 | 1 => window / 2,
        width => window * 2 / (3 * width),
    };
    part.clamp(SHORTEST.min(window), LONGEST)
}

/// Where a range ends that was to be the whole file, when its host honours ranges after all.
pub(super) fn cut(state: &State, from: u64) -> Path {
    let end = (from + LONGEST).min(state.size);
    Path::Range {
        last: end.div_ceil(BLOCK) - 1,
    }
}

fn begin(state: &mut State, next: Next) -> u64 {
    let Next {
        path,
        from,
        held_back,
    } = next;
    let id = state.fresh_id();
    state.fetches.push(Fetch {
        id,
        generation: state.generation,
        path,
        answered: false,
        begin: from,
        position: from,
        filling: None,
        shown: false,
        doubted: false,
        started: Instant::now(),
        received: 0,
        note: None,
        ending: false,
        held_back,
    });
    id
}

#[cfg(test)]
mod tests {
    use super::super::ask::Purpose;
    use super::super::blocks::BLOCK;
    use super::super::judge::{Verdict, judge};
    use super::super::readahead::Pattern;
    use super::*;
    use crate::repository::model::{FilePlace, Owner, RecordId};

    const SIZE: u64 = 100 * SMALL;

    struct Fake {
        ranges: Option<Ranges>,
        slots: usize,
        width: usize,
        least: u64,
    }

    impl Around for Fake {
        fn ranges(&self) -> Option<Ranges> {
            self.ranges
        }
        fn width(&self) -> usize {
            self.width
        }
        fn shape(&self, _: u64) -> Shape {
            Shape {
                width: self.width,
                least: self.least,
            }
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
            least: 0,
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
                    width: 1,
                    least: 0
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
                least: 0,
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

    /// A reader at the start of a file that reads on, of a host with ranges or without.
    fn reading_on(ranges: Ranges) -> State {
        let (mut state, _) = with_reads(Some(ranges), 9, &[(0, 10)]);
        state.waiters.clear();
        let reading = state.readers.get_mut(&0).unwrap();
        reading.pattern.note(0, SMALL, 8 * SMALL);
        reading.pattern.note(SMALL, SMALL, 8 * SMALL);
        state
    }

    #[test]
    fn a_stream_of_the_whole_goes_on_for_a_reader_that_reads_on_and_stops_when_all_have_left() {
        let mut state = reading_on(Ranges::Ignored);
        let id = state.fetches[0].id;
        assert_eq!(judge(&state, id), Verdict::Ahead);
        state.fetches[0].position = SIZE / 2;
        assert_eq!(judge(&state, id), Verdict::Ahead, "it would have to begin again");
        state.has_room = false;
        assert_eq!(judge(&state, id), Verdict::Enough, "more than a window ahead");
        state.readers.get_mut(&0).unwrap().pattern = Pattern::Fresh;
        state.has_room = true;
        assert_eq!(judge(&state, id), Verdict::Enough, "nobody reads on");
        state.readers.clear();
        assert_eq!(judge(&state, id), Verdict::Stop);
        // If little is missing, that is fetched nevertheless.
        for block in 0..SIZE / BLOCK / 2 {
            state.presence.set(block, true);
        }
        assert_eq!(judge(&state, id), Verdict::Ahead);
    }

    #[test]
    fn ranges_fill_a_window_side_by_side_and_stop_with_their_reader() {
        let mut state = reading_on(Ranges::Honoured);
        state.fetches.clear();
        let mut around = Fake {
            ranges: Some(Ranges::Honoured),
            slots: 99,
            width: 4,
            least: 0,
        };
        let ids = for_readers(&mut state, &mut around);
        let (position, to) = state.readers[&0].pattern.ahead().unwrap();
        assert_eq!(ids.len(), 4);
        assert_eq!(state.fetches[0].begin, position);
        for pair in state.fetches.windows(2) {
            let Path::Range { last } = pair[0].path else {
                panic!("{:?}", pair[0].path)
            };
            assert_eq!(pair[1].begin, (last + 1) * BLOCK);
        }
        assert!(matches!(state.fetches[3].path, Path::Range { last } if (last + 1) * BLOCK <= to));
        assert!(ids.iter().all(|id| judge(&state, *id) == Verdict::Demanded));
        state
            .readers
            .get_mut(&0)
            .unwrap()
            .pattern
            .note(SIZE - 10, 10, SMALL);
        assert!(
            ids.iter().all(|id| judge(&state, *id) == Verdict::Stop),
            "it jumped"
        );
    }

    #[test]
    fn a_range_beyond_the_window_pauses_there_and_ends_where_another_reader_reads_on() {
        let mut state = reading_on(Ranges::Honoured);
        state.fetches.clear();
        let mut around = Fake {
            ranges: Some(Ranges::Honoured),
            slots: 99,
            width: 1,
            least: SIZE / 2,
        };
        let ids = for_readers(&mut state, &mut around);
        assert_eq!(ids.len(), 1);
        let (position, to) = state.readers[&0].pattern.ahead().unwrap();
        let last = (position + SIZE / 2) / BLOCK - 1;
        assert_eq!(state.fetches[0].path, Path::Range { last });
        assert_eq!(judge(&state, ids[0]), Verdict::Demanded);
        state.fetches[0].position = to;
        assert_eq!(judge(&state, ids[0]), Verdict::Enough, "held back");
        // Somebody else reads on far beyond.
        let (mut other, _) = with_reads(Some(Ranges::Honoured), 9, &[(0, 10)]);
        let mut reading = other.readers.remove(&0).unwrap();
        let far = SIZE / 4;
        reading.pattern.note(far, SMALL, SMALL);
        reading.pattern.note(far + SMALL, SMALL, SMALL);
        state.readers.insert(1, reading);
        let reply = Purpose::Read(Box::new(|_| {}));
        state
            .waiters
            .push(Ask::new(1, far + 2 * SMALL, far + 3 * SMALL, reply));
        let ids = for_waiters(&mut state, &mut around);
        let block = (far + 2 * SMALL) / BLOCK;
        assert_eq!(state.fetches[0].path, Path::Range { last: block - 1 });
        assert_eq!(ids.len(), 1);
        assert!(matches!(state.fetches[1].path, Path::Range { last } if last >= block));
        assert_eq!(state.fetches[1].begin, block * BLOCK);
    }

    #[test]
    fn ranges_get_shorter_towards_the_end_of_the_file() {
        let (state, _) = with_reads(Some(Ranges::Honoured), 9, &[]);
        let all = |from: u64| range_blocks(&state, from, 128 * SMALL, Shape { width: 4, least: 0 }) * BLOCK;
        assert_eq!(all(0), LONGEST);
        let blocks = SIZE / BLOCK;
        assert_eq!(all(blocks - 32), 2 * SMALL, "a fourth of the last 8 MiB");
        assert_eq!(all(blocks - 1), SHORTEST_LAST);
    }
}
