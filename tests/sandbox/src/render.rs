//! Records and drafts as JSON.

use serde_json::{Map, Value, json};

use crate::app::{App, User};
use crate::files::api_url;
use crate::mimetypes;
use crate::records::{is_owner, may_read_files};
use crate::reply::encode_key;
use crate::store::{Document, Store, iso};

/// Where a document's JSON appears; the details differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// The answer to a GET of a record: its file entries have links.
    Record,
    /// The answer to a publish: they have none.
    Published,
    /// A draft's answer.
    Draft,
    /// A record's hit: its file entries have neither links nor a storage class.
    Hit,
    /// A draft's hit: no files at all, whatever was uploaded.
    DraftHit,
}

impl Place {
    fn is_draft(self) -> bool {
        matches!(self, Place::Draft | Place::DraftHit)
    }
}

/// A record or draft as `user` sees it.
pub(crate) fn document(
    app: &App,
    store: &Store,
    document: &Document,
    place: Place,
    user: Option<User>,
) -> Value {
    let owner = is_owner(store, document, user);
    let draft = place.is_draft();
    let published = store.records.contains_key(&document.id);
    let parent = store.parent_of(document);
    let mut access = json!({
        "owned_by": {"user": parent.owner.to_string()},
        "settings": {"allow_user_requests": false, "allow_guest_requests": false,
                     "accept_conditions_text": null, "secret_link_expiration": 0},
    });
    let latest = store.is_latest(&document.id, parent);
    let mut versions = json!({"is_latest": latest, "index": document.index});
    if owner {
        access["grants"] = json!([]);
        access["links"] = json!([]);
        let latest_draft = match &parent.next_draft {
            Some(next) => *next == document.id,
            None => latest,
        };
        versions["is_latest_draft"] = json!(latest_draft);
    }
    let status = match (published, parent.versions.is_empty()) {
        (true, _) => "published",
        (false, true) => crate::requests::review_status(store, parent).unwrap_or("draft"),
        (false, false) => "new_version_draft",
    };
    let mut shown = json!({
        "id": document.id,
        "created": iso(document.created),
        "updated": iso(document.updated),
        "links": links(app, store, document, draft, published),
        "revision_id": document.revision,
        "parent": {"id": parent.id, "access": access, "communities": crate::communities::of_parent(store, parent), "pids": parent.pids},
        "versions": versions,
        "is_published": published,
        "is_draft": draft,
        "pids": document.pids,
        "metadata": document.metadata,
        "custom_fields": document.custom_fields,
        "access": {
            "record": document.access.record,
            "files": document.access.files,
            "embargo": document.access.embargo,
            "status": document.access_status(),
        },
        "files": files(app, document, place),
        "media_files": {"enabled": false, "order": [], "count": 0, "total_bytes": 0, "entries": {}},
        "status": status,
    });
    if draft {
        // With a space, unlike all other times.
        let expires = document
            .created
            .strftime("%Y-%m-%d %H:%M:%S.%6f+00:00")
            .to_string();
        shown["expires_at"] = json!(expires);
    } else {
        let none =
            json!({"views": 0, "unique_views": 0, "downloads": 0, "unique_downloads": 0, "data_volume": 0.0});
        shown["stats"] = json!({"this_version": none, "all_versions": none});
        shown["deletion_status"] = json!({"is_deleted": false, "status": "P"});
        let is_unlisted = document.files.enabled && app.knobs.lock().unlisted_files;
        if is_unlisted || !may_read_files(store, document, user) {
            shown["files"] = json!({"enabled": document.files.enabled});
            shown["media_files"] = json!({"enabled": false});
        }
    }
    shown
}

