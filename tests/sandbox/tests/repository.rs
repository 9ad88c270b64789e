//! Access, searches, limits, counting, samples, and the binary.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;
use rdm_sandbox::{ADMIN, BOB, ContentMode, NewRecord, RateLimit, Route, Sandbox, md5_hex};
use serde_json::{Value, json};

#[test]
fn restricted_records_and_files() {
    let sandbox = Sandbox::start();
    let files = sandbox.publish(NewRecord::titled("Files").restricted_files().file("a.txt", "a"));
    let all = sandbox.publish(NewRecord::titled("All").restricted().file("a.txt", "a"));
    let as_bob = |path: String| ask(&sandbox, "GET", &path).token(BOB).get();
    let record = as_bob(format!("/api/records/{files}"));
    assert_eq!(
        (record.status, &record.json()["files"]),
        (200, &json!({"enabled": true}))
    );
    assert_eq!(record.json()["access"]["status"], "restricted");
    assert!(record.json()["parent"]["access"].get("grants").is_none());
    for path in ["/files", "/files/a.txt", "/files/a.txt/content"] {
        assert_eq!(
            as_bob(format!("/api/records/{files}{path}")).status,
            403,
            "{path}"
        );
        assert_eq!(
            get(&sandbox, &format!("/api/records/{files}{path}")).status,
            200,
            "{path}"
        );
    }
    assert_eq!(as_bob(format!("/api/records/{all}")).status, 403);
    assert_eq!(as_bob("/api/records".to_string()).json()["hits"]["total"], 1);
    assert_eq!(get(&sandbox, "/api/records").json()["hits"]["total"], 2);
}

#[test]
fn a_deleted_record_leaves_a_tombstone() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Spam").file("a.txt", "a"));
    let delete = |token| {
        ask(&sandbox, "DELETE", &format!("/api/records/{id}/delete"))
            .token(token)
            .json(json!({"note": "bye"}))
            .get()
    };
    assert_eq!(delete("alice-token").status, 403);
    assert_eq!(delete(ADMIN).status, 204);
    for path in ["", "/files", "/files/a.txt/content"] {
        let gone = get(&sandbox, &format!("/api/records/{id}{path}"));
        assert_eq!(
            (gone.status, &gone.json()["tombstone"]["note"]),
            (410, &json!("bye"))
        );
    }
    assert_eq!(get(&sandbox, "/api/records").json()["hits"]["total"], 0);
}

