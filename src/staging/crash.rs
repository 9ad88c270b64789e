//! Named points at which a test lets the daemon die, to see what the next mount makes of what is left.
//!
//! In a debug build, `RDMFS_CRASH_AT=closed` kills the process with SIGKILL at that point, `closed:3` at the third
//! pass. In a release build nothing of this is there.

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A moment between two steps that a crash must not come between unnoticed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])* $variant,)+
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Point] = &[$(Point::$variant),+];

            /// What a test calls it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Point::$variant => $name,)+
                }
            }
        }
    };
}

points! {
    /// A new staged file has its data file and no journal entry.
    Created = "created",
    /// Its first entry is written.
    Noted = "noted",
    /// close(): the bytes are synced; the journal doesn't say so yet.
    Synced = "synced",
    /// The new journal entry is written beside the old one.
    EntryWritten = "entry-written",
    /// It has replaced the old one; the folder is not synced.
    EntryRenamed = "entry-renamed",
    /// close(): the journal says closed; the upload is not asked for.
    Closed = "closed",
    /// The old file is deleted on the server.
    Cleared = "cleared",
    /// The key is announced.
    Started = "started",
    /// A part of a multipart upload has arrived.
    PartSent = "part-sent",
    /// All bytes have arrived.
    Sent = "sent",
    /// The file is committed.
    Committed = "committed",
    /// Size and checksum are compared.
    Compared = "compared",
    /// A file that was renamed is deleted under its old key.
    OldKeyDeleted = "old-key-deleted",
    /// The upload is done; the journal entry is still there.
    Done = "done",
    /// The journal entry is gone; the bytes are still there.
    EntryDropped = "entry-dropped",
    /// rename(): the bytes are here, under the old key.
    Fetched = "fetched",
    /// rename(): the journal has the new key.
    Renamed = "renamed",
    /// unlink(): the upload has stopped.
    Held = "held",
    /// unlink(): the server has deleted the file.
    Unlinked = "unlinked",
    /// record.json: the journal says that it is about to be saved.
    Saving = "saving",
    /// record.json: the server has it.
    Saved = "saved",
}

/// Dies here if a test wants that.
#[cfg(debug_assertions)]
pub fn point(here: Point) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(Point, u32)>> = OnceLock::new();
    static PASSES: AtomicU32 = AtomicU32::new(0);

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("RDMFS_CRASH_AT").ok()?;
        let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
        let point = Point::ALL.iter().find(|point| point.name() == name)?;
        Some((*point, pass.parse().ok()?))
    });
    if let Some((point, pass)) = wanted
        && *point == here
        && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass
    {
        eprintln!("crash at {}", here.name());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal ends the process before anything more happens.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_here: Point) {}
