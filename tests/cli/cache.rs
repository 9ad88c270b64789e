//! `rdmfs cache`: keeping files offline, pinning, checking and dropping them, with and without a mount.
//!
//! Every command names its mount or its cache: other tests have theirs at the same time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rdm_sandbox::{Data, Effect, Fault, NewRecord, Route, Sandbox};
use serde_json::Value;

use crate::machine::{Home, Outcome, signal, wait_until};

const MIB: u64 = 1 << 20;

/// A mount of a repository with one record: files of these sizes, named a, b, c …
struct World {
    home: Home,
    sandbox: Sandbox,
    id: String,
}

impl World {
    fn new(sizes: &[u64], flags: &[&str]) -> World {
        let sandbox = Sandbox::start();
        let record = sizes
            .iter()
            .enumerate()
            .fold(NewRecord::titled("Depths"), |record, (i, size)| {
                record.file(&key(i), Data::generated(*size, 5 + i as u64))
            });
        let id = sandbox.publish(record);
        let world = World {
            home: Home::new(),
            sandbox,
            id,
        };
        world.mount(flags);
        world
    }

    fn mount(&self, flags: &[&str]) {
        let cache = self.cache();
        let flags = [&["--cache-dir", text(&cache)], flags].concat();
        self.home
            .mount(&flags, &self.sandbox.url())
            .expect(0, &["mounted"]);
    }

    fn kill(&self) {
        signal(self.home.process("worker"), libc::SIGKILL);
        wait_until("the guardian unmounts and ends", || {
            !self.home.is_mounted() && self.home.processes("guard").is_empty()
        });
    }

    fn cache(&self) -> PathBuf {
        self.home.path("cache")
    }

    fn record(&self) -> PathBuf {
        self.home.mountpoint().join("records").join(&self.id)
    }

    fn file(&self, i: usize) -> PathBuf {
        self.record().join("files").join(key(i))
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.home.run([&["cache"], arguments].concat())
    }

    /// The outcomes of a command with `--json`, for its one cache.
    fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let outcome = self.run(&[arguments, &["--json"]].concat());
        let mut all: Vec<Value> =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}"));
        assert_eq!(all.len(), 1, "{outcome:#?}");
        (outcome.code, all.remove(0))
    }

    /// What `cache status` says of a file.
    fn state(&self, i: usize) -> Value {
        let (code, said) = self.json(&["status", text(&self.file(i))]);
        assert_eq!(code, Some(0));
        said["files"][0].clone()
    }

    /// What `cache status` says of the whole cache.
    fn whole(&self) -> Value {
        self.json(&["status", text(&self.home.mountpoint())]).1
    }

    /// The copy of a file on disk.
    fn copy(&self, i: usize, ending: &str) -> PathBuf {
        let (md5, size) = self.md5_and_size(i);
        self.cache()
            .join(format!("content/{}/{md5}-{size}.{ending}", &md5[..2]))
    }

    fn md5_and_size(&self, i: usize) -> (String, u64) {
        let bytes = self.sandbox.record_file(&self.id, &key(i)).unwrap().bytes();
        (rdm_sandbox::md5_hex(&bytes), bytes.len() as u64)
    }

    fn content_requests(&self) -> usize {
        self.sandbox.count(Route::Content)
    }
}

