//! Records in other forms.

use rdmfs::error::Kind;
use rdmfs::repository::model::{Owner, RecordId};
use rdmfs::repository::{EXPORTS, ExportFormat};

use crate::server::Server;

fn each_form_that_is_offered_can_be_had(server: &Server) {
    let id = server.record("In many forms", &[("a.txt", b"hello\n")]);
    let offered = server.guest.exports_offered(&id).unwrap();
    assert!(offered.len() > 5, "{offered:?}");
    let owner = Owner::Record(id);
    for format in EXPORTS {
        match server.guest.export(&owner, *format) {
            Ok(export) => {
                assert!(offered.contains(format), "{} is had but not offered", format.name);
                assert!(!export.bytes.is_empty() && !export.media_type.is_empty());
                let text = String::from_utf8(export.bytes.to_vec()).unwrap();
                if format.name != "geo.json" && format.name != "linkset.json" {
                    assert!(text.contains("In many forms"), "{}: {text}", format.name);
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::NotSupported, "{error}");
                assert!(
                    !offered.contains(format),
                    "{} is offered and can't be had",
                    format.name
                );
            }
        }
    }
}

fn the_forms_that_every_server_has(server: &Server) {
    let id = server.record("Common forms", &[("a.txt", b"hello\n")]);
    let offered = server.guest.exports_offered(&id).unwrap();
    for name in [
        "citation.bib",
        "citation.txt",
        "csl.json",
        "datacite.json",
        "datacite.xml",
        "dublincore.xml",
        "schemaorg.jsonld",
        "marc.xml",
        "dcat.xml",
        "geo.json",
    ] {
        assert!(offered.iter().any(|format| format.name == name), "{name}");
    }
    let bibtex = server
        .guest
        .export(&Owner::Record(id), ExportFormat::named("citation.bib").unwrap())
        .unwrap();
    assert!(bibtex.bytes.starts_with(b"@dataset{"));
    assert!(bibtex.media_type.starts_with("application/x-bibtex"));
}

fn a_form_that_the_server_lacks_is_not_supported(server: &Server) {
    let id = server.record("Few forms", &[("a.txt", b"hello\n")]);
    let format = ExportFormat {
        name: "none",
        media_type: "application/x-nope",
    };
    let error = server.guest.export(&Owner::Record(id), format).unwrap_err();
    assert_eq!(error.kind(), Kind::NotSupported, "{error}");
    assert_eq!(error.errno(), libc_eopnotsupp());
}

fn libc_eopnotsupp() -> i32 {
    95
}

fn an_unknown_record_has_no_forms(server: &Server) {
    let id = RecordId::new("zzzzz-99999").unwrap();
    let format = ExportFormat::named("citation.bib").unwrap();
    let error = server.guest.export(&Owner::Record(id), format).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

fn a_draft_is_cited_by_its_owner_alone(server: &Server) {
    let id = server.draft("A draft in other forms", &[]);
    let format = ExportFormat::named("citation.bib").unwrap();
    let owner = Owner::Draft(id);
    let export = server.owner.export(&owner, format).unwrap();
    assert!(String::from_utf8_lossy(&export.bytes).contains("A draft in other forms"));
    assert_eq!(
        server.guest.export(&owner, format).unwrap_err().kind(),
        Kind::Denied
    );
}

crate::on_both![
    each_form_that_is_offered_can_be_had,
    the_forms_that_every_server_has,
    a_form_that_the_server_lacks_is_not_supported,
    an_unknown_record_has_no_forms,
    a_draft_is_cited_by_its_owner_alone,
];
