//! Which handler a path belongs to, as the real server's router decides it.
//!
//! Matching is done on the decoded path, where an encoded slash and a plain one are the same
//! thing; a file key is `[^/].*?` and may hold slashes. So `files/x/content` is the content of
//! `x` even if a file of that very name exists.

use std::fmt;

use hyper::Method;
use serde::{Deserialize, Serialize};

macro_rules! routes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// The kinds of requests, under names that stay the same for counting and for faults.
        /// A HEAD request counts as the GET it stands for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Route {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl Route {
            /// The route's stable name.
            pub fn name(self) -> &'static str {
                match self { $(Route::$variant => $name,)* }
            }
        }
    };
}

routes! {
    /// `GET /ping`
    Ping = "GET ping",
    /// `GET /me`
    Me = "GET me",
    /// `GET /records`
    Search = "GET search",
    /// `GET /user/records`
    UserRecords = "GET user records",
    /// `GET /records/{id}`
    Record = "GET record",
    /// `GET /records/{id}/versions`
    Versions = "GET versions",
    /// `GET /records/{id}/versions/latest`
    LatestVersion = "GET latest version",
    /// `GET /records/{id}/files`
    RecordFiles = "GET record files",
    /// `GET /records/{id}/files/{key}`
    RecordFile = "GET record file",
    /// `GET /records/{id}/files/{key}/content`
    Content = "GET content",
    /// `DELETE /records/{id}/delete`
    DeleteRecord = "DELETE record",
    /// `POST /records`
    CreateDraft = "POST records",
    /// `GET /records/{id}/draft`
    GetDraft = "GET draft",
    /// `PUT /records/{id}/draft`
    PutDraft = "PUT draft",
    /// `DELETE /records/{id}/draft`
    DeleteDraft = "DELETE draft",
    /// `POST /records/{id}/draft`
    EditRecord = "POST draft",
    /// `POST /records/{id}/versions`
    NewVersion = "POST versions",
    /// `POST /records/{id}/draft/actions/publish`
    Publish = "POST publish",
    /// `POST /records/{id}/draft/actions/files-import`
    FilesImport = "POST files-import",
    /// `POST /records/{id}/draft/pids/doi`
    ReserveDoi = "POST doi",
    /// `DELETE /records/{id}/draft/pids/doi`
    DropDoi = "DELETE doi",
    /// `GET /records/{id}/draft/files`
    DraftFiles = "GET draft files",
    /// `POST /records/{id}/draft/files`
    StartFiles = "POST draft files",
    /// `DELETE /records/{id}/draft/files`
    DeleteFiles = "DELETE draft files",
    /// `GET /records/{id}/draft/files/{key}`
    DraftFile = "GET draft file",
    /// `PUT /records/{id}/draft/files/{key}`
    PutFile = "PUT draft file",
    /// `DELETE /records/{id}/draft/files/{key}`
    DeleteFile = "DELETE draft file",
    /// `GET /records/{id}/draft/files/{key}/content`
    DraftContent = "GET draft content",
    /// `PUT /records/{id}/draft/files/{key}/content`
    PutContent = "PUT content",
    /// `PUT /records/{id}/draft/files/{key}/content/{n}`
    PutPart = "PUT part",
    /// `PUT` of a part along a signed link to the second origin
    PutObjectPart = "PUT object part",
    /// `POST /records/{id}/draft/files/{key}/commit`
    Commit = "POST commit",
    /// A file's content at the second origin
    Object = "GET object",
    /// `GET /plain/{id}/{key}`: the content of a record's file
    Plain = "GET plain",
    /// `GET /plain/{id}/`: the record's files as a page of links
    PlainIndex = "GET plain index",
    /// Anything else under `/api`
    Other = "other",
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a path is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub route: Route,
    pub id: String,
    pub key: String,
    pub part: u64,
}

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Miss {
    NotFound,
    Method,
    /// 308 to the same path without its doubled slash.
    Moved(String),
}

