//! Records that exist only once they are asked for, so that there can be more of them than memory holds.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::blobs::Blob;
use crate::data::{Data, NewRecord, md5_hex, uuid_of};
use crate::store::{Document, Entry, Files, Parent, Store, doi};

/// Records kept; the one asked for the longest ago goes first. More than requests are under way.
const KEPT: usize = 64;

/// The range of generated records.
pub(crate) struct Generated {
    records: u32,
    files: u32,
    /// All of them are as old as the sandbox, however often they are made.
    made: Timestamp,
    present: Mutex<VecDeque<String>>,
}

impl Generated {
    /// So many records with so many files each.
    pub fn new((records, files): (u32, u32)) -> Generated {
        Generated {
            records: records.min(100_000),
            files,
            made: Timestamp::now(),
            present: Mutex::default(),
        }
    }

    /// Puts the record of this id into the store if it is a generated one.
    pub fn provide(&self, store: &mut Store, id: &str) {
        let number = id.strip_prefix("gen00-").filter(|digits| digits.len() == 5);
        let number = number.and_then(|digits| digits.parse::<u32>().ok());
        let Some(number) = number.filter(|number| *number < self.records) else {
            return;
        };
        let mut present = self.present.lock();
        if let Some(place) = present.iter().position(|known| known == id) {
            present.remove(place);
        } else {
            let parent = Parent {
                id: format!("gen99-{number:05}"),
                owner: 2,
                versions: vec![id.to_string()],
                next_draft: None,
                pids: serde_json::json!({}),
                ..Parent::default()
            };
            store
                .records
                .insert(id.to_string(), self.document(id, &parent.id));
            store.parents.insert(parent.id.clone(), parent);
        }
        present.push_back(id.to_string());
        if present.len() > KEPT
            && let Some(oldest) = present.pop_front()
            && let Some(record) = store.records.remove(&oldest)
        {
            store.parents.remove(&record.parent);
        }
    }

    fn document(&self, id: &str, parent: &str) -> Document {
        let uuid = |name: &str| uuid_of(&md5_hex(name.as_bytes()));
        let entries = (0..self.files).map(|number| {
            let key = format!("file-{number:06}.txt");
            let name = format!("{id}/{key}");
            let mut entry = Entry::new(&key, self.made, uuid(&format!("version of {name}")));
            entry.metadata = crate::errors::empty();
            entry.completed = true;
            entry.blob = Some(Arc::new(Blob::of(uuid(&name), Data::text(name))));
            entry
        });
        Document {
            id: id.to_string(),
            parent: parent.to_string(),
            created: self.made,
            updated: self.made,
            revision: 4,
            metadata: NewRecord::titled(&format!("Generated record {id}")).metadata,
            custom_fields: serde_json::json!({}),
            access: Default::default(),
            pids: serde_json::Map::from_iter([("doi".to_string(), doi(id))]),
            files: Files {
                enabled: true,
                default_preview: None,
                bucket: uuid(id),
                locked: true,
                entries: Arc::new(entries.collect()),
            },
            index: 1,
            tombstone: None,
        }
    }
}
