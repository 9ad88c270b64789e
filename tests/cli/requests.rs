//! `rdmfs requests`: listed, shown, commented, decided.

use rdm_sandbox::{ALICE, BOB, Effect, Fault, NewRecord, Route, Sandbox};

use crate::machine::Home;
use crate::user::User;

/// A draft that is submitted to a community that reviews, and the request's id.
fn submitted(alice: &User<'_>, sandbox: &Sandbox) -> (String, String) {
    let draft = sandbox.draft(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    let made = alice.run(&[
        "community",
        "create",
        "glaciers",
        "--title",
        "Glaciers",
        "--review-policy",
        "closed",
    ]);
    assert!(
        made.code == Some(0) || made.stderr.contains("already exists"),
        "{made:#?}"
    );
    let said = alice.json(&[
        "community",
        "submit",
        "--json",
        "--yes",
        &draft,
        "glaciers",
        "--comment",
        "Please <look>",
    ]);
    assert_eq!(said["status"], "submitted");
    (draft, said["id"].as_str().unwrap().to_owned())
}

#[test]
fn requests_are_listed_by_state_and_by_community() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let (draft, request) = submitted(&alice, &sandbox);
    let line = format!("{request}\tsubmitted\tcommunity-submission\t{draft}\t");
    for list in [
        &["requests", "list"][..],
        &["requests", "list", "--community", "glaciers"],
        &["request", "list", "--all"],
    ] {
        alice.run(list).expect(0, &[&line]);
    }
    assert_eq!(alice.json(&["requests", "list", "--json"])["total"], 1);
    assert_eq!(alice.run(&["requests", "list", "--closed"]).stdout, "");
    assert_eq!(
        User::new(&home, &sandbox, BOB).run(&["requests", "list"]).stdout,
        ""
    );
    User::guest(&home, &sandbox)
        .run(&["requests", "list"])
        .expect(1, &["there is no token"]);
}

#[test]
fn a_request_is_shown_with_what_was_said_and_what_may_be_done() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let (draft, request) = submitted(&alice, &sandbox);
    alice
        .run(&["requests", "comment", &draft, "The units & all.\nThanks"])
        .expect(0, &["said of request"]);
    alice
        .feed(&["requests", "comment", &request, "-"], "From stdin\n")
        .expect(0, &[]);
    alice.run(&["requests", "show", &request]).expect(
        0,
        &[
            "community-submission, submitted",
            &format!("about: {draft}"),
            "you may: ",
            "accept",
            "  Please <look>\n",
            "  The units & all.\n  Thanks\n",
            "  From stdin\n",
            "asked by: alice Example",
            "decides: community glaciers (Glaciers)",
            " alice Example: said\n",
        ],
    );
    let page = format!("{}/me/requests/{request}", sandbox.url());
    alice.run(&["requests", "show", &page]).expect(0, &[&request]);
    let shown = alice.json(&["requests", "show", "--json", &draft]);
    assert_eq!(shown["request"]["id"], *request);
    assert_eq!(shown["timeline"].as_array().unwrap().len(), 3);
    alice
        .run(&["requests", "comment", &request, "  "])
        .expect(2, &["is empty"]);
}

#[test]
fn accepting_publishes_after_asking() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let (draft, request) = submitted(&alice, &sandbox);
    alice
        .run(&["requests", "accept", &request])
        .expect(2, &["--yes", "nothing was done"]);
    alice
        .run(&["requests", "show", &request])
        .expect(0, &["submitted"]);
    alice
        .run(&["requests", "accept", "--yes", &draft, "--comment", "Thank you"])
        .expect(0, &[&format!("request {request} is accepted")]);
    User::guest(&home, &sandbox)
        .run(&["api", &format!("records/{draft}")])
        .expect(0, &["Snow depths"]);
    alice
        .run(&["requests", "show", &request])
        .expect(0, &["accepted", "  Thank you\n"]);
    let again = alice.run(&["requests", "accept", "--yes", &request]);
    assert_eq!(again.code, Some(1), "{again:#?}");
}

