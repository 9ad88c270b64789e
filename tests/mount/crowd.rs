//! Many readers at once: what the daemon takes for them.

use std::fs::{self, File};
use std::io::Read;
use std::thread;
use std::time::Duration;

use rdm_sandbox::{ALICE, Data, Generator, NewRecord, Sandbox};

use crate::support::{Mount, how};

const READERS: usize = 64;
const SIZE: u64 = 8 << 20;
/// The daemon's memory at most, in KiB.
const MOST: u64 = 200 << 10;

/// A far repository, with so many files, and a mount that reads over eight connections.
fn far_away(files: usize) -> (Sandbox, String, Mount) {
    let sandbox = Sandbox::start();
    let record = (0..files).fold(NewRecord::titled("Crowd"), |record, n| {
        record.file(&n.to_string(), Data::generated(SIZE, n as u64))
    });
    let id = sandbox.publish(record);
    sandbox.knobs(|knobs| knobs.latency = Duration::from_millis(10));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--connections", "8"])
        .start();
    (sandbox, id, mount)
}

/// Reads these files in order, all at the same time, and compares them.
fn read_all(mount: &Mount, id: &str, file_of: impl Fn(usize) -> usize + Sync) {
    thread::scope(|scope| {
        for reader in 0..READERS {
            let file_of = &file_of;
            scope.spawn(move || {
                let n = file_of(reader);
                let expected = Generator::new(SIZE, n as u64);
                let mut file = File::open(mount.path(format!("records/{id}/files/{n}"))).unwrap();
                let mut buffer = vec![0; 256 << 10];
                for at in (0..SIZE).step_by(buffer.len()) {
                    file.read_exact(&mut buffer).unwrap();
                    assert!(
                        buffer[..] == expected.read_at(at, buffer.len())[..],
                        "{n} at {at}"
                    );
                }
            });
        }
    });
}

fn most_memory(mount: &Mount) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.worker())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn sixty_four_readers_of_sixty_four_files_take_no_more_than_200_mib() {
    let (_sandbox, id, mount) = far_away(READERS);
    read_all(&mount, &id, |reader| reader);
    let kib = most_memory(&mount);
    eprintln!("{kib} KiB");
    assert!(kib < MOST, "{kib} KiB");
}

#[test]
fn sixty_four_readers_of_one_file_take_no_more_than_200_mib_and_fetch_it_once() {
    let (sandbox, id, mount) = far_away(1);
    read_all(&mount, &id, |_| 0);
    let kib = most_memory(&mount);
    eprintln!("{kib} KiB");
    assert!(kib < MOST, "{kib} KiB");
    let sent: u64 = sandbox.requests().iter().map(|request| request.sent).sum();
    assert!(sent < SIZE + (256 << 10), "{sent}");
}
