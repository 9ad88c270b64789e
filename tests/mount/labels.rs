//! Extended attributes: what the repository says of a thing, and what programs note on it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rdm_sandbox::{ALICE, NewRecord, Sandbox, md5_hex};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use crate::support::{Mount, close, draft, mount, mount_again, noise, out_of_order, shell};

fn label(path: &Path, name: &str) -> Result<String, i32> {
    let mut buffer = [0_u8; 1000];
    getxattr(path, name, &mut buffer[..])
        .map(|length| String::from_utf8(buffer[..length].to_vec()).unwrap())
        .map_err(|error| error.raw_os_error())
}

fn labels(path: &Path) -> Vec<String> {
    let mut buffer = [0_u8; 4000];
    let length = listxattr(path, &mut buffer[..]).unwrap();
    let text = std::str::from_utf8(&buffer[..length]).unwrap();
    let mut names: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    names.sort();
    names
}

fn set(path: &Path, name: &str, value: &str, flags: XattrFlags) -> i32 {
    setxattr(path, name, value.as_bytes(), flags).map_or_else(|error| error.raw_os_error(), |()| 0)
}

fn any(path: &Path, name: &str, value: &str) -> i32 {
    set(path, name, value, XattrFlags::empty())
}

#[test]
fn a_published_file_tells_where_it_comes_from_and_its_checksum() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a.csv", "x,y\n"));
    let mount = mount(&sandbox);
    let path = mount.path(format!("records/{id}/files/a.csv"));
    let page = format!("{}/records/{id}", sandbox.url());
    let checksum = format!("md5:{}", md5_hex(b"x,y\n"));
    for (name, expected) in [
        ("user.rdm.id", id.as_str()),
        ("user.rdm.url", &page),
        ("user.rdm.status", "published"),
        ("user.rdm.state", "published"),
        ("user.rdm.checksum", &checksum),
        ("user.rdm.mimetype", "text/csv"),
        ("user.mime_type", "text/csv"),
        ("user.xdg.origin.url", &page),
    ] {
        assert_eq!(label(&path, name).as_deref(), Ok(expected), "{name}");
        assert!(labels(&path).contains(&name.to_owned()), "{name}");
    }
    let document = fs::read_to_string(mount.path(format!("records/{id}/record.json"))).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let doi = document["pids"]["doi"]["identifier"].as_str().unwrap();
    for path in [
        path,
        mount.path(format!("records/{id}")),
        mount.path(format!("records/{id}/files")),
        mount.path(format!("records/{id}/record.json")),
    ] {
        assert_eq!(label(&path, "user.rdm.doi").unwrap(), doi);
        assert_eq!(label(&path, "user.rdm.id").unwrap(), id);
    }
}

#[test]
fn a_file_of_a_draft_tells_how_far_it_has_come() {
    let (sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/a"));
    let mut file = File::create(&path).unwrap();
    file.write_all(&noise(5000, 1)).unwrap();
    assert_eq!(label(&path, "user.rdm.state").unwrap(), "open");
    sandbox.knobs(|knobs| knobs.quota = 1000);
    assert_eq!(close(file), libc::EDQUOT);
    assert_eq!(label(&path, "user.rdm.state").unwrap(), "refused");
    let error = label(&path, "user.rdm.error").unwrap();
    assert!(error.contains("quota"), "{error}");
    sandbox.knobs(|knobs| knobs.quota = 1_000_000);
    fs::write(&path, "1").unwrap();
    assert_eq!(label(&path, "user.rdm.state").unwrap(), "committed");
    assert_eq!(
        label(&path, "user.rdm.checksum").unwrap(),
        format!("md5:{}", md5_hex(b"1"))
    );
    assert_eq!(label(&path, "user.rdm.error"), Err(libc::ENODATA));
    assert_eq!(label(&path, "user.rdm.status").unwrap(), "draft");
}

#[test]
fn a_document_tells_whether_it_is_saved() {
    let (_sandbox, draft, mount) = draft();
    let path = mount.path(format!("drafts/{draft}/record.json"));
    assert_eq!(label(&path, "user.rdm.state").unwrap(), "saved");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"{").unwrap();
    assert_eq!(label(&path, "user.rdm.state").unwrap(), "open");
    assert_eq!(close(file), libc::EINVAL);
    let error = label(&path, "user.rdm.error").unwrap();
    assert!(error.contains("no JSON"), "{error}");
}

#[test]
fn a_draft_that_is_an_edit_says_so() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let folder = mount.path("drafts").join(&id);
    fs::create_dir(&folder).unwrap();
    assert_eq!(
        label(&folder, "user.rdm.status").unwrap(),
        "edit of a published record"
    );
}

