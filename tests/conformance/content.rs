//! Content: whole and in parts, however the server answers.

use rdm_sandbox::{ContentMode, Route};
use rdmfs::error::Kind;
use rdmfs::repository::Coverage;
use rdmfs::repository::model::RecordId;

use crate::server::{Server, bytes_of, document, of_draft, of_record};

/// Bytes that differ from place to place.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn record_with(server: &Server, content: &[u8]) -> RecordId {
    server.record("With content", &[("data.bin", content)])
}

fn the_whole_file_comes(server: &Server) {
    let content = pattern(1_000_000);
    let id = record_with(server, &content);
    let download = server
        .guest
        .open_content(&of_record(&id, "data.bin"), None)
        .unwrap();
    assert_eq!(
        download.coverage,
        Coverage::Whole {
            length: Some(1_000_000)
        }
    );
    if download.host() == server.url {
        let listed = server.guest.record_files(&id).unwrap().remove(0).md5;
        assert_eq!(download.etag_md5, listed);
    } else {
        assert_eq!(download.etag_md5, None, "object storage doesn't know it");
    }
    assert!(bytes_of(download) == content);
}

/// The part that was asked for, or the whole file where the server does no ranges: never anything else.
fn a_part_comes_or_the_whole(server: &Server) {
    let content = pattern(10_000);
    let id = record_with(server, &content);
    for (first, last) in [(0, 99), (5_000, 5_000), (9_990, 9_999), (0, 9_999)] {
        let download = server
            .guest
            .open_content(&of_record(&id, "data.bin"), Some((first, last)))
            .unwrap();
        match download.coverage {
            Coverage::Part {
                first: from,
                last: to,
                total,
            } => {
                assert_eq!((from, to, total), (first, last, Some(10_000)));
                assert!(bytes_of(download) == content[first as usize..=last as usize]);
            }
            Coverage::Whole { length } => {
                assert_eq!(length, Some(10_000));
                assert!(bytes_of(download) == content);
            }
        }
    }
}

fn a_part_that_goes_beyond_the_end_is_clipped(server: &Server) {
    let content = pattern(100);
    let id = record_with(server, &content);
    let download = server
        .guest
        .open_content(&of_record(&id, "data.bin"), Some((90, 199)))
        .unwrap();
    match download.coverage {
        Coverage::Part { first, last, total } => {
            assert_eq!((first, last, total), (90, 99, Some(100)));
            assert_eq!(bytes_of(download), &content[90..]);
        }
        Coverage::Whole { .. } => assert_eq!(bytes_of(download), content),
    }
}

fn an_empty_file_comes_as_the_whole(server: &Server) {
    let id = record_with(server, b"");
    let download = server
        .guest
        .open_content(&of_record(&id, "data.bin"), None)
        .unwrap();
    assert_eq!(download.coverage, Coverage::Whole { length: Some(0) });
    assert_eq!(bytes_of(download), b"");
}

fn many_parts_come_at_once(server: &Server) {
    let content = pattern(400_000);
    let id = record_with(server, &content);
    std::thread::scope(|scope| {
        for n in 0..8_u64 {
            let (id, content) = (&id, &content);
            scope.spawn(move || {
                let (first, last) = (n * 50_000, n * 50_000 + 49_999);
                let download = server
                    .guest
                    .open_content(&of_record(id, "data.bin"), Some((first, last)))
                    .unwrap();
                match download.coverage {
                    Coverage::Part { .. } => {
                        assert!(bytes_of(download) == content[first as usize..=last as usize]);
                    }
                    Coverage::Whole { .. } => assert!(bytes_of(download) == *content),
                }
            });
        }
    });
}

fn pages_and_texts_are_content_like_any_other(server: &Server) {
    let page = b"<!DOCTYPE html><html><body>a file</body></html>";
    let files: [(&str, &[u8]); 4] = [
        ("page.html", page),
        ("data.json", b"{}"),
        ("pic.svg", b"<svg/>"),
        ("no suffix", page),
    ];
    let id = server.record("Pages", &files);
    for (key, content) in files {
        let download = server.guest.open_content(&of_record(&id, key), None).unwrap();
        assert_eq!(bytes_of(download), content, "{key}");
    }
}

