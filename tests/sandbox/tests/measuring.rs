//! What measuring needs: records published by scripts, a plain folder of files, and records made on demand.

mod common;

use common::*;
use rdm_sandbox::{Generator, Options, Route, Sandbox, md5_hex};
use serde_json::json;

#[test]
fn scripts_publish_text_generated_files_and_files_of_this_disk() {
    let sandbox = Sandbox::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lent.bin");
    std::fs::write(&path, [7; 1000]).unwrap();
    let files = json!([
        {"key": "a.txt", "text": "hello"},
        {"key": "b.bin", "size": 2_000_000, "seed": 9},
        {"key": "c.bin", "path": path},
    ]);
    let answer = post(
        &sandbox,
        "/sandbox/publish",
        json!([{"title": "Three", "files": files}]),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.json()["ids"][0].as_str().unwrap().to_string();
    let content = |key: &str| get(&sandbox, &format!("/api/records/{id}/files/{key}/content")).body;
    assert_eq!(content("a.txt"), b"hello");
    assert_eq!(
        content("b.bin"),
        Generator::new(2_000_000, 9).read_at(0, 2_000_000)
    );
    assert_eq!(content("c.bin"), [7; 1000]);
    assert_eq!(
        sandbox.record_file(&id, "c.bin").unwrap().md5,
        Some(md5_hex(&[7; 1000]))
    );
    drop(sandbox);
    assert!(path.exists(), "what was only lent stays");
}

#[test]
fn what_cannot_be_published_is_said() {
    let sandbox = Sandbox::start();
    for record in [
        json!({"title": "ab", "files": []}),
        json!({"title": "Gone", "files": [{"key": "a", "path": "/nowhere/at/all"}]}),
        json!({"title": "Odd", "files": [{"key": "a", "sound": "beep"}]}),
    ] {
        let answer = post(&sandbox, "/sandbox/publish", json!([record]));
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
}

#[test]
fn files_are_a_plain_folder_too() {
    let sandbox = Sandbox::start();
    let files = json!([{"key": "a b.txt", "text": "hello"}, {"key": "in/a/folder", "text": "no"}]);
    let answer = post(
        &sandbox,
        "/sandbox/publish",
        json!([{"title": "Plain", "files": files}]),
    );
    let id = answer.json()["ids"][0].as_str().unwrap().to_string();
    for path in [format!("/plain/{id}/"), format!("/plain/{id}")] {
        let page = ask(&sandbox, "GET", &path).get();
        assert_eq!(page.status, 200);
        assert!(page.text().contains("<a href=\"a%20b.txt\">"), "{}", page.text());
        assert!(!page.text().contains("folder"));
    }
    let path = format!("/plain/{id}/a%20b.txt");
    let size = ask(&sandbox, "HEAD", &path).get();
    assert_eq!((size.status, size.header("content-length")), (200, Some("5")));
    let part = ask(&sandbox, "GET", &path).header("Range", "bytes=1-2").get();
    assert_eq!((part.status, part.text().as_str()), (206, "el"));
    assert_eq!(ask(&sandbox, "GET", "/plain/nothing/").get().status, 404);
    assert_eq!(
        (sandbox.count(Route::Plain), sandbox.count(Route::PlainIndex)),
        (2, 3)
    );
}

#[test]
fn a_generated_record_is_the_same_each_time_it_is_made() {
    let options = Options {
        generated: Some((70, 3)),
        ..Options::default()
    };
    let sandbox = Sandbox::start_with(options);
    let files = |number: u32| get(&sandbox, &format!("/api/records/gen00-{number:05}/files"));
    let first = files(0);
    assert_eq!(first.json()["entries"].as_array().map(Vec::len), Some(3));
    let record = get(&sandbox, "/api/records/gen00-00000");
    // More than are kept.
    for number in 1..70 {
        assert_eq!(files(number).status, 200);
    }
    assert_eq!(files(0).body, first.body);
    assert_eq!(get(&sandbox, "/api/records/gen00-00000").body, record.body);
    assert_eq!(files(70).status, 404);
    let content = get(&sandbox, "/api/records/gen00-00007/files/file-000002.txt/content");
    assert_eq!(content.text(), "gen00-00007/file-000002.txt");
}
