//! What is in ZIP archives, compared with what unzip and Python make of them, and what looking into them costs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rdm_sandbox::{ContentMode, Effect, Fault, NewRecord, Route, Sandbox};

use crate::support::{Mount, errno, mount, names, noise, shell};

/// An archive made by Python, which finds `z` open for writing and `noise(length, seed)`.
pub fn zip(script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let program = format!(
        "import sys, zipfile, random, warnings\n\
         from zipfile import ZipInfo, ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2\n\
         warnings.simplefilter('ignore')\n\
         def noise(length, seed):\n    return random.Random(seed).randbytes(length)\n\
         def text(length, seed):\n    return noise(length // 2 + 1, seed).hex().encode()[:length]\n\
         with zipfile.ZipFile(sys.argv[1], 'w', ZIP_DEFLATED) as z:\n{}\n",
        script
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect::<String>()
    );
    let status = Command::new("python3")
        .args(["-c", &program])
        .arg(&path)
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(path).unwrap()
}

/// A record with this archive as `a.zip`, mounted.
fn mounted(archive: &[u8]) -> (Sandbox, Mount, PathBuf) {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Packed").file("a.zip", archive));
    let mount = mount(&sandbox);
    let path = mount.path(format!("records/{id}/archives/a.zip"));
    (sandbox, mount, path)
}

fn sent(sandbox: &Sandbox) -> u64 {
    sandbox.requests().iter().map(|request| request.sent).sum()
}

#[test]
fn members_are_what_unzip_makes_of_them() {
    let archive = zip("z.writestr('a/b/deflated.txt', text(700_000, 1))\n\
         z.writestr('a/stored.bin', noise(400_000, 2), ZIP_STORED)\n\
         z.writestr('Größe ü.csv', 'x,y\\n1,2\\n')\n\
         z.writestr('empty', '')\n\
         z.writestr(ZipInfo('hollow/', (2020, 2, 3, 4, 5, 6)), '')\n\
         z.writestr(ZipInfo('dated', (2021, 6, 7, 8, 9, 10)), 'at')");
    let (_sandbox, mount, path) = mounted(&archive);
    let (file, out) = (mount.local("a.zip"), mount.local("out"));
    fs::write(&file, &archive).unwrap();
    let (file, out, shown) = (file.display(), out.display(), path.display());
    shell(&format!("unzip -q {file} -d {out} && diff -r {out} {shown}"));
    for member in ["a/b/deflated.txt", "a/stored.bin"] {
        let sum = |from: String| shell(&format!("{from} | sha256sum"));
        assert_eq!(
            sum(format!("unzip -p {file} {member}")),
            sum(format!("cat {shown}/{member}"))
        );
    }
    assert_eq!(
        shell(&format!("cd {out} && find . -type f -printf '%p %s\\n' | sort")),
        shell(&format!("cd {shown} && find . -type f -printf '%p %s\\n' | sort"))
    );
    assert_eq!(
        shell(&format!("grep -rl '1,2' {shown}")),
        format!("{shown}/Größe ü.csv\n")
    );
    let dated = fs::metadata(path.join("dated")).unwrap();
    assert_eq!(
        (dated.mtime(), dated.permissions().mode() & 0o7777),
        (1_623_053_350, 0o444)
    );
    let hollow = fs::metadata(path.join("hollow")).unwrap();
    assert_eq!(
        (hollow.mtime(), hollow.permissions().mode() & 0o7777),
        (1_580_702_706, 0o555)
    );
    assert_eq!(errno(File::create(path.join("new"))), libc::EROFS);
    assert_eq!(errno(File::create(path.join("dated"))), libc::EROFS);
    assert_eq!(errno(fs::remove_file(path.join("dated"))), libc::EROFS);
}

