//! What one kind of installation does otherwise than all others, each on a sandbox of that kind. (Version 12 runs for real
//! as well, with the other laws: `RDMFS_TEST_VERSION=12`.)

use std::time::{Duration, Instant};

use rdm_sandbox::{Effect, Fault, Flavour as Sort, Route};
use rdmfs::error::Kind;
use rdmfs::repository::model::{Files, Owner, RecordId};
use rdmfs::repository::{
    AnyCall, ExportFormat, Flavour, Limits, Published, Repository, Search, Settings, VersionHint,
};
use serde_json::json;

use crate::communities::community_document;
use crate::server::{Server, bytes_of, document, of_record, unique};

fn zenodo() -> Server {
    let server = Server::sandbox_of(Sort::Zenodo);
    server.record("The first", &[("a", b"1")]);
    for repository in [&server.owner, &server.guest] {
        repository.identify().unwrap();
    }
    server
}

#[test]
fn zenodo_is_recognised_by_its_own_form_and_by_its_dois() {
    let server = Server::sandbox_of(Sort::Zenodo);
    server.record("One", &[("a", b"1")]);
    assert_eq!(server.guest.identify().unwrap().flavour, Flavour::Zenodo);
    assert_eq!(server.owner.flavour_so_far(), Flavour::Invenio);
    server.owner.search(&Search::default()).unwrap();
    assert_eq!(server.owner.flavour_so_far(), Flavour::Zenodo);
}

#[test]
fn zenodos_own_form_is_never_read_nor_written() {
    let server = zenodo();
    let id = server.record("In its own form", &[("a.txt", b"hello\n")]);
    let own = server
        .owner
        .call(&AnyCall {
            path: format!("records/{id}"),
            headers: vec![("Accept".into(), "application/json".into())],
            ..AnyCall::default()
        })
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(own["id"].as_u64().unwrap().to_string(), id.as_str());
    assert!(own["conceptrecid"].is_string() && own["files"].is_array());
    for record in [
        server.guest.record(&id).unwrap(),
        server.guest.search(&Search::default()).unwrap().records.remove(0),
        server.owner.edit(&id).unwrap(),
        server.owner.draft(&id).unwrap(),
        server
            .owner
            .user_records(&Search::default(), None)
            .unwrap()
            .records
            .remove(0),
    ] {
        assert!(record.document()["metadata"]["creators"][0]["person_or_org"].is_object());
        assert!(!record.document().contains_key("conceptrecid"));
    }
    let Files::Listed(files) = server.guest.record(&id).unwrap().files else {
        panic!("listed")
    };
    assert_eq!(&*files[0].key, "a.txt");
    let check = server.check(&id);
    assert!(check.is_ready(), "{:?}", check.problems);
    assert_eq!(server.owner.publish(&id).unwrap().title, "In its own form");
    assert!(
        server
            .guest
            .export(&Owner::Record(id), ExportFormat::named("citation.bib").unwrap())
            .is_ok()
    );
}

#[test]
fn zenodos_pages_are_asked_for_no_larger_than_it_gives() {
    let server = zenodo();
    server.record("One", &[("a", b"1")]);
    server.guest.identify().unwrap();
    assert_eq!(
        (server.guest.largest_page(), server.owner.largest_page()),
        (25, 100)
    );
    let huge = Search {
        size: 1000,
        ..Search::default()
    };
    server.guest.search(&huge).unwrap();
    server.owner.user_records(&huge, None).unwrap();
    let refused = server
        .guest
        .call(&AnyCall {
            path: "records?size=26".into(),
            ..AnyCall::default()
        })
        .unwrap();
    assert_eq!(refused.status, 400);
    assert!(String::from_utf8_lossy(&refused.body).contains("greater than 25"));
}

/// More than that in a minute would be answered with 429.
#[test]
fn zenodos_search_limit_is_kept_to_without_meeting_it() {
    let server = zenodo();
    server.record("One", &[("a", b"1")]);
    server.guest.identify().unwrap();
    let begun = Instant::now();
    let any = AnyCall {
        path: "records?size=1".into(),
        ..AnyCall::default()
    };
    for _ in 0..6 {
        server.guest.search(&Search::default()).unwrap();
        assert!(server.guest.call(&any).unwrap().is_success());
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "they were spread");
    let requests = server.sandbox.as_ref().unwrap().requests();
    assert!(requests.iter().all(|request| request.status != 429));
}

