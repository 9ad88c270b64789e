//! Who answers, and as whom we ask.

use rdmfs::error::Kind;
use rdmfs::repository::{Flavour, Search, VersionHint};

use crate::server::{Server, connect, is_real_twelve};

fn a_repository_is_recognised_by_its_search(server: &Server) {
    let identity = server.guest.identify().unwrap();
    assert_eq!(identity.flavour, Flavour::Invenio);
    assert_eq!(identity.rate_limit, server.guest.limits_seen());
}

/// A real server of version 12 is told apart with `RDMFS_TEST_VERSION=12`.
fn the_release_is_recognised(server: &Server) {
    let expected = if is_real_twelve(server) {
        VersionHint::TwelveOrOlder
    } else {
        VersionHint::ThirteenOrNewer
    };
    assert_eq!(server.guest.identify().unwrap().version, expected);
}

fn a_good_token_is_taken(server: &Server) {
    server.owner.check_token().unwrap();
}

fn a_wrong_token_is_silently_a_guest_and_the_check_tells(server: &Server) {
    let wrong = connect(&server.url, Some("not-a-token"));
    wrong.search(&Search::default()).unwrap();
    let error = wrong.check_token().unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(
        error.to_string().contains("does not accept this token"),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("not-a-token"));
}

fn a_guest_has_no_records(server: &Server) {
    let error = server.guest.user_records(&Search::default(), None).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert_eq!(server.guest.check_token().unwrap_err().kind(), Kind::Denied);
}

fn another_path_is_no_repository(server: &Server) {
    let error = connect(&format!("{}/elsewhere", server.url), None)
        .identify()
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotARepository, "{error}");
}

crate::on_both![
    a_repository_is_recognised_by_its_search,
    the_release_is_recognised,
    a_good_token_is_taken,
    a_wrong_token_is_silently_a_guest_and_the_check_tells,
    a_guest_has_no_records,
    another_path_is_no_repository,
];
