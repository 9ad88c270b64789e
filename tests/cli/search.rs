//! `rdmfs search` and `rdmfs vocabulary`.

use rdm_sandbox::{ALICE, Flavour, NewRecord, Options, Sandbox};
use serde_json::json;

use crate::machine::Home;
use crate::mounted::mounted_with_token;
use crate::user::User;

/// A repository with records about snow, and one about rain.
fn repository() -> (Sandbox, Vec<String>, String) {
    let sandbox = Sandbox::start();
    let snow = (0..3)
        .map(|n| {
            sandbox.publish(
                NewRecord::titled(&format!("Snow depths {n}"))
                    .creators(&["Carberry, Josiah", "Doe, Jane"])
                    .metadata("publication_date", json!(format!("202{n}-01-01"))),
            )
        })
        .collect();
    let rain = sandbox.publish(NewRecord::titled("Rain\tfall\u{1b}[2J"));
    (sandbox, snow, rain)
}

#[test]
fn in_a_pipe_each_record_is_a_line_with_id_date_title_and_creators() {
    let (home, (sandbox, snow, rain)) = (Home::new(), repository());
    let guest = User::guest(&home, &sandbox);
    let outcome = guest.run(&["search", "snow", "--sort", "oldest"]);
    outcome.expect(0, &[]);
    let lines: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(lines.len(), 3, "{outcome:#?}");
    assert_eq!(
        lines[0],
        [
            snow[0].as_str(),
            "2020-01-01",
            "Snow depths 0",
            "Carberry, Josiah; Doe, Jane"
        ]
    );
    let outcome = guest.run(&["search", "rain"]);
    assert_eq!(outcome.stdout.split('\t').count(), 4, "{outcome:#?}");
    assert!(outcome.stdout.starts_with(&rain) && !outcome.stdout.contains('\u{1b}'));
}

#[test]
fn a_query_string_an_order_a_limit_and_all_versions_count() {
    let (home, (sandbox, snow, _)) = (Home::new(), repository());
    let second = sandbox.publish(NewRecord::titled("Snow depths 0, corrected").version_of(&snow[0]));
    let guest = User::guest(&home, &sandbox);
    let ids = |arguments: &[&str]| -> Vec<String> {
        let found = guest.json(&[&["search", "--json"], arguments].concat());
        let hits = found["hits"].as_array().unwrap();
        hits.iter()
            .map(|hit| hit["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&["?q=snow&sort=newest"]).first(), Some(&second));
    assert_eq!(ids(&["snow", "--limit", "2"]).len(), 2);
    assert!(!ids(&["snow"]).contains(&snow[0]));
    for all in [&["snow", "--all-versions"][..], &["?q=snow&allversions=true"]] {
        let found = ids(all);
        assert!(found.contains(&snow[0]) && found.contains(&second), "{found:?}");
    }
    guest
        .run(&["search", "?q=snow&sort=newest", "--sort", "oldest"])
        .expect(2, &["--sort"]);
}

#[test]
fn more_than_a_page_is_asked_for_page_by_page() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let ids = sandbox.publish_many(130, 0);
    let found = User::guest(&home, &sandbox).json(&["search", "?q=", "--json", "--limit", "120"]);
    assert_eq!(found["hits"].as_array().unwrap().len(), 120);
    assert!(found["total"].as_u64().unwrap() >= ids.len() as u64);
}

#[test]
fn a_repository_with_small_pages_is_asked_for_those() {
    let home = Home::new();
    let sandbox = Sandbox::start_with(Options {
        knobs: Flavour::Zenodo.knobs(),
        ..Options::default()
    });
    sandbox.publish_many(40, 0);
    let guest = User::guest(&home, &sandbox);
    let found = guest.json(&["search", "?q=", "--json", "--limit", "60"]);
    assert_eq!(found["hits"].as_array().unwrap().len(), 40);
    guest
        .run(&["vocabulary", "search", "licenses", "--limit", "60"])
        .expect(0, &["cc-by-4.0\t"]);
}

#[test]
fn what_the_repository_refuses_to_search_is_exit_code_1_with_its_words() {
    let (home, (sandbox, ..)) = (Home::new(), repository());
    let guest = User::guest(&home, &sandbox);
    guest
        .run(&["search", "?sort=nope"])
        .expect(1, &["the repository says", "nvalid"]);
    guest
        .run(&["search", "?token=x"])
        .expect(1, &["has no place in it"]);
}

#[test]
fn paths_are_those_of_a_running_mount() {
    let (home, sandbox, _) = mounted_with_token(&[]);
    let id = sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    let alice = User::new(&home, &sandbox, ALICE);
    let outcome = alice.run(&["search", "snow", "--paths"]);
    outcome.expect(0, &[]);
    let record = home.mountpoint().join("records").join(&id);
    assert_eq!(outcome.stdout.trim_end(), record.to_str().unwrap());
    assert_eq!(
        std::fs::read_to_string(record.join("files/a.csv")).unwrap(),
        "x,y\n1,2\n"
    );
    home.unmount(&[]).expect(0, &[]);
    alice
        .run(&["search", "snow", "--paths"])
        .expect(1, &["is not mounted", "rdmfs mount"]);
}

#[test]
fn vocabularies_are_listed_searched_and_read() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let guest = User::guest(&home, &sandbox);
    guest.run(&["vocabulary", "types"]).expect(0, &["licenses\t"]);
    guest
        .run(&["vocabulary", "search", "licenses", "?suggest=creative"])
        .expect(0, &["cc-by-4.0\tCreative Commons"]);
    let all = guest.json(&[
        "vocabulary",
        "search",
        "resourcetypes",
        "--json",
        "--limit",
        "1000",
    ]);
    assert_eq!(
        all["total"].as_u64().unwrap() as usize,
        all["hits"].as_array().unwrap().len()
    );
    let word = guest.json(&["vocabulary", "get", "licenses", "cc-by-4.0"]);
    assert_eq!(word["props"]["scheme"], "spdx");
    guest
        .run(&["vocabulary", "get", "licenses", "nope"])
        .expect(1, &["nope of the vocabulary licenses"]);
    guest.run(&["vocabulary", "search", "nope"]).expect(1, &["nope"]);
}
