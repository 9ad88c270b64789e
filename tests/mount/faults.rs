//! A server that fails: the right bytes in the end, or the right errno within limits. Never wrong bytes.

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use rdm_sandbox::{ContentMode, Effect, Fault, NewRecord, Route, Sandbox};

use crate::support::{LONG, errno, mount, noise};

const SIZE: usize = 3_000_000;

/// What a read must survive when it happens once.
fn passing_read_faults() -> Vec<Effect> {
    vec![
        Effect::Delay(Duration::from_millis(100)),
        Effect::TooManyRequests { retry_after: 1 },
        Effect::ServerError(500),
        Effect::ServerError(502),
        Effect::ServerError(503),
        Effect::ServerError(504),
        Effect::Reset,
        Effect::ResetBody { after: 1_000_000 },
        Effect::ShortBody { after: 700_000 },
        Effect::HtmlPage,
        Effect::HtmlError(502),
    ]
}

#[test]
fn a_fault_that_passes_is_not_seen_by_a_reader() {
    for mode in [ContentMode::Ranges, ContentMode::Ignored, ContentMode::V12] {
        let sandbox = Sandbox::start();
        sandbox.set_content_mode(mode);
        let faults = passing_read_faults();
        let record = (0..faults.len()).fold(NewRecord::titled("Faults"), |record, number| {
            record.file(&number.to_string(), noise(SIZE, number as u64))
        });
        let id = sandbox.publish(record);
        let mount = mount(&sandbox);
        for (number, fault) in faults.into_iter().enumerate() {
            let shown = format!("{fault:?} in mode {mode:?}");
            sandbox.fault(
                Fault::on(Route::Content)
                    .key(number.to_string())
                    .times(1)
                    .then(fault),
            );
            let read = fs::read(mount.path(format!("records/{id}/files/{number}")));
            assert!(
                read.unwrap_or_else(|e| panic!("{shown}: {e}")) == noise(SIZE, number as u64),
                "{shown}"
            );
        }
    }
}

