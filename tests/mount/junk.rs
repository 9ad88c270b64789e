//! What programs put beside the files that a user means: never sent, unless it gets a name that is meant.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rdm_sandbox::{NewRecord, Route, Sandbox};
use rdmfs::status::UploadState;

use crate::support::{
    draft, ended, errno, hasty, keys, kill, mount, mount_again, names, out_of_order, sent, settled, shell,
    stored, until,
};

const JUNK: [&str; 14] = [
    ".DS_Store",
    "._a.csv",
    "Thumbs.db",
    "desktop.ini",
    ".~lock.a.odt#",
    "~$a.docx",
    ".a.csv.swp",
    ".a.csv.swx",
    "a.csv~",
    "#a.csv#",
    ".#a.csv",
    "4913",
    ".goutputstream-X1Y2Z3",
    "big.nc.part",
];

/// What was asked of the server to change something.
fn changes(sandbox: &Sandbox) -> Vec<String> {
    let requests = sandbox.requests();
    requests
        .iter()
        .filter(|request| request.method != "GET")
        .map(|request| format!("{} {}", request.method, request.path))
        .collect()
}

#[test]
fn junk_is_kept_here_while_mounted_and_never_sent() {
    let (sandbox, draft, first) = draft();
    let folder = first.path("drafts").join(&draft);
    for name in JUNK {
        fs::write(folder.join(name), name).unwrap();
        assert_eq!(fs::read(folder.join(name)).unwrap(), name.as_bytes());
    }
    fs::create_dir(folder.join("__MACOSX")).unwrap();
    fs::write(folder.join("__MACOSX/a.csv"), "1").unwrap();
    let mut expected = [&JUNK[..], &["__MACOSX", "record.json"]].concat();
    expected.sort_unstable();
    assert_eq!(names(&folder), expected);
    let status = first.status();
    assert!(status.uploads.is_empty(), "{status:#?}");
    let second = mount_again(&sandbox, first.unmount(&[]));
    assert_eq!(names(&second.path("drafts").join(&draft)), ["record.json"]);
    let left = fs::read_dir(second.status().staging.join("data")).unwrap();
    assert_eq!(left.count(), 0);
    assert!(changes(&sandbox).is_empty(), "{:?}", changes(&sandbox));
}

#[test]
fn junk_can_be_removed_without_a_request() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path("drafts").join(&draft).join("a.csv~");
    fs::write(&path, "1").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(errno(fs::metadata(&path)), libc::ENOENT);
    assert_eq!(sandbox.count(Route::StartFiles), 0);
}

#[test]
fn a_swap_file_survives_a_crash_of_the_daemon_and_goes_at_the_next_unmount() {
    let (sandbox, draft, first) = draft();
    let folder = first.path("drafts").join(&draft);
    fs::write(folder.join(".closed.swp"), "closed").unwrap();
    let mut open = File::create(folder.join(".open.swp")).unwrap();
    open.write_all(b"what was typed").unwrap();
    open.sync_all().unwrap();
    kill(&first);
    drop(open);
    let second = mount_again(&sandbox, ended(first));
    let folder = second.path("drafts").join(&draft);
    assert_eq!(names(&folder), [".closed.swp", ".open.swp", "record.json"]);
    assert_eq!(fs::read(folder.join(".closed.swp")).unwrap(), b"closed");
    assert_eq!(fs::read(folder.join(".open.swp")).unwrap(), b"what was typed");
    assert!(second.status().uploads.is_empty());
    let third = mount_again(&sandbox, second.unmount(&[]));
    assert_eq!(names(&third.path("drafts").join(&draft)), ["record.json"]);
    assert!(changes(&sandbox).is_empty());
}

#[test]
fn junk_that_gets_a_real_name_is_sent() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    fs::write(folder.join("a.nc.part"), "half and half").unwrap();
    fs::rename(folder.join("a.nc.part"), folder.join("a.nc")).unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["a.nc"]);
    assert_eq!(stored(&sandbox, &draft, "a.nc").unwrap(), b"half and half");
    let all = changes(&sandbox);
    assert!(all.iter().all(|change| !change.contains("part")), "{all:?}");
}

