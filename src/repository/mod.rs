//! The REST client of one InvenioRDM server: transport, one file per resource, models.
//!
//! Called by `catalog/`, `content/`, `staging/` and `cli/`. It blocks the calling thread, within limits, and knows
//! nothing of nodes, caches or FUSE.

mod access_links;
mod answer;
mod any;
mod communities;
mod containers;
mod content;
mod curations;
mod damap;
mod decisions;
mod doi;
mod drafts;
mod exports;
mod files;
mod identity;
mod lists;
pub mod model;
mod multipart;
mod pacing;
mod pages;
mod parts;
mod presigned;
mod proxy;
mod records;
mod requests;
mod retry;
mod reviews;
mod search;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod transfers;
mod transport;
mod upload;
mod urls;
mod vocabularies;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, Result};
use presigned::Presigned;
use transfers::Transfers;
use transport::{Answer, Ask, Transport};

pub use access_links::{AccessLink, LinkChange, LinkToken, NewLink, Permission, SharedLink};
pub use any::{AnyAnswer, AnyBody, AnyCall};
pub use communities::{Community, Inclusion, Inclusions, Logo};
pub use containers::{Container, Member};
pub use content::{Coverage, Download};
pub use curations::CurationRules;
pub use damap::Plan;
pub use decisions::{Check, Published};
pub use drafts::Saved;
pub use exports::{EXPORTS, Export, ExportFormat};
pub use identity::{Flavour, Identity, VersionHint};
pub use lists::Listing;
pub use multipart::Multipart;
pub use pacing::RateLimit;
pub use records::Search;
pub use requests::{Event, Request, RequestFilter, RequestId};
pub use token::Token;
pub use transfers::{Layout, Way};
pub use upload::{Upload, md5_of};
pub use vocabularies::{Term, VocabularyType};

/// Where the repository is, and how to talk to it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Its address, with or without `/api`.
    pub url: String,
    /// The user's token; without one, only what is public can be read.
    pub token: Option<Token>,
    /// In place of `rdmfs/VERSION (+homepage)`. Some repositories block or limit by it.
    pub user_agent: Option<String>,
    /// More certificates to trust, in PEM form.
    pub ca_certificate: Option<PathBuf>,
    /// Trust any certificate. The caller warns.
    pub insecure: bool,
    /// How long to wait for what.
    pub limits: Limits,
}

/// The limits on every wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// Without a single byte, in either direction.
    pub stall: Duration,
    /// One request for JSON, or the beginning of a download, with all its retries and pauses.
    pub whole: Duration,
    /// How often a request is sent, in all.
    pub tries: u32,
    /// The pause before the second try; it doubles from there and half of it is random.
    pub first_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            whole: Duration::from_secs(60),
            tries: 5,
            first_pause: Duration::from_millis(250),
        }
    }
}

/// What Zenodo gives on a page to who has a token, and other public services.
const LARGEST_PAGE: u32 = 100;

/// One InvenioRDM server. Every call blocks the calling thread, from any number of plain threads at once; it must not be
/// called from within an async runtime. It starts threads: make it after the last fork.
pub struct Repository {
    engine: Arc<Engine>,
    transport: Arc<Transport>,
    presigned: Presigned,
    transfers: Transfers,
    withheld: pages::Withheld,
    exports_offered: exports::Offered,
    search_pace: Arc<pacing::SearchPace>,
    is_zenodo: Arc<AtomicBool>,
    /// What the server said of pages that were too large for it.
    page_limit: Arc<AtomicU32>,
}

impl Repository {
    /// Prepares everything; no request is sent yet.
    ///
    /// # Errors
    /// `Usage` if the address, the proxy variables or the certificate can't be used, `Local` if the certificate can't
    /// be read or no thread can be started.
    pub fn connect(settings: Settings) -> Result<Repository> {
        Repository::connect_as(settings, None)
    }

    /// As [`Repository::connect`], with the token of a link to a shared record: what is asked about records carries it,
    /// and nothing that goes to another origin does. A user's token may be there beside it.
    ///
    /// # Errors
    /// As [`Repository::connect`].
    pub fn connect_with_link(settings: Settings, link: LinkToken) -> Result<Repository> {
        Repository::connect_as(settings, Some(link))
    }