#[test]
fn searches() {
    let sandbox = Sandbox::start();
    let ids: Vec<String> = (0..60)
        .map(|number| sandbox.publish(NewRecord::titled(&format!("Record {number:02}"))))
        .collect();
    let search = |query: &str| ask(&sandbox, "GET", &format!("/api/records?{query}")).get();
    let first = search("").json();
    assert_eq!(first["hits"]["hits"].as_array().unwrap().len(), 25);
    assert_eq!(
        (&first["hits"]["total"], &first["sortBy"]),
        (&json!(60), &json!("newest"))
    );
    assert_eq!(first["hits"]["hits"][0]["id"], ids[59]);
    assert!(first["links"].get("prev").is_none());
    let mut seen = BTreeSet::new();
    let mut next = Some(format!("{}/api/records?size=20&sort=oldest", sandbox.url()));
    while let Some(link) = next {
        let page = ask(&sandbox, "GET", &link).get().json();
        seen.extend(
            page["hits"]["hits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|hit| hit["id"].as_str().unwrap().to_string()),
        );
        next = page["links"]["next"].as_str().map(str::to_string);
    }
    assert_eq!(seen.len(), 60);
    assert_eq!(search("q=record+07").json()["hits"]["hits"][0]["id"], ids[7]);
    assert_eq!(
        search(&format!("q=pids.doi.identifier:%2210.5072/{}%22", ids[3])).json()["hits"]["total"],
        1
    );
    let concept = sandbox.concept_of(&ids[4]);
    assert_eq!(
        search(&format!("q=parent.id:%22{concept}%22")).json()["hits"]["hits"][0]["id"],
        ids[4]
    );
    assert_eq!(
        search("q=title:record").json()["hits"]["total"],
        0,
        "short field names match nothing"
    );
    for bad in ["sort=title", "size=0", "page=0", "page=11&size=1000", "size=x"] {
        assert_eq!(search(bad).status, 400, "{bad}");
    }
    assert_eq!(search("page=10&size=1000").status, 200);
}

#[test]
fn changes_reach_the_index_late_if_wanted() {
    let sandbox = Sandbox::start();
    sandbox.knobs(|knobs| knobs.index_delay = Duration::from_millis(300));
    let id = sandbox.publish(NewRecord::titled("Late"));
    let total = || ask(&sandbox, "GET", "/api/records").get().json()["hits"]["total"].clone();
    assert_eq!(total(), 0);
    assert_eq!(get(&sandbox, &format!("/api/records/{id}")).status, 200);
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(total(), 1);
}

#[test]
fn content_negotiation() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Negotiation").file("a.bin", "a"));
    let of = |path: &str, accept: &str| {
        ask(&sandbox, "GET", &format!("/api/records/{id}{path}"))
            .header("Accept", accept)
            .get()
    };
    assert_eq!(
        of("", "application/vnd.inveniordm.v1+json").header("content-type"),
        Some("application/vnd.inveniordm.v1+json")
    );
    assert_eq!(of("", "text/html").status, 406);
    assert_eq!(of("/files", "application/vnd.inveniordm.v1+json").status, 406);
    assert_eq!(
        of("/files", "application/vnd.inveniordm.v1+json, */*;q=0.5").status,
        200
    );
    assert_eq!(of("/files/a.bin/content", "application/octet-stream").status, 406);
    assert_eq!(of("/files/a.bin/content", "*/*").status, 200);
    assert_eq!(ask(&sandbox, "GET", "/api/nothing").get().status, 404);
    assert_eq!(
        ask(&sandbox, "POST", &format!("/api/records/{id}/files"))
            .get()
            .status,
        405
    );
    assert_eq!(
        ask(&sandbox, "PATCH", &format!("/api/records/{id}/draft"))
            .get()
            .status,
        405
    );
}

#[test]
fn rate_limits() {
    let sandbox = Sandbox::start();
    assert!(get(&sandbox, "/api/ping").header("x-ratelimit-limit").is_none());
    sandbox.knobs(|knobs| {
        knobs.rate_limit = Some(RateLimit {
            requests: 2,
            seconds: 60,
        })
    });
    assert_eq!(
        get(&sandbox, "/api/ping").header("x-ratelimit-remaining"),
        Some("1")
    );
    assert_eq!(get(&sandbox, "/api/ping").status, 200);
    let limited = get(&sandbox, "/api/ping");
    assert_eq!(
        (limited.status, limited.json()),
        (429, json!({"message": "2 per 1 minute", "status": 429}))
    );
    assert!(limited.header("retry-after").unwrap().parse::<u64>().unwrap() <= 60);
    assert_eq!(
        ask(&sandbox, "GET", "/api/ping").token(BOB).get().status,
        200,
        "counted by user"
    );
}

#[test]
fn requests_are_counted_and_logged() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Counting").file("a.bin", vec![0; 100]));
    let content = ask(&sandbox, "GET", &format!("/api/records/{id}/files/a.bin/content"));
    content
        .token(BOB)
        .header("Range", "bytes=0-9")
        .header("User-Agent", "test/1")
        .get();
    get(&sandbox, "/api/records");
    get(&sandbox, "/sandbox/counts");
    sandbox.wait_until("both requests end", |sandbox| sandbox.in_flight() == 0);
    assert_eq!((sandbox.total(), sandbox.count(Route::Content)), (2, 1));
    assert_eq!(sandbox.counts()["GET search"], 1);
    let request = &sandbox.requests()[0];
    assert_eq!(
        (request.status, request.sent, request.authorization),
        (206, 10, true)
    );
    assert_eq!(request.range.as_deref(), Some("bytes=0-9"));
    assert_eq!(request.user_agent.as_deref(), Some("test/1"));
    sandbox.reset_counts();
    assert_eq!((sandbox.total(), sandbox.requests().len()), (0, 0));
}

