//! An InvenioRDM-compatible repository in one process, for integration tests and for trying out.
//!
//! It answers the REST API of InvenioRDM 14 the way a real server was seen to answer it, traps
//! included: what a client relies on here it can rely on there. Requests are counted and logged,
//! and faults can be ordered: errors, resets, stalls, short or wrong bodies.
//!
//! ```no_run
//! use rdm_sandbox::{Effect, Fault, NewRecord, Route, Sandbox};
//!
//! let sandbox = Sandbox::start();
//! let id = sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
//! sandbox.fault(Fault::on(Route::Content).key("a.csv").times(1).then(Effect::ServerError(503)));
//! // ... let a client read {sandbox.url()}/api/records/{id}/files/a.csv/content ...
//! assert_eq!(sandbox.count(Route::Content), 2, "the client tries again");
//! ```

mod answer;
mod app;
mod blobs;
mod body;
mod communities;
mod containers;
mod content;
mod control;
mod data;
mod drafts;
mod errors;
mod exports;
mod faults;
mod files;
mod flavours;
mod formats;
mod generated;
mod limits;
mod link;
mod links;
mod lists;
mod metadata;
mod mimetypes;
mod objects;
mod parts;
mod plain;
mod query;
mod records;
mod render;
mod reply;
mod requests;
mod reviews;
mod routes;
mod samples;
mod search;
mod seed;
mod server;
mod settings;
mod store;
mod trace;
mod traffic;
mod upload;
mod vocabularies;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use data::{Data, Generator, NewRecord, md5_hex};
pub use faults::{Effect, Fault, FaultId, FaultOn};
pub use routes::Route;
pub use samples::Samples;
pub use settings::{ContentMode, Flavour, Knobs, Multipart, Options, RateLimit};
pub use traffic::Request;

use app::App;
use blobs::Blob;
use server::Origin;
use trace::Trace;

/// The token of alice, who owns the samples.
pub const ALICE: &str = "alice-token";
/// The token of bob, who owns nothing at first.
pub const BOB: &str = "bob-token";
/// The token of an administrator, who can delete records.
pub const ADMIN: &str = "admin-token";

/// The token of somebody who is not trusted, where that counts.
pub const NEWCOMER: &str = "newcomer-token";

/// A running repository. It stops when this is dropped.
pub struct Sandbox {
    app: Arc<App>,
    port: u16,
    big_size: u64,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Starts an empty repository on a free port. Panics if it can't.
    pub fn start() -> Sandbox {
        Sandbox::start_with(Options::default())
    }

    /// Starts an empty repository. Panics if it can't.
    pub fn start_with(options: Options) -> Sandbox {
        Sandbox::try_start(options).unwrap_or_else(|error| panic!("the sandbox can't start: {error}"))
    }

