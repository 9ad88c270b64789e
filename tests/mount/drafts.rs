//! Drafts as folders: made, named and discarded with mkdir, mv and rm.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rdm_sandbox::{ALICE, NewRecord, Route, Sandbox};
use serde_json::Value;

use crate::support::{draft, errno, how, keys, mount, mount_again, names, on_server, settled, shell, stored};

/// The id of the draft in a folder, as its `record.json` tells.
fn id_of(folder: &Path) -> String {
    let document: Value = serde_json::from_slice(&fs::read(folder.join("record.json")).unwrap()).unwrap();
    document["id"].as_str().unwrap().to_owned()
}

#[test]
fn mkdir_with_a_title_makes_a_draft_that_is_listed_under_it_until_unmounting() {
    let sandbox = Sandbox::start();
    let first = mount(&sandbox);
    let titled = first.path("drafts/Ozone 2024");
    fs::create_dir(&titled).unwrap();
    assert_eq!(names(&first.path("drafts")), ["Ozone 2024"]);
    assert_eq!(names(&titled), ["record.json"]);
    let id = id_of(&titled);
    assert_eq!(on_server(&sandbox, &id)["metadata"]["title"], "Ozone 2024");
    fs::write(titled.join("a.csv"), "1").unwrap();
    assert_eq!(stored(&sandbox, &id, "a.csv").unwrap(), b"1");
    // Its id opens it too.
    assert_eq!(
        fs::read(first.path("drafts").join(&id).join("a.csv")).unwrap(),
        b"1"
    );
    assert_eq!(names(&first.path("drafts")), ["Ozone 2024"]);
    let second = mount_again(&sandbox, first.unmount(&[]));
    assert_eq!(names(&second.path("drafts")), [id.as_str()]);
    assert_eq!(
        errno(fs::metadata(second.path("drafts/Ozone 2024"))),
        libc::ENOENT
    );
}

#[test]
fn what_is_no_title_makes_no_draft() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    for (name, expected) in [
        ("ab", libc::EINVAL),
        (" Ozone", libc::EINVAL),
        (".git", libc::EPERM),
        (".Trash-1000", libc::EPERM),
        (".ozone", libc::EPERM),
    ] {
        let made = fs::create_dir(mount.path("drafts").join(name));
        assert_eq!(errno(made), expected, "{name}");
    }
    assert_eq!(errno(fs::create_dir(mount.path("new"))), libc::EPERM);
    assert_eq!(errno(fs::create_dir(mount.path("records/new"))), libc::EROFS);
    assert_eq!(sandbox.count(Route::CreateDraft), 0);
    assert!(names(&mount.path("drafts")).is_empty());
}

#[test]
fn mkdir_with_the_id_of_a_record_begins_to_edit_it_and_rmdir_ends_that() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "published"));
    let mount = mount(&sandbox);
    let folder = mount.path("drafts").join(&id);
    assert_eq!(errno(fs::metadata(&folder)), libc::ENOENT);
    fs::create_dir(&folder).unwrap();
    assert_eq!(sandbox.count(Route::EditRecord), 1);
    assert_eq!(names(&mount.path("drafts")), [id.as_str()]);
    assert_eq!(fs::read(folder.join("a")).unwrap(), b"published");
    fs::write(
        folder.join("record.json"),
        r#"{"metadata": {"title": "Snow, edited"}}"#,
    )
    .unwrap();
    assert_eq!(on_server(&sandbox, &id)["metadata"]["title"], "Snow, edited");
    fs::remove_dir(&folder).unwrap();
    assert_eq!(sandbox.count(Route::DeleteDraft), 1);
    assert!(names(&mount.path("drafts")).is_empty());
    let record = mount.path("records").join(&id);
    let text = fs::read_to_string(record.join("record.json")).unwrap();
    assert!(text.contains("\"Snow\""), "{text}");
    assert_eq!(fs::read(record.join("files/a")).unwrap(), b"published");
    assert_eq!(sandbox.record_file(&id, "a").unwrap().bytes(), b"published");
}

#[test]
fn a_draft_that_is_there_is_eexist_and_an_id_that_is_not_enoent() {
    let (sandbox, draft, mount) = draft();
    fs::create_dir(mount.path("drafts/Ozone")).unwrap();
    sandbox.reset_counts();
    let make = |name: &str| errno(fs::create_dir(mount.path("drafts").join(name)));
    assert_eq!(make(&draft), libc::EEXIST);
    assert_eq!(make("Ozone"), libc::EEXIST);
    assert_eq!(make("abcde-12345"), libc::ENOENT, "a slip in an id is no title");
    assert_eq!(sandbox.count(Route::CreateDraft), 0);
}

#[test]
fn a_read_only_mount_makes_and_discards_no_draft() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--read-only"])
        .start();
    let drafts = mount.path("drafts");
    assert_eq!(errno(fs::create_dir(drafts.join("Ozone"))), libc::EROFS);
    assert_eq!(errno(fs::remove_dir(drafts.join(&draft))), libc::EROFS);
    assert_eq!(
        errno(fs::rename(drafts.join(&draft), drafts.join("Ozone"))),
        libc::EROFS
    );
    assert_eq!(names(&drafts), [draft.as_str()]);
}

