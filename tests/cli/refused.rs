//! What can't work is refused before anything is started, with a sentence that says what to do.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use rdm_sandbox::{ALICE, Sandbox};

use crate::machine::{Home, RDMFS, elsewhere, outcome, set_mode};

/// A web server that is no repository: it answers everything with a page.
fn some_website() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let page = "<html><body>Welcome</body></html>";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                page.len()
            );
        }
    });
    format!("127.0.0.1:{port}")
}

#[test]
fn an_address_that_is_no_web_address_is_wrong_usage() {
    let home = Home::new();
    for wrong in ["zenodo.org", "ftp://zenodo.org", "https://", "/etc"] {
        home.mount(&[], wrong)
            .expect(2, &["no web address", "https://zenodo.org"]);
    }
    let swapped = home.run(["mount", home.mountpoint().to_str().unwrap(), "https://zenodo.org"]);
    swapped.expect(2, &["the address comes first"]);
    home.run(["mount", "https://zenodo.org"])
        .expect(2, &["the mount point is missing"]);
}

#[test]
fn a_password_in_the_address_is_refused_and_not_repeated() {
    let outcome = Home::new().mount(&[], "https://me:hunter2@zenodo.org");
    outcome.expect(2, &["token file"]);
    assert!(!outcome.stderr.contains("hunter2"), "{outcome:?}");
}

#[test]
fn an_unknown_option_is_wrong_usage() {
    let home = Home::new();
    home.mount(&["-o", "ro,fnord"], "https://zenodo.org")
        .expect(2, &["'fnord'"]);
    home.mount(&["--cache-size", "many"], "https://zenodo.org")
        .expect(2, &["20G"]);
    home.mount(&["--uploads", "0"], "https://zenodo.org")
        .expect(2, &["between 1 and 16"]);
}

#[test]
fn there_is_no_way_to_give_the_token_as_an_argument() {
    Home::new()
        .mount(&["--token", ALICE], "https://zenodo.org")
        .expect(2, &["--token-file"]);
}

#[test]
fn a_mount_point_must_be_a_directory_that_is_there() {
    let home = Home::new();
    let missing = home.path("missing");
    let file = home.file("file", "");
    home.run(["mount", "https://zenodo.org", missing.to_str().unwrap()])
        .expect(1, &["does not exist", "mkdir -p"]);
    home.run(["mount", "https://zenodo.org", &file])
        .expect(1, &["not a directory"]);
}

#[test]
fn nobody_listening_is_said_and_not_mounted() {
    let home = Home::new();
    home.mount(&[], "http://127.0.0.1:1")
        .expect(1, &["127.0.0.1:1", "Check the network"]);
    assert!(!home.is_mounted());
}

#[test]
fn a_website_that_is_no_repository_is_told_apart() {
    let home = Home::new();
    let site = format!("http://{}", some_website());
    home.mount(&[], &site).expect(1, &["no InvenioRDM repository"]);
}

#[test]
fn a_failed_tls_handshake_is_an_error() {
    let home = Home::new();
    home.mount(&[], &format!("https://{}", some_website()))
        .expect(1, &["rdmfs: "]);
    assert!(!home.is_mounted());
}

#[test]
fn a_bad_token_is_an_error_and_no_anonymous_mount() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let token = home.file("token", "wrong-token-4711\n");
    let outcome = home.mount(&["--token-file", &token], &sandbox.url());
    outcome.expect(1, &["does not accept this token", "account settings"]);
    assert!(!outcome.stderr.contains("4711"), "{outcome:?}");
    assert!(!home.is_mounted());
}

#[test]
fn a_token_file_that_holds_no_token_is_wrong_usage() {
    let home = Home::new();
    let file = home.file("token", "Bearer abc\n");
    home.mount(&["--token-file", &file], "https://zenodo.org")
        .expect(2, &["token file"]);
    home.mount(&["--token-file", "/nonexistent/token"], "https://zenodo.org")
        .expect(1, &["/nonexistent/token"]);
}

#[test]
fn a_token_file_that_others_can_read_is_warned_of() {
    let home = Home::new();
    let file = home.file("token", "abc");
    set_mode(file.as_ref(), 0o644);
    home.run(["doctor", "--token-file", &file, "http://127.0.0.1:1"])
        .expect(1, &["warning: others can read", "chmod 600"]);
}

