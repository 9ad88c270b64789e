//! Has a piece of work done on a cache: by the daemon that uses it, through `.rdmfs/control`, or here.
//!
//! Either way it is asked again and again how far it is, and stopped by Ctrl-C: what is done then stays done.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::cache::show::Show;
use crate::cli::cache::target::Target;
use crate::cli::control;
use crate::content::{self, Store};
use crate::error::{Error, Kind, Result};
use crate::repository::{self, Repository};
use crate::status::{Outcome, Work};

/// How often to ask how far it is.
const PACE: Duration = Duration::from_millis(200);
/// How long work that was stopped may take to end.
const LONGEST_END: Duration = Duration::from_secs(15);
/// Bytes of paths in one order: it is an argument of a process and one write.
const LONGEST_ORDER: usize = 32 << 10;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Say what is here.
    Look,
    /// Fetch.
    Fetch,
    /// Check.
    Verify,
    /// Drop.
    Clear,
    /// Let go.
    Unpin,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            What::Look => "look",
            What::Fetch => "fetch",
            What::Verify => "verify",
            What::Clear => "clear",
            What::Unpin => "unpin",
        }
    }
}

/// What is to be done, and how.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// What.
    pub what: What,
    /// Fetch: pin. Clear: also what is pinned.
    pub pins: bool,
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Done {
    /// Of all orders together; its outcomes are below.
    pub work: Work,
    /// What became of single files.
    pub outcomes: Vec<Outcome>,
    /// Somebody stopped it.
    pub interrupted: bool,
}

impl Done {
    fn add(&mut self, work: &Work, outcomes: Vec<Outcome>) {
        let all = &mut self.work;
        all.files += work.files;
        all.files_done += work.files_done;
        all.bytes += work.bytes;
        all.bytes_done += work.bytes_done;
        all.freed += work.freed;
        for (fate, count) in &work.counts {
            *all.counts.entry(*fate).or_default() += count;
        }
        if all.error.is_empty() {
            all.error.clone_from(&work.error);
            all.advice.clone_from(&work.advice);
        }
        self.outcomes.extend(outcomes);
    }
}

/// Who does it.
enum Doer<'a> {
    Daemon { mountpoint: &'a Path, number: u64 },
    Here { work: Arc<content::Work> },
}

/// Has it done, and returns when it has ended.
///
/// # Errors
/// If it could not begin, or the daemon is gone. What goes wrong with single files is among the outcomes.
pub fn run(target: &Target, order: Order, show: &mut Show) -> Result<Done> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Error::local("listen for signals", &error))?;
    }
    let mut done = Done::default();
    match &target.mountpoint {
        Some(mountpoint) => {
            for paths in batches(&target.paths) {
                let line = format!(
                    "cache {}",
                    json!({"do": order.what.word(), "paths": paths, "pins": order.pins})
                );
                let begun = control::ask(mountpoint, &line)?;
                let number = begun.get("work").and_then(Value::as_u64).ok_or_else(|| {
                    let shown = mountpoint.display();
                    Error::new(
                        Kind::NotReady,
                        format!("the daemon of {shown} is of another version than this program"),
                    )
                    .with_advice(format!("rdmfs unmount {shown}, then mount it again."))
                })?;
                follow(
                    &Doer::Daemon { mountpoint, number },
                    &interrupted,
                    show,
                    &mut done,
                )?;
                if done.interrupted {
                    break;
                }
            }
        }
        None => here(&target.directory, order, &interrupted, show, &mut done)?,
    }
    Ok(done)
}

