//! What is not safe on the server: listing, retrying, discarding and recovering it, with and without a mount.
//!
//! Other tests have mounts of their own at the same time, which a list without a place shows too: numbers are given
//! with the mount or the repository they are of.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, Effect, Fault, Route, Sandbox};
use serde_json::Value;

use crate::machine::{Home, signal, wait_until};
use crate::mounted::mounted_with_token;

/// The path of a draft's file in the mount.
fn file(home: &Home, draft: &str, key: &str) -> PathBuf {
    home.mountpoint().join("drafts").join(draft).join(key)
}

/// A mount with one file that the repository refuses.
fn refused() -> (Home, Sandbox, String) {
    let (home, sandbox, draft) = mounted_with_token(&[]);
    sandbox.knobs(|knobs| knobs.quota = 1);
    // That close() fails is seen only by those who ask.
    let _ = fs::write(file(&home, &draft, "a.csv"), "x\n1\n");
    wait_until("it is refused", || {
        listed(&home, &sandbox)
            .iter()
            .any(|upload| upload["state"] == "refused")
    });
    (home, sandbox, draft)
}

/// What is listed of a repository, with or without a mount.
fn listed(home: &Home, sandbox: &Sandbox) -> Vec<Value> {
    let outcome = home.run(["uploads", "list", "--json"]);
    let all: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}"));
    all.into_iter()
        .filter(|upload| upload["repository"] == sandbox.url())
        .collect()
}

/// The one number that is listed.
#[track_caller]
fn number(home: &Home, sandbox: &Sandbox) -> String {
    let listed = listed(home, sandbox);
    assert_eq!(listed.len(), 1, "{listed:#?}");
    listed[0]["id"].to_string()
}

/// Kills the daemon, and waits until the mount is gone.
fn kill(home: &Home) {
    signal(home.process("worker"), libc::SIGKILL);
    wait_until("the guardian unmounts and ends", || {
        !home.is_mounted() && home.processes("guard").is_empty()
    });
}

/// A home in which a daemon was killed while a file was open, which is listed as unclosed.
fn unclosed() -> (Home, Sandbox, String) {
    let (home, sandbox, draft) = mounted_with_token(&[]);
    let mut open = File::create(file(&home, &draft, "a.csv")).unwrap();
    open.write_all(b"unfinished").unwrap();
    open.sync_all().unwrap();
    kill(&home);
    (home, sandbox, draft)
}