#[test]
fn zenodos_search_limit_is_there() {
    let server = Server::sandbox_of(Sort::Zenodo);
    let impatient = Repository::connect(Settings {
        url: server.url.clone(),
        limits: Limits {
            whole: Duration::from_secs(5),
            ..Limits::default()
        },
        ..Settings::default()
    })
    .unwrap();
    let search = || {
        let call = AnyCall {
            method: "HEAD".into(),
            path: "records?size=1".into(),
            ..AnyCall::default()
        };
        impatient.call(&call)
    };
    for _ in 0..30 {
        assert_eq!(search().unwrap().status, 200);
    }
    assert_eq!(search().unwrap_err().kind(), Kind::RateLimited);
}

#[test]
fn zenodos_dois_hold_the_id_and_cost_no_search() {
    let server = zenodo();
    let id = server.record("By DOI", &[("a", b"1")]);
    server.guest.identify().unwrap();
    let doi = server.guest.record(&id).unwrap().doi().unwrap().to_owned();
    assert_eq!(doi, format!("10.5281/zenodo.{id}"));
    let sandbox = server.sandbox.as_ref().unwrap();
    sandbox.reset_counts();
    assert_eq!(server.guest.id_in_doi(&doi), Some(id.clone()));
    assert_eq!(server.guest.record_by_doi(&doi).unwrap().id, id);
    assert_eq!(sandbox.count(Route::Search), 0);
    let concept = server.guest.record(&id).unwrap().concept().unwrap();
    let found = server
        .guest
        .record_by_doi(&format!("10.5281/ZENODO.{concept}"))
        .unwrap();
    assert_eq!(found.id, id, "that of all versions leads to the latest");
    assert_eq!(server.guest.id_in_doi("10.5281/zenodo.1x"), None);
    assert_eq!(server.guest.id_in_doi("10.5072/abcde-12345"), None);
}

#[test]
fn zenodos_page_for_programs_without_a_name_is_an_error_and_never_content() {
    let server = zenodo();
    let id = server.record("Blocked", &[("a", b"1")]);
    let blocked = Repository::connect(Settings {
        url: server.url.clone(),
        user_agent: Some("python-requests/2.32".into()),
        ..Settings::default()
    })
    .unwrap();
    for error in [
        blocked.record(&id).unwrap_err(),
        blocked.open_content(&of_record(&id, "a"), None).unwrap_err(),
        blocked
            .export(
                &Owner::Record(id.clone()),
                ExportFormat::named("citation.bib").unwrap(),
            )
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert!(error.advice().contains("user agent"), "{}", error.advice());
    }
}

#[test]
fn zenodos_files_are_read_in_parts_where_its_pages_lead() {
    let server = zenodo();
    let content: Vec<u8> = (0..5000_u32).map(|n| n as u8).collect();
    let id = server.record("In parts", &[("dir/a b#1.bin", &content)]);
    server.guest.identify().unwrap();
    for repository in [&server.guest, &server.owner] {
        let place = of_record(&id, "dir/a b#1.bin");
        let part = repository.open_content(&place, Some((100, 199))).unwrap();
        assert!(matches!(
            part.coverage,
            rdmfs::repository::Coverage::Part {
                first: 100,
                last: 199,
                total: Some(5000)
            }
        ));
        assert_eq!(bytes_of(part), &content[100..200]);
        assert_eq!(bytes_of(repository.open_content(&place, None).unwrap()), content);
    }
    let requests = server.sandbox.as_ref().unwrap().requests();
    let pages = requests
        .iter()
        .filter(|request| request.route == Route::PageContent.name());
    assert!(pages.clone().count() > 0);
    assert!(
        pages.clone().all(|request| !request.authorization),
        "a token is for the API"
    );
}

#[test]
fn what_zenodos_pages_do_not_give_comes_from_the_api() {
    let server = zenodo();
    let mut restricted = document("Restricted");
    restricted["access"]["files"] = json!("restricted");
    let id = server.draft_like(&restricted, &[("a", b"0123456789")]);
    server.owner.publish(&id).unwrap();
    let whole = server
        .owner
        .open_content(&of_record(&id, "a"), Some((2, 4)))
        .unwrap();
    assert_eq!(
        whole.coverage,
        rdmfs::repository::Coverage::Whole { length: Some(10) }
    );
    assert_eq!(bytes_of(whole), b"0123456789");
    let sandbox = server.sandbox.as_ref().unwrap();
    let id = server.record("Pages are down", &[("a", b"0123456789")]);
    sandbox.fault(Fault::on(Route::PageContent).then(Effect::HtmlPage));
    let whole = server
        .guest
        .open_content(&of_record(&id, "a"), Some((2, 4)))
        .unwrap();
    assert_eq!(bytes_of(whole), b"0123456789");
}

