//! What a rename leaves to be done on the server, and what comes of it later.

use std::fs;

use rdm_sandbox::{ALICE, Effect, Fault, NewRecord, Route, Sandbox};

use crate::support::{Mount, ended, how, kill};

fn hasty(sandbox: &Sandbox) -> Mount {
    how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start()
}

fn stored(sandbox: &Sandbox, draft: &str, key: &str) -> Option<Vec<u8>> {
    sandbox
        .draft_file(draft, key)
        .filter(|file| file.status == "completed")
        .map(|file| file.bytes())
}

#[test]
fn a_key_that_a_rename_has_left_is_not_deleted_again_after_a_crash() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "first"));
    let first = hasty(&sandbox);
    let folder = first.path(format!("drafts/{draft}"));
    let starts = sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)));
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    first.wait_for("its upload has begun", |status| {
        status.uploads.iter().any(|upload| upload.tries > 0)
    });
    fs::rename(folder.join("b"), folder.join("c")).unwrap();
    // The first of the two old keys goes, the second doesn't.
    sandbox.fault(
        Fault::on(Route::DeleteFile)
            .key("b")
            .then(Effect::ServerError(503)),
    );
    sandbox.remove_fault(starts);
    sandbox.wait_until("the oldest key is deleted", |sandbox| {
        sandbox.draft_keys(&draft) == ["c"]
    });
    fs::write(folder.join("a"), "another").unwrap();
    first.wait_for("the new file has come", |status| {
        status.uploads.iter().all(|upload| upload.key == "c")
    });
    kill(&first);
    let left = ended(first);
    sandbox.clear_faults();
    let second = how(&sandbox.url()).token(ALICE).folder(left).start();
    second.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(stored(&sandbox, &draft, "c").unwrap(), b"first");
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"another");
}

#[test]
fn a_renamed_file_that_another_one_replaces_before_it_is_sent_does_not_come_back() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1").file("b", "2"));
    let mount = hasty(&sandbox);
    let folder = mount.path(format!("drafts/{draft}"));
    let starts = sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)));
    fs::rename(folder.join("a"), folder.join("c")).unwrap();
    fs::rename(folder.join("b"), folder.join("c")).unwrap();
    assert_eq!(crate::support::names(&folder), ["c", "record.json"]);
    sandbox.remove_fault(starts);
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(sandbox.draft_keys(&draft), ["c"]);
    assert_eq!(stored(&sandbox, &draft, "c").unwrap(), b"2");
    assert_eq!(crate::support::names(&folder), ["c", "record.json"]);
}
