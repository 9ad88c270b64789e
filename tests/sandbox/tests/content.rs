//! Reading files in the ways that servers send them.

mod common;

use std::time::{Duration, Instant};

use common::*;
use rdm_sandbox::{ContentMode, Data, Effect, Fault, Generator, NewRecord, Route, Sandbox};

const SIZE: u64 = 3_000_000;

fn bytes() -> Vec<u8> {
    Generator::new(SIZE, 5).read_at(0, SIZE as usize).to_vec()
}

/// A sandbox with a record of one file, and the path of its content.
fn with_file() -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(
        NewRecord::titled("Content")
            .file("a.bin", Data::generated(SIZE, 5))
            .file("none.txt", ""),
    );
    (sandbox, format!("/api/records/{id}/files/a.bin/content"))
}

fn range(sandbox: &Sandbox, path: &str, range: &str) -> Answer {
    ask(sandbox, "GET", path).header("Range", range).get()
}

#[test]
fn ranges() {
    let (sandbox, path) = with_file();
    let whole = ask(&sandbox, "GET", &path).get();
    assert!(whole.body == bytes());
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    assert_eq!(
        whole.header("content-disposition"),
        Some("attachment; filename=a.bin")
    );
    let part = range(&sandbox, &path, "bytes=1048570-1048589");
    assert_eq!(
        (part.status, part.header("content-range")),
        (206, Some("bytes 1048570-1048589/3000000"))
    );
    assert_eq!(part.body, bytes()[1_048_570..1_048_590]);
    assert_eq!(part.header("content-md5"), whole.header("content-md5"));
    for bad in ["bytes=3000000-", "bytes=0-1,5-6", "lines=1-2"] {
        assert_eq!(range(&sandbox, &path, bad).status, 416, "{bad}");
    }
    assert_eq!(
        range(&sandbox, &path.replace("a.bin", "none.txt"), "bytes=0-9").status,
        200
    );
    let etag = whole.header("etag").unwrap();
    let unchanged = ask(&sandbox, "GET", &path).header("If-None-Match", etag).get();
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let changed = ask(&sandbox, "GET", &path)
        .header("Range", "bytes=0-9")
        .header("If-Range", "\"other\"")
        .get();
    assert_eq!((changed.status, changed.body.len() as u64), (200, SIZE));
    let head = ask(&sandbox, "HEAD", &path).get();
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("3000000"))
    );
}

#[test]
fn ranges_ignored() {
    let (sandbox, path) = with_file();
    sandbox.set_content_mode(ContentMode::Ignored);
    for any in ["bytes=0-9", "bytes=9999999-", "nonsense"] {
        let answer = range(&sandbox, &path, any);
        assert_eq!(
            (
                answer.status,
                answer.header("accept-ranges"),
                answer.body.len() as u64
            ),
            (200, None, SIZE)
        );
    }
}

#[test]
fn version_12() {
    let (sandbox, path) = with_file();
    sandbox.set_content_mode(ContentMode::V12);
    let part = range(&sandbox, &path, "bytes=10-19");
    assert_eq!((part.status, part.body.len()), (200, 10));
    assert_eq!(part.header("content-range"), Some("bytes 10-19/3000000"));
    assert_eq!(part.header("accept-ranges"), Some("none"));
    let bad = range(&sandbox, &path, "bytes=3000000-");
    assert_eq!(
        (bad.status, bad.json()),
        (500, serde_json::json!({"status": 500, "message": null}))
    );
    let etag = part.header("etag").unwrap();
    assert_eq!(
        ask(&sandbox, "GET", &path)
            .header("If-None-Match", etag)
            .get()
            .status,
        200
    );
}

#[test]
fn redirects() {
    let (sandbox, path) = with_file();
    sandbox.set_content_mode(ContentMode::Redirect);
    let found = range(&sandbox, &path, "bytes=0-9");
    let link = found.header("location").unwrap().to_string();
    assert_eq!((found.status, found.text()), (302, link.clone()));
    assert!(found.header("etag").is_none() && found.header("content-md5").is_none());
    assert!(link.starts_with(&sandbox.objects_url()) && !link.starts_with(&sandbox.url()));
    assert!(ask(&sandbox, "GET", &link).get().body == bytes());
    let part = range(&sandbox, &link, "bytes=-5");
    assert_eq!(
        (part.status, part.body),
        (206, bytes()[SIZE as usize - 5..].to_vec())
    );
    let beyond = range(&sandbox, &link, "bytes=3000000-");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */3000000"))
    );
    assert_eq!(ask(&sandbox, "HEAD", &link).get().status, 403);
    assert_eq!(ask(&sandbox, "GET", &format!("{link}&x=1")).get().status, 403);
    assert_eq!(sandbox.leaked_authorizations(), 0);
    let refused = get(&sandbox, &link);
    assert_eq!((refused.status, sandbox.leaked_authorizations()), (400, 1));
    sandbox.knobs(|knobs| knobs.link_seconds = 0);
    let link = range(&sandbox, &path, "bytes=0-9")
        .header("location")
        .unwrap()
        .to_string();
    let expired = ask(&sandbox, "GET", &link).get();
    assert_eq!(expired.status, 403);
    assert!(expired.text().contains("<Message>Request has expired</Message>"));
    assert_eq!(sandbox.count(Route::Object), 7);
}

