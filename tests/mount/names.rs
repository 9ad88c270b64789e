//! What exists and what it is called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rdm_sandbox::{ALICE, Data, NewRecord, Sandbox};

use crate::support::{errno, how, mount, names};

#[test]
fn the_root_holds_all_that_the_page_names_and_the_hidden_folder() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    assert_eq!(
        names(&mount.path("")),
        [
            ".rdmfs",
            "communities",
            "doi",
            "drafts",
            "records",
            "search",
            "user",
            "vocabularies"
        ]
    );
    assert_eq!(names(&mount.path(".rdmfs")), ["control", "status.json"]);
}

/// The tree in the README: names with those below them. A placeholder and what follows it are cut off.
fn tree_of_the_readme() -> BTreeMap<String, BTreeSet<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = fs::read_to_string(path).unwrap();
    let mut tree: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut top = String::new();
    for line in readme.lines() {
        let name = |line: &str| {
            let name = line.split(' ').next().unwrap();
            name.split(['/', '<']).next().unwrap().to_owned()
        };
        if let Some(line) = line.strip_prefix("├── ").or(line.strip_prefix("└── ")) {
            top = name(line);
            tree.insert(top.clone(), BTreeSet::new());
        } else if let Some(line) = line.strip_prefix("│   ├── ").or(line.strip_prefix("│   └── "))
        {
            tree.get_mut(&top).unwrap().insert(name(line));
        }
    }
    tree
}

#[test]
fn the_tree_in_the_readme_is_what_is_there() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a.zip", "no archive"));
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    let tree = tree_of_the_readme();
    let below: BTreeSet<String> = names(&mount.path("")).into_iter().collect();
    assert_eq!(tree.keys().cloned().collect::<BTreeSet<_>>(), below);
    let below: BTreeSet<String> = names(&mount.path("records").join(&id)).into_iter().collect();
    assert_eq!(tree["records"], below);
    let mut said = tree["drafts"].clone();
    assert!(said.remove("..."), "its files");
    let below: BTreeSet<String> = names(&mount.path("drafts").join(&draft)).into_iter().collect();
    assert_eq!(said, below);
}

#[test]
fn a_record_holds_its_document_and_its_files() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(
        NewRecord::titled("Snow")
            .file("a.csv", "x\n")
            .file("d/e/f.txt", "deep"),
    );
    let mount = mount(&sandbox);
    let record = mount.path("records").join(&id);
    assert_eq!(
        names(&record),
        ["exports", "files", "md5sums.txt", "record.json", "versions"]
    );
    assert_eq!(names(&record.join("files")), ["a.csv", "d"]);
    assert_eq!(
        fs::read_to_string(record.join("files/d/e/f.txt")).unwrap(),
        "deep"
    );
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(record.join("record.json")).unwrap()).unwrap();
    assert_eq!(document["metadata"]["title"], "Snow");
    assert_eq!(document["id"], id.as_str());
}

#[test]
fn every_key_is_shown_under_a_name_that_opens_it() {
    let sandbox = Sandbox::start();
    let keys = [
        "Größe.txt",
        "日本語.csv",
        "e\u{301} decomposed.txt",
        "with space.txt",
        "100%.txt",
        "hash#1.txt",
        "q?x=1.txt",
        "plus+sign.txt",
        "a%2Fb.txt",
        "quote\"'.txt",
        "back\\slash.txt",
        "dir/sub/c.txt",
        "a",
        "a/b",
        " lead",
        "trail ",
        "x/content",
        "x/commit",
    ];
    let record = keys.iter().fold(NewRecord::titled("Names"), |record, key| {
        record.file(key, Data::text(format!("of {key}")))
    });
    let id = sandbox.publish(record);
    let mount = mount(&sandbox);
    let files = mount.path("records").join(&id).join("files");
    for key in keys.iter().filter(|key| **key != "a") {
        assert_eq!(
            fs::read_to_string(files.join(key)).unwrap(),
            format!("of {key}"),
            "{key}"
        );
    }
    // A file beside a folder of its name.
    assert_eq!(fs::read_to_string(files.join("%61")).unwrap(), "of a");
}

#[test]
fn an_id_that_is_not_listed_still_opens() {
    let sandbox = Sandbox::start();
    let old = sandbox.publish(NewRecord::titled("The first").file("a", "1"));
    for number in 0..30 {
        sandbox.publish(NewRecord::titled(&format!("Number {number}")).file("a", "1"));
    }
    let mount = mount(&sandbox);
    let records = mount.path("records");
    assert_eq!(names(&records).len(), 25, "the newest page");
    assert!(!names(&records).contains(&old));
    assert_eq!(
        fs::read_to_string(records.join(&old).join("files/a")).unwrap(),
        "1"
    );
    assert!(names(&records).contains(&old), "what was used is listed");
}

