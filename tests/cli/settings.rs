//! Where settings come from, seen through `rdmfs doctor`, which says what it found.

use rdm_sandbox::{ALICE, Flavour, NewRecord, Options, Sandbox};
use serde_json::Value;

use crate::machine::{Home, Outcome, outcome};

/// What the doctor found in one check.
fn finding(outcome: &Outcome, check: &str) -> (String, String) {
    let list: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}"));
    let found = list.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no check {check} in {list:#?}"));
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    (text("verdict"), text("found"))
}

#[test]
fn the_doctor_says_what_kind_of_server_it_is_and_whether_the_token_holds() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    let token = home.file("token", ALICE);
    let outcome = home.run(["doctor", "--json", "--token-file", &token, &sandbox.url()]);
    let (verdict, found) = finding(&outcome, "server");
    assert_eq!(verdict, "ok");
    assert!(found.contains("InvenioRDM 13 or newer with 1 records"), "{found}");
    assert_eq!(finding(&outcome, "token").0, "ok");
    assert_eq!(finding(&outcome, "ranges").0, "ok");
    assert!(!outcome.stdout.contains(ALICE));
}

#[test]
fn the_doctor_names_each_kind_of_repository() {
    let home = Home::new();
    let token = home.file("token", ALICE);
    for (flavour, kind, curates) in [
        (Flavour::V14, "is InvenioRDM 13 or newer", false),
        (Flavour::V12, "is InvenioRDM 12 or older", false),
        (Flavour::TuWien, "is InvenioRDM 13 or newer", true),
        (Flavour::Zenodo, "is Zenodo", false),
    ] {
        let sandbox = Sandbox::start_with(Options {
            knobs: flavour.knobs(),
            ..Options::default()
        });
        sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
        let outcome = home.run(["doctor", "--json", "--token-file", &token, &sandbox.url()]);
        let (verdict, found) = finding(&outcome, "server");
        assert!(verdict == "ok" && found.contains(kind), "{found}");
        assert_eq!(outcome.stdout.contains("rdmfs curation"), curates, "{outcome:#?}");
    }
}

#[test]
fn the_doctor_fails_for_a_bad_token_and_warns_without_one() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let token = home.file("token", "wrong");
    let outcome = home.run(["doctor", "--json", "--token-file", &token, &sandbox.url()]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(finding(&outcome, "token").0, "fail");
    let outcome = home.run(["doctor", "--json", &sandbox.url()]);
    assert_eq!(finding(&outcome, "token").0, "warn");
    assert_eq!(finding(&outcome, "ranges").0, "ok");
}

#[test]
fn the_doctor_sees_that_ranges_are_ignored() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    sandbox.publish(NewRecord::titled("Snow depths").file("a.csv", "x,y\n1,2\n"));
    sandbox.set_content_mode(rdm_sandbox::ContentMode::Ignored);
    let outcome = home.run(["doctor", "--json", &sandbox.url()]);
    assert_eq!(finding(&outcome, "ranges").0, "warn");
}

#[test]
fn flags_win_over_the_env_file_over_the_environment_over_the_config() {
    let home = Home::new();
    let sandboxes: Vec<Sandbox> = (0..4).map(|_| Sandbox::start()).collect();
    let url = |i: usize| sandboxes[i].url();
    let asked = |arguments: &[&str]| {
        let mut command = home.command(["doctor", "--json"]);
        command.args(arguments).env("INVENIORDM_URL", url(2));
        finding(&outcome(&mut command), "server").1
    };
    home.file(".config/rdmfs/config.toml", &format!("url = \"{}\"\n", url(3)));
    let env_file = home.file("env", &format!("# mine\nexport INVENIORDM_URL='{}'\n", url(1)));

    assert!(asked(&["--env-file", &env_file, &url(0)]).contains(&url(0)));
    assert!(asked(&["--env-file", &env_file]).contains(&url(1)));
    assert!(asked(&[]).contains(&url(2)));
    assert!(
        finding(&home.run(["doctor", "--json"]), "server")
            .1
            .contains(&url(3))
    );
}

#[test]
fn a_profile_is_a_named_set_of_settings() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    home.file("token", ALICE);
    home.file(
        ".config/rdmfs/config.toml",
        &format!(
            "url = \"https://zenodo.org\"\n[profile.test]\nurl = \"{}\"\ntoken_file = \"~/token\"\n",
            sandbox.url()
        ),
    );
    let outcome = home.run(["doctor", "--json", "--profile", "test"]);
    assert!(finding(&outcome, "server").1.contains(&sandbox.url()));
    assert_eq!(finding(&outcome, "token").0, "ok");
    home.run(["doctor", "--profile", "nope"])
        .expect(2, &["no profile 'nope'", "test"]);
}

#[test]
fn a_token_is_never_sent_to_another_repository_than_its_own() {
    let (home, mine, other) = (Home::new(), Sandbox::start(), Sandbox::start());
    let env_file = home.file(
        "env",
        &format!("INVENIORDM_URL={}\nINVENIORDM_TOKEN={ALICE}\n", mine.url()),
    );
    let outcome = home.run(["doctor", "--json", "--env-file", &env_file, &other.url()]);
    assert_eq!(finding(&outcome, "token").0, "warn");
    outcome.expect(
        outcome.code.unwrap(),
        &["is for another repository and is not used"],
    );
    assert_eq!(other.count(rdm_sandbox::Route::UserRecords), 0);
}