#[test]
fn version_twelve_is_recognised_and_its_lists_are_read_without_page_numbers() {
    let server = Server::sandbox_of(Sort::V12);
    for n in 0..3 {
        server.record(&format!("Number {n}"), &[("a", b"1")]);
    }
    assert_eq!(
        server.guest.identify().unwrap().version,
        VersionHint::TwelveOrOlder
    );
    let page = |page| {
        let search = Search {
            page,
            size: 2,
            ..Search::default()
        };
        server.guest.search(&search).unwrap()
    };
    assert!(page(1).has_next && !page(2).has_next);
    assert_eq!(page(2).records.len(), 1);
}

#[test]
fn a_new_version_has_no_date_in_version_twelve_and_the_check_says_so() {
    let server = Server::sandbox_of(Sort::V12);
    let id = server.record("One", &[("a", b"1")]);
    let next = server.owner.new_version(&id).unwrap().id;
    server.owner.import_files(&next).unwrap();
    let check = server.check(&next);
    let fields: Vec<&str> = check
        .problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(fields, ["metadata.publication_date"]);
    assert_eq!(
        server.owner.publish(&next).unwrap_err().fields()[0].field,
        "metadata.publication_date"
    );
}

#[test]
fn version_twelve_names_a_policy_otherwise_and_says_so_by_field() {
    let server = Server::sandbox_of(Sort::V12);
    let slug = unique("twelve");
    let mut document = community_document(&slug);
    document["access"]["record_submission_policy"] = json!("open");
    let error = server.owner.create_community(&document).unwrap_err();
    assert_eq!(error.fields()[0].field, "access.record_submission_policy");
    let made = server.owner.create_community(&community_document(&slug)).unwrap();
    assert_eq!(made.document["access"]["record_policy"], "open");
}

#[test]
fn version_twelve_looks_into_no_archive_and_shows_names_to_all() {
    let server = Server::sandbox_of(Sort::V12);
    let id = server.record("Archive", &[("z.zip", include_bytes!("three.zip"))]);
    let place = of_record(&id, "z.zip");
    for error in [
        server.guest.container(&place).unwrap_err(),
        server.guest.open_member(&place, "a.txt").unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::NotSupported, "{error}");
    }
    assert_eq!(
        server
            .guest
            .vocabulary("names", &Search::default())
            .unwrap()
            .total,
        1
    );
}

#[test]
fn version_twelve_refuses_to_publish_what_is_under_review_without_a_word_and_the_error_says_why() {
    let server = Server::sandbox_of(Sort::V12);
    let community = crate::communities::closed(&server).slug;
    let id = server.draft("Under review", &[("a", b"1")]);
    server.owner.set_review(&id, &community).unwrap();
    for _ in 0..2 {
        let error = server.owner.publish_for_sure(&id).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(
            error.to_string().contains("review") && !error.waits_for_curation(),
            "{error}"
        );
        let _ = server.owner.submit_review(&id, None, true);
    }
}

#[test]
fn version_twelve_wraps_some_field_errors_and_they_are_unwrapped() {
    let server = Server::sandbox_of(Sort::V12);
    let id = server.record("With a DOI", &[("a", b"1")]);
    server.owner.edit(&id).unwrap();
    let error = server.owner.release_doi(&id).unwrap_err();
    assert_eq!(error.fields()[0].field, "pids.doi");
    assert!(
        error
            .server_message()
            .unwrap()
            .contains("pids.doi: Cannot discard"),
        "{error}"
    );
}

