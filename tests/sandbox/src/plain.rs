//! `/plain/{id}/`: the files of a published record as a web server's folder, for clients that know no InvenioRDM.
//!
//! Content goes the same way as at the API, with the same pauses and limits.

use hyper::Method;

use crate::app::App;
use crate::records::{may_read, may_read_files};
use crate::reply::{Call, Failure, Reply, encode_all};
use crate::routes::{Miss, Route, Target};

/// Finds the route of a decoded path below `/plain/`.
pub(crate) fn find(method: &Method, path: &str) -> Result<Target, Miss> {
    if method != Method::GET && method != Method::HEAD {
        return Err(Miss::Method);
    }
    // With and without the slash at its end, which some clients leave out.
    let (id, key) = path.split_once('/').unwrap_or((path, ""));
    if id.is_empty() {
        return Err(Miss::NotFound);
    }
    let route = if key.is_empty() {
        Route::PlainIndex
    } else {
        Route::Plain
    };
    Ok(Target {
        route,
        id: id.to_string(),
        key: key.to_string(),
        part: 0,
        member: String::new(),
        draft: false,
    })
}

/// A page of links. Keys with a slash in them are left out.
pub(crate) fn index(app: &App, call: &Call) -> Result<Reply, Failure> {
    let store = app.store.lock();
    let record = store.record(&call.target.id)?;
    if !may_read(&store, record, call.user) || !may_read_files(&store, record, call.user) {
        return Err(crate::errors::Problem::denied().into());
    }
    let mut page = format!(
        "<html><head><title>Index of {0}</title></head><body><h1>{0}</h1><hr><pre>\n",
        record.id
    );
    for entry in record.files.entries.iter() {
        if entry.content().is_some() && !entry.key.contains('/') {
            let name = encode_all(&entry.key);
            page.push_str(&format!("<a href=\"{name}\">{name}</a> {}\n", entry.size()));
        }
    }
    page.push_str("</pre><hr></body></html>\n");
    Ok(Reply::new(200, "text/html; charset=utf-8", page))
}
