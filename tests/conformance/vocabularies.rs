//! Vocabularies: their types, searches in them, single words.

use rdmfs::error::Kind;
use rdmfs::repository::Search;

use crate::server::Server;

fn sized(size: u32) -> Search {
    Search {
        size,
        ..Search::default()
    }
}

fn the_types_are_listed_and_each_can_be_searched(server: &Server) {
    let types = server.owner.vocabulary_types().unwrap();
    for name in [
        "languages",
        "licenses",
        "resourcetypes",
        "affiliations",
        "subjects",
        "names",
        "funders",
        "awards",
        "communitytypes",
        "titletypes",
    ] {
        assert!(types.iter().any(|kind| kind.name == name), "{name}");
    }
    for kind in types {
        let found = server.owner.vocabulary(&kind.name, &sized(2)).unwrap();
        assert!(found.items.len() <= 2);
        if let Some(count) = kind.count {
            assert_eq!(found.total, count, "{}", kind.name);
        }
        for term in &found.items {
            assert!(!term.id.is_empty());
            let read = server.owner.term(&kind.name, &term.id).unwrap();
            assert_eq!((&read.id, &read.title), (&term.id, &term.title));
        }
    }
}

fn pages_of_a_vocabulary_follow_each_other(server: &Server) {
    let mut ids = Vec::new();
    let mut search = sized(10);
    loop {
        let page = server.guest.vocabulary("resourcetypes", &search).unwrap();
        ids.extend(page.items.into_iter().map(|term| term.id));
        if !page.has_next {
            assert_eq!(ids.len() as u64, page.total);
            break;
        }
        search.page += 1;
    }
    ids.sort();
    ids.dedup();
    assert!(ids.len() > 20 && ids.contains(&"dataset".to_owned()), "{ids:?}");
}

fn a_word_is_read_by_its_id(server: &Server) {
    let term = server.guest.term("licenses", "cc-by-4.0").unwrap();
    assert_eq!(term.title, "Creative Commons Attribution 4.0 International");
    assert_eq!(term.document["props"]["scheme"], "spdx");
    let term = server.guest.term("affiliations", "01ggx4157").unwrap();
    assert_eq!(term.title, "European Organization for Nuclear Research");
}

fn an_id_that_is_an_address_is_one_id(server: &Server) {
    let found = server.guest.vocabulary("subjects", &sized(25)).unwrap();
    let term = found.items.iter().find(|term| term.id.contains("://")).unwrap();
    assert!(term.id.contains('/') && term.id.contains('?'), "{}", term.id);
    let read = server.guest.term("subjects", &term.id).unwrap();
    assert_eq!((&read.id, &read.title), (&term.id, &term.title));
}

fn unknown_types_and_words_are_not_found(server: &Server) {
    for (kind, id) in [
        ("licenses", "nope"),
        ("nope", "nope"),
        ("subjects", "http://nowhere/x?y"),
        ("licenses", ".."),
        ("..", "records"),
        ("subjects", "../records"),
        ("languages", ""),
    ] {
        let error = server.guest.term(kind, id).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "{kind} {id}: {error}");
    }
    let error = server.guest.vocabulary("nope", &sized(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

fn typing_is_completed_and_not_searched_at_once(server: &Server) {
    let suggest = Search::typed("?suggest=creative&size=5").unwrap();
    let found = server.guest.vocabulary("licenses", &suggest).unwrap();
    assert!(
        found.items.iter().any(|term| term.id.starts_with("cc")),
        "{found:?}"
    );
    let both = Search::typed("?suggest=cc&q=cc").unwrap();
    let error = server.guest.vocabulary("licenses", &both).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
}

fn names_are_not_for_guests(server: &Server) {
    // Version 12 shows them to all.
    match server.guest.vocabulary("names", &sized(1)) {
        Ok(_) => assert!(server.sandbox.is_none()),
        Err(error) => assert_eq!(error.kind(), Kind::Denied),
    }
    let found = server.owner.vocabulary("names", &sized(1)).unwrap();
    assert_eq!(found.items[0].title, "Carberry, Josiah");
}

crate::on_both![
    the_types_are_listed_and_each_can_be_searched,
    pages_of_a_vocabulary_follow_each_other,
    a_word_is_read_by_its_id,
    an_id_that_is_an_address_is_one_id,
    unknown_types_and_words_are_not_found,
    typing_is_completed_and_not_searched_at_once,
    names_are_not_for_guests,
];
