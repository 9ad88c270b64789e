//! `.rdmfs/control`: commands as lines that are written, the answer read from the same descriptor.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rdm_sandbox::{ALICE, NewRecord, Sandbox};
use rdmfs::repository::model::RecordId;
use rdmfs::status::UploadState;
use serde_json::Value;

use crate::support::{
    Mount, close, draft, elsewhere, ended, errno, how, kill, mount_again, names, noise, on_server, settled,
    shell, stored,
};

/// Writes a command; returns the errno and the answer.
fn command(mount: &Mount, line: &str) -> (i32, Value) {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.path(".rdmfs/control"))
        .unwrap();
    let wrote = (&control).write_all(line.as_bytes());
    let mut answer = vec![0; 10_000];
    let length = control.read_at(&mut answer, 0).unwrap();
    let answer = serde_json::from_slice(&answer[..length]).unwrap();
    (
        wrote.map_or_else(|error| error.raw_os_error().unwrap(), |()| 0),
        answer,
    )
}

pub fn done(mount: &Mount, line: &str) {
    assert_eq!(
        command(mount, line),
        (0, serde_json::json!({"ok": true})),
        "{line}"
    );
}

/// Writes a file that the server refuses; returns its number.
fn refused(sandbox: &Sandbox, mount: &Mount, path: &Path) -> u64 {
    sandbox.knobs(|knobs| knobs.quota = 1000);
    let mut file = File::create(path).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(close(file), libc::EDQUOT);
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    mount.status().uploads[0].id
}

/// A mount after a crash in which a file was never closed, and the file's number.
fn unclosed() -> (Sandbox, String, Mount, u64) {
    let (sandbox, draft, first) = draft();
    let mut file = File::create(first.path(format!("drafts/{draft}/f"))).unwrap();
    file.write_all(b"unfinished").unwrap();
    file.sync_all().unwrap();
    kill(&first);
    drop(file);
    let second = mount_again(&sandbox, ended(first));
    let status = second.status();
    assert_eq!(status.uploads[0].state, UploadState::Unclosed);
    (sandbox, draft, second, status.uploads[0].id)
}

fn nothing_is_staged(mount: &Mount) {
    assert!(mount.status().uploads.is_empty());
    for folder in ["data", "journal"] {
        let left = fs::read_dir(mount.status().staging.join(folder)).unwrap();
        assert_eq!(left.count(), 0, "{folder}");
    }
}

#[test]
fn a_refused_file_is_tried_again_when_asked_for() {
    let (sandbox, draft, mount) = draft();
    let id = refused(&sandbox, &mount, &mount.path(format!("drafts/{draft}/f")));
    done(&mount, &format!("retry {id}\n"));
    settled(&mount);
    assert!(stored(&sandbox, &draft, "f").unwrap() == noise(5000, 1));
}

#[test]
fn a_refused_file_is_dropped_when_asked_for() {
    let (sandbox, draft, mount) = draft();
    let id = refused(&sandbox, &mount, &mount.path(format!("drafts/{draft}/f")));
    done(&mount, &format!("discard {id}"));
    assert_eq!(names(&mount.path("drafts").join(&draft)), ["record.json"]);
    assert!(sandbox.draft_keys(&draft).is_empty());
    nothing_is_staged(&mount);
}

#[test]
fn what_was_never_closed_before_a_crash_is_sent_when_asked_for() {
    let (sandbox, draft, mount, id) = unclosed();
    done(&mount, &format!("retry {id}"));
    settled(&mount);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"unfinished");
}

#[test]
fn what_was_never_closed_is_not_sent_over_a_newer_file() {
    let (sandbox, draft, mount, id) = unclosed();
    let mut newer = File::create(mount.path(format!("drafts/{draft}/f"))).unwrap();
    newer.write_all(b"newer").unwrap();
    let (errno, answer) = command(&mount, &format!("retry {id}"));
    assert_eq!(errno, libc::EEXIST);
    assert!(
        answer["error"].as_str().unwrap().contains("written anew"),
        "{answer}"
    );
    assert_eq!(close(newer), 0);
    assert_eq!(stored(&sandbox, &draft, "f").unwrap(), b"newer");
    assert_eq!(mount.status().uploads.len(), 1, "the older bytes are kept");
}

#[test]
fn what_was_never_closed_before_a_crash_is_dropped_when_asked_for() {
    let (sandbox, draft, mount, id) = unclosed();
    done(&mount, &format!("discard {id}"));
    nothing_is_staged(&mount);
    assert!(sandbox.draft_keys(&draft).is_empty());
}

