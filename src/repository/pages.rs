//! Files where the repository's pages lead to, beside its API: on Zenodo, ranges are done there and nowhere else.
//!
//! Used by `content`. What lies there is public, so neither token nor access link goes along; whatever does not come from
//! there as it should is asked of the API.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::Repository;
use super::content::{Coverage, Download};
use super::model::{FilePlace, Owner};
use super::urls::encode_key;

/// More files that pages don't give are not remembered.
const MOST: usize = 1_000;

/// Files that pages don't give.
pub(super) type Withheld = Mutex<HashSet<FilePlace>>;

impl Repository {
    /// A part of a file from where the pages lead; `None` if that is not to be had there.
    pub(super) async fn part_from_page(
        &self,
        place: &FilePlace,
        want: Option<(u64, u64)>,
        range: Option<&HeaderValue>,
        doing: &str,
    ) -> Option<Download> {
        let (Owner::Record(id), true, Some(range)) =
            (&place.owner, self.is_zenodo.load(Ordering::Relaxed), range)
        else {
            return None;
        };
        if self.withheld.lock().contains(place) {
            return None;
        }
        let key = encode_key(&place.key).ok()?;
        let url = Url::parse(&format!("{}/records/{id}/files/{key}?download=1", self.url())).ok()?;
        let begun = Instant::now();
        // A failure here is no failure: the API is asked next, with all retries.
        let download = match self.transport.get_as_guest(doing, &url, "*/*", Some(range)).await {
            Ok(reply) => self.judge(reply, doing, want, begun).await.ok(),
            Err(_) => return None,
        };
        let part = download.filter(|download| matches!(download.coverage, Coverage::Part { .. }));
        if part.is_none() {
            let mut withheld = self.withheld.lock();
            if withheld.len() >= MOST {
                withheld.clear();
            }
            withheld.insert(place.clone());
        }
        part
    }
}
