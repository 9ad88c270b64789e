//! Whether a reader reads on, and how far ahead of it to fetch. Pure: no clock, no lock, no I/O.
//!
//! One `Pattern` for each reader; `file.rs` notes every read in it, `plan.rs` asks it how far to go.

/// The first window over one connection.
const FIRST: u64 = 1024 * 1024;

/// What a window grows by, as a part of what was read in order: so a reader that stops was fetched at most half as much
/// again as it read, and the first window.
const EARNED: u64 = 2;

/// The same for a reader that jumped to where it reads: it reads a part, and will stop sooner.
const EARNED_BY_PART: u64 = 4;

/// How far out of order the pieces of one sequential reader arrive. The kernel asks in pieces of 128 or 256 KiB, up to four
/// at a time, from several threads, so that one may overtake another (`mount/kernel.rs` says how far it reads ahead).
const SLACK: u64 = 512 * 1024;

/// Smaller reads must follow each other exactly to count as sequential; the kernel's read-ahead pieces need not.
const PIECE: u64 = 64 * 1024;

/// So many jumps among the last eight reads of data are several readers.
const MANY: u32 = 3;

/// What the reads of one open file look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Nothing was read yet.
    Fresh,
    /// Here and there, or from the end to the start.
    Random {
        /// The last run, mostly one read.
        run: Run,
        /// How long the last read was.
        length: u64,
    },
    /// One piece after the other.
    Sequential {
        /// What was read in order.
        run: Run,
        /// The window it began with.
        first: u64,
        /// How much more it has earned.
        earned: u64,
        /// The largest window.
        largest: u64,
    },
}

/// Bytes read one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    from: u64,
    /// The furthest byte read.
    end: u64,
    /// How long the run before was, if there was one. A strided reader, or one that reads blocks from the end to the start,
    /// will stop there again, so no more is fetched until it does not.
    before: Option<u64>,
    /// Which of the last reads of data jumped, the latest in the lowest bit.
    jumps: u8,
}

impl Run {
    fn first(from: u64, end: u64) -> Self {
        Run {
            from,
            end,
            before: None,
            jumps: 0,
        }
    }

    /// The one after this, which began with a jump.
    fn next(self, from: u64, end: u64) -> Self {
        let jump = u8::from(end - from >= PIECE);
        Run {
            from,
            end,
            before: Some(self.length()),
            jumps: self.jumps << jump | jump,
        }
    }

    fn length(&self) -> u64 {
        self.end - self.from
    }

    /// With a read that goes on, or fills in.
    fn with(self, offset: u64, end: u64) -> Self {
        Run {
            from: self.from.min(offset),
            end: self.end.max(end),
            jumps: self.jumps << 1,
            ..self
        }
    }

    /// Whether it is one of several that are read in turns, as by several threads of a program that reads columns. Each has
    /// its own, and what is fetched ahead of one is in the way of what the others wait for.
    fn is_one_of_many(&self) -> bool {
        self.jumps.count_ones() >= MANY
    }

    /// Whether the run before was so short that it tells nothing of how long this one will be: a look into an index.
    fn before_was_a_look(&self) -> bool {
        self.before.is_some_and(|before| before < PIECE)
    }

    /// How much more of it is worth having. Whoever reads data here and data there, perhaps from several threads, gets at
    /// most as much again as it read here.
    fn most(&self) -> u64 {
        if self.before.is_some_and(|before| before >= PIECE) {
            self.length()
        } else {
            u64::MAX
        }
    }

    /// Where it will likely end.
    fn likely_end(&self) -> Option<u64> {
        let before = self.before.filter(|before| self.length() <= *before)?;
        Some(self.from.saturating_add(before))
    }
}

impl Pattern {
    /// Notes a read. `largest` limits the window.
    pub(super) fn note(&mut self, offset: u64, length: u64, largest: u64) {
        let read_end = offset.saturating_add(length);
        *self = match *self {
            Pattern::Fresh => Pattern::Random {
                run: Run::first(offset, read_end),
                length,
            },
            Pattern::Random { run, length: last } => {
                let near = offset.abs_diff(run.end) <= SLACK && length >= PIECE && last >= PIECE;
                if offset == run.end || (near && read_end > run.end) {
                    go_on(run.with(offset, read_end), FIRST, 0, largest)
                } else if near {
                    // One of the kernel's pieces late, or a reader on its way back: the next one will tell.
                    Pattern::Random { run, length }
                } else {
                    Pattern::Random {
                        run: run.next(offset, read_end),
                        length,
                    }
                }
            }
            Pattern::Sequential {
                run, first, earned, ..
            } => {
                let window = window_of(first, earned).min(largest);
                let reach = window.max(SLACK);
                if offset.abs_diff(run.end) > reach {
                    Pattern::Random {
                        run: run.next(offset, read_end),
                        length,
                    }
                } else if offset > run.end.saturating_add(SLACK.max(length)) {
                    // A small step over some bytes. The window stays; if the runs between steps are short, it is not used.
                    let before = Some(run.length()).filter(|run| *run < window);
                    Pattern::Sequential {
                        run: Run {
                            before,
                            ..Run::first(offset, read_end)
                        },
                        first,
                        earned,
                        largest,
                    }
                } else {
                    go_on(run.with(offset.max(run.from), read_end), first, earned, largest)
                }
            }
        };
    }