fn key(i: usize) -> String {
    char::from(b'a' + i as u8).to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Inverts a byte of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn what_was_fetched_is_verified_and_read_without_the_repository() {
    let world = World::new(&[3 * MIB, 100, 0], &[]);
    let said = world.run(&["fetch", text(&world.record())]);
    said.expect(
        0,
        &[
            "files/a: fetched and verified",
            "files/b: fetched",
            "files/c: is here",
        ],
    );
    assert_eq!(world.content_requests(), 2);
    let state = world.state(0);
    assert_eq!(
        (&state["verified"], &state["have"]),
        (&true.into(), &(3 * MIB).into())
    );
    world
        .sandbox
        .fault(Fault::anywhere().then(Effect::ServerError(503)));
    for i in 0..3 {
        let bytes = fs::read(world.file(i)).unwrap();
        assert_eq!(rdm_sandbox::md5_hex(&bytes), world.md5_and_size(i).0);
    }
}

#[test]
fn what_is_found_by_looking_around_is_fetched_through_its_links() {
    let world = World::new(&[100], &[]);
    let (first, sandbox) = (&world.id, &world.sandbox);
    let second = sandbox.publish(NewRecord::titled("Depths").file("a", "second").version_of(first));
    let other = sandbox.publish(NewRecord::titled("Depths below").file("a", "other"));
    let hidden = NewRecord::titled("Depths unseen").file("a", "-").owner("bob");
    let hidden = sandbox.publish(hidden.restricted_files());
    let top = world.home.mountpoint();
    let fetched = |path: &str, code: i32, parts: &[&str]| {
        let path = top.join(path);
        world.run(&["fetch", text(&path)]).expect(code, parts);
    };
    // A record of which the files may not be had is told, and the others are fetched.
    fetched(
        "search/depths",
        1,
        &[
            &format!("records/{second}/files/a: fetched"),
            &format!("records/{other}/files/a: fetched"),
            &format!("records/{hidden}: failed"),
            "restricted",
        ],
    );
    let concept = sandbox.concept_of(first);
    let doi = format!("doi/10.5072/{other}");
    assert!(fs::symlink_metadata(top.join(&doi)).is_ok());
    for path in [
        format!("search/depths/{other}"),
        format!("records/{concept}"),
        format!("records/{first}/versions/latest"),
        doi,
    ] {
        fetched(&path, 0, &["1 here already"]);
    }
    fetched(&format!("records/{concept}/versions/1"), 0, &["files/a: fetched"]);
    for path in ["search", "communities", "doi", "doi/10.5072"] {
        fetched(
            path,
            1,
            &["no record and no list of records", "Name what is in it"],
        );
    }
}

#[test]
fn fetching_what_is_here_costs_no_request() {
    let world = World::new(&[2 * MIB, 100], &[]);
    let files = world.record().join("files");
    world.run(&["fetch", text(&files)]).expect(0, &[]);
    world.sandbox.reset_counts();
    let (code, said) = world.json(&["fetch", text(&files)]);
    assert_eq!((code, &said["counts"]["here"]), (Some(0), &2.into()), "{said:#}");
    assert_eq!(world.sandbox.total(), 0, "{:?}", world.sandbox.counts());
    // Nor does it by the id of the record.
    world
        .run(&["fetch", "--mount", text(&world.home.mountpoint()), &world.id])
        .expect(0, &["2 here already"]);
    assert_eq!(world.sandbox.total(), 0, "{:?}", world.sandbox.counts());
}

#[test]
fn what_could_not_be_fetched_is_told_with_the_reason_and_the_rest_is_here() {
    let world = World::new(&[2 * MIB, MIB], &[]);
    world.sandbox.fault(
        Fault::on(Route::Content)
            .key("a")
            .then(Effect::FlipByte { offset: 7 }),
    );
    let said = world.run(&["fetch", text(&world.record())]);
    said.expect(
        1,
        &[
            "files/a: failed",
            "MD5",
            "files/b: fetched and verified",
            "1 failed",
        ],
    );
    assert_eq!(world.state(0)["verified"], false);
    assert_eq!(world.state(1)["verified"], true);
}

#[test]
fn fetching_stops_at_ctrl_c_and_what_came_stays() {
    let world = World::new(&[100, 64 * MIB], &[]);
    world
        .sandbox
        .fault(Fault::on(Route::Content).key("b").then(Effect::Bandwidth(MIB)));
    let child = world
        .home
        .command(["cache", "fetch", "--json", text(&world.record())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("something came", || world.state(1)["have"].as_u64().unwrap() > 0);
    // To the command itself: the one that was started is timeout(1), which hands it on.
    signal(i32::try_from(child.id()).unwrap(), libc::SIGINT);
    let output = child.wait_with_output().unwrap();
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said[0]["interrupted"], true, "{said:#?}");
    assert!(!output.status.success());
    wait_until("the download ends", || world.sandbox.in_flight() == 0);
    assert!(world.state(1)["have"].as_u64().unwrap() > 0);
    assert_eq!(world.state(0)["verified"], true);
}

#[test]
fn pinned_files_outlive_everything_until_they_are_unpinned() {
    let size = ["--cache-size", "6M"];
    let world = World::new(&[2 * MIB, 3 * MIB, 3 * MIB, 3 * MIB], &size);
    let pinned = world.file(0);
    world
        .run(&["fetch", "--pin", text(&pinned)])
        .expect(0, &["files/a: fetched and verified, pinned"]);
    world.kill();
    world.mount(&size);
    let read_others = || (1..4).for_each(|i| drop(fs::read(world.file(i)).unwrap()));
    read_others();
    read_others();
    let state = world.state(0);
    assert_eq!(
        (&state["verified"], &state["pinned"]),
        (&true.into(), &true.into())
    );
    let whole = world.whole();
    assert_eq!(
        (&whole["pinned"], &whole["pinned_files"]),
        (&(2 * MIB).into(), &1.into())
    );
    assert!(whole["used"].as_u64().unwrap() <= 6 * MIB, "{whole:#}");
    world
        .run(&["unpin", text(&pinned)])
        .expect(0, &["no longer pinned"]);
    assert_eq!(world.state(0)["pinned"], false);
    wait_until("it goes like any other", || {
        read_others();
        world.state(0)["have"] == 0
    });
}

#[test]
fn pins_that_would_not_fit_are_refused_before_anything_is_fetched() {
    let world = World::new(&[4 * MIB, 4 * MIB], &["--cache-size", "6M"]);
    world.sandbox.reset_counts();
    world
        .run(&["fetch", "--pin", text(&world.record())])
        .expect(1, &["don't fit", "the cache holds 6291456", "--cache-size"]);
    assert_eq!(world.content_requests(), 0);
    world
        .run(&["fetch", "--pin", text(&world.file(0))])
        .expect(0, &[]);
    world
        .run(&["fetch", text(&world.file(1))])
        .expect(1, &["don't fit", "4194304 of them are pinned"]);
    let world = World::new(&[100], &["--cache-size", "0"]);
    world
        .run(&["fetch", text(&world.record())])
        .expect(1, &["keeps nothing"]);
}

#[test]
fn damage_is_found_told_and_dropped_with_and_without_a_mount() {
    let world = World::new(&[2 * MIB, MIB, MIB + 5], &[]);
    world.run(&["fetch", text(&world.record())]).expect(0, &[]);
    world
        .run(&["verify", text(&world.home.mountpoint())])
        .expect(0, &["3 right"]);
    // In a mount, by its name.
    flip(&world.copy(0, "data"), MIB + 1);
    let (code, said) = world.json(&["verify", text(&world.record())]);
    assert_eq!(code, Some(1), "{said:#}");
    assert_eq!(
        (&said["counts"]["dropped"], &said["counts"]["sound"]),
        (&1.into(), &2.into())
    );
    assert_eq!(world.state(0)["have"], 2 * MIB - 256 * 1024);
    assert_eq!(world.state(0)["verified"], false);
    // In a mount, all of it: a file that is as it was written, and not what its name says.
    let (data, map) = (world.copy(1, "data"), world.copy(1, "map"));
    fs::copy(world.copy(0, "data"), world.home.path("spare")).unwrap();
    flip(&map, 96);
    world
        .run(&["verify", text(&world.home.mountpoint())])
        .expect(1, &["was wrong", "blocks were damaged"]);
    assert!(data.exists());
    // Without one.
    world.home.unmount(&[]).expect(0, &[]);
    flip(&world.copy(2, "data"), 3);
    let cache = world.cache();
    let directory = ["--cache-dir", text(&cache)];
    world
        .run(&[&["verify"], &directory[..]].concat())
        .expect(1, &["1 wrong and dropped"]);
    world.run(&[&["verify"], &directory[..]].concat()).expect(0, &[]);
    // And what is read after all that is right.
    world.mount(&[]);
    for i in 0..3 {
        let bytes = fs::read(world.file(i)).unwrap();
        assert_eq!(rdm_sandbox::md5_hex(&bytes), world.md5_and_size(i).0);
    }
}

#[test]
fn clearing_drops_what_is_neither_open_nor_pinned() {
    let world = World::new(&[2 * MIB, MIB, MIB], &[]);
    world.run(&["fetch", text(&world.record())]).expect(0, &[]);
    world
        .run(&["fetch", "--pin", text(&world.file(0))])
        .expect(0, &[]);
    let open = File::open(world.file(1)).unwrap();
    let place = world.home.mountpoint();
    world
        .run(&["clear", text(&place)])
        .expect(2, &["no terminal", "--yes"]);
    let (code, said) = world.json(&["clear", "--yes", text(&place)]);
    assert_eq!(code, Some(0));
    let counts = &said["counts"];
    assert_eq!(
        (&counts["freed"], &counts["open"], &counts["pinned"]),
        (&1.into(), &1.into(), &1.into()),
        "{said:#}"
    );
    assert!(said["freed"].as_u64().unwrap() >= MIB);
    assert!(world.copy(0, "map").exists() && world.copy(1, "map").exists() && !world.copy(2, "map").exists());
    world.sandbox.reset_counts();
    let mut byte = [0];
    open.read_exact_at(&mut byte, 5).unwrap();
    drop(open);
    assert_eq!(world.content_requests(), 0);
    world
        .run(&["clear", "--yes", text(&world.record())])
        .expect(0, &["is pinned, so it stays"]);
    world.home.unmount(&[]).expect(0, &[]);
    let cache = world.cache();
    world
        .run(&["clear", "--yes", "--pinned", "--cache-dir", text(&cache)])
        .expect(0, &["1 dropped"]);
    let whole = world.json(&["status", "--cache-dir", text(&cache)]).1;
    assert_eq!(
        (&whole["files"], &whole["pinned"]),
        (&0.into(), &0.into()),
        "{whole:#}"
    );
}

#[test]
fn clearing_never_touches_what_was_written() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let home = Home::new();
    let token = home.file("token", rdm_sandbox::ALICE);
    home.mount(&["--token-file", &token, "--close-wait", "0s"], &sandbox.url())
        .expect(0, &[]);
    sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)));
    let path = home.mountpoint().join("drafts").join(draft).join("a.csv");
    fs::write(&path, "kept").unwrap();
    home.run(["cache", "clear", "--yes", "--pinned", text(&home.mountpoint())])
        .expect(0, &[]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
}

