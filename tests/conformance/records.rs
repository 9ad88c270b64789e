//! Published records: by id, in lists, their versions.

use rdmfs::error::Kind;
use rdmfs::repository::Search;
use rdmfs::repository::model::{Files, Page, RecordId};
use serde_json::{Map, Value, json};

use crate::server::{Server, document, eventually, unique};

fn ids(page: &Page) -> Vec<String> {
    page.records.iter().map(|record| record.id.to_string()).collect()
}

fn titled(title: &str) -> Search {
    Search {
        query: Some(format!("metadata.title:{title}")),
        ..Search::default()
    }
}

fn a_record_is_read_with_its_files(server: &Server) {
    let id = server.record("With files", &[("a.txt", b"hello\n"), ("dir/b.bin", b"12345")]);
    let record = server.guest.record(&id).unwrap();
    assert_eq!(record.id, id);
    assert_eq!(record.title, "With files");
    assert!(record.is_published && !record.is_draft && record.is_open);
    assert!(record.created.is_some() && record.updated.is_some() && record.revision.is_some());
    let Files::Listed(mut files) = record.files.clone() else {
        panic!("{:?}", record.files)
    };
    files.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(&*files[0].key, "a.txt");
    assert_eq!(files[0].size, Some(6));
    assert_eq!(
        files[0].md5.unwrap().to_string(),
        "b1946ac92492d2347c6235b4d2611184"
    );
    assert_eq!(&*files[1].key, "dir/b.bin");

    let mut listed = server.guest.record_files(&id).unwrap();
    listed.sort_by(|a, b| a.key.cmp(&b.key));
    for (in_record, in_list) in files.iter().zip(&listed) {
        assert_eq!(
            (&in_record.key, in_record.size, in_record.md5),
            (&in_list.key, in_list.size, in_list.md5)
        );
    }
    assert_eq!(files.len(), listed.len());
}

fn a_document_is_the_plain_form_without_what_is_for_pages(server: &Server) {
    let id = server.record("Plain", &[("a", b"1")]);
    let record = server.owner.record(&id).unwrap();
    let document = record.document();
    for key in [
        "id",
        "created",
        "updated",
        "links",
        "revision_id",
        "parent",
        "versions",
        "is_published",
        "is_draft",
        "pids",
        "metadata",
        "custom_fields",
        "access",
        "files",
        "media_files",
        "status",
        "deletion_status",
        "stats",
    ] {
        assert!(document.contains_key(key), "{key} is missing");
    }
    assert!(!document.contains_key("ui") && !document.contains_key("errors"));
}

