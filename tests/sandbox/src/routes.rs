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
            /// All of them.
            pub const ALL: &'static [Route] = &[$(Route::$variant,)*];

            /// The route's stable name.
            pub fn name(self) -> &'static str {
                match self { $(Route::$variant => $name,)* }
            }
        }
    };
}

impl Route {
    /// Where the router leads a method and a path, which begins with `/api` or is that of a page; `None` if nowhere.
    pub fn of(method: &str, path: &str) -> Option<Route> {
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let found = match path.strip_prefix("/api") {
            Some(path) => find(&method, path),
            None => page(&method, path),
        };
        found.ok().map(|target| target.route)
    }
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
    /// `GET /communities`
    Communities = "GET communities",
    /// `GET /user/communities`
    UserCommunities = "GET user communities",
    /// `POST /communities`
    CreateCommunity = "POST communities",
    /// `GET /communities/{id}`
    Community = "GET community",
    /// `PUT /communities/{id}`
    PutCommunity = "PUT community",
    /// `DELETE /communities/{id}`
    DeleteCommunity = "DELETE community",
    /// `POST /communities/{id}/rename`
    RenameCommunity = "POST rename",
    /// `GET /communities/{id}/logo`
    Logo = "GET logo",
    /// `PUT /communities/{id}/logo`
    PutLogo = "PUT logo",
    /// `DELETE /communities/{id}/logo`
    DeleteLogo = "DELETE logo",
    /// `GET /communities/{id}/records`
    CommunityRecords = "GET community records",
    /// `GET /communities/{id}/requests`
    CommunityRequests = "GET community requests",
    /// `GET /records/{id}/communities`
    RecordCommunities = "GET record communities",
    /// `POST /records/{id}/communities`
    AddToCommunities = "POST record communities",
    /// `DELETE /records/{id}/communities`
    TakeFromCommunities = "DELETE record communities",
    /// `GET /requests/`
    Requests = "GET requests",
    /// `GET /user/requests`
    UserRequests = "GET user requests",
    /// `GET /requests/{id}`
    Request = "GET request",
    /// `POST /requests/{id}/actions/{action}`
    Act = "POST request action",
    /// `GET /requests/{id}/timeline`
    Timeline = "GET timeline",
    /// `POST /requests/{id}/comments`
    Comment = "POST comment",
    /// `GET /requests/{id}/comments/{comment}`
    GetComment = "GET comment",
    /// `PUT /requests/{id}/comments/{comment}`
    PutComment = "PUT comment",
    /// `DELETE /requests/{id}/comments/{comment}`
    DeleteComment = "DELETE comment",
    /// `GET /records/{id}/draft/review`
    Review = "GET review",
    /// `PUT /records/{id}/draft/review`
    PutReview = "PUT review",
    /// `DELETE /records/{id}/draft/review`
    DeleteReview = "DELETE review",
    /// `POST /records/{id}/draft/actions/submit-review`
    SubmitReview = "POST submit-review",
    /// `GET /curations/`
    Curations = "GET curations",
    /// `POST /curations/`
    Curate = "POST curations",
    /// `GET /curations/data`
    CurationData = "GET curations data",
    /// `GET /invenio_damap/damap/dmp`
    Plans = "GET plans",
    /// `POST /invenio_damap/damap/dmp/{plan}/dataset/{id}`
    LinkPlan = "POST plan dataset",
    /// `GET /records/{id}/access/links`
    Links = "GET links",
    /// `POST /records/{id}/access/links`
    CreateLink = "POST links",
    /// `GET /records/{id}/access/links/{link}`
    GetLink = "GET link",
    /// `PATCH /records/{id}/access/links/{link}`
    PatchLink = "PATCH link",
    /// `DELETE /records/{id}/access/links/{link}`
    DeleteLink = "DELETE link",
    /// `GET /vocabularies/`
    VocabularyTypes = "GET vocabularies",
    /// `GET /vocabularies/{type}`, or `/{type}` for some
    Vocabulary = "GET vocabulary",
    /// `GET /vocabularies/{type}/{id}`, or `/{type}/{id}` for some
    Word = "GET word",
    /// `GET …/files/{key}/container`
    Container = "GET container",
    /// `GET …/files/{key}/container/{member}`
    Member = "GET member",
    /// `GET /records/{id}/files/{key}` outside of the API, where pages lead to
    PageContent = "GET page content",
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
    /// A member of an archive.
    pub member: String,
    /// Whether it is about a draft, where one route is for both.
    pub draft: bool,
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
        member: String::new(),
        draft: false,
    };
    if let Some(found) = other(method, path) {
        return found;
    }
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
        "access/links" => &[(Method::GET, Route::Links), (Method::POST, Route::CreateLink)],
        "communities" => &[
            (Method::GET, Route::RecordCommunities),
            (Method::POST, Route::AddToCommunities),
            (Method::DELETE, Route::TakeFromCommunities),
        ],
        "draft/review" => &[
            (Method::GET, Route::Review),
            (Method::PUT, Route::PutReview),
            (Method::DELETE, Route::DeleteReview),
        ],
        "draft/actions/submit-review" => &[(Method::POST, Route::SubmitReview)],
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
            if let Some(link) = rest.strip_prefix("access/links/") {
                let allowed = [
                    (Method::GET, Route::GetLink),
                    (Method::PATCH, Route::PatchLink),
                    (Method::DELETE, Route::DeleteLink),
                ];
                return only(method, &allowed).map(|route| Target {
                    key: link.to_string(),
                    ..of_record(route)
                });
            }
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

