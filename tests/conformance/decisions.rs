//! What is decided about a draft: its DOI, its check, publishing it for sure.

use rdmfs::error::Kind;
use rdmfs::repository::Published;
use rdmfs::repository::model::RecordId;
use serde_json::json;

use crate::server::{Server, document, eventually, unique};

fn a_doi_is_reserved_once_and_given_back(server: &Server) {
    let id = server.draft("With a DOI", &[]);
    assert_eq!(server.owner.draft(&id).unwrap().doi(), None);
    assert_eq!(server.owner.release_doi(&id).unwrap_err().kind(), Kind::NotFound);
    let draft = server.owner.reserve_doi(&id).unwrap();
    let doi = draft.doi().unwrap().to_owned();
    assert!(doi.starts_with("10.") && doi.contains(id.as_str()), "{doi}");
    assert_eq!(server.owner.draft(&id).unwrap().doi(), Some(&*doi));
    let again = server.owner.reserve_doi(&id).unwrap_err();
    assert_eq!(again.kind(), Kind::Refused);
    assert_eq!(again.fields()[0].field, "pids.doi");
    assert_eq!(
        server.stranger().reserve_doi(&id).unwrap_err().kind(),
        Kind::Denied
    );
    assert_eq!(server.owner.release_doi(&id).unwrap().doi(), None);
}

