//! Uploads in parts. A server of version 12 knows none; one with local storage and one with S3 differ in what they check,
//! and hold the same laws.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rdmfs::error::{Kind, Result};
use rdmfs::repository::model::{FileEntry, FileStatus, Md5, RecordId};
use rdmfs::repository::{Layout, Multipart, Upload, md5_of};

use crate::server::{Server, bytes_of, eventually, file_with, of_draft};

/// The smallest that S3 takes.
const PART: u64 = 5 << 20;
const SIZE: usize = (12 << 20) + 345;

fn layout() -> Layout {
    Layout::new(SIZE as u64, PART).unwrap()
}

/// No two parts are alike.
fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n / 4099 + n % 251) as u8).collect()
}

fn whole_md5() -> Md5 {
    md5_of(&file_with(&content()), SIZE as u64, &|| false).unwrap()
}

/// `None` on a server that knows no parts.
fn start(server: &Server, id: &RecordId, key: &str) -> Option<Multipart> {
    match server.owner.start_multipart(id, key, layout()) {
        Ok(multipart) => Some(multipart),
        Err(error) if error.to_string().contains("Unknown field") => None,
        Err(error) => panic!("{error}"),
    }
}

fn send(server: &Server, multipart: &Multipart, number: u64) -> Result<Md5> {
    let upload = Upload {
        file: &file_with(&content()),
        size: SIZE as u64,
        progress: &|_| (),
        cancelled: &AtomicBool::new(false),
    };
    server.owner.put_part(multipart, number, &upload)
}

/// The MD5 may come a moment after the commit.
fn summed(server: &Server, id: &RecordId, key: &str) -> FileEntry {
    let mut entry = None;
    eventually("the checksum is told", || {
        entry = Some(server.owner.draft_file(id, key).unwrap());
        entry.as_ref().is_some_and(|entry| entry.md5.is_some())
    });
    entry.unwrap()
}

fn parts_in_any_order_make_the_file(server: &Server) {
    let id = server.draft("In parts", &[]);
    let Some(multipart) = start(server, &id, "dir/a b%2F.bin") else {
        return;
    };
    assert_eq!(
        server.owner.draft_file(&id, "dir/a b%2F.bin").unwrap().status,
        FileStatus::Pending
    );
    for number in [3, 1, 2] {
        let range = layout().range(number).unwrap();
        let part = &content()[range.start as usize..range.end as usize];
        let md5 = md5_of(&file_with(part), part.len() as u64, &|| false).unwrap();
        assert_eq!(send(server, &multipart, number).unwrap(), md5);
    }
    let committed = server.owner.commit_file(&id, "dir/a b%2F.bin").unwrap();
    assert_eq!(committed.status, FileStatus::Completed);
    let entry = summed(server, &id, "dir/a b%2F.bin");
    assert_eq!((entry.size, entry.md5), (Some(SIZE as u64), Some(whole_md5())));
    let download = server
        .owner
        .open_content(&of_draft(&id, "dir/a b%2F.bin"), None)
        .unwrap();
    assert!(bytes_of(download) == content());
}

fn all_parts_are_sent_side_by_side(server: &Server) {
    let id = server.draft("In parts", &[]);
    let Some(multipart) = start(server, &id, "a") else {
        return;
    };
    let sent = AtomicU64::new(0);
    let upload = Upload {
        file: &file_with(&content()),
        size: SIZE as u64,
        progress: &|bytes| {
            sent.fetch_max(bytes, Ordering::Relaxed);
        },
        cancelled: &AtomicBool::new(false),
    };
    let md5 = server.owner.put_parts(&multipart, &upload).unwrap();
    assert_eq!((md5, sent.into_inner()), (whole_md5(), SIZE as u64));
    server.owner.commit_file(&id, "a").unwrap();
    assert_eq!(summed(server, &id, "a").md5, Some(md5));
    // And once more changes nothing.
    assert_eq!(server.owner.commit_file(&id, "a").unwrap().md5, Some(md5));
}

fn a_missing_part_never_passes_for_the_file(server: &Server) {
    let id = server.draft("Missing", &[]);
    let Some(multipart) = start(server, &id, "a") else {
        return;
    };
    send(server, &multipart, 1).unwrap();
    send(server, &multipart, 3).unwrap();
    match server.owner.commit_file(&id, "a") {
        // S3 refuses. Local storage takes it with zeros in the middle.
        Err(error) => assert_eq!(error.kind(), Kind::ServerFailed, "{error}"),
        Ok(_) => assert_ne!(summed(server, &id, "a").md5, Some(whole_md5())),
    }
}

fn the_whole_can_not_be_sent_to_a_file_in_parts(server: &Server) {
    let id = server.draft("Trap", &[]);
    if start(server, &id, "a").is_none() {
        return;
    }
    let error = server.put(&id, "a", b"1").unwrap_err();
    assert_eq!(error.kind(), Kind::ServerFailed, "{error}");
    let gone = server.owner.draft_file(&id, "a").unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

fn a_file_in_parts_is_deleted_and_sent_anew(server: &Server) {
    let id = server.draft("Anew", &[]);
    let Some(first) = start(server, &id, "a") else {
        return;
    };
    send(server, &first, 1).unwrap();
    let again = server.owner.start_multipart(&id, "a", layout()).err().unwrap();
    assert!(
        again.server_message().unwrap().contains("already exists"),
        "{again}"
    );
    server.owner.delete_file(&id, "a").unwrap();
    let gone = send(server, &first, 2).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    // A real server closes the connection on which it refused a body unread. Looking is repeated on a new one, starting is
    // not: as everybody does after a failure, look first.
    assert_eq!(server.owner.draft_files(&id).unwrap(), []);
    server.add(&id, "a", b"whole").unwrap();
}

fn strangers_start_nothing_in_parts(server: &Server) {
    let id = server.draft("Mine", &[]);
    if start(server, &id, "probe").is_none() {
        return;
    }
    for repository in [server.stranger(), &server.guest] {
        let error = repository.start_multipart(&id, "a", layout()).err().unwrap();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
    }
}

crate::on_both![
    parts_in_any_order_make_the_file,
    all_parts_are_sent_side_by_side,
    a_missing_part_never_passes_for_the_file,
    the_whole_can_not_be_sent_to_a_file_in_parts,
    a_file_in_parts_is_deleted_and_sent_anew,
    strangers_start_nothing_in_parts,
];
