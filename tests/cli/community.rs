//! `rdmfs community`: made, changed, refused by field, and records in them.

use std::fs;

use rdm_sandbox::{ALICE, BOB, Effect, Fault, Flavour, NewRecord, Options, Route, Sandbox};
use serde_json::{Value, json};

use crate::machine::{Home, signal};
use crate::mounted::{kill, mounted_with_token};
use crate::user::{User, complaints};

/// Makes a community of which the owner publishes without a review.
fn made(user: &User<'_>, slug: &str) {
    user.run(&[
        "community",
        "create",
        slug,
        "--title",
        "Glaciers of the Alps",
        "--type",
        "project",
        "--review-policy",
        "open",
    ])
    .expect(0, &[&format!("made {slug}"), &format!("/communities/{slug}")]);
}

#[test]
fn a_community_is_made_shown_changed_renamed_and_deleted() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    alice
        .run(&["community", "edit", "glaciers", "--description", "All since 1990"])
        .expect(0, &["changed glaciers"]);
    alice
        .feed(
            &["community", "edit", "glaciers", "--data", "-"],
            r#"{"access": {"review_policy": "closed"}}"#,
        )
        .expect(0, &["changed glaciers"]);
    let shown = alice.json(&["community", "show", "glaciers"]);
    assert_eq!(
        shown["metadata"],
        json!({"title": "Glaciers of the Alps", "type": {"id": "project"}, "description": "All since 1990"})
    );
    assert_eq!(
        (&shown["access"]["review_policy"], &shown["access"]["visibility"]),
        (&json!("closed"), &json!("public"))
    );
    alice
        .run(&["community", "edit", "glaciers", "--description", "All since 1990"])
        .expect(0, &["is as that says already"]);
    alice
        .run(&["community", "edit", "glaciers"])
        .expect(2, &["nothing is to be changed"]);
    alice
        .run(&["community", "edit", "glaciers", "--data", r#"{"slug": "ice"}"#])
        .expect(2, &["rdmfs community rename"]);

    alice
        .run(&["community", "rename", "glaciers", "ice"])
        .expect(2, &["--yes"]);
    alice
        .run(&["community", "rename", "--yes", "glaciers", "ice"])
        .expect(0, &["glaciers is ice now"]);
    alice
        .run(&["community", "show", "glaciers"])
        .expect(1, &["community glaciers"]);
    alice.run(&["community", "delete", "ice"]).expect(2, &["--yes"]);
    alice.run(&["community", "show", "ice"]).expect(0, &[]);
    alice
        .run(&["community", "delete", "-y", "ice"])
        .expect(0, &["deleted ice"]);
    alice.run(&["community", "show", "ice"]).expect(1, &[]);
}

#[test]
fn missing_fields_a_bad_slug_and_a_logo_that_is_too_large_are_lines_of_field_and_message() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let missing = alice.run(&["community", "create", "--data", "{}"]);
    missing.expect(1, &["can't make a community"]);
    for line in [
        "slug: Missing data for required field.",
        "metadata: Missing data for required field.",
        "access: Missing data for required field.",
    ] {
        assert!(
            complaints(&missing).contains(&line),
            "no \"{line}\" in {missing:#?}"
        );
    }
    assert_eq!(missing.stderr.matches("slug: Missing").count(), 1, "{missing:#?}");
    let untitled = alice.run(&["community", "create", "glaciers"]);
    untitled.expect(1, &["\nmetadata.title: Missing data for required field.\n"]);

    let bad = alice.run(&["community", "create", "bad slug!", "--title", "Glaciers"]);
    bad.expect(1, &["\nslug: "]);
    made(&alice, "glaciers");
    let taken = alice.run(&["community", "create", "glaciers", "--title", "Glaciers"]);
    taken.expect(1, &["\nslug: ", "already exists"]);
    let renamed = alice.run(&["community", "rename", "-y", "glaciers", "bad slug!"]);
    renamed.expect(1, &["\nslug: "]);

    let large = home.file("large.png", &format!("<svg>{}", "x".repeat(1_000_000)));
    let logo = alice.run(&["community", "logo", "glaciers", &large]);
    logo.expect(1, &["\nlogo: ", "Limit: 1.00 MB"]);
    let told = alice.run(&["community", "create", "--json", "--data", "{}"]);
    assert_eq!(told.code, Some(1));
    let error: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(error["fields"][0]["field"], "slug");
}

#[test]
fn a_logo_is_set_saved_and_taken_away() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    let image = home.file("logo.svg", "<svg/>");
    let saved = home.path("saved.svg");
    let save = ["community", "logo", "glaciers", "--save", saved.to_str().unwrap()];
    alice.run(&save).expect(1, &["has no logo"]);
    alice
        .run(&["community", "logo", "glaciers", &image])
        .expect(0, &["has the logo now"]);
    alice.run(&save).expect(0, &["saved"]);
    assert_eq!(fs::read_to_string(&saved).unwrap(), "<svg/>");
    for none in ["", "a,b\n1,2\n"] {
        let none = home.file("none.png", none);
        let refused = alice.run(&["community", "logo", "glaciers", &none]);
        refused.expect(1, &["none.png can be no logo", "\nlogo: It is no image"]);
    }
    alice
        .run(&["community", "logo", "glaciers", "--delete"])
        .expect(2, &["--yes"]);
    alice
        .run(&["community", "logo", "glaciers", "--delete", "--yes"])
        .expect(0, &["has no logo any more"]);
    alice
        .run(&["community", "logo", "glaciers"])
        .expect(2, &["IMAGE"]);
}

