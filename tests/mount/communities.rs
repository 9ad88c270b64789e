//! `communities/`.

use std::fs;
use std::path::Path;

use rdm_sandbox::{NewRecord, Sandbox};
use rdmfs::repository::model::RecordId;
use serde_json::{Value, json};

use crate::support::{elsewhere, errno, mount, names};

pub fn make(sandbox: &Sandbox, slug: &str) {
    let document = json!({
        "slug": slug,
        "metadata": {"title": format!("Community {slug}"), "description": "About it", "type": {"id": "project"}},
        "access": {"visibility": "public", "review_policy": "open"},
    });
    elsewhere(sandbox).create_community(&document).unwrap();
}

#[test]
fn a_community_holds_its_document_its_logo_and_links_to_its_records() {
    let sandbox = Sandbox::start();
    make(&sandbox, "snow");
    make(&sandbox, "sand");
    let repository = elsewhere(&sandbox);
    repository
        .set_community_logo("snow", b"a picture".to_vec())
        .unwrap();
    let id = sandbox.publish(NewRecord::titled("Flakes").file("a", "white"));
    let other = sandbox.publish(NewRecord::titled("Dunes").file("a", "yellow"));
    let community = repository.community("snow").unwrap().id;
    repository
        .submit_to_communities(&RecordId::new(&id).unwrap(), &[community.as_str()], None)
        .unwrap();
    let mount = mount(&sandbox);
    assert_eq!(names(&mount.path("communities")), ["sand", "snow"]);
    let folder = mount.path("communities/snow");
    assert_eq!(names(&folder), ["community.json", "logo", "records"]);
    let text = fs::read_to_string(folder.join("community.json")).unwrap();
    assert_eq!(
        fs::metadata(folder.join("community.json")).unwrap().len(),
        text.len() as u64
    );
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["metadata"]["title"], "Community snow");
    let logo = fs::File::open(folder.join("logo")).unwrap();
    assert_eq!(logo.metadata().unwrap().len(), 9);
    assert_eq!(fs::read(folder.join("logo")).unwrap(), b"a picture");
    assert_eq!(names(&folder.join("records")), [id.as_str()]);
    assert_eq!(
        fs::read_link(folder.join("records").join(&id)).unwrap(),
        Path::new(&format!("../../../records/{id}"))
    );
    let file = folder.join("records").join(&id).join("files/a");
    assert_eq!(fs::read_to_string(file).unwrap(), "white");
    assert!(fs::symlink_metadata(folder.join("records").join(other)).is_err());
}

#[test]
fn without_a_logo_there_is_none_to_open_and_then_none_listed() {
    let sandbox = Sandbox::start();
    make(&sandbox, "snow");
    let mount = mount(&sandbox);
    let folder = mount.path("communities/snow");
    assert_eq!(errno(fs::read(folder.join("logo"))), libc::ENOENT);
    assert_eq!(names(&folder), ["community.json", "records"]);
}

#[test]
fn the_first_pages_are_listed_and_any_slug_opens() {
    let sandbox = Sandbox::start();
    for number in 0..230 {
        make(&sandbox, &format!("c{number:03}"));
    }
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let listed = names(&mount.path("communities"));
    assert_eq!(listed.len(), 200);
    assert_eq!(sandbox.total(), 2, "{:?}", sandbox.counts());
    for listed in &listed {
        assert!(
            mount
                .path("communities")
                .join(listed)
                .join("community.json")
                .exists()
        );
    }
    assert_eq!(
        sandbox.total(),
        2,
        "they came with the pages: {:?}",
        sandbox.counts()
    );
    for number in 0..230 {
        assert!(mount.path(format!("communities/c{number:03}")).is_dir());
    }
    assert_eq!(sandbox.total(), 2 + 30, "{:?}", sandbox.counts());
    for name in ["nothing", ".git", "desktop.ini", "a%2fb"] {
        assert_eq!(
            errno(fs::metadata(mount.path("communities").join(name))),
            libc::ENOENT
        );
    }
    assert_eq!(sandbox.total(), 2 + 31, "only what may be a slug is asked for");
}
