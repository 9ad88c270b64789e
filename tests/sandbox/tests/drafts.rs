//! The life of drafts, and the traps in it.

mod common;

use common::*;
use rdm_sandbox::{BOB, NewRecord, Sandbox};
use serde_json::{Value, json};

fn draft_of(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_string()
}

#[test]
fn a_draft_becomes_a_record() {
    let sandbox = Sandbox::start();
    let made = post(
        &sandbox,
        "/api/records",
        json!({"metadata": metadata("Ice cores")}),
    );
    assert_eq!(made.status, 201);
    let draft = made.json();
    assert_eq!(
        draft["access"]["status"], "metadata-only",
        "the status of a draft just made is not right yet"
    );
    let id = draft_of(&made);
    assert_eq!(
        get(&sandbox, &format!("/api/records/{id}")).json()["message"],
        "The persistent identifier is not registered."
    );
    upload(&sandbox, &id, "dir/a.txt", b"hello");
    let draft = get(&sandbox, &format!("/api/records/{id}/draft")).json();
    assert_eq!(
        draft["revision_id"],
        made.json()["revision_id"],
        "uploads don't change the revision"
    );
    assert_eq!(
        draft["files"]["entries"]["dir/a.txt"]["checksum"],
        "md5:5d41402abc4b2a76b9719d911017c592"
    );
    let published = post(
        &sandbox,
        &format!("/api/records/{id}/draft/actions/publish"),
        Value::Null,
    );
    assert_eq!(published.status, 202);
    assert_eq!(
        published.json()["pids"]["doi"]["identifier"],
        format!("10.5072/{id}")
    );
    let again = post(
        &sandbox,
        &format!("/api/records/{id}/draft/actions/publish"),
        Value::Null,
    );
    assert_eq!(
        (again.status, again.json()["message"].as_str()),
        (404, Some("Not found."))
    );
    let content = ask(
        &sandbox,
        "GET",
        &format!("/api/records/{id}/files/dir%2Fa.txt/content"),
    )
    .get();
    assert_eq!((content.status, content.text().as_str()), (200, "hello"));
    let record = ask(&sandbox, "GET", &format!("/api/records/{id}")).get().json();
    assert!(record["files"]["entries"]["dir/a.txt"]["links"]["content"].is_string());
    let hit = ask(&sandbox, "GET", &format!("/api/records?q=id:%22{id}%22"))
        .get()
        .json()["hits"]["hits"][0]
        .clone();
    let entry = &hit["files"]["entries"]["dir/a.txt"];
    assert_eq!(entry["size"], 5);
    assert!(entry.get("links").is_none() && entry.get("storage_class").is_none());
}

#[test]
fn what_is_invalid_is_dropped_and_reported() {
    let sandbox = Sandbox::start();
    let made = post(
        &sandbox,
        "/api/records",
        json!({"metadata": {"title": "ab", "foo": 1}}),
    );
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["metadata"], json!({}));
    let fields: Vec<Value> = made.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].clone())
        .collect();
    let expected = [
        "resource_type",
        "creators",
        "title",
        "publication_date",
        "foo",
        "publisher",
    ];
    assert_eq!(fields, expected.map(|field| json!(format!("metadata.{field}"))));
    let refused = post(
        &sandbox,
        "/api/records",
        json!({"metadata": {"resource_type": {"id": "nope"}}}),
    );
    assert_eq!(
        (refused.status, refused.json()["message"].as_str()),
        (400, Some("Invalid value nope."))
    );
    let refused = post(
        &sandbox,
        "/api/records",
        json!({"access": {"record": "secret", "files": "public"}}),
    );
    assert_eq!(refused.status, 400);
    let refused = ask(&sandbox, "POST", "/api/records")
        .token("alice-token")
        .body("{")
        .get();
    assert_eq!(
        refused.json()["message"],
        "Unable to decode JSON data in request body."
    );
}

