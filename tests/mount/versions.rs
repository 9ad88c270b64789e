//! `records/<id>/versions/`.

use std::fs;
use std::path::Path;

use rdm_sandbox::{NewRecord, Route, Sandbox};

use crate::support::{errno, mount, names};

fn three(sandbox: &Sandbox) -> [String; 3] {
    let first = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let second = sandbox.publish(NewRecord::titled("Snow").file("a", "2").version_of(&first));
    let third = sandbox.publish(NewRecord::titled("Snow").file("a", "3").version_of(&first));
    [first, second, third]
}

#[test]
fn every_version_is_a_link_and_so_is_the_latest() {
    let sandbox = Sandbox::start();
    let ids = three(&sandbox);
    let mount = mount(&sandbox);
    for id in &ids {
        let versions = mount.path(format!("records/{id}/versions"));
        assert_eq!(names(&versions), ["1", "2", "3", "latest"]);
        for (number, other) in ids.iter().enumerate() {
            let link = versions.join((number + 1).to_string());
            assert_eq!(fs::read_link(&link).unwrap(), Path::new("../..").join(other));
            let text = fs::read_to_string(link.join("files/a")).unwrap();
            assert_eq!(text, (number + 1).to_string());
        }
        assert_eq!(fs::read_to_string(versions.join("latest/files/a")).unwrap(), "3");
        for name in ["0", "4", "01", "x", ".git", "+1"] {
            assert_eq!(
                errno(fs::symlink_metadata(versions.join(name))),
                libc::ENOENT,
                "{name}"
            );
        }
    }
}

#[test]
fn versions_are_listed_in_the_latest_and_open_in_all() {
    let sandbox = Sandbox::start();
    let ids = three(&sandbox);
    let mount = mount(&sandbox);
    for (id, is_listed) in ids.iter().zip([false, false, true]) {
        let record = mount.path("records").join(id);
        assert_eq!(names(&record).contains(&"versions".to_owned()), is_listed, "{id}");
        assert!(fs::metadata(record.join("versions")).unwrap().is_dir());
    }
}

#[test]
fn the_versions_of_a_record_known_to_have_one_cost_nothing_and_of_others_one_request() {
    let sandbox = Sandbox::start();
    let single = sandbox.publish(NewRecord::titled("Sand").file("a", "1"));
    let ids = three(&sandbox);
    let mount = mount(&sandbox);
    names(&mount.path("records"));
    sandbox.reset_counts();
    let versions = mount.path(format!("records/{single}/versions"));
    assert_eq!(names(&versions), ["1", "latest"]);
    assert!(fs::symlink_metadata(versions.join("2")).is_err());
    assert_eq!(
        fs::read_link(mount.path(format!("records/{}/versions/latest", ids[2]))).unwrap(),
        Path::new("../..").join(&ids[2])
    );
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.counts());
    let versions = mount.path(format!("records/{}/versions", ids[2]));
    assert_eq!(names(&versions).len(), 4);
    // The others came with the list.
    assert_eq!(fs::read_dir(versions.join("1/files")).unwrap().count(), 1);
    assert_eq!(sandbox.count(Route::Versions), 1);
    assert_eq!(sandbox.total(), 1, "{:?}", sandbox.counts());
}

#[test]
fn a_concept_id_leads_to_the_versions_of_the_latest() {
    let sandbox = Sandbox::start();
    let ids = three(&sandbox);
    let concept = sandbox.concept_of(&ids[0]);
    let mount = mount(&sandbox);
    let link = mount.path("records").join(&concept);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new(&ids[2]));
    assert_eq!(fs::read_to_string(link.join("versions/2/files/a")).unwrap(), "2");
}
