//! pjdfstest: hundreds of small cases about what calls do, in a folder of a draft.
//!
//! All of them run. Those that can't pass are listed with their reasons in `excluded.txt`; all others must pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rdm_sandbox::{ALICE, NewRecord, Sandbox};

use crate::programs::{find, run};
use crate::support::{Mount, how, shell};

/// Cases that pass when root runs them, and others may come in: all that are not excluded.
const PASSED_AS_ROOT: usize = 135;
/// Cases that pass when an ordinary user runs them on a mount of their own; many others need root.
const PASSED_AS_USER: usize = 113;

/// `nobody` on every Debian.
const NOBODY: u32 = 65534;

/// A line of `excluded.txt`: the pattern, and why its cases can't pass.
struct Excluded {
    pattern: String,
    reason: String,
}

fn excluded() -> Vec<Excluded> {
    let lines = include_str!("excluded.txt").lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("=="))
        .map(|line| {
            let (pattern, reason) = line
                .split_once('#')
                .unwrap_or_else(|| panic!("excluded.txt: no reason: {line}"));
            Excluded {
                pattern: pattern.trim().to_owned(),
                reason: reason.trim().to_owned(),
            }
        })
        .collect()
}

/// Whether `name` is what `pattern` says; a `*` in it stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices()
                .map(|(at, _)| &name[at..])
                .chain([""])
                .any(|end| matches(rest, end))
        }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// How a case ended, and what pjdfstest said about it.
struct Case {
    outcome: Outcome,
    said: String,
}

/// The cases in pjdfstest's output, which is a line for each, then indented ones about it.
fn cases(said: &str) -> BTreeMap<String, Case> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    let mut last = String::new();
    for line in said.lines() {
        let outcome = match line.split_once(' ').map(|(name, rest)| (name, rest.trim())) {
            Some((_, "ok")) => Some(Outcome::Passed),
            Some((_, "FAILED")) => Some(Outcome::Failed),
            Some((_, "skipped")) => Some(Outcome::Skipped),
            _ => None,
        };
        if let Some(outcome) = outcome.filter(|_| line.contains("::")) {
            line.split(' ').next().unwrap_or_default().clone_into(&mut last);
            let said = String::new();
            let before = cases.insert(last.clone(), Case { outcome, said });
            assert!(before.is_none(), "{last} ran twice");
        } else if line.starts_with('\t')
            && let Some(case) = cases.get_mut(&last)
        {
            case.said += line.trim();
            case.said.push(' ');
        }
    }
    let count = |outcome| cases.values().filter(|case| case.outcome == outcome).count();
    let summary = format!(
        "{} failed, {} skipped, {} passed, 0 expected failures, {} total",
        count(Outcome::Failed),
        count(Outcome::Skipped),
        count(Outcome::Passed),
        cases.len()
    );
    assert!(said.contains(&summary), "not as read here, {summary}:\n{said}");
    cases
}

/// Compares how the cases ended with the list of those that can't pass.
fn judge(said: &str, excluded: &[Excluded], wanted: usize) {
    let cases = cases(said);
    let mut complaints = String::new();
    let mut used = vec![false; excluded.len()];
    let mut passed = 0;
    for (name, case) in &cases {
        let mut fitting = excluded
            .iter()
            .enumerate()
            .filter(|(_, line)| matches(&line.pattern, name));
        let line = fitting.next().map(|(index, line)| {
            used[index] = true;
            line
        });
        for (index, _) in fitting {
            used[index] = true;
        }
        passed += usize::from(case.outcome == Outcome::Passed);
        // Not for want of a fault of ours, but of rights of the user who runs it.
        let needs_root = case.said.contains("requires root") || case.said.contains("CAP_SYS_ADMIN");
        let complaint = match (case.outcome, line) {
            (Outcome::Passed, Some(line)) => {
                format!("passes, but {:?} is excluded: {}", line.pattern, line.reason)
            }
            (Outcome::Failed, None) => format!("fails: {}", case.said),
            (Outcome::Skipped, None) if !needs_root => format!("is skipped: {}", case.said),
            _ => continue,
        };
        let _ = writeln!(complaints, "{name} {complaint}");
    }
    for (line, used) in excluded.iter().zip(used) {
        if !used {
            let _ = writeln!(complaints, "no case is called {}", line.pattern);
        }
    }
    let summary = said
        .lines()
        .find(|line| line.starts_with("Summary"))
        .unwrap_or_default();
    println!("pjdfstest {summary}");
    assert!(complaints.is_empty(), "{summary}\n{complaints}");
    assert_eq!(passed, wanted, "cases passed");
}