#[test]
fn programs_set_their_own_on_what_is_in_drafts_until_unmounting() {
    let (sandbox, draft, first) = draft();
    let path = first.path(format!("drafts/{draft}/a"));
    fs::write(&path, "1").unwrap();
    fs::create_dir(path.with_file_name("d")).unwrap();
    for path in [&path, &path.with_file_name("d"), path.parent().unwrap()] {
        assert_eq!(any(path, "user.colour", "blue"), 0);
        assert_eq!(label(path, "user.colour").unwrap(), "blue");
    }
    assert!(labels(&path).contains(&"user.colour".to_owned()));
    assert_eq!(set(&path, "user.colour", "red", XattrFlags::CREATE), libc::EEXIST);
    assert_eq!(set(&path, "user.colour", "red", XattrFlags::REPLACE), 0);
    assert_eq!(set(&path, "user.size", "big", XattrFlags::REPLACE), libc::ENODATA);
    assert_eq!(set(&path, "user.size", "big", XattrFlags::CREATE), 0);
    assert_eq!(label(&path, "user.colour").unwrap(), "red");
    removexattr(&path, "user.size").unwrap();
    assert_eq!(
        removexattr(&path, "user.size").unwrap_err().raw_os_error(),
        libc::ENODATA
    );
    assert_eq!(label(&path, "user.size"), Err(libc::ENODATA));
    let second = mount_again(&sandbox, first.unmount(&[]));
    let path = second.path(format!("drafts/{draft}/a"));
    assert_eq!(label(&path, "user.colour"), Err(libc::ENODATA));
}

#[test]
fn what_programs_set_goes_with_a_rename_and_not_to_another_file_of_the_name() {
    let (_sandbox, draft, mount) = draft();
    let folder = mount.path("drafts").join(&draft);
    let colour = |name: &str| label(&folder.join(name), "user.colour");
    for name in ["a", "b"] {
        fs::write(folder.join(name), name).unwrap();
        assert_eq!(any(&folder.join(name), "user.colour", name), 0);
    }
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(colour("b").as_deref(), Ok("a"));
    fs::write(folder.join("a"), "another").unwrap();
    assert_eq!(colour("a"), Err(libc::ENODATA));
    fs::remove_file(folder.join("b")).unwrap();
    fs::write(folder.join("b"), "another").unwrap();
    assert_eq!(colour("b"), Err(libc::ENODATA));
    fs::create_dir(folder.join("d")).unwrap();
    fs::write(folder.join("d/a"), "1").unwrap();
    assert_eq!(any(&folder.join("d/a"), "user.colour", "green"), 0);
    fs::rename(folder.join("d"), folder.join("e")).unwrap();
    assert_eq!(colour("e/a").as_deref(), Ok("green"));
}

#[test]
fn what_is_published_and_what_the_repository_says_cannot_be_set() {
    let (sandbox, draft, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let published = mount.path(format!("records/{id}/files/a"));
    assert_eq!(any(&published, "user.colour", "blue"), libc::EROFS);
    assert_eq!(
        removexattr(&published, "user.rdm.id").unwrap_err().raw_os_error(),
        libc::EROFS
    );
    let own = mount.path(format!("drafts/{draft}/a"));
    fs::write(&own, "1").unwrap();
    assert_eq!(any(&own, "user.rdm.id", "other"), libc::EPERM);
    assert_eq!(any(&own, "security.colour", "blue"), libc::EOPNOTSUPP);
    assert_eq!(
        any(&own, "user.large", &"x".repeat(65_000)),
        0,
        "about 64 KiB for each thing"
    );
    assert_eq!(any(&own, "user.more", &"x".repeat(1000)), libc::ENOSPC);
    assert_eq!(label(&own, "user.unknown"), Err(libc::ENODATA));
    assert_eq!(label(&own, "security.selinux"), Err(libc::EOPNOTSUPP));
}

#[test]
fn the_size_is_told_first_and_too_little_room_is_erange() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let path = mount.path(format!("records/{id}/files/a"));
    let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: both texts end with a zero byte and outlive the call, and no byte of the value is asked for.
    let length = unsafe { libc::getxattr(c_path.as_ptr(), c"user.rdm.id".as_ptr(), std::ptr::null_mut(), 0) };
    assert_eq!(usize::try_from(length).unwrap(), id.len());
    let little = getxattr(&path, "user.rdm.id", &mut [0_u8; 3][..]);
    assert_eq!(little.unwrap_err().raw_os_error(), libc::ERANGE);
}

#[test]
fn cp_a_and_rsync_a_work_out_of_records_and_into_drafts() {
    let (sandbox, draft, mount) = draft();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let copied = |mount: &Mount, tool: &str, name: &str| {
        let out = mount.local(name);
        shell(&format!(
            "{tool} {}/a {1} && {tool} {1} {2}/{name}",
            mount.path(format!("records/{id}/files")).display(),
            out.display(),
            mount.path(format!("drafts/{draft}")).display(),
        ));
        assert_eq!(
            fs::read(mount.path(format!("drafts/{draft}/{name}"))).unwrap(),
            b"1"
        );
    };
    copied(&mount, "cp -a", "b");
    copied(&mount, "rsync -a", "c");
}

#[test]
fn looking_for_what_is_no_users_label_asks_the_repository_nothing() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = crate::support::how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--metadata-ttl", "1ms"])
        .start();
    let file = File::open(mount.path(format!("records/{id}/files/a"))).unwrap();
    out_of_order(&sandbox);
    sandbox.reset_counts();
    for name in ["security.capability", "system.posix_acl_access", "trusted.x"] {
        let got = rustix::fs::fgetxattr(&file, name, &mut [0_u8; 100][..]);
        let errno = got.unwrap_err().raw_os_error();
        assert!(
            [libc::ENODATA, libc::EOPNOTSUPP].contains(&errno),
            "{name}: {errno}"
        );
    }
    assert_eq!(sandbox.total(), 0);
}