/// The paths in as many orders as they need: one without any means the whole cache.
fn batches(paths: &[String]) -> Vec<&[String]> {
    let mut batches = Vec::new();
    let mut rest = paths;
    loop {
        let mut length = 0;
        let fits = rest.iter().take_while(|path| {
            length += path.len() + 4;
            length <= LONGEST_ORDER
        });
        let count = fits.count().max(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        batches.push(now);
        rest = later;
        if rest.is_empty() {
            return batches;
        }
    }
}

/// Does it in this process, on a cache that no daemon uses: its lock is held meanwhile.
fn here(
    directory: &Path,
    order: Order,
    interrupted: &AtomicBool,
    show: &mut Show,
    done: &mut Done,
) -> Result<()> {
    let store = open(directory)?;
    let work = Arc::new(content::Work::new(1));
    let (worker_store, worker_work) = (Arc::clone(&store), Arc::clone(&work));
    let worker = thread::spawn(move || {
        let (store, work) = (worker_store, worker_work);
        match order.what {
            What::Verify => store.verify(None, &work),
            What::Clear => store.clear(None, order.pins, &work),
            What::Unpin => store.unpin(None, &work),
            // Both need names, and those need a mount.
            What::Look | What::Fetch => {}
        }
        work.finish(Ok(()));
    });
    let followed = follow(&Doer::Here { work }, interrupted, show, done);
    let ended = worker.join();
    store.shutdown();
    ended.map_err(|_| Error::new(Kind::Internal, "working on the cache failed"))?;
    followed
}

/// Opens a cache that no daemon uses. Nothing is fetched from here: the repository it is given is nobody's.
fn open(directory: &Path) -> Result<Arc<Store>> {
    let nobody = Repository::connect(repository::Settings {
        url: "http://localhost".into(),
        ..repository::Settings::default()
    })?;
    let settings = content::Settings {
        directory: directory.to_owned(),
        // Nothing is dropped that wasn't asked for.
        limit: u64::MAX,
        keep_free: 0.0,
        connections: 1,
        window: 0,
        memory: 0,
    };
    Store::open(settings, Arc::new(nobody)).map_err(|error| {
        if error.kind() == Kind::Local(libc::EWOULDBLOCK) {
            return error.with_advice("Name the mount that uses it; rdmfs status lists the mounts.");
        }
        error
    })
}

/// Looks how far it is until it has ended.
fn follow(doer: &Doer<'_>, interrupted: &AtomicBool, show: &mut Show, done: &mut Done) -> Result<()> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut stopped_at: Option<Instant> = None;
    loop {
        if interrupted.load(Ordering::SeqCst) && stopped_at.is_none() {
            stopped_at = Some(Instant::now());
            done.interrupted = true;
            // If it is lost, the daemon stops when nobody asks any more.
            let _ = doer.stop();
        }
        match doer.tell(outcomes.len()) {
            Ok(mut work) => {
                let new = std::mem::take(&mut work.outcomes);
                show.update(&work, &new);
                let more_to_hear = !new.is_empty();
                outcomes.extend(new);
                if work.finished {
                    done.add(&work, outcomes);
                    return Ok(());
                }
                if more_to_hear {
                    continue;
                }
            }
            // Ctrl-C also ends the process that asks.
            Err(_) if done.interrupted => {}
            Err(_) if interrupted.load(Ordering::SeqCst) => continue,
            Err(error) => return Err(error),
        }
        if stopped_at.is_some_and(|at| at.elapsed() > LONGEST_END) {
            return Ok(());
        }
        thread::sleep(PACE);
    }
}

impl Doer<'_> {
    fn tell(&self, since: usize) -> Result<Work> {
        match self {
            Doer::Here { work } => Ok(work.tell(since)),
            Doer::Daemon { mountpoint, number } => {
                let mut said = control::ask(mountpoint, &format!("work {number} {since}"))?;
                serde_json::from_value(said.remove("work").unwrap_or_default()).map_err(|error| {
                    Error::new(
                        Kind::Internal,
                        format!(
                            "what the daemon of {} says can't be understood ({error})",
                            mountpoint.display()
                        ),
                    )
                })
            }
        }
    }

    fn stop(&self) -> Result<()> {
        match self {
            Doer::Here { work } => {
                work.stop();
                Ok(())
            }
            Doer::Daemon { mountpoint, number } => control::send(mountpoint, &format!("stop {number}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_paths_are_several_orders_and_none_is_one() {
        assert_eq!(batches(&[]).len(), 1);
        let paths: Vec<String> = (0..3000)
            .map(|i| format!("records/abcde-12345/files/{i:020}"))
            .collect();
        let batches = batches(&paths);
        assert!(batches.len() > 3);
        assert_eq!(batches.concat(), paths);
        assert!(
            batches
                .iter()
                .all(|batch| batch.iter().map(String::len).sum::<usize>() < LONGEST_ORDER)
        );
        assert_eq!(super::batches(&["x".repeat(LONGEST_ORDER * 2)]).len(), 1);
    }
}