#[test]
fn only_archives_are_listed_and_a_record_without_any_has_no_folder_for_them() {
    let sandbox = Sandbox::start();
    let archive = zip("z.writestr('a', 'b')");
    let record = NewRecord::titled("Some")
        .file("one.zip", archive.clone())
        .file("deep/two.ZIP", archive)
        .file("three.txt", "no archive");
    let some = sandbox.publish(record);
    let none = sandbox.publish(NewRecord::titled("None").file("a.txt", "1"));
    let mount = mount(&sandbox);
    let some = mount.path(format!("records/{some}"));
    assert!(names(&some).contains(&"archives".to_owned()));
    assert_eq!(names(&some.join("archives")), ["deep", "one.zip"]);
    assert_eq!(fs::read(some.join("archives/deep/two.ZIP/a")).unwrap(), b"b");
    assert_eq!(errno(fs::metadata(some.join("archives/three.txt"))), libc::ENOENT);
    let none = mount.path(format!("records/{none}"));
    assert!(!names(&none).contains(&"archives".to_owned()));
    assert_eq!(errno(fs::metadata(none.join("archives"))), libc::ENOENT);
}

#[test]
fn archives_cost_nothing_until_somebody_looks_into_one() {
    let archive = zip("z.writestr('a', noise(3_000_000, 1), ZIP_STORED)");
    let (sandbox, _mount, path) = mounted(&archive);
    let above = path.parent().unwrap();
    fs::metadata(above.join("../record.json")).unwrap();
    sandbox.reset_counts();
    shell(&format!(
        "ls -la {0} {0}/..; stat {1}",
        above.display(),
        path.display()
    ));
    for probe in [".git", ".hidden", "._a"] {
        assert_eq!(errno(fs::metadata(path.join(probe))), libc::ENOENT);
    }
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.counts());
}

#[test]
fn an_archive_of_5000_members_is_listed_with_3_requests_and_2_mb_and_a_member_costs_its_bytes() {
    let archive = zip("for n in range(5000):\n    \
             z.writestr(f'measurements/station-{n % 50:02}/{n:05}.dat', noise(10_000, n), ZIP_STORED)\n\
         z.writestr('large.txt', text(24_000_000, 1))\n\
         z.writestr('stored.bin', noise(12_000_000, 2), ZIP_STORED)\n\
         z.writestr('last', noise(5_000_000, 3))");
    let (sandbox, mount, path) = mounted(&archive);
    sandbox.reset_counts();
    assert_eq!(
        shell(&format!("find {} -type f | wc -l", path.display())),
        "5003\n"
    );
    // The record is one of them.
    assert!(sandbox.total() <= 3, "{:?}", sandbox.counts());
    assert!(sent(&sandbox) <= 2_000_000, "{}", sent(&sandbox));

    let packed = {
        fs::write(mount.local("a.zip"), &archive).unwrap();
        let file = mount.local("a.zip");
        let line = shell(&format!("unzip -v {} large.txt | grep Defl", file.display()));
        line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
    };
    // Blocks are fetched whole: 256 KiB each.
    const BLOCKS: u64 = 2 * (256 << 10);
    for (member, size, packed) in [
        ("measurements/station-17/02517.dat", 10_000, 0),
        ("large.txt", 24_000_000, packed),
        ("stored.bin", 12_000_000, 12_000_000),
    ] {
        let most = packed + BLOCKS;
        sandbox.reset_counts();
        assert_eq!(fs::read(path.join(member)).unwrap().len(), size);
        assert!(sent(&sandbox) <= most, "{member}: {}", sent(&sandbox));
        if size == 10_000 {
            assert_eq!(sandbox.total(), 1, "{:?}", sandbox.requests());
        }
        sandbox.reset_counts();
        assert_eq!(fs::read(path.join(member)).unwrap().len(), size);
        assert_eq!(sandbox.total(), 0, "{member} again");
    }
    // Not all of a member is fetched for its first bytes.
    sandbox.reset_counts();
    let mut first = [0; 1000];
    File::open(path.join("last"))
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    assert!(sent(&sandbox) <= 2_000_000, "{}", sent(&sandbox));
}

