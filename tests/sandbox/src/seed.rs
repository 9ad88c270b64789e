//! Records and drafts put into the store directly, without going through HTTP.

use std::sync::Arc;

use crate::app::{App, user_named};
use crate::blobs::Blob;
use crate::data::NewRecord;
use crate::metadata;
use crate::store::{Entry, Store};

impl App {
    /// Makes a draft of it; panics if it makes no sense, since that is a mistake in a test.
    pub(crate) fn make_draft(&self, new: NewRecord) -> String {
        let owner = user_named(&new.owner).unwrap_or_else(|| panic!("no user is named {:?}", new.owner));
        let checked = metadata::check(&new.metadata).unwrap_or_else(|problem| panic!("{}", problem.body));
        // Hashed before anything is locked, so that no request has to wait for it.
        let files: Vec<(String, Blob)> = new
            .files
            .into_iter()
            .map(|(key, data)| {
                let id = self.store.lock().new_uuid();
                (key, Blob::of(id, data))
            })
            .collect();
        let mut store = self.store.lock();
        let parent = new.version_of.as_ref().map(|earlier| {
            let record = store
                .records
                .get(earlier)
                .unwrap_or_else(|| panic!("no record has the id {earlier}"));
            record.parent.clone()
        });
        let earlier = parent
            .as_deref()
            .map(|parent| blobs_of_latest(&store, parent))
            .unwrap_or_default();
        let mut draft = store.new_draft(owner.id, parent.as_deref());
        draft.metadata = checked.metadata;
        draft.access.record = new.record_access.to_string();
        draft.access.files = new.file_access.to_string();
        draft.files.enabled = new.files_enabled.unwrap_or(true);
        draft.files.default_preview = new.default_preview;
        for (key, fresh) in files {
            let same = earlier
                .iter()
                .find(|(known, blob)| *known == key && blob.size == fresh.size && blob.md5 == fresh.md5);
            let now = store.now();
            let mut entry = Entry::new(&key, now, store.new_uuid());
            entry.metadata = crate::errors::empty();
            entry.completed = true;
            entry.blob = Some(same.map_or_else(|| Arc::new(fresh), |(_, blob)| blob.clone()));
            draft.files.entries_mut().push(entry);
        }
        let id = draft.id.clone();
        store.drafts.insert(id.clone(), draft);
        store.changed(&id, true);
        id
    }

    /// Makes a published record of it.
    pub(crate) fn make_record(&self, mut new: NewRecord) -> String {
        if new.files.is_empty() {
            new.files_enabled = Some(false);
        }
        let title = new.metadata.get("title").cloned();
        let id = self.make_draft(new);
        let mut store = self.store.lock();
        let errors = metadata::missing_for_publishing(&store.drafts[&id].metadata);
        assert!(errors.is_empty(), "{title:?} can't be published: {errors:?}");
        if let Err(problem) = store.publish(&id) {
            panic!("{title:?} can't be published: {}", problem.body);
        }
        id
    }
}

impl App {
    /// Publishes so many records with so many files each, which cost the memory of one: the records share their
    /// entries. The files are small, and each is another.
    pub(crate) fn make_many(&self, records: usize, files: usize) -> Vec<String> {
        let entries: Arc<Vec<Entry>> = (0..files)
            .map(|number| {
                let mut store = self.store.lock();
                let key = format!("file-{number:06}.csv");
                let mut entry = Entry::new(&key, store.now(), store.new_uuid());
                entry.metadata = crate::errors::empty();
                entry.completed = true;
                let id = store.new_uuid();
                drop(store);
                let data = crate::Data::text(format!("number\n{number}\n"));
                entry.blob = Some(Arc::new(Blob::of(id, data)));
                entry
            })
            .collect::<Vec<_>>()
            .into();
        (0..records)
            .map(|number| {
                let mut new = NewRecord::titled(&format!("Generated {number}"));
                new.files_enabled = Some(files > 0);
                let id = self.make_draft(new);
                let mut store = self.store.lock();
                if let Err(problem) = store.publish(&id) {
                    panic!("a generated record can't be published: {}", problem.body);
                }
                if let Some(record) = store.records.get_mut(&id) {
                    record.files.entries = Arc::clone(&entries);
                }
                store.changed(&id, false);
                id
            })
            .collect()
    }
}

fn blobs_of_latest(store: &Store, parent: &str) -> Vec<(String, Arc<Blob>)> {
    let latest = store.latest(&store.parents[parent]);
    let entries = latest.into_iter().flat_map(|record| record.files.entries.iter());
    entries
        .filter_map(|entry| Some((entry.key.clone(), entry.blob.clone()?)))
        .collect()
}
