//! What a killed daemon leaves of files that it was fetching.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rdm_sandbox::{NewRecord, Route, Sandbox};

use crate::support::{ended, kill, mount, mount_again, noise, until};

const FILES: usize = 8;
const SIZE: usize = 12 << 20;
/// The unit in which the cache keeps files.
const BLOCK: u64 = 256 << 10;

#[test]
fn what_was_whole_when_the_daemon_was_killed_is_not_fetched_again_and_nothing_wrong_is_read() {
    let sandbox = Sandbox::start();
    let all: Vec<Vec<u8>> = (0..FILES).map(|n| noise(SIZE, n as u64)).collect();
    let record = (0..FILES).fold(NewRecord::titled("Streams"), |record, n| {
        record.file(&n.to_string(), all[n].clone())
    });
    let id = sandbox.publish(record);
    sandbox.knobs(|knobs| knobs.bandwidth = Some(4 << 20));
    let first = mount(&sandbox);
    let read: Vec<AtomicU64> = (0..FILES).map(|_| AtomicU64::new(0)).collect();
    let path = |n: usize| format!("records/{id}/files/{n}");
    thread::scope(|scope| {
        for n in 0..FILES {
            let (first, read, all, path) = (&first, &read[n], &all[n], &path);
            scope.spawn(move || {
                let file = File::open(first.path(path(n))).unwrap();
                let mut bytes = vec![0; 128 << 10];
                while let Ok(length @ 1..) = file.read_at(&mut bytes, read.load(Ordering::SeqCst)) {
                    let at = usize::try_from(read.load(Ordering::SeqCst)).unwrap();
                    assert!(bytes[..length] == all[at..at + length]);
                    read.fetch_add(length as u64, Ordering::SeqCst);
                }
            });
        }
        until("all files stream", || {
            read.iter().all(|read| read.load(Ordering::SeqCst) > 5 * BLOCK)
        });
        kill(&first);
    });
    let folder = ended(first);
    sandbox.knobs(|knobs| knobs.bandwidth = None);
    sandbox.reset_counts();
    let again = mount_again(&sandbox, folder);
    for (n, bytes) in all.iter().enumerate() {
        assert!(
            std::fs::read(again.path(path(n))).unwrap() == *bytes,
            "{n}\n{}",
            again.log()
        );
    }
    for request in sandbox.requests() {
        if request.route != Route::Content.name() {
            continue;
        }
        let file = (0..FILES)
            .find(|n| request.path.contains(&format!("/files/{n}/")))
            .unwrap_or_else(|| panic!("{}", request.path));
        let range = request.range.as_deref().unwrap_or("bytes=0-");
        let from: u64 = range["bytes=".len()..]
            .split('-')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        // The block that was read last may have been served before it was noted.
        let whole = (read[file].load(Ordering::SeqCst) / BLOCK - 1) * BLOCK;
        assert!(from >= whole, "{file}: {range}, but {whole} bytes were there");
    }
}
