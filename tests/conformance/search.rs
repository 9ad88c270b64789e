//! Searches as people type them, and records by their DOIs.

use rdmfs::error::Kind;
use rdmfs::repository::Search;

use crate::server::{Server, eventually, unique};

fn a_query_is_searched_as_typed(server: &Server) {
    let word = unique("typed");
    let id = server.record(&word, &[("a.csv", b"1")]);
    let typed = |text: String| server.guest.search(&Search::typed(&text).unwrap());
    eventually("it is found", || {
        typed(format!("metadata.title:{word}")).unwrap().total == 1
    });
    for text in [
        word.clone(),
        format!("{word} AND metadata.publication_date:[2024 TO 2025]"),
        format!("\"{word}\""),
        format!("?q=metadata.title%3A{word}&sort=oldest&allversions=true&size=5"),
        format!("?q={word}&resource_type=dataset"),
    ] {
        let page = typed(text.clone()).unwrap();
        assert_eq!(page.total, 1, "{text}");
        assert_eq!(page.records[0].id, id);
    }
    for text in [
        format!("{word} AND NOT metadata.title:{word}"),
        format!("{word} AND metadata.publication_date:[2025 TO *]"),
    ] {
        assert_eq!(typed(text.clone()).unwrap().total, 0, "{text}");
    }
}

fn what_a_search_refuses_comes_with_the_servers_words(server: &Server) {
    for text in ["?sort=nope", "?q=a&suggest=b"] {
        let error = server.guest.search(&Search::typed(text).unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{text}");
        assert!(
            error
                .server_message()
                .is_some_and(|words| words.contains("nvalid")),
            "{error}"
        );
    }
}

fn a_record_is_found_by_its_doi_and_by_that_of_all_versions(server: &Server) {
    let id = server.record(&unique("doi"), &[("a", b"1")]);
    let record = server.owner.record(&id).unwrap();
    let doi = record.doi().unwrap().to_owned();
    let concept = record.document()["parent"]["pids"]["doi"]["identifier"]
        .as_str()
        .unwrap()
        .to_owned();
    eventually("it is found by its DOI", || {
        server.guest.record_by_doi(&doi).is_ok_and(|found| found.id == id)
    });
    assert_eq!(server.guest.record_by_doi(&doi.to_uppercase()).unwrap().id, id);
    assert_eq!(server.guest.record_by_doi(&concept).unwrap().id, id);
    let next = server.owner.new_version(&id).unwrap().id;
    server.owner.import_files(&next).unwrap();
    server
        .owner
        .update_draft(&next, &crate::server::document("Version two"), None)
        .unwrap();
    server.owner.publish(&next).unwrap();
    eventually("the latest is found by the DOI of all", || {
        server
            .guest
            .record_by_doi(&concept)
            .is_ok_and(|found| found.id == next)
    });
    assert_eq!(
        server.guest.record_by_doi(&doi).unwrap().id,
        id,
        "the first keeps its own"
    );
}

fn an_unknown_doi_is_not_found(server: &Server) {
    for doi in ["10.5072/no-such-one1", "10.5072/\" OR *:*", "no doi", "10.5072/"] {
        assert_eq!(
            server.guest.record_by_doi(doi).unwrap_err().kind(),
            Kind::NotFound,
            "{doi}"
        );
    }
}

crate::on_both![
    a_query_is_searched_as_typed,
    what_a_search_refuses_comes_with_the_servers_words,
    a_record_is_found_by_its_doi_and_by_that_of_all_versions,
    an_unknown_doi_is_not_found,
];
