//! What a user can have done to the cache: keep files, check them, drop them, let them go.
//!
//! `tree/` calls it in a running mount, on a thread of its own, and `cli/` on a cache that no daemon uses. All of it
//! reports to a [`Work`] and ends soon after that was stopped. Nothing that a user wrote is here, so none of it can lose
//! anything that can't be fetched again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::audit::Audit;
use super::blocks::{LARGEST, Names};
use super::evict::{Entry, disk_of, for_each_copy, look_again};
use super::file::stopping;
use super::inspect::{CopyFacts, look_at};
use super::reader::Reader;
use super::work::{Work, with_advice};
use super::{Identity, Store, UNVERIFIED};
use crate::error::{Error, Kind, Result};
use crate::repository::model::{FilePlace, Md5, Owner, RecordId};
use crate::status::{Fate, Outcome};

/// How often to look whether to stop, and to say how far it is.
const LOOK: Duration = Duration::from_millis(200);

/// A file that somebody means.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What it is called, for people.
    pub name: String,
    /// What names its bytes.
    pub identity: Identity,
    /// Where to ask for them.
    pub place: FilePlace,
}

impl Wanted {
    fn outcome(&self, fate: Fate, facts: &CopyFacts) -> Outcome {
        Outcome {
            md5: match &self.identity {
                Identity::Md5 { md5, .. } => Some(md5.to_string()),
                Identity::Unverified { .. } => None,
            },
            have: facts.have,
            verified: facts.is_verified,
            pinned: facts.is_pinned,
            ..Outcome::new(&self.name, self.identity.size(), fate)
        }
    }
}

/// Whose fetching is under way.
struct Fetching {
    wanted: Wanted,
    reader: Reader,
    /// It was here before.
    was_here: bool,
}

impl Store {
    fn facts_of(&self, identity: &Identity) -> CopyFacts {
        look_at(&self.settings.directory, identity)
    }

