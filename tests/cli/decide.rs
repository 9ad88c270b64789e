//! `rdmfs new`, `edit`, `new-version`, `import-files`, `reserve-doi`, `release-doi`, `check`, `publish`, `discard` and
//! `curation`, on the sandbox, with and without a mount.

use std::fs;
use std::path::{Path, PathBuf};

use rdm_sandbox::{ALICE, BOB, Effect, Fault, Flavour, NEWCOMER, NewRecord, Options, Route, Sandbox};
use rdmfs::repository::model::RecordId;
use rdmfs::repository::{Repository, Search, Settings, Token};
use serde_json::{Value, json};

use crate::machine::{Home, Outcome};
use crate::mounted::mounted_with_token;

/// Metadata that can be published, but for the title.
const COMPLETE: &str = r#"{"publication_date": "2026-11-22", "resource_type": {"id": "dataset"}, "publisher": "Test",
    "creators": [{"person_or_org": {"type": "organizational", "name": "Test"}}]}"#;

/// A home whose environment files lead to a repository that is not mounted.
struct Desk {
    home: Home,
    sandbox: Sandbox,
    env_file: String,
}

impl Desk {
    fn new() -> Desk {
        Desk::of(Sandbox::start())
    }

    fn that_curates() -> Desk {
        Desk::of(Sandbox::start_with(Options {
            knobs: Flavour::TuWien.knobs(),
            ..Options::default()
        }))
    }

    fn of(sandbox: Sandbox) -> Desk {
        let home = Home::new();
        let env_file = env_of(&home, &sandbox, "env", ALICE);
        Desk {
            home,
            sandbox,
            env_file,
        }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        let (command, rest) = arguments.split_first().unwrap();
        let first = if *command == "curation" { 2 } else { 1 };
        let mut words: Vec<&str> = arguments[..first].to_vec();
        words.extend(["--env-file", &self.env_file]);
        words.extend(&rest[first - 1..]);
        self.home.run(words)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut words = arguments.to_vec();
        words.push("--json");
        parsed(&self.run(&words))
    }

    /// A draft that can be published.
    fn ready(&self) -> String {
        self.sandbox
            .draft(NewRecord::titled("Ready draft").file("a.csv", "1,2\n"))
    }
}

fn env_of(home: &Home, sandbox: &Sandbox, name: &str, token: &str) -> String {
    let text = format!("INVENIORDM_URL={}\nINVENIORDM_TOKEN={token}\n", sandbox.url());
    home.file(name, &text)
}

fn parsed(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:#?}"))
}

/// A path in the mount.
fn place(home: &Home, below: &str) -> PathBuf {
    home.mountpoint().join(below)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_new_draft_has_its_title_and_metadata_and_its_id_is_printed() {
    let desk = Desk::new();
    let made = desk.run(&["new", "Ozone over Vienna"]);
    made.expect(0, &[]);
    let id = made.stdout.trim();
    assert_eq!(
        desk.sandbox.draft_metadata(id).unwrap()["title"],
        "Ozone over Vienna"
    );
    let metadata = desk.home.file(
        "m.json",
        r#"{"title": "From a file", "publication_date": "2026-11-22"}"#,
    );
    let made = desk.json(&["new", "--metadata", &metadata]);
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["path"], Value::Null, "it is not mounted");
    assert_eq!(
        desk.sandbox.draft_metadata(id).unwrap()["publication_date"],
        "2026-11-22"
    );
}

#[test]
fn what_makes_no_sense_is_wrong_usage_and_makes_no_draft() {
    let desk = Desk::new();
    desk.sandbox.reset_counts();
    desk.run(&["new"]).expect(2, &["no title"]);
    let broken = desk.home.file("m.json", "{");
    desk.run(&["new", "--metadata", &broken])
        .expect(2, &["is no JSON"]);
    desk.run(&["publish", "no such thing"])
        .expect(2, &["is in no mount, and no id"]);
    assert_eq!(desk.sandbox.total(), 0, "nothing was asked");
}

