//! The FUSE adapter: kernel settings, worker lanes, replies.
//!
//! Called by `cli/`. It decides nothing about records: every call goes to `tree/` and every answer back to the kernel.

mod adapter;
mod afterwards;
mod answers;
mod backing;
pub mod device;
mod handles;
mod inline;
mod kernel;
mod lanes;
mod listings;
mod reads;
mod requests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::catalog::{Catalog, Keeping, Times};
use crate::config::MountSettings;
use crate::content;
use crate::error::{Error, Kind, Result};
use crate::repository::model::{Owner, RecordId};
use crate::repository::{self, Repository, SharedLink};
use crate::staging::{self, Area, News};
use crate::status::Board;
use crate::tree::{Floors, MountFacts, Rules, Told, Tree};
use adapter::Adapter;
use device::How;

/// How long a daemon that is asked to end waits for its uploads. Service managers send SIGKILL after 90 s; what is
/// not sent by then is sent by the next mount.
const DRAIN: Duration = Duration::from_secs(60);
/// How often a draining daemon looks whether all is sent.
const LOOK: Duration = Duration::from_millis(100);
/// How long calls that were under way at the unmount are waited for.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// Of the disk with the cache, the part that is left free.
const KEEP_FREE: f64 = 0.05;
/// What is known of records, on disk: 40,000 of the usual 6 KB, and little beside the bytes of one large file.
const CATALOG_LIMIT: u64 = 256 << 20;

/// Mounts and serves until it is unmounted; `ready` is called once the mount answers.
///
/// # Errors
/// Whatever keeps it from mounting; after that, none.
pub fn serve(settings: MountSettings, ready: impl FnOnce()) -> Result<()> {
    crate::memory::tune();
    raise_descriptor_limit();
    let tree = build(&settings)?;
    let content = Arc::clone(tree.content());
    let staging = Arc::clone(tree.staging());
    let catalog = Arc::clone(tree.catalog());

    let (acl, config) = kernel::session_config();
    let device = device::attach(&settings)?;
    let adapter = Adapter::new(Arc::clone(&tree), settings.passthrough);
    let afterwards = adapter.afterwards();
    let hear = adapter.hears();
    let session = fuser::Session::from_fd(adapter, device, acl, config)
        .map_err(|e| Error::local("agree with the kernel on how to talk", &e))?;
    hear(session.notifier());
    kernel::raise_read_ahead(&settings.mountpoint);
    let mountpoint = settings.mountpoint.clone();
    let weak = Arc::downgrade(&tree);
    on_signal(move || {
        drain(&weak);
        if let Err(error) = device::detach(&mountpoint, How::WhenFree) {
            log::warn!("{error}; it is unmounted as soon as nobody uses it");
            if let Err(error) = device::detach(&mountpoint, How::Lazily) {
                log::error!("{error}");
            }
        }
    })?;
    log::info!("mounted {} on {}", settings.url, settings.mountpoint.display());
    ready();
    let served = session.run();
    log::info!("unmounted {}", settings.mountpoint.display());
    afterwards.finish(LAST_CALLS);
    staging.shutdown();
    content.shutdown();
    catalog.shutdown();
    remove_private_cache(&settings.cache_dir, std::process::id());
    served.map_err(|e| Error::local("serve the mount", &e))
}

/// Each staged file that waits and each open one needs descriptors; the usual soft limit of 1,024 is for programs that
/// use select(2).
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    ) {
        log::warn!("can't raise the limit on open files: {error}");
    }
}

/// Builds the floors, from the lowest up.
fn build(settings: &MountSettings) -> Result<Arc<Tree>> {
    let repository = Arc::new(connect(settings)?);
    if let Some(proxy) = repository.proxy_in_use() {
        log::info!("requests go through the proxy {proxy}");
    }
    let board = Arc::new(Board::default());
    let times = Times {
        records: settings.metadata_ttl,
        drafts: settings.draft_ttl,
    };
    let keeping = keeping(settings, repository.url());
    let catalog = Arc::new(Catalog::new(Arc::clone(&repository), times, Some(&keeping)));
    if settings.begin_offline {
        catalog.begin_offline();
    } else {
        catalog.prepare_forms();
    }
    let (content, cache_dir) = open_cache(settings, &repository, &board)?;
    let told = Arc::new(Told::default());
    let (known, remembered) = (Arc::clone(&catalog), Arc::clone(&told));
    let listener = move |draft: &RecordId, news: News<'_>| match news {
        News::Arrived { entry, facts } => {
            known.file_committed(draft, entry);
            remembered.arrived(draft, entry, &facts);
        }
        News::Removed { key } => known.file_removed(draft, key),
        News::Saved { record } => drop(known.draft_saved(*record)),
    };
    let staging = Area::open(
        staging::Settings {
            directory: settings.state_dir.clone(),
            account: keeping.account,
            // Who mounts what others share usually has a mount of their own, too.
            apart: settings.share_link.is_some(),
            uploads: settings.uploads,
            close_wait: settings.close_wait,
            rules: staging::Rules::new(&settings.junk)?,
        },
        Arc::clone(&repository),
        Arc::clone(&board),
        Box::new(listener),
    )?;
    let floors = Floors {
        repository,
        catalog,
        content,
        staging: Arc::new(staging),
        board,
        told,
    };
    let rules = Rules {
        times,
        read_only: settings.read_only,
        search_limit: settings.search_limit,
    };
    let facts = MountFacts {
        mountpoint: settings.mountpoint.clone(),
        started: SystemTime::now(),
        cache_dir,
        access: settings.access.clone(),
    };
    let tree = Tree::new(floors, rules, facts);
    if let Some(link) = share_link(settings)? {
        // Whichever of them it opens.
        tree.show(&Owner::Record(link.id.clone()));
        tree.show(&Owner::Draft(link.id));
    }
    Ok(Arc::new(tree))
}

