//! Communities: made, changed, found; their logos and their records.

use rdmfs::error::Kind;
use rdmfs::repository::{Community, Search};
use serde_json::{Value, json};

use crate::server::{Server, eventually, unique};

/// What a community needs; policies are left to the server (version 12 names one of them otherwise).
pub fn community_document(slug: &str) -> Value {
    json!({
        "slug": slug,
        "metadata": {"title": format!("Community {slug}"), "description": "About it", "type": {"id": "project"}},
        "access": {"visibility": "public"},
    })
}

/// A community that only lets records in after a review, the owner's too.
pub fn closed(server: &Server) -> Community {
    let mut document = community_document(&unique("c"));
    document["access"]["review_policy"] = json!("closed");
    server.owner.create_community(&document).unwrap()
}

/// One that lets its owner's records in at once.
pub fn open(server: &Server) -> Community {
    let mut document = community_document(&unique("c"));
    document["access"]["review_policy"] = json!("open");
    server.owner.create_community(&document).unwrap()
}

fn fields(error: &rdmfs::error::Error) -> Vec<&str> {
    error.fields().iter().map(|field| field.field.as_str()).collect()
}

fn a_community_is_made_and_read_by_slug_and_uuid(server: &Server) {
    let slug = unique("made");
    let made = server.owner.create_community(&community_document(&slug)).unwrap();
    assert_eq!(made.slug, slug);
    assert_eq!(made.title, format!("Community {slug}"));
    assert!(made.revision.is_some());
    assert_eq!(made.document["metadata"]["type"]["id"], "project");
    for name in [&made.slug, &made.id] {
        let read = server.guest.community(name).unwrap();
        assert_eq!((&read.id, &read.slug), (&made.id, &made.slug));
    }
    for name in ["no-such-community", "..", "", "a/b", "%2e%2e", "😀"] {
        assert_eq!(
            server.guest.community(name).unwrap_err().kind(),
            Kind::NotFound,
            "{name}"
        );
    }
    assert_eq!(
        server
            .guest
            .create_community(&community_document(&unique("guest")))
            .unwrap_err()
            .kind(),
        Kind::Denied
    );
}

fn what_is_wrong_with_a_community_is_said_by_field(server: &Server) {
    let refused = |document: &Value| {
        let error = server.owner.create_community(document).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        error
    };
    let error = refused(&json!({}));
    assert_eq!(fields(&error), ["slug", "metadata", "access"]);
    assert!(error.fields()[0].messages[0].contains("Missing data"), "{error}");

    let mut document = community_document("bad slug!");
    assert_eq!(fields(&refused(&document)), ["slug"]);
    document["metadata"]["description"] = json!("x".repeat(251));
    assert_eq!(fields(&refused(&document)), ["slug", "metadata.description"]);

    let mut document = community_document(&unique("bad"));
    document["metadata"]["title"] = json!("");
    document["access"]["visibility"] = json!("odd");
    assert_eq!(
        fields(&refused(&document)),
        ["metadata.title", "access.visibility"]
    );

    let taken = unique("taken");
    server
        .owner
        .create_community(&community_document(&taken))
        .unwrap();
    let error = refused(&community_document(&taken));
    assert_eq!(fields(&error), ["slug"]);
    assert!(error.fields()[0].messages[0].contains("already exists"));
}

fn a_community_is_changed_by_its_owner_and_in_time(server: &Server) {
    let slug = unique("changed");
    let made = server.owner.create_community(&community_document(&slug)).unwrap();
    let mut document = community_document(&slug);
    document["metadata"]["title"] = json!("Another title");
    let changed = server
        .owner
        .update_community(&slug, &document, made.revision)
        .unwrap();
    assert_eq!(changed.title, "Another title");
    let late = server.owner.update_community(&slug, &document, made.revision);
    assert_eq!(late.unwrap_err().kind(), Kind::Changed);
    let strange = server.stranger().update_community(&slug, &document, None);
    assert_eq!(strange.unwrap_err().kind(), Kind::Denied);

    document["slug"] = json!(format!("{slug}x"));
    let error = server.owner.update_community(&slug, &document, None).unwrap_err();
    assert_eq!(fields(&error), ["slug"], "renaming is a call of its own");
    let error = server
        .owner
        .update_community(&slug, &json!({"slug": slug}), None)
        .unwrap_err();
    assert!(fields(&error).contains(&"metadata"), "{error}");
}

