//! Archives of repositories that send no parts of files: their members as the repository itself lists and extracts them.
//!
//! Asked by `archives` before it reads an archive. The repository's list tells neither times nor folders without members,
//! knows at most 1,000 members, and a member comes whole: so it is used only where all else costs the whole archive. What it
//! extracts is compared with the CRC-32 that it lists.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::Tree;
use super::members::Contents;
use crate::archives::{Member, Method, Source, TAIL};
use crate::catalog::timed::{Lifetimes, Timed, Weigh};
use crate::content::{End, Identity, Reader};
use crate::error::{Error, Kind, Result};
use crate::repository::model::FilePlace;

/// Smaller archives are fetched whole: then nothing in them costs anything ever after.
const SMALL: u64 = 1 << 20;
/// Of larger ones it is found out first what a host does with ranges, if nobody knows.
const LARGE: u64 = 16 << 20;
/// Larger members are read from the archive itself.
const MOST_BYTES: u64 = 16 << 20;
/// So many members of an archive are asked for, and so large a part of it: who wants more will want all.
const MOST_MEMBERS: u32 = 64;
const LARGEST_PART: u64 = 4;
/// Memory for what was extracted.
const CAPACITY: usize = 32 << 20;
/// The same bytes have the same members.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// As long as a failure is repeated to those who ask again.
const FAILED: Duration = Duration::from_secs(1);
/// Archives of which it is known how much was asked for.
const ARCHIVES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// How long a member may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A member of some archive.
pub(super) type MemberId = (Identity, u32);

/// What the repository extracted.
pub(super) struct Served {
    extracted: Timed<MemberId, Extracted>,
    asked_for: Mutex<LruCache<Identity, AskedFor>>,
}

struct Extracted(Bytes);

impl Weigh for Extracted {
    fn weight(&self) -> usize {
        self.0.len()
    }
}

/// What was asked for of one archive.
#[derive(Clone, Copy, Default)]
struct AskedFor {
    members: u32,
    bytes: u64,
}

impl Default for Served {
    fn default() -> Self {
        let lifetimes = Lifetimes {
            found: LIFE,
            refused: FAILED,
            failed: FAILED,
        };
        Served {
            extracted: Timed::new(CAPACITY, lifetimes),
            asked_for: Mutex::new(LruCache::new(ARCHIVES)),
        }
    }
}

impl Served {
    /// Whether another member of this size may be asked for; if so it counts.
    fn takes(&self, archive: &Identity, size: u64) -> bool {
        let mut known = self.asked_for.lock();
        let asked_for = known.get_or_insert_mut(archive.clone(), AskedFor::default);
        let bytes = asked_for.bytes.saturating_add(size);
        if size > MOST_BYTES || asked_for.members >= MOST_MEMBERS || bytes > archive.size() / LARGEST_PART {
            return false;
        }
        *asked_for = AskedFor {
            members: asked_for.members + 1,
            bytes,
        };
        true
    }
}

/// An archive whose end is here already.
pub(super) struct WithEnd {
    reader: Reader,
    end: Vec<u8>,
}

impl Source for WithEnd {
    fn size(&self) -> u64 {
        Source::size(&self.reader)
    }

    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let start = Source::size(self) - self.end.len() as u64;
        let part = offset.checked_sub(start).and_then(|from| {
            let from = usize::try_from(from).ok()?;
            self.end.get(from..from.checked_add(length as usize)?)
        });
        match part {
            Some(part) => Ok(part.to_vec()),
            None => self.reader.read_at(offset, length),
        }
    }

    fn stop_at(&self, end: u64) {
        Source::stop_at(&self.reader, end);
    }

    fn doubt(&self, offset: u64, end: u64) {
        self.reader.doubt(offset, end);
    }
}

/// How an archive's directory is had.
pub(super) enum Way {
    /// From the repository.
    Told(Contents),
    /// From the archive.
    Read(WithEnd),
}

impl Tree {
    /// How to learn what an archive holds.
    pub(super) fn way_into(&self, place: &FilePlace, identity: &Identity, reader: Reader) -> Way {
        let content = self.floors.content.content(identity.clone(), place.clone());
        let mut end = Vec::new();
        let is_known = || self.floors.content.is_known_to_send_parts();
        if identity.size() > SMALL && (identity.size() > LARGE || is_known().is_some()) {
            match content.end(TAIL) {
                Ok(End::Near) => {}
                Ok(End::Came(bytes)) => end = bytes,
                Ok(End::Far) => {
                    if let Some(contents) = self.told_contents(place) {
                        return Way::Told(contents);
                    }
                }
                // The reader meets it again, or has what it needs.
                Err(error) => log::debug!("{error}"),
            }
        }
        Way::Read(WithEnd { reader, end })
    }

    /// What the repository says that an archive holds; `None` if that is not all, or it doesn't say.
    fn told_contents(&self, place: &FilePlace) -> Option<Contents> {
        let container = match self.floors.repository.container(place) {
            Ok(container) => container,
            Err(error) => {
                log::debug!("{error}");
                return None;
            }
        };
        if container.truncated || container.members.len() as u64 != container.total {
            log::debug!(
                "{place}: the repository lists {} members alone",
                container.members.len()
            );
            return None;
        }
        let members: Option<Vec<Member>> = container
            .members
            .into_iter()
            .map(|member| {
                Some(Member {
                    name: member.key.into(),
                    method: Method::Stored,
                    is_encrypted: false,
                    crc32: member.crc?,
                    compressed: member.compressed_size.unwrap_or(member.size),
                    size: i64::try_from(member.size).ok()?.unsigned_abs(),
                    header: 0,
                    modified: None,
                })
            })
            .collect();
        Contents::new(members?, &place.to_string())
            .ok()
            .map(Contents::told)
    }

    /// A member as the repository extracts it; `None` if it is better read from the archive.
    ///
    /// # Errors
    /// Why it does not come.
    pub(super) fn extracted(
        &self,
        place: &FilePlace,
        id: &MemberId,
        member: &Member,
    ) -> Result<Option<Bytes>> {
        let served = &self.archives.served;
        let content = self.floors.content.content(id.0.clone(), place.clone());
        if let Some(known) = served.extracted.current(id) {
            return Ok(Some(known.0.clone()));
        }
        if content.is_verified() || !served.takes(&id.0, member.size) {
            return Ok(None);
        }
        match served.extracted.get(id, || self.extract(place, member)) {
            Ok(extracted) => Ok(Some(extracted.0.clone())),
            // Encrypted, a name that no request can hold, or not what it should be: the archive itself tells.
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::NotSupported | Kind::NotFound | Kind::Refused | Kind::Corrupt
                ) =>
            {
                log::debug!("{error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn extract(&self, place: &FilePlace, member: &Member) -> Result<Extracted> {
        let begun = Instant::now();
        let mut download = self.floors.repository.open_member(place, &member.name)?;
        // At most MOST_BYTES, and no more than come.
        let mut bytes = Vec::new();
        while let Some(piece) = download.next()? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > member.size {
                break;
            }
            if begun.elapsed() > PATIENCE {
                let what = format!("{:?} in {place} takes longer than 60 s to come", member.name);
                return Err(Error::new(Kind::TimedOut, what));
            }
        }
        if bytes.len() as u64 != member.size || crc32fast::hash(&bytes) != member.crc32 {
            let what = format!("{:?} in {place} does not come as it is listed", member.name);
            return Err(Error::new(Kind::Corrupt, what));
        }
        Ok(Extracted(bytes.into()))
    }
}