fn mount_again(home: &Home, sandbox: &Sandbox) {
    let token = home.file("token", ALICE);
    home.mount(&["--token-file", &token], &sandbox.url())
        .expect(0, &["signed in"]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_refused_file_is_listed_with_its_reason_and_where_it_is_kept() {
    let (home, sandbox, draft) = refused();
    let place = home.mountpoint();
    let listed = listed(&home, &sandbox);
    assert_eq!(listed[0]["draft"], draft);
    assert_eq!(listed[0]["key"], "a.csv");
    assert_eq!(listed[0]["mountpoint"], text(&place));
    assert!(
        listed[0]["reason"].as_str().unwrap().contains("quota"),
        "{listed:#?}"
    );
    let kept = listed[0]["kept"].as_str().unwrap();
    assert_eq!(fs::read_to_string(kept).unwrap(), "x\n1\n");
    let lines = home.run(["uploads", text(&place)]);
    lines.expect(0, &["refused", "a.csv", "quota", kept]);
    assert_eq!(lines.stdout.lines().count(), 1, "{lines:#?}");
    let elsewhere = place.join("drafts").join("other-draft");
    assert_eq!(
        home.run(["uploads", "list", text(&elsewhere)])
            .expect(0, &[])
            .stdout,
        ""
    );
    let inside = place.join("drafts").join(&draft);
    home.run(["uploads", "list", text(&inside)]).expect(0, &["a.csv"]);
}

#[test]
fn status_and_unmount_name_the_commands_to_decide_by() {
    let (home, sandbox, _) = refused();
    let id = number(&home, &sandbox);
    home.run(["status", text(&home.mountpoint())]).expect(
        0,
        &[
            "refused: 1, kept until you decide",
            &format!("rdmfs uploads retry {id}"),
        ],
    );
    home.unmount(&[]).expect(
        0,
        &[
            "a.csv: refused",
            &format!("rdmfs uploads retry {id}"),
            "unmounted",
        ],
    );
}

#[test]
fn a_refused_file_is_recovered_by_its_path_and_never_over_another_one() {
    let (home, _sandbox, draft) = refused();
    let path = file(&home, &draft, "a.csv");
    let folder = home.path("rescued");
    fs::create_dir(&folder).unwrap();
    let recover = |more: &[&str]| {
        let mut arguments = vec!["uploads", "recover", text(&path), text(&folder)];
        arguments.extend(more);
        home.run(arguments)
    };
    recover(&[]).expect(0, &["copied", "a.csv", "rdmfs uploads discard"]);
    let copy = folder.join("a.csv");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "x\n1\n");
    fs::write(&copy, "mine").unwrap();
    recover(&[]).expect(1, &["is there already", "--force"]);
    assert_eq!(fs::read_to_string(&copy).unwrap(), "mine");
    let said: Value = serde_json::from_str(&recover(&["--force", "--json"]).stdout).unwrap();
    assert_eq!((&said["key"], &said["size"]), (&"a.csv".into(), &4.into()));
    assert_eq!(fs::read_to_string(&copy).unwrap(), "x\n1\n");
    home.run([
        "uploads",
        "recover",
        text(&path),
        text(&file(&home, &draft, "b.csv")),
    ])
    .expect(2, &["is in a mount of rdmfs"]);
}

#[test]
fn what_a_killed_daemon_left_is_listed_and_recovered_without_a_mount() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)));
    let path = file(&home, &draft, "a.csv");
    fs::write(&path, "closed").unwrap();
    let mut open = OpenOptions::new().append(true).open(&path).unwrap();
    open.write_all(b", and more").unwrap();
    open.sync_all().unwrap();
    kill(&home);
    let left = listed(&home, &sandbox);
    let told: Vec<_> = left
        .iter()
        .map(|upload| {
            (
                upload["state"].as_str().unwrap(),
                upload["size"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [("queued", 6), ("unclosed", 16)]);
    assert!(
        left.iter().all(|upload| upload["mountpoint"].is_null()),
        "{left:#?}"
    );
    let id = left[0]["id"].to_string();
    let (closed, unclosed) = (home.path("closed"), home.path("unclosed"));
    let url = sandbox.url();
    home.run(["uploads", "recover", &id, "--mount", &url, text(&closed)])
        .expect(0, &["copied", "--unclosed"]);
    assert_eq!(fs::read_to_string(closed).unwrap(), "closed");
    home.run([
        "uploads",
        "recover",
        &id,
        "--unclosed",
        "--mount",
        &url,
        text(&unclosed),
    ])
    .expect(0, &["copied", "stays listed"]);
    assert_eq!(fs::read_to_string(unclosed).unwrap(), "closed, and more");
    home.run(["uploads", "recover", "99", "--mount", &url])
        .expect(1, &["no upload has the number 99", "rdmfs uploads lists"]);
    assert_eq!(listed(&home, &sandbox).len(), 2, "looking changes nothing");
}

#[test]
fn another_state_directory_is_looked_at_when_named() {
    let (home, sandbox, _) = unclosed();
    assert_eq!(listed(&home, &sandbox).len(), 1);
    let state = home.path("elsewhere");
    fs::rename(home.path(".local/state/rdmfs"), &state).unwrap();
    assert!(listed(&home, &sandbox).is_empty());
    let named = home.run(["uploads", "--state-dir", text(&state)]);
    assert!(named.stdout.contains("unclosed"), "{named:#?}");
    let copy = home.path("copy");
    home.run([
        "uploads",
        "recover",
        "1",
        text(&copy),
        "--mount",
        &sandbox.url(),
        "--state-dir",
        text(&state),
    ])
    .expect(0, &["copied"]);
    assert_eq!(fs::read_to_string(copy).unwrap(), "unfinished");
}

#[test]
fn a_file_beside_a_stuck_daemon_is_recovered() {
    let (home, _sandbox, draft) = refused();
    signal(home.process("worker"), libc::SIGSTOP);
    // What the kernel still has in its memory must not answer for the daemon.
    std::thread::sleep(Duration::from_secs(2));
    home.run(["uploads", text(&home.mountpoint())])
        .expect(1, &["does not answer within"]);
    let path = file(&home, &draft, "a.csv");
    let place = home.mountpoint();
    let by_number = ["1", "--mount", text(&place)];
    for (number, item) in [&by_number[..], &[text(&path)]].into_iter().enumerate() {
        let copy = home.path(&format!("copy-{number}"));
        let mut recover = vec!["uploads", "recover"];
        recover.extend(item);
        recover.insert(3, text(&copy));
        home.run(recover).expect(0, &["copied"]);
        assert_eq!(fs::read_to_string(copy).unwrap(), "x\n1\n");
    }
    let began = Instant::now();
    home.run(["uploads", "retry", text(&path)])
        .expect(1, &["does not answer within"]);
    assert!(began.elapsed() < Duration::from_secs(60));
    signal(home.process("worker"), libc::SIGCONT);
}

#[test]
fn nothing_is_discarded_without_asking() {
    let (home, _sandbox, draft) = refused();
    home.run(["uploads", "discard", text(&file(&home, &draft, "a.csv"))])
        .expect(2, &["no terminal to ask on", "--yes"]);
    assert_eq!(
        fs::read_to_string(file(&home, &draft, "a.csv")).unwrap(),
        "x\n1\n"
    );
}

#[test]
fn wrong_usage_is_told_and_nothing_is_done() {
    let (home, sandbox, _) = refused();
    for wrong in [
        vec!["uploads", "retry"],
        vec!["uploads", "discard", "--all", "1"],
        vec!["uploads", "recover"],
        vec!["status", "--watch", "--json"],
    ] {
        assert_eq!(home.run(&wrong).code, Some(2), "{wrong:?}");
    }
    home.run(["uploads", "list", "/"])
        .expect(1, &["is in no mount of rdmfs"]);
    let records = home.mountpoint().join("records/abc");
    home.run(["uploads", "retry", text(&records)])
        .expect(1, &["is in no draft"]);
    assert_eq!(listed(&home, &sandbox).len(), 1);
}

#[test]
fn discarding_needs_the_mount() {
    let (home, sandbox, _) = unclosed();
    // Some other mount, so that there is one to ask.
    let (_other, _, _) = mounted_with_token(&[]);
    home.run(["uploads", "discard", "--yes", "1", "--mount", &sandbox.url()])
        .expect(
            1,
            &[
                "no upload has the number 1",
                "not mounted",
                "recover works without",
            ],
        );
    assert_eq!(listed(&home, &sandbox).len(), 1);
}

#[test]
fn a_refused_file_is_sent_when_it_is_retried() {
    let (home, sandbox, draft) = refused();
    let id = number(&home, &sandbox);
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    home.run(["uploads", "retry", &id, "--mount", text(&home.mountpoint())])
        .expect(0, &["a.csv: is tried again"]);
    wait_until("it is sent", || listed(&home, &sandbox).is_empty());
    assert_eq!(sandbox.draft_file(&draft, "a.csv").unwrap().bytes(), b"x\n1\n");
}

#[test]
fn all_refused_files_are_retried_at_once() {
    let (home, sandbox, draft) = refused();
    let _ = fs::write(file(&home, &draft, "b.csv"), "y\n");
    wait_until("both are refused", || {
        let listed = listed(&home, &sandbox);
        listed
            .iter()
            .filter(|upload| upload["state"] == "refused")
            .count()
            == 2
    });
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    let said = home.run([
        "uploads",
        "retry",
        "--all",
        "--json",
        "--mount",
        text(&home.mountpoint()),
    ]);
    let said: Vec<Value> = serde_json::from_str(&said.expect(0, &[]).stdout).unwrap();
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|outcome| outcome["ok"] == true), "{said:#?}");
    wait_until("both are sent", || listed(&home, &sandbox).is_empty());
    assert_eq!(sandbox.draft_file(&draft, "b.csv").unwrap().bytes(), b"y\n");
}

