//! Vocabularies at their routes: types, searches, single words.

use serde_json::{Value, json};

use crate::app::App;
use crate::errors::Problem;
use crate::lists;
use crate::query::Query;
use crate::reply::{Call, Failure, Reply};
use crate::routes::SPECIFIC;
use crate::settings::Flavour;
use crate::vocabularies;

/// Small vocabularies: each word's id and English title.
const SMALL: &[(&str, &[(&str, &str)])] = &[
    (
        "communitytypes",
        &[
            ("event", "Event"),
            ("organization", "Organization"),
            ("project", "Project"),
            ("topic", "Topic"),
        ],
    ),
    (
        "contributorsroles",
        &[
            ("contactperson", "Contact person"),
            ("datacurator", "Data curator"),
        ],
    ),
    (
        "creatorsroles",
        &[("contactperson", "Contact person"), ("researcher", "Researcher")],
    ),
    (
        "datetypes",
        &[("accepted", "Accepted"), ("collected", "Collected")],
    ),
    (
        "descriptiontypes",
        &[("abstract", "Abstract"), ("methods", "Methods")],
    ),
    ("relationtypes", &[("cites", "Cites"), ("ispartof", "Is part of")]),
    (
        "removalreasons",
        &[("spam", "Spam"), ("copyright", "Copyright infringement")],
    ),
    (
        "titletypes",
        &[("subtitle", "Subtitle"), ("translated-title", "Translated title")],
    ),
    (
        "code:developmentStatus",
        &[("active", "Active"), ("concept", "Concept")],
    ),
];

const SUBJECTS: &[(&str, &str)] = &[
    ("http://www.oecd.org/science/inno/38235147.pdf?1.1", "Mathematics"),
    (
        "http://www.oecd.org/science/inno/38235147.pdf?6.1",
        "History and archaeology",
    ),
    ("http://id.nlm.nih.gov/mesh/A-D000007", "Abdominal Injuries"),
];

fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> = SMALL.iter().map(|(name, _)| *name).collect();
    names.extend(["languages", "licenses", "resourcetypes"]);
    names.extend(SPECIFIC);
    names.sort_unstable();
    names
}

/// All words of a type.
fn words(kind: &str) -> Option<Vec<Value>> {
    let words = match kind {
        "languages" => vocabularies::languages(),
        "licenses" => vocabularies::licenses(),
        "resourcetypes" => vocabularies::resource_types(),
        "affiliations" => vocabularies::affiliations(),
        "subjects" => SUBJECTS
            .iter()
            .map(|(id, subject)| json!({"id": id, "scheme": "FOS", "subject": subject}))
            .collect(),
        "names" => vec![
            json!({"id": "0000-0002-1825-0097", "name": "Carberry, Josiah", "given_name": "Josiah",
            "family_name": "Carberry", "identifiers": [{"identifier": "0000-0002-1825-0097", "scheme": "orcid"}],
            "affiliations": [{"name": "Brown University"}]}),
        ],
        "funders" => vec![
            json!({"id": "05k73zm37", "name": "Academy of Finland", "title": {"en": "Academy of Finland"},
            "country": "FI", "identifiers": [{"identifier": "05k73zm37", "scheme": "ror"}]}),
        ],
        "awards" => vec![
            json!({"id": "00k4n6c32::755021", "title": {"en": "Example award"}, "number": "755021",
            "funder": {"id": "00k4n6c32", "name": "European Commission"}}),
        ],
        _ => SMALL
            .iter()
            .find(|(name, _)| *name == kind)?
            .1
            .iter()
            .map(|(id, title)| json!({"id": id, "title": {"en": title}}))
            .collect(),
    };
    Some(words)
}

/// The type's name and its words as they are found at the asked route: those with routes of their own are empty at the
/// common one.
fn at_route(call: &Call) -> Option<(String, Vec<Value>)> {
    match call.target.id.strip_prefix('/') {
        Some(kind) => Some((kind.to_string(), words(kind)?)),
        None if SPECIFIC.contains(&call.target.id.as_str()) => Some((call.target.id.clone(), Vec::new())),
        None => Some((call.target.id.clone(), words(&call.target.id)?)),
    }
}

fn allowed(app: &App, call: &Call, kind: &str) -> Result<(), Problem> {
    if kind == "names" && app.knobs.lock().flavour != Flavour::V12 {
        call.signed_in()?;
    }
    Ok(())
}

/// `GET /vocabularies/`
pub(crate) fn types(app: &App, _: &Call) -> Result<Reply, Failure> {
    let hits: Vec<Value> = names()
        .into_iter()
        .map(|name| {
            let count = words(name).map_or(0, |words| words.len());
            json!({"id": name, "count": count, "is_custom_vocabulary": SPECIFIC.contains(&name), "links": {}})
        })
        .collect();
    let total = hits.len();
    let links = json!({"self": format!("{}/api/vocabularies/?facets=%7B%7D", app.site)});
    Ok(Reply::json(
        200,
        &json!({"hits": {"hits": hits, "total": total}, "links": links}),
    ))
}

/// `GET /vocabularies/{type}`
pub(crate) fn search(app: &App, call: &Call) -> Result<Reply, Failure> {
    let (kind, words) = at_route(call).ok_or_else(Problem::no_result)?;
    allowed(app, call, &kind)?;
    lists::sorted(
        call,
        &["bestmatch", "title", "name", "subject", "newest", "oldest"],
    )?;
    let query = Query::parse(call.param("q").unwrap_or_default());
    let typed = call.param("suggest").unwrap_or_default().to_lowercase();
    let path = api_path(call);
    let hits = words
        .into_iter()
        .filter(|word| {
            let text = word.to_string().to_lowercase();
            query.fits(&text, |field| word.get(field)?.as_str().map(str::to_string)) && text.contains(&typed)
        })
        .map(|word| with_links(app, call, &kind, word))
        .collect();
    lists::page(app, call, &path, hits)
}

/// `GET /vocabularies/{type}/{id}`
pub(crate) fn read(app: &App, call: &Call) -> Result<Reply, Failure> {
    let (kind, words) = at_route(call).ok_or_else(Problem::unknown_id)?;
    allowed(app, call, &kind)?;
    let word = words
        .into_iter()
        .find(|word| word["id"] == call.target.key.as_str());
    let word = word.ok_or_else(Problem::unknown_id)?;
    Ok(Reply::json(200, &with_links(app, call, &kind, word)))
}

fn api_path(call: &Call) -> String {
    match call.target.id.strip_prefix('/') {
        Some(kind) => format!("/api/{kind}"),
        None => format!("/api/vocabularies/{}", call.target.id),
    }
}

fn with_links(app: &App, call: &Call, kind: &str, mut word: Value) -> Value {
    let id = word["id"].as_str().unwrap_or_default();
    let id = crate::reply::encode_key(id);
    word["links"] = json!({"self": format!("{}{}/{id}", app.site, api_path(call))});
    word["revision_id"] = json!(1);
    if !SPECIFIC.contains(&kind) {
        word["type"] = json!(kind);
    }
    word
}