#[test]
fn a_put_replaces_all_but_access_and_pids() {
    let sandbox = Sandbox::start();
    let id = sandbox.draft(
        NewRecord::titled("Before")
            .restricted_files()
            .file("a.txt", "a")
            .default_preview("a.txt"),
    );
    let draft = format!("/api/records/{id}/draft");
    assert_eq!(
        post(&sandbox, &format!("{draft}/pids/doi"), Value::Null).status,
        201
    );
    assert_eq!(
        post(&sandbox, &format!("{draft}/pids/doi"), Value::Null).status,
        400
    );
    let answer = ask(&sandbox, "PUT", &draft)
        .token("alice-token")
        .json(json!({"metadata": {"title": "After"}}))
        .get();
    let after = answer.json();
    assert_eq!(
        (answer.status, &after["metadata"]),
        (200, &json!({"title": "After"}))
    );
    assert_eq!(after["access"]["files"], "restricted");
    assert!(after["pids"]["doi"].is_object());
    assert!(after["files"].get("default_preview").is_none());
    let disable = json!({"metadata": metadata("x y z"), "files": {"enabled": false}});
    let after = ask(&sandbox, "PUT", &draft)
        .token("alice-token")
        .json(disable)
        .get()
        .json();
    assert_eq!(after["errors"][0]["field"], "files.enabled");
    assert_eq!(after["files"]["enabled"], true);
}

#[test]
fn if_match_is_a_bare_integer() {
    let sandbox = Sandbox::start();
    let id = sandbox.draft(NewRecord::titled("Revisions"));
    let path = format!("/api/records/{id}/draft");
    let put = |value: &str| {
        let ask = ask(&sandbox, "PUT", &path)
            .token("alice-token")
            .header("If-Match", value);
        ask.json(json!({"metadata": metadata("Revisions")})).get()
    };
    let etag = get(&sandbox, &path).header("etag").unwrap().to_string();
    assert_eq!(
        put(&etag).json()["errors"][0],
        json!({"field": "if_match", "messages": ["Not a valid integer."]})
    );
    let stale = put("99");
    let message = "Revision id provided(99) doesn't match record's one(5)";
    assert_eq!(
        (stale.status, stale.json()["message"].as_str()),
        (412, Some(message))
    );
    assert_eq!(put(etag.trim_matches('"')).status, 200);
    assert_eq!(put(etag.trim_matches('"')).status, 412);
}

#[test]
fn publishing_names_what_is_missing() {
    let sandbox = Sandbox::start();
    let id = draft_of(&post(&sandbox, "/api/records", json!({})));
    let draft = format!("/api/records/{id}/draft");
    let publish = || post(&sandbox, &format!("{draft}/actions/publish"), Value::Null);
    assert_eq!(publish().json()["errors"].as_array().unwrap().len(), 4);
    let mut without_publisher = metadata("Complete");
    without_publisher.as_object_mut().unwrap().remove("publisher");
    ask(&sandbox, "PUT", &draft)
        .token("alice-token")
        .json(json!({"metadata": without_publisher}))
        .get();
    assert_eq!(publish().json()["errors"][0]["field"], "files.enabled");
    post(&sandbox, &format!("{draft}/files"), json!([{"key": "a"}]));
    assert_eq!(publish().json()["errors"][0]["field"], "files");
    delete(&sandbox, &format!("{draft}/files/a"));
    upload(&sandbox, &id, "a", b"a");
    assert_eq!(publish().json()["errors"][0]["field"], "metadata.publisher");
    ask(&sandbox, "PUT", &draft)
        .token("alice-token")
        .json(json!({"metadata": metadata("Complete")}))
        .get();
    assert_eq!(publish().status, 202);
}

