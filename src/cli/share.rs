//! `rdmfs share`: links by which others open a record or draft without an account.
//!
//! A link holds a secret. It is printed when it is made, alone on stdout, and never again.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::ask::{Consent, Output};
use crate::cli::server::connection_advice;
use crate::cli::target::{Access, Target, What as Meant};
use crate::cli::{table, tell, terminal};
use crate::error::{Error, Kind, Result};
use crate::repository::{AccessLink, LinkChange, NewLink, Permission};

/// Share a record or draft by a link, with people who need no account
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs share create ~/zenodo/drafts/abcde-12345 --permission preview --expires 2027-06-30
  rdmfs share list abcde-12345
  rdmfs share update abcde-12345 0f3c… --permission view
  rdmfs share revoke abcde-12345 0f3c…

Whoever has the link may use it: view opens the published versions and their files, preview the
drafts too, edit lets them change drafts. It counts for all versions of the record. With rdmfs:
  rdmfs mount --share-link-file FILE MOUNTPOINT";

#[derive(Subcommand)]
enum What {
    Create(CreateArguments),
    List(ListArguments),
    Update(UpdateArguments),
    Revoke(RevokeArguments),
}

/// What the holder of a link may do
#[derive(Clone, Copy, ValueEnum)]
enum May {
    /// Open the published versions and their files
    View,
    /// Open drafts too
    Preview,
    /// Change drafts too
    Edit,
}

impl From<May> for Permission {
    fn from(may: May) -> Permission {
        match may {
            May::View => Permission::View,
            May::Preview => Permission::Preview,
            May::Edit => Permission::Edit,
        }
    }
}

#[derive(Args)]
struct Of {
    /// The record or draft: its id, or its path in a mount
    #[arg(value_name = "RECORD")]
    target: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Make a link, and print it; it is never printed again
#[derive(Args)]
struct CreateArguments {
    #[command(flatten)]
    of: Of,
    /// What it lets its holder do
    #[arg(short, long, value_enum, default_value = "view")]
    permission: May,
    /// The day when it ends, with its first minute (UTC); without, it never does
    #[arg(short, long, value_name = "YYYY-MM-DD", value_parser = day)]
    expires: Option<String>,
    /// A note to yourself: for whom it is
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    description: String,
}

/// List the links to a record or draft, without their secrets
#[derive(Args)]
struct ListArguments {
    #[command(flatten)]
    of: Of,
    /// Only this one, by its whole id
    link: Option<String>,
}

/// Change what a link lets its holder do, end it earlier, or note something else
#[derive(Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
struct UpdateArguments {
    #[command(flatten)]
    of: Of,
    /// The link's id, as listed; its beginning is enough
    link: String,
    /// What it lets its holder do
    #[arg(short, long, value_enum, group = "change")]
    permission: Option<May>,
    /// An earlier day
    #[arg(short, long, value_name = "YYYY-MM-DD", value_parser = day, group = "change")]
    expires: Option<String>,
    /// A note to yourself
    #[arg(short, long, value_name = "TEXT", group = "change")]
    description: Option<String>,
}

/// Revoke links: who has them can't use them any more. Asks first
#[derive(Args)]
struct RevokeArguments {
    #[command(flatten)]
    of: Of,
    /// The links' ids, as listed; their beginnings are enough
    #[arg(value_name = "LINK", required_unless_present = "all")]
    links: Vec<String>,
    /// All links to it
    #[arg(long, conflicts_with = "links")]
    all: bool,
    #[command(flatten)]
    consent: Consent,
}

/// A day as the server wants it.
fn day(text: &str) -> std::result::Result<String, String> {
    text.parse::<jiff::civil::Date>()
        .ok()
        .map(|day| day.to_string())
        .filter(|day| day == text)
        .ok_or_else(|| "write the day like 2030-01-31".to_owned())
}

/// Runs the command.
///
/// # Errors
/// If the record is not the user's, there is no such link, or the repository refuses.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (of, outcome) = match &arguments.what {
        What::Create(create) => (&create.of, make(create)),
        What::List(list) => (&list.of, print_all(list)),
        What::Update(update) => (&update.of, change(update)),
        What::Revoke(revoke) => (&revoke.of, take_back(revoke)),
    };
    of.output.end(outcome.map_err(connection_advice))
}

