//! `rdmfs community`: communities made and changed, their logos, and records in them.
//!
//! `change` makes and changes communities, `logo` their logos; `members` puts records in, takes them out and lists them.

mod change;
mod logo;
mod members;

pub use change::find;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::ask::{Consent, Output};
use crate::cli::records::How;
use crate::cli::server::connection_advice;
use crate::cli::target::Access;
use crate::error::Result;

/// Make and change communities, submit records to them, and list what is in them
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Examples:
  rdmfs community create glaciers --title 'Glaciers of the Alps' --type project
  rdmfs community edit glaciers --description 'All we measured since 1990'
  rdmfs community edit glaciers --data - <<< '{\"access\": {\"review_policy\": \"closed\"}}'
  rdmfs community logo glaciers logo.png
  rdmfs community submit ~/zenodo/drafts/abcde-12345 glaciers --comment 'Our new data'
  rdmfs community records glaciers --paths

A community is named by its slug, its UUID, the address of its page, or its path in a mount
(communities/SLUG). What the repository does not accept is told by field, one line each.";

#[derive(Subcommand)]
enum What {
    Create(CreateArguments),
    Show(ShowArguments),
    Edit(EditArguments),
    Rename(RenameArguments),
    Delete(DeleteArguments),
    Logo(LogoArguments),
    Submit(SubmitArguments),
    Remove(RemoveArguments),
    Records(RecordsArguments),
}

/// What a community's document says.
#[derive(Args)]
struct Fields {
    /// Its title
    #[arg(long)]
    title: Option<String>,
    /// What it is about, in a few words
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// organization, event, topic or project; rdmfs vocabulary search communitytypes lists them
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Its web page
    #[arg(long, value_name = "URL")]
    website: Option<String>,
    /// Who sees it: public or restricted
    #[arg(long, value_name = "WHO")]
    visibility: Option<String>,
    /// Who needs no review to publish in it: closed (all need one), open (members need none), members
    #[arg(long, value_name = "POLICY")]
    review_policy: Option<String>,
    /// Its document, or parts of it, as JSON: the text itself, @FILE, or - for stdin. The flags win over it
    #[arg(short, long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
}

/// Make a community
#[derive(Args)]
struct CreateArguments {
    /// Its name in addresses: letters, digits and -
    slug: Option<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Print a community's document, as JSON
#[derive(Args)]
struct ShowArguments {
    /// Its slug, its UUID, the address of its page, or its path in a mount
    community: PathBuf,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Change a community's document; what is not named stays
#[derive(Args)]
struct EditArguments {
    /// Its slug, its UUID, the address of its page, or its path in a mount
    community: PathBuf,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Give a community another slug. Asks first: addresses with the old one lead nowhere then
#[derive(Args)]
struct RenameArguments {
    /// Its slug, its UUID, the address of its page, or its path in a mount
    community: PathBuf,
    /// The new slug
    slug: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Delete a community; its records stay. Asks first
#[derive(Args)]
struct DeleteArguments {
    /// Its slug, its UUID, the address of its page, or its path in a mount
    community: PathBuf,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Set a community's logo; with --save or --delete, save it or take it away
#[derive(Args)]
struct LogoArguments {
    /// Its slug, its UUID, the address of its page, or its path in a mount
    community: PathBuf,
    /// The image: PNG, JPEG, GIF, WebP, AVIF or SVG, of up to 1 MB on most repositories
    #[arg(required_unless_present_any = ["save", "delete"])]
    image: Option<PathBuf>,
    /// Save the logo that it has to this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["image", "delete"])]
    save: Option<PathBuf>,
    /// Take the logo away; asks first
    #[arg(long, conflicts_with = "image")]
    delete: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Submit a draft to a community, which publishes it, or ask for a published record to be in communities. Asks first
#[derive(Args)]
struct SubmitArguments {
    /// The draft or record: its id, or its path in a mount. An id that is of both means the record
    #[arg(value_name = "RECORD")]
    target: PathBuf,
    /// Slugs, UUIDs or addresses of pages; a draft goes to one
    #[arg(value_name = "COMMUNITY", required = true)]
    communities: Vec<String>,
    /// What to say to those who decide
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Have a draft reviewed, even where you might publish it in the community at once
    #[arg(long)]
    review: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// Take a published record out of communities, after asking; or a draft from the one that was chosen for it
#[derive(Args)]
struct RemoveArguments {
    /// The record or draft: its id, or its path in a mount
    #[arg(value_name = "RECORD")]
    target: PathBuf,
    /// Slugs, UUIDs or addresses of pages
    #[arg(value_name = "COMMUNITY", required = true)]
    communities: Vec<String>,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    access: Access,
}

/// List the published records in a community
#[derive(Args)]
struct RecordsArguments {
    /// Its slug, its UUID, the address of its page, or its path in a mount
    community: PathBuf,
    /// Only what this query finds; with a ? before it, a whole query string
    query: Vec<String>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    access: Access,
}

/// Runs the command.
///
/// # Errors
/// If there is no such community, it is not the user's, or the repository refuses; with the fields that it names.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (output, outcome) = match &arguments.what {
        What::Create(create) => (create.output, change::create(create)),
        What::Show(show) => (show.output, change::show(show)),
        What::Edit(edit) => (edit.output, change::edit(edit)),
        What::Rename(rename) => (rename.output, change::rename(rename)),
        What::Delete(delete) => (delete.output, change::delete(delete)),
        What::Logo(logo) => (logo.output, logo::run(logo)),
        What::Submit(submit) => (submit.output, members::submit(submit)),
        What::Remove(remove) => (remove.output, members::remove(remove)),
        What::Records(records) => (records.how.output(), members::list(records)),
    };
    output.end(outcome.map_err(connection_advice))
}
