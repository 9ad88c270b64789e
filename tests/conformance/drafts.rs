//! Drafts: made, changed, published, dropped.

use rdmfs::error::Kind;
use serde_json::json;

use crate::server::{Server, document};

fn a_draft_is_made_and_read(server: &Server) {
    let saved = server.owner.create_draft(&document("A draft")).unwrap();
    assert_eq!(saved.problems, []);
    assert!(saved.record.is_draft && !saved.record.is_published);
    let read = server.owner.draft(&saved.record.id).unwrap();
    assert_eq!(read.title, "A draft");
    assert_eq!(read.revision, saved.record.revision);
    assert!(!read.document().contains_key("ui"));
}

fn what_is_not_accepted_is_named_and_dropped(server: &Server) {
    let mut document = document("xy");
    document["metadata"]["publication_date"] = json!("yesterday");
    let saved = server.owner.create_draft(&document).unwrap();
    let mut fields: Vec<&str> = saved.problems.iter().map(|p| p.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["metadata.publication_date", "metadata.title"]);
    assert!(saved.problems.iter().all(|p| !p.messages.is_empty()));
    assert!(!saved.record.document().contains_key("errors"));
    assert_eq!(server.owner.draft(&saved.record.id).unwrap().title, "");
}

fn an_empty_document_makes_a_draft(server: &Server) {
    let saved = server.owner.create_draft(&json!({})).unwrap();
    assert_eq!(saved.record.title, "");
}

fn an_unknown_vocabulary_id_is_refused(server: &Server) {
    let mut document = document("A draft");
    document["metadata"]["resource_type"] = json!({"id": "nope"});
    let error = server.owner.create_draft(&document).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.server_message().unwrap().contains("nope"), "{error}");
}

fn a_guest_makes_no_drafts(server: &Server) {
    let error = server.guest.create_draft(&document("A draft")).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
}

fn a_draft_is_nobody_elses(server: &Server) {
    let id = server.draft("Mine", &[("a", b"1")]);
    for repository in [server.stranger(), &server.guest] {
        for error in [
            repository.draft(&id).unwrap_err(),
            repository.draft_files(&id).unwrap_err(),
            repository
                .update_draft(&id, &document("Yours"), None)
                .unwrap_err(),
            repository.delete_draft(&id).unwrap_err(),
            repository.publish(&id).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Denied, "{error}");
        }
    }
}

fn saving_replaces_all_metadata(server: &Server) {
    let mut full = document("Before");
    full["metadata"]["description"] = json!("<p>long</p>");
    let id = server.draft_like(&full, &[]);
    let saved = server.owner.update_draft(&id, &document("After"), None).unwrap();
    assert_eq!(saved.record.title, "After");
    let read = server.owner.draft(&id).unwrap();
    assert_eq!(read.title, "After");
    assert!(read.document()["metadata"].get("description").is_none());
}

fn saving_with_an_old_revision_is_refused_as_changed(server: &Server) {
    let id = server.draft("One", &[]);
    let old = server.owner.draft(&id).unwrap().revision;
    server.owner.update_draft(&id, &document("Two"), old).unwrap();
    let current = server.owner.draft(&id).unwrap().revision;
    assert!(current > old);
    let error = server
        .owner
        .update_draft(&id, &document("Three"), old)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Changed, "{error}");
    assert_eq!(server.owner.draft(&id).unwrap().title, "Two");
    server
        .owner
        .update_draft(&id, &document("Three"), current)
        .unwrap();
}

fn of_several_savers_at_once_one_wins_and_the_others_are_told(server: &Server) {
    let id = server.draft("Contended", &[]);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let savers: Vec<_> = (0..6)
            .map(|n| {
                let id = &id;
                scope.spawn(move || {
                    server
                        .owner
                        .update_draft(id, &document(&format!("Title {n}")), None)
                })
            })
            .collect();
        savers.into_iter().map(|saver| saver.join().unwrap()).collect()
    });
    assert!(outcomes.iter().any(Result::is_ok));
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(
            error.server_message().unwrap().starts_with("Invalid value"),
            "{error}"
        );
    }
    assert!(server.owner.draft(&id).unwrap().title.starts_with("Title "));
}

fn a_deleted_draft_is_gone_with_its_files(server: &Server) {
    let id = server.draft("Short-lived", &[("a", b"1")]);
    server.owner.start_files(&id, &["pending"]).unwrap();
    server.owner.delete_draft(&id).unwrap();
    assert_eq!(server.owner.draft(&id).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.owner.draft_files(&id).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.owner.delete_draft(&id).unwrap_err().kind(), Kind::NotFound);
}

