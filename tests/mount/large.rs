//! Files that are larger than one request may be: in parts to the repository or to an object store, or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use rdm_sandbox::{ALICE, Effect, Fault, Multipart, NewRecord, Route, Sandbox};
use rdmfs::status::UploadState;

use crate::support::{Mount, close, how, mount, noise};

const MIB: usize = 1 << 20;

/// What the repository takes in one request, and a file that is larger.
const LIMIT: u64 = 6 << 20;
const SIZE: usize = 12 * MIB + 1234;

/// The two kinds of servers that take parts, with the route on which these come.
const STYLES: [(Multipart, Route); 2] = [
    (Multipart::Local, Route::PutPart),
    (Multipart::Presigned, Route::PutObjectPart),
];

fn limited(multipart: Multipart) -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    sandbox.knobs(|knobs| {
        knobs.max_body = Some(LIMIT);
        knobs.multipart = multipart;
    });
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    (sandbox, draft)
}

/// A mount that has found out how large files go, and has nothing left to do.
fn experienced(sandbox: &Sandbox, draft: &str) -> Mount {
    let mount = mount(sandbox);
    fs::write(mount.path(format!("drafts/{draft}/first")), noise(SIZE, 99)).unwrap();
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    sandbox.reset_counts();
    mount
}

fn close_errno(mount: &Mount, draft: &str, key: &str) -> i32 {
    let mut file = File::create(mount.path(format!("drafts/{draft}/{key}"))).unwrap();
    file.write_all(&noise(SIZE, 1)).unwrap();
    close(file)
}

#[track_caller]
fn assert_stored(sandbox: &Sandbox, draft: &str, key: &str, bytes: &[u8]) {
    let file = sandbox.draft_file(draft, key).unwrap();
    assert_eq!(file.status, "completed");
    assert!(file.bytes() == bytes, "{key} has other bytes");
    assert_eq!(file.md5, Some(rdm_sandbox::md5_hex(bytes)));
}

/// How often each part was sent.
fn puts(sandbox: &Sandbox, route: Route) -> BTreeMap<String, usize> {
    let mut puts = BTreeMap::new();
    let requests = sandbox.requests();
    for request in requests.iter().filter(|request| request.route == route.name()) {
        let path = &request.path;
        let part = match path.split_once("partNumber=") {
            Some((_, rest)) => rest.split('&').next(),
            None => path.rsplit('/').next(),
        };
        *puts.entry(part.unwrap().to_owned()).or_default() += 1;
    }
    puts
}

#[test]
fn a_file_over_the_limit_is_committed_with_its_bytes_before_close_returns() {
    for (multipart, route) in STYLES {
        let (sandbox, draft) = limited(multipart);
        let mount = mount(&sandbox);
        let path = mount.path(format!("drafts/{draft}/d/large"));
        fs::create_dir(mount.path(format!("drafts/{draft}/d"))).unwrap();
        fs::write(&path, noise(SIZE, 1)).unwrap();
        assert_stored(&sandbox, &draft, "d/large", &noise(SIZE, 1));
        assert!(mount.status().uploads.is_empty());
        assert!(sandbox.count(route) > 1);
        // Over itself, and what was learned holds for all files.
        fs::write(&path, noise(SIZE, 2)).unwrap();
        fs::write(mount.path(format!("drafts/{draft}/other")), noise(SIZE, 3)).unwrap();
        assert_stored(&sandbox, &draft, "d/large", &noise(SIZE, 2));
        assert_stored(&sandbox, &draft, "other", &noise(SIZE, 3));
        assert_eq!(sandbox.count(Route::PutContent), 1, "{multipart:?}");
        assert_eq!(sandbox.leaked_authorizations(), 0);
    }
}

#[test]
fn parts_get_smaller_until_the_server_takes_them() {
    let (sandbox, draft) = limited(Multipart::Local);
    let mount = mount(&sandbox);
    // A quarter of it is still too large.
    let bytes = noise(30 * MIB, 1);
    fs::write(mount.path(format!("drafts/{draft}/large")), &bytes).unwrap();
    assert_stored(&sandbox, &draft, "large", &bytes);
    let status = |status| move |request: &rdm_sandbox::Request| request.status == status;
    let requests = sandbox.requests();
    let parts = || {
        requests
            .iter()
            .filter(|request| request.route == Route::PutPart.name())
    };
    assert!(parts().any(status(413)) && parts().filter(|part| status(200)(part)).count() == 6);
}

#[test]
fn a_file_below_the_limit_goes_in_one_request_as_ever() {
    let (sandbox, draft) = limited(Multipart::Presigned);
    let mount = experienced(&sandbox, &draft);
    fs::write(mount.path(format!("drafts/{draft}/small")), noise(5 * MIB, 1)).unwrap();
    assert_stored(&sandbox, &draft, "small", &noise(5 * MIB, 1));
    assert_eq!(sandbox.count(Route::PutContent), 1);
    assert_eq!(sandbox.count(Route::PutObjectPart), 0);
}

