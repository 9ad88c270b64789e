//! Renaming in a draft: a file has its new name at once, and in the end the server has it under its new key alone.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rdm_sandbox::{ALICE, Effect, Fault, NewRecord, Route, Sandbox};
use rdmfs::status::UploadState;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{
    Mount, close, draft, errno, hasty, how, keys, mount, mount_again, names, noise, out_of_order, sent,
    settled, shell, stored, until,
};

/// A mount of a new sandbox whose draft has these files.
fn draft_with(files: &[(&str, Vec<u8>)], mounted: fn(&Sandbox) -> Mount) -> (Sandbox, String, Mount) {
    let sandbox = Sandbox::start();
    let record = files
        .iter()
        .fold(NewRecord::titled("Draft"), |record, (key, bytes)| {
            record.file(key, bytes.clone())
        });
    let draft = sandbox.draft(record);
    let mount = mounted(&sandbox);
    (sandbox, draft, mount)
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[test]
fn a_file_renamed_over_another_replaces_it() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("old")), ("b", text("new"))], mount);
    let folder = mount.path("drafts").join(&draft);
    fs::rename(folder.join("b"), folder.join("a")).unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["a"], "when rename() returns");
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"new");
    assert_eq!(names(&folder), ["a", "record.json"]);
    assert_eq!(fs::read(folder.join("a")).unwrap(), b"new");
    assert_eq!(errno(fs::read(folder.join("b"))), libc::ENOENT);
}

#[test]
fn renaming_a_file_to_its_own_name_sends_nothing() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("1"))], mount);
    let path = mount.path("drafts").join(&draft).join("a");
    fs::rename(&path, &path).unwrap();
    assert_eq!(sandbox.count(Route::StartFiles), 0);
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"1");
}

#[test]
fn a_committed_file_is_on_the_server_and_can_be_read_at_every_moment_of_its_renaming() {
    let bytes = noise(700_000, 1);
    let (sandbox, draft, mount) = draft_with(&[("d/a", bytes.clone())], hasty);
    for route in [
        Route::StartFiles,
        Route::PutContent,
        Route::Commit,
        Route::DeleteFile,
    ] {
        sandbox.fault(Fault::on(route).then(Effect::Delay(Duration::from_millis(100))));
    }
    let folder = mount.path("drafts").join(&draft);
    fs::rename(folder.join("d/a"), folder.join("b")).unwrap();
    let mut looks = 0;
    loop {
        // In this order: the old one goes when the new one is there.
        let is_there = stored(&sandbox, &draft, "d/a").or_else(|| stored(&sandbox, &draft, "b"));
        assert!(is_there.is_some_and(|there| there == bytes));
        assert!(fs::read(folder.join("b")).unwrap() == bytes);
        assert!(!exists(&folder.join("d/a")));
        assert!(names(&folder.join("d")).is_empty());
        looks += 1;
        if mount.status().uploads.is_empty() {
            break;
        }
    }
    assert!(looks > 2, "it was looked at while it was sent");
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    assert!(fs::read(folder.join("b")).unwrap() == bytes);
    assert_eq!(sent(&sandbox, "b"), 1);
}

#[test]
fn a_file_that_is_not_sent_yet_is_one_upload_under_its_new_name_only() {
    let (sandbox, draft, _) = draft();
    let mount = hasty(&sandbox);
    let fault = out_of_order(&sandbox);
    let folder = mount.path("drafts").join(&draft);
    fs::write(folder.join("a"), "1").unwrap();
    sandbox.wait_until("it is tried", |sandbox| sandbox.count(Route::StartFiles) > 0);
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    sandbox.remove_fault(fault);
    settled(&mount);
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    assert_eq!((sent(&sandbox, "a"), sent(&sandbox, "b")), (0, 1));
}

