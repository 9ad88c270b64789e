//! `rdmfs api`, which calls any endpoint, and `rdmfs damap`.

use rdm_sandbox::{ALICE, Data, Effect, Fault, Flavour, NewRecord, Options, Route, Sandbox};
use serde_json::Value;

use crate::machine::Home;
use crate::mounted::mounted_with_token;
use crate::user::{User, complaints};

fn tuwien() -> Sandbox {
    Sandbox::start_with(Options {
        knobs: Flavour::TuWien.knobs(),
        ..Options::default()
    })
}

#[test]
fn an_endpoint_is_called_with_the_token_and_its_body_printed_as_it_came() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let id = sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    let alice = User::new(&home, &sandbox, ALICE);
    let record = alice.json(&["api", "GET", &format!("records/{id}")]);
    assert_eq!(record["metadata"]["title"], "Snow depths");
    let bytes = alice.run(&["api", &format!("/api/records/{id}/files/a.csv/content")]);
    assert_eq!(bytes.stdout, "x,y\n1,2\n");
    alice.json(&["api", "get", "user/records"]);
    User::guest(&home, &sandbox)
        .run(&["api", "GET", "user/records"])
        .expect(1, &["user/records: 40"]);
}

#[test]
fn what_is_sent_is_a_text_a_file_or_stdin() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let document = |title: &str| {
        format!(
            r#"{{"metadata": {{"title": "{title}"}}, "files": {{"enabled": true}}, "access": {{"record": "public", "files": "public"}}}}"#
        )
    };
    let made = alice.json(&["api", "records", "--data", &document("From text")]);
    let id = made["id"].as_str().unwrap();
    let path = format!("records/{id}/draft");
    let file = home.file("record.json", &document("From a file"));
    let saved = alice.json(&["api", "PUT", &path, "--data", &format!("@{file}")]);
    assert_eq!(saved["metadata"]["title"], "From a file");
    let saved = alice.feed(&["api", "PUT", &path, "-d", "-"], &document("From stdin"));
    saved.expect(0, &["From stdin"]);
    alice.run(&["api", "DELETE", &path]).expect(0, &[]);
    assert!(sandbox.draft_metadata(id).is_none());
}

#[test]
fn an_error_status_is_exit_code_1_with_the_servers_words_and_fields_on_stderr() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let refused = alice.run(&["api", "POST", "communities", "--data", "{}"]);
    refused.expect(1, &["POST communities: 400"]);
    let body: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(body["status"], 400);
    assert!(
        complaints(&refused).contains(&"slug: Missing data for required field."),
        "{refused:#?}"
    );
    alice
        .run(&["api", "GET", "records/nope0-nope0"])
        .expect(1, &["GET records/nope0-nope0: 404", "the repository says"]);
}

#[test]
fn all_pages_of_a_list_are_printed_one_after_the_other() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let mut ids: Vec<String> = (0..5)
        .map(|n| sandbox.publish(NewRecord::titled(&format!("Number {n}"))))
        .collect();
    let guest = User::guest(&home, &sandbox);
    let outcome = guest.run(&["api", "GET", "records?size=2", "--paginate"]);
    outcome.expect(0, &[]);
    let pages = serde_json::Deserializer::from_str(&outcome.stdout).into_iter::<Value>();
    let mut found: Vec<String> = pages
        .flat_map(|page| page.unwrap()["hits"]["hits"].as_array().unwrap().clone())
        .map(|hit| hit["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    found.sort();
    assert_eq!(found, ids);
    guest
        .run(&["api", "POST", "records", "--paginate"])
        .expect(2, &["have pages"]);
}

#[test]
fn what_may_pass_is_tried_again_and_what_changes_things_is_not() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let id = sandbox.publish(NewRecord::titled("Snow depths"));
    sandbox.fault(Fault::on(Route::Record).times(1).then(Effect::ServerError(503)));
    alice
        .run(&["api", "GET", &format!("records/{id}")])
        .expect(0, &["Snow depths"]);
    sandbox.fault(Fault::on(Route::CreateDraft).then(Effect::ServerError(503)));
    let data = r#"{"metadata": {}}"#;
    alice
        .run(&["api", "POST", "records", "--data", data])
        .expect(1, &[]);
    assert_eq!(sandbox.count(Route::CreateDraft), 1);
}