fn a_renamed_community_is_not_found_by_its_old_slug(server: &Server) {
    let slug = unique("old");
    let made = server.owner.create_community(&community_document(&slug)).unwrap();
    let new = unique("new");
    assert_eq!(server.owner.rename_community(&slug, &new).unwrap().slug, new);
    assert_eq!(server.guest.community(&slug).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.guest.community(&new).unwrap().id, made.id);
    let error = server.owner.rename_community(&new, "bad slug!").unwrap_err();
    assert_eq!(fields(&error), ["slug"]);
    let strange = server.stranger().rename_community(&new, &unique("mine"));
    assert_eq!(strange.unwrap_err().kind(), Kind::Denied);
}

fn a_deleted_community_is_gone(server: &Server) {
    let slug = unique("gone");
    server.owner.create_community(&community_document(&slug)).unwrap();
    let strange = server.stranger().delete_community(&slug);
    assert_eq!(strange.unwrap_err().kind(), Kind::Denied);
    server.owner.delete_community(&slug).unwrap();
    assert_eq!(server.guest.community(&slug).unwrap_err().kind(), Kind::NotFound);
}

fn a_logo_is_set_read_and_deleted(server: &Server) {
    let slug = open(server).slug;
    assert_eq!(server.guest.community_logo(&slug).unwrap(), None);
    assert_eq!(
        server.owner.delete_community_logo(&slug).unwrap_err().kind(),
        Kind::NotFound
    );
    let image = b"\x89PNG\r\n\x1a\n and more".to_vec();
    server.owner.set_community_logo(&slug, image.clone()).unwrap();
    assert_eq!(
        &*server.guest.community_logo(&slug).unwrap().unwrap().bytes,
        &image[..]
    );
    server
        .owner
        .set_community_logo(&slug, b"another".to_vec())
        .unwrap();
    assert_eq!(
        &*server.guest.community_logo(&slug).unwrap().unwrap().bytes,
        b"another"
    );
    let strange = server.stranger().set_community_logo(&slug, image);
    assert_eq!(strange.unwrap_err().kind(), Kind::Denied);
    server.owner.delete_community_logo(&slug).unwrap();
    assert_eq!(server.guest.community_logo(&slug).unwrap(), None);
    let unknown = server.guest.community_logo("no-such-community").unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
}

fn a_logo_over_a_megabyte_is_too_large(server: &Server) {
    let slug = open(server).slug;
    let error = server
        .owner
        .set_community_logo(&slug, vec![0; 1_000_001])
        .unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
    assert_eq!(fields(&error), ["logo"]);
    assert!(
        error.fields()[0].messages[0].contains("Limit: 1.00 MB"),
        "{error}"
    );
    server
        .owner
        .set_community_logo(&slug, vec![0; 1_000_000])
        .unwrap();
}

fn communities_are_searched_and_ones_own_are_listed(server: &Server) {
    let made = open(server);
    let search = Search {
        query: Some(format!("slug:{}", made.slug)),
        ..Search::default()
    };
    eventually("it is found", || {
        server.guest.communities(&search).unwrap().total == 1
    });
    let found = server.guest.communities(&search).unwrap();
    assert_eq!(
        (found.items[0].id.as_str(), found.has_next),
        (made.id.as_str(), false)
    );
    eventually("it is among the owner's", || {
        server.owner.user_communities(&search).unwrap().total == 1
    });
    if let Some(other) = &server.other {
        assert_eq!(other.user_communities(&search).unwrap().total, 0);
    }
    let guest = server.guest.user_communities(&search).unwrap_err();
    assert_eq!(guest.kind(), Kind::Denied);
    let odd = Search::typed("?sort=nope").unwrap();
    assert_eq!(server.guest.communities(&odd).unwrap_err().kind(), Kind::Refused);
}

