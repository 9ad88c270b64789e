//! Lists of anything but records: their orders and their pages.

use serde_json::{Value, json};

use crate::app::App;
use crate::errors::Problem;
use crate::reply::{Call, Failure, Reply, encode_value};

/// The order asked for, if there is such a one.
pub(crate) fn sorted(call: &Call, known: &[&str]) -> Result<Option<String>, Problem> {
    match call.param("sort").filter(|sort| !sort.is_empty()) {
        Some(sort) if !known.contains(&sort) => Err(Problem::invalid(
            "_schema",
            format!("Invalid sort option '{sort}'."),
        )),
        sort => Ok(sort.map(str::to_string)),
    }
}

/// Which page is asked for, and how long it is.
pub(crate) fn page_and_size(call: &Call, wrong: impl Fn(&str) -> Problem) -> Result<(usize, usize), Problem> {
    let number = |name: &str, default: usize| match call.param(name) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .ok()
            .filter(|number| *number >= 1)
            .ok_or_else(|| wrong(name)),
    };
    Ok((number("page", 1)?, number("size", 25)?))
}

/// One page of a list of anything but records.
pub(crate) fn page(app: &App, call: &Call, path: &str, hits: Vec<Value>) -> Result<Reply, Failure> {
    let wrong = |name: &str| Problem::invalid(name, "Must be greater than or equal to 1.");
    let (page, size) = page_and_size(call, wrong)?;
    if (page - 1).saturating_mul(size) >= 10_000
        || (call.param("q").is_some() && call.param("suggest").is_some())
    {
        return Err(Problem::query().into());
    }
    let total = hits.len();
    let shown: Vec<Value> = hits.into_iter().skip((page - 1) * size).take(size).collect();
    let link = |page: usize| {
        let others = call
            .query
            .iter()
            .filter(|(name, _)| name != "page" && name != "size");
        let others: String = others
            .map(|(name, value)| format!("&{}={}", encode_value(name), encode_value(value)))
            .collect();
        format!("{}{path}?page={page}&size={size}{others}", app.site)
    };
    let mut links = json!({"self": link(page)});
    if page > 1 {
        links["prev"] = json!(link(page - 1));
    }
    if page * size < total {
        links["next"] = json!(link(page + 1));
    }
    let body =
        json!({"hits": {"hits": shown, "total": total}, "sortBy": "newest", "page": page, "links": links});
    Ok(Reply::json(200, &body))
}
