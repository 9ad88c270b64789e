//! Uploads, and the traps in them.

mod common;

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use common::*;
use rdm_sandbox::{Effect, Fault, Multipart, NewRecord, Route, Sandbox, md5_hex};
use serde_json::{Value, json};

/// A sandbox with a draft in which `a.bin` was started.
fn started() -> (Sandbox, String, String) {
    let sandbox = Sandbox::start();
    let id = sandbox.draft(NewRecord::titled("Uploads"));
    let files = format!("/api/records/{id}/draft/files");
    assert_eq!(post(&sandbox, &files, json!([{"key": "a.bin"}])).status, 201);
    (sandbox, id, files)
}

#[test]
fn content_for_a_committed_key_destroys_the_file() {
    let (sandbox, id, files) = started();
    let taken = post(&sandbox, &files, json!([{"key": "b"}, {"key": "a.bin"}]));
    assert_eq!(
        (taken.status, taken.json()["message"].as_str()),
        (400, Some("File with key a.bin already exists."))
    );
    assert_eq!(sandbox.draft_keys(&id), ["a.bin"]);
    assert_eq!(
        put(&sandbox, &format!("{files}/a.bin/content"), b"one").json()["status"],
        "pending"
    );
    assert_eq!(
        put(&sandbox, &format!("{files}/a.bin/content"), b"two").status,
        200
    );
    let done = post(&sandbox, &format!("{files}/a.bin/commit"), Value::Null).json();
    assert_eq!(done["checksum"], format!("md5:{}", md5_hex(b"two")));
    assert_eq!(
        post(&sandbox, &format!("{files}/a.bin/commit"), Value::Null).status,
        200
    );
    let trap = put(&sandbox, &format!("{files}/a.bin/content"), b"three");
    assert_eq!(
        (trap.status, &trap.json()["errors"]),
        (200, &json!("File upload transfer failed."))
    );
    assert_eq!(trap.json()["status"], "completed");
    assert_eq!(get(&sandbox, &format!("{files}/a.bin")).status, 404);
}

#[test]
fn a_pending_file_has_nothing_to_commit_or_read() {
    let (sandbox, id, files) = started();
    assert_eq!(
        post(&sandbox, &format!("{files}/a.bin/commit"), Value::Null).status,
        500
    );
    assert_eq!(get(&sandbox, &format!("{files}/a.bin/content")).status, 500);
    assert_eq!(put(&sandbox, &format!("{files}/b/content"), b"x").status, 404);
    let wrong = ask(&sandbox, "PUT", &format!("{files}/a.bin/content")).token("alice-token");
    let wrong = wrong.header("Content-Type", "text/plain").body("x").get();
    assert_eq!(wrong.status, 415);
    let stored = sandbox.draft_file(&id, "a.bin").unwrap();
    assert_eq!(
        (stored.status.as_str(), stored.size, stored.md5),
        ("pending", 0, None)
    );
    assert_eq!(put(&sandbox, &format!("{files}/a.bin/content"), b"").status, 200);
    let done = post(&sandbox, &format!("{files}/a.bin/commit"), Value::Null).json();
    assert_eq!(
        (&done["size"], &done["checksum"]),
        (&json!(0), &json!("md5:d41d8cd98f00b204e9800998ecf8427e"))
    );
}

