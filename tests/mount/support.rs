//! A repository and a mount for one test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdm_sandbox::{ALICE, Effect, Fault, FaultId, NewRecord, Route, Sandbox};
use rdmfs::mount::device::{How, detach};
use rdmfs::repository::model::RecordId;
use rdmfs::repository::{Repository, Settings, Token};
use rdmfs::status::Status;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// No wait in a test is longer; all of them end much sooner unless something is broken.
pub const LONG: Duration = Duration::from_secs(60);

/// A mount of the real binary. It is unmounted and its processes are ended when this is dropped, also by a panic.
pub struct Mount {
    pub folder: TempDir,
    guardian: Child,
    worker: u32,
}

/// How to mount.
pub struct Plan {
    url: String,
    token: Option<String>,
    arguments: Vec<String>,
    /// Cache and staging of an earlier mount.
    folder: Option<TempDir>,
    /// As another user than the one who runs the tests.
    user: Option<u32>,
    /// What else its processes find in their environment.
    environment: Vec<(String, String)>,
}

/// A mount of this sandbox with the token of alice.
pub fn mount(sandbox: &Sandbox) -> Mount {
    how(&sandbox.url()).token(ALICE).start()
}

/// A mount of this sandbox with the token of alice, whose close() does not wait.
pub fn hasty(sandbox: &Sandbox) -> Mount {
    how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--close-wait", "0s"])
        .start()
}

/// A mount of this sandbox that goes on with what an earlier one left in its folder.
pub fn mount_again(sandbox: &Sandbox, folder: TempDir) -> Mount {
    how(&sandbox.url()).token(ALICE).folder(folder).start()
}

/// A mount of a new sandbox with an empty draft in it, and the draft's id.
pub fn draft() -> (Sandbox, String, Mount) {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    (sandbox, draft, mount)
}

/// Describes a mount.
pub fn how(url: &str) -> Plan {
    Plan {
        url: url.to_owned(),
        token: None,
        arguments: Vec::new(),
        folder: None,
        user: None,
        environment: Vec::new(),
    }
}

impl Plan {
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    pub fn folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    pub fn user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    #[allow(dead_code, reason = "the tests in tests/crash need it")]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Mounts, and returns when it answers.
    pub fn start(self) -> Mount {
        self.try_start().unwrap_or_else(|(said, folder)| {
            let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            panic!("the mount did not start: {said}\n{log}")
        })
    }

    /// Mounts. If it ends before it answers: what it said, and the folder with cache and staging.
    pub fn try_start(self) -> Result<Mount, (String, TempDir)> {
        let folder = self.folder.unwrap_or_else(|| tempfile::tempdir().unwrap());
        let mountpoint = folder.path().join("mnt");
        fs::create_dir_all(&mountpoint).unwrap();
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_rdmfs"));
        if let Some(user) = self.user {
            // The folders above the binary may be closed to others.
            let open = folder.path().join("rdmfs");
            fs::copy(&binary, &open).unwrap();
            binary = open;
            for path in [folder.path(), &mountpoint] {
                std::os::unix::fs::chown(path, Some(user), Some(user)).unwrap();
            }
            fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new(binary);
        command
            .args(["mount", "--foreground", "-v"])
            .arg("--cache-dir")
            .arg(folder.path().join("cache"))
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .args(&self.arguments)
            .arg(&self.url)
            .arg(&mountpoint)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log")).unwrap());
        if let Some(token) = &self.token {
            command.env("INVENIORDM_TOKEN", token);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let mut guardian = command.spawn().unwrap();
        let mut said = String::new();
        let stdout = guardian.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        let mut mount = Mount {
            folder,
            guardian,
            worker: 0,
        };
        if !said.contains("mounted") {
            mount.guardian.wait().unwrap();
            return Err((said, mount.take_folder()));
        }
        if self.user.is_none() {
            match mount.status_if_alive() {
                Ok(status) => mount.worker = status.pid,
                Err(error) => {
                    mount.guardian.wait().unwrap();
                    return Err((error.to_string(), mount.take_folder()));
                }
            }
        }
        Ok(mount)
    }
}

impl Mount {
    /// A path in the mount.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join("mnt").join(below)
    }

    /// A folder beside the mount, on the local disk.
    pub fn local(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }

    /// What the mount says about itself.
    pub fn status(&self) -> Status {
        self.status_if_alive().unwrap()
    }

    /// What the mount says about itself, or why it can't.
    pub fn status_if_alive(&self) -> std::io::Result<Status> {
        let text = fs::read(self.path(".rdmfs/status.json"))?;
        Ok(serde_json::from_slice(&text).unwrap())
    }

    /// Waits until the status is as wanted.
    pub fn wait_for(&self, what: &str, mut wanted: impl FnMut(&Status) -> bool) -> Status {
        let deadline = Instant::now() + LONG;
        loop {
            let status = self.status();
            if wanted(&status) {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain: {what}; {status:#?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.local("log")).unwrap_or_default()
    }

    /// The worker's process id.
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// Unmounts as a user would, and returns the folder with cache and staging.
    pub fn unmount(mut self, arguments: &[&str]) -> TempDir {
        let status = Command::new(env!("CARGO_BIN_EXE_rdmfs"))
            .arg("unmount")
            .args(arguments)
            .arg(self.path(""))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "unmount failed\n{}", self.log());
        self.guardian.wait().unwrap();
        self.worker = 0;
        self.take_folder()
    }

    fn take_folder(&mut self) -> TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of the mount:\n{}", self.log());
        }
        if matches!(self.guardian.try_wait(), Ok(Some(_))) {
            return;
        }
        // At once: a test that has failed must not wait for what it left behind.
        let _ = detach(&self.path(""), How::Lazily);
        if let Some(worker) = i32::try_from(self.worker).ok().and_then(Pid::from_raw) {
            let _ = kill_process(worker, Signal::KILL);
        } else {
            let _ = kill_process(Pid::from_child(&self.guardian), Signal::TERM);
        }
        let _ = self.guardian.wait();
    }
}

/// Kills the daemon of a mount, as a crash would.
pub fn kill(mount: &Mount) {
    let worker = Pid::from_raw(i32::try_from(mount.worker()).unwrap()).unwrap();
    kill_process(worker, Signal::KILL).unwrap();
}

/// Waits until a mount that was ended in another way than by `rdmfs unmount` is gone; returns its folder.
pub fn ended(mut mount: Mount) -> TempDir {
    let process = PathBuf::from(format!("/proc/{}", mount.worker()));
    let place = mount.folder.path().display().to_string();
    until("the mount is gone", || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        !mounts.contains(&place) && !process.exists()
    });
    mount.take_folder()
}

