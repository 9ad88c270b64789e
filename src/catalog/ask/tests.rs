//! What is shown when an answer comes, when none does, and when something else answers.

use std::net::TcpStream;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::*;
use crate::catalog::Times;
use crate::repository::testing::{Server, answer};

const JSON: &str = "Content-Type: application/json\r\n";
const HTML: &str = "Content-Type: text/html\r\n";

/// A catalog to which everything is old at once, unless `ttl` says otherwise.
fn catalog(server: &Server, ttl: u64, directory: Option<&Path>) -> Catalog {
    let ttl = Duration::from_secs(ttl);
    let times = Times {
        records: ttl,
        drafts: ttl,
    };
    let keeping = directory.map(|directory| Keeping {
        directory: directory.to_owned(),
        account: "account".to_owned(),
        limit: 1 << 20,
    });
    let mut catalog = Catalog::new(Arc::new(server.repository()), times, keeping.as_ref());
    catalog.hasty = Arc::new(catalog.repository.hasty(Duration::from_secs(2)));
    catalog
}

fn id(name: &str) -> RecordId {
    RecordId::new(name).unwrap()
}

fn record(name: &str, day: u32) -> Value {
    json!({"id": name, "updated": format!("2024-01-{day:02}T00:00:00+00:00")})
}

fn say(stream: &mut TcpStream, value: &Value) {
    answer(stream, 200, JSON, value.to_string().as_bytes());
}

fn is_probe(line: &str) -> bool {
    line.contains("/api/records?")
}

