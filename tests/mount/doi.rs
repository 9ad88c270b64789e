//! `doi/`.

use std::fs;
use std::path::Path;

use rdm_sandbox::{Flavour, NewRecord, Options, Sandbox};
use rdmfs::repository::model::RecordId;

use crate::support::{elsewhere, errno, how, mount, names};

fn doi_of(sandbox: &Sandbox, id: &str) -> String {
    let record = elsewhere(sandbox).record(&RecordId::new(id).unwrap()).unwrap();
    record.doi().unwrap().to_owned()
}

#[test]
fn a_doi_is_a_link_to_its_record() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "white"));
    let mount = mount(&sandbox);
    let doi = doi_of(&sandbox, &id);
    let (prefix, suffix) = doi.split_once('/').unwrap();
    assert!(names(&mount.path("doi")).is_empty());
    let link = mount.path("doi").join(&doi);
    assert_eq!(
        fs::read_link(&link).unwrap(),
        Path::new(&format!("../../records/{id}"))
    );
    assert_eq!(fs::read_to_string(link.join("files/a")).unwrap(), "white");
    assert_eq!(names(&mount.path("doi")), [prefix]);
    assert_eq!(names(&mount.path("doi").join(prefix)), [suffix]);
}

#[test]
fn what_is_no_doi_is_enoent_and_what_cannot_be_one_asks_nobody() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    assert_eq!(
        errno(fs::metadata(mount.path("doi/10.5072/nothing"))),
        libc::ENOENT
    );
    assert!(fs::metadata(mount.path("doi/10.5072")).unwrap().is_dir());
    sandbox.reset_counts();
    for path in [
        "doi/11.5072",
        "doi/HEAD",
        "doi/.git",
        "doi/10.",
        "doi/10.5072/.git",
        "doi/10.5072/a%2fb",
    ] {
        assert_eq!(errno(fs::metadata(mount.path(path))), libc::ENOENT, "{path}");
    }
    assert!(names(&mount.path("doi")).is_empty());
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.requests());
}

#[test]
fn a_slash_in_a_suffix_makes_a_folder() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(
        NewRecord::titled("Snow")
            .metadata("publisher", "TU".into())
            .file("a", "white"),
    );
    let repository = elsewhere(&sandbox);
    let id = RecordId::new(&draft).unwrap();
    let mut document = serde_json::Value::Object(repository.draft(&id).unwrap().document().clone());
    document["pids"] = serde_json::json!({"doi": {"identifier": "10.48436/a/b.c/d", "provider": "external"}});
    repository.update_draft(&id, &document, None).unwrap();
    repository.publish(&id).unwrap();
    let mount = mount(&sandbox);
    let folder = mount.path("doi/10.48436/a");
    assert!(fs::symlink_metadata(&folder).unwrap().is_dir());
    let link = folder.join("b.c/d");
    assert_eq!(
        fs::read_link(&link).unwrap(),
        Path::new(&format!("../../../../records/{id}"))
    );
    assert_eq!(fs::read_to_string(link.join("files/a")).unwrap(), "white");
    assert_eq!(names(&folder), ["b.c"]);
    assert_eq!(names(&folder.join("b.c")), ["d"]);
    assert_eq!(
        fs::read_link(mount.path("doi/10.48436/a%2Fb.c%2Fd")).unwrap(),
        Path::new(&format!("../../records/{id}"))
    );
    assert_eq!(errno(fs::metadata(folder.join("x"))), libc::ENOENT);
}

#[test]
fn a_doi_of_zenodos_costs_nothing() {
    let sandbox = Sandbox::start_with(Options {
        knobs: Flavour::Zenodo.knobs(),
        ..Options::default()
    });
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let guest = how(&sandbox.url()).start();
    names(&guest.path("records"));
    sandbox.reset_counts();
    assert_eq!(
        fs::read_link(guest.path(format!("doi/10.5281/zenodo.{id}"))).unwrap(),
        Path::new(&format!("../../records/{id}"))
    );
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.requests());
}