#[test]
fn a_cut_upload_leaves_what_a_real_server_leaves() {
    for (chunked, reset, left) in [(false, false, true), (false, true, false), (true, false, false)] {
        let (sandbox, id, files) = started();
        let body = if chunked {
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        } else {
            "Content-Length: 100\r\n\r\nhello"
        };
        let head = ask(&sandbox, "PUT", &format!("{files}/a.bin/content"))
            .token("alice-token")
            .head;
        let mut stream = connect(&sandbox.url());
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        sandbox.wait_until("the body has begun", |sandbox| {
            sandbox
                .requests()
                .last()
                .is_some_and(|request| request.received == 5)
        });
        if reset {
            // Leaving an answer unread makes the kernel reset the connection; so does no lingering.
            reset_stream(stream);
        } else {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        sandbox.wait_until("the request ends", |sandbox| sandbox.in_flight() == 0);
        assert_eq!(
            sandbox.draft_file(&id, "a.bin").is_some(),
            left,
            "chunked {chunked}, reset {reset}"
        );
        if left {
            assert_eq!(
                post(&sandbox, &format!("{files}/a.bin/commit"), Value::Null).status,
                500
            );
        }
    }
}

fn reset_stream(stream: std::net::TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    stream.set_zero_linger().unwrap();
}

#[test]
fn chunked_bodies_and_expectations_work() {
    let (sandbox, id, files) = started();
    let head = ask(&sandbox, "PUT", &format!("{files}/a.bin/content"))
        .token("alice-token")
        .head;
    let mut stream = connect(&sandbox.url());
    stream
        .write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(read_answer(&mut stream, "PUT").unwrap().status, 200);
    assert_eq!(sandbox.draft_file(&id, "a.bin").unwrap().bytes(), b"hello");
    stream
        .write_all(format!("{head}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(read_answer(&mut stream, "PUT").unwrap().status, 100);
    stream.write_all(b"abc").unwrap();
    assert_eq!(read_answer(&mut stream, "PUT").unwrap().status, 200);
    assert_eq!(sandbox.draft_file(&id, "a.bin").unwrap().bytes(), b"abc");
}

#[test]
fn limits() {
    let (sandbox, id, files) = started();
    let content = format!("{files}/a.bin/content");
    sandbox.knobs(|knobs| knobs.quota = 10);
    let full = put(&sandbox, &content, &[0; 11]);
    assert_eq!(
        (full.status, full.json()["message"].as_str()),
        (400, Some("Bucket quota exceeded."))
    );
    sandbox.knobs(|knobs| (knobs.quota, knobs.max_body) = (1 << 30, Some(1000)));
    let mut stream = connect(&sandbox.url());
    let large = ask(&sandbox, "PUT", &content)
        .token("alice-token")
        .body(vec![0; 2_000_000]);
    let large = large.send_on(&mut stream).unwrap();
    assert_eq!((large.status, large.header("connection")), (413, None));
    assert!(
        ask(&sandbox, "GET", "/api/ping").send_on(&mut stream).is_err(),
        "the connection is closed after a 413"
    );
    assert_eq!(sandbox.draft_file(&id, "a.bin").unwrap().status, "pending");
    assert_eq!(put(&sandbox, &content, &[0; 1000]).status, 200);
    sandbox.knobs(|knobs| knobs.max_files = 2);
    let message = "Uploading selected files will result in exceeding the max amount per record.";
    assert_eq!(
        post(&sandbox, &files, json!([{"key": "b"}, {"key": "c"}])).json()["message"],
        message
    );
}

#[test]
fn keys() {
    let (sandbox, id, files) = started();
    let long = "k".repeat(256);
    let starts =
        json!([{"key": "a/b"}, {"key": "100%.txt"}, {"key": "/lead"}, {"key": "new\nline"}, {"key": long}]);
    assert_eq!(post(&sandbox, &files, starts).status, 201);
    for path in ["a/b", "a%2Fb", "100%25.txt"] {
        assert_eq!(
            put(&sandbox, &format!("{files}/{path}/content"), b"x").status,
            200,
            "{path}"
        );
    }
    let moved = get(&sandbox, &format!("{files}//lead"));
    let location = format!("{}{files}/lead", sandbox.url());
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some(location.as_str()))
    );
    assert_eq!(get(&sandbox, &format!("{files}/new%0Aline")).status, 404);
    let long = put(&sandbox, &format!("{files}/{long}/content"), b"x");
    assert_eq!(
        (long.status, long.json()["message"].as_str()),
        (400, Some("Filename is too long."))
    );
    assert_eq!(delete(&sandbox, &files).status, 204);
    assert!(sandbox.draft_keys(&id).is_empty());
}

#[test]
fn a_missing_part_is_committed_as_zeros() {
    let (sandbox, id, files) = started();
    let start = json!([{"key": "m", "size": 8, "transfer": {"type": "M", "parts": 2, "part_size": 5}}]);
    let entry = post(&sandbox, &files, start).json()["entries"][1].clone();
    assert!(entry["links"].get("content").is_none());
    assert_eq!(
        entry["links"]["parts"][1]["url"],
        format!("{}{files}/m/content/2", sandbox.url())
    );
    let short = put(&sandbox, &format!("{files}/m/content/1"), b"abc");
    assert_eq!(short.json()["errors"], "File upload transfer failed.");
    assert_eq!(put(&sandbox, &format!("{files}/m/content/2"), b"xyz").status, 200);
    let done = post(&sandbox, &format!("{files}/m/commit"), Value::Null).json();
    assert_eq!(
        (&done["transfer"]["type"], &done["status"]),
        (&json!("L"), &json!("completed"))
    );
    let stored = sandbox.draft_file(&id, "m").unwrap();
    assert_eq!(stored.bytes(), b"\0\0\0\0\0xyz");
    assert_eq!(done["checksum"], format!("md5:{}", md5_hex(b"\0\0\0\0\0xyz")));
}

#[test]
fn a_stalled_upload_is_given_up_with_its_client() {
    let (sandbox, id, files) = started();
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::StallUpload { after: 1 }),
    );
    let mut stream = connect(&sandbox.url());
    let head = ask(&sandbox, "PUT", &format!("{files}/a.bin/content"))
        .token("alice-token")
        .head;
    stream
        .write_all(format!("{head}Content-Length: 100000\r\n\r\nhello").as_bytes())
        .unwrap();
    sandbox.wait_until("the upload has begun", |sandbox| {
        sandbox.requests().last().is_some_and(|last| last.received > 0)
    });
    stream.write_all(&[0; 50_000]).unwrap();
    drop(stream);
    sandbox.wait_until("the stalled upload is given up", |sandbox| {
        sandbox.in_flight() == 0
    });
    assert_eq!(sandbox.draft_file(&id, "a.bin").unwrap().status, "pending");
}

