//! How many requests things cost.

use std::fs;

use rdm_sandbox::{NewRecord, Route, Sandbox};

use crate::support::{mount, shell};

#[test]
fn listing_a_record_costs_two_requests_at_most_and_then_none() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1").file("b/c", "2"));
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let record = mount.path("records").join(&id);
    shell(&format!("ls -lR {}", record.display()));
    assert!(sandbox.total() <= 2, "{:?}", sandbox.counts());
    sandbox.reset_counts();
    shell(&format!(
        "ls -lR {0}; stat {0}/files/a {0}/record.json",
        record.display()
    ));
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.counts());
}

#[test]
fn walking_the_newest_page_costs_one_request_and_one_for_each_record_with_restricted_files() {
    let sandbox = Sandbox::start();
    for number in 0..24 {
        sandbox.publish(
            NewRecord::titled(&format!("Number {number}"))
                .file("a", "1")
                .file("b/c", "2"),
        );
    }
    let hidden = sandbox.publish(
        NewRecord::titled("Hidden")
            .restricted_files()
            .owner("bob")
            .file("a", "1"),
    );
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    // It fails on the restricted folder, as it should.
    shell(&format!(
        "ls -lR {} 2>&1 | grep -c {hidden}",
        mount.path("records").display()
    ));
    assert_eq!(sandbox.count(Route::Search), 1);
    assert_eq!(sandbox.total(), 2, "{:?}", sandbox.counts());
}

#[test]
fn probing_costs_nothing() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = mount(&sandbox);
    let folders = [
        "",
        "records",
        "drafts",
        &format!("records/{id}"),
        &format!("records/{id}/files"),
        &format!("drafts/{draft}"),
    ]
    .map(|path| mount.path(path));
    for folder in &folders {
        fs::metadata(folder).unwrap();
    }
    sandbox.reset_counts();
    for folder in &folders {
        for name in [
            ".git",
            ".hidden",
            ".Trash-1000",
            ".directory",
            "autorun.inf",
            "desktop.ini",
            ".DS_Store",
            "._a",
            ".xdg-volume-info",
            ".svn",
            ".hg",
            "BDMV",
            "lost+found",
        ] {
            assert!(fs::metadata(folder.join(name)).is_err(), "{name}");
        }
    }
    for name in [
        "HEAD",
        "objects",
        "refs",
        "config",
        ".anything",
        "Cargo.toml",
        "index.html",
    ] {
        assert!(fs::metadata(mount.path("records").join(name)).is_err());
        assert!(fs::metadata(mount.path("drafts").join(name)).is_err());
    }
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.requests());
}

#[test]
fn a_name_that_is_not_there_is_asked_for_once() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    for _ in 0..10 {
        assert!(fs::metadata(mount.path("records/zzzzz-99999")).is_err());
    }
    assert_eq!(sandbox.total(), 1);
}

#[test]
fn concurrent_lookups_of_one_record_are_one_request() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    sandbox.knobs(|knobs| knobs.latency = std::time::Duration::from_millis(200));
    sandbox.reset_counts();
    let path = mount.path(format!("records/{id}/files/a"));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| fs::metadata(&path).unwrap());
        }
    });
    assert_eq!(sandbox.total(), 1, "{:?}", sandbox.counts());
}

#[test]
fn a_new_file_costs_three_requests_and_its_list_is_known_after() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    let folder = mount.path("drafts").join(&draft);
    fs::read_dir(&folder).unwrap().count();
    sandbox.reset_counts();
    fs::write(folder.join("a.csv"), "1,2\n").unwrap();
    let counts = sandbox.counts();
    assert_eq!(sandbox.count(Route::StartFiles), 1, "{counts:?}");
    assert_eq!(sandbox.count(Route::PutContent), 1, "{counts:?}");
    assert_eq!(sandbox.count(Route::Commit), 1, "{counts:?}");
    assert_eq!(fs::metadata(folder.join("a.csv")).unwrap().len(), 4);
}

#[test]
fn requests_say_who_asks() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    fs::read_dir(mount.path("records")).unwrap().count();
    for request in sandbox.requests() {
        let agent = request.user_agent.unwrap();
        assert!(
            agent.starts_with(concat!("rdmfs/", env!("CARGO_PKG_VERSION"), " (+http")),
            "{agent}"
        );
    }
}
