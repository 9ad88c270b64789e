//! `scripts/dataset-life`: the whole life of a dataset with shell commands alone, on the sandbox and on real servers: that at
//! `RDMFS_TEST_URL`, and one that curates at `RDMFS_TEST_CURATIONS_URL`, with the tokens beside them.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use rdm_sandbox::{ALICE, BOB, Flavour, Options, Sandbox};

use crate::machine::{Home, Outcome, RDMFS, outcome};

/// What is said where nothing is curated, in this order.
const PLAIN: &[&str] = &[
    "metadata.creators: ",
    "can be published",
    "the same bytes, by SHA-256",
    "shared by a link",
    "an edit of what is published",
    "a new version)",
    "> 3,299",
    "dropped ",
    "the whole life of",
];
/// The same where drafts are curated.
const CURATED: &[&str] = &[
    "metadata.creators: ",
    "has to be curated",
    "submitted",
    "critiqued",
    "resubmitted",
    "accepted",
    "takes that back",
    "the same bytes, by SHA-256",
    "a new version)",
    "> 3,299",
    "the whole life of",
];

fn lead(url: &str, token: &str, other: &str) -> Outcome {
    let home = Home::new();
    let text = format!("INVENIORDM_URL={url}\nINVENIORDM_TOKEN={token}\nINVENIORDM_TOKEN_OTHER={other}\n");
    let env_file = home.file("env", &text);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/dataset-life");
    let mut command = Command::new("timeout");
    // A real server on a busy machine takes a minute.
    command.args(["--kill-after=5", "600"]).arg(script).arg(env_file);
    home.dress(&mut command);
    command.env("RDMFS_BIN_DIR", Path::new(RDMFS).parent().unwrap());
    outcome(&mut command)
}

/// All of it happened, in this order.
fn expect(outcome: &Outcome, said: &[&str]) {
    outcome.expect(0, said);
    let mut rest = outcome.stdout.as_str();
    for text in said.iter().filter(|text| outcome.stdout.contains(**text)) {
        let at = rest
            .find(text)
            .unwrap_or_else(|| panic!("\"{text}\" comes too early in {outcome:#?}"));
        rest = &rest[at + text.len()..];
    }
}

/// The real server that variables with this prefix name. Without one, that is said past the harness's capture.
fn real(prefix: &str) -> Option<(String, String, String)> {
    let variable = |name: &str| std::env::var(format!("{prefix}_{name}")).unwrap_or_default();
    let server = (variable("URL"), variable("TOKEN"), variable("TOKEN_OTHER"));
    if !server.0.is_empty() && !server.1.is_empty() {
        return Some(server);
    }
    let _ = writeln!(
        std::io::stderr(),
        "\nNOT RUN against a real server: set {prefix}_URL and {prefix}_TOKEN (and _TOKEN_OTHER)"
    );
    None
}

#[test]
fn a_dataset_lives_by_shell_commands_alone() {
    for flavour in [Flavour::V14, Flavour::V12] {
        let sandbox = Sandbox::start_with(Options {
            knobs: flavour.knobs(),
            ..Options::default()
        });
        expect(&lead(&sandbox.url(), ALICE, BOB), PLAIN);
    }
}

#[test]
fn a_dataset_lives_by_shell_commands_alone_where_drafts_are_curated() {
    let sandbox = Sandbox::start_with(Options {
        knobs: Flavour::TuWien.knobs(),
        ..Options::default()
    });
    expect(&lead(&sandbox.url(), ALICE, BOB), CURATED);
}

#[test]
fn a_dataset_lives_by_shell_commands_alone_on_a_real_server() {
    if let Some((url, token, other)) = real("RDMFS_TEST") {
        expect(&lead(&url, &token, &other), PLAIN);
    }
}

#[test]
fn a_dataset_lives_by_shell_commands_alone_on_a_real_server_that_curates() {
    if let Some((url, token, other)) = real("RDMFS_TEST_CURATIONS") {
        expect(&lead(&url, &token, &other), CURATED);
    }
}
