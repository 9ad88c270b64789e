//! What was read once and verified: the kernel reads it by itself or keeps its pages, and a changed copy is never served.
//!
//! That no read reaches the daemon is shown by stopping it. The kernel takes files from root only.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use rdm_sandbox::{ALICE, ContentMode, Effect, Fault, NewRecord, Route, Sandbox};
use rdmfs::mount::device::{How, detach};
use rustix::fs::Advice;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{LONG, Mount, Plan, ended, errno, how, noise, shell, until};

const MB: usize = 1_000_000;
/// Compared in the background, where it has to be; and of so many bytes that the kernel reads in many steps.
const LARGE: usize = 12 * MB;
/// Compared at once.
const SMALL: usize = 3 * MB;
/// `nobody` on every Debian: who mounts has to have a name.
const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 61234;

/// Whether files can be handed to this kernel: by root, from Linux 6.9 on.
fn kernel_takes_files() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split(['.', '-'])
        .filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let takes = rustix::process::geteuid().is_root() && version >= (6, 9);
    if !takes {
        eprintln!("not root, or an old kernel: files can't be handed to it");
    }
    takes
}

/// A published file of these bytes, in a mount.
struct World {
    sandbox: Sandbox,
    record: String,
    bytes: Vec<u8>,
}

impl World {
    fn new(size: usize) -> World {
        let sandbox = Sandbox::start();
        sandbox.set_content_mode(ContentMode::Ranges);
        let bytes = noise(size, 5);
        let record = sandbox.publish(NewRecord::titled("Warm").file("a", bytes.clone()));
        World {
            sandbox,
            record,
            bytes,
        }
    }

    fn plan(&self) -> Plan {
        how(&self.sandbox.url()).token(ALICE)
    }

    fn path(&self, mount: &Mount) -> PathBuf {
        mount.path(format!("records/{}/files/a", self.record))
    }

    /// Reads the file whole, as the first to do so.
    fn warm(&self, mount: &Mount) {
        assert!(fs::read(self.path(mount)).unwrap() == self.bytes);
    }

    /// Opens the file so that the kernel reads it by itself; before that it may have to be compared, or an earlier open
    /// may not be released yet.
    fn handed_out(&self, mount: &Mount) -> File {
        let mut opened = None;
        until("the kernel reads it by itself", || {
            drop(opened.take());
            let file = File::open(self.path(mount)).unwrap();
            let is_handed_out = mount.status().cache.handed_out == 1;
            opened = Some(file);
            is_handed_out
        });
        opened.unwrap()
    }

    /// The copy in the cache.
    fn copy(&self, mount: &Mount) -> Option<PathBuf> {
        copies(&mount.local("cache"), self.bytes.len())
    }

    fn is_right(&self, file: &File) -> bool {
        let mut bytes = vec![0; self.bytes.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes == self.bytes
    }
}

/// A data file of this size below a folder.
fn copies(folder: &Path, size: usize) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() && !path.ends_with("trash") {
            return copies(&path, size);
        }
        let fits = path.extension().is_some_and(|ending| ending == "data")
            && path.metadata().is_ok_and(|meta| meta.len() == size as u64);
        fits.then_some(path)
    })
}

/// Changes one byte of a file, and puts its modification time back.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), modified);
}

/// Takes a mount off, and returns its folder. A program that another test starts just now may have our files open for the
/// moment between fork and exec.
fn unmounted(mount: Mount) -> TempDir {
    until("it is unmounted", || {
        detach(&mount.path(""), How::WhenFree).is_ok()
    });
    ended(mount)
}

/// Drops the pages that the kernel has of a file in the mount.
fn drop_pages(path: &Path) {
    let file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
}

/// Does something while the daemon of a mount can't answer.
fn without_daemon<T: Send + 'static>(mount: &Mount, act: impl FnOnce() -> T + Send + 'static) -> T {
    let daemon = Pid::from_raw(i32::try_from(mount.worker()).unwrap()).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(act()));
    let done = told.recv_timeout(LONG);
    kill_process(daemon, Signal::CONT).unwrap();
    done.expect("it waits for the daemon")
}

