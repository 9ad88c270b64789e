//! Real mounts: what the daemon's processes do when it is started, asked, ended, killed or stuck.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, Effect, Fault, NewRecord, Route, Sandbox};

use crate::machine::{Home, elsewhere, outcome, signal, wait_until};

/// A repository with one record that has one file; returns the record's id too.
fn repository() -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    (sandbox, id)
}

/// A home with a mount in it.
fn mounted(flags: &[&str]) -> (Home, Sandbox, String) {
    let (sandbox, id) = repository();
    let home = Home::new();
    home.mount(flags, &sandbox.url())
        .expect(0, &["mounted http://127.0.0.1", "without a token"]);
    (home, sandbox, id)
}

/// A home with a mount in it that may write, and the id of a draft.
pub fn mounted_with_token(flags: &[&str]) -> (Home, Sandbox, String) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("New depths"));
    let home = Home::new();
    let token = home.file("token", ALICE);
    let flags: Vec<&str> = flags.iter().copied().chain(["--token-file", &token]).collect();
    home.mount(&flags, &sandbox.url()).expect(0, &["signed in"]);
    (home, sandbox, draft)
}

#[test]
fn mount_returns_when_files_can_be_read_and_unmount_when_the_daemon_is_gone() {
    let (home, _sandbox, id) = mounted(&[]);
    let file = home.mountpoint().join("records").join(&id).join("files/a.csv");
    assert_eq!(fs::read_to_string(file).unwrap(), "x,y\n1,2\n");
    let worker = home.process("worker");
    home.unmount(&[]).expect(0, &["unmounted"]);
    assert!(!home.is_mounted());
    assert!(
        !fs::exists(format!("/proc/{worker}/exe")).unwrap(),
        "the worker still runs"
    );
    wait_until("the guardian ends too", || home.processes("guard").is_empty());
}

#[test]
fn status_shows_a_mount_to_people_and_to_programs() {
    let (home, sandbox, _) = mounted(&["--read-only"]);
    let place = home.mountpoint();
    let place = place.to_str().unwrap();
    home.run(["status", place]).expect(
        0,
        &[&sandbox.url(), "without a token, read-only", "uploads: none"],
    );
    let list = home.run(["status", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let mine = list
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["mountpoint"] == place);
    let mine = mine.unwrap_or_else(|| panic!("{place} is not in {list:#}"));
    assert_eq!(mine["state"], "ok");
    assert_eq!(mine["status"]["pid"], home.process("worker"));
}

#[test]
fn a_second_mount_on_the_same_place_is_refused() {
    let (home, sandbox, _) = mounted(&[]);
    home.mount(&[], &sandbox.url())
        .expect(1, &["already mounted", "rdmfs unmount"]);
}

#[test]
fn the_token_is_in_no_command_line_and_no_environment() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let mut command = home.command(["mount", &sandbox.url()]);
    command.arg(home.mountpoint()).env("INVENIORDM_TOKEN", ALICE);
    outcome(&mut command).expect(0, &["signed in"]);
    for pid in [home.process("guard"), home.process("worker")] {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(
                !String::from_utf8_lossy(&bytes).contains(ALICE),
                "{file} of {pid}"
            );
        }
    }
    assert!(!home.log().contains(ALICE));
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_killed_worker_leaves_no_dead_mount_point() {
    let (home, _sandbox, _) = mounted(&[]);
    signal(home.process("worker"), libc::SIGKILL);
    wait_until("the guardian unmounts", || !home.is_mounted());
    wait_until("the guardian ends", || home.processes("guard").is_empty());
    let log = home.log();
    assert!(
        log.contains("was killed by signal 9") && log.contains("is kept in"),
        "{log}"
    );
}

#[test]
fn a_worker_whose_guardian_was_killed_unmounts_by_itself() {
    let (home, _sandbox, _) = mounted(&[]);
    signal(home.process("guard"), libc::SIGKILL);
    wait_until("the worker unmounts", || !home.is_mounted());
    wait_until("the worker ends", || home.processes("worker").is_empty());
}