/// The repository as such a mount sees it. It starts threads: to be called after the last fork.
///
/// # Errors
/// `Usage` if the address, the token, the link or the certificate can't be used.
pub fn connect(settings: &MountSettings) -> Result<Repository> {
    let token = settings
        .token
        .as_deref()
        .map(repository::Token::new)
        .transpose()?;
    let of_repository = repository::Settings {
        url: settings.url.clone(),
        token,
        ca_certificate: settings.ca_certificate.clone(),
        insecure: settings.insecure,
        ..repository::Settings::default()
    };
    match share_link(settings)? {
        Some(link) => Repository::connect_with_link(of_repository, link.token),
        None => Repository::connect(of_repository),
    }
}

fn share_link(settings: &MountSettings) -> Result<Option<SharedLink>> {
    settings.share_link.as_deref().map(SharedLink::parse).transpose()
}

/// Where the catalog of such a mount is kept. `url` is the repository's address as `repository/` writes it.
#[must_use]
pub fn keeping(settings: &MountSettings, url: &str) -> Keeping {
    Keeping {
        directory: settings.cache_dir.clone(),
        account: match (&settings.token, &settings.share_link) {
            (token, None) => staging::account_of(url, token.as_deref()),
            // What a link opens, others don't see.
            (token, Some(link)) => {
                let both = format!("{}\n{link}", token.as_deref().unwrap_or_default());
                staging::account_of(url, Some(&both))
            }
        },
        limit: CATALOG_LIMIT.min(settings.cache_size),
    }
}

/// The cache, or a private one if another daemon has it.
fn open_cache(
    settings: &MountSettings,
    repository: &Arc<Repository>,
    board: &Board,
) -> Result<(Arc<content::Store>, PathBuf)> {
    let open = |directory: PathBuf, is_private: bool| -> Result<_> {
        let store = content::Store::open(
            content::Settings {
                directory: directory.clone(),
                limit: settings.cache_size,
                keep_free: KEEP_FREE,
                connections: settings.connections,
                window: settings.read_ahead,
                memory: settings.memory,
                is_private,
            },
            Arc::clone(repository),
        )?;
        Ok((store, directory))
    };
    match open(settings.cache_dir.clone(), false) {
        Ok(opened) => {
            remove_left_private_caches(&settings.cache_dir);
            Ok(opened)
        }
        Err(error) if error.kind() == Kind::Local(libc::EWOULDBLOCK) => {
            let private = private_cache(&settings.cache_dir, std::process::id());
            let busy = Error::new(
                Kind::Local(libc::EWOULDBLOCK),
                format!(
                    "another rdmfs uses the cache {}; this mount uses {}",
                    settings.cache_dir.display(),
                    private.display()
                ),
            );
            board
                .post(&busy.with_advice("Give each mount a --cache-dir of its own to keep what it fetches."));
            open(private, true)
        }
        Err(error) => Err(error),
    }
}

/// The cache of a mount that can't have the common one. It is gone when the mount ends.
fn private_cache(cache: &Path, process: u32) -> PathBuf {
    cache.join(format!("private-{process}"))
}

/// Removes the private caches of mounts that were killed.
fn remove_left_private_caches(cache: &Path) {
    let names = std::fs::read_dir(cache)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    for process in names.filter_map(|name| name.to_str()?.strip_prefix("private-")?.parse::<u32>().ok()) {
        if !Path::new("/proc").join(process.to_string()).exists() {
            remove_private_cache(cache, process);
        }
    }
}

fn remove_private_cache(cache: &Path, process: u32) {
    let private = private_cache(cache, process);
    if let Err(error) = std::fs::remove_dir_all(&private)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("can't remove {}: {error}", private.display());
    }
}

/// Calls `end` once when the daemon is asked to end; the second time it ends at once.
fn on_signal(end: impl FnOnce() + Send + 'static) -> Result<()> {
    let starting = |e: std::io::Error| Error::local("listen for signals", &e);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(starting)?;
    let mut end = Some(end);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                match end.take() {
                    Some(end) => {
                        // On a thread of its own, so that a second signal is heard.
                        if let Err(error) = thread::Builder::new().name("ending".to_owned()).spawn(end) {
                            log::error!("can't start a thread: {error}");
                            std::process::exit(1);
                        }
                    }
                    None => std::process::exit(1),
                }
            }
        })
        .map_err(starting)?;
    Ok(())
}

/// Waits until all that moves is sent, within limits.
fn drain(tree: &Weak<Tree>) {
    let deadline = Instant::now() + DRAIN;
    while let Some(tree) = tree.upgrade()
        && Instant::now() < deadline
    {
        let moving = tree.status().moving_uploads();
        if moving == 0 {
            return;
        }
        drop(tree);
        thread::sleep(LOOK);
    }
    log::warn!("not everything is sent; the next mount goes on with it");
}