#[test]
fn a_refused_document_is_tried_again_and_dropped_when_asked_for() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    let refuse = |text: &[u8]| {
        let mut file = File::create(folder.join("record.json")).unwrap();
        file.write_all(text).unwrap();
        let errno = close(file);
        (errno, mount.status().uploads[0].id)
    };
    // Somebody else changed it: asked for again, it is saved over theirs.
    let text = fs::read_to_string(folder.join("record.json")).unwrap();
    let mut theirs = on_server(&sandbox, &draft);
    theirs["metadata"]["title"] = "Theirs".into();
    elsewhere(&sandbox)
        .update_draft(&RecordId::new(&draft).unwrap(), &theirs, None)
        .unwrap();
    let (errno, id) = refuse(text.replace("\"Draft\"", "\"Mine\"").as_bytes());
    assert_eq!(errno, libc::ESTALE);
    done(&mount, &format!("retry {id}"));
    settled(&mount);
    assert_eq!(on_server(&sandbox, &draft)["metadata"]["title"], "Mine");
    assert_eq!(names(&folder), ["record.json"]);
    let (errno, id) = refuse(b"{");
    assert_eq!(errno, libc::EINVAL);
    done(&mount, &format!("discard {id}"));
    assert_eq!(names(&folder), ["record.json"]);
    nothing_is_staged(&mount);
}

#[test]
fn a_file_that_is_open_is_ebusy() {
    let (_sandbox, draft, mount) = draft();
    let mut file = File::create(mount.path(format!("drafts/{draft}/f"))).unwrap();
    file.write_all(b"1").unwrap();
    let id = mount.status().uploads[0].id;
    for verb in ["retry", "discard"] {
        assert_eq!(command(&mount, &format!("{verb} {id}")).0, libc::EBUSY, "{verb}");
    }
}

#[test]
fn what_is_no_command_is_einval_and_what_is_not_there_enoent() {
    let (_sandbox, _draft, mount) = draft();
    for line in ["explode", "retry", "retry me", "", "\n"] {
        if line.is_empty() {
            continue;
        }
        let (errno, answer) = command(&mount, line);
        assert_eq!(errno, libc::EINVAL, "{line:?}");
        assert_eq!(answer["ok"], false);
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
    let (_, answer) = command(&mount, "explode");
    assert!(
        ["retry ID", "refresh", "cache ORDER", "stop ID"]
            .iter()
            .all(|word| answer["advice"].as_str().unwrap().contains(word)),
        "{answer}"
    );
    for verb in ["retry", "discard"] {
        assert_eq!(command(&mount, &format!("{verb} 4711")).0, libc::ENOENT, "{verb}");
    }
    assert!(mount.status().problems.is_empty());
}

#[test]
fn a_shell_can_write_commands() {
    let (_sandbox, _draft, mount) = draft();
    shell(&format!(
        "echo refresh > {}",
        mount.path(".rdmfs/control").display()
    ));
    assert_eq!(fs::read(mount.path(".rdmfs/control")).unwrap(), b"");
    let made = File::create(mount.path(".rdmfs/other"));
    assert_eq!(errno(made), libc::EPERM);
}

#[test]
fn refresh_asks_the_repository_anew() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--draft-ttl", "1h"])
        .start();
    let folder = mount.path("drafts").join(&draft);
    assert_eq!(names(&folder), ["a", "record.json"]);
    let id = RecordId::new(&draft).unwrap();
    elsewhere(&sandbox).delete_file(&id, "a").unwrap();
    assert_eq!(names(&folder), ["a", "record.json"]);
    done(&mount, "refresh");
    assert_eq!(names(&folder), ["record.json"]);
}

#[test]
fn a_refresh_of_one_record_leaves_what_is_known_of_others() {
    let sandbox = Sandbox::start();
    let ids: Vec<String> = ["One", "Two"]
        .iter()
        .map(|title| sandbox.publish(NewRecord::titled(title).file("a", "1")))
        .collect();
    let mount = crate::support::mount(&sandbox);
    let read = |id: &str| fs::read_to_string(mount.path(format!("records/{id}/record.json"))).unwrap();
    ids.iter().for_each(|id| drop(read(id)));
    done(&mount, &format!("refresh records/{}", ids[0]));
    sandbox.reset_counts();
    read(&ids[0]);
    read(&ids[1]);
    assert_eq!(sandbox.total(), 0, "the one was asked for with the refresh");
    done(&mount, "refresh");
    read(&ids[1]);
    assert!(sandbox.total() > 0);
}

#[test]
fn a_path_is_told_by_the_id_of_its_record_or_draft() {
    let (sandbox, draft, mount) = draft();
    let record = sandbox.publish(NewRecord::titled("One").file("dir/a", "1"));
    let which = |path: &str| command(&mount, &format!("which {path}"));
    for path in [format!("drafts/{draft}"), format!("drafts/{draft}/record.json")] {
        let (errno, answer) = which(&path);
        assert_eq!(
            (errno, &answer["draft"]),
            (0, &Value::from(draft.clone())),
            "{path}"
        );
    }
    let concept = sandbox.concept_of(&record);
    for path in [
        format!("records/{record}"),
        format!("records/{concept}"),
        format!("records/{record}/files/dir/a"),
    ] {
        let (errno, answer) = which(&path);
        assert_eq!(
            (errno, &answer["record"]),
            (0, &Value::from(record.clone())),
            "{path}"
        );
    }
    for path in ["", "records", "records/zzzzz-99999", ".rdmfs/control"] {
        assert_eq!(which(path).0, libc::ENOENT, "{path}");
    }
}
