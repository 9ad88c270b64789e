//! `md5sums.txt` of a record: its files' checksums as md5sum(1) reads them, from the list of files alone.
//!
//! Used by `open` and `view`. It makes no request but the one for the list, and says what `user.rdm.checksum` says. A
//! file without an MD5 is left out: `md5sum -c --strict` allows neither comments nor empty lines.

use std::time::Duration;

use bytes::Bytes;

use super::Tree;
use super::node::{Access, Attributes, Node};
use super::open::{Handle, Opened};
use super::view::View;
use crate::catalog;
use crate::error::{Kind, Result};
use crate::repository::model::{Md5, Owner, RecordId};

impl Tree {
    /// Opens the list of a record.
    pub(super) fn open_sums(&self, record: &RecordId) -> Result<Opened> {
        let view = self.view(&Owner::Record(record.clone()))?;
        Ok(Opened {
            direct: true,
            ..Opened::plain(Handle::Text(Bytes::from(text_of(&view))))
        })
    }

    /// What stat(2) says of it. As `files`, it is there where the files can't be listed: then opening it gives the reason.
    pub(super) fn sums_attributes(&self, record: &RecordId, entry: &catalog::Entry) -> Attributes {
        let node = Node::Sums(record.clone());
        let known = Attributes {
            kind: node.kind(),
            ..self.folder_attributes(&node, entry)
        };
        match self.view(&Owner::Record(record.clone())) {
            Ok(view) => Attributes {
                size: text_of(&view).len() as u64,
                ..known
            },
            Err(error) if error.kind() == Kind::Denied => Attributes {
                access: Access::Private,
                ..known
            },
            // It may work the next time.
            Err(_) => Attributes {
                valid: Duration::ZERO,
                ..known
            },
        }
    }
}

/// The files that have an MD5, by the names they are shown under in `files`, which is where md5sum is to run.
fn text_of(view: &View) -> String {
    let mut text = String::new();
    for (path, file) in view.files_below("") {
        if let Some(md5) = file.entry.md5 {
            add_line(&mut text, md5, &path);
        }
    }
    text
}

/// One line. A name with a backslash or a line end in it is escaped, and a backslash before the line says so.
fn add_line(text: &mut String, md5: Md5, path: &str) {
    if path.contains(['\\', '\n', '\r']) {
        text.push('\\');
    }
    text.push_str(&format!("{md5}  "));
    // It would be standard input.
    if path == "-" {
        text.push_str("./");
    }
    for character in path.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::model::{FileEntry, FileStatus};
    use crate::tree::view::File;

    #[test]
    fn a_file_without_an_md5_is_left_out() {
        let file = |key: &str, md5| File {
            entry: FileEntry {
                key: key.into(),
                size: Some(1),
                md5,
                mimetype: None,
                updated: None,
                status: FileStatus::Completed,
            },
            staged: None,
        };
        let files = vec![file("b", Some(Md5([0xab; 16]))), file("a", None)];
        let view = View::new(files, &std::collections::BTreeSet::new(), &[]);
        assert_eq!(text_of(&view), format!("{}  b\n", "ab".repeat(16)));
    }

    #[test]
    fn names_that_md5sum_escapes_are_escaped_as_it_does() {
        let md5 = Md5::from_hex("d41d8cd98f00b204e9800998ecf8427e").unwrap();
        let line = |path: &str| {
            let mut text = String::new();
            add_line(&mut text, md5, path);
            text
        };
        assert_eq!(
            line("files/a  b#c"),
            "d41d8cd98f00b204e9800998ecf8427e  files/a  b#c\n"
        );
        assert_eq!(line("-"), "d41d8cd98f00b204e9800998ecf8427e  ./-\n");
        assert_eq!(
            line("files/a\\b\nc\rd"),
            "\\d41d8cd98f00b204e9800998ecf8427e  files/a\\\\b\\nc\\rd\n"
        );
    }
}