#[test]
fn a_file_renamed_while_it_is_sent_ends_under_its_new_name_alone() {
    let (sandbox, draft, _) = draft();
    let mount = hasty(&sandbox);
    let bytes = noise(20_000_000, 1);
    let folder = mount.path("drafts").join(&draft);
    sandbox.fault(
        Fault::on(Route::PutContent)
            .key("a")
            .then(Effect::StallUpload { after: 1000 }),
    );
    fs::write(folder.join("a"), &bytes).unwrap();
    sandbox.wait_until("bytes are sent", |sandbox| {
        sandbox.requests().iter().any(|request| request.received > 0)
    });
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert!(fs::read(folder.join("b")).unwrap() == bytes);
    settled(&mount);
    assert_eq!(sandbox.draft_keys(&draft), ["b"], "no pending entry is left");
    assert!(stored(&sandbox, &draft, "b").unwrap() == bytes);
}

#[test]
fn renamed_while_open_a_file_is_sent_when_it_is_closed_and_under_its_new_name() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    let mut file = File::create(folder.join("a")).unwrap();
    file.write_all(b"one").unwrap();
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(sandbox.count(Route::StartFiles), 0);
    file.write_all(b"two").unwrap();
    assert_eq!(fs::metadata(folder.join("b")).unwrap().len(), 6);
    assert_eq!(close(file), 0);
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"onetwo");
    assert_eq!(sandbox.count(Route::PutContent), 1);
}

#[test]
fn a_committed_file_renamed_while_open_to_write_ends_with_what_is_written() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("old"))], mount);
    let folder = mount.path("drafts").join(&draft);
    let mut file = OpenOptions::new().append(true).open(folder.join("a")).unwrap();
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    file.write_all(b" and new").unwrap();
    assert_eq!(close(file), 0);
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"old and new");
}

#[test]
fn who_reads_a_file_goes_on_reading_it_when_it_is_renamed() {
    let bytes = noise(3_000_000, 1);
    let (sandbox, draft, mount) = draft_with(&[("a", bytes.clone())], mount);
    let folder = mount.path("drafts").join(&draft);
    let mut reader = File::open(folder.join("a")).unwrap();
    let mut read = vec![0; 1000];
    reader.read_exact(&mut read).unwrap();
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    reader.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
}

#[test]
fn who_has_a_replaced_file_open_goes_on_with_the_old_one() {
    let (sandbox, draft, mount) = draft_with(&[("committed", text("old")), ("new", text("new"))], mount);
    let folder = mount.path("drafts").join(&draft);
    let mut reader = File::open(folder.join("committed")).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    fs::rename(folder.join("new"), folder.join("committed")).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "ld");
    assert_eq!(stored(&sandbox, &draft, "committed").unwrap(), b"new");
    // One that is being written.
    let mut writer = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(folder.join("open"))
        .unwrap();
    writer.write_all(b"unfinished").unwrap();
    fs::write(folder.join("new"), "newer").unwrap();
    fs::rename(folder.join("new"), folder.join("open")).unwrap();
    writer.write_all(b" and lost").unwrap();
    writer.seek(SeekFrom::Start(0)).unwrap();
    let mut back = String::new();
    writer.read_to_string(&mut back).unwrap();
    assert_eq!(back, "unfinished and lost");
    assert_eq!(close(writer), 0);
    settled(&mount);
    assert_eq!(keys(&sandbox, &draft), ["committed", "open"]);
    assert_eq!(stored(&sandbox, &draft, "open").unwrap(), b"newer");
}

#[test]
fn a_file_renamed_and_back_is_what_it_was() {
    for mounted in [mount, hasty] {
        let (sandbox, draft, mount) = draft_with(&[("a", text("the same"))], mounted);
        let folder = mount.path("drafts").join(&draft);
        fs::rename(folder.join("a"), folder.join("b")).unwrap();
        fs::rename(folder.join("b"), folder.join("a")).unwrap();
        settled(&mount);
        assert_eq!(sandbox.draft_keys(&draft), ["a"]);
        assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"the same");
        assert_eq!(names(&folder), ["a", "record.json"]);
    }
}

