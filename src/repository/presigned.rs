//! Links to another host that read one file for a short while: kept until shortly before they expire, so that the next
//! range needs no redirect.
//!
//! Used by `content` alone. A link opens the file to whoever has it: it is never logged and goes into no error.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use parking_lot::Mutex;
use reqwest::Url;
use reqwest::header::{DATE, HeaderMap};

use super::model::FilePlace;

/// Files whose links are kept at the same time.
const MOST: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// A link is not used in the last moments before it expires.
const MARGIN: Duration = Duration::from_secs(5);

/// The links that are good now.
pub(super) struct Presigned(Mutex<LruCache<FilePlace, Link>>);

struct Link {
    url: Url,
    until: Instant,
}

impl Default for Presigned {
    fn default() -> Self {
        Presigned(Mutex::new(LruCache::new(MOST)))
    }
}

impl Presigned {
    /// A link that is good for a while yet.
    pub(super) fn get(&self, place: &FilePlace) -> Option<Url> {
        let mut links = self.0.lock();
        let link = links.get(place)?;
        if Instant::now() < link.until {
            return Some(link.url.clone());
        }
        links.pop(place);
        None
    }

    /// Keeps a link that has just worked, if it says how long it is good. `headers` are those of the answer to it: a link
    /// is judged by the clock of the host that checks it, not by ours.
    pub(super) fn keep(&self, place: &FilePlace, url: &Url, headers: &HeaderMap) {
        let now = headers
            .get(DATE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| httpdate::parse_http_date(text).ok())
            .unwrap_or_else(SystemTime::now);
        if let Some(left) = good_for(url, now) {
            let until = Instant::now() + left;
            let link = Link {
                url: url.clone(),
                until,
            };
            self.0.lock().put(place.clone(), link);
        }
    }

    /// Drops a link that did not work, or that leads to bytes that are about to be replaced.
    pub(super) fn forget(&self, place: &FilePlace) {
        self.0.lock().pop(place);
    }
}

/// How long a link is good from `now` on: `X-Amz-Date` + `X-Amz-Expires`, less a margin.
fn good_for(url: &Url, now: SystemTime) -> Option<Duration> {
    let value = |name: &str| {
        url.query_pairs()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.into_owned())
    };
    // A week is the longest that Amazon allows.
    let seconds = value("X-Amz-Expires")?.parse::<u64>().ok()?.min(7 * 24 * 3600);
    let date = value("X-Amz-Date")?;
    let signed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", &date)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()?;
    let until = SystemTime::from(signed.timestamp()) + Duration::from_secs(seconds);
    until
        .duration_since(now)
        .ok()?
        .checked_sub(MARGIN)
        .filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::model::{Owner, RecordId};

    fn link(expires: &str) -> Url {
        format!("http://s3.example/b/data?X-Amz-Date=20261122T000630Z{expires}&X-Amz-Signature=x")
            .parse()
            .unwrap()
    }

    fn at(text: &str) -> SystemTime {
        httpdate::parse_http_date(text).unwrap()
    }

    #[test]
    fn a_link_is_good_until_shortly_before_it_expires() {
        let signed = at("Sun, 22 Nov 2026 00:06:30 GMT");
        assert_eq!(
            good_for(&link("&X-Amz-Expires=60"), signed),
            Some(Duration::from_secs(55))
        );
        assert_eq!(
            good_for(&link("&X-Amz-Expires=60"), signed + Duration::from_secs(56)),
            None
        );
        assert_eq!(
            good_for(&link(""), signed),
            None,
            "one that doesn't say is not kept"
        );
    }

    #[test]
    fn links_are_kept_by_the_other_hosts_clock_and_can_be_forgotten() {
        let place = FilePlace {
            owner: Owner::Record(RecordId::new("abcde-12345").unwrap()),
            key: "a".into(),
        };
        let links = Presigned::default();
        let headers: HeaderMap = [(DATE, "Sun, 22 Nov 2026 00:06:31 GMT".parse().unwrap())]
            .into_iter()
            .collect();
        links.keep(&place, &link("&X-Amz-Expires=60"), &headers);
        assert_eq!(links.get(&place), Some(link("&X-Amz-Expires=60")));
        links.forget(&place);
        assert_eq!(links.get(&place), None);
    }
}
