//! `scripts/dataset-life`: the whole life of a dataset with shell commands alone.

use std::path::Path;
use std::process::Command;

use rdm_sandbox::{ALICE, BOB, Flavour, Options, Sandbox};

use crate::machine::{Home, Outcome, RDMFS, outcome};

fn lead(sandbox: &Sandbox) -> Outcome {
    let home = Home::new();
    let text = format!(
        "INVENIORDM_URL={}\nINVENIORDM_TOKEN={ALICE}\nINVENIORDM_TOKEN_OTHER={BOB}\n",
        sandbox.url()
    );
    let env_file = home.file("env", &text);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/dataset-life");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300"]).arg(script).arg(env_file);
    home.dress(&mut command);
    command.env("RDMFS_BIN_DIR", Path::new(RDMFS).parent().unwrap());
    outcome(&mut command)
}

#[test]
fn a_dataset_lives_by_shell_commands_alone() {
    let sandbox = Sandbox::start();
    lead(&sandbox).expect(
        0,
        &[
            "metadata.creators: ",
            "the same bytes, by SHA-256",
            "the whole life of",
        ],
    );
}

#[test]
fn a_dataset_lives_by_shell_commands_alone_where_drafts_are_curated() {
    let sandbox = Sandbox::start_with(Options {
        knobs: Flavour::TuWien.knobs(),
        ..Options::default()
    });
    lead(&sandbox).expect(
        0,
        &[
            "has to be curated",
            "takes that back",
            "critiqued",
            "accepted",
            "the whole life of",
        ],
    );
}
