//! fsx: random reads, writes, mappings and truncations of one file; what is read is compared with what was written.
//!
//! A failure prints the seed and fsx's own log of operations; `RDMFS_TEST_FSX_SEED` repeats or varies a run.

use std::fs;
use std::process::Command;

use rdm_sandbox::{Route, Sandbox};

use crate::programs::{Run, find, run};
use crate::support::{Mount, draft};

/// The file's largest size. Several of the kernel's writes, and small enough to be sent hundreds of times.
const LARGEST: usize = 256 << 10;

/// Everything that one program can do to a file it keeps open. Weights are relative.
const KEPT_OPEN: &str = "
    invalidate = 1
    mapread = 10
    mapwrite = 10
    read = 10
    write = 10
    truncate = 10
    fsync = 0.5
    fdatasync = 0.5
    posix_fallocate = 5
    punch_hole = 5
    # The kernel copies by itself; the mount has no part in it.
    copy_file_range = 5
    sendfile = 2
    posix_fadvise = 2
";

/// Every other operation or so closes the file and opens it again.
const REOPENED: &str = "
    close_open = 25
    # fsx never unmaps what it reads through a mapping. A file that is still mapped is still in use: it would be sent
    # once, when fsx ends.
    mapread = 0
    mapwrite = 10
    read = 10
    write = 10
    truncate = 10
    fsync = 1
    # Inside the file it changes nothing that could be sent.
    posix_fallocate = 0
    punch_hole = 2
    copy_file_range = 2
    sendfile = 2
";

/// The operations that change the file, as fsx's log calls them.
const CHANGES: [&str; 5] = ["write", "mapwrite", "truncate", "punch_hole", "copy_file_range"];

fn seed() -> u64 {
    let seed = std::env::var("RDMFS_TEST_FSX_SEED").map_or(20_260_101, |seed| {
        seed.parse().expect("RDMFS_TEST_FSX_SEED must be a whole number")
    });
    println!("RDMFS_TEST_FSX_SEED={seed}");
    seed
}

/// Runs fsx on the file `f` of a draft, and checks that the server has what the mount shows when it is done.
fn exercise(sandbox: &Sandbox, id: &str, mount: &Mount, weights: &str, operations: u32) -> Option<Run> {
    let program = find("fsx")?;
    let configuration = mount.local("fsx.toml");
    fs::write(
        &configuration,
        format!("flen = {LARGEST}\n[opsize]\nmax = 65536\n[weights]\n{weights}"),
    )
    .unwrap();
    let artifacts = mount.local("artifacts");
    fs::create_dir(&artifacts).unwrap();
    let file = mount.path(format!("drafts/{id}/f"));
    let run = run(
        Command::new(program)
            .arg("-v")
            .arg("-f")
            .arg(configuration)
            .args(["-N", &operations.to_string(), "-S", &seed().to_string(), "-P"])
            .arg(artifacts)
            .arg(&file),
        &mount.local("fsx.log"),
    );
    let last: Vec<&str> = run.said.lines().rev().take(60).collect();
    assert!(
        run.status.success(),
        "fsx: {}, in the last of these (latest first):\n{}",
        run.status,
        last.join("\n")
    );
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    let stored = sandbox.draft_file(id, "f").unwrap();
    assert_eq!(stored.status, "completed");
    assert!(
        stored.bytes() == fs::read(&file).unwrap(),
        "the server has other bytes than the mount shows"
    );
    Some(run)
}

/// The operations in fsx's log, in order.
fn operations(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| {
        let mut words = line.strip_prefix("[INFO  fsx]")?.split_whitespace();
        words.next()?.parse::<u32>().ok()?;
        words.next()
    })
}

#[test]
fn twenty_thousand_random_operations_keep_every_byte() {
    let (sandbox, id, mount) = draft();
    if exercise(&sandbox, &id, &mount, KEPT_OPEN, 20_000).is_none() {
        return;
    }
    let sent = sandbox.count(Route::PutContent);
    assert_eq!(sent, 1, "a file that stays open is sent once, when it is closed");
}

#[test]
fn two_hundred_closes_between_random_operations_send_every_change_and_nothing_twice() {
    let (sandbox, id, mount) = draft();
    let Some(run) = exercise(&sandbox, &id, &mount, REOPENED, 1_000) else {
        return;
    };
    // The end of fsx closes the file, too.
    let (mut closes, mut with_changes, mut changed) = (0, 0, true);
    for operation in operations(&run.said).chain(["close/open"]) {
        if operation == "close/open" {
            closes += 1;
            with_changes += usize::from(changed);
            changed = false;
        }
        changed |= CHANGES.contains(&operation);
    }
    assert!(closes > 200, "only {closes} closes");
    let sent = sandbox.count(Route::PutContent);
    println!("{closes} closes, {with_changes} of them after changes; sent {sent} times");
    assert!(
        sent <= with_changes,
        "something was sent twice: {sent}, {with_changes}"
    );
    // A few go with the next: the new file as long as it is empty, whose close nobody waits for; and a file that is
    // closed before the kernel has released the handle of the close before, so that it is still in use.
    assert!(
        sent * 20 >= with_changes * 19,
        "closed {with_changes} times after changes, sent {sent} times"
    );
}