fn a_drafts_file_is_read_by_its_owner_alone(server: &Server) {
    let id = server.draft("Draft content", &[("a/b", b"12345")]);
    let download = server.owner.open_content(&of_draft(&id, "a/b"), None).unwrap();
    assert_eq!(bytes_of(download), b"12345");
    for repository in [server.stranger(), &server.guest] {
        let error = repository.open_content(&of_draft(&id, "a/b"), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
    }
}

fn restricted_content_is_denied_to_strangers(server: &Server) {
    let mut document = document("Restricted files");
    document["access"]["files"] = serde_json::json!("restricted");
    let id = server.draft_like(&document, &[("secret", b"123")]);
    server.owner.publish(&id).unwrap();
    let place = of_record(&id, "secret");
    assert_eq!(bytes_of(server.owner.open_content(&place, None).unwrap()), b"123");
    for repository in [server.stranger(), &server.guest] {
        assert_eq!(
            repository.open_content(&place, None).unwrap_err().kind(),
            Kind::Denied
        );
    }
}

fn content_of_a_file_that_is_not_there_is_not_found(server: &Server) {
    let id = record_with(server, b"1");
    let error = server
        .guest
        .open_content(&of_record(&id, "other.bin"), None)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

fn content_stays_when_a_new_version_is_begun(server: &Server) {
    let id = record_with(server, b"old");
    let next = server.owner.new_version(&id).unwrap().id;
    server.owner.import_files(&next).unwrap();
    let imported = server
        .owner
        .open_content(&of_draft(&next, "data.bin"), None)
        .unwrap();
    assert_eq!(bytes_of(imported), b"old");
    server.owner.delete_file(&next, "data.bin").unwrap();
    let download = server
        .guest
        .open_content(&of_record(&id, "data.bin"), None)
        .unwrap();
    assert_eq!(bytes_of(download), b"old");
}

crate::on_both![
    the_whole_file_comes,
    a_part_comes_or_the_whole,
    a_part_that_goes_beyond_the_end_is_clipped,
    an_empty_file_comes_as_the_whole,
    many_parts_come_at_once,
    pages_and_texts_are_content_like_any_other,
    a_drafts_file_is_read_by_its_owner_alone,
    restricted_content_is_denied_to_strangers,
    content_of_a_file_that_is_not_there_is_not_found,
    content_stays_when_a_new_version_is_begun,
];

/// The sandbox as each of the servers that are known; a real one is what it is.
#[test]
fn every_kind_of_server_gives_the_same_bytes() {
    for (mode, host_is_own, gives_parts) in [
        (ContentMode::Ranges, true, true),
        (ContentMode::Ignored, true, false),
        (ContentMode::V12, true, true),
        (ContentMode::Redirect, false, true),
    ] {
        let server = Server::sandbox();
        let sandbox = server.sandbox.as_ref().unwrap();
        sandbox.set_content_mode(mode);
        let id = record_with(&server, &pattern(10_000));
        let download = server
            .owner
            .open_content(&of_record(&id, "data.bin"), Some((10, 19)))
            .unwrap();
        assert_eq!(download.host() == server.url, host_is_own, "{mode:?}");
        assert_eq!(
            matches!(download.coverage, Coverage::Part { .. }),
            gives_parts,
            "{mode:?}"
        );
        the_whole_file_comes(&server);
        a_part_comes_or_the_whole(&server);
        a_part_that_goes_beyond_the_end_is_clipped(&server);
        an_empty_file_comes_as_the_whole(&server);
        many_parts_come_at_once(&server);
        a_drafts_file_is_read_by_its_owner_alone(&server);
        restricted_content_is_denied_to_strangers(&server);
        assert_eq!(sandbox.leaked_authorizations(), 0, "{mode:?}");
    }
}

#[test]
fn a_link_to_another_host_is_asked_for_once_while_it_is_good() {
    let server = Server::sandbox();
    let sandbox = server.sandbox.as_ref().unwrap();
    sandbox.set_content_mode(ContentMode::Redirect);
    let id = record_with(&server, &pattern(1_000));
    let place = of_record(&id, "data.bin");
    let read = |first| {
        let download = server
            .guest
            .open_content(&place, Some((first, first + 9)))
            .unwrap();
        assert!(bytes_of(download) == pattern(1_000)[first as usize..=first as usize + 9]);
    };
    for n in 0..5 {
        read(n * 10);
    }
    assert_eq!(sandbox.count(Route::Content), 1);

    sandbox.knobs(|knobs| knobs.link_seconds = 1);
    let other = record_with(&server, b"1234567890");
    let brief = of_record(&other, "data.bin");
    for n in 2..4 {
        bytes_of(server.guest.open_content(&brief, None).unwrap());
        assert_eq!(sandbox.count(Route::Content), n, "too short-lived to be kept");
    }
}