#[test]
fn two_files_swap_their_names_by_a_third_one() {
    for mounted in [mount, hasty] {
        let (sandbox, draft, mount) = draft_with(&[("a", text("was a")), ("b", text("was b"))], mounted);
        let folder = mount.path("drafts").join(&draft);
        for (from, to) in [("a", "c"), ("b", "a"), ("c", "b")] {
            fs::rename(folder.join(from), folder.join(to)).unwrap();
        }
        assert_eq!(fs::read(folder.join("a")).unwrap(), b"was b");
        settled(&mount);
        assert_eq!(keys(&sandbox, &draft), ["a", "b"]);
        assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"was b");
        assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"was a");
    }
}

#[test]
fn a_renamed_folder_takes_all_that_is_in_it_along() {
    let (sandbox, draft, mount) = draft_with(&[("d/a", text("1")), ("d/e/b", text("2"))], mount);
    let folder = mount.path("drafts").join(&draft);
    fs::create_dir_all(folder.join("d/empty/deep")).unwrap();
    let mut open = File::create(folder.join("d/open")).unwrap();
    open.write_all(b"3").unwrap();
    fs::create_dir(folder.join("n")).unwrap();
    fs::rename(folder.join("d"), folder.join("n/m")).unwrap();
    assert_eq!(close(open), 0);
    assert_eq!(keys(&sandbox, &draft), ["n/m/a", "n/m/e/b", "n/m/open"]);
    assert_eq!(stored(&sandbox, &draft, "n/m/e/b").unwrap(), b"2");
    assert_eq!(names(&folder), ["n", "record.json"]);
    assert_eq!(names(&folder.join("n/m")), ["a", "e", "empty", "open"]);
    assert_eq!(names(&folder.join("n/m/empty")), ["deep"]);
    assert_eq!(fs::read(folder.join("n/m/a")).unwrap(), b"1");
    assert!(!exists(&folder.join("d")));
    // The old name is free.
    fs::create_dir(folder.join("d")).unwrap();
    assert!(names(&folder.join("d")).is_empty());
}

#[test]
fn a_folder_takes_the_place_of_an_empty_folder_and_of_nothing_else() {
    let (sandbox, draft, mount) = draft_with(&[("d/a", text("1")), ("full/b", text("2"))], mount);
    let folder = mount.path("drafts").join(&draft);
    fs::create_dir(folder.join("empty")).unwrap();
    let rename = |from: &str, to: &str| fs::rename(folder.join(from), folder.join(to));
    assert_eq!(errno(rename("d", "full")), libc::ENOTEMPTY);
    assert_eq!(errno(rename("d", "d/below")), libc::EINVAL);
    assert_eq!(errno(rename("d", "full/b")), libc::ENOTDIR);
    assert_eq!(errno(rename("d/a", "empty")), libc::EISDIR);
    assert_eq!(errno(rename("missing", "x")), libc::ENOENT);
    assert_eq!(errno(rename("d/a", "d/\n")), libc::EINVAL);
    assert_eq!(keys(&sandbox, &draft), ["d/a", "full/b"]);
    rename("d", "empty").unwrap();
    assert_eq!(keys(&sandbox, &draft), ["empty/a", "full/b"]);
    assert_eq!(names(&folder), ["empty", "full", "record.json"]);
}

#[test]
fn noreplace_is_eexist_and_exchange_einval() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("1")), ("b", text("2"))], mount);
    let folder = mount.path("drafts").join(&draft);
    let rename = |to: &str, flags| renameat_with(CWD, folder.join("a"), CWD, folder.join(to), flags);
    let refused = rename("b", RenameFlags::NOREPLACE).unwrap_err();
    assert_eq!(refused.raw_os_error(), libc::EEXIST);
    let refused = rename("b", RenameFlags::EXCHANGE).unwrap_err();
    assert_eq!(refused.raw_os_error(), libc::EINVAL);
    assert_eq!(sandbox.count(Route::StartFiles), 0);
    rename("c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(keys(&sandbox, &draft), ["b", "c"]);
}