/// Finds the route of a decoded path outside of the API: of the pages, the files alone.
pub(crate) fn page(method: &Method, path: &str) -> Result<Target, Miss> {
    let (id, key) = path
        .strip_prefix("/records/")
        .and_then(|rest| rest.split_once("/files/"))
        .filter(|(id, key)| !id.contains('/') && !key.is_empty())
        .ok_or(Miss::NotFound)?;
    let get = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    only(get, &[(Method::GET, Route::PageContent)]).map(|route| Target {
        route,
        id: id.to_string(),
        key: key.to_string(),
        part: 0,
        member: String::new(),
        draft: false,
    })
}

/// Types of vocabularies with routes of their own.
pub(crate) const SPECIFIC: &[&str] = &["affiliations", "awards", "funders", "names", "subjects"];

/// Routes that are not about records; `None` if the path is.
fn other(method: &Method, path: &str) -> Option<Result<Target, Miss>> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let found = |allowed: &[(Method, Route)], id: &str, key: &str| {
        Some(only(method, allowed).map(|route| Target {
            route,
            id: id.to_string(),
            key: key.to_string(),
            part: 0,
            member: String::new(),
            draft: false,
        }))
    };
    let get = |route, id: &str, key: &str| found(&[(Method::GET, route)], id, key);
    if let ["vocabularies", kind, rest @ ..] = parts.as_slice()
        && !kind.is_empty()
    {
        return match rest {
            [] => get(Route::Vocabulary, kind, ""),
            _ => get(Route::Word, kind, &rest.join("/")),
        };
    }
    if let [kind, rest @ ..] = parts.as_slice()
        && SPECIFIC.contains(kind)
    {
        return match rest {
            [] => get(Route::Vocabulary, &format!("/{kind}"), ""),
            _ => get(Route::Word, &format!("/{kind}"), &rest.join("/")),
        };
    }
    match parts.as_slice() {
        ["requests" | "curations" | "vocabularies"] => Some(Err(Miss::Moved(format!("{path}/")))),
        ["requests", ""] => get(Route::Requests, "", ""),
        ["vocabularies", ""] => get(Route::VocabularyTypes, "", ""),
        ["curations", ""] => found(
            &[(Method::GET, Route::Curations), (Method::POST, Route::Curate)],
            "",
            "",
        ),
        ["curations", "data"] => get(Route::CurationData, "", ""),
        ["user", "communities"] => get(Route::UserCommunities, "", ""),
        ["user", "requests"] => get(Route::UserRequests, "", ""),
        ["invenio_damap", "damap", "dmp"] => get(Route::Plans, "", ""),
        ["invenio_damap", "damap", "dmp", plan, "dataset", id] => {
            found(&[(Method::POST, Route::LinkPlan)], id, plan)
        }
        ["communities"] => found(
            &[
                (Method::GET, Route::Communities),
                (Method::POST, Route::CreateCommunity),
            ],
            "",
            "",
        ),
        ["communities", id] if !id.is_empty() => found(
            &[
                (Method::GET, Route::Community),
                (Method::PUT, Route::PutCommunity),
                (Method::DELETE, Route::DeleteCommunity),
            ],
            id,
            "",
        ),
        ["communities", id, "rename"] => found(&[(Method::POST, Route::RenameCommunity)], id, ""),
        ["communities", id, "records"] => get(Route::CommunityRecords, id, ""),
        ["communities", id, "requests"] => get(Route::CommunityRequests, id, ""),
        ["communities", id, "logo"] => found(
            &[
                (Method::GET, Route::Logo),
                (Method::PUT, Route::PutLogo),
                (Method::DELETE, Route::DeleteLogo),
            ],
            id,
            "",
        ),
        ["requests", id] => get(Route::Request, id, ""),
        ["requests", id, "actions", action] => found(&[(Method::POST, Route::Act)], id, action),
        ["requests", id, "timeline"] => get(Route::Timeline, id, ""),
        ["requests", id, "comments"] => found(&[(Method::POST, Route::Comment)], id, ""),
        ["requests", id, "comments", comment] => found(
            &[
                (Method::GET, Route::GetComment),
                (Method::PUT, Route::PutComment),
                (Method::DELETE, Route::DeleteComment),
            ],
            id,
            comment,
        ),
        _ => None,
    }
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
            member: String::new(),
            draft,
        })
    };
    if method == Method::GET {
        // A key with `/container/` in it is never reached: its beginning is taken for an archive.
        let (key, member) = match tail.split_once("/container/") {
            Some((key, member)) => (key, Some(member)),
            None => (tail.strip_suffix("/container").unwrap_or_default(), None),
        };
        if !key.is_empty() {
            let route = if member.is_some() {
                Route::Member
            } else {
                Route::Container
            };
            return target(route, key, 0).map(|target| Target {
                member: member.unwrap_or_default().to_string(),
                ..target
            });
        }
    }
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
