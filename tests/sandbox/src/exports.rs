//! Records in other forms, chosen by `Accept`. They hold the main facts, not every field that a
//! real server would write.

use serde_json::{Value, json};

use crate::store::Document;

/// The forms on offer besides JSON.
pub(crate) const KINDS: &[&str] = &[
    "application/x-bibtex",
    "application/vnd.citationstyles.csl+json",
    "application/vnd.datacite.datacite+json",
    "application/vnd.datacite.datacite+xml",
    "application/x-dc+xml",
    "application/ld+json",
    "text/x-bibliography",
    "application/marcxml+xml",
    "application/dcat+xml",
    "application/vnd.geo+json",
    "application/linkset+json",
    "application/vnd.inveniordm.v1.full+csv",
    "application/vnd.inveniordm.v1.simple+csv",
];

/// The type that a form is sent as: a citation is plain text.
pub(crate) fn sent_as(kind: &str) -> &str {
    match kind {
        "text/x-bibliography" => "text/plain",
        kind => kind,
    }
}

/// A record in one of these forms; `None` for any other kind.
pub(crate) fn export(kind: &str, record: &Document) -> Option<String> {
    let facts = Facts::of(record);
    Some(match kind {
        "application/x-bibtex" => facts.bibtex(),
        "application/vnd.citationstyles.csl+json" => facts.csl().to_string(),
        "application/vnd.datacite.datacite+json" => facts.datacite().to_string(),
        "application/vnd.datacite.datacite+xml" => facts.datacite_xml(),
        "application/x-dc+xml" => facts.dublin_core(),
        "application/ld+json" => facts.schema_org().to_string(),
        "text/x-bibliography" => facts.citation(),
        "application/marcxml+xml" => facts.marc(),
        "application/dcat+xml" => facts.dcat(),
        "application/vnd.geo+json" => json!({"features": [], "type": "FeatureCollection"}).to_string(),
        "application/linkset+json" => {
            json!({"linkset": [{"anchor": record.id, "cite-as": [{"href": format!("https://doi.org/{}", facts.doi)}]}]})
                .to_string()
        }
        "application/vnd.inveniordm.v1.full+csv" | "application/vnd.inveniordm.v1.simple+csv" => facts.csv(),
        _ => return None,
    })
}

/// What all the forms are about.
struct Facts {
    id: String,
    doi: String,
    title: String,
    date: String,
    publisher: String,
    /// Display name, family name and given name of each.
    creators: Vec<[String; 3]>,
}

impl Facts {
    fn of(record: &Document) -> Facts {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_string();
        let creators = record.metadata.get("creators").and_then(Value::as_array);
        let creators = creators.into_iter().flatten().map(|creator| {
            let person = &creator["person_or_org"];
            ["name", "family_name", "given_name"].map(|name| text(person.get(name)))
        });
        Facts {
            id: record.id.clone(),
            doi: text(record.pids.get("doi").and_then(|doi| doi.get("identifier"))),
            title: record.title().to_string(),
            date: text(record.metadata.get("publication_date")),
            publisher: text(record.metadata.get("publisher")),
            creators: creators.collect(),
        }
    }

    fn year(&self) -> &str {
        self.date.get(..4).unwrap_or_default()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.creators.iter().map(|[name, ..]| name.as_str())
    }

    fn bibtex(&self) -> String {
        let family = self
            .creators
            .first()
            .map_or("anonymous", |[_, family, _]| family.as_str());
        let authors: Vec<&str> = self.names().collect();
        format!(
            "@dataset{{{}_{}_{},\n  author       = {{{}}},\n  title        = {{{}}},\n  year         = {},\n  \
             publisher    = {{{}}},\n  doi          = {{{}}},\n}}",
            family.to_lowercase(),
            self.year(),
            self.id,
            authors.join(" and\n                  "),
            self.title,
            self.year(),
            self.publisher,
            self.doi,
        )
    }

    fn csl(&self) -> Value {
        let parts: Vec<&str> = self.date.split('-').collect();
        let authors = self
            .creators
            .iter()
            .map(|[name, family, given]| match family.as_str() {
                "" => json!({"literal": name}),
                _ => json!({"family": family, "given": given}),
            });
        json!({"id": self.id, "type": "dataset", "title": self.title, "publisher": self.publisher, "DOI": self.doi,
               "issued": {"date-parts": [parts]}, "author": authors.collect::<Vec<_>>()})
    }

