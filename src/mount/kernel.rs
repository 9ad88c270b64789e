//! What is agreed with the kernel: capabilities and sizes.

use fuser::{Config, InitFlags, KernelConfig, SessionACL};

/// The kernel sends writes of up to 1 MiB (256 pages) unless root raised `fs.fuse.max_pages_limit`; more would only
/// make each copied buffer larger.
pub(super) const LARGEST_WRITE: u32 = 1 << 20;

/// Read-ahead requests that the kernel keeps under way for the whole mount. Its default of 16 would let a few readers
/// of one slow file keep all other readers waiting.
const BACKGROUND: u16 = 1024;

/// Threads that read from the kernel. They only hand on, so two are enough to use both ends of the pipe.
const READERS: usize = 2;

/// What we ask for. Each is taken if the kernel has it.
const WANTED: [InitFlags; 7] = [
    // `ls -l` of 10,000 files in 5 calls instead of 10,000 lookups …
    InitFlags::FUSE_DO_READDIRPLUS,
    // … and plain listings where nobody asks for attributes.
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // Lookups in one folder at the same time: one slow record doesn't hold up `records/`.
    InitFlags::FUSE_PARALLEL_DIROPS,
    // O_TRUNC comes with the open: what is about to be emptied is not fetched first.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // A changed size or time drops the pages that the kernel has.
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_ASYNC_DIO,
    // Who writes takes set-user and set-group bits away: we do that ourselves. Else the kernel asks before each write
    // whether the file has capabilities.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// Sets up the connection.
pub(super) fn negotiate(config: &mut KernelConfig) {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            log::info!("this kernel lacks {flag:?}");
        }
    }
    if let Err(most) = config.set_max_write(LARGEST_WRITE) {
        log::info!("the kernel writes at most {most} bytes at once");
    }
    if let Err(most) = config.set_max_background(BACKGROUND) {
        log::info!("the kernel keeps at most {most} requests in the background");
    }
}

/// How fuser serves the mount. Who may come in is for the kernel alone to decide: root's own processes, such as a
/// backup or an indexer, are kept out of a user's mount by it unless others are allowed.
pub(super) fn session_config() -> (SessionACL, Config) {
    let mut config = Config::default();
    config.n_threads = Some(READERS);
    config.acl = SessionACL::All;
    (SessionACL::All, config)
}