#[test]
fn the_whole_cache_is_shown_with_and_without_a_mount() {
    let world = World::new(&[2 * MIB, 8 * MIB], &["--cache-size", "1G"]);
    world.run(&["fetch", text(&world.file(0))]).expect(0, &[]);
    let mut part = [0; 10];
    File::open(world.file(1))
        .unwrap()
        .read_exact_at(&mut part, 5 * MIB)
        .unwrap();
    let whole = world.whole();
    assert_eq!(whole["limit"], 1 << 30);
    assert!(whole["kept_free"].as_u64().unwrap() > 0);
    assert_eq!(
        (&whole["files"], &whole["complete"], &whole["partial"]),
        (&2.into(), &1.into(), &1.into()),
        "{whole:#}"
    );
    assert_eq!(whole["largest"][0]["md5"], world.md5_and_size(0).0);
    let place = world.home.mountpoint();
    world
        .run(&["status", text(&place)])
        .expect(0, &["of 1.0 GiB", "files: 2, 1 complete and verified, 1 in part"]);
    world.home.unmount(&[]).expect(0, &[]);
    let cache = world.cache();
    let (code, without) = world.json(&["status", "--cache-dir", text(&cache)]);
    assert_eq!((code, &without["files"]), (Some(0), &2.into()));
    assert_eq!(without["mountpoint"], Value::Null);
    assert_eq!(without["used"], whole["used"]);
}