    /// Where the reader is: the end of its last, or furthest, read.
    pub(super) fn position(&self) -> u64 {
        match *self {
            Pattern::Fresh => 0,
            Pattern::Random { run, .. } | Pattern::Sequential { run, .. } => run.end,
        }
    }

    /// Whether it has a window.
    pub(super) fn is_sequential(&self) -> bool {
        matches!(self, Pattern::Sequential { .. })
    }

    /// Begins with a larger window: over several connections, each needs room in it. Not for a reader that jumped from
    /// other data: it may jump again, as programs do that read parts of a file, and what is ahead of it is lost each time.
    /// Who only looked something up, and reads more now than that took, has found what it reads.
    pub(super) fn widen(&mut self, to: u64) {
        if let Pattern::Sequential { run, first, .. } = self
            && (run.before.is_none() || (run.before_was_a_look() && run.length() >= PIECE))
        {
            *first = FIRST.max(to);
        }
    }

    /// The bytes worth having before they are asked for, from the reader's position on; `None` for random readers.
    pub(super) fn ahead(&self) -> Option<(u64, u64)> {
        let Pattern::Sequential {
            run,
            first,
            earned,
            largest,
        } = *self
        else {
            return None;
        };
        if run.is_one_of_many() {
            return None;
        }
        let window = window_of(first, earned).min(largest).min(run.most());
        let most = run.likely_end().unwrap_or(u64::MAX);
        let to = run.end.saturating_add(window).min(most);
        (to > run.end).then_some((run.end, to))
    }
}

/// What a reader has earned on top of the smallest first window, or the first window that it was given, if that is larger:
/// that one is for the connections, which all have to have something to do.
fn window_of(first: u64, earned: u64) -> u64 {
    first.max(FIRST.saturating_add(earned))
}