#[test]
fn headers_are_sent_and_shown() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let id = sandbox.publish(NewRecord::titled("Snow depths"));
    let guest = User::guest(&home, &sandbox);
    let path = format!("records/{id}");
    guest
        .run(&["api", &path, "-H", "Accept: application/x-bibtex", "--include"])
        .expect(0, &["200\n", "content-type: application/x-bibtex", "\n\n@"]);
    guest
        .run(&["api", &path, "-H", "Authorization: Bearer x"])
        .expect(2, &["rdmfs sets it itself"]);
    let record = guest.json(&["api", &path]);
    guest
        .run(&["api", record["links"]["self"].as_str().unwrap()])
        .expect(0, &["Snow depths"]);
    let page = record["links"]["self_html"].as_str().unwrap().to_owned();
    for away in ["https://other.example/api/records", "../admin", &page] {
        guest
            .run(&["api", "GET", away])
            .expect(2, &["is no path of the API"]);
    }
}

#[test]
fn a_body_of_any_size_is_passed_on_and_one_that_is_cut_off_is_exit_code_1() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    // More than is taken of an answer that has to be kept.
    let size = 65 << 20;
    let id = sandbox.publish(NewRecord::titled("Large").file("large.bin", Data::generated(size, 7)));
    let path = format!("records/{id}/files/large.bin/content");
    let fetch = || {
        let to = home.path("large.bin");
        let mut command = home.command(["api", &path, "--repository", &sandbox.url()]);
        command.stdout(std::fs::File::create(&to).unwrap());
        let output = command.output().unwrap();
        let length = std::fs::metadata(to).unwrap().len();
        (
            output.status.code(),
            length,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(fetch(), (Some(0), size, String::new()));
    let cut = Effect::ResetBody { after: 1 << 20 };
    sandbox.fault(Fault::on(Route::Content).then(cut));
    let (code, length, said) = fetch();
    assert!(
        code == Some(1) && length < size && said.contains("bytes came before that"),
        "{code:?} {length} {said}"
    );
}

#[test]
fn a_full_disk_is_no_success() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let mut command = home.command(["api", "records", "--repository", &sandbox.url()]);
    command.stdout(std::fs::File::create("/dev/full").unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("can't write"),
        "{output:?}"
    );
}

#[test]
fn a_call_that_changes_something_is_seen_in_a_mount_at_once() {
    let (home, sandbox, draft) = mounted_with_token(&["--draft-ttl", "1h"]);
    let alice = User::new(&home, &sandbox, ALICE);
    let document = home.mountpoint().join("drafts").join(&draft).join("record.json");
    let shown = || std::fs::read_to_string(&document).unwrap();
    assert!(shown().contains("New depths"));
    let changed = shown().replace("New depths", "Other depths");
    alice
        .feed(
            &["api", "PUT", &format!("records/{draft}/draft"), "--data", "-"],
            &changed,
        )
        .expect(0, &[]);
    crate::machine::wait_until("the mount shows it", || shown().contains("Other depths"));
    home.unmount(&[]).expect(0, &[]);
}

