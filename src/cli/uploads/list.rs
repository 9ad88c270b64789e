//! `rdmfs uploads list`: a table for people, lines with tabs for a pipe, JSON for programs.

use std::process::ExitCode;
use std::time::SystemTime;

use crate::cli::mountinfo;
use crate::cli::progress;
use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::cli::uploads::ListArguments;
use crate::cli::uploads::inventory::{self, Inventory, Listed, Of};
use crate::error::{Error, Result};
use crate::status::UploadState;

/// Runs the command. It fails if a mount does not answer, because then nobody knows what it holds.
///
/// # Errors
/// If the place isn't there, or the state directory can't be read.
pub fn run(arguments: &ListArguments) -> Result<ExitCode> {
    let mounts = mountinfo::ours(None)?;
    let scope = arguments
        .place
        .as_ref()
        .map(|place| inventory::scope_of(place, &mounts))
        .transpose()?;
    let of = scope.as_ref().map(|scope| Of::Mount(scope.mountpoint.clone()));
    let state_dir = arguments.state.state_dir.as_ref();
    let mut found = Inventory::everywhere(mounts, &[], of.as_ref(), state_dir)?;
    if let (Some(scope), Some(of)) = (&scope, &of) {
        found
            .listed
            .retain(|listed| listed.is_of(of) && scope.holds(&listed.upload));
    }
    for silent in &found.silent {
        terminal::note(&silent.why);
    }
    for entry in &found.unreadable {
        terminal::note(format_args!(
            "the journal entry {} can't be understood; the bytes that belong to it are in the folder data beside it",
            entry.display()
        ));
    }
    if arguments.json {
        let text = serde_json::to_string_pretty(&found.listed)
            .map_err(|error| Error::local("can't print the list", &error.into()))?;
        terminal::say(text);
    } else if terminal::is_watched() {
        terminal::print(&table(&found.listed, SystemTime::now()));
    } else {
        found.listed.iter().for_each(|listed| terminal::say(line(listed)));
    }
    Ok(if found.silent.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One line for a pipe: what a script wants first, and what may hold anything last.
fn line(listed: &Listed) -> String {
    let upload = &listed.upload;
    let optional = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
    [
        upload.id.to_string(),
        upload.state.word().to_owned(),
        progress::file(upload),
        upload.sent.to_string(),
        upload.size.to_string(),
        upload.tries.to_string(),
        optional(&upload.next_try),
        listed
            .mountpoint
            .as_ref()
            .map_or_else(|| listed.repository.clone(), |place| place.display().to_string()),
        upload.kept.display().to_string(),
        optional(&upload.reason),
    ]
    .join("\t")
}

fn table(listed: &[Listed], now: SystemTime) -> String {
    if listed.is_empty() {
        return "nothing waits: everything that was written is safe on the server\n".into();
    }
    let rows: Vec<[String; 5]> = listed.iter().map(row).collect();
    let head = ["ID", "STATE", "SENT", "TRIES", "FILE"].map(str::to_owned);
    let width = |column: usize| {
        rows.iter()
            .chain([&head])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let (id, state, sent, tries) = (width(0), width(1), width(2), width(3));
    let laid_out = |row: &[String; 5]| {
        format!(
            "  {:>id$}  {:state$}  {:>sent$}  {:>tries$}  {}\n",
            row[0], row[1], row[2], row[3], row[4]
        )
    };
    let mut text = String::new();
    let mut place = String::new();
    for (listed, row) in listed.iter().zip(&rows) {
        if listed.place() != place {
            place = listed.place();
            text.push_str(&format!("{place}\n{}", laid_out(&head)));
        }
        text.push_str(&laid_out(row));
        let indent = " ".repeat(id + 4);
        if let Some(why) = why(listed, now) {
            text.push_str(&format!("{indent}{why}\n"));
        }
        if !listed.upload.kept.as_os_str().is_empty() {
            text.push_str(&format!("{indent}kept in {}\n", listed.upload.kept.display()));
        }
    }
    text.push_str(&hints(listed));
    text
}

fn row(listed: &Listed) -> [String; 5] {
    let upload = &listed.upload;
    [
        upload.id.to_string(),
        upload.state.word().to_owned(),
        format!("{} of {}", Size(upload.sent), Size(upload.size)),
        upload.tries.to_string(),
        progress::file(upload),
    ]
}

/// What a person wants to know beyond the state's name.
fn why(listed: &Listed, now: SystemTime) -> Option<String> {
    let upload = &listed.upload;
    match upload.state {
        UploadState::Waiting => Some(progress::waiting_text(upload, now)),
        UploadState::Unclosed => Some("was never closed, because the daemon ended before".into()),
        UploadState::Queued if listed.mountpoint.is_none() => Some("is sent by the next mount".into()),
        _ => upload.reason.as_deref().map(printable),
    }
}

/// The commands for what needs a decision, once.
fn hints(listed: &[Listed]) -> String {
    let any = |wanted: UploadState| listed.iter().any(|listed| listed.upload.state == wanted);
    let mut text = String::new();
    if any(UploadState::Refused) {
        text.push_str(
            "\nrefused: rdmfs uploads retry ID tries it again, discard ID drops it, recover ID copies it",
        );
    }
    if any(UploadState::Unclosed) {
        text.push_str(
            "\nunclosed: rdmfs uploads recover ID --unclosed copies what was written, discard ID drops it",
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::uploads::inventory::tests::listed;

    #[test]
    fn a_table_has_a_head_for_each_place_and_the_reasons_and_commands() {
        let mut refused = listed(Some("/mnt"), "https://a", 7, UploadState::Refused);
        refused.upload.reason = Some("Bucket quota\nexceeded.".into());
        let text = table(
            &[
                refused,
                listed(None, "https://b", 12, UploadState::Queued),
                listed(None, "https://b", 12, UploadState::Unclosed),
            ],
            SystemTime::now(),
        );
        let expected = "\
https://a on /mnt
  ID  STATE                     SENT  TRIES  FILE
   7  refused   0 bytes of 2.0 KiB      1  abc/dir/7.csv
      Bucket quota\\nexceeded.
      kept in /state/data/7-0
";
        let squeezed = |text: &str| {
            text.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&text)[..5], squeezed(expected)[..], "{text}");
        for part in [
            "https://b, not mounted\n",
            "is sent by the next mount",
            "was never closed",
            "rdmfs uploads retry ID",
            "recover ID --unclosed",
        ] {
            assert!(text.contains(part), "no \"{part}\" in {text}");
        }
        let columns: Vec<usize> = text
            .lines()
            .filter_map(|line| line.find("abc/").or_else(|| line.find("FILE")))
            .collect();
        assert!(columns.iter().all(|column| *column == columns[0]), "{text}");
    }

    #[test]
    fn in_a_pipe_each_file_is_one_line_with_as_many_fields() {
        let mut odd = listed(None, "https://b", 12, UploadState::Refused);
        odd.upload.key = "a\tb\nc".into();
        odd.upload.reason = Some("no\nway".into());
        for listed in [odd, listed(Some("/mnt"), "https://a", 7, UploadState::Queued)] {
            let line = line(&listed);
            assert_eq!(line.split('\t').count(), 10, "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert!(table(&[], SystemTime::now()).starts_with("nothing waits"));
    }
}
