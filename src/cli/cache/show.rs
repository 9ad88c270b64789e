//! Tells how a piece of work gets on: a bar on a terminal, otherwise a line for each file; at the end a summary.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::cache::task::{Done, What};
use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::status::{Fate, Outcome, Work};

/// What is shown of one piece of work.
pub struct Show {
    what: What,
    json: bool,
    bar: Option<ProgressBar>,
}

impl Show {
    /// Shows nothing yet.
    #[must_use]
    pub fn new(what: What, json: bool) -> Self {
        let has_bar = !json && terminal::is_watched() && matches!(what, What::Fetch | What::Verify);
        Show {
            what,
            json,
            bar: has_bar.then(|| {
                ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style())
            }),
        }
    }

    /// How it is now, and what came out since.
    pub fn update(&mut self, work: &Work, new: &[Outcome]) {
        if self.json {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_length(work.bytes);
            if bar.position() == 0 {
                // What was here before counts for no speed.
                bar.set_position(work.bytes_done);
                bar.reset_eta();
            }
            bar.set_position(work.bytes_done.min(work.bytes));
            bar.set_message(format!("{} of {} files", work.files_done, work.files));
        }
        for outcome in new {
            let is_bad = matches!(outcome.fate, Fate::Failed | Fate::Dropped);
            if is_bad {
                self.aside(|| terminal::note(line(outcome)));
            } else if self.bar.is_none() && self.what != What::Look {
                terminal::say(line(outcome));
            }
        }
    }

    /// It has ended.
    pub fn end(&mut self, done: &Done) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if !done.work.error.is_empty() {
            terminal::note(printable(&done.work.error));
            if !done.work.advice.is_empty() {
                terminal::note(printable(&done.work.advice));
            }
        }
        if !self.json && self.what != What::Look {
            terminal::say(summary(self.what, done));
        }
    }

    fn aside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }
}

/// Bytes, speed and time left.
fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{bar:24} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>4} left  {wide_msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One file.
fn line(outcome: &Outcome) -> String {
    let reason = match outcome.reason.as_str() {
        "" => String::new(),
        reason => format!(": {}", printable(reason)),
    };
    let pinned = if outcome.pinned { ", pinned" } else { "" };
    format!("{}: {}{pinned}{reason}", printable(&outcome.name), word(outcome))
}

/// What became of it, in words.
fn word(outcome: &Outcome) -> &'static str {
    match outcome.fate {
        Fate::Fetched => "fetched and verified",
        Fate::Here if outcome.verified => "is here, verified",
        Fate::Here => "is here",
        Fate::Partial => "is here in part",
        Fate::Unkept => "fetched, but not kept",
        Fate::Sound => "is right",
        Fate::Dropped => "was wrong",
        Fate::Freed => "dropped",
        Fate::Open => "is open in a program, so it stays",
        Fate::Pinned => "is pinned, so it stays (--pinned drops it too)",
        Fate::Unpinned => "no longer pinned",
        Fate::Absent => "nothing to do",
        Fate::Stopped => "not finished",
        Fate::Failed => "failed",
    }
}

/// All of it in one line.
fn summary(what: What, done: &Done) -> String {
    let work = &done.work;
    let count = |fate| work.counts.get(&fate).copied().unwrap_or(0);
    let mut parts: Vec<String> = Vec::new();
    let mut add = |count: u64, text: &str| {
        if count > 0 {
            parts.push(format!("{count} {text}"));
        }
    };
    add(count(Fate::Fetched), "fetched and verified");
    add(count(Fate::Here), "here already");
    add(count(Fate::Unkept), "fetched, but not kept beyond the mount");
    add(count(Fate::Sound), "right");
    add(count(Fate::Dropped), "wrong and dropped");
    add(count(Fate::Freed), "dropped");
    add(count(Fate::Open), "open in a program, so kept");
    add(count(Fate::Pinned), "pinned, so kept");
    add(count(Fate::Unpinned), "unpinned");
    add(count(Fate::Absent), "with nothing to do");
    add(count(Fate::Failed), "failed");
    if parts.is_empty() {
        parts.push("nothing to do".into());
    }
    let mut text = format!("files: {}", parts.join(", "));
    match what {
        What::Fetch => text.push_str(&format!("; {} of {}", Size(work.bytes_done), Size(work.bytes))),
        What::Verify => text.push_str(&format!("; {} read", Size(work.bytes_done))),
        What::Clear => text.push_str(&format!("; {} freed", Size(work.freed))),
        What::Look | What::Unpin => {}
    }
    if done.interrupted {
        text.push_str("; stopped, what is done stays");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_became_of_the_files() {
        let mut done = Done::default();
        done.work.counts.extend([(Fate::Fetched, 2), (Fate::Failed, 1)]);
        done.work.bytes = 4096;
        done.work.bytes_done = 2048;
        assert_eq!(
            summary(What::Fetch, &done),
            "files: 2 fetched and verified, 1 failed; 2.0 KiB of 4.0 KiB"
        );
        done.interrupted = true;
        assert!(summary(What::Fetch, &done).ends_with("; stopped, what is done stays"));
        assert_eq!(
            summary(What::Clear, &Done::default()),
            "files: nothing to do; 0 bytes freed"
        );
    }

    #[test]
    fn a_file_is_told_on_one_line_with_its_reason() {
        let outcome = Outcome {
            reason: "no\nconnection".into(),
            ..Outcome::new("records/a\u{1b}", 7, Fate::Failed)
        };
        assert_eq!(line(&outcome), "records/a\\u{1b}: failed: no\\nconnection");
    }
}