#[test]
fn the_cache_of_a_repository_that_is_not_mounted_is_found_at_its_usual_place() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Depths").file("a", "1,2"));
    let home = Home::new();
    home.mount(&[], &sandbox.url()).expect(0, &[]);
    let record = home.mountpoint().join("records").join(id);
    home.run(["cache", "fetch", text(&record)]).expect(0, &[]);
    home.unmount(&[]).expect(0, &[]);
    home.run(["cache", "status"]).expect(
        0,
        &[".cache/rdmfs/127.0.0.1_", "not mounted", "files: 1, 1 complete"],
    );
}

#[test]
fn what_is_no_file_of_a_mount_is_refused() {
    let world = World::new(&[100], &[]);
    let place = world.home.mountpoint();
    world
        .run(&["fetch", text(&place)])
        .expect(2, &["whole repository"]);
    world
        .run(&["fetch", text(&place.join("records"))])
        .expect(1, &["whole repository"]);
    world
        .run(&["fetch", text(&world.record().join("files/nothing"))])
        .expect(1, &["there is no"]);
    world
        .run(&["status", "/etc/passwd"])
        .expect(1, &["is in no mount"]);
    world
        .run(&["verify", "--cache-dir", text(&world.home.path("nothing"))])
        .expect(1, &["there is no cache"]);
    // What stands beside the files is none of them, and is in the way of no pattern.
    let beside = world.record().join("record.json");
    world
        .run(&["fetch", text(&beside), text(&world.file(0))])
        .expect(0, &["1 fetched and verified"]);
}

