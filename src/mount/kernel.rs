//! What is agreed with the kernel: capabilities and sizes.

use std::path::Path;

use fuser::{Config, InitFlags, KernelConfig, SessionACL};

/// The kernel sends writes of up to 1 MiB (256 pages) unless root raised `fs.fuse.max_pages_limit`; more would only
/// make each copied buffer larger.
pub(super) const LARGEST_WRITE: u32 = 1 << 20;

/// Read-ahead requests that the kernel keeps under way for the whole mount. Its default of 16 would let a few readers
/// of one slow file keep all other readers waiting.
const BACKGROUND: u16 = 1024;

/// Threads that read from the kernel. They hand on what may wait for others, and read and write on the local disk by
/// themselves, all but one at the same time: so one is always there.
pub(super) const READERS: usize = 4;

/// How far the kernel reads ahead, in KiB, and so how much it asks for at once. Only root may raise it from 128. What it
/// reads ahead can't be told from what a program asks for, so all of it is fetched: up to twice as much beyond each place
/// that a program reads at. More than a block made a program that reads columns of 1.3 MiB fetch half as much again, and
/// took no measurable time off reading in order, for which `content/` reads ahead by itself.
const READ_AHEAD: u32 = 256;

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

/// Agrees that the kernel may be given files to read by itself. False if it can't, or takes them from root only and this is
/// not root: then nothing is spent on it.
pub(super) fn offer_files(config: &mut KernelConfig) -> bool {
    /// CAP_SYS_ADMIN, as a bit of the capabilities.
    const ADMINISTRATOR: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    capabilities.is_some_and(|all| all & ADMINISTRATOR != 0)
        && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        // The cache is on a plain file system, not on one that is itself stacked on another.
        && config.set_max_stack_depth(1).is_ok()
}

/// Lets the kernel read further ahead, where that is allowed.
pub(super) fn raise_read_ahead(mountpoint: &Path) {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    // Without asking the file system itself, which is not being served yet.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let Ok(stat) = statx(CWD, mountpoint, flags, StatxFlags::empty()) else {
        return;
    };
    let setting = format!(
        "/sys/class/bdi/{}:{}/read_ahead_kb",
        stat.stx_dev_major, stat.stx_dev_minor
    );
    match std::fs::write(&setting, READ_AHEAD.to_string()) {
        Ok(()) => log::debug!("{setting} is {READ_AHEAD}"),
        Err(error) => log::debug!("{setting} stays as it is: {error}"),
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