    fn connect_as(settings: Settings, link: Option<LinkToken>) -> Result<Repository> {
        let transport = Arc::new(Transport::new(&settings, link)?);
        let is_zenodo = identity::is_zenodo_host(transport.base.url());
        Ok(Repository {
            engine: Arc::new(Engine::start()?),
            transport,
            presigned: Presigned::default(),
            transfers: Transfers::default(),
            withheld: pages::Withheld::default(),
            exports_offered: exports::Offered::default(),
            search_pace: Arc::default(),
            is_zenodo: Arc::new(AtomicBool::new(is_zenodo)),
            page_limit: Arc::new(AtomicU32::new(LARGEST_PAGE)),
        })
    }

    /// The same server for who has something to go on with if it doesn't answer within this time.
    #[must_use]
    pub fn hasty(&self, whole: Duration) -> Repository {
        Repository {
            engine: Arc::clone(&self.engine),
            transport: Arc::new(self.transport.hasty(whole)),
            presigned: Presigned::default(),
            transfers: Transfers::default(),
            withheld: pages::Withheld::default(),
            exports_offered: exports::Offered::default(),
            search_pace: Arc::clone(&self.search_pace),
            is_zenodo: Arc::clone(&self.is_zenodo),
            page_limit: Arc::clone(&self.page_limit),
        }
    }

    /// The repository's address, without `/api` and without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.transport.base.as_str()
    }

    /// Whether requests carry a token. Whether the repository takes it says [`Repository::check_token`].
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.transport.has_token()
    }

    /// The proxy that requests to the repository go through, without its credentials.
    #[must_use]
    pub fn proxy_in_use(&self) -> Option<String> {
        self.transport
            .proxy
            .as_ref()
            .map(|url| urls::Origin::of(url).to_string())
    }

    /// Whether a host, by scheme, name and port as [`Download::host`] tells it, is the repository itself.
    #[must_use]
    pub fn is_own(&self, host: &str) -> bool {
        self.transport.base.origin().to_string() == host
    }

    /// What the last answer said about the rate limit.
    #[must_use]
    pub fn limits_seen(&self) -> Option<RateLimit> {
        self.transport.pacer.last()
    }

    /// Counts the requests, of every kind, that the repository itself answered as it should.
    #[must_use]
    pub fn words(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.transport.words)
    }

    /// How many requests were sent, of every kind.
    #[must_use]
    pub fn requests_sent(&self) -> u64 {
        self.transport.sent.load(Ordering::Relaxed)
    }

    /// The largest page this repository gives. Larger ones are asked for as this.
    #[must_use]
    pub fn largest_page(&self) -> u32 {
        let known = match (self.is_zenodo.load(Ordering::Relaxed), self.has_token()) {
            (true, false) => 25,
            _ => LARGEST_PAGE,
        };
        known.min(self.page_limit.load(Ordering::Relaxed))
    }

    /// The best way to send a file of this size, as far as the server's answers have told so far.
    #[must_use]
    pub fn way(&self, size: u64) -> Way {
        self.transfers.way(size)
    }

    fn ask(&self, ask: Ask) -> Result<Answer> {
        self.engine
            .wait(self.transport.ask(&ask))
            .map_err(|error| self.transport.advised(error))
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Repository").field(&self.url()).finish()
    }
}

/// The runtime that carries the connections. Downloads hold on to it, so that it ends after the last of them.
struct Engine(Option<Runtime>);

impl Engine {
    fn start() -> Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("rdmfs-net")
            .enable_all()
            .build()
            .map(|runtime| Engine(Some(runtime)))
            .map_err(|error| Error::local("start the network threads", &error))
    }

    fn runtime(&self) -> &Runtime {
        match &self.0 {
            Some(runtime) => runtime,
            None => unreachable!("it is taken out only when this is dropped"),
        }
    }

    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Dropping a runtime waits for its name lookups, which have no limit.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
