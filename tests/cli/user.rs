//! Somebody at a terminal-less shell, with a token for one repository.

use std::io::Write;
use std::process::Stdio;

use rdm_sandbox::Sandbox;
use serde_json::Value;

use crate::machine::{Home, Outcome, outcome};

/// A user of a repository. Commands know its address and the token by the environment.
pub struct User<'a> {
    pub home: &'a Home,
    url: String,
    token: Option<&'static str>,
}

impl<'a> User<'a> {
    pub fn new(home: &'a Home, sandbox: &Sandbox, token: &'static str) -> Self {
        User {
            home,
            url: sandbox.url(),
            token: Some(token),
        }
    }

    /// One without an account.
    pub fn guest(home: &'a Home, sandbox: &Sandbox) -> Self {
        User {
            home,
            url: sandbox.url(),
            token: None,
        }
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.home.command(arguments);
        command.env("INVENIORDM_URL", &self.url);
        if let Some(token) = self.token {
            command.env("INVENIORDM_TOKEN", token);
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(&mut self.command(arguments))
    }

    /// Runs a command that reads this.
    pub fn feed(&self, arguments: &[&str], text: &str) -> Outcome {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What a command that succeeds prints, as JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let outcome = self.run(arguments);
        outcome.expect(0, &[]);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{outcome:#?}"))
    }
}

/// The lines of what was said on stderr.
pub fn complaints(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().collect()
}
