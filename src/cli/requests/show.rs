//! Requests as lists, and one with what was said of it.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::find::find;
use super::{ListArguments, ShowArguments};
use crate::cli::records::{note_rest, up_to};
use crate::cli::target::Place;
use crate::cli::terminal::{self, printable};
use crate::cli::{community, table};
use crate::error::Result;
use crate::repository::{Event, Repository, Request, RequestFilter, Search};

/// As much is shown of what was said.
const EVENTS: u32 = 1_000;

/// Runs `list`.
///
/// # Errors
/// `Denied`, `NotFound` for a community that isn't there.
pub(super) fn list(arguments: &ListArguments) -> Result<ExitCode> {
    let (place, community) = match &arguments.community {
        Some(word) => community::find(word, &arguments.access).map(|(place, name)| (place, Some(name)))?,
        None => (Place::of(&arguments.access)?, None),
    };
    let repository = place.signed_in()?;
    let community = match community {
        Some(name) => Some(repository.community(&name)?),
        None => None,
    };
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
        |search| match &community {
            Some(community) => repository.community_requests(&community.id, search, filter),
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
    if let Some(name) = &request.creator_name {
        text.push_str(&format!("  asked by: {}\n", printable(name)));
    }
    if let Some((kind, id)) = &request.receiver {
        let who = request.receiver_name.as_ref().unwrap_or(id);
        text.push_str(&format!("  decides: {} {}\n", printable(kind), printable(who)));
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
        match (&event.author_name, event.author.as_str()) {
            (Some(name), _) => printable(name),
            (None, "") => "somebody".to_owned(),
            (None, "system") => "the repository".to_owned(),
            (None, author) => format!("user {}", printable(author)),
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
    // Where a link leads that is not ended yet, and where its text begins.
    let mut link: Option<(String, usize)> = None;
    let mut rest = html;
    while let Some(begin) = rest.find('<') {
        text.push_str(&unescaped(&rest[..begin]));
        let tag = &rest[begin..];
        let end = tag.find('>').map_or(tag.len(), |end| end + 1);
        let inside = tag[1..end].trim_end_matches(['>', '/']);
        let name: String = inside
            .trim_start_matches('/')
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        match (inside.starts_with('/'), name.as_str()) {
            (false, "li") => {
                end_line(&mut text);
                text.push_str("- ");
            }
            (
                _,
                "p" | "br" | "div" | "li" | "ul" | "ol" | "pre" | "blockquote" | "tr" | "h1" | "h2" | "h3"
                | "h4",
            ) => {
                end_line(&mut text);
            }
            (false, "a") => link = href(inside).map(|address| (address, text.len())),
            (true, "a") => {
                if let Some((address, begin)) = link.take()
                    && !text[begin..].contains(&address)
                {
                    text.push_str(&format!(" <{address}>"));
                }
            }
            _ => {}
        }
        rest = &tag[end..];
    }
    text.push_str(&unescaped(rest));
    text.trim_end().to_owned()
}

fn end_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

/// Where a link leads.
fn href(tag: &str) -> Option<String> {
    let (_, value) = tag.split_once("href=")?;
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let address = value[1..].split(quote).next()?;
    Some(unescaped(address)).filter(|address| !address.is_empty())
}

/// A text with its entities as the characters they stand for, once.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find('&') {
        plain.push_str(&rest[..begin]);
        let after = &rest[begin + 1..];
        let entity = after.split_once(';').filter(|(name, _)| name.len() <= 8);
        match entity.and_then(|(name, rest)| Some((character(name)?, rest))) {
            Some((c, after)) => {
                plain.push(c);
                rest = after;
            }
            None => {
                plain.push('&');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn character(entity: &str) -> Option<char> {
    Some(match entity {
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "amp" => '&',
        "nbsp" => ' ',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            match char::from_u32(code)? {
                '\u{a0}' => ' ',
                c => c,
            }
        }
    })
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
        assert_eq!(
            plain("<ul><li>It&#8217;s <em>here</em></li><li>A&amp;B &copy &#x1b;[2J</li></ul><p>end &</p>"),
            "- It’s here\n- A&B &copy \u{1b}[2J\nend &"
        );
        assert_eq!(
            plain(
                "see <a class='x' href=\"https://a.example/?a=1&amp;b=2\">this</a>, <a href='https://b.example'>https://b.example</a>"
            ),
            "see this <https://a.example/?a=1&b=2>, https://b.example"
        );
    }
}