fn files(app: &App, document: &Document, place: Place) -> Value {
    let mut shown = json!({
        "enabled": document.files.enabled, "order": [], "count": 0, "total_bytes": 0, "entries": {}});
    if let Some(key) = &document.files.default_preview {
        shown["default_preview"] = json!(key);
    }
    // The index leaves the files of an open record with restricted files out, for its owner too; those of a wholly
    // restricted record it keeps.
    let hidden = document.access.record == "public" && document.access_status() != "open";
    if place == Place::DraftHit || (place == Place::Hit && hidden) {
        return shown;
    }
    let url = api_url(app, &document.id, place.is_draft());
    let mut entries = Map::new();
    for entry in document.files.entries.iter() {
        let Some(blob) = entry.content() else { continue };
        let mut shown = json!({
            "id": blob.id,
            "checksum": format!("md5:{}", blob.md5),
            "ext": mimetypes::extension(&entry.key),
            "size": blob.size,
            "mimetype": mimetypes::guess(&entry.key),
            "key": entry.key,
            // Empty here, whatever the list of files says.
            "metadata": {},
            "access": {"hidden": entry.hidden},
        });
        if place != Place::Hit {
            shown["storage_class"] = json!("L");
        }
        if place == Place::Record {
            let url = format!("{url}/files/{}", encode_key(&entry.key));
            shown["links"] = json!({"self": url, "content": format!("{url}/content")});
        }
        entries.insert(entry.key.clone(), shown);
    }
    shown["count"] = json!(entries.len());
    shown["total_bytes"] = json!(document.total_bytes());
    shown["entries"] = entries.into();
    shown
}

fn links(app: &App, store: &Store, document: &Document, draft: bool, published: bool) -> Value {
    let (site, id) = (&app.site, &document.id);
    let api = api_url(app, id, false);
    let own = api_url(app, id, draft);
    let handle = |doi: &Value| {
        json!(format!(
            "https://handle.test.datacite.org/{}",
            doi["identifier"].as_str().unwrap_or("")
        ))
    };
    let kind = if draft { "draft" } else { "record" };
    let mut links = json!({
        "self": own,
        "self_html": format!("{site}/{}/{id}", if draft { "uploads" } else { "records" }),
        "preview_html": format!("{site}/records/{id}?preview=1"),
        "reserve_doi": format!("{api}/draft/pids/doi"),
        "self_iiif_manifest": format!("{site}/api/iiif/{kind}:{id}/manifest"),
        "self_iiif_sequence": format!("{site}/api/iiif/{kind}:{id}/sequence/default"),
        "files": format!("{own}/files"),
        "media_files": format!("{own}/media-files"),
        "archive": format!("{own}/files-archive"),
        "archive_media": format!("{own}/media-files-archive"),
        "versions": format!("{api}/versions"),
    });
    for name in [
        "access",
        "communities",
        "communities-suggestions",
        "quota-increase",
        "requests",
    ] {
        links[name.replace("quota-", "quota_")] = json!(format!("{api}/{name}"));
    }
    for name in ["links", "grants", "users", "groups", "request"] {
        links[format!("access_{name}")] = json!(format!("{api}/access/{name}"));
    }
    if published {
        links["request_deletion"] = json!(format!("{api}/request-deletion"));
        links["file_modification"] = json!(format!("{api}/file-modification"));
    }
    if let Some(doi) = document.pids.get("doi") {
        links["doi"] = handle(doi);
        links["self_doi"] = handle(doi);
        if !draft {
            links["self_doi_html"] =
                json!(format!("{site}/doi/{}", doi["identifier"].as_str().unwrap_or("")));
        }
    }
    let parent = store.parent_of(document);
    if let Some(doi) = parent.pids.get("doi") {
        links["parent_doi"] = handle(doi);
        links["parent_doi_html"] = json!(format!("{site}/doi/{}", doi["identifier"].as_str().unwrap_or("")));
    }
    if draft {
        links["record"] = json!(api);
        links["record_html"] = json!(format!("{site}/records/{id}"));
        links["publish"] = json!(format!("{api}/draft/actions/publish"));
        links["review"] = json!(format!("{api}/draft/review"));
    } else {
        links["parent"] = json!(format!("{site}/api/records/{}", parent.id));
        links["parent_html"] = json!(format!("{site}/records/{}", parent.id));
        links["latest"] = json!(format!("{api}/versions/latest"));
        links["latest_html"] = json!(format!("{site}/records/{id}/latest"));
        links["draft"] = json!(format!("{api}/draft"));
    }
    links
}