#[test]
fn a_part_that_breaks_is_sent_again_alone() {
    let after = MIB as u64;
    let faults = [
        Effect::ResetUpload { after },
        Effect::CloseUpload { after },
        Effect::ServerError(503),
        Effect::HtmlError(502),
        Effect::TooManyRequests { retry_after: 1 },
    ];
    for (multipart, route) in STYLES {
        let (sandbox, draft) = limited(multipart);
        let mount = experienced(&sandbox, &draft);
        for (number, effect) in faults.iter().enumerate() {
            let shown = format!("{effect:?} of {multipart:?}");
            sandbox.reset_counts();
            sandbox.fault(Fault::on(route).skip(1).times(1).then(effect.clone()));
            let key = number.to_string();
            fs::write(
                mount.path(format!("drafts/{draft}/{key}")),
                noise(SIZE, number as u64),
            )
            .unwrap();
            mount.wait_for(&shown, |status| status.uploads.is_empty());
            assert_stored(&sandbox, &draft, &key, &noise(SIZE, number as u64));
            let puts = puts(&sandbox, route);
            let twice = puts.values().filter(|count| **count == 2).count();
            let once = puts.values().filter(|count| **count == 1).count();
            assert_eq!((twice, once), (1, puts.len() - 1), "{shown}: {puts:?}");
            assert_eq!(sandbox.count(Route::StartFiles), 1, "{shown}");
        }
        assert_eq!(sandbox.leaked_authorizations(), 0);
    }
}

#[test]
fn whatever_becomes_of_a_part_the_right_bytes_arrive_in_the_end() {
    let faults = [
        Effect::KeepOnly { bytes: 0 },
        Effect::KeepOnly { bytes: 100_000 },
        Effect::UploadLost,
        Effect::ErrorAfterSuccess(504),
        Effect::ResetAfterSuccess,
    ];
    for (multipart, route) in STYLES {
        let (sandbox, draft) = limited(multipart);
        let mount = experienced(&sandbox, &draft);
        for (number, effect) in faults.iter().enumerate() {
            for skip in [0, 1] {
                let shown = format!("{effect:?} of {multipart:?}");
                let key = format!("{number}.{skip}");
                sandbox.fault(
                    Fault::on(route)
                        .key(&key)
                        .skip(skip)
                        .times(1)
                        .then(effect.clone()),
                );
                fs::write(
                    mount.path(format!("drafts/{draft}/{key}")),
                    noise(SIZE, number as u64),
                )
                .unwrap();
                mount.wait_for(&shown, |status| status.uploads.is_empty());
                assert_stored(&sandbox, &draft, &key, &noise(SIZE, number as u64));
            }
        }
    }
}

#[test]
fn each_fault_of_the_start_and_the_commit_ends_with_the_right_bytes() {
    let faults = [
        (Route::StartFiles, Effect::ServerError(503)),
        (Route::StartFiles, Effect::ErrorAfterSuccess(504)),
        (Route::StartFiles, Effect::ResetAfterSuccess),
        (Route::Commit, Effect::ServerError(500)),
        (Route::Commit, Effect::ErrorAfterSuccess(504)),
        (Route::Commit, Effect::ResetAfterSuccess),
    ];
    for (multipart, _) in STYLES {
        let (sandbox, draft) = limited(multipart);
        let mount = experienced(&sandbox, &draft);
        for (number, (route, effect)) in faults.iter().enumerate() {
            let shown = format!("{route}: {effect:?} of {multipart:?}");
            let key = number.to_string();
            sandbox.fault(Fault::on(*route).times(1).then(effect.clone()));
            fs::write(
                mount.path(format!("drafts/{draft}/{key}")),
                noise(SIZE, number as u64),
            )
            .unwrap();
            mount.wait_for(&shown, |status| status.uploads.is_empty());
            assert_stored(&sandbox, &draft, &key, &noise(SIZE, number as u64));
        }
    }
}

#[test]
fn where_parts_are_refused_files_go_in_one_request_from_then_on() {
    let (sandbox, draft) = limited(Multipart::Refused);
    let mount = mount(&sandbox);
    assert_eq!(close_errno(&mount, &draft, "large"), libc::EFBIG);
    assert!(sandbox.count(Route::PutPart) > 0);
    assert!(sandbox.draft_keys(&draft).is_empty(), "nothing pending is left");
    sandbox.knobs(|knobs| knobs.max_body = None);
    sandbox.reset_counts();
    fs::write(mount.path(format!("drafts/{draft}/later")), noise(SIZE, 2)).unwrap();
    assert_stored(&sandbox, &draft, "later", &noise(SIZE, 2));
    assert_eq!(
        (sandbox.count(Route::PutPart), sandbox.count(Route::PutContent)),
        (0, 1)
    );
}

