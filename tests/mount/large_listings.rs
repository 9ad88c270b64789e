//! Records with many files and walks through many of them: few requests, little memory.

use std::fs;

use rdm_sandbox::{NewRecord, Route, Sandbox};

use crate::support::{Mount, how, mount, names, shell, until};

/// A line of /proc/PID/status in KiB.
fn memory(mount: &Mount, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mount.worker())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_files_are_listed_with_two_requests_at_most_and_then_none() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish_many(1, 10_000).remove(0);
    let mount = mount(&sandbox);
    let folder = mount.path("records").join(&id).join("files");
    sandbox.reset_counts();
    let list = || shell(&format!("ls -l {}", folder.display()));
    let listed = list();
    // A head, and a line for each file.
    assert_eq!(listed.lines().count(), 10_001);
    assert!(sandbox.total() <= 2, "{:?}", sandbox.counts());
    sandbox.reset_counts();
    assert_eq!(list(), listed);
    let found = shell(&format!(
        "find {} -type f -size -1k -o -name '*9.csv' | wc -l",
        folder.display()
    ));
    assert_eq!(found.trim(), "1000");
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.counts());
    assert_eq!(
        fs::read_to_string(folder.join("file-009999.csv")).unwrap(),
        "number\n9999\n"
    );
}

#[test]
fn a_folder_that_the_kernel_keeps_is_told_anew_when_its_time_is_over() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish_many(1, 5).remove(0);
    // Then each look at each file asks anew.
    let mount = how(&sandbox.url()).arguments(&["--metadata-ttl", "0s"]).start();
    let folder = mount.path("records").join(&id).join("files");
    let list = || shell(&format!("ls -l {}", folder.display()));
    let listed = list();
    sandbox.reset_counts();
    assert_eq!(list(), listed);
    assert!(sandbox.count(Route::Record) > 0, "{:?}", sandbox.counts());
}

#[test]
fn many_drafts_are_listed_by_the_page() {
    let sandbox = Sandbox::start();
    for number in 0..250 {
        sandbox.draft(NewRecord::titled(&format!("Draft {number}")));
    }
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    assert_eq!(names(&mount.path("drafts")).len(), 250);
    assert_eq!(sandbox.total(), 3, "{:?}", sandbox.counts());
}

#[test]
fn the_beginning_of_a_long_listing_costs_one_page() {
    let sandbox = Sandbox::start();
    sandbox.publish_many(300, 1);
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let shown = shell(&format!("ls {} | head -3", mount.path("records").display()));
    assert_eq!(shown.lines().count(), 3);
    assert_eq!(sandbox.total(), 1, "{:?}", sandbox.counts());
}

#[test]
fn a_daemon_is_small_again_after_fifty_thousand_files_when_the_kernel_forgets_them() {
    let sandbox = Sandbox::start();
    let ids = sandbox.publish_many(50, 1_000);
    let mount = mount(&sandbox);
    for id in &ids {
        let folder = mount.path("records").join(id).join("files");
        assert_eq!(
            shell(&format!("ls -l {} | wc -l", folder.display())).trim(),
            "1001"
        );
    }
    assert!(mount.status().inodes > 50_000);
    let peak = memory(&mount, "VmHWM");
    assert!(peak < 200 << 10, "{peak} KiB");
    if fs::write("/proc/sys/vm/drop_caches", "2").is_err() {
        eprintln!("the kernel can't be made to forget: only root may");
        return;
    }
    // The kernel keeps what it looked at last for a while.
    until("the numbers are forgotten", || {
        let _ = fs::write("/proc/sys/vm/drop_caches", "2");
        mount.status().inodes < 500
    });
    until("its memory is given back", || memory(&mount, "VmRSS") < 120 << 10);
}