#[test]
fn a_state_directory_that_takes_no_files_is_an_error() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let file = home.file("state", "");
    home.mount(&["--state-dir", &file], &sandbox.url())
        .expect(1, &["can't write to", "--state-dir"]);
}

#[test]
fn what_is_not_mounted_can_be_neither_unmounted_nor_asked() {
    let home = Home::new();
    home.unmount(&[]).expect(1, &["nothing is mounted on"]);
    home.run(["unmount", "/"]).expect(1, &["not rdmfs's"]);
    home.run(["status", home.mountpoint().to_str().unwrap()])
        .expect(1, &["nothing of rdmfs"]);
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_quietly() {
    let home = Home::new();
    for arguments in [vec!["status"], vec!["doctor", "http://127.0.0.1:1"]] {
        let mut child = home
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code().is_some() && !stderr.contains("panicked"),
            "{output:?}"
        );
    }
}

#[test]
fn the_daemons_own_commands_refuse_people() {
    let home = Home::new();
    for role in ["guard", "worker"] {
        let mut command = Command::new(RDMFS);
        home.dress(command.args([role, "/mnt"]));
        outcome(&mut command).expect(if role == "guard" { 2 } else { 1 }, &[]);
    }
}

#[test]
fn a_machine_without_fuse_is_told_what_to_install() {
    let home = Home::new();
    let script = r#"mount -t tmpfs none /dev; exec "$RDMFS" mount https://zenodo.org "$MNT""#;
    if let Some(outcome) = elsewhere(&home, script) {
        outcome.expect(
            1,
            &[
                "no /dev/fuse",
                "apt install fuse3",
                "modprobe fuse",
                "--device /dev/fuse",
            ],
        );
    }
}

#[test]
fn a_fuse_device_closed_to_the_user_is_explained() {
    let home = Home::new();
    let script = r#"
        mount -t tmpfs none /dev; mknod -m 600 /dev/fuse c 10 229
        exec $AS_USER "$RDMFS" mount https://zenodo.org "$MNT""#;
    if let Some(outcome) = elsewhere(&home, script) {
        outcome.expect(1, &["/dev/fuse can't be opened", "chmod 666"]);
    }
}

#[test]
fn a_user_without_fusermount3_is_told_what_to_install() {
    let home = Home::new();
    let script = r#"
        for helper in fusermount3 fusermount; do
            for folder in /usr/bin /bin /sbin /usr/sbin /usr/local/bin; do
                if [ -f $folder/$helper ]; then mount --bind /dev/zero $folder/$helper; fi
            done
        done
        mount -t tmpfs none /dev; mknod -m 666 /dev/fuse c 10 229
        exec $AS_USER "$RDMFS" mount https://zenodo.org "$MNT""#;
    if let Some(outcome) = elsewhere(&home, script) {
        outcome.expect(1, &["fusermount3", "apt install fuse3"]);
    }
}

#[test]
fn letting_others_in_needs_roots_permission() {
    let home = Home::new();
    let script = r#"
        : > /tmp/fuse.conf.$$; mount --bind /tmp/fuse.conf.$$ /etc/fuse.conf; rm -f /tmp/fuse.conf.$$ || true
        mount -t tmpfs none /dev; mknod -m 666 /dev/fuse c 10 229
        exec $AS_USER "$RDMFS" mount --allow-other https://zenodo.org "$MNT""#;
    if std::path::Path::new("/etc/fuse.conf").exists()
        && let Some(outcome) = elsewhere(&home, script)
    {
        outcome.expect(1, &["--allow-other", "user_allow_other"]);
    }
}

#[test]
fn a_user_can_not_mount_on_somebody_elses_directory() {
    let home = Home::new();
    let script = r#"
        mount -t tmpfs none /dev; mknod -m 666 /dev/fuse c 10 229
        exec $AS_USER "$RDMFS" mount https://zenodo.org "$MNT""#;
    if let Some(outcome) = elsewhere(&home, script) {
        outcome.expect(1, &["not yours to mount on"]);
    }
}