fn make(arguments: &CreateArguments) -> Result<ExitCode> {
    let target = Target::find(&arguments.of.target, &arguments.of.access)?;
    let (repository, id) = (target.place.signed_in()?, &target.id);
    let permission = Permission::from(arguments.permission);
    let new = NewLink {
        permission,
        expires: arguments.expires.as_deref(),
        description: &arguments.description,
    };
    let link = repository.create_access_link(id, &new)?;
    let Some(token) = &link.token else {
        return Err(Error::new(
            Kind::ServerFailed,
            format!(
                "the repository made the link {} to {id} and doesn't tell its secret",
                link.id
            ),
        ));
    };
    let leads_to_draft = match target.what {
        _ if permission == Permission::View => false,
        Meant::Draft => true,
        Meant::Record => false,
        // A link to nothing but a draft is to be opened as one.
        Meant::Id => repository.record(id).is_err(),
    };
    let address = repository.shared_address(id, token, leads_to_draft);
    if arguments.of.output.json {
        let mut shown = document(&link);
        shown["link"] = json!(address);
        terminal::say(format_args!("{shown:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    terminal::note(format_args!(
        "link {} to {id}: {}, {}; whoever has it may use it, and it is not shown again",
        link.id,
        permission.name(),
        until(&link)
    ));
    terminal::say(address);
    Ok(ExitCode::SUCCESS)
}

fn print_all(arguments: &ListArguments) -> Result<ExitCode> {
    let of = &arguments.of;
    let target = Target::find(&of.target, &of.access)?;
    let repository = target.place.signed_in()?;
    let links = match &arguments.link {
        Some(link) => vec![repository.access_link(&target.id, link)?],
        None => repository.access_links(&target.id)?,
    };
    if of.output.json {
        let links: Vec<Value> = links.iter().map(document).collect();
        terminal::say(format_args!("{:#}", Value::Array(links)));
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = links.iter().map(row).collect();
    table::show(["ID", "PERMISSION", "ENDS", "MADE", "NOTE"], &rows);
    if terminal::is_watched() && links.is_empty() {
        terminal::note(format_args!("nobody has a link to {}", target.id));
    }
    Ok(ExitCode::SUCCESS)
}

fn change(arguments: &UpdateArguments) -> Result<ExitCode> {
    let target = Target::find(&arguments.of.target, &arguments.of.access)?;
    let repository = target.place.signed_in()?;
    let links = repository.access_links(&target.id)?;
    let link = find(&links, &arguments.link, &target)?;
    let change = LinkChange {
        permission: arguments.permission.map(Permission::from),
        expires: arguments.expires.as_deref(),
        description: arguments.description.as_deref(),
    };
    let changed = repository.update_access_link(&target.id, &link.id, &change)?;
    tell::changed(&target.place, &[&target.id]);
    arguments.of.output.say(
        &document(&changed),
        format_args!(
            "link {}: {}, {}",
            changed.id,
            permission_of(&changed),
            until(&changed)
        ),
    );
    Ok(ExitCode::SUCCESS)
}

fn take_back(arguments: &RevokeArguments) -> Result<ExitCode> {
    let target = Target::find(&arguments.of.target, &arguments.of.access)?;
    let repository = target.place.signed_in()?;
    let links = repository.access_links(&target.id)?;
    let mut chosen: Vec<&AccessLink> = Vec::new();
    match arguments.all {
        true => chosen.extend(&links),
        false => {
            for word in &arguments.links {
                let link = find(&links, word, &target)?;
                if chosen.iter().all(|other| other.id != link.id) {
                    chosen.push(link);
                }
            }
        }
    }
    let lines: Vec<String> = chosen
        .iter()
        .map(|link| {
            format!(
                "  {}\n",
                row(link).map(|cell| terminal::printable(&cell)).join("  ")
            )
        })
        .collect();
    let question = format!(
        "{}Revoke {}? Who has it can't open {} by it any more, and it can't be given back.",
        lines.concat(),
        match chosen.len() {
            1 => "this link".to_owned(),
            count => format!("these {count} links"),
        },
        target.id
    );
    if !chosen.is_empty() && !arguments.consent.to(&question)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut revoked = Vec::new();
    let mut failed = None;
    for link in &chosen {
        match repository.revoke_access_link(&target.id, &link.id) {
            Ok(()) => revoked.push(link.id.as_str()),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() {
            break;
        }
    }
    // A mount of the link is one of the repository.
    if !revoked.is_empty() {
        tell::changed(&target.place, &[&target.id]);
    }
    if !arguments.of.output.json {
        for id in &revoked {
            terminal::say(format_args!("link {id} is revoked"));
        }
    } else if failed.is_none() {
        terminal::say(format_args!("{:#}", json!({"revoked": revoked})));
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The link that a word means: its id, or the beginning of no other's.
fn find<'a>(links: &'a [AccessLink], word: &str, target: &Target) -> Result<&'a AccessLink> {
    let mut found = links.iter().filter(|link| link.id.starts_with(word));
    // Somebody may give the link itself, which holds a secret.
    let shown = match word.contains(['/', '?', '=']) || word.len() > 36 {
        true => "that one".to_owned(),
        false => terminal::printable(word),
    };
    match (
        links.iter().find(|link| link.id == word),
        found.next(),
        found.next(),
    ) {
        (Some(link), _, _) | (None, Some(link), None) if !word.is_empty() => Ok(link),
        (None, Some(_), Some(_)) => Err(Error::new(
            Kind::Usage,
            format!("several links to {} begin with {shown}", target.id),
        )
        .with_advice("Give more of the id.")),
        _ => Err(Error::new(
            Kind::NotFound,
            format!("no link to {} has the id {shown}", target.id),
        )
        .with_advice(format!("rdmfs share list {} lists them.", target.id))),
    }
}

/// A link for programs, without its secret.
fn document(link: &AccessLink) -> Value {
    Value::Object(link.document.clone())
}

fn permission_of(link: &AccessLink) -> String {
    match link.permission {
        Some(permission) => permission.name().to_owned(),
        None => link
            .document
            .get("permission")
            .and_then(Value::as_str)
            .map_or_else(|| "-".to_owned(), terminal::printable),
    }
}

fn until(link: &AccessLink) -> String {
    match &link.expires {
        // The server knows days alone, and ends a link when that day begins.
        Some(end) => format!("until {}, 00:00 UTC", terminal::printable(day_of(end))),
        None => "for ever".to_owned(),
    }
}

/// The day of a time, as servers write both.
fn day_of(text: &str) -> &str {
    text.split(['T', ' ']).next().unwrap_or_default()
}

fn row(link: &AccessLink) -> [String; 5] {
    let day = |text: &str| day_of(text).to_owned();
    [
        link.id.clone(),
        permission_of(link),
        link.expires.as_deref().map_or_else(|| "-".to_owned(), day),
        day(&link.created),
        link.description.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_a_day_and_nothing_else() {
        assert_eq!(day("2030-01-31").unwrap(), "2030-01-31");
        for wrong in [
            "2030-02-30",
            "tomorrow",
            "2030-01-31T10:00",
            "31.1.2030",
            "",
            "20300131",
        ] {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }
}