#[test]
fn a_concept_id_is_a_link_to_the_latest_version() {
    let sandbox = Sandbox::start();
    let samples = sandbox.seed_samples();
    let mount = mount(&sandbox);
    let link = mount.path("records").join(&samples.concept_of_three);
    assert_eq!(
        fs::read_link(&link).unwrap().to_str().unwrap(),
        samples.three_versions[2]
    );
    assert!(names(&link.join("files")).contains(&"only-in-v3.txt".to_owned()));
}

#[test]
fn what_is_not_there_is_enoent() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let draft = sandbox.draft(NewRecord::titled("Draft").file("b", "1"));
    let mount = mount(&sandbox);
    for path in [
        "nothing".to_owned(),
        "records/zzzzz-99999".to_owned(),
        format!("records/{draft}"),
        format!("drafts/{id}"),
        format!("records/{id}/nothing"),
        format!("records/{id}/files/b"),
        format!("drafts/{draft}/a"),
    ] {
        assert_eq!(errno(fs::metadata(mount.path(&path))), libc::ENOENT, "{path}");
    }
    assert_eq!(
        errno(fs::read_dir(mount.path(format!("records/{id}/files/a")))),
        libc::ENOTDIR
    );
}

#[test]
fn a_metadata_only_record_has_an_empty_files_folder() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Only words").metadata_only());
    let mount = mount(&sandbox);
    assert!(names(&mount.path(format!("records/{id}/files"))).is_empty());
}

#[test]
fn restricted_things_are_eacces_for_strangers_and_open_for_their_owner() {
    let sandbox = Sandbox::start();
    let record = sandbox.publish(NewRecord::titled("Secret").restricted().file("a", "1"));
    let files = sandbox.publish(NewRecord::titled("Half secret").restricted_files().file("a", "1"));
    let stranger = how(&sandbox.url()).start();
    assert_eq!(
        errno(fs::metadata(stranger.path(format!("records/{record}")))),
        libc::EACCES
    );
    assert!(fs::metadata(stranger.path(format!("records/{files}/record.json"))).is_ok());
    assert_eq!(
        errno(fs::read_dir(stranger.path(format!("records/{files}/files")))),
        libc::EACCES
    );
    assert_eq!(
        errno(fs::read(stranger.path(format!("records/{files}/files/a")))),
        libc::EACCES
    );
    let owner = how(&sandbox.url()).token(ALICE).start();
    for id in [record, files] {
        assert_eq!(
            fs::read_to_string(owner.path(format!("records/{id}/files/a"))).unwrap(),
            "1"
        );
    }
}

#[test]
fn without_a_token_there_are_no_drafts() {
    let sandbox = Sandbox::start();
    sandbox.draft(NewRecord::titled("Mine"));
    let mount = how(&sandbox.url()).start();
    assert!(names(&mount.path("drafts")).is_empty());
}

#[test]
fn drafts_list_new_ones_and_edits_of_published_records() {
    let sandbox = Sandbox::start();
    let samples = sandbox.seed_samples();
    let mount = mount(&sandbox);
    let mut expected = vec![samples.draft.clone(), samples.empty_draft.clone()];
    expected.sort();
    assert_eq!(names(&mount.path("drafts")), expected);
    assert_eq!(
        names(&mount.path("drafts").join(&samples.draft)),
        ["draft.txt", "record.json"]
    );
}

#[test]
fn times_are_the_servers() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(mount.path(format!("records/{id}/record.json"))).unwrap()).unwrap();
    let time = |name: &str| rdmfs::repository::model::parse_time(document[name].as_str().unwrap()).unwrap();
    let modified = |path: &str| {
        fs::metadata(mount.path(format!("records/{id}/{path}")))
            .unwrap()
            .modified()
            .unwrap()
    };
    assert_eq!(modified("record.json"), time("updated"));
    assert_eq!(modified("files/a"), time("created"));
}

#[test]
fn the_document_is_the_same_from_a_listing_and_by_itself() {
    let sandbox = Sandbox::start();
    let samples = sandbox.seed_samples();
    let listed = mount(&sandbox);
    names(&listed.path("records"));
    let direct = mount(&sandbox);
    for id in [
        &samples.csv,
        &samples.nested,
        &samples.three_versions[2],
        &samples.metadata_only,
    ] {
        let path = format!("records/{id}/record.json");
        let text = fs::read_to_string(listed.path(&path)).unwrap();
        assert_eq!(text, fs::read_to_string(direct.path(&path)).unwrap());
        assert_eq!(fs::metadata(listed.path(&path)).unwrap().len(), text.len() as u64);
    }
}
