//! Programs that people use, on real mounts.

use std::fs;

use rdm_sandbox::{NewRecord, Sandbox};

use crate::support::{mount, noise, shell};

#[test]
fn cp_tar_rsync_grep_and_dd_read_a_record() {
    let sandbox = Sandbox::start();
    let samples = sandbox.seed_samples();
    let mount = mount(&sandbox);
    let files = |id: &str| mount.path(format!("records/{id}/files")).display().to_string();
    let out = mount.local("out").display().to_string();
    fs::create_dir(&out).unwrap();

    shell(&format!(
        "cp -r {} {out}/copied && diff -r {} {out}/copied",
        files(&samples.nested),
        files(&samples.nested)
    ));
    shell(&format!(
        "rsync -a {}/ {out}/synced && diff -r {} {out}/synced",
        files(&samples.nested),
        files(&samples.nested)
    ));
    let again = shell(&format!("rsync -ai {}/ {out}/synced", files(&samples.nested)));
    assert_eq!(again, "", "the second rsync has nothing to do");
    let listed = shell(&format!("tar tf {}/*.tar", files(&samples.archives)));
    assert!(listed.lines().count() > 1, "{listed}");
    let members = shell(&format!(
        "python3 -c 'import zipfile, glob; print(*zipfile.ZipFile(glob.glob(\"{}/*.zip\")[0]).namelist(), sep=\"\\n\")'",
        files(&samples.archives)
    ));
    assert!(members.lines().count() > 1, "{members}");
    shell(&format!(
        "grep -r . {} > {out}/found && test -s {out}/found",
        files(&samples.nested)
    ));
    shell(&format!(
        "dd if=$(ls {}/*.csv | head -1) of={out}/dd bs=4k status=none && cmp {out}/dd $(ls {}/*.csv | head -1)",
        files(&samples.csv),
        files(&samples.csv)
    ));
    shell(&format!(
        "head -c 8 $(ls {}/*.png | head -1) | od -An -tx1 | grep -q '89 50 4e 47'",
        files(&samples.image)
    ));
}

#[test]
fn a_folder_is_copied_into_a_draft_and_compares_equal() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    let source = mount.local("source");
    fs::create_dir_all(source.join("c/d")).unwrap();
    fs::write(source.join("a.bin"), noise(2_000_000, 1)).unwrap();
    fs::write(source.join("b.csv"), "x,y\n1,2\n").unwrap();
    fs::write(source.join("c/Größe ü.txt"), "unicode").unwrap();
    fs::write(source.join("c/d/e"), noise(300_000, 2)).unwrap();
    let (from, to) = (
        source.display(),
        mount.path(format!("drafts/{draft}")).display().to_string(),
    );
    shell(&format!("cp -r {from}/a.bin {from}/b.csv {from}/c {to}/"));
    let mut keys = sandbox.draft_keys(&draft);
    keys.sort();
    assert_eq!(
        keys,
        ["a.bin", "b.csv", "c/Größe ü.txt", "c/d/e"],
        "all of it, when cp returns"
    );
    for key in keys {
        let file = sandbox.draft_file(&draft, &key).unwrap();
        assert_eq!(file.status, "completed");
        assert!(file.bytes() == fs::read(source.join(&key)).unwrap(), "{key}");
    }
    shell(&format!("diff -r {from} {to} -x record.json"));
}