#[test]
fn archives_are_read_in_every_way_that_servers_send_files() {
    let archive = zip("z.writestr('first', text(900_000, 1))\n\
         z.writestr('second', noise(3_000_000, 2), ZIP_STORED)\n\
         z.writestr('third', noise(2_000_000, 3))");
    for mode in [
        ContentMode::Ranges,
        ContentMode::Ignored,
        ContentMode::V12,
        ContentMode::Redirect,
    ] {
        let (sandbox, mount, path) = mounted(&archive);
        sandbox.knobs(|knobs| knobs.mode = mode);
        sandbox.reset_counts();
        assert_eq!(names(&path), ["first", "second", "third"]);
        let file = mount.local("a.zip");
        fs::write(&file, &archive).unwrap();
        for member in ["third", "first", "second"] {
            let (file, shown) = (file.display(), path.join(member));
            shell(&format!("unzip -p {file} {member} | cmp - {}", shown.display()));
        }
        let most = archive.len() as u64 + 1_000_000;
        assert!(sent(&sandbox) < most, "{} in mode {mode:?}", sent(&sandbox));
    }
}

#[test]
fn where_the_server_sends_no_parts_it_lists_and_extracts_itself() {
    let archive = zip("z.writestr('d/small.txt', text(900_000, 1))\n\
         z.writestr('ü %2F#?.txt', 'odd')\n\
         z.writestr('large', noise(20_000_000, 2), ZIP_STORED)");
    let (sandbox, mount, path) = mounted(&archive);
    sandbox.knobs(|knobs| knobs.mode = ContentMode::Ignored);
    sandbox.reset_counts();
    assert_eq!(names(&path), ["d", "large", "ü %2F#?.txt"]);
    let compare = |member: &str, file: &str| {
        let shown = path.join(file);
        let archive = mount.local("a.zip");
        shell(&format!(
            "unzip -p {} '{member}' | cmp - '{}'",
            archive.display(),
            shown.display()
        ));
        let size = fs::metadata(&shown).unwrap().len();
        assert_eq!(size, fs::read(&shown).unwrap().len() as u64);
    };
    fs::write(mount.local("a.zip"), &archive).unwrap();
    compare("d/small.txt", "d/small.txt");
    assert_eq!(fs::read_to_string(path.join("ü %2F#?.txt")).unwrap(), "odd");
    // What the host does was found out by asking for the end of the archive; that answer was left.
    assert_eq!(sandbox.count(Route::Content), 1, "{:?}", sandbox.counts());
    assert_eq!(sandbox.count(Route::Container), 1);
    assert_eq!(
        sandbox.count(Route::Member),
        2,
        "each once, however often it is read"
    );
    // Most of the archive is read from the archive, once.
    compare("large", "large");
    compare("d/small.txt", "d/small.txt");
    assert_eq!(sandbox.count(Route::Content), 2, "{:?}", sandbox.counts());
    assert_eq!(sandbox.count(Route::Member), 2);
    let before = fs::metadata(path.join("large")).unwrap();
    crate::control::done(&mount, "refresh");
    assert_eq!(names(&path).len(), 3);
    compare("large", "large");
    assert_eq!(before.len(), fs::metadata(path.join("large")).unwrap().len());
}

#[test]
fn seeks_in_a_deflated_member_find_its_bytes_for_several_readers() {
    let archive = zip("z.writestr('m', text(20_000_000, 1))");
    let (_sandbox, mount, path) = mounted(&archive);
    let expected = {
        fs::write(mount.local("a.zip"), &archive).unwrap();
        shell(&format!("cd {} && unzip -q a.zip", mount.local("").display()));
        fs::read(mount.local("m")).unwrap()
    };
    std::thread::scope(|scope| {
        for reader in 0..3usize {
            let (path, expected) = (path.join("m"), &expected);
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut buffer = [0; 10_000];
                for round in 0..30 {
                    let offset = (reader * 7_777_777 + round * 6_151_515) % (expected.len() - buffer.len());
                    file.read_exact_at(&mut buffer, offset as u64).unwrap();
                    assert!(buffer[..] == expected[offset..][..buffer.len()], "{offset}");
                }
            });
        }
        let path = path.join("m");
        scope.spawn(|| assert!(fs::read(path).unwrap() == expected));
    });
}