fn go_on(run: Run, first: u64, earned: u64, largest: u64) -> Pattern {
    let part = match run.before {
        Some(_) => EARNED_BY_PART,
        None => EARNED,
    };
    Pattern::Sequential {
        run,
        first,
        earned: earned.max(run.length() / part),
        largest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1024;
    const MAX: u64 = 32 * K * K;

    fn after(reads: &[(u64, u64)]) -> Pattern {
        let mut pattern = Pattern::Fresh;
        for (offset, length) in reads {
            pattern.note(*offset, *length, MAX);
        }
        pattern
    }

    #[test]
    fn one_read_earns_nothing_and_the_next_in_order_a_mebibyte() {
        assert_eq!(after(&[(0, 128 * K)]).ahead(), None);
        assert_eq!(
            after(&[(0, 128 * K), (128 * K, 128 * K)]).ahead(),
            Some((256 * K, 256 * K + FIRST + 128 * K))
        );
        assert_eq!(
            after(&[(5000, 10), (5010, 10)]).ahead(),
            Some((5020, 5030 + FIRST))
        );
    }

    #[test]
    fn the_kernels_pieces_may_come_out_of_order() {
        let pieces = [0u64, 2, 1, 3, 6, 5, 4, 7].map(|n| (n * 128 * K, 128 * K));
        for n in 2..=pieces.len() {
            assert!(after(&pieces[..n]).ahead().is_some(), "after {n}");
        }
        assert_eq!(after(&pieces).position(), 1024 * K);
    }

    #[test]
    fn a_large_piece_that_overtakes_another_costs_nothing_of_the_window() {
        let mut pattern = Pattern::Fresh;
        let mut reached = 0;
        for n in [0, 1, 3, 2, 5, 4, 6] {
            pattern.note(n * K * K, K * K, MAX);
            let to = pattern.ahead().map_or(0, |(_, to)| to);
            assert!(to >= reached, "after {n}");
            reached = to;
        }
        assert!(reached > 8 * K * K);
    }

    #[test]
    fn small_reads_close_together_are_not_sequential() {
        assert_eq!(after(&[(0, 4096), (8 * K, 4096), (100 * K, 4096)]).ahead(), None);
    }

    #[test]
    fn a_jump_ends_the_run() {
        let pattern = after(&[(0, 128 * K), (128 * K, 128 * K), (80 * MAX, 128 * K)]);
        assert_eq!(pattern.ahead(), None);
        assert_eq!(pattern.position(), 80 * MAX + 128 * K);
    }

    #[test]
    fn a_window_is_half_of_what_was_read_and_the_first_up_to_its_limit() {
        let mut pattern = Pattern::Fresh;
        let mut largest = 0;
        for n in 0..2000 {
            pattern.note(n * 128 * K, 128 * K, MAX);
            if let Some((from, to)) = pattern.ahead() {
                assert_eq!(to - from, (FIRST + from / 2).min(MAX));
                largest = to - from;
            }
        }
        assert_eq!(largest, MAX);
    }

    #[test]
    fn a_small_limit_is_kept_from_the_start() {
        let mut pattern = Pattern::Fresh;
        for n in 0..100 {
            pattern.note(n * K, K, 10 * K);
        }
        let (from, to) = pattern.ahead().unwrap();
        assert_eq!(to - from, 10 * K);
    }

    #[test]
    fn a_reader_on_its_way_back_earns_nothing() {
        for length in [4 * K, 64 * K, 128 * K, 1024 * K] {
            let mut pattern = Pattern::Fresh;
            for n in (0..100).rev() {
                pattern.note(n * length, length, MAX);
                assert_eq!(pattern.ahead(), None, "{length} at {n}");
            }
        }
    }

    #[test]
    fn many_connections_widen_the_first_window_of_who_has_not_jumped() {
        let first = |mut pattern: Pattern| {
            pattern.widen(4 * FIRST);
            let (from, to) = pattern.ahead().unwrap();
            to - from
        };
        assert_eq!(first(after(&[(0, 128 * K), (128 * K, 128 * K)])), 4 * FIRST);
        let jumped = after(&[(MAX, 128 * K), (0, 128 * K), (128 * K, 128 * K)]);
        assert_eq!(first(jumped), 256 * K, "as much again as it read");
    }

    #[test]
    fn who_looked_something_up_and_then_reads_on_is_a_sequential_reader() {
        let mut pattern = after(&[(0, 16 * K), (9 * MAX, 4 * K), (5 * MAX, 4 * K), (7 * MAX, 8 * K)]);
        assert_eq!(pattern.ahead(), None);
        pattern.note(7 * MAX + 8 * K, 256 * K, MAX);
        pattern.widen(4 * FIRST);
        let (from, to) = pattern.ahead().unwrap();
        assert_eq!(to - from, 4 * FIRST);
        // It has a part of the file before it, and stops sooner than one that began at the file's start.
        for number in 1..64 {
            pattern.note(7 * MAX + 8 * K + number * 256 * K, 256 * K, MAX);
        }
        let (from, to) = pattern.ahead().unwrap();
        assert_eq!(to - from, FIRST + (16 * 1024 * K + 8 * K) / 4);
        // Two small pieces are a look too.
        let mut pattern = after(&[(9 * MAX, 4 * K), (7 * MAX, 8 * K), (7 * MAX + 8 * K, 8 * K)]);
        pattern.widen(4 * FIRST);
        let (from, to) = pattern.ahead().unwrap();
        assert_eq!(to - from, FIRST + 4 * K);
    }

    #[test]
    fn who_reads_data_here_and_there_gets_at_most_as_much_again_as_it_reads() {
        // The beginnings of some columns, then each of them in turn, in the kernel's pieces.
        let columns = 16;
        let piece = 256 * K;
        let mut pattern = Pattern::Fresh;
        let mut wanted = 0;
        for column in 0..columns {
            pattern.note(column * MAX, piece, MAX);
            assert_eq!(pattern.ahead(), None);
        }
        for column in 0..columns {
            for number in 1..6 {
                let offset = column * MAX + number * piece;
                pattern.note(offset, piece, MAX);
                pattern.widen(4 * FIRST);
                if let Some((from, to)) = pattern.ahead() {
                    assert!(to - from <= number * piece, "{to} after {number} of {column}");
                    wanted = wanted.max(to - column * MAX);
                }
            }
        }
        assert!((6 * piece..=10 * piece).contains(&wanted), "{wanted}");
        // Several threads read columns at the same time.
        for number in 1..6 {
            for column in 100..108 {
                pattern.note(column * MAX + number * piece, piece, MAX);
                assert_eq!(pattern.ahead(), None);
            }
        }
        // Long runs are read ahead of as ever.
        for number in 0..4000 {
            pattern.note(200 * MAX + number * piece, piece, MAX);
        }
        let (from, to) = pattern.ahead().unwrap();
        assert_eq!(to - from, MAX);
    }

    #[test]
    fn a_strided_reader_gets_no_more_than_it_uses() {
        for (run, stride) in [(8, 80), (8, 24), (16, 400)] {
            let mut pattern = Pattern::Fresh;
            for n in 0..50 {
                for piece in 0..run {
                    pattern.note((n * stride + piece) * 128 * K, 128 * K, MAX);
                    if n > 0
                        && let Some((_, to)) = pattern.ahead()
                    {
                        assert!(to <= (n * stride + run) * 128 * K, "{stride} at {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_small_step_keeps_the_window() {
        let mut pattern = Pattern::Fresh;
        for n in 0..800 {
            pattern.note(n * 128 * K, 128 * K, MAX);
        }
        let window = |pattern: &Pattern| pattern.ahead().map(|(from, to)| to - from);
        for to in [110 * K * K, 90 * K * K] {
            pattern.note(to, 128 * K, MAX);
            assert_eq!(window(&pattern), Some(MAX), "to {to}");
        }
        pattern.note(300 * K * K, 128 * K, MAX);
        assert_eq!(window(&pattern), None);
    }
}