#[test]
fn a_committed_file_that_gets_a_junk_name_stays_on_the_server_and_has_its_own_back_after_unmounting() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let first = mount(&sandbox);
    let folder = first.path("drafts").join(&draft);
    fs::rename(folder.join("a"), folder.join("a~")).unwrap();
    assert_eq!(names(&folder), ["a~", "record.json"]);
    assert_eq!(fs::read(folder.join("a~")).unwrap(), b"1");
    assert_eq!(errno(fs::read(folder.join("a"))), libc::ENOENT);
    let second = mount_again(&sandbox, first.unmount(&[]));
    let folder = second.path("drafts").join(&draft);
    assert_eq!(names(&folder), ["a", "record.json"]);
    assert_eq!(fs::read(folder.join("a")).unwrap(), b"1");
    assert!(changes(&sandbox).is_empty());
}

#[test]
fn a_committed_file_with_a_junk_name_goes_on_the_server_when_it_is_removed() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = mount(&sandbox);
    let folder = mount.path("drafts").join(&draft);
    fs::rename(folder.join("a"), folder.join("a~")).unwrap();
    fs::remove_file(folder.join("a~")).unwrap();
    assert!(sandbox.draft_keys(&draft).is_empty());
    assert_eq!(names(&folder), ["record.json"]);
}

#[test]
fn what_was_never_sent_is_kept_over_an_unmount_also_under_a_junk_name() {
    let (sandbox, draft, _) = draft();
    let first = hasty(&sandbox);
    let fault = out_of_order(&sandbox);
    let folder = first.path("drafts").join(&draft);
    fs::write(folder.join("a"), "the only copy").unwrap();
    fs::rename(folder.join("a"), folder.join("a~")).unwrap();
    assert!(first.status().uploads.is_empty());
    let kept = first.unmount(&[]);
    sandbox.remove_fault(fault);
    let second = mount_again(&sandbox, kept);
    let folder = second.path("drafts").join(&draft);
    assert_eq!(fs::read(folder.join("a~")).unwrap(), b"the only copy");
    assert!(sandbox.draft_keys(&draft).is_empty());
    fs::rename(folder.join("a~"), folder.join("a")).unwrap();
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"the only copy");
    assert_eq!(sandbox.draft_keys(&draft), ["a"]);
}

#[test]
fn a_file_with_a_temporary_name_rests_and_is_then_sent() {
    let (sandbox, draft, mount) = draft();
    let began = Instant::now();
    fs::write(mount.path(format!("drafts/{draft}/.a.csv.Ab12Cd")), "1").unwrap();
    let status = mount.status();
    assert_eq!(status.uploads[0].state, UploadState::Waiting);
    assert!(status.uploads[0].next_try.is_some());
    let reason = status.uploads[0].reason.as_ref().unwrap();
    assert!(reason.contains("temporary"), "{reason}");
    settled(&mount);
    assert!(began.elapsed() > Duration::from_secs(4));
    assert_eq!(stored(&sandbox, &draft, ".a.csv.Ab12Cd").unwrap(), b"1");
}

#[test]
fn a_temporary_name_that_becomes_a_real_one_is_one_upload_at_once() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    for temporary in [".a.csv.Ab12Cd", "tmpa1b2c3d_", "a.tmp"] {
        sandbox.reset_counts();
        fs::write(folder.join(temporary), temporary).unwrap();
        fs::rename(folder.join(temporary), folder.join("a.csv")).unwrap();
        assert_eq!(
            stored(&sandbox, &draft, "a.csv").unwrap(),
            temporary.as_bytes(),
            "when rename() returns"
        );
        assert_eq!(sandbox.draft_keys(&draft), ["a.csv"]);
        let all = changes(&sandbox);
        assert!(all.iter().all(|change| !change.contains(temporary)), "{all:?}");
        assert_eq!(sandbox.count(Route::PutContent), 1);
    }
}

#[test]
fn a_temporary_file_that_is_removed_is_never_sent() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/tmpa1b2c3d_"));
    fs::write(&path, "1").unwrap();
    fs::remove_file(&path).unwrap();
    assert!(mount.status().uploads.is_empty());
    assert_eq!(sandbox.count(Route::StartFiles), 0);
}

/// A draft with a committed file, `a.csv`, and its folder in a mount.
fn edited() -> (Sandbox, String, crate::support::Mount, std::path::PathBuf) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a.csv", "old"));
    let mount = mount(&sandbox);
    let folder = mount.path("drafts").join(&draft);
    (sandbox, draft, mount, folder)
}

