//! Whether this machine and this user can mount with FUSE at all, and what to do where they can't.
//!
//! `rdmfs mount` asks before it starts a daemon, `rdmfs doctor` asks to tell.

use std::fs::OpenOptions;
use std::path::Path;

use crate::error::{Error, Kind, Result};
use crate::mount::device::helper;

const DEVICE: &str = "/dev/fuse";
const CONFIGURATION: &str = "/etc/fuse.conf";
/// The bit of `CAP_SYS_ADMIN` in `CapEff`, which mount(2) asks for.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Whether we are root, who mounts without `fusermount3`.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `/dev/fuse` is there and opens.
///
/// # Errors
/// If not, with the advice that fits: a package, a module, a container's flags, or permissions.
pub fn device() -> Result<()> {
    let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) else {
        return Ok(());
    };
    let (what, advice) = match error.raw_os_error() {
        Some(libc::ENOENT) => (
            format!("this machine has no {DEVICE}"),
            "Install FUSE (apt install fuse3) and load it (modprobe fuse); \
             in a container, start that with --device /dev/fuse --cap-add SYS_ADMIN.",
        ),
        Some(libc::EACCES) => (
            format!("{DEVICE} can't be opened: permission denied"),
            "Install the package that sets its permissions (apt install fuse3), or run chmod 666 /dev/fuse as root.",
        ),
        Some(libc::ENODEV | libc::ENXIO) => (
            format!("{DEVICE} is there, but the kernel doesn't know FUSE"),
            "Load the module: modprobe fuse (as root, and outside of a container).",
        ),
        _ => (
            format!("{DEVICE} can't be opened: {error}"),
            "In a container, start that with --device /dev/fuse --cap-add SYS_ADMIN.",
        ),
    };
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    Err(Error::new(Kind::Local(errno), what).with_advice(advice))
}

/// Root may mount; inside most containers it may not.
///
/// # Errors
/// If root lacks the capability.
pub fn capability() -> Result<()> {
    if !is_root() || has_sys_admin() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Local(libc::EPERM),
        "root may not mount here: CAP_SYS_ADMIN is missing",
    )
    .with_advice("Start the container with --device /dev/fuse --cap-add SYS_ADMIN (and, with AppArmor, --security-opt apparmor=unconfined)."))
}

fn has_sys_admin() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        // Where /proc doesn't say, mounting itself will.
        .is_none_or(|mask| mask & CAP_SYS_ADMIN != 0)
}

/// Whether ordinary users may let others into their mounts.
#[must_use]
pub fn user_allow_other() -> bool {
    std::fs::read_to_string(CONFIGURATION)
        .unwrap_or_default()
        .lines()
        .any(|line| line.split('#').next().unwrap_or_default().trim() == "user_allow_other")
}

/// Everything that must hold before a mount is tried.
///
/// # Errors
/// The first thing that doesn't.
pub fn ready_to_mount(mountpoint: &Path, allow_other: bool) -> Result<()> {
    device()?;
    capability()?;
    if is_root() {
        return Ok(());
    }
    helper()?;
    if allow_other && !user_allow_other() {
        return Err(Error::new(
            Kind::Local(libc::EPERM),
            "--allow-other is not permitted to ordinary users on this machine",
        )
        .with_advice(format!(
            "Have root add the line user_allow_other to {CONFIGURATION}, or leave --allow-other out."
        )));
    }
    rustix::fs::access(mountpoint, rustix::fs::Access::WRITE_OK).map_err(|error| {
        Error::local(
            format!("{} is not yours to mount on", mountpoint.display()),
            &error.into(),
        )
        .with_advice("Ordinary users mount on directories they may write to, such as one in their home.")
    })
}
