//! Requests and reviews: made, listed, decided, talked about.

use rdmfs::error::Kind;
use rdmfs::repository::model::RecordId;
use rdmfs::repository::{Request, RequestFilter, RequestId, Search};
use serde_json::json;

use crate::communities::{closed, open};
use crate::server::{Server, eventually, is_real_twelve, unique};

/// A draft that waits for its community's decision.
fn submitted(server: &Server) -> (RecordId, Request) {
    let community = closed(server);
    let id = server.draft(&unique("review"), &[("a", b"1")]);
    server.owner.set_review(&id, &community.slug).unwrap();
    let request = server
        .owner
        .submit_review(&id, Some("Please look"), true)
        .unwrap();
    (id, request)
}

fn a_request_tells_who_asks_and_who_decides_by_their_names(server: &Server) {
    let (_, request) = submitted(server);
    let asked = || server.owner.request(&request.id).unwrap();
    let (kind, id) = asked().receiver.unwrap();
    let community = server.owner.community(&id).unwrap();
    assert_eq!(kind, "community");
    let name = format!("{} ({})", community.slug, community.title);
    // Servers look names up in their index, which learns of what is new a moment later.
    eventually("all are told by their names", || {
        let request = asked();
        let search = Search::default();
        let said = server.owner.request_timeline(&request.id, &search).unwrap();
        let author = said.items.first().and_then(|first| first.author_name.clone());
        request.receiver_name.as_ref() == Some(&name)
            && request.creator_name.is_some_and(|creator| !creator.is_empty())
            && author == asked().creator_name
    });
}