fn publishing_makes_a_record_at_once(server: &Server) {
    let id = server.draft("Published", &[("a", b"1")]);
    let record = server.owner.publish(&id).unwrap();
    assert_eq!(record.id, id);
    assert!(record.is_published && !record.is_draft);
    assert_eq!(server.guest.record(&id).unwrap().title, "Published");
    assert_eq!(server.owner.draft(&id).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.owner.publish(&id).unwrap_err().kind(), Kind::NotFound);
}

fn publishing_without_files_is_refused(server: &Server) {
    let id = server.draft("Empty", &[]);
    let error = server.owner.publish(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error.server_message().unwrap().contains("Missing uploaded files"),
        "{error}"
    );
}

fn publishing_with_files_in_transfer_is_not_ready(server: &Server) {
    let id = server.draft("Half", &[("a", b"1")]);
    server.owner.start_files(&id, &["b"]).unwrap();
    let error = server.owner.publish(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::NotReady, "{error}");
    server.owner.delete_file(&id, "b").unwrap();
    server.owner.publish(&id).unwrap();
}

fn publishing_names_the_fields_that_are_missing(server: &Server) {
    let id = server.draft_with_a_title_alone();
    let error = server.owner.publish(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    let words = error.server_message().unwrap();
    for field in [
        "metadata.creators",
        "metadata.resource_type",
        "metadata.publication_date",
    ] {
        assert!(words.contains(field), "{words}");
    }
}

fn an_edit_changes_metadata_and_no_files(server: &Server) {
    let id = server.record("Before the edit", &[("a", b"1")]);
    assert_eq!(server.owner.draft(&id).unwrap_err().kind(), Kind::NotFound);
    let draft = server.owner.edit(&id).unwrap();
    assert_eq!(draft.id, id);
    assert!(draft.is_published && draft.is_draft);
    assert_eq!(server.owner.edit(&id).unwrap().id, id, "the same edit goes on");

    assert_eq!(
        server.owner.delete_file(&id, "a").unwrap_err().kind(),
        Kind::Denied
    );
    server.owner.start_files(&id, &["b"]).unwrap();
    let error = server.put(&id, "b", b"2").unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    server.owner.delete_file(&id, "b").unwrap();

    server
        .owner
        .update_draft(&id, &document("After the edit"), None)
        .unwrap();
    assert_eq!(server.guest.record(&id).unwrap().title, "Before the edit");
    server.owner.publish(&id).unwrap();
    assert_eq!(server.guest.record(&id).unwrap().title, "After the edit");
}

fn dropping_an_edit_keeps_the_record(server: &Server) {
    let id = server.record("Kept", &[("a", b"1")]);
    server.owner.edit(&id).unwrap();
    server.owner.delete_draft(&id).unwrap();
    assert_eq!(server.owner.draft(&id).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.guest.record(&id).unwrap().title, "Kept");
}

fn a_new_version_begins_without_files_and_can_take_them_over(server: &Server) {
    let id = server.record("Version one", &[("a", b"1"), ("b", b"22")]);
    let next = server.owner.new_version(&id).unwrap();
    assert_ne!(next.id, id);
    assert!(next.is_draft && !next.is_published);
    assert_eq!(server.owner.draft_files(&next.id).unwrap(), []);
    assert_eq!(
        server.owner.new_version(&id).unwrap().id,
        next.id,
        "the same one goes on"
    );

    let mut imported = server.owner.import_files(&next.id).unwrap();
    imported.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(imported.len(), 2);
    assert_eq!(imported[1].size, Some(2));
    let again = server.owner.import_files(&next.id).unwrap_err();
    assert_eq!(again.kind(), Kind::Refused, "{again}");

    server.owner.delete_file(&next.id, "a").unwrap();
    server.add(&next.id, "c", b"333").unwrap();
    assert_eq!(server.owner.draft_files(&next.id).unwrap().len(), 2);
    assert_eq!(
        server.guest.record_files(&id).unwrap().len(),
        2,
        "the old one keeps its own"
    );
}

crate::on_both![
    a_draft_is_made_and_read,
    what_is_not_accepted_is_named_and_dropped,
    an_empty_document_makes_a_draft,
    an_unknown_vocabulary_id_is_refused,
    a_guest_makes_no_drafts,
    a_draft_is_nobody_elses,
    saving_replaces_all_metadata,
    saving_with_an_old_revision_is_refused_as_changed,
    of_several_savers_at_once_one_wins_and_the_others_are_told,
    a_deleted_draft_is_gone_with_its_files,
    publishing_makes_a_record_at_once,
    publishing_without_files_is_refused,
    publishing_with_files_in_transfer_is_not_ready,
    publishing_names_the_fields_that_are_missing,
    an_edit_changes_metadata_and_no_files,
    dropping_an_edit_keeps_the_record,
    a_new_version_begins_without_files_and_can_take_them_over,
];
