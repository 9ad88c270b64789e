//! Curation requests, on the sandbox and on a real server that curates: `RDMFS_TEST_CURATIONS_URL`,
//! `RDMFS_TEST_CURATIONS_TOKEN` and, of a reviewer, `RDMFS_TEST_CURATIONS_TOKEN_OTHER`.

use rdmfs::error::Kind;
use rdmfs::repository::model::RecordId;
use rdmfs::repository::{Published, Repository, Request, RequestFilter, Search};

use crate::server::{Server, document, eventually, unique};

fn reviewer(server: &Server) -> &Repository {
    server.other.as_ref().expect("the reviewer's token is given")
}

fn curated(server: &Server, title: &str) -> (RecordId, Request) {
    let id = server.draft(title, &[("a", b"1")]);
    let request = server.owner.submit_curation(&id).unwrap();
    (id, request)
}

fn accepted(server: &Server, title: &str) -> (RecordId, Request) {
    let (id, request) = curated(server, title);
    reviewer(server)
        .act_on_request(&request.id, "review", None)
        .unwrap();
    let request = reviewer(server)
        .act_on_request(&request.id, "accept", Some("Well done"))
        .unwrap();
    (id, request)
}

fn a_repository_that_curates_says_so(server: &Server) {
    for repository in [&server.owner, &server.guest] {
        let rules = repository.curation_rules().unwrap().unwrap();
        assert!(!rules.is_privileged && rules.publishing_edits);
    }
}

fn without_an_accepted_request_publishing_is_not_ready(server: &Server) {
    let id = server.draft("Not curated", &[("a", b"1")]);
    let error = server.owner.publish_for_sure(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::NotReady, "{error}");
    assert!(
        error.waits_for_curation() && error.fields().is_empty(),
        "{error:?}"
    );
    assert!(server.check(&id).is_ready(), "nothing else is missing");
    let (id, _) = curated(server, "Submitted");
    assert!(server.owner.publish(&id).unwrap_err().waits_for_curation());
}