#[test]
fn a_published_record_gets_into_a_community_is_listed_there_and_taken_out() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    let id = sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    alice
        .run(&["community", "submit", &id, "glaciers"])
        .expect(2, &["--yes"]);
    alice
        .run(&[
            "community",
            "submit",
            "--yes",
            &id,
            "glaciers",
            "--comment",
            "Please",
        ])
        .expect(0, &[&format!("{id} is in glaciers")]);
    let again = alice.run(&["community", "submit", "--yes", &id, "glaciers"]);
    again.expect(1, &["glaciers"]);
    alice
        .run(&["community", "records", "glaciers"])
        .expect(0, &[&format!("{id}\t"), "Snow depths"]);
    let found = alice.json(&["community", "records", "glaciers", "--json", "snow"]);
    assert_eq!(found["total"], 1);
    alice
        .run(&["community", "remove", "--yes", &id, "glaciers"])
        .expect(0, &["not in glaciers any more"]);
    assert_eq!(alice.run(&["community", "records", "glaciers"]).stdout, "");
    alice
        .run(&["community", "remove", "--yes", &id, "glaciers"])
        .expect(1, &["\nglaciers: "]);
    alice
        .run(&["community", "submit", "--yes", &id, "no-such-community"])
        .expect(1, &["\nno-such-community: "]);
}

#[test]
fn one_community_that_refuses_does_not_hide_that_another_was_asked() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    let id = sandbox.publish(NewRecord::titled("Snow depths"));
    let address = format!("{}/communities/glaciers?q=x", sandbox.url());
    let said = alice.run(&["community", "submit", "--yes", &id, "nowhere", "glaciers"]);
    said.expect(1, &[&format!("{id} is in glaciers\n"), "\nnowhere: "]);
    // The address of its page names it as well, and that of another repository nothing.
    alice.run(&["community", "records", &address]).expect(0, &[&id]);
    alice
        .run(&["community", "submit", "--yes", &id, &address])
        .expect(1, &["\nglaciers: The record is already included"]);
    alice
        .run(&["requests", "list", "--all", "--community", &address])
        .expect(0, &[&id]);
    alice
        .run(&[
            "community",
            "records",
            "https://other.example/communities/glaciers?token=s3cret",
        ])
        .expect(
            2,
            &["https://other.example/communities/glaciers is no address of"],
        );
}

#[test]
fn a_draft_that_is_refused_is_not_left_promised_to_the_community() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    alice
        .run(&[
            "community",
            "create",
            "ice",
            "--title",
            "Ice",
            "--review-policy",
            "closed",
        ])
        .expect(0, &[]);
    let bare = alice.json(&[
        "api",
        "records",
        "--data",
        r#"{"metadata": {}, "files": {"enabled": false}}"#,
    ]);
    let draft = bare["id"].as_str().unwrap();
    let refused = alice.run(&["community", "submit", "--yes", draft, "glaciers"]);
    refused.expect(1, &["\nmetadata.title: "]);
    alice
        .run(&["api", &format!("records/{draft}/draft/review")])
        .expect(1, &["404"]);
    let good = sandbox.draft(NewRecord::titled("Snow depths").file("a.csv", "x\n"));
    let submit = ["community", "submit", "--yes", &good, "ice"];
    alice.run(&submit).expect(0, &["is submitted to ice"]);
    alice
        .run(&submit)
        .expect(1, &["is submitted already", "rdmfs requests cancel"]);
}

#[test]
fn a_strangers_record_waits_until_the_community_lets_it_in() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let (alice, bob) = (User::new(&home, &sandbox, ALICE), User::new(&home, &sandbox, BOB));
    made(&alice, "glaciers");
    let id = sandbox.publish(NewRecord::titled("Snow depths").owner("bob"));
    bob.run(&[
        "community",
        "submit",
        "--yes",
        &id,
        "glaciers",
        "--comment",
        "Please",
    ])
    .expect(0, &["glaciers is asked: request", "submitted"]);
    assert_eq!(alice.run(&["community", "records", "glaciers"]).stdout, "");
    bob.run(&["requests", "accept", "--yes", &id])
        .expect(1, &["it is submitted, and you may cancel"]);
    alice
        .run(&["requests", "accept", "--yes", &id])
        .expect(0, &["is accepted"]);
    alice.run(&["community", "records", "glaciers"]).expect(0, &[&id]);
}

