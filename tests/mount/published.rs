//! Nothing published can be changed.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use rdm_sandbox::{NewRecord, Sandbox};

use crate::support::{errno, how, mount};

#[test]
fn every_change_of_a_record_is_erofs() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let record = mount.path("records").join(&id);
    let file = record.join("files/a");
    assert_eq!(errno(File::create(record.join("files/new"))), libc::EROFS);
    assert_eq!(errno(File::create(&file)), libc::EROFS);
    assert_eq!(errno(OpenOptions::new().append(true).open(&file)), libc::EROFS);
    assert_eq!(
        errno(OpenOptions::new().write(true).open(record.join("record.json"))),
        libc::EROFS
    );
    assert_eq!(errno(fs::remove_file(&file)), libc::EROFS);
    assert_eq!(errno(fs::create_dir(record.join("files/d"))), libc::EROFS);
    assert_eq!(errno(fs::remove_dir(record.join("files"))), libc::EROFS);
    assert_eq!(errno(fs::create_dir(mount.path("records/new"))), libc::EROFS);
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    assert_eq!(
        sandbox
            .requests()
            .iter()
            .filter(|request| request.method != "GET")
            .count(),
        0
    );
}

#[test]
fn a_file_dropped_beside_the_drafts_is_refused() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    assert_eq!(errno(File::create(mount.path("drafts/lost.txt"))), libc::EPERM);
    assert_eq!(errno(File::create(mount.path("lost.txt"))), libc::EPERM);
}

#[test]
fn a_read_only_mount_refuses_every_write() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Mine").file("a", "1"));
    let mount = how(&sandbox.url())
        .token(rdm_sandbox::ALICE)
        .arguments(&["--read-only"])
        .start();
    let folder = mount.path("drafts").join(&draft);
    assert_eq!(errno(File::create(folder.join("b"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(folder.join("a"))), libc::EROFS);
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
}

#[test]
fn the_mount_reports_room_to_write() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    let room = |path: &Path| rustix::fs::statvfs(path).unwrap();
    let here = room(&mount.path(""));
    assert!(here.f_bavail > 0 && here.f_blocks > 0);
    assert_eq!(here.f_namemax, 255);
}