#[test]
fn tu_wien_lets_nobody_make_communities() {
    let server = Server::sandbox_of(Sort::TuWien);
    let error = server
        .owner
        .create_community(&community_document("mine"))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

#[test]
fn a_published_record_is_named_in_a_plan() {
    let server = Server::sandbox_of(Sort::TuWien);
    let plans = server.owner.plans(&Search::default()).unwrap();
    assert_eq!(plans.total, 2);
    assert_eq!(
        (plans.items[0].id.as_str(), plans.items[0].title.as_str()),
        ("p1", "Snow and ice")
    );
    let sandbox = server.sandbox.as_ref().unwrap();
    let id =
        RecordId::new(&sandbox.publish(rdm_sandbox::NewRecord::titled("Planned").file("a", "1"))).unwrap();
    server.owner.link_to_plan("p1", &id).unwrap();
    assert_eq!(sandbox.plans(), [("p1".to_owned(), id.to_string())]);
    let draft = server.draft("Not yet", &[]);
    assert_eq!(
        server.owner.link_to_plan("p1", &draft).unwrap_err().kind(),
        Kind::NotFound
    );
    assert_eq!(
        server.owner.link_to_plan("p9", &id).unwrap_err().kind(),
        Kind::ServerFailed
    );
}

#[test]
fn a_publish_whose_answer_is_lost_was_done_all_the_same() {
    for effect in [
        Effect::ErrorAfterSuccess(504),
        Effect::ErrorAfterSuccess(502),
        Effect::ResetAfterSuccess,
    ] {
        let server = Server::sandbox();
        let id = server.draft("Lost answer", &[("a", b"1")]);
        let sandbox = server.sandbox.as_ref().unwrap();
        sandbox.fault(Fault::on(Route::Publish).times(1).then(effect));
        let published = server.owner.publish_for_sure(&id).unwrap();
        assert!(matches!(published, Published::Now(_)));
        assert_eq!(published.record().id, id);
        assert_eq!(sandbox.count(Route::Publish), 1);
    }
}

#[test]
fn an_edit_whose_publish_was_not_done_is_not_taken_for_published() {
    let server = Server::sandbox();
    let id = server.record("Before", &[("a", b"1")]);
    server.owner.edit(&id).unwrap();
    let sandbox = server.sandbox.as_ref().unwrap();
    sandbox.reset_counts();
    sandbox.fault(Fault::on(Route::Publish).times(1).then(Effect::ServerError(504)));
    let error = server.owner.publish_for_sure(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::ServerFailed, "{error}");
    assert_eq!(sandbox.count(Route::Publish), 1);
}

#[test]
fn imported_files_and_a_reserved_doi_are_found_when_their_answers_are_lost() {
    let server = Server::sandbox();
    let id = server.record("One", &[("a", b"1")]);
    let next = server.owner.new_version(&id).unwrap().id;
    let sandbox = server.sandbox.as_ref().unwrap();
    sandbox.fault(
        Fault::on(Route::FilesImport)
            .times(1)
            .then(Effect::ErrorAfterSuccess(504)),
    );
    assert_eq!(server.owner.import_files_for_sure(&next).unwrap().len(), 1);
    sandbox.fault(
        Fault::on(Route::ReserveDoi)
            .times(1)
            .then(Effect::ResetAfterSuccess),
    );
    assert!(server.owner.reserve_doi(&next).unwrap().doi().is_some());
    sandbox.fault(
        Fault::on(Route::DropDoi)
            .times(1)
            .then(Effect::ErrorAfterSuccess(502)),
    );
    assert_eq!(server.owner.release_doi(&next).unwrap().doi(), None);
}

#[test]
fn what_others_see_is_never_asked_for_twice() {
    let server = Server::sandbox();
    let sandbox = server.sandbox.as_ref().unwrap();
    let id = server.record("Once", &[("a", b"1")]);
    let community = crate::communities::closed(&server).slug;
    for route in [
        Route::CreateCommunity,
        Route::AddToCommunities,
        Route::CreateLink,
        Route::RenameCommunity,
    ] {
        sandbox.fault(Fault::on(route).times(1).then(Effect::ServerError(503)));
    }
    sandbox.reset_counts();
    let link = rdmfs::repository::NewLink {
        permission: rdmfs::repository::Permission::View,
        expires: None,
        description: "",
    };
    assert!(
        server
            .owner
            .create_community(&community_document("twice"))
            .is_err()
    );
    assert!(
        server
            .owner
            .submit_to_communities(&id, &[&community], None)
            .is_err()
    );
    assert!(server.owner.create_access_link(&id, &link).is_err());
    assert!(server.owner.rename_community(&community, "renamed").is_err());
    assert_eq!(sandbox.total(), 4);
}

#[test]
fn what_is_gone_after_a_lost_answer_was_deleted() {
    let server = Server::sandbox();
    let sandbox = server.sandbox.as_ref().unwrap();
    let community = crate::communities::closed(&server).slug;
    server
        .owner
        .set_community_logo(&community, b"logo".to_vec())
        .unwrap();
    for route in [Route::DeleteLogo, Route::DeleteCommunity] {
        sandbox.fault(Fault::on(route).times(1).then(Effect::ErrorAfterSuccess(502)));
    }
    server.owner.delete_community_logo(&community).unwrap();
    server.owner.delete_community(&community).unwrap();
    assert_eq!(
        server.guest.community(&community).unwrap_err().kind(),
        Kind::NotFound
    );
}
