//! What an earlier mount knew, and a repository that can't be reached.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, Effect, Fault, NewRecord, Route, Sandbox};
use tempfile::TempDir;

use crate::support::{Mount, Plan, errno, how, mount, mount_again, names, noise, shell, until};

const SIZE: usize = 2_000_000;

fn snow() -> NewRecord {
    NewRecord::titled("Snow")
        .file("a.csv", noise(SIZE, 1))
        .file("maps/b.tif", noise(SIZE, 2))
}

/// A repository, and a record in it.
fn snowy() -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(snow());
    (sandbox, id)
}

/// A mount that asks for everything anew each time.
fn asking(url: &str) -> Plan {
    how(url).token(ALICE).arguments(&["--metadata-ttl", "0s"])
}

/// The repository and its record, such a mount that has looked at it, and the record's document.
fn looking() -> (Sandbox, String, Mount, String) {
    let (sandbox, id) = snowy();
    let mount = asking(&sandbox.url()).start();
    let document = look(&mount, &id);
    (sandbox, id, mount, document)
}

/// Looks at a record as a user would, reads one of its files and its document, and returns the latter.
fn look(mount: &Mount, id: &str) -> String {
    assert!(names(&mount.path("records")).contains(&id.to_owned()));
    let record = mount.path("records").join(id);
    shell(&format!("ls -lR {}", record.display()));
    assert!(fs::read(record.join("files/a.csv")).unwrap() == noise(SIZE, 1));
    fs::read_to_string(record.join("record.json")).unwrap()
}

/// A folder in which a mount has looked at this record, and the record's document.
fn looked_at(sandbox: &Sandbox, id: &str) -> (TempDir, String) {
    let mount = mount(sandbox);
    let document = look(&mount, id);
    (mount.unmount(&[]), document)
}

fn said_by_status(place: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rdmfs"))
        .arg("status")
        .arg(place)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_an_earlier_mount_learned_is_used_without_a_request_for_as_long_as_it_is_current() {
    let (sandbox, id) = snowy();
    let concept = sandbox.concept_of(&id);
    let first = mount(&sandbox);
    let document = look(&first, &id);
    fs::read_dir(first.path("records").join(&concept).join("files"))
        .unwrap()
        .count();
    let folder = first.unmount(&[]);
    let second = how(&sandbox.url())
        .token(ALICE)
        .folder(folder)
        .arguments(&["--metadata-ttl", "1h"])
        .start();
    sandbox.reset_counts();
    assert_eq!(look(&second, &id), document);
    let target = fs::read_link(second.path("records").join(&concept)).unwrap();
    assert_eq!(target, Path::new(&id));
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.counts());
}

#[test]
fn what_an_earlier_mount_learned_is_asked_for_again_when_its_time_is_over_or_a_user_wants_it() {
    let (sandbox, id) = snowy();
    let (folder, document) = looked_at(&sandbox, &id);
    let over = asking(&sandbox.url()).folder(folder).start();
    sandbox.reset_counts();
    assert_eq!(look(&over, &id), document);
    assert!(sandbox.count(Route::Record) > 0, "{:?}", sandbox.counts());
    let wanted = mount_again(&sandbox, over.unmount(&[]));
    fs::write(wanted.path(".rdmfs/control"), "refresh\n").unwrap();
    sandbox.reset_counts();
    // Not by way of a listing, which tells of it too.
    let path = wanted.path("records").join(&id).join("record.json");
    assert_eq!(fs::read_to_string(path).unwrap(), document);
    assert!(sandbox.count(Route::Record) > 0, "{:?}", sandbox.counts());
}

#[test]
fn a_repository_that_is_gone_is_mounted_and_what_was_known_is_listed_and_read() {
    let (sandbox, id) = snowy();
    let url = sandbox.url();
    let (folder, document) = looked_at(&sandbox, &id);
    drop(sandbox);
    let mount = asking(&url).folder(folder).start();
    assert!(mount.log().contains("can't be reached"), "{}", mount.log());
    assert_eq!(look(&mount, &id), document);
    let files = mount.path("records").join(&id).join("files");
    assert_eq!(fs::metadata(files.join("maps/b.tif")).unwrap().len(), SIZE as u64);
    // What was never read is not here, what was never looked at not known.
    assert_eq!(errno(fs::read(files.join("maps/b.tif"))), libc::EIO);
    assert_eq!(errno(fs::metadata(mount.path("records/zzzzz-99999"))), libc::EIO);
    let offline = mount.status().offline.expect("it is said");
    assert!(offline.known_at.is_some(), "{offline:?}");
    let said = said_by_status(&mount.path(""));
    assert!(said.contains("offline since"), "{said}");
    assert!(said.contains("showing what was known at"), "{said}");
}

#[test]
fn looking_costs_no_time_limits_while_the_repository_is_gone() {
    let (sandbox, id) = snowy();
    let url = sandbox.url();
    let (folder, _) = looked_at(&sandbox, &id);
    drop(sandbox);
    let mount = how(&url).token(ALICE).folder(folder).start();
    // A single request that is tried until it has failed takes some seconds.
    let began = Instant::now();
    for number in 0..100 {
        let path = mount.path(format!("records/zzzzz-{number:05}"));
        assert_eq!(errno(fs::metadata(path)), libc::EIO);
    }
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
}