#[test]
fn a_server_without_parts_refuses_a_large_file_with_efbig() {
    let (sandbox, draft) = limited(Multipart::Unknown);
    let mount = mount(&sandbox);
    assert_eq!(close_errno(&mount, &draft, "large"), libc::EFBIG);
    assert_eq!(sandbox.count(Route::StartFiles), 1, "it is not asked for parts");
    assert!(sandbox.draft_keys(&draft).is_empty());
    let status = mount.status();
    assert_eq!(status.uploads[0].state, UploadState::Refused);
}

#[test]
fn a_limit_below_the_smallest_part_is_efbig() {
    let (sandbox, draft) = limited(Multipart::Local);
    sandbox.knobs(|knobs| knobs.max_body = Some(4 << 20));
    let mount = mount(&sandbox);
    assert_eq!(close_errno(&mount, &draft, "large"), libc::EFBIG);
    assert!(sandbox.draft_keys(&draft).is_empty());
}

#[test]
fn a_file_over_the_quota_is_not_tried_in_parts() {
    let (sandbox, draft) = limited(Multipart::Local);
    sandbox.knobs(|knobs| (knobs.max_body, knobs.quota) = (None, 1_000_000));
    let mount = mount(&sandbox);
    assert_eq!(close_errno(&mount, &draft, "large"), libc::EDQUOT);
    assert_eq!(sandbox.count(Route::PutPart), 0);
}

#[test]
fn links_that_expire_while_parts_are_sent_are_renewed() {
    let (sandbox, draft) = limited(Multipart::Presigned);
    let mount = experienced(&sandbox, &draft);
    sandbox.knobs(|knobs| knobs.link_seconds = 2);
    // The link is looked at after the pause.
    let late = Effect::Delay(Duration::from_millis(2500));
    sandbox.fault(Fault::on(Route::PutObjectPart).times(2).then(late));
    fs::write(mount.path(format!("drafts/{draft}/late")), noise(SIZE, 1)).unwrap();
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
    assert_stored(&sandbox, &draft, "late", &noise(SIZE, 1));
    assert_eq!(sandbox.count(Route::StartFiles), 1);
    assert_eq!(sandbox.leaked_authorizations(), 0);
}

#[test]
fn close_waits_for_a_checksum_that_comes_after_the_commit() {
    let (sandbox, draft) = limited(Multipart::Presigned);
    sandbox.knobs(|knobs| knobs.checksum_delay = Duration::from_millis(700));
    let mount = mount(&sandbox);
    fs::write(mount.path(format!("drafts/{draft}/large")), noise(SIZE, 1)).unwrap();
    assert!(mount.status().uploads.is_empty());
    assert!(sandbox.count(Route::DraftFile) > 1, "it was looked for");
    assert_stored(&sandbox, &draft, "large", &noise(SIZE, 1));
}

#[test]
fn a_checksum_that_comes_after_a_restart_is_waited_for_and_nothing_is_sent_again() {
    let (sandbox, draft) = limited(Multipart::Presigned);
    sandbox.knobs(|knobs| knobs.checksum_delay = Duration::from_secs(4));
    let first = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start();
    fs::write(first.path(format!("drafts/{draft}/large")), noise(SIZE, 1)).unwrap();
    sandbox.wait_until("it is committed", |sandbox| sandbox.count(Route::DraftFile) > 0);
    let status = first.status();
    assert_eq!(status.uploads[0].state, UploadState::Checking);
    assert_eq!(status.uploads[0].sent, SIZE as u64);
    let folder = first.unmount(&["--now"]);
    sandbox.reset_counts();
    let second = how(&sandbox.url()).token(ALICE).folder(folder).start();
    second.wait_for("it is confirmed", |status| status.uploads.is_empty());
    assert_stored(&sandbox, &draft, "large", &noise(SIZE, 1));
    assert_eq!(sandbox.count(Route::PutObjectPart), 0);
    assert_eq!(sandbox.count(Route::DeleteFile), 0);
}

#[test]
fn a_file_written_again_while_its_parts_are_sent_ends_with_the_last_bytes() {
    for (multipart, route) in STYLES {
        let (sandbox, draft) = limited(multipart);
        let mount = how(&sandbox.url())
            .token(ALICE)
            .arguments(&["--close-wait", "0s"])
            .start();
        let stuck = sandbox.fault(Fault::on(route).then(Effect::StallUpload { after: 0 }));
        let path = mount.path(format!("drafts/{draft}/f"));
        fs::write(&path, noise(SIZE, 1)).unwrap();
        sandbox.wait_until("its parts are on their way", |sandbox| sandbox.count(route) > 1);
        sandbox.remove_fault(stuck);
        fs::write(&path, noise(SIZE, 2)).unwrap();
        mount.wait_for("all is sent", |status| status.uploads.is_empty());
        assert_stored(&sandbox, &draft, "f", &noise(SIZE, 2));
    }
}
