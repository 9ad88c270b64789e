//! What can be set about a sandbox: options at its start, knobs at any time.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a sandbox is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The port to listen on; 0 takes a free one.
    pub port: u16,
    /// Where uploaded files are kept; a temporary directory if not given.
    pub data: Option<PathBuf>,
    /// Scheme, host and port to put into `links` instead of the real ones, as a server
    /// behind a proxy does.
    pub site_url: Option<String>,
    /// Size of the large sample file.
    pub big_size: u64,
    /// Records that exist only once they are asked for, and the files in each.
    pub generated: Option<(u32, u32)>,
    /// The knobs to begin with.
    pub knobs: Knobs,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            port: 0,
            data: None,
            site_url: None,
            big_size: 300_000_000,
            generated: None,
            knobs: Knobs::default(),
        }
    }
}

/// Settings that can change while the sandbox runs.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The kind of installation.
    pub flavour: Flavour,
    /// Drafts need an accepted curation request before they are published; bob is the reviewer.
    pub curations: bool,
    /// Only who is trusted makes drafts; `newcomer` is not.
    pub trusted_only: bool,
    /// There are data management plans, `p1` and `p2`.
    pub plans: bool,
    /// What the server makes of a range request for a file's content.
    pub mode: ContentMode,
    /// A pause before every answer.
    pub latency: Duration,
    /// Bytes per second, per connection, when sending a file's content.
    pub bandwidth: Option<u64>,
    /// Bytes per second that all connections share when sending files' content.
    pub link: Option<u64>,
    /// A pause before the first answer on a new connection, for the round trip that connecting takes.
    pub connect: Duration,
    /// Requests allowed per window; the `X-RateLimit-*` headers are sent only while it is set.
    pub rate_limit: Option<RateLimit>,
    /// Bytes a record may hold.
    pub quota: u64,
    /// Largest request body; InvenioRDM is packaged with 100 MiB.
    pub max_body: Option<u64>,
    /// Files a record may hold.
    pub max_files: usize,
    /// How long a link to the second origin is good for.
    pub link_seconds: u64,
    /// What becomes of uploads in parts.
    pub multipart: Multipart,
    /// How long after the commit of an upload in parts its MD5 is told, if the parts went to the second origin.
    pub checksum_delay: Duration,
    /// How long a change takes to show in searches. Zero by default, so that tests need not
    /// wait; a real server takes up to about a second.
    pub index_delay: Duration,
    /// Records don't list their files, so that whoever wants to know asks for the list.
    pub unlisted_files: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            flavour: Flavour::V14,
            curations: false,
            trusted_only: false,
            plans: false,
            mode: ContentMode::Ranges,
            latency: Duration::ZERO,
            bandwidth: None,
            link: None,
            connect: Duration::ZERO,
            rate_limit: None,
            quota: 10_000_000_000,
            max_body: Some(100 << 20),
            max_files: 100,
            link_seconds: 60,
            multipart: Multipart::Local,
            checksum_delay: Duration::ZERO,
            index_delay: Duration::ZERO,
            unlisted_files: false,
        }
    }
}

/// The kinds of installations that differ in what a client meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// InvenioRDM 14 as packaged.
    V14,
    /// InvenioRDM 12.
    V12,
    /// TU Wien: curation requests, data management plans, no communities by users.
    TuWien,
    /// Zenodo: numbers for ids, its own form under `application/json`, small pages, few searches.
    Zenodo,
}

impl Flavour {
    /// The knobs that go with it.
    pub fn knobs(self) -> Knobs {
        let packaged = Knobs {
            flavour: self,
            ..Knobs::default()
        };
        match self {
            Flavour::V14 => Knobs {
                mode: ContentMode::Ignored,
                ..packaged
            },
            Flavour::V12 => Knobs {
                mode: ContentMode::V12,
                multipart: Multipart::Unknown,
                max_body: None,
                ..packaged
            },
            Flavour::TuWien => Knobs {
                curations: true,
                trusted_only: true,
                plans: true,
                max_body: None,
                quota: 75 << 30,
                ..packaged
            },
            Flavour::Zenodo => Knobs {
                mode: ContentMode::Ignored,
                multipart: Multipart::Refused,
                max_body: None,
                quota: 50_000_000_000,
                rate_limit: Some(RateLimit {
                    requests: 133,
                    seconds: 60,
                }),
                ..packaged
            },
        }
    }
}

