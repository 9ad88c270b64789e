//! A home of its own for each test, and ways to see what a command and its daemon do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The binary under test.
pub const RDMFS: &str = env!("CARGO_BIN_EXE_rdmfs");

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Checks the exit code and that both streams together say these things.
    #[track_caller]
    pub fn expect(&self, code: i32, said: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let all = format!("{}{}", self.stdout, self.stderr);
        for text in said {
            assert!(all.contains(text), "no \"{text}\" in {self:#?}");
        }
        assert!(!all.contains("panicked"), "{self:#?}");
        self
    }
}

/// A home with a mount point, and nothing of the caller's environment.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// Makes one.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        Home { dir }
    }

    /// A path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The mount point.
    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Writes a file that only the user can read, and returns its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path.to_str().unwrap().to_owned()
    }

    /// The command, ready to run. A command that hangs is ended after a while.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "90", RDMFS]).args(arguments);
        self.dress(&mut command);
        command
    }

    /// Gives a command this home's environment.
    pub fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
    }

    /// Runs it. Returns only when nobody holds its output open any more, the daemon included.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        outcome(&mut self.command(arguments))
    }

    /// Mounts with these flags before the address.
    pub fn mount(&self, flags: &[&str], url: &str) -> Outcome {
        let place = self.mountpoint();
        let mut arguments = vec!["mount"];
        arguments.extend(flags);
        arguments.extend([url, place.to_str().unwrap()]);
        self.run(arguments)
    }

    /// Unmounts with these flags.
    pub fn unmount(&self, flags: &[&str]) -> Outcome {
        let place = self.mountpoint();
        let mut arguments = vec!["unmount"];
        arguments.extend(flags);
        arguments.push(place.to_str().unwrap());
        self.run(arguments)
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        let folder = self.path(".local/state/rdmfs/log");
        let files = folder.read_dir().into_iter().flatten().flatten();
        files
            .map(|file| std::fs::read_to_string(file.path()).unwrap())
            .collect()
    }

    /// The process ids of the daemon's processes of this kind: `guard` or `worker`.
    pub fn processes(&self, role: &str) -> Vec<i32> {
        let place = self.mountpoint();
        let wanted: Vec<u8> = ["rdmfs", role, place.to_str().unwrap()]
            .iter()
            .flat_map(|word| word.bytes().chain([0]))
            .collect();
        Path::new("/proc")
            .read_dir()
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted)
            })
            .collect()
    }

    /// The one process of this kind.
    #[track_caller]
    pub fn process(&self, role: &str) -> i32 {
        let processes = self.processes(role);
        assert_eq!(processes.len(), 1, "processes of kind {role}: {processes:?}");
        processes[0]
    }

    /// Whether anything is mounted.
    pub fn is_mounted(&self) -> bool {
        let place = self.mountpoint();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(4) == place.to_str())
    }
}

impl Drop for Home {
    /// A failed test must not leave a mount or a daemon behind.
    fn drop(&mut self) {
        for role in ["guard", "worker"] {
            for pid in self.processes(role) {
                signal(pid, libc::SIGCONT);
                signal(pid, libc::SIGKILL);
            }
        }
        while self.is_mounted() {
            let done = Command::new("fusermount3")
                .args(["-u", "-z"])
                .arg(self.mountpoint())
                .output();
            if !done.is_ok_and(|output| output.status.success()) {
                return;
            }
        }
    }
}

/// Runs a command to its end.
pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Sends a signal.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes two numbers; the process is one that a test started.
    unsafe { libc::kill(pid, signal) };
}

/// Sets a file's mode.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Waits until something holds, for 30 seconds at most.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a shell script as root on a machine that looks different: in a mount namespace of its own, where it may hide
/// or replace files without anybody noticing. `$RDMFS` is the binary, readable by everyone. `None` if we are not root
/// or may not make namespaces, which is said.
pub fn elsewhere(home: &Home, script: &str) -> Option<Outcome> {
    let possible = Command::new("unshare")
        .args(["--mount", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    if !possible {
        eprintln!("skipped: this test needs root and mount namespaces");
        return None;
    }
    let binary = home.path("rdmfs");
    std::fs::copy(RDMFS, &binary).unwrap();
    set_mode(&binary, 0o755);
    set_mode(home.dir.path(), 0o755);
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=5",
        "90",
        "unshare",
        "--mount",
        "sh",
        "-e",
        "-c",
        script,
    ]);
    home.dress(&mut command);
    command
        .env("RDMFS", &binary)
        .env("MNT", home.mountpoint())
        // An ordinary user with nothing of its own.
        .env("AS_USER", "setpriv --reuid=65534 --regid=65534 --clear-groups");
    Some(outcome(&mut command))
}