/// What pjdfstest is to assume of the file system.
fn configuration() -> String {
    let group = |user: &str| shell(&format!("id -gn {user}")).trim().to_owned();
    format!(
        "[features]
posix_fallocate = {{}}
rename_ctime = {{}}
utime_now = {{}}
utimensat = {{}}
[settings]
naptime = 0.01
[dummy_auth]
entries = [[\"nobody\", \"{}\"], [\"daemon\", \"{}\"]]
",
        group("nobody"),
        group("daemon")
    )
}

/// Puts beside the mount what pjdfstest needs, where every user can read it: the program itself, its configuration,
/// and a folder on another file system.
fn lay_out(program: &Path, mount: &Mount) {
    fs::set_permissions(mount.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    fs::copy(program, mount.local("pjdfstest")).unwrap();
    fs::write(mount.local("pjdfstest.toml"), configuration()).unwrap();
    fs::create_dir(mount.local("elsewhere")).unwrap();
}

/// pjdfstest as laid out beside a mount, in the folder of that name there.
fn command_line(mount: &Mount, folder: &Path) -> String {
    format!(
        "{} --configuration-file {} --secondary-fs {} --path {}",
        mount.local("pjdfstest").display(),
        mount.local("pjdfstest.toml").display(),
        mount.local("elsewhere").display(),
        folder.display()
    )
}

#[test]
fn a_draft_is_posix_for_root_and_all_others() {
    let Some(program) = find("pjdfstest") else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: only root can try what other users may do");
        return;
    }
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--allow-other"])
        .start();
    lay_out(&program, &mount);
    let folder = mount.path(format!("drafts/{draft}/posix"));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    // Drafts are closed to all others, so they come to the folder by a way around: a bind mount, which ends with the
    // shell's mount namespace.
    let around = mount.local("around");
    fs::create_dir(&around).unwrap();
    let run = run(
        Command::new("unshare").args(["--mount", "sh", "-c"]).arg(format!(
            "mount --bind {} {} && exec {}",
            folder.display(),
            around.display(),
            command_line(&mount, &around)
        )),
        &mount.local("pjdfstest.log"),
    );
    judge(&run.said, &excluded(), PASSED_AS_ROOT);
}

#[test]
fn a_draft_is_posix_for_the_user_who_mounts_it() {
    let Some(program) = find("pjdfstest") else {
        return;
    };
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let plan = how(&sandbox.url()).token(ALICE);
    let is_root = rustix::process::geteuid().is_root();
    let mount = if is_root { plan.user(NOBODY) } else { plan }.start();
    lay_out(&program, &mount);
    let folder = mount.path(format!("drafts/{draft}/posix"));
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "mkdir {} && exec {}",
        folder.display(),
        command_line(&mount, &folder)
    ));
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let run = run(&mut command, &mount.local("pjdfstest.log"));
    judge(&run.said, &excluded(), PASSED_AS_USER);
}

#[test]
fn an_exclusion_covers_what_its_pattern_says_and_no_more() {
    assert!(matches("*::fifo", "rename::preserve_metadata::fifo"));
    assert!(!matches("*::fifo", "open::fifo_nonblock_wronly"));
    assert!(matches("open::*_2*", "open::interact_2gb"));
    assert!(!matches("open::etxtbsy", "open::etxtbsy2"));
    let said = "a::b     ok\nc::d   FAILED\n\tbecause\nSummary: 1 failed, 0 skipped, 1 passed, 0 expected failures, 2 total";
    let read = cases(said);
    assert_eq!(read["a::b"].outcome, Outcome::Passed);
    assert_eq!(
        (read["c::d"].outcome, read["c::d"].said.trim()),
        (Outcome::Failed, "because")
    );
}