impl std::str::FromStr for Flavour {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "v14" => Ok(Flavour::V14),
            "v12" => Ok(Flavour::V12),
            "tuwien" => Ok(Flavour::TuWien),
            "zenodo" => Ok(Flavour::Zenodo),
            _ => Err(format!("no such flavour: {name} (v14, v12, tuwien or zenodo)")),
        }
    }
}

/// A moving window of requests, per user, or per user agent for guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Requests allowed in the window.
    pub requests: u32,
    /// Length of the window.
    pub seconds: u64,
}

/// The ways known servers answer a request for a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentMode {
    /// 206 and 416: a server with `FILES_REST_ALLOW_RANGE_REQUESTS` on.
    Ranges,
    /// 200 with the whole file, whatever range was asked for: as packaged.
    Ignored,
    /// 200 with only the part, and a `Content-Range`: version 12.
    V12,
    /// 302 to a link on another origin that soon expires: object storage.
    Redirect,
}

impl std::str::FromStr for ContentMode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "ranges" => Ok(ContentMode::Ranges),
            "ignored" => Ok(ContentMode::Ignored),
            "v12" => Ok(ContentMode::V12),
            "redirect" => Ok(ContentMode::Redirect),
            _ => Err(format!("no such mode: {name} (ranges, ignored, v12 or redirect)")),
        }
    }
}

/// What known servers do with an upload in parts (transfer type M).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Multipart {
    /// The parts go to the API: local storage.
    Local,
    /// The parts go along signed links to the second origin: object storage.
    Presigned,
    /// It can be started, and each part is refused with 403: Zenodo.
    Refused,
    /// There is no such thing: version 12.
    Unknown,
}

/// A partial change of the knobs, as scripts send it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnobsPatch {
    mode: Option<ContentMode>,
    latency_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    bandwidth: Option<Option<u64>>,
    #[serde(default, deserialize_with = "present")]
    link: Option<Option<u64>>,
    connect_ms: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    rate_limit: Option<Option<RateLimit>>,
    quota: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    max_body: Option<Option<u64>>,
    max_files: Option<usize>,
    link_seconds: Option<u64>,
    multipart: Option<Multipart>,
    checksum_delay_ms: Option<u64>,
    index_delay_ms: Option<u64>,
    curations: Option<bool>,
    trusted_only: Option<bool>,
    plans: Option<bool>,
}

/// Tells a key that is there with `null` from one that is not there.
fn present<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(from).map(Some)
}

impl KnobsPatch {
    pub(crate) fn apply(self, knobs: &mut Knobs) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut knobs.curations, self.curations);
        set(&mut knobs.trusted_only, self.trusted_only);
        set(&mut knobs.plans, self.plans);
        set(&mut knobs.mode, self.mode);
        set(&mut knobs.latency, self.latency_ms.map(Duration::from_millis));
        set(&mut knobs.bandwidth, self.bandwidth);
        set(&mut knobs.link, self.link);
        set(&mut knobs.connect, self.connect_ms.map(Duration::from_millis));
        set(&mut knobs.rate_limit, self.rate_limit);
        set(&mut knobs.quota, self.quota);
        set(&mut knobs.max_body, self.max_body);
        set(&mut knobs.max_files, self.max_files);
        set(&mut knobs.link_seconds, self.link_seconds);
        set(&mut knobs.multipart, self.multipart);
        set(
            &mut knobs.checksum_delay,
            self.checksum_delay_ms.map(Duration::from_millis),
        );
        set(
            &mut knobs.index_delay,
            self.index_delay_ms.map(Duration::from_millis),
        );
    }
}
