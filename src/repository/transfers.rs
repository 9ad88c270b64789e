//! Which way a file's bytes go: in one request, or in parts.
//!
//! What a server takes is learned from its answers, once, and holds for all uploads: no setting of InvenioRDM tells the
//! largest body, and a proxy before it may have a limit of its own. Fed by `files`, `upload` and `multipart`, asked by
//! `staging/`.

use std::ops::Range;

use parking_lot::Mutex;
use serde_json::Value;

/// Parts of one file on their way at the same time.
pub(super) const SIDE_BY_SIDE: u64 = 4;

/// Parts of a large file have this size if nothing speaks against it: below the 100 MiB that InvenioRDM takes as packaged,
/// and large enough that starting a request costs nothing beside sending it.
const LARGEST_PART: u64 = 64 << 20;

/// The smallest part but the last that S3 commits.
const SMALLEST_PART: u64 = 5 << 20;

/// Each answer with a started file lists the links of all its parts, signed anew: 490 kB for this many (API notes,
/// section 10).
const MOST_PARTS: u64 = 1000;

/// Where parts go straight to an object store, a file from this size on is sent faster in parts than in one request.
const FASTER_IN_PARTS: u64 = 64 << 20;

/// How a file is cut up. All parts but the last have the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: u64,
    part_size: u64,
}

impl Layout {
    /// `None` for an empty file, which has no parts, and for parts of nothing.
    #[must_use]
    pub fn new(size: u64, part_size: u64) -> Option<Self> {
        (size > 0 && part_size > 0).then_some(Layout { size, part_size })
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn size(self) -> u64 {
        self.size
    }

    /// Bytes of every part but the last.
    #[must_use]
    pub fn part_size(self) -> u64 {
        self.part_size
    }

    /// How many parts there are.
    #[must_use]
    pub fn count(self) -> u64 {
        self.size.div_ceil(self.part_size)
    }

    /// Where part `number` lies in the file. They count from 1.
    #[must_use]
    pub fn range(self, number: u64) -> Option<Range<u64>> {
        let start = number.checked_sub(1)?.checked_mul(self.part_size)?;
        (start < self.size).then(|| start..self.size.min(start.saturating_add(self.part_size)))
    }
}

/// The way a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In one request.
    Whole,
    /// In parts.
    Parts(Layout),
}

/// What the server was seen to take.
#[derive(Default)]
pub(super) struct Transfers(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    parts: Parts,
    /// The smallest body that was refused for its size.
    refused_body: Option<u64>,
}

/// What is known of parts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Parts {
    /// No answer has told.
    #[default]
    Unknown,
    /// The server does not know them (version 12), or refuses them (Zenodo).
    Unavailable,
    /// It knows them.
    Offered,
    /// It knows them, and they go straight to another host, where its limits don't hold.
    Elsewhere,
}

impl Transfers {
    /// The best way for a file of this size, as far as is known.
    pub(super) fn way(&self, size: u64) -> Way {
        let seen = self.0.lock();
        let too_large = seen.refused_body.is_some_and(|refused| refused <= size);
        let part_size = match (seen.parts, seen.refused_body) {
            (Parts::Elsewhere, _) if too_large || size >= FASTER_IN_PARTS => {
                Some(usual_part(size).max(size.div_ceil(MOST_PARTS)))
            }
            (Parts::Offered, Some(refused)) if too_large => part_size_below(refused, size),
            _ => None,
        };
        part_size
            .and_then(|part_size| Layout::new(size, part_size))
            .map_or(Way::Whole, Way::Parts)
    }

    /// A body of this size was answered with 413.
    pub(super) fn body_refused(&self, size: u64) {
        let mut seen = self.0.lock();
        if seen.refused_body.is_none_or(|refused| size < refused) {
            log::info!("the repository takes no body of {size} bytes");
            seen.refused_body = Some(size);
        }
    }

    /// An answer with entries of a draft: from version 13 on, each tells its kind of transfer (API notes, section 11).
    pub(super) fn entry_seen(&self, answer: &Value) {
        let entry = match answer.get("entries") {
            Some(Value::Array(entries)) => entries.first(),
            Some(Value::Object(entries)) => entries.values().next(),
            _ => None,
        };
        let Some(entry) = entry else { return };
        let mut seen = self.0.lock();
        if seen.parts == Parts::Unknown {
            seen.parts = match entry.get("transfer") {
                Some(_) => Parts::Offered,
                None => Parts::Unavailable,
            };
        }
    }

    /// Links of parts lead to another host.
    pub(super) fn parts_elsewhere(&self) {
        let mut seen = self.0.lock();
        if seen.parts != Parts::Unavailable {
            seen.parts = Parts::Elsewhere;
        }
    }

    /// The server refuses parts: files go in one request from now on.
    pub(super) fn parts_refused(&self) {
        log::info!("the repository refuses uploads in parts");
        self.0.lock().parts = Parts::Unavailable;
    }
}

