//! Requests as lists, and one with what was said of it.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::find::find;
use super::{ListArguments, ShowArguments};
use crate::cli::records::{note_rest, up_to};
use crate::cli::table;
use crate::cli::target::Place;
use crate::cli::terminal::{self, printable};
use crate::error::Result;
use crate::repository::{Event, Repository, Request, RequestFilter, Search};

/// As much is shown of what was said.
const EVENTS: u32 = 1_000;

/// Runs `list`.
///
/// # Errors
/// `Denied`, `NotFound` for a community that isn't there.
pub(super) fn list(arguments: &ListArguments) -> Result<ExitCode> {
    let place = Place::of(&arguments.access)?;
    let repository = place.signed_in()?;
    let filter = match (arguments.closed, arguments.all) {
        (true, _) => RequestFilter::Closed,
        (_, true) => RequestFilter::All,
        _ => RequestFilter::Open,
    };
    let search = Search {
        query: arguments.query.clone(),
        sort: Some("newest"),
        ..Search::default()
    };
    let found = up_to(
        arguments.limit,
        repository.largest_page(),
        search,
        |search| match &arguments.community {
            Some(name) => repository.community_requests(name, search, filter),
            None => repository.user_requests(search, filter),
        },
    )?;
    if arguments.output.json {
        let hits: Vec<_> = found.items.into_iter().map(|request| request.document).collect();
        terminal::say(format_args!("{:#}", json!({"total": found.total, "hits": hits})));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = found.items.iter().map(row).collect();
    table::show(["ID", "STATUS", "KIND", "ABOUT", "TITLE"], &rows);
    note_rest(rows.len(), found.total);
    Ok(ExitCode::SUCCESS)
}

fn row(request: &Request) -> [String; 5] {
    [
        request.id.to_string(),
        request.status.clone(),
        request.kind.clone(),
        about(request),
        request.title.clone(),
    ]
}

fn about(request: &Request) -> String {
    request
        .topic
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Runs `show`.
///
/// # Errors
/// `NotFound`, `Denied`.
pub(super) fn one(arguments: &ShowArguments) -> Result<ExitCode> {
    let (place, request) = find(&arguments.which)?;
    let events = events(place.signed_in()?, &request)?;
    if arguments.which.output.json {
        let events: Vec<&serde_json::Map<String, Value>> =
            events.iter().map(|event| &event.document).collect();
        let shown = json!({"request": request.document, "timeline": events, "actions": request.actions});
        terminal::say(format_args!("{shown:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!(
        "{}\n  {}, {}\n  about: {}\n",
        request.id,
        printable(&request.kind),
        printable(&request.status),
        about(&request)
    );
    if !request.title.is_empty() {
        text.push_str(&format!("  title: {}\n", printable(&request.title)));
    }
    if let Some((kind, id)) = &request.receiver {
        text.push_str(&format!("  decides: {} {}\n", printable(kind), printable(id)));
    }
    if !request.actions.is_empty() {
        text.push_str(&format!(
            "  you may: {}\n",
            printable(&request.actions.join(", "))
        ));
    }
    for event in &events {
        text.push_str(&said(event));
    }
    terminal::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn events(repository: &Repository, request: &Request) -> Result<Vec<Event>> {
    let listed = up_to(EVENTS, repository.largest_page(), Search::default(), |search| {
        repository.request_timeline(&request.id, search)
    })?;
    Ok(listed.items)
}

fn said(event: &Event) -> String {
    let when = event
        .created
        .split('.')
        .next()
        .unwrap_or_default()
        .replace('T', " ");
    let mut text = format!(
        "\n{} {}: {}\n",
        printable(&when),
        match event.author.as_str() {
            "" => "somebody".to_owned(),
            author => format!("user {}", printable(author)),
        },
        event
            .event
            .as_deref()
            .map_or_else(|| "said".to_owned(), printable)
    );
    for line in plain(&event.content).lines() {
        text.push_str(&format!("  {}\n", printable(line)));
    }
    text
}

/// What HTML says, as plain lines. Whoever wrote it may have meant harm: nothing of it is interpreted.
fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(begin) = rest.find('<') {
        text.push_str(&rest[..begin]);
        let tag = &rest[begin..];
        let end = tag.find('>').map_or(tag.len(), |end| end + 1);
        let name = tag[1..end].trim_start_matches('/').to_ascii_lowercase();
        if ["p", "br", "div", "li", "ul", "ol", "h1", "h2", "h3"]
            .iter()
            .any(|block| {
                name.strip_prefix(block)
                    .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
            })
            && !text.is_empty()
            && !text.ends_with('\n')
        {
            text.push('\n');
        }
        rest = &tag[end..];
    }
    text.push_str(rest);
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text, |text, (entity, letter)| text.replace(entity, letter))
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_shown_as_plain_lines() {
        assert_eq!(
            plain("<p>One &lt; two &amp;lt; three</p><p>a<br/>b <b>c</b></p>"),
            "One < two &lt; three\na\nb c"
        );
        assert_eq!(plain("no markup"), "no markup");
        assert_eq!(plain("cut <scr"), "cut");
        assert_eq!(plain("<pre>x</pre>"), "x");
    }
}
