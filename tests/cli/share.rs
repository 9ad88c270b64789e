//! `rdmfs share`, and mounts of what is shared.

use std::fs;

use rdm_sandbox::{ALICE, BOB, NewRecord, Sandbox};

use crate::machine::{Home, outcome, wait_until};
use crate::mounted::mounted_with_token;
use crate::user::User;

/// A link to something, as it is printed.
fn link(user: &User<'_>, id: &str, permission: &str) -> String {
    let outcome = user.run(&["share", "create", id, "--permission", permission]);
    outcome.expect(0, &["not shown again"]);
    outcome.stdout.trim_end().to_owned()
}

fn secret(link: &str) -> &str {
    link.split("token=").nth(1).unwrap().split('&').next().unwrap()
}

/// Mounts what a link leads to, without an account.
fn mount_link(home: &Home, link: &str) -> crate::machine::Outcome {
    let file = home.file("link", &format!("{link}\n"));
    let place = home.mountpoint();
    home.run(["mount", "--share-link-file", &file, place.to_str().unwrap()])
}

#[test]
fn a_link_is_printed_once_and_listed_changed_and_revoked_without_its_secret() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let id = sandbox.publish(NewRecord::titled("Snow depths"));
    let alice = User::new(&home, &sandbox, ALICE);
    let made = alice.run(&["share", "create", &id, "--expires", "2099-12-31", "-d", "for Bob"]);
    made.expect(0, &["view, until 2099-12-31, 00:00 UTC"]);
    let address = made.stdout.trim_end();
    assert!(
        address.starts_with(&format!("{}/records/{id}?token=", sandbox.url())),
        "{address}"
    );
    assert!(!made.stderr.contains(secret(address)));

    let listed = alice.run(&["share", "list", &id]);
    listed.expect(0, &["\tview\t2099-12-31\t", "\tfor Bob\n"]);
    let shown = alice.run(&["share", "list", "--json", &id]);
    for said in [&listed, &shown] {
        assert!(!said.stdout.contains(secret(address)), "{said:#?}");
    }
    let number = listed.stdout.split('\t').next().unwrap().to_owned();
    assert_eq!(alice.run(&["share", "list", &id, &number]).stdout, listed.stdout);
    alice
        .run(&["share", "list", &id, "00000000-0000-0000-0000-000000000000"])
        .expect(1, &["404"]);
    alice
        .run(&[
            "share",
            "update",
            &id,
            &number[..8],
            "--permission",
            "preview",
            "--expires",
            "2098-01-01",
        ])
        .expect(0, &["preview, until 2098-01-01, 00:00 UTC"]);
    let later = alice.run(&["share", "update", &id, &number, "--expires", "2099-01-01"]);
    later.expect(1, &["\nexpires_at: "]);

    alice
        .run(&["share", "revoke", &id, &number])
        .expect(2, &["--yes", "nothing was done"]);
    // The link itself is no id of one, and is not repeated.
    let wrong = alice.run(&["share", "revoke", "--yes", &id, address]);
    wrong.expect(1, &["no link to"]);
    assert!(!wrong.stderr.contains(secret(address)), "{wrong:#?}");
    let twice = alice.run(&["share", "revoke", "--yes", &id, &number, &number[..8], &number]);
    twice.expect(0, &["is revoked"]);
    assert_eq!(twice.stdout.lines().count(), 1);
    assert_eq!(alice.run(&["share", "list", &id]).stdout, "");
    alice
        .run(&["share", "revoke", "--yes", &id, &number])
        .expect(1, &["no link to", "rdmfs share list"]);
    User::new(&home, &sandbox, BOB)
        .run(&["share", "list", &id])
        .expect(1, &[]);
    User::guest(&home, &sandbox)
        .run(&["share", "list", &id])
        .expect(1, &["there is no token"]);
}

#[test]
fn a_day_that_is_none_is_wrong_usage_and_a_past_one_is_refused_by_field() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let id = sandbox.publish(NewRecord::titled("Snow depths"));
    let alice = User::new(&home, &sandbox, ALICE);
    alice
        .run(&["share", "create", &id, "--expires", "tomorrow"])
        .expect(2, &["2030-01-31"]);
    alice
        .run(&["share", "create", &id, "--expires", "2020-01-01"])
        .expect(1, &["\nexpires_at: "]);
    let failed = alice.run(&["share", "create", "--json", &id, "--expires", "2020-01-01"]);
    let error: serde_json::Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(error["fields"][0]["field"], "expires_at");
}

