//! `user/`.

use std::fs;
use std::path::Path;

use rdm_sandbox::{NewRecord, Sandbox};
use rdmfs::repository::model::RecordId;
use serde_json::json;

use crate::support::{elsewhere, errno, how, mount, names};

#[test]
fn the_users_own_published_records_are_links() {
    let sandbox = Sandbox::start();
    let own = sandbox.publish(NewRecord::titled("Snow").file("a", "mine"));
    let edited = sandbox.publish(NewRecord::titled("Sand").file("a", "1"));
    let other = sandbox.publish(NewRecord::titled("Rain").owner("bob").file("a", "1"));
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    elsewhere(&sandbox)
        .edit(&RecordId::new(&edited).unwrap())
        .unwrap();
    let mount = mount(&sandbox);
    assert_eq!(names(&mount.path("user")), ["communities", "records"]);
    let folder = mount.path("user/records");
    let mut expected = [own.as_str(), edited.as_str()];
    expected.sort_unstable();
    assert_eq!(names(&folder), expected);
    assert_eq!(
        fs::read_link(folder.join(&own)).unwrap(),
        Path::new(&format!("../../records/{own}"))
    );
    assert_eq!(
        fs::read_to_string(folder.join(&own).join("files/a")).unwrap(),
        "mine"
    );
    for id in [other, draft] {
        assert_eq!(errno(fs::symlink_metadata(folder.join(id))), libc::ENOENT);
    }
}

#[test]
fn the_users_communities_are_links() {
    let sandbox = Sandbox::start();
    let document = json!({
        "slug": "snow",
        "metadata": {"title": "Snow", "description": "About it", "type": {"id": "project"}},
        "access": {"visibility": "public"},
    });
    elsewhere(&sandbox).create_community(&document).unwrap();
    let mount = mount(&sandbox);
    let folder = mount.path("user/communities");
    assert_eq!(names(&folder), ["snow"]);
    assert_eq!(
        fs::read_link(folder.join("snow")).unwrap(),
        Path::new("../../communities/snow")
    );
    assert!(folder.join("snow/community.json").exists());
}

#[test]
fn without_a_token_they_are_empty_and_nobody_is_asked() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let guest = how(&sandbox.url()).start();
    sandbox.reset_counts();
    for folder in ["user/records", "user/communities"] {
        assert!(names(&guest.path(folder)).is_empty());
        assert!(fs::symlink_metadata(guest.path(folder).join(&id)).is_err());
    }
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.requests());
}