fn reads_right_without_daemon(world: &World, mount: &Mount, file: File) -> File {
    let expected = world.bytes.clone();
    without_daemon(mount, move || {
        let mut bytes = vec![0; expected.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == expected);
        file
    })
}

#[test]
fn a_verified_file_is_read_by_the_kernel_alone() {
    if !kernel_takes_files() {
        return;
    }
    for size in [SMALL, LARGE] {
        let world = World::new(size);
        let mount = world.plan().start();
        world.warm(&mount);
        let file = world.handed_out(&mount);
        drop(reads_right_without_daemon(&world, &mount, file));
        mount.wait_for("it is given back", |status| status.cache.handed_out == 0);
        // Again by the next mount, and at once: in this run of the machine it is known to be right.
        let mount = world.plan().folder(unmounted(mount)).start();
        world.sandbox.reset_counts();
        let file = File::open(world.path(&mount)).unwrap();
        assert_eq!(mount.status().cache.handed_out, 1);
        drop(reads_right_without_daemon(&world, &mount, file));
        assert_eq!(world.sandbox.count(Route::Content), 0);
    }
}

#[test]
fn opens_of_one_file_are_of_one_kind_while_any_is_open() {
    if !kernel_takes_files() {
        return;
    }
    let world = World::new(LARGE);
    let mount = world.plan().start();
    let first = File::open(world.path(&mount)).unwrap();
    assert!(world.is_right(&first));
    // It is complete now, but the first open is served by the daemon.
    let second = File::open(world.path(&mount)).unwrap();
    assert_eq!(mount.status().cache.handed_out, 0);
    assert!(world.is_right(&second));
    drop(first);
    let third = File::open(world.path(&mount)).unwrap();
    assert!(world.is_right(&third) && world.is_right(&second));
    drop((second, third));
    let first = world.handed_out(&mount);
    let others: Vec<File> = (0..8).map(|_| File::open(world.path(&mount)).unwrap()).collect();
    assert!(others.iter().all(|file| world.is_right(file)));
    assert_eq!(mount.status().cache.handed_out, 1);
    drop(first);
    assert!(others.iter().all(|file| world.is_right(file)));
    drop(others);
    mount.wait_for("it is given back", |status| status.cache.handed_out == 0);
}

#[test]
fn many_open_and_close_one_file_at_the_same_time() {
    let world = World::new(SMALL);
    let mount = world.plan().start();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    assert!(world.is_right(&File::open(world.path(&mount)).unwrap()));
                }
            });
        }
    });
}