    /// The files that `md5:CHECKSUM` stands for, of those that are kept or pinned here: the record that they are in may be
    /// gone, or closed to us. `None` if the name is of another form.
    pub fn named(&self, name: &str) -> Option<Result<Vec<Wanted>>> {
        let md5 = checksum_in(name)?;
        let begin = format!("{md5}-");
        let folder = self.root().join(&begin[..2]);
        let kept = fs::read_dir(folder).into_iter().flatten().flatten();
        let kept = kept.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".map")?.to_owned()));
        let names: BTreeSet<String> = kept
            .chain(self.pins().all())
            .filter(|name| name.starts_with(&begin))
            .collect();
        let found: Vec<Wanted> = names
            .iter()
            .filter_map(|found| identity_of(&stem_of(found)))
            .map(|identity| Wanted {
                name: name.to_owned(),
                identity,
                place: nowhere(),
            })
            .collect();
        Some(if found.is_empty() {
            let what = format!("nothing of {name} is kept or pinned here");
            Err(Error::new(Kind::NotFound, what)
                .with_advice("rdmfs cache status --json tells what is pinned."))
        } else {
            Ok(found)
        })
    }

    /// Tells what of each file is here.
    pub fn tell_of(&self, wanted: &[Wanted], work: &Work) {
        work.plan(
            wanted.len() as u64,
            wanted.iter().map(|one| one.identity.size()).sum(),
        );
        for one in wanted {
            if work.is_stopped() {
                return;
            }
            let facts = self.facts_of(&one.identity);
            let fate = if facts.have == one.identity.size() {
                Fate::Here
            } else {
                Fate::Partial
            };
            work.settle(one.outcome(fate, &facts));
        }
    }

    /// Fetches files and checks them, several at once. With `pin`, they stay until they are let go.
    ///
    /// # Errors
    /// `DiskFull` if they can't all be here at the same time, `EBUSY` for pins in a cache that ends with the mount;
    /// nothing is fetched then.
    pub fn keep(self: &Arc<Self>, wanted: Vec<Wanted>, pin: bool, work: &Work) -> Result<()> {
        work.plan(
            wanted.len() as u64,
            wanted.iter().map(|one| one.identity.size()).sum(),
        );
        if pin && self.settings.is_private {
            return Err(Error::new(
                Kind::Call(libc::EBUSY),
                "nothing can be pinned here: another rdmfs uses the cache, and what this mount has instead goes when it ends",
            )
            .with_advice("Use the other mount, or mount this one with a --cache-dir of its own."));
        }
        self.ensure_room(&wanted)?;
        let (tell, told) = mpsc::channel();
        let mut rest = wanted.into_iter().enumerate();
        let mut fetching: HashMap<usize, Fetching> = HashMap::new();
        loop {
            while fetching.len() < self.settings.connections.max(1) && !work.is_stopped() {
                let Some((number, wanted)) = rest.next() else {
                    break;
                };
                let facts = self.facts_of(&wanted.identity);
                let reader = self
                    .content(wanted.identity.clone(), wanted.place.clone())
                    .reader();
                let tell = tell.clone();
                reader.complete(Box::new(move |result| {
                    // Nobody listens any more if the work was stopped.
                    let _ = tell.send((number, result));
                }));
                let one = Fetching {
                    was_here: facts.have == wanted.identity.size(),
                    wanted,
                    reader,
                };
                fetching.insert(number, one);
            }
            if fetching.is_empty() || work.is_stopped() {
                // Dropping a reader ends its downloads.
                return Ok(());
            }
            match told.recv_timeout(LOOK) {
                Ok((number, result)) => {
                    if let Some(one) = fetching.remove(&number) {
                        work.settle(self.kept(&one, result, pin));
                    }
                }
                Err(_) => {
                    let here = fetching.values().map(|one| one.reader.content().have()).sum();
                    work.is_at(here);
                }
            }
        }
    }

    /// What became of a file that was fetched. It is still open here, so that it is not dropped before it is pinned.
    fn kept(&self, one: &Fetching, result: Result<()>, pin: bool) -> Outcome {
        let is_checked = matches!(one.wanted.identity, Identity::Md5 { .. });
        let pinned = match result {
            Ok(()) if pin && is_checked => match self.tenure() {
                Some(_tenure) => self
                    .pins()
                    .add(&one.wanted.identity.stem())
                    .map_err(|error| Error::local("pin it", &error)),
                None => Err(stopping()),
            },
            other => other,
        };
        let facts = self.facts_of(&one.wanted.identity);
        match pinned {
            Err(error) => Outcome {
                reason: with_advice(&error),
                ..one.wanted.outcome(Fate::Failed, &facts)
            },
            Ok(()) if !is_checked => Outcome {
                reason: "the repository gives no MD5 for it, so it is kept until the mount ends".into(),
                ..one.wanted.outcome(Fate::Unkept, &facts)
            },
            Ok(()) if self.settings.is_private => Outcome {
                reason: "another rdmfs uses the cache, so it is kept until the mount ends".into(),
                ..one.wanted.outcome(Fate::Unkept, &facts)
            },
            Ok(()) if one.was_here => one.wanted.outcome(Fate::Here, &facts),
            Ok(()) => one.wanted.outcome(Fate::Fetched, &facts),
        }
    }

    /// Whether all of these fit beside what is pinned.
    fn ensure_room(&self, wanted: &[Wanted]) -> Result<()> {
        if self.keeps_nothing() {
            return Err(Error::new(
                Kind::DiskFull,
                "this mount keeps nothing: its cache has the size 0",
            )
            .with_advice("Mount it with another --cache-size."));
        }
        let mut seen = HashSet::new();
        let (mut size, mut missing) = (0_u64, 0_u64);
        for one in wanted.iter().filter(|one| seen.insert(one.identity.stem())) {
            let facts = self.facts_of(&one.identity);
            missing += one.identity.size().saturating_sub(facts.have);
            if !facts.is_pinned {
                size += one.identity.size();
            }
        }
        let (pinned, limit) = (self.pins().bytes(), self.settings.limit);
        if missing > 0 && size.saturating_add(pinned) > limit {
            return Err(Error::new(
                Kind::DiskFull,
                format!("{size} bytes don't fit: the cache holds {limit}, and {pinned} of them are pinned"),
            )
            .with_advice(
                "Name fewer files, unpin others (rdmfs cache unpin), or mount with a larger --cache-size.",
            ));
        }
        let (used, _) = self.ledger().usage();
        let can_go = used.saturating_sub(pinned);
        if let Some(disk) = disk_of(self.root()) {
            let reserve = disk.reserve(self.settings.keep_free);
            if missing > 0 && missing > disk.free.saturating_sub(reserve).saturating_add(can_go) {
                return Err(Error::new(
                    Kind::DiskFull,
                    format!(
                        "{missing} bytes don't fit on the disk of the cache, of which {reserve} stay free"
                    ),
                )
                .with_advice("Make room there, or mount with a --cache-dir on another disk."));
            }
        }
        Ok(())
    }

    /// Reads files, or all there are, against their checksums, and drops what is wrong.
    pub fn verify(self: &Arc<Self>, wanted: Option<Vec<Wanted>>, work: &Work) {
        if let Some(wanted) = wanted {
            let bytes = wanted.iter().map(|one| self.facts_of(&one.identity).have);
            work.plan(wanted.len() as u64, bytes.sum());
            for one in wanted {
                if self.is_over(work) {
                    return;
                }
                let outcome = self.verify_one(&one, work);
                work.settle(outcome);
            }
            return;
        }
        let (mut files, mut bytes) = (0, 0);
        for_each_copy(self.root(), |entry| {
            if !entry.stem.starts_with(UNVERIFIED) {
                files += 1;
                bytes += entry.bytes;
            }
        });
        work.plan(files, bytes);
        for_each_copy(self.root(), |entry| {
            if self.is_over(work) || entry.stem.starts_with(UNVERIFIED) {
                return;
            }
            let Some(identity) = identity_of(&entry.stem) else {
                self.discard_strange(&entry);
                let outcome = Outcome {
                    reason: "it is no copy of anything; dropped".into(),
                    ..Outcome::new(&entry.stem, entry.bytes, Fate::Dropped)
                };
                return work.settle(outcome);
            };
            let one = Wanted {
                name: entry.stem.clone(),
                identity,
                place: nowhere(),
            };
            let outcome = self.verify_one(&one, work);
            if outcome.fate == Fate::Sound {
                work.count(Fate::Sound, entry.bytes);
            } else {
                work.settle(Outcome {
                    size: entry.bytes,
                    ..outcome
                });
            }
        });
    }

    fn verify_one(self: &Arc<Self>, one: &Wanted, work: &Work) -> Outcome {
        let content = self.content(one.identity.clone(), one.place.clone());
        let audit = content.audit(|bytes| {
            work.is_at(bytes);
            !self.is_over(work)
        });
        let facts = self.facts_of(&one.identity);
        let (fate, reason) = match audit {
            Ok(Audit::Nothing) => (Fate::Absent, String::new()),
            Ok(Audit::Sound { .. }) => (Fate::Sound, String::new()),
            Ok(Audit::Damaged { blocks }) => (
                Fate::Dropped,
                format!(
                    "{blocks} blocks were damaged on the disk and are dropped; they are fetched again when they are read"
                ),
            ),
            Ok(Audit::Wrong { found }) => (
                Fate::Dropped,
                format!("the whole file had the MD5 {found} and is dropped"),
            ),
            Ok(Audit::Useless) => (
                Fate::Dropped,
                "its map or its data was damaged or missing; what was left is dropped".into(),
            ),
            Ok(Audit::Stopped) => (Fate::Stopped, String::new()),
            Err(error) => (Fate::Failed, with_advice(&error)),
        };
        // What was read counts as done, not the file's size.
        Outcome {
            reason,
            size: if fate == Fate::Sound { facts.have } else { 0 },
            ..one.outcome(fate, &facts)
        }
    }

    /// Whether work is to end here: it was stopped, or the folder is about to be left to the next.
    fn is_over(&self, work: &Work) -> bool {
        work.is_stopped() || self.is_stopping()
    }

    /// Drops files, or all there are, except what is open and, unless `pinned` is set, what is pinned.
    pub fn clear(&self, wanted: Option<&[Wanted]>, pinned: bool, work: &Work) {
        if let Some(wanted) = wanted {
            work.plan(wanted.len() as u64, 0);
            for one in wanted {
                if self.is_over(work) {
                    return;
                }
                let stem = one.identity.stem();
                let found = look_again(
                    self.root(),
                    &Entry {
                        used: std::time::SystemTime::UNIX_EPOCH,
                        stem,
                        bytes: 0,
                    },
                );
                let fate = match found {
                    Some(entry) => self.clear_one(&entry, pinned, work),
                    // A pin of which nothing is here.
                    None if pinned && matches!(self.let_go(&one.identity.stem()), Ok(true)) => Fate::Unpinned,
                    None => Fate::Absent,
                };
                work.settle(one.outcome(fate, &self.facts_of(&one.identity)));
            }
            return;
        }
        for_each_copy(self.root(), |entry| {
            if !self.is_over(work) {
                work.plan(1, 0);
                work.count(self.clear_one(&entry, pinned, work), 0);
            }
        });
        if pinned {
            // Also those of files of which nothing is here.
            for name in self.pins().all() {
                let is_gone = !Names::new(self.root(), &stem_of(&name)).map.exists();
                if is_gone && let Err(error) = self.let_go(&stem_of(&name)) {
                    log::warn!("cache: can't unpin {name}: {error}");
                }
            }
        }
    }

    /// Whether anything is pinned.
    #[must_use]
    pub fn has_pins(&self) -> bool {
        !self.pins().all().is_empty()
    }

    fn clear_one(&self, entry: &Entry, pinned: bool, work: &Work) -> Fate {
        let is_pinned = self.pins().has(&entry.stem);
        if is_pinned && !pinned {
            return Fate::Pinned;
        }
        if !self.drop_if_closed(entry) {
            return Fate::Open;
        }
        if is_pinned && let Err(error) = self.let_go(&entry.stem) {
            log::warn!("cache: can't unpin {}: {error}", entry.stem);
        }
        self.ledger().give_back(entry.bytes);
        work.freed(entry.bytes);
        Fate::Freed
    }

    /// Lets files, or all there are, go: they may be dropped again when room is needed.
    pub fn unpin(&self, wanted: Option<&[Wanted]>, work: &Work) {
        let one = |stem: &str| match self.let_go(stem) {
            Ok(true) => (Fate::Unpinned, String::new()),
            Ok(false) => (Fate::Absent, String::new()),
            Err(error) => (Fate::Failed, error.to_string()),
        };
        match wanted {
            Some(wanted) => {
                work.plan(wanted.len() as u64, 0);
                for wanted in wanted {
                    if self.is_over(work) {
                        return;
                    }
                    let (fate, reason) = one(&wanted.identity.stem());
                    let facts = self.facts_of(&wanted.identity);
                    work.settle(Outcome {
                        reason,
                        ..wanted.outcome(fate, &facts)
                    });
                }
            }
            None => {
                for name in self.pins().all() {
                    if self.is_over(work) {
                        return;
                    }
                    work.plan(1, 0);
                    work.count(one(&name).0, 0);
                }
            }
        }
        // There may be something to drop now.
        self.ledger().count_close();
    }

    /// Unpins a copy, unless the folder is the next's already. Tells whether it was pinned.
    fn let_go(&self, stem: &str) -> io::Result<bool> {
        match self.tenure() {
            Some(_tenure) => self.pins().remove(stem),
            None => Ok(false),
        }
    }

    fn discard_strange(&self, entry: &Entry) {
        let Some(_tenure) = self.tenure() else { return };
        let names = Names::new(self.root(), &entry.stem);
        for path in [&names.map, &names.data] {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                log::warn!("cache: can't delete {}: {error}", path.display());
            }
        }
        self.ledger().give_back(entry.bytes);
        self.ledger().discount_file();
    }
}