#[test]
fn a_declined_and_a_cancelled_request_leave_the_draft() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    for (verb, done) in [("decline", "declined"), ("cancel", "cancelled")] {
        let (draft, request) = submitted(&alice, &sandbox);
        alice.run(&["requests", verb, &request]).expect(2, &["--yes"]);
        alice
            .run(&["requests", verb, "--yes", &request])
            .expect(0, &[&format!("is {done}")]);
        assert!(sandbox.draft_metadata(&draft).is_some());
        assert!(sandbox.record_file(&draft, "a.csv").is_none());
    }
}

#[test]
fn a_request_that_is_not_there_or_not_ones_own_is_refused() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let (_, request) = submitted(&alice, &sandbox);
    let bob = User::new(&home, &sandbox, BOB);
    bob.run(&["requests", "accept", "--yes", &request])
        .expect(1, &["403"]);
    let id = sandbox.publish(NewRecord::titled("Rainfall"));
    alice
        .run(&["requests", "show", &id])
        .expect(1, &["no request about", "rdmfs requests list"]);
    alice
        .run(&["requests", "show", "00000000-0000-0000-0000-000000000000"])
        .expect(1, &["404"]);
    alice
        .run(&["requests", "show", "/etc/passwd"])
        .expect(2, &["is in no mount"]);
}

#[test]
fn a_request_whose_answer_is_lost_is_looked_at_and_acted_on_once() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let (_, request) = submitted(&alice, &sandbox);
    sandbox.fault(
        Fault::on(Route::Act)
            .times(1)
            .then(Effect::ErrorAfterSuccess(504)),
    );
    alice
        .run(&["requests", "accept", "--yes", &request])
        .expect(0, &[&format!("request {request} is accepted")]);
    assert_eq!(sandbox.count(Route::Act), 1);
    let (_, request) = submitted(&alice, &sandbox);
    sandbox.fault(Fault::on(Route::Act).times(1).then(Effect::ServerError(504)));
    alice
        .run(&["requests", "accept", "--yes", &request])
        .expect(1, &["not done so far", "rdmfs check", "rdmfs requests show"]);
}

#[test]
fn what_a_community_lets_in_is_seen_at_once_in_a_mount() {
    let (home, sandbox, _) = crate::mounted::mounted_with_token(&["--metadata-ttl", "1h"]);
    let alice = User::new(&home, &sandbox, ALICE);
    let (draft, request) = submitted(&alice, &sandbox);
    let place = home.mountpoint();
    let listed = || {
        let folder = std::fs::read_dir(place.join("communities/glaciers/records")).unwrap();
        folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>()
    };
    let record = place.join("records").join(&draft);
    assert!(listed().is_empty() && !record.exists());
    alice
        .run(&["requests", "accept", "--yes", &request])
        .expect(0, &[]);
    assert_eq!(listed(), [draft.as_str()]);
    assert_eq!(
        std::fs::read_to_string(record.join("files/a.csv")).unwrap(),
        "x,y\n1,2\n"
    );
    // What any call changed is seen at once as well.
    assert!(!place.join("communities/ice").exists());
    alice
        .run(&[
            "api",
            "communities/glaciers/rename",
            "--data",
            r#"{"slug": "ice"}"#,
        ])
        .expect(0, &[]);
    assert!(!place.join("communities/glaciers").exists());
    home.unmount(&[]).expect(0, &["unmounted"]);
}

#[test]
fn nothing_that_was_written_elsewhere_reaches_the_terminal_as_a_command() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let (_, request) = submitted(&alice, &sandbox);
    let body =
        r#"{"payload": {"content": "<p>a&#27;[2Jb\u009b31m\u202ec &#x1b;]0;x&#7;</p>", "format": "html"}}"#;
    alice
        .run(&["api", &format!("requests/{request}/comments"), "--data", body])
        .expect(0, &[]);
    let shown = alice.run(&["requests", "show", &request]);
    shown.expect(0, &["a\\u{1b}[2Jb\\u{9b}31m\\u{202e}c "]);
    assert!(
        !shown.stdout.contains(['\u{1b}', '\u{9b}', '\u{7}', '\u{202e}']),
        "{shown:#?}"
    );
}