/// Finds the route of a decoded path below `/api`.
pub(crate) fn find(method: &Method, path: &str) -> Result<Target, Miss> {
    let method = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let plain = |route| Target {
        route,
        id: String::new(),
        key: String::new(),
        part: 0,
    };
    match path {
        "/ping" => return only(method, &[(Method::GET, Route::Ping)]).map(plain),
        "/me" => return only(method, &[(Method::GET, Route::Me)]).map(plain),
        "/user/records" => return only(method, &[(Method::GET, Route::UserRecords)]).map(plain),
        "/records" => {
            return only(
                method,
                &[(Method::GET, Route::Search), (Method::POST, Route::CreateDraft)],
            )
            .map(plain);
        }
        _ => {}
    }
    let rest = path.strip_prefix("/records/").ok_or(Miss::NotFound)?;
    let (id, rest) = rest
        .split_once('/')
        .map_or((rest, None), |(id, rest)| (id, Some(rest)));
    if id.is_empty() {
        return Err(Miss::NotFound);
    }
    let of_record = |route| Target {
        id: id.to_string(),
        ..plain(route)
    };
    let Some(rest) = rest else {
        return only(method, &[(Method::GET, Route::Record)]).map(of_record);
    };
    let allowed: &[(Method, Route)] = match rest {
        "versions" => &[(Method::GET, Route::Versions), (Method::POST, Route::NewVersion)],
        "versions/latest" => &[(Method::GET, Route::LatestVersion)],
        "delete" => &[(Method::DELETE, Route::DeleteRecord)],
        "files" => &[(Method::GET, Route::RecordFiles)],
        "draft" => &[
            (Method::GET, Route::GetDraft),
            (Method::PUT, Route::PutDraft),
            (Method::POST, Route::EditRecord),
            (Method::DELETE, Route::DeleteDraft),
        ],
        "draft/actions/publish" => &[(Method::POST, Route::Publish)],
        "draft/actions/files-import" => &[(Method::POST, Route::FilesImport)],
        "draft/pids/doi" => &[
            (Method::POST, Route::ReserveDoi),
            (Method::DELETE, Route::DropDoi),
        ],
        "draft/files" => &[
            (Method::GET, Route::DraftFiles),
            (Method::POST, Route::StartFiles),
            (Method::DELETE, Route::DeleteFiles),
        ],
        _ => {
            let (draft, tail) = if let Some(tail) = rest.strip_prefix("draft/files/") {
                (true, tail)
            } else if let Some(tail) = rest.strip_prefix("files/") {
                (false, tail)
            } else {
                return Err(Miss::NotFound);
            };
            return file(method, path, id, tail, draft);
        }
    };
    only(method, allowed).map(of_record)
}

/// Routes below `files/`.
fn file(method: &Method, path: &str, id: &str, tail: &str, draft: bool) -> Result<Target, Miss> {
    if tail.starts_with('/') {
        // The real router merges the slashes of an empty first part and redirects there.
        let start = &path[..path.len() - tail.len()];
        return Err(Miss::Moved(format!("{start}{}", tail.trim_start_matches('/'))));
    }
    if tail.is_empty() || tail.contains('\n') {
        return Err(Miss::NotFound);
    }
    let target = |route, key: &str, part| {
        Ok(Target {
            route,
            id: id.to_string(),
            key: key.to_string(),
            part,
        })
    };
    if let Some(key) = tail.strip_suffix("/content").filter(|key| !key.is_empty()) {
        match (method, draft) {
            (&Method::GET, false) => return target(Route::Content, key, 0),
            (&Method::GET, true) => return target(Route::DraftContent, key, 0),
            (&Method::PUT, true) => return target(Route::PutContent, key, 0),
            _ => {}
        }
    }
    if draft && method == Method::POST {
        return match tail.strip_suffix("/commit").filter(|key| !key.is_empty()) {
            Some(key) => target(Route::Commit, key, 0),
            None => Err(Miss::Method),
        };
    }
    if draft && method == Method::PUT {
        let part = tail.rsplit_once('/').and_then(|(start, number)| {
            Some((
                start.strip_suffix("/content").filter(|key| !key.is_empty())?,
                number.parse().ok()?,
            ))
        });
        return match part {
            Some((key, part)) => target(Route::PutPart, key, part),
            None => target(Route::PutFile, tail, 0),
        };
    }
    match (method, draft) {
        (&Method::GET, false) => target(Route::RecordFile, tail, 0),
        (&Method::GET, true) => target(Route::DraftFile, tail, 0),
        (&Method::DELETE, true) => target(Route::DeleteFile, tail, 0),
        _ => Err(Miss::Method),
    }
}

fn only(method: &Method, allowed: &[(Method, Route)]) -> Result<Route, Miss> {
    allowed
        .iter()
        .find(|(known, _)| known == method)
        .map(|(_, route)| *route)
        .ok_or(Miss::Method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: Method, path: &str) -> (Route, String, u64) {
        let target = find(&method, path).unwrap();
        (target.route, target.key, target.part)
    }

    #[test]
    fn keys_may_hold_slashes() {
        let of = |path: &str| route(Method::GET, &format!("/records/r/draft/files/{path}"));
        assert_eq!(
            of("dir/sub/c.txt/content"),
            (Route::DraftContent, "dir/sub/c.txt".into(), 0)
        );
        assert_eq!(of("a//b/content"), (Route::DraftContent, "a//b".into(), 0));
        assert_eq!(of("trail/"), (Route::DraftFile, "trail/".into(), 0));
        assert_eq!(
            of("x/content/content"),
            (Route::DraftContent, "x/content".into(), 0)
        );
    }

    #[test]
    fn suffixes_win_over_keys_where_the_method_fits() {
        let path = "/records/r/draft/files/x/content/3";
        assert_eq!(route(Method::PUT, path), (Route::PutPart, "x".into(), 3));
        assert_eq!(
            route(Method::GET, path),
            (Route::DraftFile, "x/content/3".into(), 0)
        );
        let path = "/records/r/draft/files/x/content";
        assert_eq!(
            route(Method::DELETE, path),
            (Route::DeleteFile, "x/content".into(), 0)
        );
    }

    #[test]
    fn keys_that_no_request_reaches() {
        let of = |path: &str| find(&Method::GET, path);
        assert_eq!(
            of("/records/r/files//lead"),
            Err(Miss::Moved("/records/r/files/lead".into()))
        );
        assert_eq!(of("/records/r/files/new\nline"), Err(Miss::NotFound));
        assert_eq!(find(&Method::POST, "/records/r/files"), Err(Miss::Method));
    }
}
