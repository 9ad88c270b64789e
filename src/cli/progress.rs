//! Shows uploads on their way: bars on a terminal, otherwise one line for each change.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::terminal;
use crate::cli::units::Size;
use crate::status::{Upload, UploadState};

/// What is shown now.
pub struct Progress {
    bars: Option<MultiProgress>,
    shown: HashMap<String, Shown>,
}

struct Shown {
    bar: ProgressBar,
    state: UploadState,
    tries: u32,
}

impl Progress {
    /// Shows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Progress {
            bars: std::io::IsTerminal::is_terminal(&std::io::stderr()).then(MultiProgress::new),
            shown: HashMap::new(),
        }
    }

    /// Shows how things are now; what is no longer in `uploads` has arrived.
    pub fn update<'a>(&mut self, uploads: impl Iterator<Item = &'a Upload>) {
        let mut gone: Vec<String> = self.shown.keys().cloned().collect();
        for upload in uploads {
            let name = format!("{}/{}", upload.draft, upload.key);
            gone.retain(|other| *other != name);
            self.update_one(name, upload);
        }
        for name in gone {
            if let Some(shown) = self.shown.remove(&name) {
                shown.bar.finish_and_clear();
                self.line(&format!("{name}: uploaded"));
            }
        }
    }

    fn update_one(&mut self, name: String, upload: &Upload) {
        let before = self.shown.get(&name).map(|shown| (shown.state, shown.tries));
        let shown = self.shown.entry(name.clone()).or_insert_with(|| Shown {
            bar: self.bars.as_ref().map_or_else(ProgressBar::hidden, |bars| {
                bars.add(ProgressBar::new(upload.size).with_style(style()))
            }),
            state: upload.state,
            tries: upload.tries,
        });
        (shown.state, shown.tries) = (upload.state, upload.tries);
        shown.bar.set_length(upload.size);
        shown.bar.set_position(upload.sent);
        shown.bar.set_message(format!("{name}  {}", describe(upload)));
        if self.bars.is_none() && before != Some((upload.state, upload.tries)) {
            self.line(&format!("{name}: {} ({})", describe(upload), Size(upload.size)));
        }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                // A terminal that went away is no reason to stop.
                let _ = bars.println(text);
            }
            None => terminal::say(text),
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} {bytes:>10}/{total_bytes:10} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The state of an upload in words, with the reason where there is one.
#[must_use]
pub fn describe(upload: &Upload) -> String {
    let state = match upload.state {
        UploadState::Open => "still open in a program",
        UploadState::Queued => "waits for its turn",
        UploadState::Sending => "sending",
        UploadState::Checking => "sent, being checked",
        UploadState::Waiting => "will be tried again",
        UploadState::Refused => "refused",
        UploadState::Unclosed => "never closed",
    };
    let mut text = state.to_owned();
    if let Some(time) = upload
        .next_try
        .as_ref()
        .filter(|_| upload.state == UploadState::Waiting)
    {
        text.push_str(&format!(" at {time}"));
    }
    if let Some(reason) = &upload.reason {
        text.push_str(&format!(": {reason}"));
    }
    text
}
