//! The members of a ZIP file, as the server lists and extracts them.

use rdmfs::error::Kind;

use crate::server::{Server, bytes_of, is_real_twelve, of_draft, of_record};

/// `a.txt` stored, `dir/b.txt` of 1000 `x` deflated, `dir/sub/c.txt` stored. Made with Python's zipfile.
const ZIP: &[u8] = include_bytes!("three.zip");

fn members_are_listed_and_extracted(server: &Server) {
    let id = server.record("Archive", &[("a b.zip", ZIP)]);
    let place = of_record(&id, "a b.zip");
    if is_real_twelve(server) {
        for error in [
            server.guest.container(&place).unwrap_err(),
            server.guest.open_member(&place, "a.txt").unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::NotSupported, "{error}");
        }
        return;
    }
    let container = server.guest.container(&place).unwrap();
    assert_eq!((container.total, container.truncated), (3, false));
    let mut members: Vec<(&str, u64, Option<u64>)> = container
        .members
        .iter()
        .map(|member| (member.key.as_str(), member.size, member.compressed_size))
        .collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            ("a.txt", 5, Some(5)),
            ("dir/b.txt", 1000, Some(11)),
            ("dir/sub/c.txt", 1, Some(1))
        ]
    );
    assert!(container.members.iter().all(|member| member.crc.is_some()));
    let read = |member: &str| bytes_of(server.guest.open_member(&place, member).unwrap());
    assert_eq!(read("a.txt"), b"hello");
    assert_eq!(read("dir/b.txt"), vec![b'x'; 1000]);
    let error = server.guest.open_member(&place, "nope").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let error = server.guest.open_member(&place, "../a.txt").unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

fn what_is_no_archive_is_not_looked_into(server: &Server) {
    let id = server.record("No archive", &[("a.txt", b"1"), ("bad.zip", b"PK no")]);
    for key in ["a.txt", "bad.zip"] {
        let error = server.guest.container(&of_record(&id, key)).unwrap_err();
        assert_eq!(error.kind(), Kind::NotSupported, "{key}: {error}");
    }
}

fn the_members_of_a_drafts_archive_are_its_owners(server: &Server) {
    let id = server.draft("Archive", &[("z.zip", ZIP)]);
    let place = of_draft(&id, "z.zip");
    if is_real_twelve(server) {
        return; // It looks into none.
    }
    assert_eq!(server.owner.container(&place).unwrap().total, 3);
    assert_eq!(server.guest.container(&place).unwrap_err().kind(), Kind::Denied);
}

crate::on_both![
    members_are_listed_and_extracted,
    what_is_no_archive_is_not_looked_into,
    the_members_of_a_drafts_archive_are_its_owners,
];
