//! What may go wrong between two calls, or between a call and an upload.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rdm_sandbox::{ALICE, ContentMode, Effect, Fault, NewRecord, Route, Sandbox};

use crate::support::{draft, errno, how, mount, noise, shell, until};

#[test]
fn an_upload_that_an_unmount_stops_is_sent_by_the_next_mount() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let first = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    let stall = sandbox.fault(Fault::on(Route::PutContent).then(Effect::StallUpload { after: 100_000 }));
    let bytes = noise(20_000_000, 1);
    fs::write(first.path(format!("drafts/{draft}/f")), &bytes).unwrap();
    sandbox.wait_until("the bytes are on their way", |sandbox| {
        sandbox.count(Route::PutContent) == 1
    });
    let folder = first.unmount(&["--now"]);
    sandbox.remove_fault(stall);
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    let status = second.wait_for("all is sent", |status| status.uploads.is_empty());
    assert!(status.problems.is_empty(), "{:?}", status.problems);
    assert!(sandbox.draft_file(&draft, "f").unwrap().bytes() == bytes);
}

#[test]
fn a_file_emptied_and_rewritten_while_it_is_sent_ends_with_the_last_bytes() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    let path = mount.path(format!("drafts/{draft}/f"));
    for round in 0..5 {
        let stall = sandbox.fault(
            Fault::on(Route::PutContent)
                .times(1)
                .then(Effect::StallUpload { after: 100_000 }),
        );
        let before = sandbox.count(Route::PutContent);
        fs::write(&path, noise(5_000_000, round)).unwrap();
        sandbox.wait_until("the first is on its way", |sandbox| {
            sandbox.count(Route::PutContent) > before
        });
        fs::write(&path, noise(10_000, 100 + round)).unwrap();
        sandbox.remove_fault(stall);
        let file = OpenOptions::new().append(true).open(&path);
        file.unwrap().write_all(b"and more").unwrap();
        mount.wait_for("all is sent", |status| status.uploads.is_empty());
        let expected = [noise(10_000, 100 + round), b"and more".to_vec()].concat();
        assert!(
            sandbox.draft_file(&draft, "f").unwrap().bytes() == expected,
            "round {round}"
        );
    }
}

#[test]
fn a_removal_that_fails_keeps_what_was_written() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("f", "old"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    let path = mount.path(format!("drafts/{draft}/f"));
    sandbox.fault(Fault::on(Route::DraftFiles).then(Effect::Delay(Duration::from_millis(300))));
    sandbox.fault(Fault::on(Route::DeleteFile).then(Effect::ServerError(503)));
    fs::write(&path, "precious").unwrap();
    assert_eq!(errno(fs::remove_file(&path)), libc::EIO);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    sandbox.clear_faults();
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(sandbox.draft_file(&draft, "f").unwrap().bytes(), b"precious");
}

#[test]
fn a_link_to_storage_does_not_outlive_the_bytes_it_leads_to() {
    let sandbox = Sandbox::start();
    sandbox.set_content_mode(ContentMode::Redirect);
    let draft = sandbox.draft(NewRecord::titled("Draft").file("f", noise(3_000_000, 1)));
    let mount = mount(&sandbox);
    let path = mount.path(format!("drafts/{draft}/f"));
    let read = |offset: usize| {
        let mut buffer = vec![0; 4096];
        File::open(&path)
            .unwrap()
            .read_exact_at(&mut buffer, offset as u64)
            .unwrap();
        buffer
    };
    assert!(read(1_000_000) == noise(3_000_000, 1)[1_000_000..1_004_096]);
    let new = noise(3_000_000, 2);
    fs::write(&path, &new).unwrap();
    for offset in [0, 1_000_000, 2_500_000] {
        assert!(read(offset) == new[offset..offset + 4096], "{offset}");
    }
    assert!(fs::read(&path).unwrap() == new);
}

#[test]
fn a_file_is_there_with_its_size_at_every_moment_of_its_upload() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s", "--draft-ttl", "1ms"])
        .start();
    let folder = mount.path(format!("drafts/{draft}"));
    for round in 0..40 {
        let name = format!("{round}");
        let bytes = noise(3000 + round, round as u64);
        fs::write(folder.join(&name), &bytes).unwrap();
        loop {
            let listed = fs::read_dir(&folder)
                .unwrap()
                .map(Result::unwrap)
                .find(|entry| entry.file_name() == *name)
                .unwrap_or_else(|| panic!("{name} is not listed"));
            assert_eq!(listed.metadata().unwrap().len(), bytes.len() as u64);
            assert!(fs::read(folder.join(&name)).unwrap() == bytes);
            if mount.status().uploads.is_empty() {
                break;
            }
        }
    }
}

#[test]
fn what_was_closed_last_by_another_process_survives_an_unmount() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let first = mount(&sandbox);
    let path = first.path(format!("drafts/{draft}"));
    // An empty file and one closed by a child are sent at RELEASE, which nobody waits for.
    shell(&format!(
        "touch {0}/empty; (sleep 0.1; echo child) > {0}/child &",
        path.display()
    ));
    shell(&format!(
        "until [ -s {0}/child ]; do sleep 0.01; done",
        path.display()
    ));
    let folder = first.unmount(&["--now"]);
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    second.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_eq!(sandbox.draft_file(&draft, "empty").unwrap().bytes(), b"");
    assert_eq!(sandbox.draft_file(&draft, "child").unwrap().bytes(), b"child\n");
}

#[test]
fn a_folder_made_again_where_one_was_removed_can_be_used_from_inside() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path(format!("drafts/{draft}/sub"));
    shell(&format!(
        "mkdir {0} && cd {0} && touch x && rm -r {0} && mkdir {0} && echo new > {0}/y && cat {0}/y",
        folder.display()
    ));
    assert_eq!(sandbox.draft_file(&draft, "sub/y").unwrap().bytes(), b"new\n");
}

#[test]
fn two_appenders_lose_nothing() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/log"));
    File::create(&path).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                for line in 0..200 {
                    file.write_all(format!("{writer} {line:05}\n").as_bytes())
                        .unwrap();
                }
            });
        }
    });
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    let text = String::from_utf8(sandbox.draft_file(&draft, "log").unwrap().bytes()).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 800);
}

#[test]
fn an_opener_that_is_a_thread_waits_for_its_upload_too() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/f"));
    std::thread::scope(|scope| {
        let open = || {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap()
        };
        let mut file = scope.spawn(open).join().unwrap();
        file.write_all(b"from a thread").unwrap();
    });
    assert_eq!(
        sandbox.draft_file(&draft, "f").unwrap().bytes(),
        b"from a thread",
        "committed at close"
    );
}

#[test]
fn a_file_that_is_closed_while_it_is_removed_stays_removed() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("f", "old"));
    let mount = mount(&sandbox);
    let path = mount.path("drafts").join(&draft).join("f");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"new", 0).unwrap();
    sandbox.knobs(|knobs| knobs.latency = std::time::Duration::from_millis(500));
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| fs::remove_file(&path));
        until("the removal is under way", || {
            sandbox
                .requests()
                .iter()
                .any(|request| request.method == "DELETE")
                || removal.is_finished()
        });
        drop(file);
        removal.join().unwrap().unwrap();
    });
    sandbox.knobs(|knobs| knobs.latency = std::time::Duration::ZERO);
    mount.wait_for("nothing is staged", |status| status.uploads.is_empty());
    assert_eq!(sandbox.draft_keys(&draft), Vec::<String>::new());
}