#[test]
fn names_and_types() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(
        NewRecord::titled("Types")
            .file("t.csv", "a,b\n")
            .file("Größe.pdf", "%PDF"),
    );
    let of = |key: &str| ask(&sandbox, "GET", &format!("/api/records/{id}/files/{key}/content")).get();
    let csv = of("t.csv");
    assert_eq!(csv.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(csv.header("content-disposition"), Some("inline"));
    let pdf = of("Gr%C3%B6%C3%9Fe.pdf");
    let named = "attachment; filename=Gre.pdf; filename*=UTF-8''Gr%C3%B6%C3%9Fe.pdf";
    assert_eq!(pdf.header("content-disposition"), Some(named));
}

#[test]
fn bodies_go_wrong_on_demand() {
    let (sandbox, path) = with_file();
    let once = |effect| sandbox.fault(Fault::on(Route::Content).times(1).then(effect));
    let read = || ask(&sandbox, "GET", &path).get();
    once(Effect::ShortBody { after: 1000 });
    let short = read();
    assert_eq!(
        (short.status, short.body.len(), short.complete),
        (200, 1000, false)
    );
    assert_eq!(short.header("content-length"), Some("3000000"));
    once(Effect::ResetBody { after: 1000 });
    let reset = read();
    assert_eq!((reset.body.len(), reset.complete), (1000, false));
    once(Effect::FlipByte { offset: 1_000_005 });
    let part = range(&sandbox, &path, "bytes=1000000-1000009");
    let expected: Vec<u8> = bytes()[1_000_000..1_000_010]
        .iter()
        .enumerate()
        .map(|(at, byte)| if at == 5 { !byte } else { *byte })
        .collect();
    assert_eq!(part.body, expected);
    once(Effect::HtmlPage);
    let html = read();
    assert_eq!(
        (html.status, html.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    once(Effect::TooManyRequests { retry_after: 7 });
    let limited = read();
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
    once(Effect::Reset);
    let error = ask(&sandbox, "GET", &path).send().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    once(Effect::Bandwidth(SIZE * 4));
    let began = Instant::now();
    assert!(read().body == bytes());
    assert!(began.elapsed() > Duration::from_millis(200));
    assert!(read().body == bytes(), "nothing goes wrong any more");
}

#[test]
fn records_in_other_forms() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Ice & snow"));
    let of = |accept: &str| {
        let answer = ask(&sandbox, "GET", &format!("/api/records/{id}"))
            .header("Accept", accept)
            .get();
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(accept))
        );
        answer
    };
    assert!(
        of("application/x-bibtex")
            .text()
            .contains("title        = {Ice & snow}")
    );
    assert_eq!(
        of("application/vnd.citationstyles.csl+json").json()["title"],
        "Ice & snow"
    );
    assert_eq!(
        of("application/vnd.datacite.datacite+json").json()["publicationYear"],
        "2024"
    );
    assert_eq!(of("application/ld+json").json()["name"], "Ice & snow");
    assert!(
        of("application/x-dc+xml")
            .text()
            .contains("<dc:title>Ice &amp; snow</dc:title>")
    );
    assert!(
        of("application/vnd.datacite.datacite+xml")
            .text()
            .contains("<title>Ice &amp; snow</title>")
    );
}

#[test]
fn stalls_last_until_the_client_leaves() {
    let (sandbox, path) = with_file();
    for (effect, sent) in [
        (Effect::Stall, None),
        (Effect::StallBody { after: 100 }, Some(100)),
    ] {
        sandbox.fault(Fault::on(Route::Content).times(1).then(effect));
        let mut stream = connect(&sandbox.url());
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let got = ask(&sandbox, "GET", &path).send_on(&mut stream);
        assert_eq!(got.ok().map(|answer| answer.body.len()), sent);
        assert_eq!(sandbox.in_flight(), 1);
        drop(stream);
        sandbox.wait_until("the stalled request is given up", |sandbox| {
            sandbox.in_flight() == 0
        });
    }
}
