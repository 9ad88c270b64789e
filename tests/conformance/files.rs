//! Uploads: the order of the calls, and the traps.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rdmfs::error::Kind;
use rdmfs::repository::Upload;
use rdmfs::repository::model::{FileStatus, RecordId};

use crate::server::{Server, bytes_of, eventually, file_with, of_draft, put};

fn statuses(server: &Server, id: &RecordId) -> Vec<(String, FileStatus)> {
    let mut list: Vec<_> = server
        .owner
        .draft_files(id)
        .unwrap()
        .into_iter()
        .map(|entry| (entry.key.to_string(), entry.status))
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn a_file_is_started_sent_and_committed(server: &Server) {
    let id = server.draft("Life of a file", &[("other", b"1")]);
    let started = server.owner.start_files(&id, &["a.txt"]).unwrap();
    assert_eq!(started.len(), 1, "only what was asked for");
    assert_eq!(
        (&*started[0].key, started[0].status),
        ("a.txt", FileStatus::Pending)
    );

    let md5 = server.put(&id, "a.txt", b"hello\n").unwrap();
    assert_eq!(md5.to_string(), "b1946ac92492d2347c6235b4d2611184");
    assert_eq!(statuses(server, &id)[0], ("a.txt".into(), FileStatus::Pending));

    let entry = server.owner.commit_file(&id, "a.txt").unwrap();
    assert_eq!(entry.status, FileStatus::Completed);
    assert_eq!((entry.size, entry.md5), (Some(6), Some(md5)));
    assert_eq!(statuses(server, &id)[0], ("a.txt".into(), FileStatus::Completed));
}

fn progress_goes_up_to_the_size(server: &Server) {
    let id = server.draft("Progress", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    let content = vec![5; 3_000_000];
    let last = AtomicU64::new(0);
    let upload = Upload {
        file: &file_with(&content),
        size: content.len() as u64,
        progress: &|sent| assert!(last.swap(sent, Ordering::Relaxed) < sent),
        cancelled: &AtomicBool::new(false),
    };
    server.owner.put_content(&id, "a", upload).unwrap();
    assert_eq!(last.load(Ordering::Relaxed), 3_000_000);
    assert_eq!(server.owner.commit_file(&id, "a").unwrap().size, Some(3_000_000));
}

fn an_empty_file_is_a_file(server: &Server) {
    let id = server.draft("Empty file", &[("empty", b"")]);
    let entry = server.owner.draft_files(&id).unwrap().remove(0);
    assert_eq!(entry.size, Some(0));
    assert_eq!(entry.md5.unwrap().to_string(), "d41d8cd98f00b204e9800998ecf8427e");
}

fn starting_what_exists_is_refused_and_nothing_else_is_started(server: &Server) {
    let id = server.draft("Twice", &[("a", b"1")]);
    let error = server.owner.start_files(&id, &["b", "a"]).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.server_message().unwrap().contains("already exists"),
        "{error}"
    );
    assert_eq!(statuses(server, &id), [("a".into(), FileStatus::Completed)]);
}

fn sending_what_was_not_started_is_not_found(server: &Server) {
    let id = server.draft("Unknown", &[]);
    for error in [
        server.put(&id, "a", b"1").unwrap_err(),
        server.owner.commit_file(&id, "a").unwrap_err(),
        server.owner.delete_file(&id, "a").unwrap_err(),
        server.owner.open_content(&of_draft(&id, "a"), None).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}

fn committing_before_sending_fails_without_repeats_and_harms_nothing(server: &Server) {
    let id = server.draft("Too early", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    let error = server.owner.commit_file(&id, "a").unwrap_err();
    assert_eq!(error.kind(), Kind::ServerFailed, "{error}");
    assert_eq!(error.attempt().unwrap().tries, 1);
    server.put(&id, "a", b"1").unwrap();
    server.owner.commit_file(&id, "a").unwrap();
}

/// A server that still works on a first commit (its extraction of metadata writes the same row: `StaleDataError`, seen on
/// InvenioRDM 14) answers 500 to the second. That too changes nothing, and is over once that work is.
fn committing_twice_changes_nothing(server: &Server) {
    let id = server.draft("Twice", &[("a", b"1")]);
    eventually("the second commit is answered", || {
        let answer = server.owner.commit_file(&id, "a");
        assert_eq!(statuses(server, &id), [("a".into(), FileStatus::Completed)]);
        match answer {
            Ok(entry) => {
                assert_eq!(entry.size, Some(1));
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::ServerFailed, "{error}");
                false
            }
        }
    });
}

fn sending_twice_before_the_commit_keeps_the_second(server: &Server) {
    let id = server.draft("Twice", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    server.put(&id, "a", b"first").unwrap();
    let md5 = server.put(&id, "a", b"the second").unwrap();
    let entry = server.owner.commit_file(&id, "a").unwrap();
    assert_eq!((entry.size, entry.md5), (Some(10), Some(md5)));
}

fn sending_to_a_committed_file_destroys_it_and_is_an_error(server: &Server) {
    let id = server.draft("Trap", &[("a", b"1")]);
    let error = server.put(&id, "a", b"2").unwrap_err();
    assert_eq!(error.kind(), Kind::ServerFailed, "{error}");
    assert_eq!(statuses(server, &id), []);
    assert_eq!(
        server.owner.commit_file(&id, "a").unwrap_err().kind(),
        Kind::NotFound
    );
    server.add(&id, "a", b"2").unwrap();
}

fn a_file_is_replaced_by_deleting_it_first(server: &Server) {
    let id = server.draft("Replaced", &[("a", b"old")]);
    server.owner.delete_file(&id, "a").unwrap();
    server.add(&id, "a", b"newer").unwrap();
    let download = server.owner.open_content(&of_draft(&id, "a"), None).unwrap();
    assert_eq!(bytes_of(download), b"newer");
}

fn a_file_is_deleted_whether_committed_or_not(server: &Server) {
    let id = server.draft("Deleted", &[("a", b"1")]);
    server.owner.start_files(&id, &["b"]).unwrap();
    server.owner.delete_file(&id, "a").unwrap();
    server.owner.delete_file(&id, "b").unwrap();
    assert_eq!(statuses(server, &id), []);
    assert_eq!(
        server.owner.delete_file(&id, "a").unwrap_err().kind(),
        Kind::NotFound
    );
}

fn content_that_is_not_committed_can_not_be_read(server: &Server) {
    let id = server.draft("Pending", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    let error = server.owner.open_content(&of_draft(&id, "a"), None).unwrap_err();
    assert_eq!(error.kind(), Kind::ServerFailed, "{error}");
    assert_eq!(
        error.attempt().unwrap().tries,
        1,
        "the failure is the answer here"
    );
}

fn keys_of_every_kind_work(server: &Server) {
    let id = server.draft("Keys", &[]);
    let long = "é".repeat(255);
    let keys = [
        "with space.txt",
        " leading and trailing ",
        "unicode-Größe-日本語-😀",
        "e\u{301}-nfd",
        "\u{e9}-nfd",
        "percent%20%2F%25",
        "hash#1?x=1&y+z;a:b\"c'd<e>f*g`h",
        "tab\there",
        ".hidden",
        "content",
        "commit",
        "dir/sub/c.txt",
        "a//b",
        "trail/",
        "back\\slash",
        "dir",
        "...",
        "..x/y..",
        long.as_str(),
    ];
    for key in keys {
        let content = key.as_bytes();
        let entry = server
            .add(&id, key, content)
            .unwrap_or_else(|error| panic!("{key:?}: {error}"));
        assert_eq!(&*entry.key, key);
        let download = server.owner.open_content(&of_draft(&id, key), None).unwrap();
        assert_eq!(bytes_of(download), content, "{key:?}");
    }
    let mut wanted = keys.to_vec();
    wanted.sort_unstable();
    let listed = statuses(server, &id);
    let listed: Vec<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(listed, wanted);
    for key in keys {
        server.owner.delete_file(&id, key).unwrap();
    }
    assert_eq!(statuses(server, &id), []);
}

fn keys_that_can_not_be_reached_are_not_even_started(server: &Server) {
    let id = server.draft("Keys", &[]);
    let long = "x".repeat(256);
    for key in ["", "/lead", ".", "..", "../x", "a/../b", "a\nb", "a\0b", &long] {
        let error = server.owner.start_files(&id, &[key]).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{key:?}: {error}");
        assert!(error.attempt().is_none(), "{key:?} was sent");
    }
    assert_eq!(statuses(server, &id), []);
}

fn files_are_sent_side_by_side(server: &Server) {
    let id = server.draft("Parallel", &[]);
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            let id = &id;
            scope.spawn(move || server.add(id, &format!("file {n}"), &vec![n; 100_000]).unwrap());
        }
    });
    let files = server.owner.draft_files(&id).unwrap();
    assert_eq!(files.len(), 8);
    assert!(files.iter().all(|file| file.size == Some(100_000)));
}

fn an_upload_that_is_cut_off_is_not_a_file(server: &Server) {
    let id = server.draft("Cut off", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    let cancelled = AtomicBool::new(false);
    let content = vec![1; 64 << 20];
    let upload = Upload {
        file: &file_with(&content),
        size: content.len() as u64,
        progress: &|_| cancelled.store(true, Ordering::Relaxed),
        cancelled: &cancelled,
    };
    let error = server.owner.put_content(&id, "a", upload).unwrap_err();
    assert_eq!(error.errno(), libc::ECANCELED, "{error}");
    crate::server::eventually("it can be sent anew", || {
        // Either the entry is still pending, or it is gone and has to be started again.
        if statuses(server, &id).is_empty() {
            server.owner.start_files(&id, &["a"]).unwrap();
        }
        assert_eq!(statuses(server, &id)[0].1, FileStatus::Pending);
        let sent = server.put(&id, "a", b"whole").is_ok();
        sent && server
            .owner
            .commit_file(&id, "a")
            .is_ok_and(|entry| entry.size == Some(5))
    });
}

fn strangers_send_nothing(server: &Server) {
    let id = server.draft("Mine", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    for repository in [server.stranger(), &server.guest] {
        for error in [
            repository.start_files(&id, &["b"]).unwrap_err(),
            put(repository, &id, "a", b"1").unwrap_err(),
            repository.commit_file(&id, "a").unwrap_err(),
            repository.delete_file(&id, "a").unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
    }
}

fn more_files_than_a_record_holds_are_too_many(server: &Server) {
    let id = server.draft("Many", &[]);
    let keys: Vec<String> = (0..101).map(|n| format!("file {n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let error = server.owner.start_files(&id, &keys).unwrap_err();
    assert_eq!(error.kind(), Kind::TooMany, "{error}");
    assert_eq!(statuses(server, &id), []);
}

crate::on_both![
    a_file_is_started_sent_and_committed,
    progress_goes_up_to_the_size,
    an_empty_file_is_a_file,
    starting_what_exists_is_refused_and_nothing_else_is_started,
    sending_what_was_not_started_is_not_found,
    committing_before_sending_fails_without_repeats_and_harms_nothing,
    committing_twice_changes_nothing,
    sending_twice_before_the_commit_keeps_the_second,
    sending_to_a_committed_file_destroys_it_and_is_an_error,
    a_file_is_replaced_by_deleting_it_first,
    a_file_is_deleted_whether_committed_or_not,
    content_that_is_not_committed_can_not_be_read,
    keys_of_every_kind_work,
    keys_that_can_not_be_reached_are_not_even_started,
    files_are_sent_side_by_side,
    an_upload_that_is_cut_off_is_not_a_file,
    strangers_send_nothing,
    more_files_than_a_record_holds_are_too_many,
];

/// A real server has these limits at 100 MiB and 10 GB.
#[test]
fn what_is_too_large_for_a_request_or_a_record_is_told_apart() {
    let server = Server::sandbox();
    let sandbox = server.sandbox.as_ref().unwrap();
    sandbox.knobs(|knobs| {
        knobs.max_body = Some(2_000_000);
        knobs.quota = 1_000_000;
    });
    let id = server.draft("Limits", &[]);
    server.owner.start_files(&id, &["a"]).unwrap();
    let too_large = server.put(&id, "a", &vec![0; 40_000_000]).unwrap_err();
    assert_eq!(too_large.kind(), Kind::TooLarge, "{too_large}");
    let over_quota = server.put(&id, "a", &vec![0; 1_500_000]).unwrap_err();
    assert_eq!(over_quota.kind(), Kind::Quota, "{over_quota}");
    assert_eq!(statuses(&server, &id), [("a".into(), FileStatus::Pending)]);
    assert!(server.put(&id, "a", b"1").is_ok(), "the entry is as it was");
}
