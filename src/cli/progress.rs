//! Shows transfers on their way: bars on a terminal, otherwise one line for each change.
//!
//! `unmount` and `status --watch` feed it with what the mounts say; `uploads recover` shows its own copying. What is
//! shown is worked out without a terminal (`view` and `changes`); only `Progress` draws.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::terminal::{self, printable};
use crate::cli::units::Size;
use crate::status::{Download, Status, Upload, UploadState};

/// How often the mounts are looked at.
pub const PACE: Duration = Duration::from_millis(300);
/// As many lines of one kind are shown; the rest is counted.
const MOST_LINES: usize = 5;
/// Copying that takes less is not shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one mount has on its way.
pub struct Seen<'a> {
    /// What stands before the names, where several mounts are shown.
    pub prefix: &'a str,
    /// Its uploads.
    pub uploads: &'a [Upload],
    /// Its downloads.
    pub downloads: &'a [Download],
}

impl<'a> Seen<'a> {
    /// All that a status tells.
    #[must_use]
    pub fn of(prefix: &'a str, status: &'a Status) -> Self {
        Seen {
            prefix,
            uploads: &status.uploads,
            downloads: &status.downloads,
        }
    }
}

/// What is shown now.
pub struct Progress {
    drawn: Option<Drawn>,
    /// Where lines go that are not drawn.
    say: fn(&str),
    changes: Changes,
}

/// What is on the terminal.
struct Drawn {
    terminal: MultiProgress,
    bars: HashMap<String, ProgressBar>,
    lines: Vec<ProgressBar>,
}

impl Progress {
    /// Shows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Progress {
            drawn: terminal::is_watched().then(|| Drawn {
                terminal: MultiProgress::new(),
                bars: HashMap::new(),
                lines: Vec::new(),
            }),
            say: |line| terminal::say(line),
            changes: Changes::default(),
        }
    }

    /// The same of a command that prints something else as its result: without a terminal, all goes to stderr.
    #[must_use]
    pub fn beside_a_result() -> Self {
        let mut progress = Progress::new();
        progress.say = |line| terminal::complain(line);
        progress
    }

    /// Shows how things are now; what is there no longer has arrived, or was given up by the user.
    pub fn update(&mut self, seen: &[Seen<'_>]) {
        let changes = self.changes.since_last(seen);
        match &mut self.drawn {
            Some(drawn) => {
                for change in changes.iter().filter(|change| change.is_end) {
                    // A terminal that went away is no reason to stop.
                    let _ = drawn.terminal.println(&change.text);
                }
                drawn.show(&view(seen, SystemTime::now()));
            }
            None => changes.iter().for_each(|change| (self.say)(&change.text)),
        }
    }

    /// Nothing is known any more of what has this prefix: that it is not told of again doesn't mean that it arrived.
    pub fn forget(&mut self, prefix: &str) {
        self.changes.uploads.retain(|name, _| !name.starts_with(prefix));
        self.changes.downloads.retain(|name, _| !name.starts_with(prefix));
    }

    /// Says something in passing.
    pub fn say(&self, line: &str) {
        match &self.drawn {
            Some(drawn) => {
                let _ = drawn.terminal.println(line);
            }
            None => (self.say)(line),
        }
    }
}

impl Drop for Progress {
    /// What is on its way is of no interest once nobody looks any more.
    fn drop(&mut self) {
        if let Some(drawn) = &self.drawn {
            let _ = drawn.terminal.clear();
        }
    }
}

impl Drawn {
    fn show(&mut self, view: &View) {
        self.bars.retain(|name, shown| {
            let stays = view.bars.iter().any(|bar| bar.name == *name);
            if !stays {
                shown.finish_and_clear();
                self.terminal.remove(shown);
            }
            stays
        });
        while self.lines.len() > view.lines.len() {
            if let Some(line) = self.lines.pop() {
                line.finish_and_clear();
                self.terminal.remove(&line);
            }
        }
        for bar in &view.bars {
            let shown = self.bars.entry(bar.name.clone()).or_insert_with(|| {
                // Bars stand above the lines.
                let new = self.terminal.insert_from_back(self.lines.len(), new_bar(bar));
                // The speed counts from here, not what was there before anybody looked.
                new.reset_eta();
                new
            });
            shown.set_length(bar.total);
            shown.set_position(bar.done);
            shown.set_message(bar.text.clone());
        }
        for (number, text) in view.lines.iter().enumerate() {
            if number == self.lines.len() {
                let new = ProgressBar::new(0).with_style(line_style());
                self.lines.push(self.terminal.add(new));
            }
            self.lines[number].set_message(text.clone());
        }
    }
}