#[test]
fn a_cache_in_use_is_worked_on_by_the_daemon_that_uses_it() {
    let world = World::new(&[MIB], &[]);
    world.run(&["fetch", text(&world.file(0))]).expect(0, &[]);
    let cache = world.cache();
    flip(&world.copy(0, "data"), 3);
    world
        .run(&["verify", "--cache-dir", text(&cache)])
        .expect(1, &["1 wrong and dropped"]);
    let bytes = fs::read(world.file(0)).unwrap();
    assert_eq!(rdm_sandbox::md5_hex(&bytes), world.md5_and_size(0).0);
}

#[test]
fn work_that_nobody_asks_about_any_more_is_stopped() {
    let world = World::new(&[512 * MIB], &[]);
    world
        .sandbox
        .fault(Fault::on(Route::Content).then(Effect::Bandwidth(2 * MIB)));
    let child = world
        .home
        .command(["cache", "fetch", text(&world.record())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is being fetched", || world.sandbox.in_flight() > 0);
    // SIGKILL to timeout(1) would leave the command itself.
    let parent = child.id().to_string();
    let commands = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    for pid in commands.split_whitespace() {
        signal(pid.parse().unwrap(), libc::SIGKILL);
    }
    wait_until("it is given up", || world.sandbox.in_flight() == 0);
    drop(child.wait_with_output());
}

#[test]
fn what_was_stopped_by_somebody_else_is_no_success() {
    let world = World::new(&[64 * MIB], &[]);
    world
        .sandbox
        .fault(Fault::on(Route::Content).then(Effect::Bandwidth(MIB)));
    let child = world
        .home
        .command(["cache", "fetch", "--pin", "--json", text(&world.record())])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("it is being fetched", || world.sandbox.in_flight() > 0);
    fs::write(world.home.mountpoint().join(".rdmfs/control"), "stop 1\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said:#?}");
    assert!(
        said[0]["error"].as_str().unwrap().contains("stopped"),
        "{said:#?}"
    );
    assert_eq!(world.state(0)["pinned"], false);
}

#[test]
fn a_place_that_is_not_there_spoils_nothing_for_the_others() {
    let world = World::new(&[MIB, 100], &[]);
    let (nothing, b) = (world.record().join("files/nothing"), world.file(1));
    let (code, said) = world.json(&["fetch", text(&nothing), text(&b)]);
    assert_eq!(code, Some(1), "{said:#}");
    assert_eq!(said["outcomes"][0]["fate"], "failed", "{said:#}");
    assert!(
        said["outcomes"][0]["name"]
            .as_str()
            .unwrap()
            .ends_with("files/nothing")
    );
    assert_eq!(world.state(1)["verified"], true);
    world.run(&["status", text(&nothing), text(&b)]).expect(
        1,
        &[
            "files/nothing: failed: there is no",
            "files/b: 100 bytes",
            "1 files:",
        ],
    );
}

#[test]
fn nothing_is_pinned_in_a_cache_that_ends_with_the_mount() {
    let world = World::new(&[MIB], &[]);
    let other = Home::new();
    let cache = world.cache();
    other
        .mount(&["--cache-dir", text(&cache)], &world.sandbox.url())
        .expect(0, &["mounted"]);
    let record = other.mountpoint().join("records").join(&world.id);
    other
        .run(["cache", "fetch", "--pin", text(&record)])
        .expect(1, &["nothing can be pinned", "--cache-dir"]);
    assert_eq!(world.content_requests(), 0);
    other
        .run(["cache", "fetch", text(&record)])
        .expect(0, &["not kept beyond the mount", "another rdmfs uses"]);
}

#[test]
fn a_pin_is_let_go_by_its_checksum_with_and_without_a_mount() {
    let world = World::new(&[MIB, 100], &[]);
    world
        .run(&["fetch", "--pin", text(&world.record())])
        .expect(0, &[]);
    let whole = world.whole();
    let names = |i: usize| format!("md5:{}", world.md5_and_size(i).0);
    let mut told: Vec<String> = (0..2)
        .map(|i| format!("md5:{}", whole["pins"][i]["md5"].as_str().unwrap()))
        .collect();
    told.sort();
    let mut wanted = vec![names(0), names(1)];
    wanted.sort();
    assert_eq!(told, wanted, "{whole:#}");
    let place = world.home.mountpoint();
    world
        .run(&["status", text(&place)])
        .expect(0, &["pinned: 2 files", &names(0), &names(1)]);
    world
        .run(&["unpin", "--mount", text(&place), &names(0)])
        .expect(0, &["no longer pinned"]);
    assert_eq!(
        (&world.state(0)["pinned"], &world.state(1)["pinned"]),
        (&false.into(), &true.into())
    );
    // Bytes of which nothing is here can't be named so, and nothing is fetched by a checksum.
    world
        .run(&["unpin", "--mount", text(&place), &format!("md5:{:032x}", 7)])
        .expect(1, &["nothing of md5:"]);
    world
        .run(&["fetch", "--mount", text(&place), &names(0)])
        .expect(1, &["can't be fetched by its checksum"]);
    world.home.unmount(&[]).expect(0, &[]);
    let cache = world.cache();
    let directory = ["--cache-dir", text(&cache)];
    world
        .run(&[&["unpin", "records/a"], &directory[..]].concat())
        .expect(2, &["md5:"]);
    world
        .run(&[&["clear", "--yes", "--pinned", &names(1)], &directory[..]].concat())
        .expect(0, &["1 dropped"]);
    let whole = world.json(&[&["status"], &directory[..]].concat()).1;
    assert_eq!(
        (&whole["files"], &whole["pinned_files"]),
        (&1.into(), &0.into()),
        "{whole:#}"
    );
}

#[test]
fn clearing_a_whole_cache_clears_what_is_known_of_records_too() {
    let world = World::new(&[MIB], &[]);
    let place = world.home.mountpoint();
    let known = || world.whole()["catalog"].as_u64().unwrap();
    world
        .run(&["fetch", "--pin", text(&world.record())])
        .expect(0, &[]);
    wait_until("the record is kept", || known() > 0);
    // The pinned file is found by what is known of its record.
    world.run(&["clear", "--yes", text(&place)]).expect(0, &[]);
    assert!(known() > 0);
    world
        .run(&["clear", "--yes", "--pinned", text(&place)])
        .expect(0, &["1 dropped"]);
    wait_until("it is dropped", || known() == 0);
    fs::metadata(world.file(0)).unwrap();
    world.home.unmount(&[]).expect(0, &[]);
    world.mount(&["--metadata-ttl", "0s"]);
    fs::metadata(world.file(0)).unwrap();
    world.home.unmount(&[]).expect(0, &[]);
    let cache = world.cache();
    assert!(cache.join("catalog").exists());
    world
        .run(&["clear", "--yes", "--cache-dir", text(&cache)])
        .expect(0, &[]);
    assert!(!cache.join("catalog").exists());
}

#[test]
fn the_status_shows_how_a_download_gets_on_and_what_was_read_in_all() {
    let world = World::new(&[16 * MIB, MIB], &[]);
    let place = world.home.mountpoint();
    let status = || -> Value {
        let text = fs::read(place.join(".rdmfs/status.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    world.sandbox.set_content_mode(rdm_sandbox::ContentMode::Ignored);
    world.sandbox.fault(
        Fault::on(Route::Content)
            .key("a")
            .then(Effect::Bandwidth(4 * MIB)),
    );
    let reader = {
        let path = world.file(0);
        std::thread::spawn(move || {
            let mut byte = [0];
            File::open(path)
                .unwrap()
                .read_exact_at(&mut byte, 15 * MIB)
                .unwrap();
        })
    };
    wait_until(
        "it is shown with its speed, its reader and why it is slow",
        || {
            let download = &status()["downloads"][0];
            download["size"] == 16 * MIB
                && download["have"].as_u64().unwrap() > 0
                && download["rate"].as_u64().unwrap() > 0
                && download["waiting"].as_u64().unwrap() > 0
                && download["note"].as_str().unwrap().contains("ignores ranges")
        },
    );
    reader.join().unwrap();
    fs::read(world.file(1)).unwrap();
    let totals = status()["totals"].clone();
    assert!(totals["from_network"].as_u64().unwrap() > 16 * MIB, "{totals:#}");
    assert!(totals["requests"].as_u64().unwrap() >= 3, "{totals:#}");
}