#[test]
fn a_file_that_the_kernel_reads_is_mapped_and_copied_right() {
    if !kernel_takes_files() {
        return;
    }
    let world = World::new(LARGE);
    let mount = world.plan().start();
    world.warm(&mount);
    let file = world.handed_out(&mount);
    let (path, expected) = (world.path(&mount), mount.local("expected"));
    fs::write(&expected, &world.bytes).unwrap();
    shell(&format!(
        "python3 -c '
import mmap
with open(\"{0}\", \"rb\") as f, open(\"{1}\", \"rb\") as g:
    m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    expected = g.read()
    assert m[-10:] == expected[-10:] and m[:] == expected
' && cp {0} {1}.copy && cmp {1} {1}.copy",
        path.display(),
        expected.display()
    ));
    assert_eq!(mount.status().cache.handed_out, 1);
    drop(file);
}

#[test]
fn what_the_kernel_reads_is_not_dropped_from_the_cache_until_it_is_closed() {
    if !kernel_takes_files() {
        return;
    }
    let world = World::new(LARGE);
    let others: Vec<String> = (0..6)
        .map(|n| {
            let record = NewRecord::titled("Other").file("b", noise(LARGE - 1 - n, n as u64));
            world.sandbox.publish(record)
        })
        .collect();
    let mount = world.plan().arguments(&["--cache-size", "30M"]).start();
    let read = |record: &String| fs::read(mount.path(format!("records/{record}/files/b"))).unwrap();
    world.warm(&mount);
    let file = world.handed_out(&mount);
    for record in &others[..3] {
        read(record);
    }
    assert!(
        copies(&mount.local("cache"), LARGE - 1).is_none(),
        "nothing was dropped"
    );
    assert!(world.copy(&mount).is_some());
    drop(reads_right_without_daemon(&world, &mount, file));
    mount.wait_for("it is given back", |status| status.cache.handed_out == 0);
    for record in &others[3..] {
        read(record);
    }
    assert!(world.copy(&mount).is_none(), "it is dropped as any other");
}

#[test]
fn a_byte_flipped_in_the_cache_is_never_served() {
    for (size, flags) in [
        (SMALL, &[][..]),
        (LARGE, &[][..]),
        (SMALL, &["--no-passthrough"][..]),
        (LARGE, &["--no-passthrough"][..]),
    ] {
        let world = World::new(size);
        let mut mount = world.plan().arguments(flags).start();
        world.warm(&mount);
        for at in [0, size as u64 / 2, size as u64 - 1] {
            for remount in [false, true] {
                flip(&world.copy(&mount).unwrap(), at);
                if remount {
                    mount = world.plan().arguments(flags).folder(unmounted(mount)).start();
                }
                drop_pages(&world.path(&mount));
                world.sandbox.reset_counts();
                let file = File::open(world.path(&mount)).unwrap();
                assert!(world.is_right(&file), "{size} {flags:?} {at} {remount}");
                assert!(world.is_right(&File::open(world.path(&mount)).unwrap()));
                assert_eq!(world.sandbox.count(Route::Content), 1);
            }
        }
        if flags.is_empty() && kernel_takes_files() {
            assert!(world.is_right(&world.handed_out(&mount)), "whole again");
        }
    }
}

#[test]
fn a_byte_flipped_while_the_file_is_open_is_never_served_by_the_daemon() {
    let world = World::new(LARGE);
    let mount = world.plan().arguments(&["--no-passthrough"]).start();
    world.warm(&mount);
    let file = File::open(world.path(&mount)).unwrap();
    drop_pages(&world.path(&mount));
    assert!(world.is_right(&file));
    for at in [1, LARGE as u64 / 3] {
        flip(&world.copy(&mount).unwrap(), at);
        drop_pages(&world.path(&mount));
        assert!(world.is_right(&file), "{at}");
    }
}

#[test]
fn a_file_that_the_kernel_reads_and_somebody_changes_is_mended_for_the_next_open() {
    if !kernel_takes_files() {
        return;
    }
    let world = World::new(LARGE);
    let mount = world.plan().start();
    world.warm(&mount);
    let held = world.handed_out(&mount);
    flip(&world.copy(&mount).unwrap(), 7 * MB as u64);
    let next = File::open(world.path(&mount)).unwrap();
    assert!(world.is_right(&next) && world.is_right(&held));
    // Where it can't be, nobody else gets it.
    world
        .sandbox
        .fault(Fault::on(Route::Content).then(Effect::FlipByte {
            offset: 7 * MB as u64,
        }));
    flip(&world.copy(&mount).unwrap(), 7 * MB as u64);
    assert_eq!(errno(File::open(world.path(&mount))), libc::EIO);
    world.sandbox.clear_faults();
    drop((held, next));
    until("it is fetched anew", || {
        fs::read(world.path(&mount)).is_ok_and(|bytes| bytes == world.bytes)
    });
}

#[test]
fn a_copy_that_was_touched_is_compared_before_the_kernel_gets_it_again() {
    if !kernel_takes_files() {
        return;
    }
    let world = World::new(LARGE);
    let mount = world.plan().start();
    world.warm(&mount);
    drop(world.handed_out(&mount));
    mount.wait_for("it is given back", |status| status.cache.handed_out == 0);
    let copy = world.copy(&mount).unwrap();
    let inode = copy.metadata().unwrap().ino();
    let file = File::options().write(true).open(&copy).unwrap();
    file.set_modified(std::time::SystemTime::now()).unwrap();
    world.sandbox.reset_counts();
    let file = File::open(world.path(&mount)).unwrap();
    assert_eq!(
        mount.status().cache.handed_out,
        0,
        "nobody knows yet what is in it"
    );
    assert!(world.is_right(&file));
    drop(file);
    drop(world.handed_out(&mount));
    assert_eq!(world.sandbox.count(Route::Content), 0);
    assert_eq!(world.copy(&mount).unwrap().metadata().unwrap().ino(), inode);
}

#[test]
fn the_pages_of_a_verified_file_are_kept_for_the_next_open() {
    let world = World::new(LARGE);
    let mount = world.plan().arguments(&["--no-passthrough"]).start();
    world.warm(&mount);
    let file = File::open(world.path(&mount)).unwrap();
    assert_eq!(mount.status().cache.handed_out, 0);
    drop(reads_right_without_daemon(&world, &mount, file));
}

#[test]
fn pages_of_a_wrong_copy_are_dropped_also_for_who_has_it_open() {
    let world = World::new(LARGE);
    let mount = world.plan().start();
    world
        .sandbox
        .fault(Fault::on(Route::Content).then(Effect::FlipByte {
            offset: LARGE as u64 / 2,
        }));
    let file = File::open(world.path(&mount)).unwrap();
    let mut bytes = vec![0; LARGE];
    assert_eq!(errno(file.read_exact_at(&mut bytes, 0)), libc::EIO);
    // Also what had been read before the last block came, which the kernel has pages of.
    until("nothing of it is served", || {
        let parts = (0..LARGE as u64).step_by(MB);
        parts
            .map(|at| file.read_at(&mut bytes[..4096], at))
            .all(|read| read.is_err())
    });
}

#[test]
fn an_ordinary_user_reads_what_the_daemon_compares() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new(LARGE);
    let mount = world.plan().user(NOBODY).start();
    let path = world.path(&mount).display().to_string();
    let expected = mount.local("expected");
    fs::write(&expected, &world.bytes).unwrap();
    let status = mount.path(".rdmfs/status.json").display().to_string();
    // Twice, and with the file held open.
    let line = format!(
        "cmp {0} {path} && exec 3<{path} && cmp {0} {path} && grep -q '\"handed_out\": 0' {status}",
        expected.display()
    );
    let output = Command::new("sh")
        .args(["-c", &line])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}\n{}", mount.log());
    assert!(!mount.log().contains("takes no files"), "it was not even tried");
}