#[test]
fn an_edit_keeps_the_files_locked() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Published").file("a.txt", "a"));
    let draft = format!("/api/records/{id}/draft");
    assert_eq!(get(&sandbox, &draft).status, 404);
    let edit = post(&sandbox, &draft, Value::Null);
    assert_eq!(edit.status, 201);
    assert_eq!(
        (&edit.json()["is_published"], &edit.json()["is_draft"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        put(&sandbox, &format!("{draft}/files/a.txt/content"), b"b").json()["message"],
        "Bucket is locked for modifications."
    );
    assert_eq!(delete(&sandbox, &format!("{draft}/files/a.txt")).status, 403);
    assert_eq!(
        post(&sandbox, &format!("{draft}/files"), json!([{"key": "new"}])).status,
        201
    );
    assert_eq!(
        put(&sandbox, &format!("{draft}/files/new/content"), b"b").status,
        403
    );
    assert_eq!(
        post(&sandbox, &format!("{draft}/actions/publish"), Value::Null).status,
        400
    );
    assert_eq!(delete(&sandbox, &format!("{draft}/files/new")).status, 204);
    let listed = get(&sandbox, "/api/user/records").json()["hits"]["hits"][0].clone();
    assert_eq!(
        (&listed["is_draft"], &listed["files"]["count"]),
        (&json!(true), &json!(0))
    );
    let published = post(&sandbox, &format!("{draft}/actions/publish"), Value::Null);
    assert_eq!(
        (published.status, &published.json()["files"]["count"]),
        (202, &json!(1))
    );
}

#[test]
fn a_new_version_begins_without_files() {
    let sandbox = Sandbox::start();
    let first = sandbox.publish(
        NewRecord::titled("Versions")
            .metadata("version", json!("v1"))
            .file("a.txt", "aaa"),
    );
    let next = post(&sandbox, &format!("/api/records/{first}/versions"), Value::Null);
    assert_eq!(next.status, 201);
    assert_eq!(next.json()["status"], "new_version_draft");
    assert!(next.json()["metadata"].get("version").is_none());
    let id = draft_of(&next);
    assert_eq!(
        draft_of(&post(
            &sandbox,
            &format!("/api/records/{first}/versions"),
            Value::Null
        )),
        id
    );
    // While it exists, the user's list has it instead of the published version.
    let ids = |query: &str| {
        let hits = get(&sandbox, &format!("/api/user/records{query}")).json()["hits"]["hits"].clone();
        hits.as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["id"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(""), [id.as_str()]);
    assert_eq!(ids("?allversions=true"), [id.as_str(), first.as_str()]);
    let import = format!("/api/records/{id}/draft/actions/files-import");
    let imported = post(&sandbox, &import, Value::Null);
    assert_eq!(
        (imported.status, &imported.json()["entries"][0]["key"]),
        (201, &json!("a.txt"))
    );
    let file_id = imported.json()["entries"][0]["file_id"].clone();
    assert_eq!(
        get(&sandbox, &format!("/api/records/{first}/files")).json()["entries"][0]["file_id"],
        file_id
    );
    assert_eq!(post(&sandbox, &import, Value::Null).status, 400);
    assert_eq!(
        post(
            &sandbox,
            &format!("/api/records/{id}/draft/actions/publish"),
            Value::Null
        )
        .status,
        202
    );
    assert_eq!(
        get(&sandbox, &format!("/api/records/{first}")).json()["versions"]["is_latest"],
        false
    );
    let concept = sandbox.concept_of(&first);
    let found = get(&sandbox, &format!("/api/records/{concept}"));
    let location = format!("/api/records/{id}");
    assert_eq!(
        (found.status, found.header("location")),
        (302, Some(location.as_str()))
    );
    let latest = get(&sandbox, &format!("/api/records/{first}/versions/latest"));
    let location = format!("{}/api/records/{id}", sandbox.url());
    assert_eq!(
        (latest.status, latest.header("location")),
        (301, Some(location.as_str()))
    );
    let versions = get(&sandbox, &format!("/api/records/{first}/versions")).json();
    assert_eq!(
        (&versions["hits"]["total"], &versions["hits"]["hits"][0]["id"]),
        (&json!(2), &json!(id))
    );
}

#[test]
fn strangers_and_drafts() {
    let sandbox = Sandbox::start();
    let id = sandbox.draft(NewRecord::titled("Private").file("a", "a"));
    let status = |token: Option<&str>, path: &str| {
        let ask = ask(&sandbox, "GET", &format!("/api/records/{id}{path}"));
        token
            .into_iter()
            .fold(ask, |ask, token| ask.token(token))
            .get()
            .status
    };
    assert_eq!(status(Some(BOB), "/draft"), 403);
    assert_eq!(status(None, "/draft/files"), 403);
    assert_eq!(status(None, "/draft/files/a"), 403);
    assert_eq!(
        status(None, "/draft/files/b"),
        404,
        "which keys exist is no secret"
    );
    assert_eq!(status(Some(BOB), ""), 404);
    assert_eq!(
        ask(&sandbox, "GET", "/api/user/records")
            .token("wrong")
            .get()
            .status,
        403
    );
    assert_eq!(
        ask(&sandbox, "GET", "/api/records").token("wrong").get().status,
        200
    );
    assert_eq!(delete(&sandbox, &format!("/api/records/{id}/draft")).status, 204);
    assert_eq!(get(&sandbox, &format!("/api/records/{id}/draft")).status, 404);
}
