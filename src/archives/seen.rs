//! The CRC-32 of bytes that are read in any order: sums of the runs read so far, which join when gaps close.
//!
//! Used by `member` for stored members. Pure.

use std::collections::BTreeMap;

/// Most runs kept. A reader who leaves more gaps reads here and there, and gets its bytes without a sum.
const MOST_RUNS: usize = 4096;

/// What was read of one member.
#[derive(Default)]
pub(super) struct Seen {
    /// By their first byte: the one after the last, and the sum.
    runs: BTreeMap<u64, (u64, crc32fast::Hasher)>,
}

impl Seen {
    /// Takes bytes in that are about to be handed out.
    pub(super) fn note(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            // Each gap in these bytes goes on with the run before it, or begins one.
            if let Some((_, (run_end, _))) = self.runs.range(..=at).next_back()
                && *run_end > at
            {
                at = *run_end;
                continue;
            }
            let next = self.runs.range(at..).next().map_or(u64::MAX, |(start, _)| *start);
            let gap_end = end.min(next);
            let part = &bytes[(at - offset) as usize..(gap_end - offset) as usize];
            self.fill(at, part);
            at = gap_end;
        }
    }

    /// Bytes of a gap.
    fn fill(&mut self, at: u64, part: &[u8]) {
        let end = at + part.len() as u64;
        let before = self
            .runs
            .range_mut(..at)
            .next_back()
            .filter(|(_, (run_end, _))| *run_end == at);
        let start = match before {
            Some((start, (run_end, crc))) => {
                crc.update(part);
                *run_end = end;
                *start
            }
            None => {
                if self.runs.len() >= MOST_RUNS {
                    self.runs.clear();
                }
                let mut crc = crc32fast::Hasher::new();
                crc.update(part);
                self.runs.insert(at, (end, crc));
                at
            }
        };
        if let Some((next_end, next)) = self.runs.remove(&end)
            && let Some((run_end, crc)) = self.runs.get_mut(&start)
        {
            crc.combine(&next);
            *run_end = next_end;
        }
    }

    /// The sum of the first `size` bytes, if all were read.
    pub(super) fn sum(&self, size: u64) -> Option<u32> {
        if size == 0 {
            return Some(0);
        }
        let (end, crc) = self.runs.get(&0)?;
        (*end >= size).then(|| crc.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_whole_in_whatever_order_it_was_read() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| ((n * n) >> 3) as u8).collect();
        let whole = crc32fast::hash(&bytes);
        let mut state = 7u64;
        for _ in 0..200 {
            let mut seen = Seen::default();
            let mut read = vec![false; bytes.len()];
            while read.contains(&false) {
                assert_eq!(seen.sum(10_000), None);
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let start = (state >> 33) as usize % bytes.len();
                let end = (start + 1 + (state >> 20) as usize % 3000).min(bytes.len());
                seen.note(start as u64, &bytes[start..end]);
                read[start..end].fill(true);
            }
            assert_eq!(seen.sum(10_000), Some(whole));
            assert_eq!(seen.runs.len(), 1);
        }
    }

    #[test]
    fn scattered_reads_take_no_more_memory_than_allowed() {
        let mut seen = Seen::default();
        for n in 0..100_000 {
            seen.note(n * 10, &[1]);
            assert!(seen.runs.len() <= MOST_RUNS);
        }
    }
}