fn write_new(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn saving_as_vim_does_sends_the_new_text_once_and_nothing_else() {
    let (sandbox, draft, mount, folder) = edited();
    let path = folder.join("a.csv");
    for swap in [".a.csv.swp", ".a.csv.swx"] {
        write_new(&folder.join(swap), "swap");
    }
    fs::remove_file(folder.join(".a.csv.swx")).unwrap();
    write_new(&folder.join("4913"), "");
    fs::set_permissions(folder.join("4913"), PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(folder.join("4913")).unwrap();
    fs::rename(&path, folder.join("a.csv~")).unwrap();
    assert_eq!(
        stored(&sandbox, &draft, "a.csv").unwrap(),
        b"old",
        "until there is another one"
    );
    write_new(&path, "new");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(folder.join("a.csv~")).unwrap();
    fs::remove_file(folder.join(".a.csv.swp")).unwrap();
    settled(&mount);
    assert_eq!(stored(&sandbox, &draft, "a.csv").unwrap(), b"new");
    assert_eq!(sandbox.draft_keys(&draft), ["a.csv"]);
    assert_eq!(sandbox.count(Route::PutContent), 1, "{:?}", changes(&sandbox));
    assert_eq!(names(&folder), ["a.csv", "record.json"]);
}

#[test]
fn saving_as_emacs_does_sends_the_new_text_once_and_keeps_the_backup_here() {
    let (sandbox, draft, mount, folder) = edited();
    let path = folder.join("a.csv");
    // It goes on without its lock.
    assert_eq!(errno(symlink("me@host.1:2", folder.join(".#a.csv"))), libc::EPERM);
    write_new(&folder.join("#a.csv#"), "autosaved");
    fs::rename(&path, folder.join("a.csv~")).unwrap();
    write_new(&path, "new");
    fs::remove_file(folder.join("#a.csv#")).unwrap();
    settled(&mount);
    assert_eq!(stored(&sandbox, &draft, "a.csv").unwrap(), b"new");
    assert_eq!(fs::read(folder.join("a.csv~")).unwrap(), b"old");
    assert_eq!(sandbox.draft_keys(&draft), ["a.csv"]);
    assert_eq!(sandbox.count(Route::PutContent), 1);
}

#[test]
fn sed_in_place_is_one_upload() {
    let (sandbox, draft, mount, folder) = edited();
    shell(&format!("sed -i s/old/new/ {}", folder.join("a.csv").display()));
    settled(&mount);
    assert_eq!(stored(&sandbox, &draft, "a.csv").unwrap(), b"new");
    assert_eq!(sandbox.draft_keys(&draft), ["a.csv"]);
    assert_eq!(sandbox.count(Route::PutContent), 1);
    assert_eq!(sent(&sandbox, "a.csv"), 1);
}

#[test]
fn rsync_sends_each_file_once_and_nothing_the_second_time() {
    let (sandbox, draft, mount) = draft();
    let from = mount.local("from");
    fs::create_dir_all(from.join("d")).unwrap();
    for (name, text) in [("a.csv", "1"), ("d/b.csv", "2"), ("empty", "")] {
        fs::write(from.join(name), text).unwrap();
    }
    shell(&format!(
        "touch -d 2020-01-02 {0}/a.csv; chmod 640 {0}/a.csv",
        from.display()
    ));
    let line = format!(
        "rsync -ai {}/ {}/",
        from.display(),
        mount.path("drafts").join(&draft).display()
    );
    shell(&line);
    settled(&mount);
    assert_eq!(keys(&sandbox, &draft), ["a.csv", "d/b.csv", "empty"]);
    for key in ["a.csv", "d/b.csv"] {
        assert_eq!(sent(&sandbox, key), 1, "{:?}", changes(&sandbox));
    }
    sandbox.reset_counts();
    let again = shell(&line);
    assert!(
        again.lines().all(|line| !line.contains('f')),
        "no file differs: {again}"
    );
    assert!(changes(&sandbox).is_empty(), "{:?}", changes(&sandbox));
    // One that has changed is one upload.
    fs::write(from.join("a.csv"), "changed").unwrap();
    shell(&line);
    until("it is there", || {
        stored(&sandbox, &draft, "a.csv").is_some_and(|bytes| bytes == b"changed")
    });
    settled(&mount);
    assert_eq!(sandbox.count(Route::PutContent), 1);
}
