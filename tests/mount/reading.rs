//! Reading published files, through each way a server may send them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rdm_sandbox::{ContentMode, Data, NewRecord, Route, Sandbox};

use crate::support::{how, mount, noise, shell};

const MODES: [ContentMode; 4] = [
    ContentMode::Ranges,
    ContentMode::Ignored,
    ContentMode::V12,
    ContentMode::Redirect,
];
const MB: u64 = 1 << 20;

#[test]
fn every_file_reads_back_whole_in_each_way_a_server_sends_it() {
    let sandbox = Sandbox::start();
    let sizes = [0, 1, 4095, 262_144, 262_145, 1_000_000, 9 * MB + 17];
    let record = sizes.iter().fold(NewRecord::titled("Sizes"), |record, size| {
        record.file(
            &format!("{size}.bin"),
            noise(usize::try_from(*size).unwrap(), *size),
        )
    });
    let id = sandbox.publish(record);
    for mode in MODES {
        sandbox.set_content_mode(mode);
        let mount = mount(&sandbox);
        for size in sizes {
            let path = mount.path(format!("records/{id}/files/{size}.bin"));
            let expected = noise(usize::try_from(size).unwrap(), size);
            assert!(
                fs::read(&path).unwrap() == expected,
                "{size} bytes in mode {mode:?}\n{}",
                mount.log()
            );
        }
        assert_eq!(sandbox.leaked_authorizations(), 0);
    }
}

#[test]
fn reads_at_random_places_are_right_in_each_way_a_server_sends_them() {
    let sandbox = Sandbox::start();
    let bytes = noise(5_000_000, 5);
    let id = sandbox.publish(NewRecord::titled("Random").file("a", bytes.clone()));
    for mode in MODES {
        sandbox.set_content_mode(mode);
        let mount = mount(&sandbox);
        let file = File::open(mount.path(format!("records/{id}/files/a"))).unwrap();
        for offset in [
            4_999_990_u64,
            0,
            2_500_000,
            4_000_001,
            262_143,
            1_000_000,
            4_999_999,
            123,
        ] {
            let mut buffer = vec![0; 5000];
            let count = file.read_at(&mut buffer, offset).unwrap();
            let start = usize::try_from(offset).unwrap();
            let end = (start + 5000).min(bytes.len());
            assert!(buffer[..count] == bytes[start..end], "{offset} in mode {mode:?}");
        }
        assert_eq!(file.read_at(&mut [0; 10], 5_000_000).unwrap(), 0, "the end");
        assert_eq!(file.read_at(&mut [0; 10], 6_000_000).unwrap(), 0, "past the end");
    }
}

#[test]
fn a_committed_file_of_a_draft_is_read_like_a_published_one() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", noise(700_000, 1)));
    let mount = mount(&sandbox);
    assert!(fs::read(mount.path(format!("drafts/{draft}/a"))).unwrap() == noise(700_000, 1));
}

#[test]
fn a_file_read_once_is_read_again_without_a_request() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Once").file("a", noise(3_000_000, 3)));
    let first = mount(&sandbox);
    let path = format!("records/{id}/files/a");
    fs::read(first.path(&path)).unwrap();
    sandbox.reset_counts();
    fs::read(first.path(&path)).unwrap();
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.counts());
    // The cache outlives the mount.
    let folder = first.unmount(&[]);
    let second = how(&sandbox.url())
        .token(rdm_sandbox::ALICE)
        .folder(folder)
        .start();
    sandbox.reset_counts();
    assert!(fs::read(second.path(&path)).unwrap() == noise(3_000_000, 3));
    assert_eq!(sandbox.count(Route::Content), 0, "{:?}", sandbox.counts());
}

#[test]
fn versions_share_the_bytes_they_have_in_common() {
    let sandbox = Sandbox::start();
    let bytes = noise(2_000_000, 9);
    let first = sandbox.publish(NewRecord::titled("Versions").file("same", bytes.clone()));
    let second = sandbox.publish(
        NewRecord::titled("Versions")
            .version_of(&first)
            .file("renamed", bytes.clone()),
    );
    let mount = mount(&sandbox);
    fs::read(mount.path(format!("records/{first}/files/same"))).unwrap();
    sandbox.reset_counts();
    assert!(fs::read(mount.path(format!("records/{second}/files/renamed"))).unwrap() == bytes);
    assert_eq!(sandbox.count(Route::Content), 0);
}

#[test]
fn the_first_read_costs_one_request_and_a_block_or_little_more() {
    let sandbox = Sandbox::start();
    sandbox.set_content_mode(ContentMode::Ranges);
    let id = sandbox.publish(NewRecord::titled("Large").file("a", Data::generated(200 * MB, 7)));
    let mount = mount(&sandbox);
    let path = mount.path(format!("records/{id}/files/a"));
    fs::metadata(&path).unwrap();
    sandbox.reset_counts();
    File::open(&path)
        .unwrap()
        .read_exact_at(&mut [0; 4096], 100 * MB)
        .unwrap();
    assert_eq!(sandbox.count(Route::Content), 1);
    let sent: u64 = sandbox.requests().iter().map(|request| request.sent).sum();
    assert!(sent <= 512 << 10, "{sent} bytes for 4 KiB");
}