#[test]
fn a_draft_is_published_in_a_community_at_once_where_no_review_is_needed() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    let draft = sandbox.draft(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    alice
        .run(&["community", "submit", "--yes", &draft, "glaciers", "another"])
        .expect(2, &["one community only"]);
    alice
        .run(&["community", "submit", &draft, "glaciers"])
        .expect(2, &["--yes"]);
    assert_eq!(sandbox.count(Route::SubmitReview), 0);
    alice
        .run(&["community", "submit", "--yes", &draft, "glaciers"])
        .expect(0, &["is published in glaciers"]);
    alice
        .run(&["community", "records", "glaciers"])
        .expect(0, &[&draft]);
}

#[test]
fn the_community_that_was_chosen_for_a_draft_is_taken_back_until_it_is_asked() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    made(&alice, "rivers");
    let draft = alice.json(&["new", "Snow depths", "--community", "glaciers", "--json"]);
    let draft = draft["id"].as_str().unwrap();
    let review = format!("records/{draft}/draft/review");
    alice
        .run(&["community", "remove", draft, "rivers"])
        .expect(1, &["rivers is not the community"]);
    alice.run(&["api", &review]).expect(0, &[]);
    alice
        .run(&["community", "remove", draft, "glaciers"])
        .expect(0, &["to glaciers no more"]);
    alice.run(&["api", &review]).expect(1, &["404"]);
    alice
        .run(&["community", "remove", draft, "glaciers"])
        .expect(1, &["no community was chosen"]);
    let draft = sandbox.draft(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    alice
        .run(&["community", "submit", "--yes", "--review", &draft, "glaciers"])
        .expect(0, &["is submitted"]);
    alice
        .run(&["community", "remove", &draft, "glaciers"])
        .expect(1, &["is submitted already", "rdmfs requests cancel"]);
}

#[test]
fn a_draft_goes_to_a_community_with_all_that_was_written_into_it() {
    let (home, sandbox, draft) = mounted_with_token(&["--close-wait", "0"]);
    let alice = User::new(&home, &sandbox, ALICE);
    made(&alice, "glaciers");
    let slow = Effect::Delay(std::time::Duration::from_secs(2));
    sandbox.fault(Fault::on(Route::PutContent).times(1).then(slow));
    let folder = home.mountpoint().join("drafts").join(&draft);
    fs::write(folder.join("late.csv"), "x\n").unwrap();
    home.run([
        "community",
        "submit",
        "--yes",
        folder.to_str().unwrap(),
        "glaciers",
    ])
    .expect(0, &["is published in glaciers"]);
    assert!(sandbox.record_file(&draft, "late.csv").is_some());
    let record = home.mountpoint().join("records").join(&draft);
    assert_eq!(fs::read_to_string(record.join("files/late.csv")).unwrap(), "x\n");
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn who_may_not_is_told_so() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    made(&User::new(&home, &sandbox, ALICE), "glaciers");
    let bob = User::new(&home, &sandbox, BOB);
    bob.run(&["community", "edit", "glaciers", "--title", "Mine"])
        .expect(1, &["403"]);
    bob.run(&["community", "delete", "--yes", "glaciers"])
        .expect(1, &["403"]);
    User::guest(&home, &sandbox)
        .run(&["community", "create", "ice", "--title", "Ice"])
        .expect(1, &["there is no token"]);
    let tuwien = Sandbox::start_with(Options {
        knobs: Flavour::TuWien.knobs(),
        ..Options::default()
    });
    User::new(&home, &tuwien, ALICE)
        .run(&["community", "create", "ice", "--title", "Ice"])
        .expect(
            1,
            &["can't make a community", "403", "leave that to their operators"],
        );
}

#[test]
fn a_renamed_community_is_seen_at_once_in_each_mount_and_a_dead_or_stuck_one_holds_up_nobody() {
    let sandbox = Sandbox::start();
    let owner = Home::new();
    let alice = User::new(&owner, &sandbox, ALICE);
    made(&alice, "glaciers");
    let homes = [Home::new(), Home::new(), Home::new(), Home::new()];
    for home in &homes {
        let token = home.file("token", ALICE);
        home.mount(&["--token-file", &token, "--metadata-ttl", "1h"], &sandbox.url())
            .expect(0, &["signed in"]);
    }
    let [one, other, dead, stuck] = &homes;
    kill(dead);
    signal(stuck.process("worker"), libc::SIGSTOP);
    let there =
        |home: &Home, slug: &str| fs::metadata(home.mountpoint().join("communities").join(slug)).is_ok();
    for home in [one, other] {
        // The kernel relies on both answers for an hour.
        assert!(there(home, "glaciers") && !there(home, "ice"));
    }
    let began = std::time::Instant::now();
    alice
        .run(&["community", "rename", "--yes", "glaciers", "ice"])
        .expect(0, &["glaciers is ice now", stuck.mountpoint().to_str().unwrap()]);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    signal(stuck.process("worker"), libc::SIGCONT);
    for home in [one, other] {
        assert!(there(home, "ice") && !there(home, "glaciers"));
        let own = fs::read_dir(home.mountpoint().join("user/communities")).unwrap();
        let names: Vec<_> = own.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["ice"]);
        home.unmount(&[]).expect(0, &["unmounted"]);
    }
}