#[test]
fn names_that_lead_out_or_collide_stay_in_the_archive() {
    let archive = zip(
        "for name in ['../up', 'a/../../b', '/etc/passwd', 'a//c', './d', '..', 'x\\\\y', 'tab\\there',\n        \
             'n' * 300, 'twice', 'twice', 'both', 'both/in', '.git/config', '\\u202ertl', 'e\\u0301', 'é']:\n    \
             z.writestr(name, 'content of ' + name[:20])",
    );
    let (_sandbox, mount, path) = mounted(&archive);
    // Looked for before anybody looked into the archive: not found then, but now.
    assert!(fs::metadata(path.join(".git")).is_err());
    fs::metadata(path.join("twice")).unwrap();
    assert!(fs::metadata(path.join(".git/config")).is_ok());
    let mut found = BTreeMap::new();
    walk(&path, &path, &mut found);
    let long = found.keys().find(|name| name.starts_with("nnn")).unwrap().clone();
    assert!(long.len() <= 255);
    found.remove(&long);
    let expected = [
        ("%2E%2E/up", "../up"),
        ("a/%2E%2E/%2E%2E/b", "a/../../b"),
        ("%2Fetc%2Fpasswd", "/etc/passwd"),
        ("a%2F%2Fc", "a//c"),
        ("%2E/d", "./d"),
        ("%252E%2E", ".."),
        ("x\\y", "x\\y"),
        ("tab%09here", "tab\there"),
        ("twice", "twice"),
        ("%62oth", "both"),
        ("both/in", "both/in"),
        (".git/config", ".git/config"),
        ("\u{202e}rtl", "\u{202e}rtl"),
        ("e\u{301}", "e\u{301}"),
        ("é", "é"),
    ];
    let expected = expected.map(|(shown, name)| (shown.to_owned(), format!("content of {name}")));
    assert_eq!(found, BTreeMap::from(expected));
    assert!(
        mount.log().contains("\"twice\" is there again"),
        "{}",
        mount.log()
    );
}

