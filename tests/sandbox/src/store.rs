//! The repository's data model: documents (records and drafts), their parents and files.
//!
//! Only data and the rules about it live here; who may do what, and how it looks as JSON, is
//! decided elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

use crate::blobs::Blob;
use crate::communities::Communities;
use crate::errors::Problem;
use crate::links::AccessLink;
use crate::parts::Parts;
use crate::requests::Requests;

/// Everything in the repository.
pub(crate) struct Store {
    pub records: HashMap<String, Document>,
    pub drafts: HashMap<String, Document>,
    pub parents: HashMap<String, Parent>,
    pub communities: Communities,
    pub requests: Requests,
    /// Plans and the records named in them.
    pub plans: Vec<(String, String)>,
    /// Ids are numbers, as Zenodo's are.
    pub numeric: bool,
    /// Changes not yet looked at by a search, oldest first.
    pub changes: Vec<Change>,
    clock: Timestamp,
    ids: u64,
    salt: u64,
}

/// A document that a search has to learn about.
pub(crate) struct Change {
    pub at: Instant,
    pub id: String,
    pub draft: bool,
    /// Its new state; `None` if it was deleted.
    pub document: Option<Arc<Document>>,
}

/// What all versions of a record share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parent {
    pub id: String,
    pub owner: u32,
    /// Published versions, oldest first.
    pub versions: Vec<String>,
    /// The unpublished draft of a first or next version.
    pub next_draft: Option<String>,
    pub pids: Value,
    pub links: Vec<AccessLink>,
    /// UUIDs of the communities it is in.
    pub communities: Vec<String>,
    /// The request of the review that its draft is in.
    pub review: Option<String>,
}

