//! Nothing waits behind something slow.

use std::fs::{self, File};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdm_sandbox::{Data, Effect, Fault, NewRecord, Route, Sandbox};

use crate::support::{mount, names};

/// Far below what the slow things take, far above what a busy machine needs for a quick one.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn other_calls_answer_while_a_file_streams_slowly() {
    let sandbox = Sandbox::start();
    let slow = sandbox.publish(NewRecord::titled("Slow").file("a", Data::generated(300 << 20, 1)));
    let quick = sandbox.publish(NewRecord::titled("Quick").file("b", "1"));
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    sandbox.fault(
        Fault::on(Route::Content)
            .record(&slow)
            .then(Effect::Bandwidth(1 << 20)),
    );
    let mount = mount(&sandbox);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // More readers than the kernel keeps requests in the background by default.
        for reader in 0..24 {
            let path = mount.path(format!("records/{slow}/files/a"));
            let done = &done;
            scope.spawn(move || {
                let mut file = File::open(path).unwrap();
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(reader * (10 << 20))).unwrap();
                let mut buffer = vec![0; 64 << 10];
                while !done.load(Ordering::Relaxed) && file.read(&mut buffer).unwrap() > 0 {}
            });
        }
        sandbox.wait_until("the stream runs", |sandbox| sandbox.count(Route::Content) > 0);
        let began = Instant::now();
        assert!(names(&mount.path("records")).contains(&quick));
        fs::metadata(mount.path(format!("records/{quick}/files/b"))).unwrap();
        fs::read(mount.path(format!("records/{quick}/record.json"))).unwrap();
        fs::read(mount.path(format!("records/{quick}/files/b"))).unwrap();
        fs::write(mount.path(format!("drafts/{draft}/c")), "1").unwrap();
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        assert!(took < SOON, "{took:?}");
    });
}

#[test]
fn a_slow_record_does_not_hold_up_others() {
    let sandbox = Sandbox::start();
    let slow = sandbox.publish(NewRecord::titled("Slow").file("a", "1"));
    let quick = sandbox.publish(NewRecord::titled("Quick").file("b", "1"));
    sandbox.fault(
        Fault::on(Route::Record)
            .record(&slow)
            .then(Effect::Delay(Duration::from_secs(8))),
    );
    let mount = mount(&sandbox);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| fs::metadata(mount.path(format!("records/{slow}"))).unwrap());
        }
        sandbox.wait_until("the slow one is asked for", |sandbox| {
            sandbox.count(Route::Record) > 0
        });
        let began = Instant::now();
        fs::read(mount.path(format!("records/{quick}/files/b"))).unwrap();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    });
}

#[test]
fn many_slow_uploads_do_not_hold_up_readers() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Quick").file("b", "1"));
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    let slow = sandbox.fault(Fault::on(Route::PutContent).then(Effect::Delay(Duration::from_secs(2))));
    std::thread::scope(|scope| {
        for number in 0..20 {
            let path = mount.path(format!("drafts/{draft}/{number}"));
            scope.spawn(move || fs::write(path, "1").unwrap());
        }
        sandbox.wait_until("uploads run", |sandbox| sandbox.count(Route::PutContent) > 0);
        let began = Instant::now();
        fs::read(mount.path(format!("records/{id}/files/b"))).unwrap();
        names(&mount.path(format!("drafts/{draft}")));
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        sandbox.remove_fault(slow);
    });
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Large").file("a", Data::generated(700 << 20, 1)));
    let mount = mount(&sandbox);
    let mut file = File::open(mount.path(format!("records/{id}/files/a"))).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let count = file.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        total += count;
    }
    assert_eq!(total, 700 << 20);
    let status = fs::read_to_string(format!("/proc/{}/status", mount.worker())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 150 << 10, "{kib} KiB");
}

#[test]
fn inodes_are_dropped_when_the_kernel_forgets_them() {
    let sandbox = Sandbox::start();
    let record = (0..3000).fold(NewRecord::titled("Many"), |record, n| {
        record.file(&format!("{n:04}"), "1")
    });
    let id = sandbox.publish(record);
    let mount = mount(&sandbox);
    assert_eq!(names(&mount.path(format!("records/{id}/files"))).len(), 3000);
    for n in 0..3000 {
        fs::metadata(mount.path(format!("records/{id}/files/{n:04}"))).unwrap();
    }
    assert!(mount.status().inodes >= 3000);
    if rustix::process::geteuid().is_root() {
        crate::support::shell("echo 2 > /proc/sys/vm/drop_caches");
        mount.wait_for("the kernel forgets", |status| status.inodes < 1000);
    }
}