#[test]
fn samples_can_all_be_read() {
    let sandbox = Sandbox::start();
    let samples = sandbox.seed_samples();
    let hits = get(&sandbox, "/api/user/records?allversions=true&size=100").json()["hits"].clone();
    assert_eq!(hits["total"], 17);
    for hit in hits["hits"].as_array().unwrap() {
        let Some(id) = hit["id"].as_str().filter(|id| *id != samples.big) else {
            continue;
        };
        let draft = if hit["is_published"] == true { "" } else { "/draft" };
        let files = get(&sandbox, &format!("/api/records/{id}{draft}/files")).json();
        for entry in files["entries"].as_array().into_iter().flatten() {
            let content = get(&sandbox, entry["links"]["content"].as_str().unwrap());
            assert_eq!(
                entry["checksum"],
                format!("md5:{}", md5_hex(&content.body)),
                "{}",
                entry["key"]
            );
        }
    }
    let [first, second, third] = &samples.three_versions;
    let file_id = |id: &str, key: &str| {
        get(&sandbox, &format!("/api/records/{id}/files/{key}")).json()["file_id"].clone()
    };
    assert_eq!(file_id(first, "same.txt"), file_id(third, "same.txt"));
    assert_ne!(file_id(second, "data.txt"), file_id(third, "data.txt"));
    let concept = get(&sandbox, &format!("/api/records/{}", samples.concept_of_three));
    assert_eq!(
        concept.header("location"),
        Some(format!("/api/records/{third}").as_str())
    );
}

#[test]
fn the_binary_serves_until_it_is_stopped() {
    let env_file = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rdm-sandbox"))
        .args(["--mode", "ignored", "--big-size=1000", "--env-file"])
        .arg(env_file.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line.trim().strip_prefix("ready ").unwrap().to_string();
    let env = std::fs::read_to_string(env_file.path()).unwrap();
    assert_eq!(
        env,
        format!("INVENIORDM_URL={url}\nINVENIORDM_TOKEN=alice-token\n")
    );
    // Only there to make requests from; they go to the child.
    let sandbox = Sandbox::start();
    let to = |method: &str, path: &str, body: Value| {
        ask(&sandbox, method, &format!("{url}{path}")).json(body).get()
    };
    let records = to("GET", "/sandbox/records", Value::Null).json();
    let big = records["records"]["Micro-CT scan of a sandstone core"]
        .as_str()
        .unwrap()
        .to_string();
    let content = format!("/api/records/{big}/files/scan.raw/content");
    let part = || {
        ask(&sandbox, "GET", &format!("{url}{content}"))
            .header("Range", "bytes=0-9")
            .get()
    };
    assert_eq!((part().status, part().body.len()), (200, 1000));
    assert_eq!(to("POST", "/sandbox/mode", json!({"mode": "ranges"})).status, 200);
    assert_eq!((part().status, part().body.len()), (206, 10));
    let fault = json!({"route": "GET content", "times": 1, "effect": {"server_error": 503}});
    assert_eq!(to("POST", "/sandbox/faults", fault).json()["id"], 1);
    assert_eq!((part().status, part().status), (503, 206));
    assert_eq!(
        to(
            "POST",
            "/sandbox/knobs",
            json!({"latency_ms": 1, "max_body": null})
        )
        .status,
        200
    );
    assert_eq!(to("POST", "/sandbox/knobs", json!({"typo": 1})).status, 400);
    assert_eq!(
        to("GET", "/sandbox/counts", Value::Null).json()["counts"]["GET content"],
        6
    );
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success() && child.wait().unwrap().success());
}

#[test]
fn a_sandbox_stops_when_it_is_dropped() {
    let sandbox = Sandbox::start();
    sandbox.set_content_mode(ContentMode::Ignored);
    let mut stream = connect(&sandbox.url());
    ask(&sandbox, "GET", "/api/ping").send_on(&mut stream).unwrap();
    let url = sandbox.url();
    drop(sandbox);
    assert!(std::net::TcpStream::connect(url.trim_start_matches("http://")).is_err());
    assert!(read_answer(&mut stream, "GET").is_err());
}
