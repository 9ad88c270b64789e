//! Records in other forms: for reference managers, catalogues and harvesters. Chosen by the `Accept` header.
//!
//! Called by `catalog/` and `cli/`. Which forms a server has, it tells in the refusal of one that nobody has.

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use super::Repository;
use super::model::{Owner, RecordId, text_of};
use super::transport::Ask;
use crate::error::Result;

/// A form that records can be had in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExportFormat {
    /// A file name for it.
    pub name: &'static str,
    /// What it is asked for by.
    pub media_type: &'static str,
}

const fn format(name: &'static str, media_type: &'static str) -> ExportFormat {
    ExportFormat { name, media_type }
}

/// All forms that some InvenioRDM offers (reference, section 1), but those for programs of its own, and but the data package:
/// servers name it and can't be asked for it, because its type has a parameter, which they drop before they compare.
pub const EXPORTS: &[ExportFormat] = &[
    format("citation.bib", "application/x-bibtex"),
    format("citation.txt", "text/x-bibliography"),
    format("csl.json", "application/vnd.citationstyles.csl+json"),
    format("datacite.json", "application/vnd.datacite.datacite+json"),
    format("datacite.xml", "application/vnd.datacite.datacite+xml"),
    format("dcat.xml", "application/dcat+xml"),
    format("dublincore.xml", "application/x-dc+xml"),
    format("full.csv", "application/vnd.inveniordm.v1.full+csv"),
    format("geo.json", "application/vnd.geo+json"),
    format("linkset.json", "application/linkset+json"),
    format("marc.xml", "application/marcxml+xml"),
    format("schemaorg.jsonld", "application/ld+json"),
    format("summary.csv", "application/vnd.inveniordm.v1.simple+csv"),
];

/// A record in another form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// As the server says it.
    pub media_type: String,
    /// The whole of it.
    pub bytes: Bytes,
}

/// No server has this form.
const NOBODY_HAS: &str = "application/vnd.rdmfs.none";

/// The forms that the server has said to have.
pub(super) type Offered = Mutex<Option<Vec<ExportFormat>>>;

impl ExportFormat {
    /// The form with this file name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        EXPORTS.iter().find(|format| format.name == name).copied()
    }
}

impl Repository {
    /// A record or draft in another form.
    ///
    /// # Errors
    /// `NotSupported` if the server does not have this form, else as [`Repository::record`].
    pub fn export(&self, owner: &Owner, format: ExportFormat) -> Result<Export> {
        let id = owner.id();
        let doing = format!("read {} of {id}", format.name);
        let url = match owner {
            Owner::Record(id) => self.transport.base.api(&format!("records/{id}"))?,
            Owner::Draft(id) => self.draft_url(id, "")?,
        };
        let answer = self.ask(
            Ask::get(url, doing.as_str())
                .accept(format.media_type)
                .for_bytes(),
        )?;
        if super::answer::is_html(&answer.headers) {
            return Err(super::answer::not_json(&doing, &answer.headers));
        }
        let media_type = answer
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or(format.media_type);
        Ok(Export {
            media_type: media_type.to_owned(),
            bytes: answer.body,
        })
    }

    /// The forms that this server has. It is asked once, with any record; a server that doesn't tell is taken to have all.
    ///
    /// # Errors
    /// As [`Repository::record`].
    pub fn exports_offered(&self, id: &RecordId) -> Result<Vec<ExportFormat>> {
        if let Some(known) = self.exports_offered.lock().clone() {
            return Ok(known);
        }
        let url = self.transport.base.api(&format!("records/{id}"))?;
        let doing = format!("ask which forms record {id} is to be had in");
        let mut ask = Ask::get(url, doing.as_str()).accept(NOBODY_HAS).for_bytes();
        ask.any_status = true;
        let answer = self.ask(ask)?;
        let offered = match answer.status {
            406 => {
                let refusal: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                // The whole of it: an error would cut it.
                offered_by(&text_of(&refusal, "message").unwrap_or_default())
            }
            // It takes no notice of what is asked for.
            200..=299 => EXPORTS.to_vec(),
            status => {
                let error = super::answer::refusal(&doing, status, &answer.headers, &answer.body);
                return Err(error);
            }
        };
        *self.exports_offered.lock() = Some(offered.clone());
        Ok(offered)
    }
}

/// `Invalid 'Accept' header. Expected one of: application/json, …`
fn offered_by(refusal: &str) -> Vec<ExportFormat> {
    let Some((_, list)) = refusal.split_once("Expected one of:") else {
        return EXPORTS.to_vec();
    };
    let known: Vec<String> = list.split(',').map(same_form).collect();
    EXPORTS
        .iter()
        .filter(|format| known.contains(&same_form(format.media_type)))
        .copied()
        .collect()
}

/// Parameters may be quoted or not, with blanks or without.
fn same_form(media_type: &str) -> String {
    media_type
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '"')
        .collect::<String>()
        .to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_is_read_from_its_refusal() {
        let offered = offered_by(
            "Invalid 'Accept' header. Expected one of: application/json, application/ld+json, application/x-bibtex, \
             text/x-bibliography",
        );
        let names: Vec<&str> = offered.iter().map(|format| format.name).collect();
        assert_eq!(names, ["citation.bib", "citation.txt", "schemaorg.jsonld"]);
        assert_eq!(offered_by("no").len(), EXPORTS.len());
    }

    #[test]
    fn each_form_has_a_name_and_a_type_of_its_own() {
        for (number, format) in EXPORTS.iter().enumerate() {
            for other in &EXPORTS[number + 1..] {
                assert!(format.name != other.name && format.media_type != other.media_type);
            }
        }
    }
}