fn a_record_is_let_in_at_once_where_the_policy_allows_it(server: &Server) {
    let community = open(server);
    let id = server.record(&unique("member"), &[("a", b"1")]);
    let done = server
        .owner
        .submit_to_communities(&id, &[&community.slug], None)
        .unwrap();
    assert!(done.refused.is_none() && done.asked.len() == 1, "{done:?}");
    let request = done.asked[0].request.as_ref().unwrap();
    assert_eq!((request.status.as_str(), request.is_open), ("accepted", false));
    assert_eq!(request.kind, "community-inclusion");
    let list = || {
        server
            .guest
            .community_records(&community.slug, &Search::default())
    };
    eventually("the community lists it", || list().unwrap().total == 1);
    assert_eq!(list().unwrap().records[0].id, id);
    let of_record = server.guest.communities_of(&id).unwrap();
    assert_eq!(of_record.items[0].id, community.id);

    let again = server.owner.submit_to_communities(&id, &[&community.slug], None);
    let error = again.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(fields(&error), [&community.slug]);

    server
        .owner
        .remove_from_communities(&id, &[&community.slug])
        .unwrap();
    eventually("the community no longer lists it", || list().unwrap().total == 0);
    let error = server
        .owner
        .remove_from_communities(&id, &[&community.id])
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(fields(&error), [&community.id]);
    let error = server
        .owner
        .remove_from_communities(&id, &[&community.slug])
        .unwrap_err();
    assert_eq!(fields(&error), [&community.slug], "by the name that was given");
}

fn a_record_waits_where_it_is_reviewed(server: &Server) {
    let community = closed(server);
    let id = server.record(&unique("waits"), &[("a", b"1")]);
    let done = server
        .owner
        .submit_to_communities(&id, &[&community.slug], Some("Please, <b>let</b> it in"))
        .unwrap();
    let request = done.asked[0].request.clone().unwrap();
    assert!(request.is_open && request.status == "submitted", "{request:?}");
    assert_eq!(request.topic.as_ref(), Some(&id));
    let error = server
        .owner
        .submit_to_communities(&id, &[&community.slug], None)
        .unwrap_err();
    assert!(
        error.fields()[0].messages[0].contains("already an open inclusion request"),
        "{error}"
    );
    let error = server.owner.delete_community(&community.slug).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(server.guest.communities_of(&id).unwrap().items, []);
    server.owner.act_on_request(&request.id, "accept", None).unwrap();
    assert_eq!(
        server.guest.communities_of(&id).unwrap().items[0].id,
        community.id
    );
}

fn an_unknown_community_takes_no_record(server: &Server) {
    let id = server.record("Homeless", &[("a", b"1")]);
    let error = server
        .owner
        .submit_to_communities(&id, &["no-such-community"], None)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(fields(&error), ["no-such-community"]);
    assert!(error.fields()[0].messages[0].contains("not found"), "{error}");
    // One that is unknown keeps no other from being asked.
    let community = closed(server);
    let names = ["no-such-community", community.slug.as_str()];
    let done = server.owner.submit_to_communities(&id, &names, None).unwrap();
    assert_eq!(done.asked.len(), 1);
    assert_eq!(done.asked[0].request.as_ref().unwrap().status, "submitted");
    assert_eq!(fields(&done.refused.unwrap()), ["no-such-community"]);
    let error = server
        .guest
        .community_records("no-such-community", &Search::default())
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

crate::on_both_one_at_a_time![
    a_community_is_made_and_read_by_slug_and_uuid,
    what_is_wrong_with_a_community_is_said_by_field,
    a_community_is_changed_by_its_owner_and_in_time,
    a_renamed_community_is_not_found_by_its_old_slug,
    a_deleted_community_is_gone,
    a_logo_is_set_read_and_deleted,
    a_logo_over_a_megabyte_is_too_large,
    communities_are_searched_and_ones_own_are_listed,
    a_record_is_let_in_at_once_where_the_policy_allows_it,
    a_record_waits_where_it_is_reviewed,
    an_unknown_community_takes_no_record,
];