#[test]
fn a_signal_to_the_guardian_unmounts_in_good_order() {
    for number in [libc::SIGTERM, libc::SIGINT] {
        let (home, _sandbox, _) = mounted(&[]);
        signal(home.process("guard"), number);
        wait_until("the worker unmounts", || !home.is_mounted());
        wait_until("both end", || {
            home.processes("guard").is_empty() && home.processes("worker").is_empty()
        });
        assert!(home.log().contains("unmounted"), "{}", home.log());
    }
}

#[test]
fn in_the_foreground_it_says_when_it_is_ready_and_ctrl_c_unmounts() {
    let (sandbox, _) = repository();
    let home = Home::new();
    let mut command = Command::new(crate::machine::RDMFS);
    command
        .args(["mount", "--foreground", &sandbox.url()])
        .arg(home.mountpoint());
    home.dress(&mut command);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert!(line.starts_with("mounted http://"), "{line}");
    assert!(home.mountpoint().join("records").is_dir());
    signal(i32::try_from(child.id()).unwrap(), libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!home.is_mounted());
}

/// Leaves a mount without any process behind it.
fn dead_mount() -> (Home, Sandbox) {
    let (home, sandbox, _) = mounted(&[]);
    kill(&home);
    (home, sandbox)
}

/// Ends the processes of a mount so that nobody unmounts it.
pub fn kill(home: &Home) {
    let worker = home.process("worker");
    signal(home.process("guard"), libc::SIGSTOP);
    signal(worker, libc::SIGKILL);
    wait_until("the mount is dead", || {
        fs::metadata(home.mountpoint()).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
    signal(home.process("guard"), libc::SIGKILL);
    wait_until("the guardian is gone", || home.processes("guard").is_empty());
}

#[test]
fn a_dead_mount_is_shown_and_taken_off_by_unmount() {
    let (home, _sandbox) = dead_mount();
    home.run(["status", home.mountpoint().to_str().unwrap()])
        .expect(1, &["dead"]);
    home.unmount(&[]).expect(0, &["took the dead mount off"]);
    assert!(!home.is_mounted());
}

#[test]
fn a_dead_mount_is_replaced_by_mount() {
    let (home, sandbox) = dead_mount();
    home.mount(&[], &sandbox.url())
        .expect(0, &["took a dead mount off", "mounted"]);
    home.unmount(&[]).expect(0, &[]);
    assert!(!home.is_mounted());
}

#[test]
fn a_stuck_daemon_does_not_hang_the_commands() {
    let (home, _sandbox, _) = mounted(&[]);
    signal(home.process("worker"), libc::SIGSTOP);
    // What the kernel still has in its memory must not answer for the daemon.
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    home.run(["status", home.mountpoint().to_str().unwrap()])
        .expect(1, &["does not answer"]);
    home.unmount(&[]).expect(1, &["--now"]);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    signal(home.process("worker"), libc::SIGCONT);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_mount_in_use_is_not_taken_off_and_the_user_of_it_named() {
    let (home, _sandbox, id) = mounted(&[]);
    let file = fs::File::open(home.mountpoint().join("records").join(id).join("files/a.csv")).unwrap();
    let me = format!("({})", std::process::id());
    home.unmount(&[])
        .expect(1, &["is in use by", &me, "Close the files"]);
    assert!(home.is_mounted());
    drop(file);
    home.unmount(&[]).expect(0, &["unmounted"]);
}

#[test]
fn one_state_directory_has_one_daemon() {
    let (home, sandbox, _) = mounted(&[]);
    let second = home.path("second");
    fs::create_dir(&second).unwrap();
    home.run(["mount", &sandbox.url(), second.to_str().unwrap()])
        .expect(1, &["another rdmfs uses the state directory", "--state-dir"]);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn two_mounts_may_name_the_same_cache_directory() {
    let cache = tempfile::tempdir().unwrap();
    let flags = ["--cache-dir", cache.path().to_str().unwrap()];
    let (first, _sandbox, _) = mounted(&flags);
    let (other, id) = repository();
    let second = Home::new();
    let said = second.mount(&flags, &other.url());
    said.expect(0, &["another rdmfs uses the cache", "private-"]);
    let file = second.mountpoint().join("records").join(id).join("files/a.csv");
    assert_eq!(fs::read_to_string(file).unwrap(), "x,y\n1,2\n");
    second.unmount(&[]).expect(0, &[]);
    first.unmount(&[]).expect(0, &[]);
}

#[test]
fn unmount_waits_until_everything_has_arrived() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    let slow = Effect::Delay(Duration::from_secs(3));
    sandbox.fault(Fault::on(Route::PutContent).times(1).then(slow));
    fs::write(
        home.mountpoint().join("drafts").join(&draft).join("a.csv"),
        "x\n1\n",
    )
    .unwrap();
    home.unmount(&[])
        .expect(0, &["waiting for 1 uploads", "a.csv: uploaded", "unmounted"]);
    let arrived = sandbox.draft_file(&draft, "a.csv").unwrap();
    assert_eq!(
        (arrived.status.as_str(), arrived.bytes()),
        ("completed", b"x\n1\n".to_vec())
    );
}

#[test]
fn a_signal_lets_uploads_finish_first() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    let slow = Effect::Delay(Duration::from_secs(3));
    sandbox.fault(Fault::on(Route::PutContent).times(1).then(slow));
    fs::write(
        home.mountpoint().join("drafts").join(&draft).join("a.csv"),
        "x\n1\n",
    )
    .unwrap();
    signal(home.process("guard"), libc::SIGTERM);
    wait_until("the worker unmounts", || !home.is_mounted());
    assert_eq!(sandbox.draft_file(&draft, "a.csv").unwrap().status, "completed");
}

#[test]
fn a_refused_upload_is_named_and_kept_when_unmounting() {
    let (home, sandbox, draft) = mounted_with_token(&[]);
    sandbox.knobs(|knobs| knobs.quota = 1);
    let written = fs::write(
        home.mountpoint().join("drafts").join(&draft).join("a.csv"),
        "x\n1\n",
    );
    assert!(written.is_ok() || written.is_err_and(|error| error.raw_os_error() == Some(libc::EDQUOT)));
    let state = home.path(".local/state/rdmfs");
    home.unmount(&[]).expect(
        0,
        &[
            "not uploaded",
            "a.csv: refused",
            state.to_str().unwrap(),
            "unmounted",
        ],
    );
}

#[test]
fn unmounting_now_keeps_what_has_not_arrived() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    sandbox.fault(Fault::on(Route::PutContent).then(Effect::ServerError(503)));
    fs::write(
        home.mountpoint().join("drafts").join(&draft).join("a.csv"),
        "x\n1\n",
    )
    .unwrap();
    home.unmount(&["--now"])
        .expect(0, &["not uploaded", "a.csv", "are kept in", "unmounted"]);
}

#[test]
fn what_a_killed_daemon_had_not_sent_arrives_with_the_next_mount() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    sandbox.fault(Fault::on(Route::PutContent).then(Effect::ServerError(503)));
    fs::write(
        home.mountpoint().join("drafts").join(&draft).join("a.csv"),
        "x\n1\n",
    )
    .unwrap();
    signal(home.process("worker"), libc::SIGKILL);
    wait_until("the guardian unmounts and ends", || {
        !home.is_mounted() && home.processes("guard").is_empty()
    });
    sandbox.clear_faults();
    let token = home.file("token", ALICE);
    home.mount(&["--token-file", &token], &sandbox.url())
        .expect(0, &["signed in"]);
    home.unmount(&[]).expect(0, &["unmounted"]);
    let arrived = sandbox.draft_file(&draft, "a.csv").unwrap();
    assert_eq!(
        (arrived.status.as_str(), arrived.bytes()),
        ("completed", b"x\n1\n".to_vec())
    );
}

#[test]
fn an_ordinary_user_mounts_and_unmounts_with_fusermount3() {
    let (sandbox, id) = repository();
    let home = Home::new();
    let script = format!(
        r#"
        mount -t tmpfs none /dev; mknod -m 666 /dev/fuse c 10 229; mknod -m 666 /dev/null c 1 3
        chown 65534:65534 "$HOME" "$MNT"
        $AS_USER "$RDMFS" mount {} "$MNT"
        $AS_USER cat "$MNT/records/{id}/files/a.csv"
        $AS_USER "$RDMFS" unmount "$MNT""#,
        sandbox.url()
    );
    if let Some(outcome) = elsewhere(&home, &script) {
        outcome.expect(0, &["mounted http://", "x,y\n1,2\n", "unmounted"]);
    }
}