/// The checksum in `md5:CHECKSUM`.
#[must_use]
pub fn checksum_in(name: &str) -> Option<Md5> {
    Md5::from_hex(name.strip_prefix("md5:")?)
}

/// What the name of a copy says: `7d/7d42…-5000`.
fn identity_of(stem: &str) -> Option<Identity> {
    let (md5, size) = stem.rsplit_once('/')?.1.rsplit_once('-')?;
    let identity = Identity::Md5 {
        md5: Md5::from_hex(md5)?,
        size: size.parse().ok()?,
    };
    (identity.stem() == stem && identity.size() <= LARGEST).then_some(identity)
}

/// The name of the copy with this pin.
fn stem_of(pin: &str) -> String {
    format!("{}/{pin}", pin.get(..2).unwrap_or_default())
}

/// The place of a file that is looked at and never asked for. That of a draft gives way to any other.
fn nowhere() -> FilePlace {
    let id = RecordId::new("00000-00000").unwrap_or_else(|| unreachable!("it has the form of an id"));
    FilePlace {
        owner: Owner::Draft(id),
        key: "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copys_name_says_what_it_is_of() {
        let identity = Identity::Md5 {
            md5: Md5([0x7d; 16]),
            size: 5000,
        };
        assert_eq!(identity_of(&identity.stem()), Some(identity.clone()));
        let stem = identity.stem();
        assert_eq!(stem_of(stem.rsplit_once('/').unwrap().1), stem);
        for strange in [
            "7d/7d",
            "7d/xy-5",
            "7e/7d7d7d7d7d7d7d7d7d7d7d7d7d7d7d7d-5000",
            "7d/7d7d-",
        ] {
            assert_eq!(identity_of(strange), None, "{strange}");
        }
    }
}
