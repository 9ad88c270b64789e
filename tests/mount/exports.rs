//! `records/<id>/exports/`.

use std::fs;

use rdm_sandbox::{NewRecord, Route, Sandbox};
use rdmfs::repository::model::{Owner, RecordId};
use rdmfs::repository::{EXPORTS, ExportFormat};

use crate::support::{elsewhere, errno, mount, names, shell};

#[test]
fn each_form_is_fetched_when_it_is_opened_and_has_its_size_then() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let folder = mount.path(format!("records/{id}/exports"));
    let listed = names(&folder);
    let owner = Owner::Record(RecordId::new(&id).unwrap());
    let repository = elsewhere(&sandbox);
    for name in &listed {
        let format = ExportFormat::named(name).unwrap();
        let expected = repository.export(&owner, format).unwrap().bytes;
        assert_eq!(fs::metadata(folder.join(name)).unwrap().len(), 0, "not known yet");
        let file = fs::File::open(folder.join(name)).unwrap();
        assert_eq!(file.metadata().unwrap().len(), expected.len() as u64, "{name}");
        assert_eq!(fs::read(folder.join(name)).unwrap(), expected, "{name}");
        assert_eq!(
            fs::metadata(folder.join(name)).unwrap().len(),
            expected.len() as u64
        );
    }
    let copy = mount.local("copy");
    shell(&format!("cp -r {} {}", folder.display(), copy.display()));
    assert_eq!(names(&copy), listed);
    assert_eq!(
        fs::read(copy.join("citation.bib")).unwrap(),
        fs::read(folder.join("citation.bib")).unwrap()
    );
}

#[test]
fn the_forms_that_the_repository_has_are_listed_and_no_others() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let folder = mount.path(format!("records/{id}/exports"));
    let id = RecordId::new(&id).unwrap();
    let offered = elsewhere(&sandbox).exports_offered(&id).unwrap();
    let mut expected: Vec<&str> = offered.iter().map(|format| format.name).collect();
    expected.sort_unstable();
    assert_eq!(names(&folder), expected);
    for format in EXPORTS.iter().filter(|format| !offered.contains(format)) {
        assert_eq!(errno(fs::metadata(folder.join(format.name))), libc::ENOENT);
    }
    for name in ["citation", ".git", "x.bib"] {
        assert_eq!(errno(fs::metadata(folder.join(name))), libc::ENOENT, "{name}");
    }
}

#[test]
fn looking_into_exports_costs_nothing_and_an_open_one_is_fetched_once() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    names(&mount.path("records"));
    sandbox.reset_counts();
    let folder = mount.path(format!("records/{id}/exports"));
    shell(&format!("ls -lR {} > /dev/null", folder.display()));
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.requests());
    for _ in 0..3 {
        fs::read(folder.join("datacite.json")).unwrap();
    }
    assert_eq!(sandbox.count(Route::Record), 1);
    assert_eq!(sandbox.total(), 1, "{:?}", sandbox.counts());
}