fn a_reserved_doi_is_the_records_doi(server: &Server) {
    let id = server.draft("With a DOI", &[("a", b"1")]);
    let reserved = server.owner.reserve_doi(&id).unwrap();
    let record = server.owner.publish(&id).unwrap();
    assert_eq!(record.doi(), reserved.doi());
    server.owner.edit(&id).unwrap();
    let error = server.owner.release_doi(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(error.fields()[0].field, "pids.doi");
}

fn a_published_record_gets_no_doi_reserved(server: &Server) {
    let id = server.record("Published", &[("a", b"1")]);
    assert_eq!(server.owner.reserve_doi(&id).unwrap_err().kind(), Kind::NotFound);
}

fn a_check_names_what_is_missing_and_changes_nothing(server: &Server) {
    let saved = server
        .owner
        .create_draft(&json!({"metadata": {"title": "Only a title"}}))
        .unwrap();
    let id = saved.record.id;
    let check = server.check(&id);
    let fields: Vec<&str> = check.problems.iter().map(|p| p.field.as_str()).collect();
    for field in [
        "metadata.creators",
        "metadata.resource_type",
        "metadata.publication_date",
    ] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    assert!(check.lacks_files && check.pending.is_empty() && !check.is_ready());
    assert_eq!(server.owner.draft(&id).unwrap().title, "Only a title");
}

fn a_check_names_files_in_transfer_and_passes_when_all_is_there(server: &Server) {
    let id = server.draft("Nearly ready", &[("a", b"1")]);
    server.owner.start_files(&id, &["b"]).unwrap();
    let check = server.check(&id);
    assert_eq!(check.problems, []);
    assert_eq!(check.pending.len(), 1);
    assert_eq!(&*check.pending[0].key, "b");
    assert_eq!(check.files.len(), 2);
    assert!(!check.is_ready());
    server.owner.delete_file(&id, "b").unwrap();
    assert!(server.check(&id).is_ready());
    server.owner.publish(&id).unwrap();
}

fn a_metadata_only_draft_passes_the_check_without_files(server: &Server) {
    let mut document = document("Metadata only");
    document["files"]["enabled"] = json!(false);
    let id = server.draft_like(&document, &[]);
    let check = server.check(&id);
    assert!(check.is_ready(), "{:?}", check.problems);
    server.owner.publish(&id).unwrap();
}

fn publishing_for_sure_a_second_time_does_no_harm(server: &Server) {
    let id = server.draft("Published twice", &[("a", b"1")]);
    assert!(matches!(
        server.owner.publish_for_sure(&id).unwrap(),
        Published::Now(_)
    ));
    let again = server.owner.publish_for_sure(&id).unwrap();
    assert!(matches!(again, Published::Before(_)));
    assert_eq!(again.record().id, id);
    let unknown = RecordId::new("zzzzz-99999").unwrap();
    let error = server.owner.publish_for_sure(&unknown).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

fn a_refused_publish_names_the_fields(server: &Server) {
    let id = server.draft_with_a_title_alone();
    let error = server.owner.publish_for_sure(&id).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(
        error
            .fields()
            .iter()
            .any(|f| f.field == "metadata.creators" && !f.messages.is_empty()),
        "{:?}",
        error.fields()
    );
    assert!(!error.waits_for_curation());
}

fn a_new_version_that_was_begun_is_given_again_and_comes_after_the_latest(server: &Server) {
    let first = server.record("First", &[("a", b"1")]);
    let says_more =
        || server.owner.record(&first).unwrap().document()["versions"]["is_latest_draft"] == false;
    assert!(!says_more());
    let second = server.owner.new_version(&first).unwrap().id;
    assert!(says_more(), "by which a lost answer is found out");
    assert_eq!(server.owner.new_version(&first).unwrap().id, second);
    server.add(&second, "b", b"2").unwrap();
    server
        .owner
        .update_draft(&second, &document("Second"), None)
        .unwrap();
    server.owner.publish(&second).unwrap();
    // Whichever is named, it is the latest that is gone on from.
    let third = server.owner.new_version(&first).unwrap();
    assert_eq!(third.title, "Second");
    let files = server.owner.import_files(&third.id).unwrap();
    assert_eq!(files.iter().map(|file| &*file.key).collect::<Vec<_>>(), ["b"]);
}

fn a_draft_is_found_by_its_reserved_doi_and_a_check_leaves_that(server: &Server) {
    let id = server.draft(&unique("Reserved"), &[("a", b"1")]);
    let doi = server.owner.reserve_doi(&id).unwrap();
    let doi = doi.doi().unwrap();
    eventually("it is found", || {
        let found = server.owner.draft_by_doi(doi).unwrap();
        found.is_some_and(|draft| draft.id == id)
    });
    assert!(server.owner.record_by_doi(doi).is_err(), "it is no record yet");
    assert_eq!(server.check(&id).draft.doi(), Some(doi));
    let draft = server.owner.draft(&id).unwrap();
    let revision = draft.revision;
    assert!(server.owner.look_at_draft(draft).unwrap().is_ready());
    assert_eq!(
        server.owner.draft(&id).unwrap().revision,
        revision,
        "looking saves nothing"
    );
}

fn files_are_taken_over_into_a_new_version_once(server: &Server) {
    let id = server.record("Version one", &[("a", b"1"), ("dir/b", b"22")]);
    let next = server.owner.new_version(&id).unwrap().id;
    assert_eq!(server.owner.import_files_for_sure(&next).unwrap().len(), 2);
    let again = server.owner.import_files_for_sure(&next).unwrap_err();
    assert_eq!(again.kind(), Kind::Refused);
    assert!(
        again.server_message().unwrap().contains("remove all files"),
        "{again}"
    );
}

crate::on_both![
    a_doi_is_reserved_once_and_given_back,
    a_reserved_doi_is_the_records_doi,
    a_published_record_gets_no_doi_reserved,
    a_check_names_what_is_missing_and_changes_nothing,
    a_check_names_files_in_transfer_and_passes_when_all_is_there,
    a_metadata_only_draft_passes_the_check_without_files,
    publishing_for_sure_a_second_time_does_no_harm,
    a_refused_publish_names_the_fields,
    a_new_version_that_was_begun_is_given_again_and_comes_after_the_latest,
    a_draft_is_found_by_its_reserved_doi_and_a_check_leaves_that,
    files_are_taken_over_into_a_new_version_once,
];
