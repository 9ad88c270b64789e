//! What commands tell a mount of: the tree shows at once what they changed, wherever it is found.

use std::fs;
use std::path::Path;

use rdm_sandbox::{ALICE, NewRecord, Sandbox};
use rdmfs::repository::model::RecordId;
use serde_json::Value;

use crate::communities::make;
use crate::control::done;
use crate::support::{Mount, elsewhere, errno, how, names, until};

/// A mount in which nothing is asked for again by itself.
fn patient(sandbox: &Sandbox) -> Mount {
    how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--metadata-ttl", "1h", "--draft-ttl", "1h"])
        .start()
}

#[test]
fn a_new_version_is_shown_at_once_wherever_the_record_is_found() {
    let sandbox = Sandbox::start();
    let first = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let concept = sandbox.concept_of(&first);
    let second = sandbox.draft(NewRecord::titled("Snow").file("a", "2").version_of(&first));
    let repository = elsewhere(&sandbox);
    let doi = |id: &str| {
        let record = repository.record(&RecordId::new(id).unwrap()).unwrap();
        record.doi().unwrap().to_owned()
    };
    let expected_doi = doi(&first).replace(&first, &second);

    let mount = patient(&sandbox);
    let versions = mount.path(format!("records/{first}/versions"));
    let link = |path: &str| fs::read_link(mount.path(path)).unwrap();
    let folders = ["search/snow", "user/records"].map(|path| mount.path(path));
    assert_eq!(names(&versions), ["1", "latest"]);
    assert_eq!(
        fs::read_link(versions.join("latest")).unwrap(),
        Path::new(&format!("../../{first}"))
    );
    assert_eq!(errno(fs::symlink_metadata(versions.join("2"))), libc::ENOENT);
    assert_eq!(link(&format!("records/{concept}")), Path::new(&first));
    assert_eq!(
        errno(fs::symlink_metadata(mount.path(format!("doi/{expected_doi}")))),
        libc::ENOENT
    );
    for folder in &folders {
        names(folder);
        assert_eq!(errno(fs::symlink_metadata(folder.join(&second))), libc::ENOENT);
    }
    assert!(!names(&mount.path("records")).contains(&second));

    repository.publish(&RecordId::new(&second).unwrap()).unwrap();
    assert_eq!(doi(&second), expected_doi);
    done(&mount, &format!("refresh records/{second}"));

    assert_eq!(names(&versions), ["1", "2", "latest"]);
    for name in ["2", "latest"] {
        let target = fs::read_link(versions.join(name)).unwrap();
        assert_eq!(target, Path::new(&format!("../../{second}")), "{name}");
    }
    assert_eq!(link(&format!("records/{concept}")), Path::new(&second));
    assert_eq!(
        link(&format!("doi/{expected_doi}")),
        Path::new(&format!("../../records/{second}"))
    );
    for folder in &folders {
        assert!(fs::symlink_metadata(folder.join(&second)).is_ok(), "{folder:?}");
        assert_eq!(names(folder), [second.as_str()], "{folder:?}");
    }
    assert!(names(&mount.path("records")).contains(&second));
}

#[test]
fn what_an_index_that_lags_says_after_a_change_counts_for_a_moment_alone() {
    let sandbox = Sandbox::start();
    let mount = patient(&sandbox);
    assert!(names(&mount.path("search/snow")).is_empty());
    sandbox.knobs(|knobs| knobs.index_delay = std::time::Duration::from_secs(1));
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    done(&mount, &format!("refresh records/{id}"));
    until("the search shows it", || {
        names(&mount.path("search/snow")) == [id.as_str()]
    });
    until("and so does the list of the newest", || {
        names(&mount.path("records")).contains(&id)
    });
}

#[test]
fn other_forms_of_a_changed_record_are_fetched_anew() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = patient(&sandbox);
    let form = mount.path(format!("records/{id}/exports/citation.bib"));
    assert!(fs::read_to_string(&form).unwrap().contains("Snow"));
    let repository = elsewhere(&sandbox);
    let record = RecordId::new(&id).unwrap();
    let draft = repository.edit(&record).unwrap();
    let mut document = Value::Object(draft.document().clone());
    document["metadata"]["title"] = "A far longer title than before".into();
    repository.update_draft(&record, &document, None).unwrap();
    repository.publish(&record).unwrap();
    done(&mount, &format!("refresh records/{id}"));
    let text = fs::read_to_string(&form).unwrap();
    assert!(text.contains("far longer title"), "{text}");
    assert_eq!(fs::metadata(&form).unwrap().len(), text.len() as u64);
    let text = fs::read_to_string(mount.path(format!("records/{id}/record.json"))).unwrap();
    assert!(text.contains("far longer title"), "{text}");
}

#[test]
fn a_community_that_was_made_or_dropped_elsewhere_comes_and_goes_at_once() {
    let sandbox = Sandbox::start();
    let mount = patient(&sandbox);
    let folder = mount.path("communities/snow");
    assert_eq!(errno(fs::metadata(&folder)), libc::ENOENT);
    assert!(names(&mount.path("user/communities")).is_empty());
    make(&sandbox, "snow");
    done(&mount, "refresh communities/snow");
    assert!(fs::metadata(folder.join("community.json")).is_ok());
    assert_eq!(names(&mount.path("user/communities")), ["snow"]);
    assert!(fs::metadata(mount.path("user/communities/snow")).is_ok());
    let repository = elsewhere(&sandbox);
    let community = repository.community("snow").unwrap().id;
    repository.delete_community(&community).unwrap();
    done(&mount, "refresh communities/snow");
    assert_eq!(errno(fs::metadata(&folder)), libc::ENOENT);
    assert!(names(&mount.path("user/communities")).is_empty());
}