/// Endpoints for which there is neither a path nor a command, as docs/API.md lists them.
#[test]
fn endpoints_without_a_command_of_their_own_are_called_by_their_path() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    assert!(alice.json(&["api", "me"])["id"].is_number());

    let zip = include_bytes!("../conformance/three.zip");
    let id = sandbox.publish(NewRecord::titled("Snow depths").file("three.zip", &zip[..]));
    let file = format!("records/{id}/files/three.zip");
    let entries = alice.json(&["api", &format!("records/{id}/files")])["entries"].clone();
    assert_eq!(
        alice.json(&["api", &file]),
        entries[0],
        "the list says of a file what it says of itself"
    );
    let members = alice.json(&["api", &format!("{file}/container")]);
    let member = members["entries"][0]["key"].as_str().unwrap();
    let size = members["entries"][0]["size"].as_u64().unwrap();
    let bytes = alice.run(&["api", &format!("{file}/container/{member}")]);
    assert_eq!(bytes.stdout.len() as u64, size);
    let latest = alice.json(&["api", &format!("records/{id}/versions/latest")]);
    assert_eq!(latest["id"], *id);
    let communities = alice.json(&["api", &format!("records/{id}/communities")]);
    assert_eq!(communities["hits"]["total"], 0);

    let draft = sandbox.draft(
        NewRecord::titled("Rainfall")
            .file("a.csv", "1")
            .file("b.csv", "2"),
    );
    let file = format!("records/{draft}/draft/files/a.csv");
    assert_eq!(alice.json(&["api", &file])["key"], "a.csv");
    let said = r#"{"metadata": {"caption": "Rain"}}"#;
    alice.json(&["api", "PUT", &file, "--data", said]);
    assert_eq!(alice.json(&["api", &file])["metadata"]["caption"], "Rain");
    alice
        .run(&["api", "DELETE", &format!("records/{draft}/draft/files")])
        .expect(0, &[]);
    assert!(sandbox.draft_keys(&draft).is_empty());

    let draft = sandbox.draft(NewRecord::titled("Wind").file("a.csv", "1"));
    alice
        .run(&[
            "community",
            "create",
            "glaciers",
            "--title",
            "Glaciers",
            "--review-policy",
            "closed",
        ])
        .expect(0, &[]);
    let request = alice.json(&["community", "submit", "--json", "--yes", &draft, "glaciers"]);
    let comments = format!("requests/{}/comments", request["id"].as_str().unwrap());
    let words = |text: &str| format!(r#"{{"payload": {{"content": "{text}", "format": "html"}}}}"#);
    let comment = alice.json(&["api", "POST", &comments, "--data", &words("One")]);
    let comment = format!("{comments}/{}", comment["id"].as_str().unwrap());
    alice.json(&["api", "PUT", &comment, "--data", &words("Two")]);
    assert_eq!(alice.json(&["api", &comment])["payload"]["content"], "Two");
    alice.run(&["api", "DELETE", &comment]).expect(0, &[]);
    alice
        .run(&["api", "PUT", &comment, "--data", &words("Three")])
        .expect(1, &[]);
}

#[test]
fn a_record_is_named_in_a_plan_after_asking() {
    let (home, sandbox) = (Home::new(), tuwien());
    let id = sandbox.publish(NewRecord::titled("Snow depths"));
    let alice = User::new(&home, &sandbox, ALICE);
    alice.run(&["damap", "list"]).expect(0, &["p1\t", "p2\t"]);
    alice.run(&["damap", "link", &id, "p1"]).expect(2, &["--yes"]);
    assert!(sandbox.plans().is_empty());
    alice
        .run(&["damap", "link", "--yes", &id, "p1"])
        .expect(0, &["is named in plan p1"]);
    assert_eq!(sandbox.plans().len(), 1);
    alice
        .run(&["damap", "link", "--yes", &id, "p9"])
        .expect(1, &["p9"]);
}

#[test]
fn a_repository_without_plans_says_so() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    User::new(&home, &sandbox, ALICE)
        .run(&["damap", "list"])
        .expect(1, &["knows of no data management plans"]);
}

#[test]
fn the_file_that_is_shown_first_is_a_field_of_the_drafts_document() {
    let (home, sandbox, draft) = mounted_with_token(&[]);
    let folder = home.mountpoint().join("drafts").join(&draft);
    std::fs::write(folder.join("figure.png"), "x").unwrap();
    let document = std::fs::read(folder.join("record.json")).unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    document["files"]["default_preview"] = "figure.png".into();
    std::fs::write(folder.join("new"), document.to_string()).unwrap();
    std::fs::rename(folder.join("new"), folder.join("record.json")).unwrap();
    let alice = User::new(&home, &sandbox, ALICE);
    crate::machine::wait_until("it is saved", || {
        let saved = alice.json(&["api", &format!("records/{draft}/draft")]);
        saved["files"]["default_preview"] == "figure.png"
    });
    home.unmount(&[]).expect(0, &["unmounted"]);
}