#[test]
fn uploads_go_wrong_on_demand() {
    let (sandbox, id, files) = started();
    let content = format!("{files}/a.bin/content");
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::ErrorAfterSuccess(504)),
    );
    assert_eq!(put(&sandbox, &content, b"hello").status, 504);
    assert_eq!(sandbox.draft_file(&id, "a.bin").unwrap().size, 5);
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::CloseUpload { after: 10 }),
    );
    let large = || {
        ask(&sandbox, "PUT", &content)
            .token("alice-token")
            .body(vec![1; 1 << 20])
            .send()
    };
    assert!(large().is_err());
    assert_eq!(sandbox.draft_file(&id, "a.bin").unwrap().status, "pending");
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::ResetUpload { after: 10 }),
    );
    assert!(large().is_err());
    assert!(sandbox.draft_file(&id, "a.bin").is_none());
    post(&sandbox, &files, json!([{"key": "a.bin"}]));
    sandbox.fault(
        Fault::on(Route::PutContent)
            .key("a.bin")
            .times(1)
            .then(Effect::UploadLost),
    );
    assert_eq!(
        put(&sandbox, &content, b"hello").json()["errors"],
        "File upload transfer failed."
    );
    assert!(sandbox.draft_file(&id, "a.bin").is_none());
}

const MIB: usize = 1 << 20;