#[test]
fn a_discarded_file_is_gone_with_its_bytes() {
    let (home, sandbox, draft) = refused();
    let kept = listed(&home, &sandbox)[0]["kept"].as_str().unwrap().to_owned();
    home.run(["uploads", "discard", "--yes", text(&file(&home, &draft, "a.csv"))])
        .expect(0, &["a.csv: discarded"]);
    assert!(listed(&home, &sandbox).is_empty());
    wait_until("its bytes are gone", || !Path::new(&kept).exists());
    assert!(!file(&home, &draft, "a.csv").exists());
}

#[test]
fn an_unclosed_file_is_listed_by_the_next_mount_until_it_is_discarded() {
    let (home, sandbox, _) = unclosed();
    mount_again(&home, &sandbox);
    let left = listed(&home, &sandbox);
    assert_eq!(left.len(), 1, "{left:#?}");
    assert_eq!(
        (&left[0]["state"], &left[0]["size"]),
        (&"unclosed".into(), &10.into())
    );
    let id = left[0]["id"].to_string();
    let (place, copy) = (home.mountpoint(), home.path("copy"));
    home.run(["status", text(&place)])
        .expect(0, &["never closed: 1", &format!("rdmfs uploads recover {id}")]);
    home.run(["uploads", "recover", &id, text(&copy), "--mount", text(&place)])
        .expect(0, &["copied"]);
    assert_eq!(fs::read_to_string(copy).unwrap(), "unfinished");
    assert_eq!(listed(&home, &sandbox).len(), 1);
    home.run(["uploads", "discard", "--yes", &id, "--mount", text(&place)])
        .expect(0, &["discarded"]);
    assert!(listed(&home, &sandbox).is_empty());
    home.unmount(&[]).expect(0, &["unmounted"]);
    assert!(
        listed(&home, &sandbox).is_empty(),
        "nothing is left in the state directory"
    );
}

#[test]
fn a_number_that_the_daemon_does_not_know_any_more_is_an_error_with_advice() {
    let (home, sandbox, draft) = refused();
    let id = number(&home, &sandbox);
    fs::remove_file(file(&home, &draft, "a.csv")).unwrap();
    home.run(["uploads", "retry", &id, "--mount", text(&home.mountpoint())])
        .expect(1, &["no upload has the number", "rdmfs uploads lists"]);
}

#[test]
fn watching_tells_each_change_and_ends_with_the_mount() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    let slow = Effect::Delay(Duration::from_secs(2));
    sandbox.fault(Fault::on(Route::PutContent).times(1).then(slow));
    let mut watching = home
        .command(["status", "--watch", text(&home.mountpoint())])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    fs::write(file(&home, &draft, "a.csv"), "x\n1\n").unwrap();
    let told: Vec<String> = lines
        .by_ref()
        .take_while(|line| !line.contains("a.csv: uploaded"))
        .collect();
    assert!(
        told.iter().any(|line| line.contains("a.csv: sending")),
        "{told:#?}"
    );
    home.unmount(&[]).expect(0, &["unmounted"]);
    assert!(lines.any(|line| line.contains("is no longer watched")));
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}