    /// Starts an empty repository, or tells why it can't: its port may be taken.
    pub fn try_start(options: Options) -> io::Result<Sandbox> {
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let big_size = options.big_size;
        let trace = Trace::of_this_test();
        let thread = std::thread::Builder::new()
            .name("rdm-sandbox".to_string())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(4)
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                let outcome = runtime.block_on(listen(&options, trace));
                let running = outcome.is_ok();
                let _ = ready.send(outcome);
                if running {
                    let _ = runtime.block_on(stopped);
                }
                runtime.shutdown_timeout(Duration::from_secs(1));
            })?;
        let (app, port) = started.recv().map_err(io::Error::other)??;
        Ok(Sandbox {
            app,
            port,
            big_size,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The second origin, to which [`ContentMode::Redirect`] leads.
    pub fn objects_url(&self) -> String {
        self.app.objects.clone()
    }

    /// Puts sample records in, and returns their ids.
    pub fn seed_samples(&self) -> Samples {
        samples::seed(&self.app, self.big_size)
    }

    /// Publishes a record and returns its id. Panics if it lacks what a record must have.
    pub fn publish(&self, record: NewRecord) -> String {
        self.app.make_record(record)
    }

    /// Publishes so many records with so many small files each, `file-000000.csv` and so on, at the cost of one, and
    /// returns their ids.
    pub fn publish_many(&self, records: usize, files: usize) -> Vec<String> {
        self.app.make_many(records, files)
    }

    /// Makes a draft and returns its id.
    pub fn draft(&self, record: NewRecord) -> String {
        self.app.make_draft(record)
    }

    /// The id that stands for all versions of a record or draft. Panics if there is none such.
    pub fn concept_of(&self, id: &str) -> String {
        let store = self.app.store.lock();
        let document = store.records.get(id).or_else(|| store.drafts.get(id));
        document
            .unwrap_or_else(|| panic!("no record or draft has the id {id}"))
            .parent
            .clone()
    }

    /// Changes how file content is sent, for requests from now on.
    pub fn set_content_mode(&self, mode: ContentMode) {
        self.app.knobs.lock().mode = mode;
    }

    /// Orders a fault.
    pub fn fault(&self, fault: Fault) -> FaultId {
        self.app.faults.lock().add(fault)
    }

    /// Takes one fault back; false if it has already happened as often as it should.
    pub fn remove_fault(&self, id: FaultId) -> bool {
        self.app.faults.lock().remove(id)
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.app.faults.lock().clear();
    }

    /// Changes settings, for requests from now on.
    pub fn knobs(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.app.knobs.lock());
    }

    /// Requests of this kind so far.
    pub fn count(&self, route: Route) -> usize {
        self.app.traffic.count(route)
    }

    /// All requests so far, under `/api` and to the second origin.
    pub fn total(&self) -> usize {
        self.app.traffic.total()
    }

    /// Requests so far by the names of their routes.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.app.traffic.counts()
    }

    /// The latest requests, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.app.traffic.requests()
    }

    /// Forgets what was counted and logged.
    pub fn reset_counts(&self) {
        self.app.traffic.reset();
    }

    /// How often the second origin was sent an `Authorization` header, which must never happen.
    pub fn leaked_authorizations(&self) -> usize {
        self.app.links.lock().leaks
    }

    /// Plans and the records named in them.
    pub fn plans(&self) -> Vec<(String, String)> {
        self.app.store.lock().plans.clone()
    }

    /// A file of a draft, if the draft and the file exist.
    pub fn draft_file(&self, draft: &str, key: &str) -> Option<StoredFile> {
        let store = self.app.store.lock();
        let entry = store.drafts.get(draft)?.entry(key).ok()?;
        Some(StoredFile::of(entry))
    }

    /// A file of a published record, if the record and the file exist.
    pub fn record_file(&self, record: &str, key: &str) -> Option<StoredFile> {
        let store = self.app.store.lock();
        let entry = store.records.get(record)?.entry(key).ok()?;
        Some(StoredFile::of(entry))
    }

    /// The keys of a draft's files in the order they were started, pending ones too; empty if there
    /// is no such draft.
    pub fn draft_keys(&self, draft: &str) -> Vec<String> {
        let store = self.app.store.lock();
        let entries = store
            .drafts
            .get(draft)
            .into_iter()
            .flat_map(|draft| draft.files.entries.iter());
        entries.map(|entry| entry.key.clone()).collect()
    }

    /// The metadata of a draft as it is stored, if the draft exists.
    pub fn draft_metadata(&self, draft: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
        let store = self.app.store.lock();
        Some(store.drafts.get(draft)?.metadata.clone())
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> usize {
        self.app.traffic.in_flight()
    }

    /// Waits until a condition holds, looking again whenever a request starts or ends. Panics with
    /// `what` if it does not within 30 seconds.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&Sandbox) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let seen = self.app.traffic.events();
            if condition(self) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                panic!(
                    "waited 30 seconds in vain: {what}; requests so far: {:?}",
                    self.counts()
                );
            }
            // Conditions may be about other things too, such as bytes sent so far.
            self.app.traffic.wait(seen, left.min(Duration::from_millis(50)));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen(options: &Options, trace: Trace) -> io::Result<(Arc<App>, u16)> {
    let api = TcpListener::bind(("127.0.0.1", options.port)).await?;
    let objects = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = api.local_addr()?.port();
    let app = Arc::new(App::new(options, trace, port, objects.local_addr()?.port())?);
    tokio::spawn(server::accept(app.clone(), api, Origin::Api));
    tokio::spawn(server::accept(app.clone(), objects, Origin::Objects));
    Ok((app, port))
}

/// A file as the repository holds it.
pub struct StoredFile {
    /// `pending` or `completed`.
    pub status: String,
    /// Bytes stored so far; of a pending file, those of the last PUT.
    pub size: u64,
    /// Their MD5 in hex; `None` if there are none yet.
    pub md5: Option<String>,
    blob: Option<Arc<Blob>>,
}

impl StoredFile {
    fn of(entry: &store::Entry) -> StoredFile {
        StoredFile {
            status: if entry.completed { "completed" } else { "pending" }.to_string(),
            size: entry.blob.as_ref().map_or(0, |blob| blob.size),
            md5: entry.blob.as_ref().map(|blob| blob.md5.clone()),
            blob: entry.blob.clone(),
        }
    }

    /// The bytes. Panics if they can't be read.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.blob {
            Some(blob) => blob
                .bytes()
                .unwrap_or_else(|error| panic!("a stored file can't be read: {error}"))
                .to_vec(),
            None => Vec::new(),
        }
    }
}

impl std::fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredFile")
            .field("status", &self.status)
            .field("size", &self.size)
            .field("md5", &self.md5)
            .finish()
    }
}