/// A bar that stands where its transfer does.
fn new_bar(bar: &Bar) -> ProgressBar {
    let new =
        ProgressBar::with_draw_target(Some(bar.total), ProgressDrawTarget::hidden()).with_style(bar_style());
    new.set_position(bar.done);
    new.tick();
    new
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:24} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn line_style() -> ProgressStyle {
    ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What a terminal shows of a moment.
#[derive(Debug, PartialEq, Eq)]
struct View {
    bars: Vec<Bar>,
    lines: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Bar {
    /// Tells it from the others.
    name: String,
    text: String,
    done: u64,
    total: u64,
}

fn view(seen: &[Seen<'_>], now: SystemTime) -> View {
    let mut bars = Vec::new();
    let (mut waiting, mut queued, mut open, mut left) = (Vec::new(), Vec::new(), 0, 0);
    for mount in seen {
        for upload in mount.uploads {
            let name = name(mount.prefix, upload);
            match upload.state {
                UploadState::Sending | UploadState::Checking => bars.push(Bar {
                    text: match upload.state {
                        UploadState::Checking => format!("{name}  sent, being checked"),
                        _ => name.clone(),
                    },
                    name: format!("upload {name}"),
                    done: upload.sent.min(upload.size),
                    total: upload.size,
                }),
                UploadState::Waiting => waiting.push(format!("{name}  {}", waiting_text(upload, now))),
                UploadState::Queued => queued.push(format!("{name}  waits for its turn")),
                UploadState::Open => open += 1,
                UploadState::Refused | UploadState::Unclosed => left += 1,
            }
        }
        for download in mount.downloads {
            let name = format!("{}{}", mount.prefix, printable(&download.file));
            let note = download
                .note
                .as_ref()
                .map(|note| format!("  {}", printable(note)));
            let waiting = waiting_readers(download).map(|text| format!("  {text}"));
            bars.push(Bar {
                text: format!(
                    "reading {name}{}{}",
                    waiting.unwrap_or_default(),
                    note.unwrap_or_default()
                ),
                name: format!("download {name}"),
                done: download.have.min(download.size),
                total: download.size,
            });
        }
    }
    let mut lines = shortened(waiting, |more| format!("and {more} more will be tried again"));
    lines.extend(if queued.len() > MOST_LINES {
        vec![format!("{} files wait for their turn", queued.len())]
    } else {
        queued
    });
    if open > 0 {
        lines.push(format!("{} still open in programs", files(open)));
    }
    if left > 0 {
        lines.push(format!(
            "{} kept until you decide (rdmfs uploads lists them)",
            files(left)
        ));
    }
    if bars.is_empty() && lines.is_empty() {
        lines.push("nothing is on its way".into());
    }
    View { bars, lines }
}

fn shortened(mut lines: Vec<String>, rest: impl Fn(usize) -> String) -> Vec<String> {
    if lines.len() > MOST_LINES {
        let more = lines.len() - MOST_LINES;
        lines.truncate(MOST_LINES);
        lines.push(rest(more));
    }
    lines
}

fn files(count: usize) -> String {
    match count {
        1 => "1 file is".into(),
        count => format!("{count} files are"),
    }
}

fn name(prefix: &str, upload: &Upload) -> String {
    format!("{prefix}{}", file(upload))
}

/// The draft and the key, as they can be shown.
#[must_use]
pub fn file(upload: &Upload) -> String {
    format!("{}/{}", printable(&upload.draft), printable(&upload.key))
}

/// How many reads wait for bytes of a download, in words, if any do.
#[must_use]
pub fn waiting_readers(download: &Download) -> Option<String> {
    match download.waiting {
        0 => None,
        1 => Some("1 read waits".into()),
        waiting => Some(format!("{waiting} reads wait")),
    }
}

/// What has changed since somebody looked last.
#[derive(Default)]
struct Changes {
    uploads: BTreeMap<String, (UploadState, u32)>,
    downloads: BTreeMap<String, Option<String>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Change {
    text: String,
    /// It is there no longer.
    is_end: bool,
}

impl Changes {
    fn since_last(&mut self, seen: &[Seen<'_>]) -> Vec<Change> {
        let mut uploads = BTreeMap::new();
        let mut downloads = BTreeMap::new();
        let mut changes = Vec::new();
        let mut tell = |text, is_end| changes.push(Change { text, is_end });
        for mount in seen {
            for upload in mount.uploads {
                let name = match upload.state {
                    // It may stand beside a closed one of the same file.
                    UploadState::Unclosed => format!("{} (unclosed)", name(mount.prefix, upload)),
                    _ => name(mount.prefix, upload),
                };
                let state = (upload.state, upload.tries);
                if self.uploads.get(&name) != Some(&state) {
                    tell(
                        format!("{name}: {} ({})", describe(upload), Size(upload.size)),
                        false,
                    );
                }
                uploads.insert(name, state);
            }
            for download in mount.downloads {
                let name = format!("{}{}", mount.prefix, printable(&download.file));
                if self.downloads.get(&name) != Some(&download.note) {
                    let note = download
                        .note
                        .as_ref()
                        .map(|note| format!(", {}", printable(note)));
                    let size = Size(download.size);
                    tell(
                        format!("{name}: reading ({size}{})", note.unwrap_or_default()),
                        false,
                    );
                }
                downloads.insert(name, download.note.clone());
            }
        }
        for (name, (state, _)) in &self.uploads {
            if !uploads.contains_key(name) {
                let what = if state.moves() {
                    "uploaded"
                } else {
                    "no longer kept: sent, removed or discarded"
                };
                tell(format!("{name}: {what}"), true);
            }
        }
        for name in self
            .downloads
            .keys()
            .filter(|name| !downloads.contains_key(*name))
        {
            tell(format!("{name}: no longer being read"), true);
        }
        (self.uploads, self.downloads) = (uploads, downloads);
        changes
    }
}

/// The state of an upload in words, with the reason where there is one.
#[must_use]
pub fn describe(upload: &Upload) -> String {
    let mut text = state_text(upload.state).to_owned();
    if let (UploadState::Waiting, Some(time)) = (upload.state, &upload.next_try) {
        text.push_str(&format!(" at {}", printable(time)));
    }
    if upload.tries > 1 {
        text.push_str(&format!(", tried {} times", upload.tries));
    }
    if let Some(reason) = &upload.reason {
        text.push_str(&format!(": {}", printable(reason)));
    }
    text
}

fn state_text(state: UploadState) -> &'static str {
    match state {
        UploadState::Open => "still open in a program",
        UploadState::Queued => "waits for its turn",
        UploadState::Sending => "sending",
        UploadState::Checking => "sent, being checked",
        UploadState::Waiting => "will be tried again",
        UploadState::Refused => "refused",
        UploadState::Unclosed => "never closed; kept until you decide",
    }
}

/// As [`describe`] for an upload that is tried again, with the time that is left until then.
#[must_use]
pub fn waiting_text(upload: &Upload, now: SystemTime) -> String {
    let when = match upload.next_try.as_deref().and_then(|time| time_until(time, now)) {
        Some(left) => format!("is tried again in {}", short(left)),
        None => state_text(UploadState::Waiting).to_owned(),
    };
    let tries = match upload.tries {
        0 | 1 => String::new(),
        tries => format!(", tried {tries} times"),
    };
    let reason = upload
        .reason
        .as_ref()
        .map(|reason| format!(": {}", printable(reason)));
    format!("{when}{tries}{}", reason.unwrap_or_default())
}

/// The time that is left until an RFC 3339 time; none once it has passed. `None` if it is no such time.
fn time_until(time: &str, now: SystemTime) -> Option<Duration> {
    let time: SystemTime = time.parse::<jiff::Timestamp>().ok()?.into();
    Some(time.duration_since(now).unwrap_or_default())
}

fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Local copying: a bar on a terminal, once it takes long enough that somebody wonders.
pub struct Copying {
    bar: ProgressBar,
    began: Instant,
}

impl Copying {
    /// Shows nothing yet.
    #[must_use]
    pub fn new(name: &str, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
            .with_style(bar_style())
            .with_message(printable(name));
        Copying {
            bar,
            began: Instant::now(),
        }
    }

    /// So many bytes are copied.
    pub fn update(&self, done: u64) {
        if self.bar.is_hidden() && self.began.elapsed() > PATIENCE && terminal::is_watched() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(done);
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(key: &str, state: UploadState) -> Upload {
        Upload {
            id: 1,
            draft: "abc".into(),
            key: key.into(),
            state,
            sent: 3,
            size: 10,
            tries: 1,
            next_try: None,
            reason: None,
            kept: "/state/data/1-0".into(),
        }
    }

    fn seen(uploads: &[Upload]) -> [Seen<'_>; 1] {
        [Seen {
            prefix: "",
            uploads,
            downloads: &[],
        }]
    }

    fn at(time: &str) -> SystemTime {
        time.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn what_moves_bytes_has_a_bar_and_what_waits_a_line() {
        let mut waits = upload("b", UploadState::Waiting);
        waits.next_try = Some("2026-01-01T00:00:12Z".into());
        waits.reason = Some("no connection\nat all".into());
        waits.tries = 3;
        let uploads = [
            upload("a", UploadState::Sending),
            waits,
            upload("c", UploadState::Queued),
        ];
        let downloads = [Download {
            file: "xyz/big.nc".into(),
            have: 5,
            size: 9,
            rate: 1,
            waiting: 3,
            note: Some("the server ignores ranges".into()),
        }];
        let seen = [Seen {
            prefix: "",
            uploads: &uploads,
            downloads: &downloads,
        }];
        let view = view(&seen, at("2026-01-01T00:00:00Z"));
        let bars: Vec<_> = view
            .bars
            .iter()
            .map(|bar| (&*bar.text, bar.done, bar.total))
            .collect();
        assert_eq!(
            bars,
            [
                ("abc/a", 3, 10),
                (
                    "reading xyz/big.nc  3 reads wait  the server ignores ranges",
                    5,
                    9
                )
            ]
        );
        assert_eq!(
            view.lines,
            [
                "abc/b  is tried again in 12 s, tried 3 times: no connection\\nat all",
                "abc/c  waits for its turn"
            ]
        );
    }

    #[test]
    fn what_was_there_before_anybody_looked_counts_for_no_speed() {
        let bar = new_bar(&Bar {
            name: "a".into(),
            text: "a".into(),
            done: 36 << 20,
            total: 90 << 20,
        });
        bar.reset_eta();
        std::thread::sleep(Duration::from_millis(5));
        bar.set_position(36 << 20);
        bar.tick();
        assert!(bar.per_sec() < 1.0, "{}", bar.per_sec());
        assert_eq!(bar.position(), 36 << 20);
    }

    #[test]
    fn many_that_wait_are_counted() {
        let queued: Vec<_> = (0..40)
            .map(|i| upload(&i.to_string(), UploadState::Queued))
            .collect();
        let shown = view(&seen(&queued), SystemTime::now());
        assert_eq!(shown.lines, ["40 files wait for their turn"]);
        let waiting: Vec<_> = (0..40)
            .map(|i| upload(&i.to_string(), UploadState::Waiting))
            .collect();
        let shown = view(&seen(&waiting), SystemTime::now());
        assert_eq!(shown.lines.len(), MOST_LINES + 1);
        assert_eq!(shown.lines[MOST_LINES], "and 35 more will be tried again");
        assert_eq!(
            view(&seen(&[]), SystemTime::now()).lines,
            ["nothing is on its way"]
        );
    }

    #[test]
    fn each_change_is_told_once() {
        let mut changes = Changes::default();
        let texts = |changes: Vec<Change>| changes.into_iter().map(|change| change.text).collect::<Vec<_>>();
        let sending = [upload("a", UploadState::Sending)];
        assert_eq!(
            texts(changes.since_last(&seen(&sending))),
            ["abc/a: sending (10 bytes)"]
        );
        assert!(changes.since_last(&seen(&sending)).is_empty());
        let refused = [upload("a", UploadState::Refused)];
        assert_eq!(
            texts(changes.since_last(&seen(&refused))),
            ["abc/a: refused (10 bytes)"]
        );
        let gone = changes.since_last(&seen(&[]));
        assert!(gone[0].is_end && !gone[0].text.contains("uploaded"), "{gone:?}");
        changes.since_last(&seen(&sending));
        assert_eq!(texts(changes.since_last(&seen(&[]))), ["abc/a: uploaded"]);
    }

    #[test]
    fn a_time_that_has_passed_is_no_time_left() {
        assert_eq!(
            time_until("2026-01-01T00:00:00Z", at("2026-01-01T00:01:00Z")),
            Some(Duration::ZERO)
        );
        assert_eq!(time_until("soon", SystemTime::now()), None);
        assert_eq!(short(Duration::from_secs(99)), "99 s");
        assert_eq!(short(Duration::from_secs(121)), "3 min");
    }
}