#[test]
fn renaming_a_draft_changes_its_title() {
    let (sandbox, draft, mount) = draft();
    let drafts = mount.path("drafts");
    fs::rename(drafts.join(&draft), drafts.join("Ozone 2024")).unwrap();
    assert_eq!(on_server(&sandbox, &draft)["metadata"]["title"], "Ozone 2024");
    assert_eq!(
        on_server(&sandbox, &draft)["metadata"]["publisher"],
        "Example Repository"
    );
    fs::rename(drafts.join("Ozone 2024"), drafts.join("Ozone 2025")).unwrap();
    assert_eq!(on_server(&sandbox, &draft)["metadata"]["title"], "Ozone 2025");
    assert_eq!(names(&drafts), ["Ozone 2025"]);
    assert_eq!(errno(fs::metadata(drafts.join("Ozone 2024"))), libc::ENOENT);
    assert_eq!(names(&drafts.join("Ozone 2025")), ["record.json"]);
    assert_eq!(names(&drafts.join(&draft)), ["record.json"]);
    let text = fs::read_to_string(drafts.join("Ozone 2025/record.json")).unwrap();
    assert!(text.contains("Ozone 2025"), "{text}");
}

#[test]
fn a_draft_is_not_renamed_to_what_is_no_title_or_is_there() {
    let (sandbox, draft, mount) = draft();
    let drafts = mount.path("drafts");
    fs::create_dir(drafts.join("Ozone")).unwrap();
    let rename = |to: &str| errno(fs::rename(drafts.join(&draft), drafts.join(to)));
    assert_eq!(rename("Ozone"), libc::EEXIST);
    assert_eq!(rename("ab"), libc::EINVAL);
    assert_eq!(rename(".hidden"), libc::EPERM);
    assert_eq!(
        errno(fs::rename(drafts.join(&draft), mount.path("x"))),
        libc::EPERM
    );
    assert_eq!(on_server(&sandbox, &draft)["metadata"]["title"], "Draft");
    assert_eq!(sandbox.count(Route::PutDraft), 0);
}

#[test]
fn rmdir_discards_a_draft_without_files_and_no_other() {
    let sandbox = Sandbox::start();
    let empty = sandbox.draft(NewRecord::titled("Empty"));
    let full = sandbox.draft(NewRecord::titled("Full").file("a", "1"));
    let mount = mount(&sandbox);
    let drafts = mount.path("drafts");
    assert_eq!(errno(fs::remove_dir(drafts.join(&full))), libc::ENOTEMPTY);
    fs::remove_dir(drafts.join(&empty)).unwrap();
    assert_eq!(names(&drafts), [full.as_str()]);
    assert_eq!(errno(fs::metadata(drafts.join(&empty))), libc::ENOENT);
    assert_eq!(sandbox.count(Route::DeleteDraft), 1);
    let unsent = File::create(drafts.join(&full).join("b")).unwrap();
    fs::remove_file(drafts.join(&full).join("a")).unwrap();
    assert_eq!(
        errno(fs::remove_dir(drafts.join(&full))),
        libc::ENOTEMPTY,
        "what is not sent counts too"
    );
    drop(unsent);
    for path in ["drafts", "records", ".rdmfs"] {
        assert_eq!(errno(fs::remove_dir(mount.path(path))), libc::EPERM, "{path}");
    }
}

#[test]
fn rm_r_discards_a_draft_with_all_that_is_in_it() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1").file("d/b", "2"));
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&draft);
    fs::write(path.join("new"), "3").unwrap();
    fs::write(path.join("new~"), "junk").unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    shell(&format!("rm -r {}", path.display()));
    assert_eq!(sandbox.count(Route::DeleteDraft), 1);
    assert!(names(&mount.path("drafts")).is_empty());
    settled(&mount);
    let left = fs::read_dir(mount.status().staging.join("data")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn the_document_of_a_draft_with_files_cannot_be_removed() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&draft).join("record.json");
    assert_eq!(errno(fs::remove_file(&path)), libc::EPERM);
    assert!(fs::metadata(&path).unwrap().len() > 0);
    // In one without, removing it is a step to discarding the draft; writing it again is a step back.
    fs::remove_file(path.with_file_name("a")).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(names(path.parent().unwrap()).is_empty());
    fs::write(&path, r#"{"metadata": {"title": "Not discarded"}}"#).unwrap();
    assert_eq!(on_server(&sandbox, &draft)["metadata"]["title"], "Not discarded");
    assert_eq!(names(path.parent().unwrap()), ["record.json"]);
}

#[test]
fn rm_r_of_an_edit_stops_at_the_files_of_the_record() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "published"));
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&id);
    fs::create_dir(&path).unwrap();
    let removed = Command::new("rm").arg("-r").arg(&path).output().unwrap();
    assert!(!removed.status.success());
    assert_eq!(sandbox.record_file(&id, "a").unwrap().bytes(), b"published");
    assert_eq!(names(&path), ["a", "record.json"]);
}

#[test]
fn a_folder_copied_into_drafts_is_a_draft_with_its_files() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    let source = mount.local("Snow depths");
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("a.csv"), "1").unwrap();
    fs::write(source.join("d/b.csv"), "2").unwrap();
    shell(&format!(
        "cp -r '{}' {}/",
        source.display(),
        mount.path("drafts").display()
    ));
    let folder = mount.path("drafts/Snow depths");
    let id = id_of(&folder);
    assert_eq!(keys(&sandbox, &id), ["a.csv", "d/b.csv"]);
    assert_eq!(on_server(&sandbox, &id)["metadata"]["title"], "Snow depths");
    shell(&format!(
        "diff -r -x record.json '{}' '{}'",
        source.display(),
        folder.display()
    ));
}

#[test]
fn a_draft_into_which_somebody_else_put_a_file_is_not_discarded() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mine = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--draft-ttl", "1h"])
        .start();
    let folder = mine.path("drafts").join(&draft);
    assert_eq!(names(&folder), ["record.json"]);
    let theirs = mount(&sandbox);
    fs::write(theirs.path("drafts").join(&draft).join("a.csv"), "1").unwrap();
    assert_eq!(errno(fs::remove_dir(&folder)), libc::ENOTEMPTY);
    assert_eq!(stored(&sandbox, &draft, "a.csv").unwrap(), b"1");
}
