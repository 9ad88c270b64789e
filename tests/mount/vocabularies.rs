//! `vocabularies/`.

use std::fs;

use rdm_sandbox::Sandbox;
use serde_json::Value;

use crate::support::{elsewhere, errno, mount, names};

#[test]
fn the_words_of_each_type_are_documents_by_their_ids() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    let mut types: Vec<String> = elsewhere(&sandbox)
        .vocabulary_types()
        .unwrap()
        .into_iter()
        .map(|kind| kind.name)
        .collect();
    types.sort();
    assert_eq!(names(&mount.path("vocabularies")), types);
    sandbox.reset_counts();
    let folder = mount.path("vocabularies/languages");
    let listed = names(&folder);
    assert!(listed.contains(&"eng.json".to_owned()), "{listed:?}");
    for name in &listed {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(fs::metadata(folder.join(name)).unwrap().len(), text.len() as u64);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{}.json", document["id"].as_str().unwrap()), *name);
    }
    assert_eq!(sandbox.total(), 1, "one page: {:?}", sandbox.counts());
}

#[test]
fn any_id_opens_and_what_is_none_does_not() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    let path = mount.path("vocabularies/licenses/cc-by-4.0.json");
    let document: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!(document["id"], "cc-by-4.0");
    for path in [
        "vocabularies/nothing",
        "vocabularies/languages/eng",
        "vocabularies/languages/klingon.json",
        "vocabularies/languages/.git",
        "vocabularies/languages/%2e.json",
    ] {
        assert_eq!(errno(fs::metadata(mount.path(path))), libc::ENOENT, "{path}");
    }
}

#[test]
fn vocabularies_with_endpoints_of_their_own_are_folders_like_the_others() {
    let sandbox = Sandbox::start();
    let (listing, opening) = (mount(&sandbox), mount(&sandbox));
    for kind in ["affiliations", "awards", "funders", "names", "subjects"] {
        let folder = listing.path("vocabularies").join(kind);
        let listed = names(&folder);
        assert!(!listed.is_empty(), "{kind}");
        for name in &listed {
            let document: Value = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
            let id = document["id"].as_str().unwrap();
            assert_eq!(format!("{}.json", id.replace('/', "%2F")), *name);
            // Where nothing was listed, it opens all the same.
            let alone = opening.path("vocabularies").join(kind).join(name);
            let alone: Value = serde_json::from_slice(&fs::read(alone).unwrap()).unwrap();
            assert_eq!(alone["id"], id);
        }
    }
}