#[test]
fn a_far_offset_works_where_ranges_are_ignored_and_costs_one_download() {
    let sandbox = Sandbox::start();
    sandbox.set_content_mode(ContentMode::Ignored);
    let id = sandbox.publish(NewRecord::titled("Large").file("a", Data::generated(120 * MB, 7)));
    let mount = mount(&sandbox);
    let read = || {
        let mut file = File::open(mount.path(format!("records/{id}/files/a"))).unwrap();
        file.seek(SeekFrom::Start(80 * MB)).unwrap();
        let mut buffer = [0; 4096];
        file.read_exact(&mut buffer).unwrap();
        buffer
    };
    let bytes = read();
    let expected = rdm_sandbox::Generator::new(120 * MB, 7).read_at(80 * MB, 4096);
    assert!(bytes[..] == expected[..]);
    sandbox.wait_until("the one stream ends", |sandbox| sandbox.in_flight() == 0);
    assert!(read() == bytes);
    assert_eq!(sandbox.count(Route::Content), 1, "{:?}", sandbox.counts());
}

#[test]
fn many_readers_of_one_cold_file_cause_one_download() {
    for mode in [ContentMode::Ranges, ContentMode::Ignored] {
        let sandbox = Sandbox::start();
        sandbox.set_content_mode(mode);
        sandbox.knobs(|knobs| knobs.bandwidth = Some(20 * MB));
        let bytes = noise(8_000_000, 4);
        let id = sandbox.publish(NewRecord::titled("Popular").file("a", bytes.clone()));
        let mount = mount(&sandbox);
        let path = mount.path(format!("records/{id}/files/a"));
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| assert!(fs::read(&path).unwrap() == bytes));
            }
        });
        let sent: u64 = sandbox
            .requests()
            .iter()
            .filter(|r| r.route == "GET content")
            .map(|r| r.sent)
            .sum();
        assert!(
            sent < 8_000_000 + 2 * MB,
            "{sent} bytes sent for a file of 8,000,000 in mode {mode:?}"
        );
    }
}

#[test]
fn a_mapped_file_has_the_right_bytes() {
    let sandbox = Sandbox::start();
    let bytes = noise(2_000_000, 8);
    let id = sandbox.publish(NewRecord::titled("Mapped").file("a", bytes.clone()));
    let mount = mount(&sandbox);
    let path = mount.path(format!("records/{id}/files/a"));
    fs::write(mount.local("expected"), &bytes).unwrap();
    shell(&format!(
        "python3 -c '
import mmap
with open(\"{0}\", \"rb\") as f, open(\"{1}\", \"rb\") as g:
    m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
    expected = g.read()
    assert m[1999990:] == expected[1999990:]
    assert m[:] == expected
'",
        path.display(),
        mount.local("expected").display()
    ));
}

#[test]
fn the_file_behind_an_open_handle_is_stale_when_it_was_replaced() {
    let sandbox = Sandbox::start();
    sandbox.set_content_mode(ContentMode::Ranges);
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", noise(9_000_000, 1)));
    let mount = mount(&sandbox);
    let path = mount.path(format!("drafts/{draft}/a"));
    let file = File::open(&path).unwrap();
    file.read_exact_at(&mut [0; 100], 0).unwrap();
    // Another client replaces it.
    let repository = rdmfs::repository::Repository::connect(rdmfs::repository::Settings {
        url: sandbox.url(),
        token: Some(rdmfs::repository::Token::new(rdm_sandbox::ALICE).unwrap()),
        ..Default::default()
    })
    .unwrap();
    let id = rdmfs::repository::model::RecordId::new(&draft).unwrap();
    repository.delete_file(&id, "a").unwrap();
    repository.start_files(&id, &["a"]).unwrap();
    let other = mount.local("other");
    fs::write(&other, noise(9_000_000, 2)).unwrap();
    let upload = rdmfs::repository::Upload {
        file: &File::open(&other).unwrap(),
        size: 9_000_000,
        progress: &|_| {},
        cancelled: &std::sync::atomic::AtomicBool::new(false),
    };
    repository.put_content(&id, "a", upload).unwrap();
    repository.commit_file(&id, "a").unwrap();
    let error = file.read_exact_at(&mut [0; 100], 8_000_000).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESTALE));
    drop(file);
    let wait = std::time::Instant::now() + crate::support::LONG;
    while fs::read(&path).map_or(true, |bytes| bytes != noise(9_000_000, 2)) {
        assert!(std::time::Instant::now() < wait, "the new file never shows up");
    }
}

#[test]
fn a_reader_of_a_file_that_is_written_here_sees_the_new_bytes_or_estale_never_a_mix() {
    let sandbox = Sandbox::start();
    let old = noise(9_000_000, 1);
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", old.clone()));
    let mount = mount(&sandbox);
    let path = mount.path(format!("drafts/{draft}/a"));
    let reader = File::open(&path).unwrap();
    let mut buffer = vec![0; 4096];
    reader.read_exact_at(&mut buffer, 0).unwrap();
    assert!(buffer[..] == old[..4096]);
    let new = noise(9_000_000, 2);
    fs::write(&path, &new).unwrap();
    match reader.read_exact_at(&mut buffer, 8_000_000) {
        Ok(()) => assert!(buffer[..] == new[8_000_000..8_004_096]),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
    }
    assert!(fs::read(&path).unwrap() == new);
}