/// Parts of which all senders have one, unless they would be too small or too large.
fn usual_part(size: u64) -> u64 {
    size.div_ceil(SIDE_BY_SIDE).clamp(SMALLEST_PART, LARGEST_PART)
}

/// The size of parts that are smaller than a body that was refused. `None` if there is none.
fn part_size_below(refused: u64, size: u64) -> Option<u64> {
    let mut part_size = usual_part(size);
    while part_size >= refused {
        if part_size == SMALLEST_PART {
            return None;
        }
        part_size = (part_size / 2).max(SMALLEST_PART);
    }
    Some(part_size.max(size.div_ceil(MOST_PARTS))).filter(|part_size| *part_size < refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MIB: u64 = 1 << 20;

    fn offered() -> Transfers {
        let transfers = Transfers::default();
        transfers.entry_seen(&json!({"entries": [{"key": "a", "transfer": {"type": "L"}}]}));
        transfers
    }

    fn part_size(way: Way) -> Option<u64> {
        match way {
            Way::Whole => None,
            Way::Parts(layout) => Some(layout.part_size()),
        }
    }

    #[test]
    fn parts_cover_a_file_without_gap_or_overlap() {
        for (size, part_size) in [(1, 1), (1, 7), (7, 7), (8, 7), (21, 7), (1000, 13)] {
            let layout = Layout::new(size, part_size).unwrap();
            let mut end = 0;
            for number in 1..=layout.count() {
                let range = layout.range(number).unwrap();
                assert_eq!(range.start, end);
                assert!(range.end > range.start);
                end = range.end;
            }
            assert_eq!(end, size);
            assert_eq!(layout.range(0), None);
            assert_eq!(layout.range(layout.count() + 1), None);
        }
        assert_eq!(Layout::new(0, 7), None);
    }

    #[test]
    fn a_file_goes_whole_until_a_body_no_larger_was_refused() {
        let transfers = offered();
        assert_eq!(transfers.way(u64::MAX), Way::Whole);
        transfers.body_refused(200 * MIB);
        assert_eq!(transfers.way(200 * MIB - 1), Way::Whole);
        assert_eq!(part_size(transfers.way(200 * MIB)), Some(50 * MIB));
        assert_eq!(part_size(transfers.way(300 * MIB)), Some(64 * MIB));
        transfers.body_refused(300 * MIB);
        assert_eq!(part_size(transfers.way(200 * MIB)), Some(50 * MIB));
    }

    #[test]
    fn parts_get_smaller_with_every_refusal_down_to_the_smallest_that_s3_takes() {
        let transfers = offered();
        let size = 2000 * MIB;
        transfers.body_refused(size);
        let mut seen = Vec::new();
        while let Some(part) = part_size(transfers.way(size)) {
            seen.push(part / MIB);
            transfers.body_refused(part);
        }
        assert_eq!(seen, [64, 32, 16, 8, 5]);
    }

    #[test]
    fn there_are_never_more_than_a_thousand_parts() {
        let transfers = offered();
        transfers.body_refused(100 * MIB);
        let size = 90_000 * MIB;
        let Way::Parts(layout) = transfers.way(size) else {
            panic!("not in parts")
        };
        assert_eq!(layout.count(), 1000);
        // Parts that large would be refused, so it can't go at all.
        assert_eq!(transfers.way(101_000 * MIB), Way::Whole);
    }

    #[test]
    fn where_parts_go_to_another_host_large_files_go_in_parts_whatever_the_limit() {
        let transfers = offered();
        transfers.parts_elsewhere();
        assert_eq!(transfers.way(64 * MIB - 1), Way::Whole);
        assert_eq!(part_size(transfers.way(64 * MIB)), Some(16 * MIB));
        assert_eq!(
            part_size(transfers.way(1 << 40)),
            Some((1_u64 << 40).div_ceil(1000))
        );
        transfers.body_refused(MIB);
        assert_eq!(part_size(transfers.way(2 * MIB)), Some(5 * MIB), "one part");
        transfers.parts_refused();
        transfers.parts_elsewhere();
        assert_eq!(transfers.way(200 * MIB), Way::Whole);
    }

    #[test]
    fn a_server_that_tells_no_transfer_knows_no_parts() {
        let transfers = Transfers::default();
        transfers.body_refused(MIB);
        assert_eq!(transfers.way(MIB), Way::Whole, "nothing was seen yet");
        transfers.entry_seen(&json!({"entries": []}));
        transfers.entry_seen(&json!({"entries": [{"key": "a"}]}));
        assert_eq!(transfers.way(MIB), Way::Whole);
        transfers.body_refused(100 * MIB);
        transfers.entry_seen(&json!({"entries": [{"key": "a", "transfer": {"type": "L"}}]}));
        assert_eq!(transfers.way(100 * MIB), Way::Whole);
    }
}