#[test]
fn a_path_in_a_mount_is_shared_as_an_id_is() {
    let (home, _sandbox, draft) = mounted_with_token(&[]);
    let path = home.mountpoint().join("drafts").join(&draft);
    let made = home.run([
        "share",
        "create",
        "--permission",
        "preview",
        path.to_str().unwrap(),
    ]);
    made.expect(0, &[&format!("/records/{draft}?token="), "&preview=1"]);
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_record_is_shared_by_its_doi_or_the_address_of_its_page() {
    let (home, sandbox) = (Home::new(), Sandbox::start());
    let alice = User::new(&home, &sandbox, ALICE);
    let id = sandbox.draft(NewRecord::titled("Snow depths").file("a.csv", "x\n"));
    let doi = alice.run(&["reserve-doi", &id]).stdout.trim_end().to_owned();
    alice.run(&["publish", "--yes", &id]).expect(0, &[]);
    let draft = sandbox.draft(NewRecord::titled("New depths"));
    let page = format!("{}/records/{id}", sandbox.url());
    for name in [&doi, &format!("https://doi.org/{doi}"), &page] {
        alice
            .run(&["share", "create", name])
            .expect(0, &[&format!("/records/{id}?token=")]);
    }
    let upload = format!("{}/uploads/{draft}", sandbox.url());
    alice
        .run(&["share", "create", &upload, "-p", "preview"])
        .expect(0, &[&format!("/records/{draft}?token="), "&preview=1"]);
    let elsewhere = alice.run(&["share", "create", "https://other.example/records/1?token=s3cret"]);
    elsewhere.expect(2, &["is no address of", "--repository"]);
    assert!(!elsewhere.stderr.contains("s3cret"), "{elsewhere:#?}");
    alice
        .run(&["share", "create", "10.5072/nothing"])
        .expect(1, &["10.5072/nothing"]);
}

#[test]
fn a_link_that_ends_during_a_mount_is_eacces_and_the_log_says_why() {
    let (owner, home, sandbox) = (Home::new(), Home::new(), Sandbox::start());
    let id = sandbox.publish(
        NewRecord::titled("Secret depths")
            .file("a.csv", "x,y\n1,2\n")
            .file("b.csv", "x,y\n3,4\n")
            .restricted(),
    );
    let alice = User::new(&owner, &sandbox, ALICE);
    let link = link(&alice, &id, "view");
    mount_link(&home, &link).expect(0, &["shared by a link"]);
    let record = home.mountpoint().join("records").join(&id);
    fs::read(record.join("files/a.csv")).unwrap();
    let listed = alice.json(&["share", "list", "--json", &id]);
    let number = listed[0]["id"].as_str().unwrap();
    alice
        .run(&["share", "revoke", "--yes", &id, number])
        .expect(0, &["is revoked"]);
    // Revoking told the mount, as it is one of the same repository.
    let error = fs::read(record.join("files/b.csv")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let error = fs::read(record.join("record.json")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    assert!(home.log().contains("was revoked or has ended"), "{}", home.log());
    assert!(!home.log().contains(secret(&link)));
    home.unmount(&[]).expect(0, &["unmounted"]);
}

#[test]
fn a_restricted_record_opens_in_an_anonymous_mount_of_its_link_and_not_without() {
    let (owner, home, sandbox) = (Home::new(), Home::new(), Sandbox::start());
    let id = sandbox.publish(
        NewRecord::titled("Secret depths")
            .file("a.csv", "x,y\n1,2\n")
            .restricted(),
    );
    let link = link(&User::new(&owner, &sandbox, ALICE), &id, "view");
    let mounted = mount_link(&home, &link);
    let record = home.mountpoint().join("records").join(&id);
    mounted.expect(0, &["shared by a link", record.to_str().unwrap()]);
    assert!(!mounted.stdout.contains(secret(&link)));
    assert_eq!(
        fs::read_to_string(record.join("files/a.csv")).unwrap(),
        "x,y\n1,2\n"
    );
    let listed: Vec<_> = fs::read_dir(home.mountpoint().join("records"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(listed, std::slice::from_ref(&id));
    home.unmount(&[]).expect(0, &[]);
    // What the link showed is not known to those who mount without it.
    home.mount(&[], &sandbox.url()).expect(0, &[]);
    assert!(fs::read_dir(&record).is_err());
    home.unmount(&[]).expect(0, &[]);
}

#[test]
fn a_preview_link_opens_the_draft_and_an_edit_link_takes_files() {
    let (owner, home, sandbox) = (Home::new(), Home::new(), Sandbox::start());
    let draft = sandbox.draft(NewRecord::titled("New depths").file("a.csv", "x,y\n1,2\n"));
    let alice = User::new(&owner, &sandbox, ALICE);
    let folder = home.mountpoint().join("drafts").join(&draft);
    mount_link(&home, &link(&alice, &draft, "preview")).expect(0, &[folder.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(folder.join("a.csv")).unwrap(), "x,y\n1,2\n");
    let drafts = fs::read_dir(home.mountpoint().join("drafts")).unwrap();
    assert_eq!(drafts.count(), 1);
    home.unmount(&[]).expect(0, &[]);

    mount_link(&home, &link(&alice, &draft, "edit")).expect(0, &[]);
    fs::write(folder.join("b.csv"), "x,y\n3,4\n").unwrap();
    wait_until("it has arrived", || sandbox.draft_file(&draft, "b.csv").is_some());
    home.unmount(&[]).expect(0, &["unmounted"]);
}

#[test]
fn what_is_shared_can_be_mounted_beside_a_mount_of_ones_own() {
    let (home, sandbox, draft) = mounted_with_token(&[]);
    let file = home.file("link", &link(&User::new(&home, &sandbox, ALICE), &draft, "edit"));
    let shared = home.path("shared");
    fs::create_dir(&shared).unwrap();
    let shared = shared.to_str().unwrap();
    home.run(["mount", "--share-link-file", &file, shared])
        .expect(0, &["shared by a link"]);
    fs::write(home.path("shared/drafts").join(&draft).join("a.csv"), "x\n").unwrap();
    wait_until("it has arrived", || sandbox.draft_file(&draft, "a.csv").is_some());
    home.run(["unmount", shared]).expect(0, &["unmounted"]);
    home.unmount(&[]).expect(0, &["unmounted"]);
}

#[test]
fn the_secret_of_a_link_is_seen_in_no_process_log_or_status() {
    let (owner, home, sandbox) = (Home::new(), Home::new(), Sandbox::start());
    let draft = sandbox.draft(NewRecord::titled("New depths").file("a.csv", "x,y\n1,2\n"));
    let link = link(&User::new(&owner, &sandbox, ALICE), &draft, "preview");
    let place = home.mountpoint();
    let ways = [
        home.command(["mount", "--share-link", &link, place.to_str().unwrap()]),
        {
            let mut command = home.command(["mount", place.to_str().unwrap()]);
            command.env("INVENIORDM_SHARE_LINK", &link);
            command
        },
        {
            let mut command = home.command(["mount", "--share-link-file", "-", place.to_str().unwrap()]);
            command.stdin(fs::File::open(home.file("link", &link)).unwrap());
            command
        },
    ];
    for (number, mut command) in ways.into_iter().enumerate() {
        let mounted = outcome(&mut command);
        mounted.expect(0, &["shared by a link"]);
        let warned = mounted.stderr.contains("others could see it");
        assert_eq!(warned, number == 0, "{mounted:#?}");
        fs::read(place.join("drafts").join(&draft).join("a.csv")).unwrap();
        // The link is not good for this. Why names the request, and who closes a file may not look.
        let _ = fs::write(place.join("drafts").join(&draft).join("b.csv"), "x");
        let uploads = || home.run(["uploads", "--json", place.to_str().unwrap()]).stdout;
        wait_until("it is refused", || uploads().contains("refused"));
        let status = fs::read_to_string(place.join(".rdmfs/status.json")).unwrap();
        let mut places = vec![mounted.stdout, mounted.stderr, status, uploads(), home.log()];
        for pid in [home.process("guard"), home.process("worker")] {
            for file in ["cmdline", "environ"] {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
                places.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        for text in places {
            assert!(!text.contains(secret(&link)), "{text}");
        }
        home.unmount(&["--now"]).expect(0, &[]);
    }
}

#[test]
fn a_link_that_opens_nothing_and_one_that_is_none_are_refused_without_repeating_them() {
    let (owner, home, sandbox) = (Home::new(), Home::new(), Sandbox::start());
    let id = sandbox.publish(NewRecord::titled("Secret depths").restricted());
    let alice = User::new(&owner, &sandbox, ALICE);
    let link = link(&alice, &id, "view");
    alice
        .run(&["share", "revoke", "--yes", "--all", &id])
        .expect(0, &["is revoked"]);
    let refused = mount_link(&home, &link);
    refused.expect(1, &["the link opens nothing", "revoked, expired"]);
    assert!(!refused.stderr.contains(secret(&link)));
    let none = mount_link(&home, "https://example.org/records/abcde-12345?other=s3cret");
    none.expect(2, &["holds no token"]);
    assert!(!none.stderr.contains("s3cret"));
    let elsewhere = home.run([
        "mount",
        "--share-link",
        &link,
        "https://zenodo.org",
        home.mountpoint().to_str().unwrap(),
    ]);
    elsewhere.expect(2, &["the link leads to", "leave the address out"]);
}