/// A file `m` of so many bytes started in parts, and the links of those.
fn in_parts(sandbox: &Sandbox, files: &str, size: usize, parts: u64) -> Vec<String> {
    let start =
        json!([{"key": "m", "size": size, "transfer": {"type": "M", "parts": parts, "part_size": 5 * MIB}}]);
    let list = post(sandbox, files, start);
    assert_eq!(list.status, 201);
    let entry = list.json()["entries"][1].clone();
    assert!(entry["links"].get("content").is_none());
    let links = entry["links"]["parts"].as_array().unwrap();
    links
        .iter()
        .map(|link| link["url"].as_str().unwrap().to_string())
        .collect()
}

/// A part as it is sent along a signed link: without a token.
fn put_signed(sandbox: &Sandbox, link: &str, body: Vec<u8>) -> Answer {
    ask(sandbox, "PUT", link).body(body).get()
}

#[test]
fn parts_go_along_signed_links_to_the_second_origin() {
    let (sandbox, id, files) = started();
    sandbox.knobs(|knobs| {
        knobs.multipart = Multipart::Presigned;
        knobs.checksum_delay = Duration::from_secs(3600);
        knobs.max_body = Some(1000);
    });
    let content: Vec<u8> = (0..12 * MIB).map(|n| (n / 1000) as u8).collect();
    let links = in_parts(&sandbox, &files, content.len(), 3);
    let commit = format!("{files}/m/commit");
    let pieces: Vec<&[u8]> = content.chunks(5 * MIB).collect();
    let sent = put_signed(&sandbox, &links[2], pieces[2].to_vec());
    let tag = format!("\"{}\"", md5_hex(pieces[2]));
    assert_eq!((sent.status, sent.header("etag")), (200, Some(tag.as_str())));
    assert_eq!(put_signed(&sandbox, &links[0], pieces[0].to_vec()).status, 200);
    assert_eq!(
        post(&sandbox, &commit, Value::Null).status,
        500,
        "a part is missing"
    );
    assert_eq!(get(&sandbox, &format!("{files}/m/content")).status, 403);
    assert_eq!(put_signed(&sandbox, &links[1], pieces[1].to_vec()).status, 200);
    let done = post(&sandbox, &commit, Value::Null).json();
    assert_eq!(
        (&done["status"], &done["transfer"]["type"]),
        (&json!("completed"), &json!("L"))
    );
    let checksum = done["checksum"].as_str().unwrap();
    assert!(
        checksum.starts_with("multipart:") && checksum.ends_with("-3-5242880"),
        "{checksum}"
    );
    assert_eq!(sandbox.draft_file(&id, "m").unwrap().bytes(), content);
    assert_eq!(
        put_signed(&sandbox, &links[1], vec![1]).status,
        404,
        "NoSuchUpload"
    );
    assert_eq!(sandbox.leaked_authorizations(), 0);
    assert_eq!(sandbox.count(Route::PutObjectPart), 4);
}

#[test]
fn a_signed_link_of_a_part_takes_no_token_and_no_changes_and_expires() {
    let (sandbox, _, files) = started();
    sandbox.knobs(|knobs| (knobs.multipart, knobs.link_seconds) = (Multipart::Presigned, 0));
    let link = in_parts(&sandbox, &files, 10, 1).remove(0);
    assert!(
        put_signed(&sandbox, &link, vec![1])
            .text()
            .contains("Request has expired")
    );
    sandbox.knobs(|knobs| knobs.link_seconds = 60);
    let entry = get(&sandbox, &format!("{files}/m")).json();
    let link = entry["links"]["parts"][0]["url"].as_str().unwrap();
    let other = link.replace("partNumber=1", "partNumber=2");
    assert!(
        put_signed(&sandbox, &other, vec![1])
            .text()
            .contains("SignatureDoesNotMatch")
    );
    assert_eq!(get(&sandbox, link).status, 400, "a token beside a link");
    assert_eq!(put(&sandbox, link, b"1").status, 400);
    assert_eq!(sandbox.leaked_authorizations(), 2);
    assert_eq!(put_signed(&sandbox, link, vec![1; 10]).status, 200);
    assert_eq!(put_signed(&sandbox, link, vec![1; 10]).status, 200);
    let commit = post(&sandbox, &format!("{files}/m/commit"), Value::Null);
    assert_eq!(commit.status, 500, "2 parts out of 1");
}

