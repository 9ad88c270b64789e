//! Who may see what: the mount of an ordinary user, and others on the machine. These need root to become others.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rdm_sandbox::{ALICE, NewRecord, Sandbox};

use crate::support::how;

/// `nobody` on every Debian, and a user without a name.
const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 61234;

fn as_user(user: u32, line: &str) -> (bool, String) {
    let output = Command::new("sh")
        .arg("-c")
        .arg(line)
        .uid(user)
        .gid(user)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not run as root: other users can't be tried");
    }
    root
}

#[test]
fn an_ordinary_user_mounts_reads_writes_and_is_alone() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "published"));
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url()).token(ALICE).user(NOBODY).start();
    let root = mount.path("").display().to_string();
    let (ok, text) = as_user(
        NOBODY,
        &format!("cat {root}/records/{id}/files/a && echo hi > {root}/drafts/{draft}/b"),
    );
    assert!(ok && text == "published", "{text}");
    assert_eq!(sandbox.draft_file(&draft, "b").unwrap().bytes(), b"hi\n");
    // Not even root sees it.
    assert!(fs::read_dir(mount.path("")).is_err());
    assert!(!as_user(SOMEBODY, &format!("ls {root}")).0);
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(mount.folder.path().to_str().unwrap()))
        .unwrap();
    assert!(
        line.contains("fuse.rdmfs") && line.contains("nosuid") && line.contains("nodev"),
        "{line}"
    );
    let binary = mount.local("rdmfs").display().to_string();
    let (ok, text) = as_user(NOBODY, &format!("{binary} unmount {root}"));
    assert!(ok, "{text}");
}

#[test]
fn with_allow_other_the_modes_decide() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let open = sandbox.publish(NewRecord::titled("Open").file("a", "published"));
    let closed = sandbox.publish(NewRecord::titled("Closed").restricted().file("a", "secret"));
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "mine"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--allow-other"])
        .start();
    let open_up = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(mount.folder.path(), open_up).unwrap();
    let root = mount.path("").display().to_string();
    let (ok, text) = as_user(SOMEBODY, &format!("cat {root}/records/{open}/files/a"));
    assert!(ok && text == "published", "{text}");
    for path in [
        format!("records/{closed}/files/a"),
        format!("drafts/{draft}/a"),
        ".rdmfs/status.json".to_owned(),
    ] {
        let (ok, text) = as_user(SOMEBODY, &format!("cat {root}/{path}"));
        assert!(!ok && text.contains("Permission denied"), "{path}: {text}");
    }
    assert_eq!(
        fs::read_to_string(mount.path(format!("records/{closed}/files/a"))).unwrap(),
        "secret"
    );
}
