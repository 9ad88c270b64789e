//! Modes, owners and times of what is in drafts: the server keeps none of it, the mount does until it ends.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rdm_sandbox::{NewRecord, Sandbox};

use crate::support::{close, draft, elsewhere, mount, mount_again, settled, shell, stored, until};
use rdmfs::repository::model::RecordId;

const OLD: SystemTime = SystemTime::UNIX_EPOCH;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

fn old() -> SystemTime {
    OLD + Duration::from_secs(1_577_934_245)
}

#[test]
fn mode_and_time_of_a_written_file_stay_when_it_is_sent() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/b"));
    let mut file = File::create(&path).unwrap();
    file.write_all(b"one").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o440)).unwrap();
    file.set_modified(old()).unwrap();
    assert_eq!((mode(&path), modified(&path)), (0o440, old()));
    assert_eq!(close(file), 0);
    settled(&mount);
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"one");
    assert_eq!((mode(&path), modified(&path)), (0o440, old()));
    // Not enforced on the user, and a write sets the time.
    fs::write(&path, "two").unwrap();
    settled(&mount);
    assert_eq!(mode(&path), 0o440);
    assert!(modified(&path) > old());
}

#[test]
fn mode_and_time_of_a_committed_file_and_of_folders_can_be_changed_without_a_request() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("d/a", "1"));
    let first = mount(&sandbox);
    let folder = first.path("drafts").join(&draft);
    let modes = |folder: &Path| -> Vec<u32> {
        let paths = ["d/a", "d", "", "record.json"];
        paths.iter().map(|path| mode(&folder.join(path))).collect()
    };
    let before = modes(&folder);
    for path in ["d/a", "d", "", "record.json"] {
        let path = folder.join(path);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        File::open(&path).unwrap().set_modified(old()).unwrap();
        assert_eq!((mode(&path), modified(&path)), (0o750, old()), "{path:?}");
    }
    assert!(first.status().uploads.is_empty());
    let changes = sandbox.requests();
    assert!(changes.iter().all(|request| request.method == "GET"));
    let second = mount_again(&sandbox, first.unmount(&[]));
    assert_eq!(
        modes(&second.path("drafts").join(&draft)),
        before,
        "until unmounting"
    );
}

#[test]
fn a_time_is_of_the_bytes_it_was_said_of() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = crate::support::how(&sandbox.url())
        .token(rdm_sandbox::ALICE)
        .arguments(&["--draft-ttl", "100ms"])
        .start();
    let path = mount.path(format!("drafts/{draft}/a"));
    File::open(&path).unwrap().set_modified(old()).unwrap();
    assert_eq!(modified(&path), old());
    // Another program replaces the file.
    let other = crate::support::mount(&sandbox);
    fs::write(other.path(format!("drafts/{draft}/a")), "2").unwrap();
    until("the time is the new file's", || modified(&path) != old());
    let server = elsewhere(&sandbox)
        .draft_files(&RecordId::new(&draft).unwrap())
        .unwrap();
    assert_eq!(Some(modified(&path)), server[0].updated);
}

#[test]
fn owner_and_mode_of_what_is_made_are_the_makers() {
    let (_sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    shell(&format!(
        "cd {}; umask 027; touch f; mkdir d; umask 002; touch g",
        folder.display()
    ));
    assert_eq!(mode(&folder.join("f")), 0o640);
    assert_eq!(mode(&folder.join("d")), 0o750);
    assert_eq!(mode(&folder.join("g")), 0o664);
    assert_eq!(
        fs::metadata(folder.join("f")).unwrap().uid(),
        rustix::process::geteuid().as_raw()
    );
}

#[test]
fn chown_is_remembered() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run as root: files can't be given away");
        return;
    }
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "1").unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.uid(), found.gid()), (1234, 5678));
    settled(&mount);
    assert_eq!(fs::metadata(&path).unwrap().uid(), 1234);
}

#[test]
fn a_new_file_of_a_removed_ones_name_has_nothing_of_it() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::write(&path, "1").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
    File::open(&path).unwrap().set_modified(old()).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "1").unwrap();
    settled(&mount);
    assert_ne!(mode(&path), 0o750);
    assert!(modified(&path) > old());
}

#[test]
fn opening_a_file_to_write_changes_neither_its_mode_nor_its_time() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = mount(&sandbox);
    let path = mount.path(format!("drafts/{draft}/a"));
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    File::open(&path).unwrap().set_modified(old()).unwrap();
    let open = fs::OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(
        (mode(&path), open.metadata().unwrap().modified().unwrap()),
        (0o640, old())
    );
    drop(open);
    settled(&mount);
    assert_eq!((mode(&path), modified(&path)), (0o640, old()));
}

#[test]
fn cp_p_gives_mode_and_time() {
    let (_sandbox, draft, mount) = draft();
    let source = mount.local("source");
    fs::write(&source, "1").unwrap();
    fs::set_permissions(&source, PermissionsExt::from_mode(0o640)).unwrap();
    File::open(&source).unwrap().set_modified(old()).unwrap();
    let path = mount.path(format!("drafts/{draft}/a"));
    shell(&format!("cp -p {} {}", source.display(), path.display()));
    settled(&mount);
    assert_eq!((mode(&path), modified(&path)), (0o640, old()));
}