fn an_unknown_id_is_not_found(server: &Server) {
    let id = RecordId::new("zzzzz-99999").unwrap();
    for error in [
        server.owner.record(&id).unwrap_err(),
        server.owner.record_files(&id).unwrap_err(),
        server.owner.draft(&id).unwrap_err(),
        server.owner.latest_version(&id).unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}

fn an_unpublished_draft_is_no_record(server: &Server) {
    let id = server.draft("Not yet", &[]);
    assert_eq!(server.owner.record(&id).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.guest.record(&id).unwrap_err().kind(), Kind::NotFound);
}

fn a_metadata_only_record_has_no_files(server: &Server) {
    let mut document = document("Metadata only");
    document["files"]["enabled"] = json!(false);
    let id = server.draft_like(&document, &[]);
    server.owner.publish(&id).unwrap();
    assert_eq!(server.guest.record(&id).unwrap().files, Files::Disabled);
    assert_eq!(server.guest.record_files(&id).unwrap(), []);
}

fn restricted_files_are_hidden_from_strangers(server: &Server) {
    let mut document = document("Restricted files");
    document["access"]["files"] = json!("restricted");
    let id = server.draft_like(&document, &[("secret", b"123")]);
    server.owner.publish(&id).unwrap();
    let seen = server.guest.record(&id).unwrap();
    assert_eq!(seen.files, Files::Unlisted);
    assert!(!seen.is_open);
    assert_eq!(server.guest.record_files(&id).unwrap_err().kind(), Kind::Denied);
    assert_eq!(
        server.stranger().record_files(&id).unwrap_err().kind(),
        Kind::Denied
    );
    assert_eq!(server.owner.record_files(&id).unwrap().len(), 1);
    let Files::Listed(files) = server.owner.record(&id).unwrap().files else {
        panic!("the owner sees them")
    };
    assert_eq!(files.len(), 1);
}

fn a_hit_never_claims_that_restricted_files_are_none(server: &Server) {
    let title = unique("Hidden");
    let mut document = document(&title);
    document["access"]["files"] = json!("restricted");
    let id = server.draft_like(&document, &[("secret", b"123")]);
    server.owner.publish(&id).unwrap();
    eventually("it is found", || {
        server.owner.search(&titled(&title)).unwrap().total == 1
    });
    for repository in [&server.owner, &server.guest] {
        let page = repository.search(&titled(&title)).unwrap();
        assert_eq!(page.records[0].files, Files::Unlisted);
    }
}

fn a_restricted_record_is_denied_and_not_found_by_searching(server: &Server) {
    let title = unique("Restricted");
    let mut document = document(&title);
    document["access"] = json!({"record": "restricted", "files": "restricted"});
    let id = server.draft_like(&document, &[("secret", b"123")]);
    server.owner.publish(&id).unwrap();
    assert_eq!(server.guest.record(&id).unwrap_err().kind(), Kind::Denied);
    eventually("its owner finds it", || {
        server.owner.search(&titled(&title)).unwrap().total == 1
    });
    assert_eq!(server.guest.search(&titled(&title)).unwrap().total, 0);
}

fn the_id_of_all_versions_leads_to_the_latest(server: &Server) {
    let first = server.record("Version one", &[("a", b"1")]);
    let concept = server.owner.record(&first).unwrap().document()["parent"]["id"]
        .as_str()
        .and_then(RecordId::new)
        .unwrap();
    assert_eq!(server.guest.record(&concept).unwrap().id, first);
    let second = publish_next(server, &first);
    assert_eq!(server.guest.record(&concept).unwrap().id, second);
    assert_eq!(server.guest.latest_version(&first).unwrap().id, second);
    assert_eq!(server.guest.latest_version(&second).unwrap().id, second);
    assert_eq!(
        server.guest.record(&first).unwrap().id,
        first,
        "the first is still there"
    );
}

fn versions_are_listed_newest_first_and_only_published_ones(server: &Server) {
    let first = server.record("Version one", &[("a", b"1")]);
    let second = publish_next(server, &first);
    server.owner.new_version(&second).unwrap();
    let wanted = [second.to_string(), first.to_string()];
    eventually("both are listed", || {
        server.owner.versions(&first).unwrap().total == 2
    });
    for (repository, id) in [(&server.guest, &first), (&server.owner, &second)] {
        let page = repository.versions(id).unwrap();
        assert_eq!(ids(&page), wanted);
        assert!(!page.has_next);
    }
}

fn publish_next(server: &Server, id: &RecordId) -> RecordId {
    let next = server.owner.new_version(id).unwrap().id;
    server.owner.import_files(&next).unwrap();
    // Version 12 leaves the date out.
    server
        .owner
        .update_draft(&next, &document("The next version"), None)
        .unwrap();
    server.owner.publish(&next).unwrap().id
}

fn a_search_gives_pages(server: &Server) {
    let word = unique("paged");
    let mut made: Vec<String> = (0..3)
        .map(|_| server.record(&word, &[("a", b"1")]).to_string())
        .collect();
    eventually("all are found", || {
        server.owner.search(&titled(&word)).unwrap().total == 3
    });
    let page = |page: u32| {
        let search = Search {
            page,
            size: 2,
            sort: Some("oldest"),
            ..titled(&word)
        };
        server.guest.search(&search).unwrap()
    };
    let (one, two, three) = (page(1), page(2), page(3));
    assert_eq!((one.records.len(), one.total, one.has_next), (2, 3, true));
    assert_eq!((two.records.len(), two.total, two.has_next), (1, 3, false));
    assert_eq!((three.records.len(), three.total, three.has_next), (0, 3, false));
    let mut found: Vec<String> = [ids(&one), ids(&two)].concat();
    made.sort();
    found.sort();
    assert_eq!(found, made);
}

fn sorting_goes_both_ways_and_unknown_orders_are_refused(server: &Server) {
    let word = unique("sorted");
    let first = server.record(&word, &[("a", b"1")]);
    let second = server.record(&word, &[("a", b"1")]);
    eventually("both are found", || {
        server.owner.search(&titled(&word)).unwrap().total == 2
    });
    let sorted = |sort| {
        let search = Search {
            sort: Some(sort),
            ..titled(&word)
        };
        server.guest.search(&search)
    };
    assert_eq!(
        ids(&sorted("oldest").unwrap()),
        [first.to_string(), second.to_string()]
    );
    assert_eq!(
        ids(&sorted("newest").unwrap()),
        [second.to_string(), first.to_string()]
    );
    assert_eq!(sorted("title").unwrap_err().kind(), Kind::Refused);
}

fn a_search_reaches_ten_thousand_records_and_no_further(server: &Server) {
    let search = |page| Search {
        page,
        size: 100,
        ..Search::default()
    };
    assert!(!server.guest.search(&search(100)).unwrap().has_next);
    assert_eq!(
        server.guest.search(&search(101)).unwrap_err().kind(),
        Kind::Refused
    );
}

fn only_the_latest_version_is_found_unless_all_are_asked_for(server: &Server) {
    let first = server.record("Version one", &[("a", b"1")]);
    let second = publish_next(server, &first);
    let parent = server.owner.record(&second).unwrap().document()["parent"]["id"].clone();
    let search = |all_versions| Search {
        query: Some(format!("parent.id:{parent}")),
        all_versions,
        ..Search::default()
    };
    eventually("both are found", || {
        server.guest.search(&search(true)).unwrap().total == 2
    });
    assert_eq!(
        ids(&server.guest.search(&search(false)).unwrap()),
        [second.to_string()]
    );
}

fn what_a_query_says_is_a_query_and_broken_ones_are_words(server: &Server) {
    let id = server.record("Looked for", &[("a", b"1")]);
    let search = |query: String| Search {
        query: Some(query),
        ..Search::default()
    };
    let by_id = search(format!("id:\"{id}\""));
    eventually("it is found by its id", || {
        server.guest.search(&by_id).unwrap().total == 1
    });
    server.guest.search(&search("((title:".into())).unwrap();
    server.guest.search(&search("a & b + ü % #?".into())).unwrap();
}

fn a_hit_tells_what_get_tells(server: &Server) {
    let title = unique("same");
    let id = server.record(&title, &[("a.txt", b"hello\n"), ("dir/b", b"2")]);
    eventually("it is found", || {
        server.guest.search(&titled(&title)).unwrap().total == 1
    });
    for repository in [&server.guest, &server.owner] {
        let hit = repository.search(&titled(&title)).unwrap().records.remove(0);
        let got = repository.record(&id).unwrap();
        assert_eq!(hit.files, got.files);
        let entry = |document: &Map<String, Value>| document["files"]["entries"]["a.txt"].clone();
        for name in ["links", "storage_class"] {
            assert!(entry(got.document()).get(name).is_some(), "{name} in GET");
            assert!(entry(hit.document()).get(name).is_none(), "{name} in a hit");
        }
        assert_eq!(
            without_what_hits_leave_out(hit.document()),
            without_what_hits_leave_out(got.document())
        );
    }
}

/// A hit's entries have neither `links` nor `storage_class`, their `metadata` may not have been looked at yet (a background
/// task adds it), and its parent's communities are what the index knew of them
/// when the record was last changed.
fn without_what_hits_leave_out(document: &Map<String, Value>) -> Value {
    let mut document = Value::Object(document.clone());
    if let Some(Value::Object(entries)) = document.pointer_mut("/files/entries") {
        for entry in entries.values_mut() {
            let entry = entry.as_object_mut().unwrap();
            entry.remove("links");
            entry.remove("storage_class");
            entry.remove("metadata");
        }
    }
    if let Some(Value::Object(parent)) = document.pointer_mut("/parent") {
        parent.remove("communities");
    }
    document
}

fn ones_own_records_are_listed_with_drafts_and_edits(server: &Server) {
    let word = unique("mine");
    let draft = server.draft(&word, &[]);
    let published = server.record(&word, &[("a", b"1")]);
    let edited = server.record(&word, &[("a", b"1")]);
    server.owner.edit(&edited).unwrap();
    let list = |filter| {
        let page = server.owner.user_records(&titled(&word), filter).unwrap();
        let mut rows: Vec<(String, bool, bool)> = page
            .records
            .iter()
            .map(|record| (record.id.to_string(), record.is_published, record.is_draft))
            .collect();
        rows.sort();
        rows
    };
    let mut all = vec![
        (draft.to_string(), false, true),
        (published.to_string(), true, false),
        (edited.to_string(), true, true),
    ];
    all.sort();
    eventually("all three are listed as they are", || list(None) == all);
    let some = |published| {
        all.iter()
            .filter(|row| row.1 == published)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(list(Some(true)), some(true));
    assert_eq!(list(Some(false)), some(false));
    if let Some(other) = &server.other {
        assert_eq!(other.user_records(&titled(&word), None).unwrap().total, 0);
    }
}

fn a_drafts_hit_lists_no_files(server: &Server) {
    let word = unique("drafted");
    let id = server.draft(&word, &[("a", b"1")]);
    eventually("it is listed", || {
        server.owner.user_records(&titled(&word), None).unwrap().total == 1
    });
    let hit = server
        .owner
        .user_records(&titled(&word), None)
        .unwrap()
        .records
        .remove(0);
    assert_eq!(hit.id, id);
    assert_eq!(hit.files, Files::Unlisted);
}

crate::on_both![
    a_record_is_read_with_its_files,
    a_document_is_the_plain_form_without_what_is_for_pages,
    an_unknown_id_is_not_found,
    an_unpublished_draft_is_no_record,
    a_metadata_only_record_has_no_files,
    restricted_files_are_hidden_from_strangers,
    a_hit_never_claims_that_restricted_files_are_none,
    a_restricted_record_is_denied_and_not_found_by_searching,
    the_id_of_all_versions_leads_to_the_latest,
    versions_are_listed_newest_first_and_only_published_ones,
    a_search_gives_pages,
    sorting_goes_both_ways_and_unknown_orders_are_refused,
    a_search_reaches_ten_thousand_records_and_no_further,
    only_the_latest_version_is_found_unless_all_are_asked_for,
    what_a_query_says_is_a_query_and_broken_ones_are_words,
    a_hit_tells_what_get_tells,
    ones_own_records_are_listed_with_drafts_and_edits,
    a_drafts_hit_lists_no_files,
];