fn what_is_really_missing_is_said_before(server: &Server) {
    let id = server.draft("No files", &[]);
    let error = server.owner.publish(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(error.fields()[0].field, "files.enabled");
    assert!(!error.waits_for_curation());
}

fn a_draft_is_submitted_reviewed_critiqued_resubmitted_accepted_and_published(server: &Server) {
    let title = unique("Curated");
    let (id, request) = curated(server, &title);
    assert_eq!(
        (request.kind.as_str(), request.status.as_str()),
        ("rdm-curation", "submitted")
    );
    assert!(request.is_open && request.title.contains(&title), "{request:?}");
    assert_eq!(request.topic.as_ref(), Some(&id));
    assert_eq!(request.actions, ["cancel"]);
    let of_reviewer = reviewer(server).request(&request.id).unwrap();
    assert_eq!(of_reviewer.actions, ["review"]);
    let steps: [(&Repository, &str, &str); 5] = [
        (reviewer(server), "review", "review"),
        (reviewer(server), "critique", "critiqued"),
        (&server.owner, "resubmit", "resubmitted"),
        (reviewer(server), "review", "review"),
        (reviewer(server), "accept", "accepted"),
    ];
    for (who, action, status) in steps {
        let done = who
            .act_on_request(&request.id, action, Some("As discussed"))
            .unwrap();
        assert_eq!(done.status, status);
        assert!(!who.acceptance_was_taken_back(&done).unwrap(), "{action}");
    }
    let done = server.owner.request(&request.id).unwrap();
    assert!(!done.is_open);
    assert_eq!(
        done.actions,
        ["cancel"],
        "what the server does by itself is not for clients"
    );
    assert!(matches!(
        server.owner.publish_for_sure(&id).unwrap(),
        Published::Now(_)
    ));
    eventually("what happened is listed", || {
        let page = server
            .owner
            .request_timeline(&request.id, &Search::default())
            .unwrap();
        let events: Vec<&str> = page.items.iter().filter_map(|one| one.event.as_deref()).collect();
        ["review", "critiqued", "resubmitted", "accepted"]
            .iter()
            .all(|event| events.contains(event))
    });
}

fn each_does_only_their_own_part(server: &Server) {
    let (_, request) = curated(server, "Own parts");
    for action in ["review", "accept"] {
        let error = server
            .owner
            .act_on_request(&request.id, action, None)
            .unwrap_err();
        assert!(
            matches!(error.kind(), Kind::Denied | Kind::Refused),
            "{action}: {error}"
        );
    }
    let early = reviewer(server)
        .act_on_request(&request.id, "accept", None)
        .unwrap_err();
    assert_eq!(early.kind(), Kind::Refused, "{early}");
    assert_eq!(
        server.guest.request(&request.id).unwrap_err().kind(),
        Kind::Denied
    );
}

fn the_request_of_a_draft_is_found(server: &Server) {
    let id = server.draft(&unique("Looked for"), &[("a", b"1")]);
    assert_eq!(server.owner.curation_of(&id).unwrap(), None);
    let request = server.owner.submit_curation(&id).unwrap();
    eventually("it is found", || {
        server
            .owner
            .curation_of(&id)
            .unwrap()
            .is_some_and(|found| found.id == request.id)
    });
    let open = server
        .owner
        .curations(&Search::default(), RequestFilter::Open)
        .unwrap();
    assert!(open.items.iter().any(|one| one.id == request.id));
    assert_eq!(server.guest.curation_of(&id).unwrap(), None, "guests see none");
    reviewer(server)
        .act_on_request(&request.id, "review", None)
        .unwrap();
    let found = server.owner.curation_of(&id).unwrap().unwrap();
    assert_eq!(
        found.status, "review",
        "as it is now, and not as the list knows it"
    );
}

fn a_second_request_for_a_draft_is_refused(server: &Server) {
    let (id, request) = curated(server, &unique("Twice"));
    eventually("the first is known", || {
        server.owner.curation_of(&id).unwrap().is_some()
    });
    let error = server.owner.submit_curation(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.to_string().contains("already"), "{error}");
    server.owner.act_on_request(&request.id, "cancel", None).unwrap();
    assert_eq!(
        server.owner.submit_curation(&id).unwrap_err().kind(),
        Kind::Refused
    );
    let again = server
        .owner
        .act_on_request(&request.id, "resubmit", None)
        .unwrap();
    assert_eq!(again.status, "resubmitted");
    let unknown = RecordId::new("zzzzz-99999").unwrap();
    assert_eq!(
        server.owner.submit_curation(&unknown).unwrap_err().kind(),
        Kind::NotFound
    );
}

fn a_change_takes_an_acceptance_back_and_saving_the_same_does_not(server: &Server) {
    let title = unique("Taken back");
    let (id, request) = accepted(server, &title);
    let status = || server.owner.request(&request.id).unwrap().status;
    server.check(&id);
    server.owner.reserve_doi(&id).unwrap();
    server.add(&id, "b", b"2").unwrap();
    assert_eq!(status(), "accepted", "neither a check, nor a DOI, nor a file");
    let mut changed = document(&title);
    changed["metadata"]["description"] = serde_json::json!("<p>More</p>");
    server.owner.update_draft(&id, &changed, None).unwrap();
    assert_eq!(status(), "resubmitted");
    eventually("what happened is listed", || {
        let request = server.owner.request(&request.id).unwrap();
        server.owner.acceptance_was_taken_back(&request).unwrap()
    });
    assert!(server.owner.publish(&id).unwrap_err().waits_for_curation());
}

fn an_edit_is_published_without_a_request_and_a_new_version_is_not(server: &Server) {
    let (id, _) = accepted(server, &unique("First"));
    server.owner.publish(&id).unwrap();
    server.owner.edit(&id).unwrap();
    server.owner.update_draft(&id, &document("Edited"), None).unwrap();
    server.owner.publish(&id).unwrap();
    assert_eq!(server.guest.record(&id).unwrap().title, "Edited");
    let next = server.owner.new_version(&id).unwrap().id;
    server.owner.import_files(&next).unwrap();
    assert!(server.owner.publish(&next).unwrap_err().waits_for_curation());
}

fn a_reviewer_reads_the_draft_once_asked(server: &Server) {
    let id = server.draft("For review", &[("a", b"1")]);
    assert_eq!(reviewer(server).draft(&id).unwrap_err().kind(), Kind::Denied);
    server.owner.submit_curation(&id).unwrap();
    eventually("the reviewer may read it", || reviewer(server).draft(&id).is_ok());
    assert_eq!(reviewer(server).draft_files(&id).unwrap().len(), 1);
}

fn a_dropped_draft_takes_its_request_along(server: &Server) {
    let (id, request) = curated(server, "Dropped");
    // The server looks for it in a list: dropped within a second, a draft leaves its request behind.
    eventually("the request is known", || {
        server.owner.curation_of(&id).unwrap().is_some()
    });
    server.owner.delete_draft(&id).unwrap();
    assert_eq!(
        server.owner.request(&request.id).unwrap_err().kind(),
        Kind::NotFound
    );
}

macro_rules! where_drafts_are_curated {
    ($($name:ident),* $(,)?) => {
        mod on_the_sandbox {
            $(#[test]
            fn $name() {
                super::$name(&$crate::server::Server::sandbox_of(rdm_sandbox::Flavour::TuWien));
            })*
        }
        mod on_a_real_server {
            $(#[test]
            fn $name() {
                if let Some(server) = $crate::server::Server::real_that_curates() {
                    super::$name(&server);
                }
            })*
        }
    };
}

where_drafts_are_curated![
    a_repository_that_curates_says_so,
    without_an_accepted_request_publishing_is_not_ready,
    what_is_really_missing_is_said_before,
    a_draft_is_submitted_reviewed_critiqued_resubmitted_accepted_and_published,
    each_does_only_their_own_part,
    the_request_of_a_draft_is_found,
    a_second_request_for_a_draft_is_refused,
    a_change_takes_an_acceptance_back_and_saving_the_same_does_not,
    an_edit_is_published_without_a_request_and_a_new_version_is_not,
    a_reviewer_reads_the_draft_once_asked,
    a_dropped_draft_takes_its_request_along,
];

mod where_nothing_is_curated {
    use super::*;

    fn curations_are_not_supported(server: &Server) {
        assert_eq!(server.owner.curation_rules().unwrap(), None);
        let id = server.draft("Plain", &[]);
        for error in [
            server.owner.submit_curation(&id).unwrap_err(),
            server.owner.curation_of(&id).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::NotSupported, "{error}");
        }
    }

    fn plans_are_not_supported(server: &Server) {
        let id = server.record("Without a plan", &[("a", b"1")]);
        for error in [
            server.owner.plans(&Search::default()).unwrap_err(),
            server.owner.link_to_plan("p1", &id).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::NotSupported, "{error}");
        }
    }

    crate::on_both![curations_are_not_supported, plans_are_not_supported];
}