/// What a request for a record asks for.
fn asked_for(line: &str) -> String {
    let path = line.split(' ').nth(1).unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn page(records: &[Value]) -> Value {
    json!({"hits": {"hits": records, "total": records.len()}})
}

fn until(what: &str, wanted: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !wanted() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says each record once; what follows is up to `then`. It gets the line of the request.
fn once_then(then: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Server {
    let known = parking_lot::Mutex::new(std::collections::HashSet::new());
    Server::start(move |_, head, stream| {
        let name = asked_for(&head.line);
        if !is_probe(&head.line) && known.lock().insert(name.clone()) {
            say(stream, &record(&name, 1));
        } else {
            then(&head.line, stream);
        }
    })
}

#[test]
fn a_slow_record_is_shown_as_it_was_known_and_takes_nothing_else_offline() {
    let server = once_then(|line, stream| {
        if is_probe(line) {
            say(stream, &page(&[]));
        } else {
            std::thread::sleep(Duration::from_secs(20));
        }
    });
    let catalog = catalog(&server, 0, None);
    let known = catalog.record(&id("slow1-00001")).unwrap();
    let again = catalog.record(&id("slow1-00001")).unwrap();
    assert_eq!(again.document, known.document);
    until("the probe is over", || catalog.reach.way() == Way::Open);
    assert_eq!(catalog.offline(), None);
    assert_eq!(catalog.overdue().unwrap().known_at, known.asked);
    let asked = server.count();
    catalog.record(&id("slow1-00001")).unwrap();
    assert_eq!(server.count(), asked, "it is not waited for again soon");
    assert!(catalog.record(&id("other-00001")).is_ok());
    catalog.expire();
    assert_eq!(catalog.overdue(), None);
}

#[test]
fn a_repository_that_answers_nothing_in_time_is_offline_when_a_probe_has_failed_too() {
    let server = once_then(|_, _| std::thread::sleep(Duration::from_secs(20)));
    let catalog = catalog(&server, 0, None);
    catalog.record(&id("slow1-00001")).unwrap();
    assert!(catalog.record(&id("slow1-00001")).is_ok());
    until("the probe has failed", || catalog.offline().is_some());
    assert!(catalog.offline().unwrap().known_at.is_some());
    catalog.records.expire();
    assert!(catalog.record(&id("slow1-00001")).is_ok());
}

#[test]
fn a_rate_limit_shows_what_is_known_for_as_long_as_it_lasts() {
    let server = once_then(|_, stream| {
        answer(stream, 429, "Retry-After: 600\r\n", b"{}");
    });
    let catalog = catalog(&server, 0, None);
    for name in ["known-00001", "known-00002"] {
        catalog.record(&id(name)).unwrap();
    }
    for name in ["known-00001", "known-00002", "known-00001"] {
        assert!(catalog.record(&id(name)).is_ok(), "{name}");
    }
    assert_eq!(server.count(), 3, "not asked while the limit is spent");
    assert!(catalog.records.life(&id("known-00001")) > Duration::from_secs(500));
    let overdue = catalog.overdue().unwrap();
    assert!(overdue.reason.contains("rate limit"), "{overdue:?}");
    assert_eq!(catalog.offline(), None);
    assert_eq!(
        catalog.record(&id("other-00001")).unwrap_err().kind(),
        Kind::RateLimited
    );
}

#[test]
fn a_page_of_something_else_drops_nothing_and_is_no_answer() {
    for status in [200, 302, 401, 403, 404, 407, 410, 502] {
        let folder = tempfile::tempdir().unwrap();
        let server = once_then(move |_, stream| {
            let headers = format!("{HTML}Location: http://127.0.0.1:1/login\r\n");
            answer(stream, status, &headers, b"<html>Log in!</html>");
        });
        let before = catalog(&server, 0, Some(folder.path()));
        let known = before.record(&id("known-00001")).unwrap();
        let again = before.record(&id("known-00001"));
        assert_eq!(again.unwrap().document, known.document, "{status}");
        until("the probe has met it too", || before.offline().is_some());
        before.shutdown();
        let after = catalog(&server, 0, Some(folder.path()));
        let kept = after.known_record(&id("known-00001"));
        assert_eq!(kept.unwrap().document, known.document, "{status}");
    }
}

#[test]
fn the_repositorys_own_refusal_drops_what_was_known() {
    for status in [403, 404, 410] {
        let folder = tempfile::tempdir().unwrap();
        let server = once_then(move |_, stream| {
            let body = json!({"status": status, "message": "No."}).to_string();
            answer(stream, status, JSON, body.as_bytes());
        });
        let before = catalog(&server, 0, Some(folder.path()));
        before.record(&id("known-00001")).unwrap();
        assert!(before.record(&id("known-00001")).is_err(), "{status}");
        assert_eq!(before.offline(), None);
        before.shutdown();
        let after = catalog(&server, 0, Some(folder.path()));
        assert!(after.known_record(&id("known-00001")).is_none(), "{status}");
    }
}

#[test]
fn a_refresh_between_question_and_answer_asks_again() {
    let asking: Arc<OnceLock<Arc<Catalog>>> = Arc::default();
    let refreshing = Arc::clone(&asking);
    let server = Server::start(move |number, head, stream| {
        if number == 1 {
            refreshing.get().unwrap().expire();
        }
        let day = if number == 1 { 1 } else { 2 };
        say(stream, &record(&asked_for(&head.line), day));
    });
    let folder = tempfile::tempdir().unwrap();
    let catalog = Arc::new(catalog(&server, 3600, Some(folder.path())));
    assert!(asking.set(Arc::clone(&catalog)).is_ok());
    // What the first answer said may be on the disk when it is asked again.
    let first = catalog.ask_record(&id("known-00001")).unwrap().value;
    assert!(catalog.life_left(first.asked).is_none());
    let entry = catalog.record(&id("known-00001")).unwrap();
    assert!(entry.updated > first.updated);
    assert_eq!(server.count(), 2);
}

#[test]
fn what_a_listing_told_is_not_replaced_by_something_older_from_the_disk() {
    let day = Arc::new(AtomicUsize::new(1));
    let today = Arc::clone(&day);
    let server = Server::start(move |_, head, stream| {
        let record = record("known-00001", today.load(Ordering::SeqCst) as u32);
        if is_probe(&head.line) {
            say(stream, &page(&[record]));
        } else {
            say(stream, &record);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let before = catalog(&server, 3600, Some(folder.path()));
    before.record(&id("known-00001")).unwrap();
    before.shutdown();
    day.store(2, Ordering::SeqCst);
    let after = catalog(&server, 3600, Some(folder.path()));
    assert_eq!(after.newest().unwrap(), [id("known-00001")]);
    let listed = after.known_record(&id("known-00001")).unwrap().updated;
    assert_eq!(after.record(&id("known-00001")).unwrap().updated, listed);
    assert_eq!(server.count(), 3);
}

#[test]
fn a_failure_that_was_made_here_does_not_end_the_offline_state() {
    let server = Server::start(|_, _, stream| answer(stream, 429, "Retry-After: 600\r\n", b"{}"));
    let catalog = catalog(&server, 0, None);
    assert!(catalog.draft(&id("draft-00001")).is_err());
    catalog.begin_offline();
    let error = catalog.draft(&id("other-00001")).unwrap_err();
    assert_eq!((error.kind(), server.count()), (Kind::RateLimited, 1));
    assert!(catalog.offline().is_some());
}

#[test]
fn a_refresh_asks_a_repository_that_was_gone_whether_it_is_back() {
    let server = Server::start(|_, _, stream| say(stream, &page(&[])));
    let catalog = catalog(&server, 3600, None);
    catalog.begin_offline();
    catalog.expire();
    until("it is asked, though nobody looks", || catalog.offline().is_none());
    assert_eq!(server.count(), 1);
}