#[test]
fn a_fault_that_stays_is_eio_within_limits() {
    let sandbox = Sandbox::start();
    let effects = [Effect::ServerError(503), Effect::Reset, Effect::HtmlPage];
    let record = (0..effects.len()).fold(NewRecord::titled("Faults"), |record, number| {
        record.file(&number.to_string(), noise(SIZE, number as u64))
    });
    let id = sandbox.publish(record);
    let mount = mount(&sandbox);
    for (number, effect) in effects.into_iter().enumerate() {
        sandbox.fault(Fault::on(Route::Content).key(number.to_string()).then(effect));
        let began = Instant::now();
        assert_eq!(
            errno(fs::read(mount.path(format!("records/{id}/files/{number}")))),
            libc::EIO
        );
        assert!(began.elapsed() < 2 * LONG);
    }
    assert!(!mount.status().problems.is_empty(), "the reason is shown");
    // It is read as soon as the server is well again.
    sandbox.clear_faults();
    let deadline = Instant::now() + LONG;
    while fs::read(mount.path(format!("records/{id}/files/0"))).map_or(true, |bytes| bytes != noise(SIZE, 0))
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn no_whole_read_succeeds_with_a_flipped_byte_in_it() {
    let offsets = [0, 100_000, SIZE as u64 / 2, SIZE as u64 - 1];
    for mode in [ContentMode::Ranges, ContentMode::Ignored, ContentMode::V12] {
        let sandbox = Sandbox::start();
        sandbox.set_content_mode(mode);
        let record = offsets
            .iter()
            .fold(NewRecord::titled("Flipped"), |record, offset| {
                sandbox.fault(
                    Fault::on(Route::Content)
                        .key(offset.to_string())
                        .then(Effect::FlipByte { offset: *offset }),
                );
                record.file(&offset.to_string(), noise(SIZE, *offset))
            });
        let id = sandbox.publish(record);
        let mount = mount(&sandbox);
        let path = |offset: u64| mount.path(format!("records/{id}/files/{offset}"));
        for offset in offsets {
            for _ in 0..2 {
                assert_eq!(
                    errno(fs::read(path(offset))),
                    libc::EIO,
                    "{offset} in mode {mode:?}"
                );
            }
        }
        // Once the server sends the right bytes, they are read; nothing of the wrong copy is left.
        sandbox.clear_faults();
        for offset in offsets {
            let deadline = Instant::now() + LONG;
            loop {
                match fs::read(path(offset)) {
                    Ok(bytes) => break assert!(bytes == noise(SIZE, offset)),
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
                }
                assert!(Instant::now() < deadline, "never read again\n{}", mount.log());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

#[test]
fn a_byte_flipped_once_never_mixes_into_what_a_reader_gets() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Flipped").file("a", noise(SIZE, 1)));
    let mount = mount(&sandbox);
    let path = mount.path(format!("records/{id}/files/a"));
    sandbox.fault(
        Fault::on(Route::Content)
            .times(1)
            .then(Effect::FlipByte { offset: 10 }),
    );
    match fs::read(&path) {
        Ok(bytes) => assert!(bytes == noise(SIZE, 1)),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
    assert!(fs::read(&path).unwrap() == noise(SIZE, 1));
}

#[test]
fn metadata_faults_pass_or_are_eio() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    sandbox.fault(Fault::on(Route::Record).times(2).then(Effect::ServerError(502)));
    assert!(fs::metadata(mount.path(format!("records/{id}"))).is_ok());
    sandbox.fault(Fault::on(Route::Search).times(1).then(Effect::HtmlPage));
    assert!(fs::read_dir(mount.path("records")).is_ok());
    let other = sandbox.publish(NewRecord::titled("Rain").file("a", "1"));
    sandbox.fault(
        Fault::on(Route::Record)
            .record(&other)
            .then(Effect::ServerError(500)),
    );
    assert_eq!(
        errno(fs::metadata(mount.path(format!("records/{other}")))),
        libc::EIO
    );
}

#[test]
fn each_upload_fault_ends_with_the_right_bytes_and_one_file() {
    let faults: Vec<(Route, Effect)> = vec![
        (Route::StartFiles, Effect::ServerError(503)),
        (Route::StartFiles, Effect::ErrorAfterSuccess(504)),
        (Route::StartFiles, Effect::ResetAfterSuccess),
        (Route::StartFiles, Effect::HtmlPage),
        (Route::StartFiles, Effect::TooManyRequests { retry_after: 1 }),
        (Route::PutContent, Effect::ServerError(500)),
        (Route::PutContent, Effect::ServerError(503)),
        (Route::PutContent, Effect::ErrorAfterSuccess(504)),
        (Route::PutContent, Effect::Reset),
        (Route::PutContent, Effect::ResetAfterSuccess),
        (Route::PutContent, Effect::UploadLost),
        (Route::PutContent, Effect::ResetUpload { after: 100_000 }),
        (Route::PutContent, Effect::CloseUpload { after: 100_000 }),
        (Route::PutContent, Effect::HtmlPage),
        (Route::Commit, Effect::ServerError(500)),
        (Route::Commit, Effect::ErrorAfterSuccess(504)),
        (Route::Commit, Effect::ResetAfterSuccess),
        (Route::Commit, Effect::TooManyRequests { retry_after: 1 }),
    ];
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    for (number, (route, effect)) in faults.into_iter().enumerate() {
        let shown = format!("{route:?}: {effect:?}");
        let key = format!("{number}.bin");
        let path = mount.path(format!("drafts/{draft}/{key}"));
        sandbox.fault(Fault::on(route).times(1).then(effect.clone()));
        fs::write(&path, noise(1_000_000, number as u64)).unwrap();
        mount.wait_for(&shown, |status| status.uploads.is_empty());
        let file = sandbox
            .draft_file(&draft, &key)
            .unwrap_or_else(|| panic!("{shown}: no file"));
        assert_eq!(file.status, "completed", "{shown}");
        assert!(file.bytes() == noise(1_000_000, number as u64), "{shown}");
        // And over an existing file.
        sandbox.clear_faults();
        sandbox.fault(Fault::on(route).times(1).then(effect));
        fs::write(&path, noise(500_000, number as u64)).unwrap();
        mount.wait_for(&shown, |status| status.uploads.is_empty());
        let file = sandbox
            .draft_file(&draft, &key)
            .unwrap_or_else(|| panic!("{shown}: no file"));
        assert!(
            file.status == "completed" && file.bytes() == noise(500_000, number as u64),
            "{shown}, overwriting"
        );
        sandbox.clear_faults();
    }
}

#[test]
fn a_removal_whose_answer_was_lost_is_still_a_removal() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft").file("a", "1"));
    let mount = mount(&sandbox);
    sandbox.fault(
        Fault::on(Route::DeleteFile)
            .times(1)
            .then(Effect::ErrorAfterSuccess(504)),
    );
    fs::remove_file(mount.path(format!("drafts/{draft}/a"))).unwrap();
    assert!(sandbox.draft_keys(&draft).is_empty());
}

#[test]
fn a_slow_reader_gets_the_first_bytes_before_the_last_are_sent() {
    let sandbox = Sandbox::start();
    sandbox.set_content_mode(ContentMode::Ignored);
    let id = sandbox.publish(NewRecord::titled("Slow").file("a", noise(20_000_000, 1)));
    let mount = mount(&sandbox);
    // The server stops in the middle, for ever: what came before must be readable.
    sandbox.fault(
        Fault::on(Route::Content)
            .times(1)
            .then(Effect::StallBody { after: 5_000_000 }),
    );
    let mut file = File::open(mount.path(format!("records/{id}/files/a"))).unwrap();
    let mut first = vec![0; 1_000_000];
    let began = Instant::now();
    file.read_exact(&mut first).unwrap();
    assert!(first == noise(20_000_000, 1)[..1_000_000]);
    assert!(began.elapsed() < LONG / 3, "it did not wait for the stall limit");
}
