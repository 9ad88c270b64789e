//! `record.json` of a draft: saving it changes the draft's metadata, and loses nobody's work.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rdm_sandbox::{ALICE, Effect, Fault, NewRecord, Route, Sandbox};
use rdmfs::repository::model::RecordId;
use rdmfs::status::UploadState;
use serde_json::{Value, json};

use crate::support::{
    Mount, close, elsewhere, errno, hasty, how, mount, mount_again, names, on_server, settled, shell, until,
};

/// A mount of a new sandbox with a draft, and the path of its `record.json`.
fn described() -> (Sandbox, String, Mount, PathBuf) {
    described_in(mount)
}

fn described_in(mounted: fn(&Sandbox) -> Mount) -> (Sandbox, String, Mount, PathBuf) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(
        NewRecord::titled("The old title")
            .description("What it is about")
            .file("a", "1")
            .default_preview("a"),
    );
    let mount = mounted(&sandbox);
    let path = mount.path("drafts").join(&draft).join("record.json");
    (sandbox, draft, mount, path)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The document with another title, as a user would have it in an editor.
fn titled(document: &Value, title: &str) -> String {
    let mut document = document.clone();
    document["metadata"]["title"] = title.into();
    format!("{document:#}\n")
}

/// Writes the whole file anew and returns the errno of close(2).
fn save(path: &Path, text: impl AsRef<[u8]>) -> i32 {
    let mut file = File::create(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
    close(file)
}

fn title(sandbox: &Sandbox, draft: &str) -> String {
    on_server(sandbox, draft)["metadata"]["title"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Another program changes the title.
fn change_elsewhere(sandbox: &Sandbox, draft: &str, title: &str) {
    let mut document = on_server(sandbox, draft);
    document["metadata"]["title"] = title.into();
    elsewhere(sandbox)
        .update_draft(&RecordId::new(draft).unwrap(), &document, None)
        .unwrap();
}

#[test]
fn copying_over_it_saves_it() {
    let (sandbox, draft, mount, path) = described();
    fs::write(mount.local("other.json"), titled(&read(&path), "The new title")).unwrap();
    shell(&format!(
        "cp {} {}",
        mount.local("other.json").display(),
        path.display()
    ));
    assert_eq!(title(&sandbox, &draft), "The new title", "when cp returns");
    assert_eq!(sandbox.count(Route::PutDraft), 1);
    assert!(mount.status().uploads.is_empty());
}

#[test]
fn an_editor_that_renames_its_new_text_onto_it_saves_it() {
    let (sandbox, draft, mount, path) = described();
    let folder = path.parent().unwrap();
    for (round, temporary) in [".record.json.Ab12Cd", "record.json.tmp", "new.json"]
        .iter()
        .enumerate()
    {
        let new = format!("Title {round}");
        fs::write(folder.join(temporary), titled(&read(&path), &new)).unwrap();
        fs::rename(folder.join(temporary), &path).unwrap();
        assert_eq!(title(&sandbox, &draft), new, "when rename() returns");
        assert_eq!(read(&path)["metadata"]["title"], *new);
        assert_eq!(names(folder), ["a", "record.json"]);
        settled(&mount);
        assert_eq!(sandbox.draft_keys(&draft), ["a"], "no file is made of it");
    }
}

#[test]
fn what_jq_makes_of_it_can_be_written_back() {
    let (sandbox, draft, _mount, path) = described();
    shell(&format!(
        "new=$(jq '.metadata.title = \"By jq\"' {0}) && printf '%s' \"$new\" > {0}",
        path.display()
    ));
    assert_eq!(title(&sandbox, &draft), "By jq");
    assert_eq!(sandbox.count(Route::PutDraft), 1);
}

#[test]
fn it_can_be_changed_in_place() {
    let (sandbox, draft, mount, path) = described();
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let place = text.find("The old title").unwrap();
    file.write_all_at(b"The new title", place as u64).unwrap();
    assert_eq!(close(file), 0);
    settled(&mount);
    assert_eq!(title(&sandbox, &draft), "The new title");
    // Open to write and closed without a write is nothing.
    drop(OpenOptions::new().write(true).open(&path).unwrap());
    settled(&mount);
    assert_eq!(sandbox.count(Route::PutDraft), 1);
}

#[test]
fn what_it_leaves_out_at_the_top_is_never_wiped() {
    let (sandbox, draft, _mount, path) = described();
    let before = on_server(&sandbox, &draft);
    let mut document = read(&path);
    document["metadata"]["title"] = "The new title".into();
    let object = document.as_object_mut().unwrap();
    for key in ["access", "files", "custom_fields", "pids"] {
        object.remove(key);
    }
    assert_eq!(save(&path, document.to_string()), 0);
    let after = on_server(&sandbox, &draft);
    assert_eq!(after["metadata"]["title"], "The new title");
    assert_eq!(after["files"]["default_preview"], "a");
    for key in ["access", "files", "custom_fields", "pids"] {
        assert_eq!(after[key], before[key], "{key}");
    }
}

#[test]
fn one_with_an_id_is_the_whole_metadata_and_one_without_only_what_changes() {
    let (sandbox, draft, _mount, path) = described();
    assert_eq!(
        save(&path, json!({"metadata": {"title": "A new title"}}).to_string()),
        0
    );
    let server = on_server(&sandbox, &draft);
    assert_eq!(server["metadata"]["title"], "A new title");
    assert_eq!(server["metadata"]["description"], "What it is about");
    assert_eq!(
        save(&path, json!({"metadata": {"description": null}}).to_string()),
        0,
        "null empties"
    );
    assert!(
        on_server(&sandbox, &draft)["metadata"]
            .get("description")
            .is_none()
    );
    let mut document = read(&path);
    document["metadata"]["description"] = "Another one".into();
    assert_eq!(save(&path, document.to_string()), 0);
    let mut document = read(&path);
    document["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("description");
    assert_eq!(save(&path, document.to_string()), 0);
    assert!(
        on_server(&sandbox, &draft)["metadata"]
            .get("description")
            .is_none()
    );
}

#[test]
fn saving_it_unchanged_sends_nothing() {
    let (sandbox, _draft, mount, path) = described();
    let text = fs::read(&path).unwrap();
    assert_eq!(save(&path, &text), 0);
    let document = read(&path);
    assert_eq!(save(&path, document.to_string()), 0, "in another form");
    settled(&mount);
    assert_eq!(sandbox.count(Route::PutDraft), 0);
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn if_the_draft_was_changed_elsewhere_meanwhile_it_is_estale_and_both_are_kept() {
    let (sandbox, draft, _mount, path) = described();
    let mine = titled(&read(&path), "Mine");
    change_elsewhere(&sandbox, &draft, "Theirs");
    assert_eq!(save(&path, &mine), libc::ESTALE);
    assert_eq!(title(&sandbox, &draft), "Theirs");
    let folder = path.parent().unwrap();
    assert_eq!(
        names(folder),
        ["a", "record.json", "record.json.errors", "record.json.rejected"]
    );
    let rejected = fs::read_to_string(folder.join("record.json.rejected")).unwrap();
    assert_eq!(rejected, mine);
    let reasons = fs::read_to_string(folder.join("record.json.errors")).unwrap();
    assert!(reasons.contains("changed by somebody else"), "{reasons}");
    let theirs = read(&path);
    assert_eq!(theirs["metadata"]["title"], "Theirs");
    // Made from what is there now, it is no conflict any more.
    assert_eq!(save(&path, titled(&theirs, "Ours")), 0);
    assert_eq!(title(&sandbox, &draft), "Ours");
    assert_eq!(names(folder), ["a", "record.json"]);
}

#[test]
fn an_editor_that_saves_the_same_text_again_and_again_is_no_conflict() {
    let (sandbox, draft, _mount, path) = described();
    let buffer = read(&path);
    for round in 0..3 {
        let new = format!("Title {round}");
        assert_eq!(save(&path, titled(&buffer, &new)), 0);
        assert_eq!(title(&sandbox, &draft), new);
    }
    change_elsewhere(&sandbox, &draft, "Theirs");
    assert_eq!(save(&path, titled(&buffer, "Title 4")), libc::ESTALE);
}

#[test]
fn if_the_server_takes_a_part_it_is_einval_and_tells_which() {
    let (sandbox, draft, mount, path) = described();
    let folder = path.parent().unwrap();
    let mut document = read(&path);
    document["metadata"]["title"] = "A good title".into();
    document["metadata"]["publication_date"] = "someday".into();
    let text = document.to_string();
    assert_eq!(save(&path, &text), libc::EINVAL);
    assert_eq!(title(&sandbox, &draft), "A good title");
    let kept = fs::read_to_string(folder.join("record.json.rejected")).unwrap();
    assert_eq!(kept, text);
    let reasons = fs::read_to_string(folder.join("record.json.errors")).unwrap();
    assert!(reasons.contains("metadata.publication_date"), "{reasons}");
    assert_eq!(mount.status().uploads[0].state, UploadState::Refused);
    // What the server has is what is shown.
    assert_eq!(read(&path)["metadata"]["title"], "A good title");
    document["metadata"]["publication_date"] = "2024-05".into();
    assert_eq!(save(&path, document.to_string()), 0);
    assert_eq!(names(folder), ["a", "record.json"], "gone with a good save");
    assert_eq!(
        on_server(&sandbox, &draft)["metadata"]["publication_date"],
        "2024-05"
    );
    assert!(mount.status().uploads.is_empty());
}

#[test]
fn a_rejected_one_is_dropped_by_removing_it() {
    for name in ["record.json.rejected", "record.json.errors"] {
        let (_sandbox, _draft, mount, path) = described();
        let folder = path.parent().unwrap();
        assert_eq!(save(&path, "{"), libc::EINVAL);
        let refused = OpenOptions::new().write(true).open(folder.join(name));
        assert_eq!(errno(refused), libc::EPERM, "they are not written");
        fs::remove_file(folder.join(name)).unwrap();
        assert_eq!(names(folder), ["a", "record.json"]);
        assert!(mount.status().uploads.is_empty());
    }
}

#[test]
fn what_is_no_json_object_is_einval_and_sends_nothing() {
    let (sandbox, draft, _mount, path) = described();
    let before = fs::read(&path).unwrap();
    for text in ["{\"metadata\": ", "[]", "\"title\""] {
        assert_eq!(save(&path, text), libc::EINVAL, "{text}");
        let kept = fs::read_to_string(path.with_extension("json.rejected")).unwrap();
        assert_eq!(kept, text);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    assert_eq!(sandbox.count(Route::PutDraft), 0);
    assert_eq!(title(&sandbox, &draft), "The old title");
}

#[test]
fn a_rejected_one_is_there_after_unmounting_too() {
    let (sandbox, draft, first, path) = described();
    assert_eq!(save(&path, "{ my work"), libc::EINVAL);
    let second = mount_again(&sandbox, first.unmount(&[]));
    let folder = second.path("drafts").join(&draft);
    let kept = fs::read_to_string(folder.join("record.json.rejected")).unwrap();
    assert_eq!(kept, "{ my work");
    assert!(fs::metadata(folder.join("record.json.errors")).unwrap().len() > 0);
}

#[test]
fn a_required_field_that_is_still_missing_is_no_error_of_a_draft() {
    let sandbox = Sandbox::start();
    let begun = elsewhere(&sandbox).create_draft(&json!({"metadata": {"title": "Just begun"}}));
    let draft = begun.unwrap().record.id.to_string();
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&draft).join("record.json");
    assert_eq!(save(&path, titled(&read(&path), "Still begun")), 0);
    assert_eq!(title(&sandbox, &draft), "Still begun");
    assert_eq!(names(path.parent().unwrap()), ["record.json"]);
}

#[test]
fn a_server_that_is_away_gets_it_later() {
    let (sandbox, draft, mount, path) = described_in(hasty);
    let away = sandbox.fault(Fault::on(Route::PutDraft).then(Effect::ServerError(503)));
    assert_eq!(save(&path, titled(&read(&path), "Later")), 0);
    let status = mount.wait_for("it waits for the next try", |status| {
        status
            .uploads
            .iter()
            .any(|upload| upload.state == UploadState::Waiting)
    });
    assert_eq!(status.uploads[0].key, "record.json");
    assert_eq!(
        read(&path)["metadata"]["title"],
        "Later",
        "here it is saved already"
    );
    sandbox.remove_fault(away);
    settled(&mount);
    assert_eq!(title(&sandbox, &draft), "Later");
}

#[test]
fn a_save_whose_answer_was_lost_is_no_conflict_with_itself() {
    let (sandbox, draft, mount, path) = described();
    sandbox.fault(
        Fault::on(Route::PutDraft)
            .times(1)
            .then(Effect::ResetAfterSuccess),
    );
    assert_eq!(save(&path, titled(&read(&path), "Twice")), 0);
    settled(&mount);
    assert_eq!(title(&sandbox, &draft), "Twice");
    assert_eq!(names(path.parent().unwrap()), ["a", "record.json"]);
}

#[test]
fn a_save_that_an_unmount_stops_is_done_by_the_next_mount() {
    let (sandbox, draft, first, path) = described_in(hasty);
    let away = sandbox.fault(Fault::on(Route::PutDraft).then(Effect::ServerError(503)));
    assert_eq!(save(&path, titled(&read(&path), "Later")), 0);
    let kept = first.unmount(&["--now"]);
    assert_eq!(title(&sandbox, &draft), "The old title");
    sandbox.remove_fault(away);
    let second = mount_again(&sandbox, kept);
    settled(&second);
    assert_eq!(title(&sandbox, &draft), "Later");
}

#[test]
fn after_a_save_it_reads_as_the_server_has_it() {
    let (sandbox, draft, _mount, path) = described();
    let before = read(&path);
    let text = json!({"metadata": {"title": "  The new title "}}).to_string();
    assert_eq!(save(&path, text), 0);
    let after = fs::read(&path).unwrap();
    let other = mount(&sandbox);
    assert_eq!(
        fs::read(other.path("drafts").join(&draft).join("record.json")).unwrap(),
        after
    );
    let after: Value = serde_json::from_slice(&after).unwrap();
    assert_eq!(after["metadata"]["title"], "The new title");
    assert_ne!(after["revision_id"], before["revision_id"]);
}

#[test]
fn an_editor_that_moves_it_aside_first_saves_it_and_has_its_backup() {
    let (sandbox, draft, _mount, path) = described();
    let folder = path.parent().unwrap();
    let before = fs::read(&path).unwrap();
    let new = titled(&read(&path), "The new title");
    fs::rename(&path, folder.join("record.json~")).unwrap();
    assert_eq!(fs::read(folder.join("record.json~")).unwrap(), before);
    assert_eq!(save(&path, new), 0);
    assert_eq!(title(&sandbox, &draft), "The new title");
    assert_eq!(fs::read(folder.join("record.json~")).unwrap(), before);
    assert_eq!(read(&path)["metadata"]["title"], "The new title");
    fs::remove_file(folder.join("record.json~")).unwrap();
    assert_eq!(names(folder), ["a", "record.json"]);
    assert_eq!(sandbox.draft_keys(&draft), ["a"]);
}

#[test]
fn it_can_be_touched_and_a_folder_of_its_name_cannot_be_made() {
    let (sandbox, _draft, mount, path) = described();
    shell(&format!("touch {0}; chmod 600 {0}", path.display()));
    assert_eq!(errno(fs::create_dir(&path)), libc::EEXIST);
    fs::create_dir(path.with_file_name("d")).unwrap();
    let refused = errno(fs::rename(path.with_file_name("d"), &path));
    assert_eq!(refused, libc::ENOTDIR);
    settled(&mount);
    assert_eq!(sandbox.count(Route::PutDraft), 0);
}

#[test]
fn what_is_saved_while_it_is_being_saved_is_what_counts() {
    let (sandbox, draft, mount, path) = described_in(hasty);
    let slow = Effect::Delay(std::time::Duration::from_millis(300));
    sandbox.fault(Fault::on(Route::PutDraft).then(slow));
    let buffer = read(&path);
    for round in 0..3 {
        assert_eq!(save(&path, titled(&buffer, &format!("Title {round}"))), 0);
    }
    settled(&mount);
    assert_eq!(title(&sandbox, &draft), "Title 2");
    assert_eq!(names(path.parent().unwrap()), ["a", "record.json"]);
}

#[test]
fn a_change_elsewhere_shows_and_is_no_conflict_for_who_reads_it_first() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("The old title"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--draft-ttl", "100ms"])
        .start();
    let path = mount.path("drafts").join(&draft).join("record.json");
    read(&path);
    change_elsewhere(&sandbox, &draft, "Theirs");
    until("theirs is shown", || read(&path)["metadata"]["title"] == "Theirs");
    assert_eq!(save(&path, titled(&read(&path), "Mine")), 0);
    assert_eq!(title(&sandbox, &draft), "Mine");
}

#[test]
fn the_reasons_are_there_also_for_who_looked_for_them_before() {
    let (_sandbox, draft, mount, path) = described();
    let reasons = mount.path("drafts").join(&draft).join("record.json.errors");
    assert_eq!(errno(fs::metadata(&reasons)), libc::ENOENT);
    assert_eq!(save(&path, "{"), libc::EINVAL);
    assert!(fs::read_to_string(&reasons).unwrap().contains("no JSON"));
}

#[test]
fn a_file_that_became_a_refused_one_is_gone_on_the_server_when_the_next_is_saved() {
    let (sandbox, draft, mount, path) = described();
    let other = path.with_file_name("new.json");
    let text = fs::read(&path).unwrap();
    fs::write(&other, "{").unwrap();
    assert!(sandbox.draft_keys(&draft).contains(&"new.json".to_owned()));
    assert_eq!(errno(fs::rename(&other, &path)), libc::EINVAL);
    let text = titled(&serde_json::from_slice(&text).unwrap(), "The new title");
    assert_eq!(save(&path, text), 0);
    settled(&mount);
    assert_eq!(sandbox.draft_keys(&draft), ["a"]);
}

#[test]
fn one_that_no_metadata_is_as_large_as_is_efbig() {
    let (sandbox, draft, mount, path) = described();
    let huge = File::options().write(true).open(&path).unwrap();
    assert_eq!(errno(huge.set_len(1 << 40)), libc::EFBIG);
    assert_eq!(errno(huge.write_all_at(b"{", 1 << 30)), libc::EFBIG);
    drop(huge);
    let data = path.with_file_name("data.bin");
    let file = File::create(&data).unwrap();
    file.set_len(20 << 20).unwrap();
    drop(file);
    assert_eq!(errno(fs::rename(&data, &path)), libc::EFBIG);
    settled(&mount);
    assert_eq!(title(&sandbox, &draft), "The old title");
    assert_eq!(sandbox.draft_keys(&draft), ["a", "data.bin"]);
}
