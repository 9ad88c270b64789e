//! Junk rules: which names are never sent, and which are sent only if they stay.
//!
//! Programs put files beside the ones a user means: swap files, backups, locks, halves of downloads. They are accepted,
//! because a refusal breaks the program, and kept here. Used by `staging/` alone; it looks at names and nothing else.

use glob::{MatchOptions, Pattern};

use crate::error::{Error, Kind, Result};

/// What a name says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    /// A file that its user means.
    Real,
    /// It looks as if it were about to get another name, or to be removed: sent if neither happens soon.
    Passing,
    /// Never sent.
    Junk,
}

/// The rules of a mount.
#[derive(Debug)]
pub struct Rules {
    junk: Vec<Pattern>,
    passing: Vec<Pattern>,
}

/// Names that are junk unless a user says otherwise: what desktops, editors and browsers leave behind.
pub const JUNK: [&str; 33] = [
    // macOS
    ".DS_Store",
    "._*",
    ".AppleDouble",
    ".AppleDB",
    ".AppleDesktop",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".fseventsd",
    ".localized",
    "__MACOSX",
    // Windows
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "~$*",
    // Linux desktops
    ".directory",
    ".Trash-*",
    ".goutputstream-*",
    ".fuse_hidden*",
    ".nfs????????*",
    // LibreOffice
    ".~lock.*#",
    "lu[0-9]*[0-9a-z]*.tmp",
    // Backups, swap and lock files of editors: vim (which also tries whether it can make a file, with 4913), emacs, kate
    "?*~",
    ".*.sw[a-p]",
    ".*.sw[a-p]x",
    ".sw[a-p]",
    "4913",
    "#*#",
    ".#*",
    ".*.kate-swp",
    // Halves of downloads
    "*.part",
    "*.crdownload",
    "*.filepart",
];

/// Names that programs give to what they are still making: rsync, sed, Python's tempfile, emacs, sqlite, office programs.
const PASSING: [&str; 10] = [
    ".?*.[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]",
    "sed[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]",
    "tmp[0-9a-z_][0-9a-z_][0-9a-z_][0-9a-z_][0-9a-z_][0-9a-z_][0-9a-z_][0-9a-z_]",
    "tmp[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]",
    ".tmp*",
    "*.tmp",
    "*.temp",
    "*-journal",
    "*-wal",
    "*-shm",
];

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: false,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Rules {
    /// Rules with these patterns for junk: a file is junk if a part of its path matches one of them.
    ///
    /// # Errors
    /// `Usage` for a pattern that makes no sense.
    pub fn new<S: AsRef<str>>(junk: &[S]) -> Result<Self> {
        Ok(Rules {
            junk: patterns(junk)?,
            passing: patterns(&PASSING)?,
        })
    }

    /// What the name of a key says.
    pub(super) fn nature_of(&self, key: &str) -> Nature {
        let is = |patterns: &[Pattern], name: &str| patterns.iter().any(|p| p.matches_with(name, OPTIONS));
        if key.split('/').any(|part| is(&self.junk, part)) {
            Nature::Junk
        } else if key.split('/').any(|part| is(&self.passing, part)) {
            Nature::Passing
        } else {
            Nature::Real
        }
    }
}

fn patterns<S: AsRef<str>>(texts: &[S]) -> Result<Vec<Pattern>> {
    texts
        .iter()
        .map(|text| {
            let text = text.as_ref();
            Pattern::new(text).map_err(|e| {
                Error::new(Kind::Usage, format!("{text:?} is no pattern for file names: {e}")).with_advice(
                    "A pattern is a name in which * stands for any text and ? for one character.",
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_known_by_any_part_of_its_path() {
        let rules = Rules::new(&JUNK).unwrap();
        for key in [
            ".DS_Store",
            "data/._a.csv",
            "__MACOSX/a.csv",
            "THUMBS.DB",
            ".~lock.a.odt#",
            ".a.txt.swp",
            ".a.txt.swpx",
            "a.txt~",
            "#a.txt#",
            ".#a.txt",
            ".goutputstream-X1Y2Z3",
            "big.nc.part",
            "4913",
        ] {
            assert_eq!(rules.nature_of(key), Nature::Junk, "{key}");
        }
    }

    #[test]
    fn data_is_no_junk() {
        let rules = Rules::new(&JUNK).unwrap();
        for key in [
            "a.csv",
            "~",
            "part",
            "4913.csv",
            "a.partial",
            ".zenodo.json",
            ".hidden",
            "x/.gitignore",
            "tmpfile.csv",
            "sedan",
            "a.swp.csv",
            "journal",
        ] {
            assert_eq!(rules.nature_of(key), Nature::Real, "{key}");
        }
    }

    #[test]
    fn what_programs_are_still_making_is_known() {
        let rules = Rules::new(&JUNK).unwrap();
        for key in [
            ".a.csv.aB3xYz",
            "data/.a.csv.aB3xYz",
            "sedAb12Cd",
            "tmpa1b2c3d_",
            "tmpa1b2c3d_/a.csv",
            "tmpAb12Cd",
            "a.db-journal",
            "save.tmp",
        ] {
            assert_eq!(rules.nature_of(key), Nature::Passing, "{key}");
        }
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_told() {
        assert_eq!(Rules::new(&["a[b"]).unwrap_err().kind(), Kind::Usage);
    }
}
