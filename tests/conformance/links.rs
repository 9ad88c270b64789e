//! Access links: made, changed, revoked, and used.

use rdmfs::error::Kind;
use rdmfs::repository::model::RecordId;
use rdmfs::repository::{
    AccessLink, LinkChange, LinkToken, NewLink, Permission, Repository, Settings, SharedLink,
};
use serde_json::json;

use crate::server::{Server, bytes_of, document, of_draft, of_record};

fn new(permission: Permission) -> NewLink<'static> {
    NewLink {
        permission,
        expires: None,
        description: "",
    }
}

fn link(server: &Server, id: &RecordId, permission: Permission) -> AccessLink {
    server.owner.create_access_link(id, &new(permission)).unwrap()
}

fn with(server: &Server, token: &LinkToken) -> Repository {
    let settings = Settings {
        url: server.url.clone(),
        ..Settings::default()
    };
    Repository::connect_with_link(settings, token.clone()).unwrap()
}

fn a_link_is_made_listed_changed_and_revoked(server: &Server) {
    let id = server.draft("Shared", &[]);
    assert!(server.owner.access_links(&id).unwrap().is_empty());
    let made = server
        .owner
        .create_access_link(
            &id,
            &NewLink {
                permission: Permission::View,
                expires: Some("2099-12-31"),
                description: "for Bob",
            },
        )
        .unwrap();
    assert_eq!(made.permission, Some(Permission::View));
    assert_eq!(made.expires.as_deref(), Some("2099-12-31"));
    assert_eq!(made.description, "for Bob");
    assert!(made.token.is_some() && !made.document.contains_key("token"));
    let listed = server.owner.access_links(&id).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].token, made.token);
    assert_eq!(server.owner.access_link(&id, &made.id).unwrap().id, made.id);

    let change = LinkChange {
        permission: Some(Permission::Edit),
        expires: Some("2098-01-01"),
        description: Some("for all"),
    };
    let changed = server.owner.update_access_link(&id, &made.id, &change).unwrap();
    assert_eq!(changed.permission, Some(Permission::Edit));
    assert_eq!(changed.expires.as_deref(), Some("2098-01-01"));
    assert_eq!(changed.description, "for all");
    let later = LinkChange {
        expires: Some("2099-01-01"),
        ..LinkChange::default()
    };
    let error = server
        .owner
        .update_access_link(&id, &made.id, &later)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(error.fields()[0].field, "expires_at");

    server.owner.revoke_access_link(&id, &made.id).unwrap();
    assert_eq!(
        server.owner.revoke_access_link(&id, &made.id).unwrap_err().kind(),
        Kind::NotFound
    );
    assert!(server.owner.access_links(&id).unwrap().is_empty());
}

fn a_day_that_is_past_or_none_makes_no_link(server: &Server) {
    let id = server.draft("Shared", &[]);
    // A link ends when its day begins, in UTC, so that today is too late.
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    for day in ["2020-01-01", &today, "tomorrow", "2099-12-31T10:00:00"] {
        let wanted = NewLink {
            expires: Some(day),
            ..new(Permission::View)
        };
        let error = server.owner.create_access_link(&id, &wanted).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{day}");
        assert_eq!(error.fields()[0].field, "expires_at");
    }
}

fn links_are_the_owners(server: &Server) {
    let id = server.record("Shared", &[("a", b"1")]);
    let made = link(server, &id, Permission::View);
    for repository in [server.stranger(), &server.guest] {
        for error in [
            repository.access_links(&id).unwrap_err(),
            repository
                .create_access_link(&id, &new(Permission::View))
                .unwrap_err(),
            repository.revoke_access_link(&id, &made.id).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
    }
}

fn a_view_link_opens_restricted_files_and_no_draft(server: &Server) {
    let mut document = document("Restricted");
    document["access"] = json!({"record": "restricted", "files": "restricted"});
    let id = server.draft_like(&document, &[("secret", b"123")]);
    server.owner.publish(&id).unwrap();
    let token = link(server, &id, Permission::View).token.unwrap();
    assert_eq!(server.guest.record(&id).unwrap_err().kind(), Kind::Denied);
    let guest = with(server, &token);
    assert_eq!(guest.record(&id).unwrap().id, id);
    assert_eq!(guest.record_files(&id).unwrap().len(), 1);
    assert_eq!(
        bytes_of(guest.open_content(&of_record(&id, "secret"), None).unwrap()),
        b"123"
    );
    let concept = server.owner.record(&id).unwrap().concept().unwrap();
    assert_eq!(guest.record(&concept).unwrap().id, id, "through a redirect too");
    server.owner.edit(&id).unwrap();
    assert_eq!(guest.draft(&id).unwrap_err().kind(), Kind::Denied);
    let wrong = with(server, &LinkToken::new("nonsense").unwrap());
    assert_eq!(wrong.record(&id).unwrap_err().kind(), Kind::Denied);
}

fn a_preview_link_reads_a_draft_and_an_edit_link_changes_it(server: &Server) {
    let id = server.draft("Before", &[("a", b"123")]);
    let preview = with(server, &link(server, &id, Permission::Preview).token.unwrap());
    assert_eq!(preview.draft(&id).unwrap().title, "Before");
    assert_eq!(preview.draft_files(&id).unwrap().len(), 1);
    assert_eq!(
        bytes_of(preview.open_content(&of_draft(&id, "a"), None).unwrap()),
        b"123"
    );
    let denied = preview.update_draft(&id, &document("Changed"), None);
    assert_eq!(denied.unwrap_err().kind(), Kind::Denied);
    let edit = with(server, &link(server, &id, Permission::Edit).token.unwrap());
    edit.update_draft(&id, &document("Changed"), None).unwrap();
    assert_eq!(server.owner.draft(&id).unwrap().title, "Changed");
}

fn a_revoked_link_opens_nothing(server: &Server) {
    let id = server.draft("Shared for a while", &[]);
    let made = link(server, &id, Permission::Preview);
    let guest = with(server, &made.token.unwrap());
    guest.draft(&id).unwrap();
    server.owner.revoke_access_link(&id, &made.id).unwrap();
    assert_eq!(guest.draft(&id).unwrap_err().kind(), Kind::Denied);
}

fn the_address_to_send_leads_back_to_the_record(server: &Server) {
    let id = server.draft("Sent around", &[]);
    let token = link(server, &id, Permission::Preview).token.unwrap();
    let address = server.owner.shared_address(&id, &token, true);
    let link = SharedLink::parse(&address).unwrap();
    assert_eq!((link.url.as_str(), &link.id), (server.owner.url(), &id));
    assert_eq!(with(server, &link.token).draft(&id).unwrap().id, id);
}

crate::on_both![
    a_link_is_made_listed_changed_and_revoked,
    a_day_that_is_past_or_none_makes_no_link,
    links_are_the_owners,
    a_view_link_opens_restricted_files_and_no_draft,
    a_preview_link_reads_a_draft_and_an_edit_link_changes_it,
    a_revoked_link_opens_nothing,
    the_address_to_send_leads_back_to_the_record,
];
