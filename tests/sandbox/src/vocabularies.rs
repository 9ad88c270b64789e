//! The few vocabulary entries the sandbox knows. A real server has thousands; what both have in
//! common is that an unknown id is refused.

use serde_json::{Value, json};

/// Resource types with their English titles.
const RESOURCE_TYPES: &[(&str, &str)] = &[
    ("dataset", "Dataset"),
    ("event", "Event"),
    ("image", "Image"),
    ("image-diagram", "Diagram"),
    ("image-figure", "Figure"),
    ("image-photo", "Photo"),
    ("image-plot", "Plot"),
    ("lesson", "Lesson"),
    ("model", "Model"),
    ("other", "Other"),
    ("physicalobject", "Physical object"),
    ("poster", "Poster"),
    ("presentation", "Presentation"),
    ("publication", "Publication"),
    ("publication-article", "Journal article"),
    ("publication-book", "Book"),
    ("publication-conferencepaper", "Conference paper"),
    ("publication-datamanagementplan", "Data management plan"),
    ("publication-preprint", "Preprint"),
    ("publication-report", "Report"),
    ("publication-section", "Book section"),
    ("publication-technicalnote", "Technical note"),
    ("publication-thesis", "Thesis"),
    ("publication-workingpaper", "Working paper"),
    ("software", "Software"),
    ("video", "Video/Audio"),
    ("workflow", "Workflow"),
];

const LANGUAGES: &[(&str, &str, &str)] = &[
    ("ces", "Czech", "Tschechisch"),
    ("deu", "German", "Deutsch"),
    ("eng", "English", "Englisch"),
    ("fra", "French", "Französisch"),
    ("ita", "Italian", "Italienisch"),
    ("jpn", "Japanese", "Japanisch"),
    ("spa", "Spanish", "Spanisch"),
    ("swe", "Swedish", "Schwedisch"),
];

const LICENSES: &[(&str, &str, &str, &str)] = &[
    (
        "cc-by-4.0",
        "Creative Commons Attribution 4.0 International",
        "The Creative Commons Attribution license allows re-distribution and re-use of a licensed work on \
         the condition that the creator is appropriately credited.",
        "https://creativecommons.org/licenses/by/4.0/",
    ),
    (
        "cc-by-sa-4.0",
        "Creative Commons Attribution Share Alike 4.0 International",
        "Permits almost any use subject to providing credit and license notice.",
        "https://creativecommons.org/licenses/by-sa/4.0/",
    ),
    (
        "cc0-1.0",
        "Creative Commons Zero v1.0 Universal",
        "CC0 waives copyright interest in a work you've created and dedicates it to the world-wide public domain.",
        "https://creativecommons.org/publicdomain/zero/1.0/legalcode",
    ),
    (
        "apache-2.0",
        "Apache License 2.0",
        "",
        "https://www.apache.org/licenses/LICENSE-2.0",
    ),
    (
        "bsd-3-clause",
        "BSD 3-Clause \"New\" or \"Revised\" License",
        "",
        "https://opensource.org/licenses/BSD-3-Clause",
    ),
    (
        "gpl-3.0-or-later",
        "GNU General Public License v3.0 or later",
        "",
        "https://www.gnu.org/licenses/gpl-3.0-standalone.html",
    ),
    ("mit", "MIT License", "", "https://opensource.org/licenses/MIT"),
];

const AFFILIATIONS: &[(&str, &str)] = &[
    ("01ggx4157", "European Organization for Nuclear Research"),
    ("04d836q62", "TU Wien"),
    ("03prydq77", "University of Vienna"),
    ("05a28rw58", "ETH Zurich"),
];

/// All of a table's words.
fn all<T>(table: &[T], id: impl Fn(&T) -> &'static str, word: impl Fn(&str) -> Option<Value>) -> Vec<Value> {
    table.iter().filter_map(|row| word(id(row))).collect()
}

pub(crate) fn resource_types() -> Vec<Value> {
    all(RESOURCE_TYPES, |row| row.0, resource_type)
}

pub(crate) fn languages() -> Vec<Value> {
    all(LANGUAGES, |row| row.0, language)
}

pub(crate) fn licenses() -> Vec<Value> {
    all(LICENSES, |row| row.0, license)
}

pub(crate) fn affiliations() -> Vec<Value> {
    all(AFFILIATIONS, |row| row.0, affiliation)
}

pub(crate) fn resource_type(id: &str) -> Option<Value> {
    let (_, title) = RESOURCE_TYPES.iter().find(|(known, _)| *known == id)?;
    let titles = match id {
        "dataset" => json!({"ar": "مجموعة بيانات", "cs": "Datová sada", "de": "Datensatz", "en": title,
                            "es": "Conjunto de datos", "sv": "Dataset"}),
        _ => json!({"en": title}),
    };
    Some(json!({"id": id, "title": titles}))
}

pub(crate) fn resource_type_title(id: &str) -> &str {
    RESOURCE_TYPES
        .iter()
        .find(|(known, _)| *known == id)
        .map_or(id, |(_, title)| title)
}

pub(crate) fn language(id: &str) -> Option<Value> {
    let (_, en, de) = LANGUAGES.iter().find(|(known, ..)| *known == id)?;
    Some(json!({"id": id, "title": {"de": de, "en": en}}))
}

pub(crate) fn license(id: &str) -> Option<Value> {
    let (_, title, description, url) = LICENSES.iter().find(|(known, ..)| *known == id)?;
    let mut license = json!({"id": id, "title": {"en": title}, "props": {"url": url, "scheme": "spdx"}});
    if !description.is_empty() {
        license["description"] = json!({"en": description});
    }
    if id.starts_with("cc") {
        let icon = id.rsplit_once('-').map_or(id, |(name, _)| name);
        license["icon"] = json!(format!("{icon}-icon"));
    }
    Some(license)
}

pub(crate) fn affiliation(id: &str) -> Option<Value> {
    let (_, name) = AFFILIATIONS.iter().find(|(known, _)| *known == id)?;
    let identifiers = match id {
        "01ggx4157" => {
            json!([{"identifier": id, "scheme": "ror"}, {"identifier": "grid.9132.9", "scheme": "grid"},
                              {"identifier": "0000 0001 2156 142X", "scheme": "isni"}])
        }
        _ => json!([{"identifier": id, "scheme": "ror"}]),
    };
    Some(json!({"id": id, "name": name, "identifiers": identifiers}))
}