#[test]
fn metadata_that_is_not_accepted_is_told_by_field() {
    let desk = Desk::new();
    let metadata = desk
        .home
        .file("m.json", r#"{"title": "Ozone", "publication_date": "yesterday"}"#);
    desk.run(&["new", "--metadata", &metadata])
        .expect(1, &["was made, but not all", "metadata.publication_date: "]);
}

#[test]
fn without_a_token_nothing_is_asked_and_an_error_says_so_to_people_and_programs() {
    let desk = Desk::new();
    desk.sandbox.reset_counts();
    let url = desk.sandbox.url();
    let refused = desk
        .home
        .run(["publish", "--json", "--repository", &url, "abcde-12345"]);
    refused.expect(1, &["there is no token"]);
    let told = parsed(&refused);
    assert_eq!(told["kind"], "Denied");
    assert!(
        told["advice"].as_str().unwrap().contains("--token-file"),
        "{told}"
    );
    assert_eq!(desk.sandbox.total(), 0);
}

#[test]
fn a_check_says_what_is_missing_as_field_and_message() {
    let desk = Desk::new();
    let made = desk.run(&["new", "Only a title"]);
    let id = made.stdout.trim();
    let found = desk.run(&["check", id]);
    found.expect(1, &["metadata.creators: ", "files.enabled: it has no files"]);
    let told = desk.json(&["check", id]);
    assert_eq!(
        (&told["ready"], &told["lacks_files"]),
        (&json!(false), &json!(true))
    );
    let fields: Vec<&str> = told["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["field"].as_str().unwrap())
        .collect();
    assert!(fields.contains(&"metadata.creators"), "{fields:?}");
    desk.run(&["check", &desk.ready()])
        .expect(0, &["can be published"]);
}

#[test]
fn a_published_record_is_told_from_a_draft_and_from_nothing() {
    let desk = Desk::new();
    let id = desk.sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    desk.run(&["check", &id])
        .expect(1, &["is published, and no draft", "rdmfs edit"]);
    desk.run(&["check", "zzzzz-99999"]).expect(1, &["zzzzz-99999"]);
}

#[test]
fn what_cannot_be_undone_is_refused_without_a_terminal_and_without_yes() {
    let desk = Desk::new();
    let id = desk.ready();
    for command in ["publish", "discard"] {
        desk.run(&[command, &id])
            .expect(2, &["no terminal to ask on", "--yes"]);
    }
    assert!(desk.sandbox.draft_metadata(&id).is_some());
}

#[test]
fn publish_shows_what_becomes_public_and_says_where_it_is() {
    let desk = Desk::new();
    let id = desk.ready();
    let published = desk.run(&["publish", "--yes", &id]);
    published.expect(
        0,
        &[
            "title:   Ready draft",
            "1, 4 bytes",
            "a.csv",
            "record public, files public",
            "published",
        ],
    );
    assert!(
        !published.stdout.contains("title:"),
        "that is shown, not the result"
    );
    let again = desk.json(&["publish", "--yes", &id]);
    assert_eq!(again["published_before"], true);
}

#[test]
fn a_publish_whose_answer_was_lost_is_not_sent_again_and_is_no_failure() {
    let desk = Desk::new();
    let id = desk.ready();
    desk.sandbox.fault(
        Fault::on(Route::Publish)
            .times(1)
            .then(Effect::ErrorAfterSuccess(504)),
    );
    desk.run(&["publish", "--yes", &id]).expect(0, &["published"]);
    assert_eq!(desk.sandbox.count(Route::Publish), 1);
}

#[test]
fn a_draft_that_is_not_ready_is_not_published() {
    let desk = Desk::new();
    let made = desk.run(&["new", "Only a title"]);
    let id = made.stdout.trim();
    desk.sandbox.reset_counts();
    let refused = desk.run(&["publish", "--yes", "--json", id]);
    refused.expect(1, &["can't be published yet", "metadata.creators: "]);
    assert_eq!(parsed(&refused)["kind"], "NotReady");
    assert_eq!(desk.sandbox.count(Route::Publish), 0);
}

#[test]
fn a_doi_is_reserved_printed_and_given_back() {
    let desk = Desk::new();
    let id = desk.ready();
    let reserved = desk.run(&["reserve-doi", &id]);
    reserved.expect(0, &["10."]);
    let again = desk.run(&["reserve-doi", &id]);
    assert_eq!(again.stdout, reserved.stdout, "it is the same");
    desk.run(&["release-doi", &id]).expect(0, &["no longer reserved"]);
    desk.run(&["release-doi", &id]).expect(1, &["no DOI is reserved"]);
}

#[test]
fn a_dropped_draft_is_gone_and_of_an_edit_the_record_stays() {
    let desk = Desk::new();
    let id = desk.ready();
    desk.run(&["discard", "--yes", &id]).expect(0, &["dropped"]);
    assert!(desk.sandbox.draft_metadata(&id).is_none());
    let record = desk.sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    desk.run(&["edit", &record]).expect(0, &[&record]);
    let told = desk.json(&["discard", "--yes", &record]);
    assert_eq!(told["discarded"], "edit");
    assert!(desk.sandbox.record_file(&record, "a").is_some());
}

#[test]
fn metadata_is_saved_over_what_is_there_and_the_same_is_not_sent() {
    let desk = Desk::new();
    let id = desk.ready();
    let change = desk.home.file("m.json", r#"{"version": "2.0"}"#);
    desk.run(&["edit", &id, "--metadata", &change]).expect(0, &[&id]);
    let metadata = desk.sandbox.draft_metadata(&id).unwrap();
    assert_eq!(
        (&metadata["version"], &metadata["title"]),
        (&json!("2.0"), &json!("Ready draft"))
    );
    desk.sandbox.reset_counts();
    desk.run(&["edit", &id, "--metadata", &change]).expect(0, &[&id]);
    assert_eq!(desk.sandbox.count(Route::PutDraft), 0);
    let wrong = desk.home.file("w.json", r#"{"publication_date": "yesterday"}"#);
    desk.run(&["edit", &id, "--metadata", &wrong]).expect(
        1,
        &[
            "metadata.publication_date: ",
            "empty in the draft now",
            "the rest was saved",
        ],
    );
    let unknown = desk
        .home
        .file("w.json", r#"{"resource_type": {"id": "nope"}, "version": "3.0"}"#);
    let refused = desk.run(&["edit", &id, "--metadata", &unknown]);
    assert!(
        !refused
            .expect(1, &["Invalid value nope"])
            .stderr
            .contains("was saved")
    );
    assert_eq!(
        desk.sandbox.draft_metadata(&id).unwrap()["version"],
        "2.0",
        "nothing of it was"
    );
}

#[test]
fn a_new_version_takes_over_files_once() {
    let desk = Desk::new();
    let id = desk
        .sandbox
        .publish(NewRecord::titled("Snow").file("a", "1").file("dir/b", "22"));
    let made = desk.json(&["new-version", "--import-files", &id]);
    let next = made["id"].as_str().unwrap();
    assert_ne!(next, id);
    assert_eq!(made["files"].as_array().unwrap().len(), 2);
    desk.run(&["import-files", next])
        .expect(1, &["into a new version that has none"]);
    let first = desk.run(&["new", "A first version"]);
    desk.run(&["import-files", first.stdout.trim()])
        .expect(1, &["no version before it"]);
    desk.run(&["edit", &id]).expect(0, &[]);
    desk.run(&["import-files", &id])
        .expect(1, &["the edit of a published record", "rdmfs new-version"]);
    let plain = desk.run(&["new-version", &id]);
    assert_eq!(plain.stdout.trim(), next, "the one that was begun");
}

#[test]
fn a_path_in_a_mount_is_enough_and_the_tree_shows_at_once_what_was_done() {
    let (home, sandbox, _) = mounted_with_token(&["--metadata-ttl", "1h", "--draft-ttl", "1h"]);
    let made = home.run(["new", "Seen at once", "--mount", text(&home.mountpoint())]);
    made.expect(0, &[]);
    let (id, path) = made.stdout.trim().split_once('\n').unwrap();
    let draft = PathBuf::from(path);
    assert_eq!(draft, place(&home, &format!("drafts/{id}")));
    assert!(
        home.mountpoint()
            .join("drafts")
            .read_dir()
            .unwrap()
            .flatten()
            .any(|one| *id == *one.file_name())
    );
    let record = place(&home, &format!("records/{id}"));
    assert!(!record.exists(), "and the kernel remembers that");
    fs::write(draft.join("a.csv"), "1,2\n").unwrap();
    let change = home.file("m.json", COMPLETE);
    home.run(["edit", path, "--metadata", &change]).expect(0, &[]);
    let doi = home.run(["reserve-doi", path]).stdout;
    let document = fs::read_to_string(draft.join("record.json")).unwrap();
    assert!(
        document.contains(doi.trim()) && document.contains("2026-11-22"),
        "{document}"
    );
    home.run(["check", text(&draft.join("a.csv"))])
        .expect(0, &["can be published"]);
    home.run(["publish", "--yes", path])
        .expect(0, &["published", text(&record)]);
    assert!(!draft.exists() && record.join("files/a.csv").exists());
    let listed = |folder: &str| {
        let names = place(&home, folder).read_dir().unwrap().flatten();
        names
            .map(|one| one.file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(!listed("drafts").contains(&id.to_owned()) && listed("records").contains(&id.to_owned()));

    let concept = place(&home, &format!("records/{}", sandbox.concept_of(id)));
    assert_eq!(fs::read_link(&concept).unwrap(), PathBuf::from(id));
    let made = home.run(["new-version", "--import-files", text(&concept)]);
    let (next, path) = made.stdout.trim().split_once('\n').unwrap();
    assert_eq!(
        fs::read_to_string(PathBuf::from(path).join("a.csv")).unwrap(),
        "1,2\n"
    );
    home.run(["edit", path, "--metadata", &change]).expect(0, &[]);
    home.run(["publish", "--yes", path]).expect(0, &[]);
    assert_eq!(fs::read_link(&concept).unwrap(), PathBuf::from(next));

    let edit = home.run(["edit", text(&record)]);
    let edit = edit.stdout.trim().lines().last().unwrap();
    assert!(PathBuf::from(edit).join("record.json").exists());
    home.run(["discard", "--yes", edit]).expect(0, &[]);
    assert!(!PathBuf::from(edit).exists() && record.exists());
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_draft_is_meant_by_its_title_too() {
    let (home, _sandbox, _) = mounted_with_token(&[]);
    let titled = place(&home, "drafts/Ozone over Vienna");
    fs::create_dir(&titled).unwrap();
    home.run(["check", text(&titled)])
        .expect(1, &["metadata.creators: "]);
    home.run(["discard", "--yes", text(&titled)])
        .expect(0, &["dropped"]);
    assert!(!titled.exists());
    home.run(["check", text(&place(&home, "drafts"))])
        .expect(1, &["is no record or draft"]);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn files_that_are_open_or_refused_are_in_the_way_and_are_named() {
    let (home, sandbox, draft) = mounted_with_token(&[]);
    let folder = place(&home, &format!("drafts/{draft}"));
    fs::write(folder.join("a.csv"), "1").unwrap();
    let open = fs::File::create(folder.join("open.csv")).unwrap();
    let folder = text(&folder);
    home.run(["check", folder])
        .expect(1, &["open.csv: is still open in a program"]);
    home.run(["publish", "--yes", folder])
        .expect(1, &["open.csv", "does not get there by itself"]);
    assert!(sandbox.draft_metadata(&draft).is_some());
    drop(open);
    sandbox.knobs(|knobs| knobs.quota = 10);
    let refused = fs::write(PathBuf::from(folder).join("big.bin"), vec![1; 5000]);
    drop(refused);
    home.run(["publish", "--yes", folder])
        .expect(1, &["big.bin: ", "rdmfs uploads retry"]);
    home.run(["discard", "--yes", folder]).expect(0, &["dropped"]);
    // Of this mount: others on the machine have their own.
    let left = home.run(["uploads", "--json", text(&home.mountpoint())]);
    assert_eq!(parsed(&left), json!([]), "what was not sent went with it");
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn publish_waits_for_uploads_that_are_under_way() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0s"]);
    let folder = place(&home, &format!("drafts/{draft}"));
    let held = sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::Delay(std::time::Duration::from_secs(2))),
    );
    fs::write(folder.join("slow.bin"), vec![7; 100_000]).unwrap();
    home.run(["publish", "--yes", text(&folder)])
        .expect(0, &["slow.bin", "published"]);
    sandbox.remove_fault(held);
    assert_eq!(sandbox.record_file(&draft, "slow.bin").unwrap().size, 100_000);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_curated_draft_is_explained_submitted_and_published_and_a_change_is_warned_of() {
    let desk = Desk::that_curates();
    let curator = env_of(&desk.home, &desk.sandbox, "curator", BOB);
    let act = |what: &str, id: &str| {
        let done = desk.home.run(["curation", what, "--env-file", &curator, id]);
        done.expect(0, &[]);
    };
    let id = desk.ready();
    desk.run(&["curation", "status", &id])
        .expect(1, &["no curation request", "rdmfs curation submit"]);
    desk.run(&["publish", "--yes", &id])
        .expect(1, &["has to be curated", "rdmfs curation submit"]);
    desk.run(&["curation", "submit", &id]).expect(2, &["--yes"]);
    desk.run(&["curation", "submit", "--yes", &id])
        .expect(0, &["submitted"]);
    desk.sandbox.wait_until("the request is listed", |_| {
        desk.run(&["curation", "status", &id]).code == Some(0)
    });
    act("review", &id);
    act("critique", &id);
    desk.run(&["publish", "--yes", &id])
        .expect(1, &["'critiqued'", "rdmfs curation resubmit"]);
    desk.run(&["curation", "accept", &id])
        .expect(1, &["what you can do with it now"]);
    desk.run(&["curation", "resubmit", &id])
        .expect(0, &["resubmitted"]);
    act("review", &id);
    act("accept", &id);
    desk.run(&["check", &id])
        .expect(0, &["can be published", "takes that back"]);
    let status = || desk.json(&["curation", "status", &id])["status"].clone();
    let change = desk.home.file("m.json", r#"{"version": "2.0"}"#);
    desk.run(&["edit", &id, "--metadata", &change])
        .expect(2, &["is accepted; a change", "--yes"]);
    assert_eq!(status(), "accepted", "nothing was sent");
    desk.run(&["edit", "--yes", &id, "--metadata", &change])
        .expect(0, &[]);
    assert_ne!(status(), "accepted");
    act("review", &id);
    act("accept", &id);
    desk.run(&["publish", "--yes", &id]).expect(0, &["published"]);
}

#[test]
fn where_nothing_is_curated_that_is_said() {
    let desk = Desk::new();
    let id = desk.ready();
    desk.run(&["curation", "submit", "--yes", &id])
        .expect(1, &["has no curation requests"]);
}

#[test]
fn a_chosen_community_decides_and_that_is_said() {
    let desk = Desk::new();
    let alice = Repository::connect(Settings {
        url: desk.sandbox.url(),
        token: Some(Token::new(ALICE).unwrap()),
        ..Settings::default()
    })
    .unwrap();
    let community = json!({
        "slug": "climate",
        "access": {"visibility": "public", "review_policy": "closed"},
        "metadata": {"title": "Climate"},
    });
    alice.create_community(&community).unwrap();
    let metadata = desk.home.file("m.json", COMPLETE);
    let mut words = vec![
        "new",
        "With a community",
        "--metadata",
        &metadata,
        "--metadata-only",
    ];
    words.extend(["--community", "climate"]);
    let made = desk.json(&words);
    assert_eq!(made["community"], "climate");
    let id = made["id"].as_str().unwrap();
    desk.run(&["check", id])
        .expect(1, &["a community was chosen", "rdmfs community submit"]);
    let draft = RecordId::new(id).unwrap();
    alice.submit_review(&draft, None, false).unwrap();
    desk.run(&["publish", "--yes", id])
        .expect(1, &["under review by a community", "rdmfs requests cancel"]);
    desk.run(&["discard", "--yes", id])
        .expect(1, &["open review", "rdmfs requests cancel"]);
    let before = drafts_of(&alice);
    desk.run(&["new", "Without one", "--community", "no-such-slug"])
        .expect(1, &["no-such-slug"]);
    assert_eq!(
        drafts_of(&alice),
        before,
        "nothing was made for a community that isn't there"
    );
    desk.sandbox
        .fault(Fault::on(Route::PutReview).then(Effect::ServerError(500)));
    let halfway = desk.run(&["new", "Chosen in vain", "--community", "climate", "--json"]);
    halfway.expect(1, &["was made, but the community was not chosen"]);
    let told = parsed(&halfway);
    assert_eq!(told["community"], Value::Null);
    assert!(
        desk.sandbox
            .draft_metadata(told["id"].as_str().unwrap())
            .is_some()
    );
}

fn drafts_of(user: &Repository) -> u64 {
    user.user_records(&Search::default(), Some(false)).unwrap().total
}

/// A home with a mount of a sandbox, for alice; her token's file too.
fn mount_of(sandbox: &Sandbox) -> (Home, String) {
    let home = Home::new();
    let token = home.file("token", ALICE);
    home.mount(&["--token-file", &token, "--draft-ttl", "1h"], &sandbox.url())
        .expect(0, &["signed in"]);
    (home, token)
}

#[test]
fn what_is_said_of_a_field_is_said_once() {
    let desk = Desk::new();
    let once = |outcome: &Outcome, text: &str| {
        assert_eq!(outcome.stderr.matches(text).count(), 1, "{outcome:#?}");
    };
    let wrong = desk
        .home
        .file("m.json", r#"{"title": "Ozone", "publication_date": "yesterday"}"#);
    let made = desk.run(&["new", "--metadata", &wrong]);
    once(made.expect(1, &[]), "metadata.publication_date: ");
    let id = desk.ready();
    let saved = desk.run(&["edit", &id, "--metadata", &wrong]);
    once(saved.expect(1, &[]), "metadata.publication_date: ");
    let record = desk.sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    desk.run(&["edit", &record]).expect(0, &[]);
    let released = desk.run(&["release-doi", &record]);
    once(released.expect(1, &["stays for good"]), "pids.doi");
    let bare = desk.run(&["new", "Only a title"]);
    let refused = desk.run(&["publish", "--yes", bare.stdout.trim()]);
    once(refused.expect(1, &[]), "metadata.creators: ");
}

#[test]
fn what_got_halfway_is_one_object_for_programs() {
    let desk = Desk::new();
    let made = desk.run(&["new", "Only a title", "--json"]);
    let id = parsed(&made)["id"].as_str().unwrap().to_owned();
    let refused = desk.run(&["publish", "--yes", "--json", &id]);
    let told = parsed(refused.expect(1, &[]));
    assert_eq!(
        (&told["kind"], &told["ready"]),
        (&json!("NotReady"), &json!(false))
    );
    assert_eq!(told["lacks_files"], true);
    let wrong = desk
        .home
        .file("m.json", r#"{"title": "Ozone", "publication_date": "yesterday"}"#);
    let halfway = desk.run(&["new", "--json", "--metadata", &wrong]);
    let told = parsed(halfway.expect(1, &["was made, but not all"]));
    assert!(
        desk.sandbox
            .draft_metadata(told["id"].as_str().unwrap())
            .is_some()
    );
    assert_eq!(told["fields"][0]["field"], "metadata.publication_date");
}

#[test]
fn metadata_that_is_no_object_is_wrong_usage() {
    let desk = Desk::new();
    for text in [r#"{"metadata": []}"#, r#"{"metadata": 5, "id": "x"}"#, "null"] {
        let wrong = desk.home.file("m.json", text);
        desk.run(&["new", "A title", "--metadata", &wrong])
            .expect(2, &["no object"]);
    }
}

#[test]
fn the_document_of_another_record_is_not_saved_over_a_draft() {
    let desk = Desk::new();
    let (one, other) = (desk.ready(), desk.ready());
    let theirs =
        json!({"id": other, "pids": {"doi": {"identifier": "10.1/x"}}, "metadata": {"title": "Theirs"}});
    let theirs = desk.home.file("m.json", &theirs.to_string());
    desk.run(&["edit", &one, "--metadata", &theirs])
        .expect(2, &[&other, "jq .metadata"]);
    assert_eq!(desk.sandbox.draft_metadata(&one).unwrap()["title"], "Ready draft");
    let record = desk.sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    desk.run(&["edit", &record, "--metadata", &theirs])
        .expect(2, &[&other]);
    assert!(
        desk.sandbox.draft_metadata(&record).is_none(),
        "and no edit was begun for it"
    );
    let wrong = desk.home.file("m.json", r#"{"publication_date": "yesterday"}"#);
    let refused = desk.run(&["edit", &record, "--json", "--metadata", &wrong]);
    refused.expect(1, &["the edit of", "was begun", "metadata.publication_date: "]);
    assert_eq!(parsed(&refused)["id"], record);
}

#[test]
fn a_new_version_that_was_begun_before_is_gone_on_with() {
    let desk = Desk::new();
    let id = desk
        .sandbox
        .publish(NewRecord::titled("Snow").file("a", "1").file("b", "22"));
    desk.sandbox.fault(
        Fault::on(Route::NewVersion)
            .times(1)
            .then(Effect::ErrorAfterSuccess(504)),
    );
    let made = desk.json(&["new-version", "--import-files", &id]);
    let next = made["id"].as_str().unwrap();
    assert_eq!(
        desk.sandbox.count(Route::NewVersion),
        2,
        "the lost answer was asked for again"
    );
    let again = desk.json(&["new-version", "--import-files", &id]);
    assert_eq!((&again["id"], &again["files"]), (&made["id"], &made["files"]));
    desk.run(&["api", "DELETE", &format!("records/{next}/draft/files/a")])
        .expect(0, &[]);
    let other = desk.run(&["new-version", "--import-files", "--json", &id]);
    other.expect(1, &["begun before", "remove its files first"]);
    assert_eq!(parsed(&other)["id"], next, "and yet it says which one that is");
    let dated = desk.home.file("m.json", COMPLETE);
    desk.run(&["edit", next, "--metadata", &dated]).expect(0, &[]);
    desk.run(&["publish", "--yes", next]).expect(0, &[]);
    let third = desk.run(&["new-version", "--import-files", &id]);
    third.expect(0, &["is not the latest version", next]);
    assert_eq!(desk.sandbox.draft_keys(third.stdout.trim()), ["b"]);
}

#[test]
fn a_record_or_draft_is_meant_by_its_doi_and_by_its_page_too() {
    let desk = Desk::new();
    let url = desk.sandbox.url();
    let record = desk.sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let page = format!("{url}/records/{record}?preview=1");
    desk.run(&["edit", &page]).expect(0, &[&record]);
    desk.run(&["discard", "--yes", &format!("{url}/uploads/{record}")])
        .expect(0, &["dropped"]);
    let draft = desk.ready();
    let doi = desk.run(&["reserve-doi", &draft]).stdout.trim().to_owned();
    for word in [
        doi.clone(),
        format!("doi:{doi}"),
        format!("https://doi.org/{doi}"),
    ] {
        desk.run(&["check", &word]).expect(0, &["can be published"]);
    }
    desk.run(&["publish", "--yes", &doi]).expect(0, &["published"]);
    desk.run(&["edit", &doi]).expect(0, &[&draft]);
    desk.run(&["check", "10.5072/no-such-1"])
        .expect(1, &["no record here has the DOI"]);
    desk.run(&["check", &format!("{url}/communities/climate")])
        .expect(2, &["a record or draft is wanted"]);
    desk.sandbox.reset_counts();
    desk.run(&["check", "https://elsewhere.example/records/abcde-12345"])
        .expect(2, &["is no address of", "--repository"]);
    assert_eq!(desk.sandbox.total(), 0, "and nothing was asked");
}

#[test]
fn an_id_of_all_versions_is_no_draft_and_that_is_said() {
    let desk = Desk::new();
    let record = desk.sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let concept = desk.sandbox.concept_of(&record);
    for command in ["check", "publish", "discard", "reserve-doi"] {
        desk.run(&[command, &concept]).expect(
            1,
            &["stands for all versions of", &format!("rdmfs edit {record}")],
        );
    }
    desk.run(&["edit", &concept]).expect(0, &[&record]);
}

#[test]
fn each_place_of_a_record_in_a_mount_means_it() {
    let sandbox = Sandbox::start();
    let record = sandbox.publish(NewRecord::titled("Glacier").file("a.csv", "1"));
    let (home, _) = mount_of(&sandbox);
    let doi = Repository::connect(Settings {
        url: sandbox.url(),
        ..Settings::default()
    })
    .unwrap()
    .record(&RecordId::new(&record).unwrap())
    .unwrap();
    let doi = doi.doi().unwrap().to_owned();
    for below in [
        format!("records/{record}"),
        format!("records/{record}/files/a.csv"),
        format!("records/{record}/versions/latest"),
        format!("records/{record}/versions/1/record.json"),
        format!("search/glacier/{record}"),
        format!("search/glacier/{record}/files"),
        format!("doi/{doi}"),
        format!("user/records/{record}"),
    ] {
        let edit = home.run(["edit", text(&place(&home, &below))]);
        edit.expect(0, &[&format!("drafts/{record}")]);
        home.run([
            "discard",
            "--yes",
            text(&place(&home, &format!("drafts/{record}"))),
        ])
        .expect(0, &["dropped"]);
    }
    let page = format!("{}/records/{record}", sandbox.url());
    home.run(["edit", &page])
        .expect(0, &[&format!("drafts/{record}")]);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn all_mounts_of_a_repository_show_what_a_command_did() {
    let sandbox = Sandbox::start();
    let (one, _) = mount_of(&sandbox);
    let (other, _) = mount_of(&sandbox);
    let listed = |folder: &str, id: &str| {
        let names = other.mountpoint().join(folder).read_dir().unwrap().flatten();
        names.into_iter().any(|one| *one.file_name() == *id)
    };
    assert!(!listed("drafts", "nothing"), "and the kernel remembers the list");
    let made = one.run(["new", "In both", "--mount", text(&one.mountpoint())]);
    let (id, path) = made.stdout.trim().split_once('\n').unwrap();
    assert!(listed("drafts", id));
    fs::write(PathBuf::from(path).join("a.csv"), "1").unwrap();
    let change = one.file("m.json", COMPLETE);
    one.run(["edit", path, "--metadata", &change]).expect(0, &[]);
    let document = other.mountpoint().join("drafts").join(id).join("record.json");
    assert!(fs::read_to_string(document).unwrap().contains("2026-11-22"));
    one.run(["publish", "--yes", path]).expect(0, &[]);
    assert!(!listed("drafts", id) && listed("records", id));
    let made = one.run([
        "new-version",
        "--import-files",
        id,
        "--mount",
        text(&one.mountpoint()),
    ]);
    let (next, _) = made.stdout.trim().split_once('\n').unwrap();
    assert!(
        other
            .mountpoint()
            .join("drafts")
            .join(next)
            .join("a.csv")
            .exists()
    );
    one.run(["discard", "--yes", next, "--mount", text(&one.mountpoint())])
        .expect(0, &[]);
    assert!(!listed("drafts", next));
    for home in [&one, &other] {
        home.unmount(&[]).expect(0, &[]);
    }
}

#[test]
fn what_is_told_of_uploads_does_not_get_into_the_result() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0s"]);
    let folder = place(&home, &format!("drafts/{draft}"));
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::Delay(std::time::Duration::from_secs(2))),
    );
    fs::write(folder.join("slow.bin"), vec![7; 100_000]).unwrap();
    let published = home.run(["publish", "--yes", "--json", text(&folder)]);
    assert_eq!(parsed(published.expect(0, &["slow.bin"]))["id"], draft);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn what_a_mount_left_behind_is_in_the_way_of_publishing() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0s"]);
    let folder = place(&home, &format!("drafts/{draft}"));
    fs::write(folder.join("a.csv"), "1").unwrap();
    let held = sandbox.fault(Fault::on(Route::PutContent).then(Effect::ServerError(503)));
    fs::write(folder.join("left.csv"), "1,2\n").unwrap();
    home.unmount(&["--now"]).expect(0, &["left.csv"]);
    let env_file = env_of(&home, &sandbox, "env", ALICE);
    home.run(["publish", "--yes", "--env-file", &env_file, &draft])
        .expect(
            1,
            &[
                "left.csv: was not sent by an earlier mount",
                "does not get there by itself",
            ],
        );
    assert!(sandbox.draft_metadata(&draft).is_some());
    sandbox.remove_fault(held);
    let told = home.run(["discard", "--yes", "--json", "--env-file", &env_file, &draft]);
    told.expect(
        0,
        &[
            "left.csv of an earlier mount is still kept",
            "rdmfs uploads discard",
        ],
    );
    assert_eq!(parsed(&told)["unsent_files_dropped"], 0);
}

#[test]
fn a_save_in_a_mount_that_takes_an_acceptance_back_is_told_afterwards() {
    let desk = Desk::that_curates();
    let id = desk.ready();
    let curator = env_of(&desk.home, &desk.sandbox, "curator", BOB);
    desk.run(&["curation", "submit", "--yes", &id]).expect(0, &[]);
    let act = |what: &str| {
        let done = desk.home.run(["curation", what, "--env-file", &curator, &id]);
        done.expect(0, &[]);
    };
    act("review");
    act("accept");
    let (home, _) = mount_of(&desk.sandbox);
    let document = place(&home, &format!("drafts/{id}/record.json"));
    let save = |version: &str| {
        let mut value: Value = serde_json::from_slice(&fs::read(&document).unwrap()).unwrap();
        value["metadata"]["version"] = json!(version);
        fs::write(&document, value.to_string()).unwrap();
    };
    let error = || {
        let mut value = vec![0; 4096];
        let read = rustix::fs::getxattr(&document, "user.rdm.error", &mut value);
        String::from_utf8(value[..read.unwrap_or(0)].to_vec()).unwrap()
    };
    desk.sandbox.reset_counts();
    desk.run(&["check", &id])
        .expect(0, &["can be published", "takes that back"]);
    assert_eq!(
        desk.sandbox.count(Route::PutDraft),
        0,
        "what is accepted is not touched by a check"
    );
    assert_eq!(error(), "");
    save("2.0");
    assert!(
        error().contains("took back that its curation was accepted"),
        "{}",
        error()
    );
    home.run(["status", text(&home.mountpoint())]).expect(
        0,
        &[
            "took back that its curation was accepted",
            "rdmfs curation status",
        ],
    );
    desk.run(&["check", &id]).expect(
        1,
        &["'resubmitted', because a change of the draft took an acceptance back"],
    );
    desk.run(&["curation", "status", &id])
        .expect(0, &["resubmitted", "took its acceptance back"]);
    act("review");
    act("critique");
    save("3.0");
    desk.run(&["curation", "resubmit", &id]).expect(0, &[]);
    let found = desk.run(&["check", &id]);
    assert!(
        !found
            .expect(1, &["'resubmitted'"])
            .stdout
            .contains("took an acceptance back")
    );
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_decision_of_a_curator_whose_answer_was_lost_is_no_failure() {
    let desk = Desk::that_curates();
    let id = desk.ready();
    let curator = env_of(&desk.home, &desk.sandbox, "curator", BOB);
    desk.run(&["curation", "submit", "--yes", &id]).expect(0, &[]);
    for what in ["review", "accept"] {
        desk.sandbox.fault(
            Fault::on(Route::Act)
                .times(1)
                .then(Effect::ErrorAfterSuccess(504)),
        );
        desk.home
            .run(["curation", what, "--env-file", &curator, &id])
            .expect(0, &[&id]);
    }
    desk.run(&["publish", "--yes", &id]).expect(0, &["published"]);
}

#[test]
fn who_is_not_trusted_makes_no_draft_and_is_told_so() {
    let desk = Desk::that_curates();
    let newcomer = env_of(&desk.home, &desk.sandbox, "newcomer", NEWCOMER);
    desk.home
        .run(["new", "Too early", "--env-file", &newcomer])
        .expect(1, &["make a draft", "its user may do this"]);
}

#[test]
fn publish_shows_in_which_communities_it_will_be_seen() {
    let desk = Desk::new();
    let community = desk.home.file(
        "c.json",
        r#"{"slug": "climate", "access": {"visibility": "public", "review_policy": "open"},
            "metadata": {"title": "Climate"}}"#,
    );
    desk.run(&["api", "POST", "communities", "--data", &format!("@{community}")])
        .expect(0, &[]);
    let id = desk.ready();
    desk.run(&["publish", "--yes", &id]).expect(0, &[]);
    let put = r#"{"communities": [{"id": "climate"}]}"#;
    let put = desk.home.file("p.json", put);
    desk.run(&[
        "api",
        "POST",
        &format!("records/{id}/communities"),
        "--data",
        &format!("@{put}"),
    ])
    .expect(0, &[]);
    desk.run(&["edit", &id]).expect(0, &[]);
    desk.run(&["publish", "--yes", &id])
        .expect(0, &["in:      ", "climate", "an edit of what is published"]);
}

#[test]
fn publish_waits_for_the_uploads_of_every_mount() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Written from two places").file("a.csv", "1"));
    let (one, _) = mount_of(&sandbox);
    let (other, _) = mount_of(&sandbox);
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::Delay(std::time::Duration::from_secs(3))),
    );
    let late = place(&other, &format!("drafts/{draft}/late.bin"));
    let writer = std::thread::spawn(move || fs::write(late, vec![7; 100_000]).unwrap());
    sandbox.wait_until("it is on its way", |_| sandbox.count(Route::PutContent) == 1);
    let folder = place(&one, &format!("drafts/{draft}"));
    one.run(["publish", "--yes", text(&folder)])
        .expect(0, &["late.bin", "published"]);
    writer.join().unwrap();
    assert_eq!(sandbox.record_file(&draft, "late.bin").unwrap().size, 100_000);
    for home in [&one, &other] {
        home.unmount(&[]).expect(0, &[]);
    }
}

#[test]
fn a_draft_that_is_dropped_takes_what_is_on_its_way_along() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0s"]);
    let folder = place(&home, &format!("drafts/{draft}"));
    sandbox.fault(
        Fault::on(Route::PutContent)
            .times(1)
            .then(Effect::Delay(std::time::Duration::from_secs(3))),
    );
    fs::write(folder.join("slow.bin"), vec![7; 100_000]).unwrap();
    sandbox.wait_until("it is on its way", |_| sandbox.count(Route::PutContent) == 1);
    let told = home.run(["discard", "--yes", "--json", text(&folder)]);
    assert_eq!(parsed(told.expect(0, &[]))["unsent_files_dropped"], 1);
    assert!(sandbox.draft_metadata(&draft).is_none() && !folder.exists());
    let left = home.run(["uploads", "--json", text(&home.mountpoint())]);
    assert_eq!(parsed(&left), json!([]));
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_mount_that_only_reads_is_no_place_for_a_new_draft() {
    let sandbox = Sandbox::start();
    let home = Home::new();
    let token = home.file("token", ALICE);
    home.mount(&["--token-file", &token, "--read-only"], &sandbox.url())
        .expect(0, &["signed in"]);
    let made = home.run(["new", "Nowhere to write", "--mount", text(&home.mountpoint())]);
    assert_eq!(made.expect(0, &[]).stdout.lines().count(), 1, "{made:#?}");
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn metadata_that_was_saved_in_a_mount_and_not_accepted_is_in_the_way_of_publishing() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Half saved").file("a.csv", "1"));
    let (home, _) = mount_of(&sandbox);
    let folder = place(&home, &format!("drafts/{draft}"));
    let wrong = r#"{"metadata": {"title": "Half saved", "publication_date": "yesterday"}}"#;
    // What close() says, std does not pass on.
    fs::write(folder.join("record.json"), wrong).unwrap();
    let found = home.run(["check", text(&folder)]);
    found.expect(1, &["record.json: "]);
    home.run(["publish", "--yes", text(&folder)])
        .expect(1, &["record.json", "does not get there by itself"]);
    let right = r#"{"metadata": {"publication_date": "2026-11-22"}}"#;
    fs::write(folder.join("record.json"), right).unwrap();
    home.run(["publish", "--yes", text(&folder)])
        .expect(0, &["published"]);
    home.unmount(&[]).expect(0, &[]);
}
