//! Getting a mount on a directory, and off it again.
//!
//! fuser can do both, but mounts as type `fuse` instead of `fuse.rdmfs` for root, so that nobody could tell whose
//! mount it is; and its 0.18.0 unmounts a second time when the mount is gone already, which may hit another one's.
//! So we mount ourselves, by mount(2) or through `fusermount3`, and hand the descriptor over.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use crate::config::MountSettings;
use crate::error::{Error, Kind, Result};

/// How the mount table calls us.
const KIND: &str = "rdmfs";

/// Mounts, and returns the descriptor that the kernel's requests come through.
///
/// # Errors
/// What keeps it from mounting: no /dev/fuse, no `fusermount3`, no permission.
pub(super) fn attach(settings: &MountSettings) -> Result<OwnedFd> {
    match attach_directly(settings) {
        Err(Errno::PERM) => attach_with_helper(settings),
        attached => attached.map_err(|e| {
            Error::local(
                format_args!("mount on {}", settings.mountpoint.display()),
                &e.into(),
            )
            .with_advice("Run `rdmfs doctor` to see whether FUSE can be used here.")
        }),
    }
}

fn attach_directly(settings: &MountSettings) -> rustix::io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let mut data = format!(
        // A directory, whatever its own mode.
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    for option in kernel_options(settings) {
        data.push(',');
        data.push_str(&option);
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        source_name(&settings.url).as_str(),
        &settings.mountpoint,
        format!("fuse.{KIND}").as_str(),
        flags(settings),
        data.as_c_str(),
    )?;
    Ok(device)
}

/// The protocol of `fusermount3`: it mounts, and sends the descriptor back through a socket that it inherits.
fn attach_with_helper(settings: &MountSettings) -> Result<OwnedFd> {
    let failed = |e: Errno| Error::local("talk to fusermount3", &e.into());
    // Ours is closed in the child, the other is meant for it.
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )
    .map_err(failed)?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC).map_err(failed)?;
    let mut options = vec![
        format!("fsname={}", source_name(&settings.url)),
        format!("subtype={KIND}"),
    ];
    options.extend(kernel_options(settings));
    options.extend(
        settings
            .options
            .iter()
            .filter(|option| flag(option).is_some())
            .cloned(),
    );
    options.push("noatime".to_owned());
    if settings.read_only {
        options.push("ro".to_owned());
    }
    let output = Command::new(helper()?)
        .arg("-o")
        .arg(options.join(","))
        .arg("--")
        .arg(&settings.mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::local("run fusermount3", &e))?;
    drop(theirs);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(
            Kind::Local(libc::EPERM),
            format!(
                "can't mount on {}: {}",
                settings.mountpoint.display(),
                said.trim()
            ),
        )
        .with_advice("Run `rdmfs doctor` to see whether FUSE can be used here."));
    }
    let device = receive_descriptor(&ours).map_err(failed)?;
    rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC).map_err(failed)?;
    Ok(device)
}

fn receive_descriptor(socket: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::empty(),
    )?;
    ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or(Errno::PROTO)
}

/// What the FUSE module itself understands.
fn kernel_options(settings: &MountSettings) -> Vec<String> {
    let mut options: Vec<String> = settings
        .options
        .iter()
        .filter(|option| flag(option).is_none() && !is_ours(option))
        .cloned()
        .collect();
    if settings.allow_other {
        // Modes count only where others can come in; for the user alone, the tree's own answers are more exact:
        // EROFS for published files, not EACCES.
        options.push("default_permissions".to_owned());
        options.push("allow_other".to_owned());
    }
    options
}

fn flags(settings: &MountSettings) -> MountFlags {
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    if settings.read_only {
        flags |= MountFlags::RDONLY;
    }
    for (set, option) in settings.options.iter().filter_map(|option| flag(option)) {
        flags.set(option, set);
    }
    flags
}

/// Options that are flags of mount(2), and whether they set or clear one.
fn flag(option: &str) -> Option<(bool, MountFlags)> {
    Some(match option {
        "dev" => (false, MountFlags::NODEV),
        "nodev" => (true, MountFlags::NODEV),
        "suid" => (false, MountFlags::NOSUID),
        "nosuid" => (true, MountFlags::NOSUID),
        "exec" => (false, MountFlags::NOEXEC),
        "noexec" => (true, MountFlags::NOEXEC),
        "sync" => (true, MountFlags::SYNCHRONOUS),
        "async" => (false, MountFlags::SYNCHRONOUS),
        "dirsync" => (true, MountFlags::DIRSYNC),
        _ => return None,
    })
}

/// Options that say what a field of the settings says better.
fn is_ours(option: &str) -> bool {
    matches!(
        option,
        "ro" | "rw" | "atime" | "noatime" | "allow_other" | "default_permissions"
    )
}

/// What df(1) and /proc/mounts call the mount: `host:/`. The colon makes tools treat it as remote; a comma or a
/// control character would become an option of its own, so nothing but a plain host name goes in.
fn source_name(url: &str) -> String {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    format!("{}:/", host.chars().filter(is_plain).collect::<String>())
}

/// How a mount is taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Only if nothing in it is in use.
    WhenFree,
    /// From the tree at once; what is open stays usable until it is closed.
    Lazily,
}

/// Takes a mount off: by the system call where we may, else through `fusermount3`.
///
/// # Errors
/// `Local(EBUSY)` if it is in use, or whatever else the system says.
pub fn detach(mountpoint: &Path, how: How) -> Result<()> {
    let flags = match how {
        How::WhenFree => UnmountFlags::NOFOLLOW,
        How::Lazily => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => detach_with_helper(mountpoint, how),
        Err(error) => Err(Error::local(
            format_args!("unmount {}", mountpoint.display()),
            &error.into(),
        )),
    }
}

fn detach_with_helper(mountpoint: &Path, how: How) -> Result<()> {
    let mut command = Command::new(helper()?);
    command.arg("-u");
    if how == How::Lazily {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(mountpoint)
        // Its messages are read below.
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::local("run fusermount3", &e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errno = if said.contains("busy") {
        libc::EBUSY
    } else {
        libc::EPERM
    };
    Err(Error::new(
        Kind::Local(errno),
        format!("can't unmount {}: {}", mountpoint.display(), said.trim()),
    ))
}

/// The setuid program through which ordinary users mount: in `$PATH`, or in the usual places, which are not in every
/// user's.
///
/// # Errors
/// `Local(ENOENT)` if it is not installed.
pub fn helper() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FUSERMOUNT_PATH") {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(["/usr/bin".into(), "/sbin".into(), "/bin".into()])
        .collect();
    ["fusermount3", "fusermount"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            Error::new(
                Kind::Local(libc::ENOENT),
                "fusermount3, which mounts for ordinary users, is not installed",
            )
            .with_advice("Install it: apt install fuse3 (Debian, Ubuntu), dnf install fuse3 (Fedora).")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_name_can_carry_no_option() {
        assert_eq!(source_name("https://zenodo.org"), "zenodo.org:/");
        assert_eq!(source_name("http://127.0.0.1:5080/x"), "127.0.0.1:5080:/");
        assert_eq!(
            source_name("https://a,allow_other\n/x"),
            "aallow_other:/".replace('_', "")
        );
    }
}