/// All files below, with their text, each opened by its name.
fn walk(top: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for name in names(folder) {
        let path = folder.join(&name);
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            walk(top, &path, found);
        } else {
            assert!(kind.is_file());
            let shown = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            found.insert(shown, fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn a_link_in_an_archive_is_a_file_with_its_target() {
    let archive = zip("link = ZipInfo('link')\n\
         link.external_attr = 0o120777 << 16\n\
         z.writestr(link, '/etc/passwd')");
    let (_sandbox, _mount, path) = mounted(&archive);
    assert!(fs::symlink_metadata(path.join("link")).unwrap().is_file());
    assert_eq!(fs::read_to_string(path.join("link")).unwrap(), "/etc/passwd");
}

#[test]
fn members_that_cannot_be_read_are_listed_and_refused_with_a_reason() {
    let mut archive = zip("z.writestr('bzip2', 'text' * 100, ZIP_BZIP2)\n\
         z.writestr('secret', 'text')\n\
         z.writestr('plain', 'text')");
    for signature in [&b"PK\x01\x02"[..], b"PK\x03\x04"] {
        let at = (0..archive.len())
            .filter(|at| archive[*at..].starts_with(signature))
            .nth(1)
            .unwrap();
        archive[at + if signature[2] == 1 { 8 } else { 6 }] |= 1;
    }
    let (_sandbox, mount, path) = mounted(&archive);
    assert_eq!(names(&path), ["bzip2", "plain", "secret"]);
    assert_eq!(fs::metadata(path.join("bzip2")).unwrap().len(), 400);
    assert_eq!(errno(File::open(path.join("bzip2"))), libc::EOPNOTSUPP);
    assert_eq!(errno(File::open(path.join("secret"))), libc::EACCES);
    assert_eq!(fs::read(path.join("plain")).unwrap(), b"text");
    let log = mount.log();
    assert!(
        log.contains("is compressed with bzip2") && log.contains("is encrypted"),
        "{log}"
    );
}

#[test]
fn a_damaged_member_is_eio_and_so_is_what_is_no_archive() {
    let mut archive = zip("z.writestr('stored', noise(3_000_000, 1), ZIP_STORED)\n\
         z.writestr('deflated', text(3_000_000, 2))\n\
         z.writestr('sound', text(300_000, 3))");
    archive[1_500_000] ^= 1;
    archive[3_700_000] ^= 1;
    let (_sandbox, mount, path) = mounted(&archive);
    for member in ["stored", "deflated"] {
        for _ in 0..2 {
            assert_eq!(errno(fs::read(path.join(member))), libc::EIO, "{member}");
        }
    }
    assert_eq!(fs::read(path.join("sound")).unwrap().len(), 300_000);
    assert!(mount.log().contains("its CRC-32 is"), "{}", mount.log());
    drop(mount);

    let (_sandbox, mount, path) = mounted(&noise(2_000_000, 1));
    assert_eq!(errno(fs::read_dir(&path)), libc::EIO);
    assert!(mount.log().contains("no ZIP archive"), "{}", mount.log());
}

#[test]
fn bytes_that_came_wrong_are_eio_once_and_fetched_anew() {
    let archive = zip("z.writestr('a', noise(3_000_000, 1), ZIP_STORED)\n\
         z.writestr('b', text(6_000_000, 2))");
    for (member, offset) in [("a", 2_000_000), ("b", 4_500_000)] {
        let (sandbox, _mount, path) = mounted(&archive);
        assert_eq!(names(&path), ["a", "b"]);
        // While somebody has it open, what is known of its bytes is not forgotten by itself.
        let _archive = File::open(path.join("../../files/a.zip")).unwrap();
        let fault = sandbox.fault(Fault::on(Route::Content).then(Effect::FlipByte { offset }));
        assert_eq!(errno(fs::read(path.join(member))), libc::EIO);
        sandbox.remove_fault(fault);
        let size = fs::metadata(path.join(member)).unwrap().len();
        assert_eq!(fs::read(path.join(member)).unwrap().len() as u64, size);
    }
}

#[test]
fn an_archive_of_more_than_65535_members_is_listed_whole() {
    // Which takes the records of ZIP64.
    let archive = zip("for n in range(66_000):\n    z.writestr(f'{n % 100}/{n}', b'')\n\
         with z.open('wide', 'w', force_zip64=True) as wide:\n    wide.write(b'with its sizes in a ZIP64 field')");
    let (_sandbox, _mount, path) = mounted(&archive);
    assert_eq!(
        shell(&format!("find {} -type f | wc -l", path.display())),
        "66001\n"
    );
    assert_eq!(
        fs::read_to_string(path.join("wide")).unwrap(),
        "with its sizes in a ZIP64 field"
    );
}

/// As large as the ones people publish; takes some minutes and 6 GB of memory.
#[test]
#[ignore = "by hand: cargo test --test mount -- --ignored --nocapture archives::an_archive_of_2_gb"]
fn an_archive_of_2_gb() {
    let archive = zip(
        "for n in range(5000):\n    name = f'stations/{n % 100:02}/measured-{n:05}'\n    \
             if n % 5: z.writestr(name + '.bin', noise(400_000, n), ZIP_STORED)\n    \
             else: z.writestr(name + '.txt', text(800_000, n), compresslevel=1)",
    );
    assert!(archive.len() > 2_000_000_000, "{}", archive.len());
    let (sandbox, mount, path) = mounted(&archive);
    let file = mount.local("a.zip");
    fs::write(&file, &archive).unwrap();
    let size = archive.len();
    drop(archive);
    let report = |what: &str, begun: Instant| {
        let (requests, sent) = (sandbox.total(), sent(&sandbox));
        println!("{what}: {requests} requests, {sent} bytes, {:?}", begun.elapsed());
        sandbox.reset_counts();
        (requests, sent)
    };
    sandbox.reset_counts();
    let begun = Instant::now();
    let listed = shell(&format!("find {} -type f | wc -l", path.display()));
    assert_eq!(listed, "5000\n");
    let (requests, bytes) = report(&format!("find in {size} bytes"), begun);
    assert!(requests <= 3 && bytes <= 2_000_000);
    for member in ["stations/17/measured-02517.bin", "stations/05/measured-00005.txt"] {
        let begun = Instant::now();
        let shown = path.join(member);
        let sum = shell(&format!("sha256sum < {}", shown.display()));
        let (_, bytes) = report(&format!("cat {member}"), begun);
        assert!(bytes <= 800_000 + (512 << 10));
        assert_eq!(
            sum,
            shell(&format!("unzip -p {} {member} | sha256sum", file.display()))
        );
    }
}