#[test]
fn between_drafts_it_is_exdev_and_mv_copies() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("1")), ("d/b", text("2"))], mount);
    let other = sandbox.draft(NewRecord::titled("Other"));
    let (here, there) = (
        mount.path("drafts").join(&draft),
        mount.path("drafts").join(&other),
    );
    assert_eq!(errno(fs::rename(here.join("a"), there.join("a"))), libc::EXDEV);
    shell(&format!("mv {0}/a {0}/d {1}/", here.display(), there.display()));
    assert_eq!(keys(&sandbox, &other), ["a", "d/b"]);
    assert_eq!(stored(&sandbox, &other, "d/b").unwrap(), b"2");
    assert!(sandbox.draft_keys(&draft).is_empty());
}

#[test]
fn from_and_to_anything_published_it_is_erofs() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("1"))], mount);
    let id = sandbox.publish(NewRecord::titled("Snow").file("f", "published"));
    let folder = mount.path("drafts").join(&draft);
    let files = mount.path("records").join(&id).join("files");
    let rename = |from: &Path, to: &Path| errno(fs::rename(from, to));
    assert_eq!(rename(&files.join("f"), &folder.join("f")), libc::EROFS);
    assert_eq!(rename(&folder.join("a"), &files.join("a")), libc::EROFS);
    assert_eq!(rename(&files.join("f"), &files.join("g")), libc::EROFS);
    let records = mount.path("records");
    assert_eq!(rename(&records.join(&id), &records.join("other")), libc::EROFS);
    assert_eq!(sandbox.draft_keys(&draft), ["a"]);
}

#[test]
fn if_the_server_refuses_the_new_name_the_bytes_are_kept_and_the_next_rename_tries_again() {
    let bytes = noise(600, 1);
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", bytes.clone()));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--draft-ttl", "1h"])
        .start();
    let folder = mount.path("drafts").join(&draft);
    sandbox.knobs(|knobs| knobs.quota = 1000);
    assert_eq!(
        errno(fs::rename(folder.join("a"), folder.join("b"))),
        libc::EDQUOT,
        "for a while the server has both"
    );
    assert_eq!(names(&folder), ["b", "record.json"]);
    until("the kernel has forgotten that it was not there", || {
        fs::read(folder.join("b")).is_ok_and(|read| read == bytes)
    });
    assert!(
        stored(&sandbox, &draft, "a").unwrap() == bytes,
        "the server has it"
    );
    assert_eq!(mount.status().uploads[0].state, UploadState::Refused);
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    fs::rename(folder.join("b"), folder.join("c")).unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["c"]);
    assert!(stored(&sandbox, &draft, "c").unwrap() == bytes);
    assert!(mount.status().uploads.is_empty());
}

#[test]
fn a_refused_file_is_tried_again_when_it_is_renamed() {
    let (sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    sandbox.knobs(|knobs| knobs.quota = 1000);
    let mut file = File::create(folder.join("a")).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(close(file), libc::EDQUOT);
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    assert!(stored(&sandbox, &draft, "b").unwrap() == noise(5000, 1));
}

#[test]
fn a_new_file_under_the_old_name_is_not_what_the_rename_deletes() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("old"))], hasty);
    let folder = mount.path("drafts").join(&draft);
    let slow = Fault::on(Route::PutContent)
        .key("b")
        .then(Effect::Delay(Duration::from_millis(700)));
    sandbox.fault(slow);
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    sandbox.wait_until("it is being sent", |sandbox| sandbox.in_flight() > 0);
    fs::write(folder.join("a"), "new").unwrap();
    settled(&mount);
    assert_eq!(keys(&sandbox, &draft), ["a", "b"]);
    assert_eq!(stored(&sandbox, &draft, "a").unwrap(), b"new");
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"old");
    assert_eq!(fs::read(folder.join("a")).unwrap(), b"new");
}