    fn datacite(&self) -> Value {
        let creators: Vec<Value> = self.names().map(|name| json!({"name": name})).collect();
        json!({
            "titles": [{"title": self.title}], "creators": creators, "publisher": {"name": self.publisher},
            "publicationYear": self.year(), "dates": [{"date": self.date, "dateType": "Issued"}],
            "identifiers": [{"identifier": self.doi, "identifierType": "DOI"}],
            "types": {"resourceType": "", "resourceTypeGeneral": "Dataset"},
            "schemaVersion": "http://datacite.org/schema/kernel-4",
        })
    }

    fn datacite_xml(&self) -> String {
        let creators: String = self
            .names()
            .map(|name| format!("<creator><creatorName>{}</creatorName></creator>", escaped(name)))
            .collect();
        format!(
            "<?xml version='1.0' encoding='utf-8'?>\n<resource xmlns=\"http://datacite.org/schema/kernel-4\">\n  \
             <identifier identifierType=\"DOI\">{}</identifier>\n  <creators>{creators}</creators>\n  \
             <titles><title>{}</title></titles>\n  <publisher>{}</publisher>\n  \
             <publicationYear>{}</publicationYear>\n</resource>\n",
            escaped(&self.doi),
            escaped(&self.title),
            escaped(&self.publisher),
            self.year(),
        )
    }

    fn dublin_core(&self) -> String {
        let creators: String = self
            .names()
            .map(|name| format!("  <dc:creator>{}</dc:creator>\n", escaped(name)))
            .collect();
        format!(
            "<?xml version='1.0' encoding='utf-8'?>\n<oai_dc:dc \
             xmlns:dc=\"http://purl.org/dc/elements/1.1/\" \
             xmlns:oai_dc=\"http://www.openarchives.org/OAI/2.0/oai_dc/\">\n{creators}  \
             <dc:date>{}</dc:date>\n  <dc:identifier>https://doi.org/{}</dc:identifier>\n  \
             <dc:publisher>{}</dc:publisher>\n  <dc:title>{}</dc:title>\n</oai_dc:dc>\n",
            escaped(&self.date),
            escaped(&self.doi),
            escaped(&self.publisher),
            escaped(&self.title),
        )
    }

    fn citation(&self) -> String {
        let authors: Vec<&str> = self.names().collect();
        format!(
            "{} ({}) “{}”. {}. Available at: https://handle.test.datacite.org/{}.",
            authors.join("; "),
            self.year(),
            self.title,
            self.publisher,
            self.doi
        )
    }

    fn marc(&self) -> String {
        format!(
            "<?xml version='1.0' encoding='utf-8'?>\n<record xmlns=\"http://www.loc.gov/MARC21/slim\">\n  \
             <controlfield tag=\"001\">{}</controlfield>\n  <datafield tag=\"245\" ind1=\" \" ind2=\" \">\n    \
             <subfield code=\"a\">{}</subfield>\n  </datafield>\n</record>\n",
            self.id,
            escaped(&self.title)
        )
    }

    fn dcat(&self) -> String {
        format!(
            "<?xml version='1.0' encoding='utf-8'?>\n<rdf:RDF \
             xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\" xmlns:dct=\"http://purl.org/dc/terms/\">\n  \
             <rdf:Description rdf:about=\"https://doi.org/{}\">\n    <dct:title>{}</dct:title>\n  \
             </rdf:Description>\n</rdf:RDF>\n",
            escaped(&self.doi),
            escaped(&self.title)
        )
    }

    fn csv(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        format!(
            "id,pids.doi.identifier,metadata.title,metadata.publication_date\n{},{},{},{}\n",
            self.id,
            self.doi,
            quoted(&self.title),
            self.date
        )
    }

    fn schema_org(&self) -> Value {
        let creators: Vec<Value> = self
            .creators
            .iter()
            .map(|[name, family, given]| {
                json!({"@type": "Person", "name": name, "familyName": family, "givenName": given})
            })
            .collect();
        json!({"@context": "http://schema.org", "@type": "Dataset", "identifier": self.doi, "name": self.title,
               "creator": creators, "datePublished": self.date,
               "publisher": {"@type": "Organization", "name": self.publisher}})
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