/// A record or a draft.
#[derive(Clone)]
pub(crate) struct Document {
    pub id: String,
    pub parent: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub revision: u64,
    pub metadata: Map<String, Value>,
    pub custom_fields: Value,
    pub access: Access,
    pub pids: Map<String, Value>,
    pub files: Files,
    /// The version's number, from 1.
    pub index: usize,
    pub tombstone: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access {
    pub record: String,
    pub files: String,
    pub embargo: Value,
}

impl Default for Access {
    fn default() -> Self {
        Access {
            record: "public".to_string(),
            files: "public".to_string(),
            embargo: json!({"active": false, "reason": null}),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Files {
    pub enabled: bool,
    pub default_preview: Option<String>,
    pub bucket: String,
    /// A draft of a published record: files can be read but not changed.
    pub locked: bool,
    /// Shared by the copies of a document that a search keeps, and by generated records.
    pub entries: Arc<Vec<Entry>>,
}

impl Files {
    pub fn entries_mut(&mut self) -> &mut Vec<Entry> {
        Arc::make_mut(&mut self.entries)
    }
}

/// A file of a record or draft.
#[derive(Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub metadata: Value,
    pub hidden: bool,
    pub version_id: String,
    pub completed: bool,
    /// The bytes put so far; present but not yet valid before the commit.
    pub blob: Option<Arc<Blob>>,
    pub declared_size: Option<u64>,
    pub declared_checksum: Option<String>,
    pub parts: Option<Parts>,
    /// What is told after a commit in parts until the MD5 is known.
    pub unsummed: Option<Unsummed>,
}

/// What is told of a file whose parts went to the second origin.
#[derive(Clone)]
pub(crate) struct Unsummed {
    /// The size declared at the start, which stays, whatever came.
    pub size: u64,
    /// In place of the MD5.
    pub checksum: String,
    /// Until then.
    pub until: Instant,
}

impl Entry {
    pub fn new(key: &str, now: Timestamp, version_id: String) -> Entry {
        Entry {
            key: key.to_string(),
            created: now,
            updated: now,
            metadata: Value::Null,
            hidden: false,
            version_id,
            completed: false,
            blob: None,
            declared_size: None,
            declared_checksum: None,
            parts: None,
            unsummed: None,
        }
    }

    /// The stored bytes, once they are committed.
    pub fn content(&self) -> Option<&Arc<Blob>> {
        self.blob.as_ref().filter(|_| self.completed)
    }

    pub fn size(&self) -> u64 {
        self.content().map_or(0, |blob| blob.size)
    }
}

impl Document {
    pub fn title(&self) -> &str {
        self.metadata
            .get("title")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub fn entry(&self, key: &str) -> Result<&Entry, Problem> {
        self.files
            .entries
            .iter()
            .find(|entry| entry.key == key)
            .ok_or_else(|| Problem::no_file(&self.id, key))
    }

    pub fn entry_mut(&mut self, key: &str) -> Result<&mut Entry, Problem> {
        let missing = Problem::no_file(&self.id, key);
        self.files
            .entries_mut()
            .iter_mut()
            .find(|entry| entry.key == key)
            .ok_or(missing)
    }

    pub fn total_bytes(&self) -> u64 {
        self.files.entries.iter().map(Entry::size).sum()
    }

    pub fn embargoed(&self) -> bool {
        self.access.embargo["active"] == true
    }

    /// `access.status`. The server goes by `files.enabled`, not by whether there are files.
    pub fn access_status(&self) -> &'static str {
        if self.embargoed() {
            "embargoed"
        } else if self.access.record == "public" && !self.files.enabled {
            "metadata-only"
        } else if self.access.record == "public" && self.access.files == "public" {
            "open"
        } else {
            "restricted"
        }
    }
}

impl Store {
    pub fn new(numeric: bool) -> Store {
        let clock = Timestamp::now();
        Store {
            records: HashMap::new(),
            drafts: HashMap::new(),
            parents: HashMap::new(),
            communities: Communities::default(),
            requests: Requests::default(),
            plans: Vec::new(),
            numeric,
            changes: Vec::new(),
            clock,
            ids: 0,
            salt: clock.as_nanosecond() as u64 ^ u64::from(std::process::id()) << 32,
        }
    }

    /// The time, to the microsecond, and never twice the same.
    pub fn now(&mut self) -> Timestamp {
        let step = self.clock + SignedDuration::from_micros(1);
        self.clock = Timestamp::now().max(step);
        self.clock
    }

    fn random(&mut self) -> [u8; 16] {
        self.ids += 1;
        let mut md5 = Md5::new();
        md5.update(self.salt.to_le_bytes());
        md5.update(self.ids.to_le_bytes());
        md5.finalize().into()
    }

    /// A number that no other thing has.
    pub fn next_number(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// A record id such as `7z9wp-jvq84`: eight digits in base 32 and two check digits (ISO 7064, mod 97-10).
    pub fn new_id(&mut self) -> String {
        if self.numeric {
            self.ids += 1;
            return (7_000_000 + self.ids).to_string();
        }
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut id = String::new();
        let mut number = 0_u64;
        for byte in &self.random()[..8] {
            id.push(char::from(DIGITS[usize::from(byte % 32)]));
            number = number * 32 + u64::from(byte % 32);
        }
        id.push_str(&format!("{:02}", 98 - number * 100 % 97));
        id.insert(5, '-');
        id
    }

    pub fn new_uuid(&mut self) -> String {
        crate::data::uuid_of(&crate::data::hex(&self.random()))
    }

    pub fn parent_of(&self, document: &Document) -> &Parent {
        &self.parents[&document.parent]
    }

    /// A published record, and none of the other things an id can stand for.
    pub fn record(&self, id: &str) -> Result<&Document, Problem> {
        match self.records.get(id) {
            Some(record) => match &record.tombstone {
                Some(tombstone) => Err(Problem::gone(tombstone)),
                None => Ok(record),
            },
            None if self.drafts.contains_key(id) => Err(Problem::unregistered()),
            None => Err(Problem::unknown_id()),
        }
    }

    pub fn draft(&self, id: &str) -> Result<&Document, Problem> {
        self.drafts.get(id).ok_or_else(Problem::unknown_id)
    }

    pub fn draft_mut(&mut self, id: &str) -> Result<&mut Document, Problem> {
        self.drafts.get_mut(id).ok_or_else(Problem::unknown_id)
    }

    /// The newest published version that is not deleted.
    pub fn latest(&self, parent: &Parent) -> Option<&Document> {
        parent
            .versions
            .iter()
            .rev()
            .filter_map(|id| self.records.get(id))
            .find(|record| record.tombstone.is_none())
    }

    pub fn is_latest(&self, id: &str, parent: &Parent) -> bool {
        self.latest(parent).is_some_and(|latest| latest.id == id)
    }

    /// Notes a change for searches to find.
    pub fn changed(&mut self, id: &str, draft: bool) {
        let documents = if draft { &self.drafts } else { &self.records };
        let document = documents.get(id).filter(|document| document.tombstone.is_none());
        let document = document.cloned().map(Arc::new);
        self.changes.push(Change {
            at: Instant::now(),
            id: id.to_string(),
            draft,
            document,
        });
    }

    /// An empty draft, of a new record or of a new version of `parent`.
    pub fn new_draft(&mut self, owner: u32, parent: Option<&str>) -> Document {
        let id = self.new_id();
        let parent = match parent {
            Some(parent) => parent.to_string(),
            None => {
                let id = self.new_id();
                let parent = Parent {
                    id: id.clone(),
                    owner,
                    versions: Vec::new(),
                    next_draft: None,
                    pids: json!({}),
                    links: Vec::new(),
                    communities: Vec::new(),
                    review: None,
                };
                self.parents.insert(id.clone(), parent);
                id
            }
        };
        let index = self.parents[&parent].versions.len() + 1;
        if let Some(parent) = self.parents.get_mut(&parent) {
            parent.next_draft = Some(id.clone());
        }
        let created = self.now();
        Document {
            id,
            parent,
            created,
            updated: self.now(),
            // What a real server has counted by the time its first answer is out.
            revision: 5,
            metadata: Map::new(),
            custom_fields: json!({}),
            access: Access::default(),
            pids: Map::new(),
            files: Files {
                enabled: true,
                default_preview: None,
                bucket: self.new_uuid(),
                locked: false,
                entries: Arc::default(),
            },
            index,
            tombstone: None,
        }
    }

    /// Turns a valid draft into a record, or an edit into the record's next state.
    pub fn publish(&mut self, id: &str) -> Result<(), Problem> {
        let mut draft = self.drafts.remove(id).ok_or_else(Problem::no_result)?;
        let now = self.now();
        let earlier = self.records.get(id);
        let new = earlier.is_none();
        if let Some(record) = earlier {
            draft.created = record.created;
            draft.revision = record.revision + 3;
            draft.files.bucket = record.files.bucket.clone();
        } else {
            draft.created = now;
            draft.revision = if draft.files.enabled { 4 } else { 3 };
            for entry in draft.files.entries_mut() {
                // The entries are copied to the record and get their times anew.
                (entry.created, entry.updated) = (now, now);
            }
        }
        draft.updated = self.now();
        draft.files.locked = true;
        if draft.access.record == "restricted" {
            // Nothing is registered for what nobody may know of.
            draft.pids.remove("doi");
        } else {
            draft.pids.entry("oai").or_insert_with(|| oai(id));
            draft.pids.entry("doi").or_insert_with(|| doi(id));
        }
        if let Some(parent) = self.parents.get_mut(&draft.parent) {
            if draft.access.record != "restricted" {
                parent.pids = json!({"doi": doi(&parent.id)});
            }
            if new {
                parent.versions.push(id.to_string());
                parent.next_draft = None;
            }
        }
        self.records.insert(id.to_string(), draft);
        self.changed(id, true);
        self.changed(id, false);
        Ok(())
    }
}

pub(crate) fn doi(id: &str) -> Value {
    let numeric = id.bytes().all(|byte| byte.is_ascii_digit());
    let prefix = if numeric { "10.5281/zenodo." } else { "10.5072/" };
    json!({"identifier": format!("{prefix}{id}"), "provider": "datacite", "client": "datacite"})
}

fn oai(id: &str) -> Value {
    json!({"identifier": format!("oai:oai:invenio-app-rdm.org::{id}"), "provider": "oai"})
}

/// `2026-11-21T22:59:43.453600+00:00`
pub(crate) fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// The form of an HTTP date.
pub(crate) fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