#[test]
fn a_renamed_file_that_is_removed_before_it_arrived_is_gone_under_both_names() {
    for stalled in [false, true] {
        let bytes = noise(20_000_000, 1);
        let (sandbox, draft, mount) = draft_with(&[("a", bytes)], hasty);
        let folder = mount.path("drafts").join(&draft);
        if stalled {
            let stall = Effect::StallUpload { after: 1000 };
            sandbox.fault(Fault::on(Route::PutContent).then(stall));
        } else {
            out_of_order(&sandbox);
        }
        fs::rename(folder.join("a"), folder.join("b")).unwrap();
        let route = if stalled {
            Route::PutContent
        } else {
            Route::StartFiles
        };
        sandbox.wait_until("it is tried", |sandbox| sandbox.count(route) > 0);
        fs::remove_file(folder.join("b")).unwrap();
        assert!(sandbox.draft_keys(&draft).is_empty(), "stalled: {stalled}");
        assert_eq!(names(&folder), ["record.json"]);
        assert!(mount.status().uploads.is_empty());
    }
}

#[test]
fn a_renamed_file_keeps_its_time() {
    let (sandbox, draft, mount) = draft_with(&[("a", text("1")), ("b", text("2"))], mount);
    let folder = mount.path("drafts").join(&draft);
    let modified = |name: &str| fs::metadata(folder.join(name)).unwrap().modified().unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_934_245);
    let touched = File::open(folder.join("a")).unwrap();
    touched.set_modified(old).unwrap();
    let of_server = modified("b");
    for (from, to) in [("a", "c"), ("b", "d")] {
        fs::rename(folder.join(from), folder.join(to)).unwrap();
    }
    assert_eq!(keys(&sandbox, &draft), ["c", "d"]);
    assert_eq!((modified("c"), modified("d")), (old, of_server));
    settled(&mount);
    assert_eq!((modified("c"), modified("d")), (old, of_server));
}

#[test]
fn a_rename_that_an_unmount_stops_is_done_by_the_next_mount() {
    let (sandbox, draft, first) = draft_with(&[("a", text("precious"))], hasty);
    let fault = out_of_order(&sandbox);
    let folder = first.path("drafts").join(&draft);
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    let kept = first.unmount(&["--now"]);
    assert_eq!(sandbox.draft_keys(&draft), ["a"]);
    let second = mount_again(&sandbox, kept);
    let folder = second.path("drafts").join(&draft);
    assert_eq!(names(&folder), ["b", "record.json"]);
    assert_eq!(fs::read(folder.join("b")).unwrap(), b"precious");
    sandbox.remove_fault(fault);
    settled(&second);
    assert_eq!(sandbox.draft_keys(&draft), ["b"]);
    assert_eq!(stored(&sandbox, &draft, "b").unwrap(), b"precious");
}

#[test]
fn a_name_that_is_not_asked_for_when_it_is_looked_up_is_still_not_replaced_unseen() {
    let (sandbox, draft, mount) = draft_with(&[(".gitignore", text("old\n")), ("b", text("new"))], mount);
    let folder = mount.path("drafts").join(&draft);
    let onto = renameat_with(
        CWD,
        folder.join("b"),
        CWD,
        folder.join(".gitignore"),
        RenameFlags::NOREPLACE,
    );
    assert_eq!(onto.unwrap_err(), rustix::io::Errno::EXIST);
    assert_eq!(stored(&sandbox, &draft, ".gitignore").unwrap(), b"old\n");
}

#[test]
fn a_folder_whose_renaming_fails_leaves_no_file_behind_as_open() {
    let long = format!("d/{}", "x".repeat(100));
    let (sandbox, draft, mount) = draft_with(&[("d/a", text("1")), (&long, text("2"))], mount);
    let folder = mount.path("drafts").join(&draft);
    let to = "y".repeat(160);
    assert_eq!(
        errno(fs::rename(folder.join("d"), folder.join(&to))),
        libc::ENAMETOOLONG
    );
    for key in ["d/a", &long] {
        fs::write(folder.join(key), "written anew").unwrap();
        assert_eq!(stored(&sandbox, &draft, key).unwrap(), b"written anew", "{key}");
    }
}
