//! Whether a reader reads on, and how far ahead of it to fetch. Pure: no clock, no lock, no I/O.
//!
//! One `Pattern` for each reader; `file.rs` notes every read in it, `plan.rs` asks it how far to go.

/// The first window; it doubles from here.
const FIRST: u64 = 1024 * 1024;

/// How far out of order the pieces of one sequential reader arrive. The kernel asks in pieces of 128 KiB, up to four at
/// a time, from several threads.
const SLACK: u64 = 512 * 1024;

/// Smaller reads must follow each other exactly to count as sequential; the kernel's read-ahead pieces need not.
const PIECE: u64 = 64 * 1024;

/// What the reads of one open file look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Nothing was read yet.
    Fresh,
    /// Here and there; `end` and `length` are of the last read.
    Random {
        /// Where the last read ended.
        end: u64,
        /// How long it was.
        length: u64,
    },
    /// One piece after the other.
    Sequential {
        /// The furthest byte read.
        end: u64,
        /// How far to fetch ahead of it.
        window: u64,
        /// The window doubles when the reader gets here.
        grow_at: u64,
    },
}

impl Pattern {
    /// Notes a read. `largest` limits the window.
    pub(super) fn note(&mut self, offset: u64, length: u64, largest: u64) {
        let read_end = offset.saturating_add(length);
        *self = match *self {
            Pattern::Fresh => Pattern::Random {
                end: read_end,
                length,
            },
            Pattern::Random { end, length: last } => {
                let near = is_near(offset, end) && length >= PIECE && last >= PIECE;
                if offset == end || near {
                    let end = end.max(read_end);
                    let window = FIRST.min(largest);
                    Pattern::Sequential {
                        end,
                        window,
                        grow_at: end + window / 2,
                    }
                } else {
                    Pattern::Random {
                        end: read_end,
                        length,
                    }
                }
            }
            Pattern::Sequential { end, window, grow_at } => {
                if !is_near(offset, end) {
                    Pattern::Random {
                        end: read_end,
                        length,
                    }
                } else {
                    let end = end.max(read_end);
                    if end >= grow_at {
                        let window = (window * 2).min(largest);
                        Pattern::Sequential {
                            end,
                            window,
                            grow_at: end + window / 2,
                        }
                    } else {
                        Pattern::Sequential { end, window, grow_at }
                    }
                }
            }
        };
    }

    /// Where the reader is: the end of its last, or furthest, read.
    pub(super) fn position(&self) -> u64 {
        match *self {
            Pattern::Fresh => 0,
            Pattern::Random { end, .. } | Pattern::Sequential { end, .. } => end,
        }
    }

    /// The bytes worth having before they are asked for, from the reader's position on; `None` for random readers.
    pub(super) fn ahead(&self) -> Option<(u64, u64)> {
        match *self {
            Pattern::Sequential { end, window, .. } => Some((end, end.saturating_add(window))),
            _ => None,
        }
    }
}

fn is_near(offset: u64, end: u64) -> bool {
    offset.abs_diff(end) <= SLACK
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
            Some((256 * K, 256 * K + FIRST))
        );
        assert_eq!(
            after(&[(5000, 10), (5010, 10)]).ahead(),
            Some((5020, 5020 + FIRST))
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
    fn the_window_doubles_up_to_its_limit_and_stays_there() {
        let mut pattern = Pattern::Fresh;
        let mut windows = Vec::new();
        for n in 0..2000 {
            pattern.note(n * 128 * K, 128 * K, MAX);
            if let Some((from, to)) = pattern.ahead()
                && windows.last() != Some(&(to - from))
            {
                windows.push(to - from);
            }
        }
        assert_eq!(windows, [1, 2, 4, 8, 16, 32].map(|m| m * K * K));
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
}
