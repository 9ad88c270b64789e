//! The exercisers as programs: where they are, and running one with a limit of time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Far more than any run takes; a run that hangs must not hang the tests.
const LIMIT: Duration = Duration::from_secs(180);

/// Where `name` was installed: in the folder that `RDMFS_TEST_EXERCISERS` names, or in `exercisers/bin` of the target
/// directory that this test is in.
pub fn find(name: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("RDMFS_TEST_EXERCISERS") {
        let program = Path::new(&folder).join(name);
        assert!(program.is_file(), "RDMFS_TEST_EXERCISERS has no {name} in it");
        return Some(program);
    }
    let found = std::env::current_exe()
        .unwrap()
        .ancestors()
        .map(|folder| folder.join("exercisers/bin").join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        eprintln!("NOT RUN: {name} is not installed; scripts/test installs it, if it can");
    }
    found
}

/// How a program ended, and all that it printed.
pub struct Run {
    pub status: ExitStatus,
    pub said: String,
}

/// Runs a program; what it prints goes by way of the file `log`. Panics if it takes too long: then the mount is dropped,
/// which ends what the program waits for.
pub fn run(command: &mut Command, log: &Path) -> Run {
    let file = File::create(log).unwrap();
    let mut child = command
        .env("NO_COLOR", "1")
        .env("RUST_BACKTRACE", "0")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let said = fs::read_to_string(log).unwrap_or_default();
            panic!("{command:?} still runs after {LIMIT:?}\n{said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    Run { status, said }
}