fn status(server: &Server, id: &RecordId) -> String {
    server.owner.draft(id).unwrap().document()["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn a_review_is_chosen_changed_and_dropped(server: &Server) {
    let community = closed(server);
    let id = server.draft("To be reviewed", &[("a", b"1")]);
    assert_eq!(server.owner.review(&id).unwrap(), None);
    assert_eq!(
        server.owner.delete_review(&id).unwrap_err().kind(),
        Kind::NotFound
    );
    let request = server.owner.set_review(&id, &community.slug).unwrap();
    assert_eq!((request.status.as_str(), request.is_open), ("created", false));
    assert_eq!(request.kind, "community-submission");
    assert_eq!(request.receiver, Some(("community".into(), community.id)));
    assert_eq!(request.actions, ["submit"]);
    assert_eq!(server.owner.review(&id).unwrap().unwrap().id, request.id);
    assert_eq!(status(server, &id), "draft_with_review");
    let error = server.owner.publish(&id).unwrap_err();
    assert!(
        error.kind() == Kind::Refused && error.to_string().contains("review"),
        "{error}"
    );
    server.owner.set_review(&id, &open(server).slug).unwrap();
    server.owner.delete_review(&id).unwrap();
    assert_eq!(server.owner.review(&id).unwrap(), None);
    assert_eq!(status(server, &id), "draft");
    server.owner.publish(&id).unwrap();
}

fn an_unknown_community_reviews_nothing(server: &Server) {
    let id = server.draft("To be reviewed", &[]);
    let error = server.owner.set_review(&id, "no-such-community").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let strange = server.stranger().set_review(&id, &closed(server).slug);
    assert_eq!(strange.unwrap_err().kind(), Kind::Denied);
}

fn a_published_record_has_no_review(server: &Server) {
    let community = closed(server);
    let id = server.record("Published", &[("a", b"1")]);
    assert_eq!(
        server.owner.set_review(&id, &community.slug).unwrap_err().kind(),
        Kind::NotFound
    );
    server.owner.edit(&id).unwrap();
    let error = server.owner.set_review(&id, &community.slug).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

fn an_open_review_holds_the_draft(server: &Server) {
    let (id, request) = submitted(server);
    assert!(request.is_open && request.status == "submitted");
    let mut actions = request.actions.clone();
    actions.sort();
    assert_eq!(
        actions,
        ["accept", "cancel", "decline"],
        "the owner of both may do all"
    );
    assert_eq!(status(server, &id), "in_review");
    for error in [
        server.owner.publish(&id).unwrap_err(),
        server.owner.delete_draft(&id).unwrap_err(),
        server.owner.delete_review(&id).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
}

fn an_accepted_review_publishes(server: &Server) {
    let (id, request) = submitted(server);
    let accepted = server
        .owner
        .act_on_request(&request.id, "accept", Some("Fine"))
        .unwrap();
    assert_eq!((accepted.status.as_str(), accepted.is_open), ("accepted", false));
    assert!(server.guest.record(&id).unwrap().is_published);
    assert_eq!(server.guest.communities_of(&id).unwrap().total, 1);
}

fn a_declined_review_leaves_the_draft_and_can_be_tried_again(server: &Server) {
    let (id, request) = submitted(server);
    let declined = server
        .owner
        .act_on_request(&request.id, "decline", Some("No"))
        .unwrap();
    assert_eq!(declined.status, "declined");
    assert_eq!(declined.actions, [] as [&str; 0]);
    assert_eq!(status(server, &id), "declined");
    let error = server
        .owner
        .act_on_request(&request.id, "decline", None)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    let again = server.owner.set_review(&id, &closed(server).slug).unwrap();
    assert_ne!(again.id, request.id);
    assert!(server.owner.submit_review(&id, None, true).unwrap().is_open);
}

fn a_cancelled_review_is_gone(server: &Server) {
    let (id, request) = submitted(server);
    let cancelled = server.owner.act_on_request(&request.id, "cancel", None).unwrap();
    assert_eq!(cancelled.status, "cancelled");
    assert_eq!(server.owner.review(&id).unwrap(), None);
    assert_eq!(status(server, &id), "draft");
    server.owner.publish(&id).unwrap();
}

fn a_submitted_draft_is_published_at_once_where_the_policy_allows_it(server: &Server) {
    let id = server.draft(&unique("at once"), &[("a", b"1")]);
    server.owner.set_review(&id, &open(server).slug).unwrap();
    let request = server.owner.submit_review(&id, None, true).unwrap();
    assert_eq!((request.status.as_str(), request.is_open), ("accepted", false));
    assert!(server.guest.record(&id).unwrap().is_published);

    let id = server.draft(&unique("not at once"), &[("a", b"1")]);
    server.owner.set_review(&id, &open(server).slug).unwrap();
    let request = server.owner.submit_review(&id, None, false).unwrap();
    assert!(request.is_open, "a review was asked for");
}

fn an_incomplete_draft_is_not_submitted(server: &Server) {
    let community = closed(server);
    let saved = server
        .owner
        .create_draft(&json!({"metadata": {"title": "Only a title"}}))
        .unwrap();
    let id = saved.record.id;
    server.owner.set_review(&id, &community.slug).unwrap();
    let error = server.owner.submit_review(&id, None, true).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.fields().iter().any(|f| f.field == "metadata.creators"),
        "{error}"
    );
}

fn requests_are_listed_by_their_state(server: &Server) {
    let (_, request) = submitted(server);
    let newest = Search {
        sort: Some("newest"),
        size: 100,
        ..Search::default()
    };
    let listed = |filter| {
        let page = server.owner.user_requests(&newest, filter).unwrap();
        page.items.iter().any(|one| one.id == request.id)
    };
    eventually("it is listed", || listed(RequestFilter::All));
    assert!(listed(RequestFilter::Open) && !listed(RequestFilter::Closed));
    let all = server.owner.requests(&newest, RequestFilter::Open).unwrap();
    assert!(all.items.iter().any(|one| one.id == request.id));
    let (_, community) = request.receiver.clone().unwrap();
    let of_community = server
        .owner
        .community_requests(&community, &newest, RequestFilter::Open)
        .unwrap();
    assert_eq!(of_community.items.len(), 1);
    server.owner.act_on_request(&request.id, "decline", None).unwrap();
    eventually("it is closed", || {
        listed(RequestFilter::Closed) && !listed(RequestFilter::Open)
    });
    for error in [
        server
            .guest
            .user_requests(&newest, RequestFilter::All)
            .unwrap_err(),
        server.guest.requests(&newest, RequestFilter::All).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::Denied);
    }
}

fn a_request_is_nobody_elses(server: &Server) {
    let (_, request) = submitted(server);
    assert_eq!(server.owner.request(&request.id).unwrap().status, "submitted");
    for repository in [server.stranger(), &server.guest] {
        for error in [
            repository.request(&request.id).unwrap_err(),
            repository
                .act_on_request(&request.id, "accept", None)
                .unwrap_err(),
            repository.comment_on_request(&request.id, "hello").unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
    }
    let unknown = RequestId::new("00000000-0000-0000-0000-000000000000").unwrap();
    assert_eq!(server.owner.request(&unknown).unwrap_err().kind(), Kind::NotFound);
}

fn an_action_that_is_none_or_not_now_is_refused(server: &Server) {
    let (_, request) = submitted(server);
    for action in ["nope", "submit"] {
        let error = server
            .owner
            .act_on_request(&request.id, action, None)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{action}: {error}");
        assert!(error.server_message().unwrap().contains(action), "{error}");
    }
    assert_eq!(server.owner.request(&request.id).unwrap().status, "submitted");
}

fn comments_are_made_changed_and_deleted(server: &Server) {
    let (_, request) = submitted(server);
    let said = server
        .owner
        .comment_on_request(&request.id, "One < two & three\n<script>alert(1)</script>")
        .unwrap();
    assert_eq!(said.event, None);
    assert!(
        said.content.contains("One &lt; two &amp; three"),
        "{}",
        said.content
    );
    assert!(!said.content.contains("<script>"), "{}", said.content);
    let changed = server
        .owner
        .update_comment(&request.id, &said.id, "Changed")
        .unwrap();
    assert_eq!(changed.content, "<p>Changed</p>");
    let timeline = || {
        let page = server
            .owner
            .request_timeline(&request.id, &Search::default())
            .unwrap();
        page.items
            .into_iter()
            .map(|event| (event.event, event.content))
            .collect::<Vec<_>>()
    };
    eventually("both comments are listed, oldest first", || {
        let contents: Vec<String> = timeline().into_iter().map(|(_, content)| content).collect();
        contents == ["<p>Please look</p>", "<p>Changed</p>"]
    });
    server.owner.delete_comment(&request.id, &said.id).unwrap();
    let again = server.owner.delete_comment(&request.id, &said.id).unwrap_err();
    // Version 12 fails.
    let expected = if is_real_twelve(server) {
        Kind::ServerFailed
    } else {
        Kind::Denied
    };
    assert_eq!(again.kind(), expected, "{again}");
    server.owner.act_on_request(&request.id, "decline", None).unwrap();
    eventually("the decision is listed", || {
        timeline()
            .iter()
            .any(|(event, _)| event.as_deref() == Some("declined"))
    });
    assert!(timeline().iter().all(|(_, content)| !content.contains("Changed")));
}

crate::on_both_one_at_a_time![
    a_review_is_chosen_changed_and_dropped,
    an_unknown_community_reviews_nothing,
    a_published_record_has_no_review,
    an_open_review_holds_the_draft,
    an_accepted_review_publishes,
    a_declined_review_leaves_the_draft_and_can_be_tried_again,
    a_cancelled_review_is_gone,
    a_submitted_draft_is_published_at_once_where_the_policy_allows_it,
    an_incomplete_draft_is_not_submitted,
    requests_are_listed_by_their_state,
    a_request_is_nobody_elses,
    an_action_that_is_none_or_not_now_is_refused,
    comments_are_made_changed_and_deleted,
    a_request_tells_who_asks_and_who_decides_by_their_names,
];