#[test]
fn a_wrong_last_part_is_committed_under_the_declared_size() {
    let (sandbox, id, files) = started();
    sandbox.knobs(|knobs| knobs.multipart = Multipart::Presigned);
    let links = in_parts(&sandbox, &files, 6 * MIB, 2);
    put_signed(&sandbox, &links[0], vec![1; 5 * MIB]);
    put_signed(&sandbox, &links[1], vec![1; 10]);
    let done = post(&sandbox, &format!("{files}/m/commit"), Value::Null).json();
    assert_eq!(
        (&done["size"], &done["status"]),
        (&json!(6 * MIB), &json!("completed"))
    );
    let real = vec![1; 5 * MIB + 10];
    assert_eq!(done["checksum"], format!("md5:{}", md5_hex(&real)));
    assert_eq!(sandbox.draft_file(&id, "m").unwrap().bytes(), real);
}

#[test]
fn parts_are_refused_or_unknown_on_other_servers() {
    let (sandbox, _, files) = started();
    sandbox.knobs(|knobs| knobs.multipart = Multipart::Refused);
    let links = in_parts(&sandbox, &files, 10, 1);
    assert_eq!(put(&sandbox, &links[0], &[1; 10]).status, 403);
    sandbox.knobs(|knobs| knobs.multipart = Multipart::Unknown);
    let start = json!([{"key": "n", "size": 8, "transfer": {"type": "L"}}]);
    let refused = post(&sandbox, &files, start);
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()["errors"],
        json!([{"field": "0.transfer", "messages": ["Unknown field."]}])
    );
    assert!(
        get(&sandbox, &format!("{files}/a.bin"))
            .json()
            .get("transfer")
            .is_none()
    );
}

#[test]
fn a_part_goes_wrong_on_demand_and_its_entry_stays() {
    for multipart in [Multipart::Local, Multipart::Presigned] {
        let (sandbox, id, files) = started();
        sandbox.knobs(|knobs| knobs.multipart = multipart);
        let link = in_parts(&sandbox, &files, 2 * MIB, 1).remove(0);
        let route = match multipart {
            Multipart::Local => Route::PutPart,
            _ => Route::PutObjectPart,
        };
        let send = || match multipart {
            Multipart::Local => ask(&sandbox, "PUT", &link).token("alice-token"),
            _ => ask(&sandbox, "PUT", &link),
        };
        let send = || send().body(vec![1; 2 * MIB]).send();
        sandbox.fault(
            Fault::on(route)
                .key("m")
                .times(1)
                .then(Effect::ResetUpload { after: MIB as u64 }),
        );
        assert!(send().is_err());
        sandbox.fault(Fault::on(route).times(1).then(Effect::ServerError(503)));
        assert_eq!(send().unwrap().status, 503);
        assert_eq!(sandbox.draft_file(&id, "m").unwrap().status, "pending");
        sandbox.fault(Fault::on(route).times(1).then(Effect::KeepOnly { bytes: 10 }));
        assert_eq!(send().unwrap().status, 200);
        let done = post(&sandbox, &format!("{files}/m/commit"), Value::Null).json();
        assert_eq!(done["size"], 2 * MIB);
        let mut kept = vec![1; 10];
        if multipart == Multipart::Local {
            // What the part began with before the reset.
            let stored = sandbox.draft_file(&id, "m").unwrap().bytes();
            assert_eq!(stored.len(), 2 * MIB);
            kept = stored[..10].to_vec();
            assert_eq!(stored[2 * MIB - 10..], [0; 10]);
        } else {
            assert_eq!(sandbox.draft_file(&id, "m").unwrap().bytes(), kept);
        }
        assert_eq!(kept, [1; 10]);
    }
}