/// Nothing arrives until this fault is removed.
pub fn out_of_order(sandbox: &Sandbox) -> FaultId {
    sandbox.fault(Fault::on(Route::StartFiles).then(Effect::ServerError(503)))
}

/// The bytes that the server has committed under a key.
pub fn stored(sandbox: &Sandbox, draft: &str, key: &str) -> Option<Vec<u8>> {
    sandbox
        .draft_file(draft, key)
        .filter(|file| file.status == "completed")
        .map(|file| file.bytes())
}

/// The keys of a draft on the server, sorted.
pub fn keys(sandbox: &Sandbox, draft: &str) -> Vec<String> {
    let mut keys = sandbox.draft_keys(draft);
    keys.sort();
    keys
}

/// How often content was sent for this key.
pub fn sent(sandbox: &Sandbox, key: &str) -> usize {
    let end = format!("/files/{}/content", key.replace('/', "%2F"));
    let requests = sandbox.requests();
    requests
        .iter()
        .filter(|request| request.method == "PUT" && request.path.ends_with(&end))
        .count()
}

/// Waits until nothing is left to be sent.
pub fn settled(mount: &Mount) {
    mount.wait_for("all is sent", |status| status.uploads.is_empty());
}

/// The repository as another program of alice's sees it.
pub fn elsewhere(sandbox: &Sandbox) -> Repository {
    Repository::connect(Settings {
        url: sandbox.url(),
        token: Some(Token::new(ALICE).unwrap()),
        ..Settings::default()
    })
    .unwrap()
}

/// A draft's document as the server has it.
pub fn on_server(sandbox: &Sandbox, draft: &str) -> Value {
    let record = elsewhere(sandbox).draft(&RecordId::new(draft).unwrap()).unwrap();
    Value::Object(record.document().clone())
}

/// Runs a command line in a shell and returns what it printed; panics if it fails.
pub fn shell(line: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The errno of a failed call.
#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// Closes a file and returns the errno of close(2), which `File` hides.
pub fn close(file: File) -> i32 {
    use std::os::fd::IntoRawFd;
    let descriptor = file.into_raw_fd();
    // SAFETY: the descriptor was just taken out of the file that owned it, and is used by nobody else.
    let result = unsafe { libc::close(descriptor) };
    if result == 0 {
        return 0;
    }
    errno::<()>(Err(std::io::Error::last_os_error()))
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut wanted: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !wanted() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bytes that are different everywhere.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