#[test]
fn a_repository_of_which_nothing_is_known_is_not_mounted_while_it_is_gone() {
    let (sandbox, id) = snowy();
    let url = sandbox.url();
    let (folder, _) = looked_at(&sandbox, &id);
    drop(sandbox);
    // What one user knows is not shown to another.
    let Err((_, folder)) = how(&url).folder(folder).try_start() else {
        panic!("a guest sees what alice knows")
    };
    let Err((_, folder)) = how(&url).token("other").folder(folder).try_start() else {
        panic!("another user sees what alice knows")
    };
    look(&how(&url).token(ALICE).folder(folder).start(), &id);
}

#[test]
fn a_repository_that_falls_silent_is_stale_until_it_answers_again() {
    let (sandbox, id, mount, document) = looking();
    sandbox.fault(Fault::anywhere().then(Effect::Reset));
    assert_eq!(look(&mount, &id), document);
    assert!(mount.status().offline.is_some());
    sandbox.clear_faults();
    let new = sandbox.publish(NewRecord::titled("New").file("a", "1"));
    until("it is asked again", || {
        names(&mount.path("records")).contains(&new)
    });
    assert!(mount.status().offline.is_none());
}

#[test]
fn a_file_that_is_read_or_sent_ends_the_silence() {
    let (sandbox, id) = snowy();
    let draft = sandbox.draft(NewRecord::titled("Rain").file("old.csv", "1"));
    let mount = asking(&sandbox.url()).start();
    look(&mount, &id);
    let drafts = mount.path("drafts").join(&draft);
    names(&drafts);
    let falls_silent = || {
        sandbox.fault(Fault::anywhere().then(Effect::Reset));
        until("it is noticed", || {
            look(&mount, &id);
            mount.status().offline.is_some()
        });
        sandbox.clear_faults();
        // It is not a probe that finds out.
        sandbox.fault(Fault::on(Route::Search).then(Effect::Reset));
    };
    falls_silent();
    let file = mount.path("records").join(&id).join("files/maps/b.tif");
    assert!(fs::read(file).unwrap() == noise(SIZE, 2));
    assert!(mount.status().offline.is_none(), "its bytes came");
    falls_silent();
    fs::write(drafts.join("new.csv"), "2").unwrap();
    assert!(mount.status().offline.is_none(), "it was committed");
}

#[test]
fn what_is_known_is_shown_while_the_rate_limit_wants_a_long_pause_and_the_status_says_so() {
    let (sandbox, id, mount, document) = looking();
    sandbox.fault(Fault::anywhere().then(Effect::TooManyRequests { retry_after: 600 }));
    assert_eq!(look(&mount, &id), document);
    let status = mount.status();
    assert!(status.offline.is_none());
    assert!(status.overdue.unwrap().reason.contains("rate limit"));
    let said = said_by_status(&mount.path(""));
    assert!(said.contains("showing in part what was known at"), "{said}");
}

#[test]
fn a_page_of_something_else_hides_nothing_that_was_known() {
    let (sandbox, id, mount, document) = looking();
    sandbox.fault(Fault::anywhere().then(Effect::HtmlError(403)));
    assert_eq!(look(&mount, &id), document);
    let folder = mount.unmount(&[]);
    sandbox.clear_faults();
    let mount = how(&sandbox.url()).token(ALICE).folder(folder).start();
    sandbox.reset_counts();
    assert_eq!(look(&mount, &id), document);
    assert_eq!(sandbox.total(), 0, "it was kept: {:?}", sandbox.counts());
}

#[test]
fn a_record_that_is_gone_by_the_repositorys_word_is_not_shown_from_what_was_known() {
    let (sandbox, id) = snowy();
    let url = sandbox.url();
    let (folder, _) = looked_at(&sandbox, &id);
    sandbox.fault(
        Fault::on(Route::Record)
            .record(&id)
            .then(Effect::ServerError(403)),
    );
    let mount = asking(&url).folder(folder).start();
    let path = mount.path("records").join(&id);
    assert_eq!(errno(fs::metadata(&path)), libc::EACCES);
    let folder = mount.unmount(&[]);
    drop(sandbox);
    let mount = how(&url).token(ALICE).folder(folder).start();
    let path = mount.path("records").join(&id);
    assert_eq!(errno(fs::metadata(&path)), libc::EIO);
}

#[test]
fn a_daemon_that_was_killed_leaves_what_it_knew() {
    let (sandbox, id) = snowy();
    let url = sandbox.url();
    let first = mount(&sandbox);
    let document = look(&first, &id);
    let kept = first.local("cache/catalog");
    until("it is kept", || {
        shell(&format!("find {} -name {id} -type f", kept.display())).contains(&id)
    });
    crate::support::kill(&first);
    let folder = crate::support::ended(first);
    drop(sandbox);
    let second = how(&url).token(ALICE).folder(folder).start();
    assert_eq!(look(&second, &id), document);
}

#[test]
fn nothing_on_disk_tells_the_token() {
    let (sandbox, id) = snowy();
    let (folder, _) = looked_at(&sandbox, &id);
    let cache = folder.path().join("cache");
    let found = shell(&format!("grep -rl {ALICE} {} || true", cache.display()));
    assert_eq!(found, "");
    assert!(!shell(&format!("find {}/catalog -type f", cache.display())).is_empty());
}