#[test]
fn the_kernel_asks_who_may_open_what_it_reads_by_itself() {
    if !kernel_takes_files() {
        return;
    }
    let world = World::new(SMALL);
    let closed = NewRecord::titled("Closed")
        .restricted()
        .file("a", noise(SMALL, 6));
    let closed = world.sandbox.publish(closed);
    let opens = |path: &Path| {
        Command::new("cat")
            .arg(path)
            .uid(SOMEBODY)
            .gid(SOMEBODY)
            .output()
            .unwrap()
    };
    for (flags, lets_in) in [(&[][..], false), (&["--allow-other"][..], true)] {
        let mount = world.plan().arguments(flags).start();
        fs::set_permissions(mount.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        world.warm(&mount);
        let secret = mount.path(format!("records/{closed}/files/a"));
        fs::read(&secret).unwrap();
        let file = world.handed_out(&mount);
        let others = opens(&world.path(&mount));
        assert_eq!(others.status.success(), lets_in);
        assert_eq!(others.stdout == world.bytes, lets_in);
        let secret_file = File::open(&secret).unwrap();
        mount.wait_for("both are handed out", |status| status.cache.handed_out >= 1);
        let others = opens(&secret);
        assert!(!others.status.success() && others.stdout.is_empty());
        drop((file, secret_file));
    }
}
