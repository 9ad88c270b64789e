//! The members of an archive as folders and names.
//!
//! Made once for each archive by `archives`. The rules are those of `names` for keys; but an archive may have a million
//! members, and a stranger made their names, so folders are numbered, and nothing here grows faster than the names do.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::names;
use crate::archives::{MOST_MEMBERS, Member};
use crate::catalog::timed::Weigh;
use crate::error::{Error, Kind, Result};

/// How often another name is tried for one that is taken.
const TRIES: u32 = 1000;

/// How many members that are not shown are named in the log.
const NAMED: usize = 5;

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Contents {
    /// The first is the archive itself.
    folders: Vec<Folder>,
    members: Vec<Member>,
    weight: usize,
    /// What is added to the numbers of all but the first folder.
    base: u32,
}

/// What the numbers begin with of what the repository has listed. They are no numbers of what is read from the same archive.
const TOLD: u32 = 1 << 31;

/// A folder in an archive.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// What is in it, by name.
    pub(super) items: BTreeMap<Box<str>, Item>,
    /// When it was changed, if the archive says so.
    pub(super) modified: Option<SystemTime>,
}

/// What a name in an archive stands for, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    Folder(u32),
    File(u32),
}

/// Where a member goes.
#[derive(Clone, Copy)]
enum Place {
    /// Into this folder.
    In(u32),
    /// It was a folder.
    Done,
}

impl Contents {
    /// Lays the members of the archive called `what` out.
    ///
    /// # Errors
    /// `TooLarge` if their names make too many folders.
    pub(super) fn new(members: Vec<Member>, what: &str) -> Result<Self> {
        let mut contents = Contents {
            folders: vec![Folder::default()],
            members: Vec::new(),
            weight: 0,
            base: 0,
        };
        let mut left_out = Vec::new();
        let mut places = Vec::with_capacity(members.len());
        for member in &members {
            places.push(contents.make_folders(member)?);
            if contents.folders.len() + places.len() > MOST_MEMBERS + 1 {
                let error = format!("{what} has more than {MOST_MEMBERS} members and folders");
                return Err(Error::new(Kind::TooLarge, error)
                    .with_advice("Copy the archive from files/ and unpack it."));
            }
        }
        // Members that can be shown as they are come first: no encoded name may take theirs.
        let is_plain = |name: &str| name.split('/').all(names::is_showable_name);
        for plain in [true, false] {
            for (number, member) in members.iter().enumerate() {
                let Place::In(folder) = places[number] else {
                    continue;
                };
                if is_plain(&member.name) != plain {
                    continue;
                }
                let number = number as u32;
                if !contents.put(&members, folder, number, &mut left_out) {
                    left_out.push(number);
                }
            }
        }
        for number in left_out.iter().take(NAMED) {
            let name: String = members[*number as usize].name.chars().take(100).collect();
            log::warn!("{what}: {name:?} is there again, or all its names are taken: it is not shown");
        }
        if left_out.len() > NAMED {
            log::warn!("{what}: {} members are not shown in all", left_out.len());
        }
        let of_names: usize = members.iter().map(|member| member.name.len() * 2).sum();
        contents.weight = of_names + members.len() * 180 + contents.folders.len() * 150;
        contents.members = members;
        Ok(contents)
    }

    /// The same, as told by the repository and not read from the archive.
    pub(super) fn told(mut self) -> Self {
        self.base = TOLD;
        for folder in &mut self.folders {
            for item in folder.items.values_mut() {
                match item {
                    Item::Folder(number) | Item::File(number) => *number += TOLD,
                }
            }
        }
        self
    }

    /// Whether it was told by the repository: then there is no saying where a member is in the archive.
    pub(super) fn is_told(&self) -> bool {
        self.base == TOLD
    }

    /// A folder by its number.
    pub(super) fn folder(&self, number: u32) -> Option<&Folder> {
        let number = match number {
            0 => 0,
            _ => number.checked_sub(self.base)?,
        };
        self.folders.get(number as usize)
    }

    /// A member by its number.
    pub(super) fn member(&self, number: u32) -> Option<&Member> {
        self.members.get(number.checked_sub(self.base)? as usize)
    }

    /// A member by its name in the archive; of several, the one that counts.
    pub(super) fn member_called(&self, name: &str) -> Option<&Member> {
        self.members.iter().rfind(|member| &*member.name == name)
    }

    /// Makes the folders that a member's name goes through.
    fn make_folders(&mut self, member: &Member) -> Result<Place> {
        let name: &str = &member.name;
        let (stem, is_folder) = match name.strip_suffix('/') {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        if stem.split('/').any(str::is_empty) {
            // Can't be folders: the whole name becomes one. (A folder of such a name holds nothing by itself.)
            return Ok(if is_folder { Place::Done } else { Place::In(0) });
        }
        let above = if is_folder {
            Some(stem)
        } else {
            stem.rsplit_once('/').map(|(above, _)| above)
        };
        let mut folder = 0;
        for part in above.into_iter().flat_map(|above| above.split('/')) {
            folder = self.make_folder(folder, part)?;
        }
        if is_folder {
            self.folders[folder as usize].modified = member.modified;
            return Ok(Place::Done);
        }
        Ok(Place::In(folder))
    }

    fn make_folder(&mut self, above: u32, part: &str) -> Result<u32> {
        let name = names::part_name(part);
        let next = self.folders.len();
        // Checked here too: one name may hold tens of thousands.
        if next > MOST_MEMBERS {
            let what = format!("an archive makes more than {MOST_MEMBERS} folders");
            return Err(Error::new(Kind::TooLarge, what));
        }
        let items = &mut self.folders[above as usize].items;
        match items.get(name.as_str()) {
            Some(Item::Folder(number)) => Ok(*number),
            // There are no files yet.
            _ => {
                items.insert(name.into(), Item::Folder(next as u32));
                self.folders.push(Folder::default());
                Ok(next as u32)
            }
        }
    }

    /// Gives a file its name. Of several with the same one the last counts, as for who unpacks them: the others go to
    /// `again`. False if there is no name for it.
    fn put(&mut self, members: &[Member], folder: u32, number: u32, again: &mut Vec<u32>) -> bool {
        let raw: &str = &members[number as usize].name;
        let last = raw.rsplit('/').next().unwrap_or_default();
        let mut name = if raw.split('/').any(str::is_empty) {
            names::encoded_name(raw)
        } else {
            names::part_name(last)
        };
        let items = &mut self.folders[folder as usize].items;
        if matches!(items.get(name.as_str()), Some(Item::Folder(_))) {
            name = names::first_encoded(&name);
        }
        let base = name.clone();
        for tried in 1..=TRIES {
            match items.get_mut(name.as_str()) {
                None => {
                    items.insert(name.into(), Item::File(number));
                    return true;
                }
                Some(Item::File(other)) if *members[*other as usize].name == *raw => {
                    again.push(*other);
                    *other = number;
                    return true;
                }
                Some(_) => name = names::shortened(&base, &format!("~{tried}")),
            }
        }
        false
    }
}

impl Weigh for Contents {
    fn weight(&self) -> usize {
        self.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archives::Method;

    fn member(name: &str) -> Member {
        Member {
            name: name.into(),
            method: Method::Stored,
            is_encrypted: false,
            crc32: 0,
            compressed: 0,
            size: 0,
            header: 0,
            modified: None,
        }
    }

    /// All files by their path, with the number of the member; folders by their path and `/`.
    fn paths(names: &[&str]) -> BTreeMap<String, Option<u32>> {
        let members = names.iter().map(|name| member(name)).collect();
        let contents = Contents::new(members, "test").unwrap();
        let mut found = BTreeMap::new();
        let mut open = vec![(String::new(), 0)];
        while let Some((path, number)) = open.pop() {
            for (name, item) in &contents.folder(number).unwrap().items {
                assert!(names::is_showable_name(name) && !name.contains('/'), "{name:?}");
                match item {
                    Item::Folder(below) => {
                        found.insert(format!("{path}{name}/"), None);
                        open.push((format!("{path}{name}/"), *below));
                    }
                    Item::File(number) => {
                        found.insert(format!("{path}{name}"), Some(*number));
                    }
                }
            }
        }
        found
    }

    fn of(pairs: &[(&str, Option<u32>)]) -> BTreeMap<String, Option<u32>> {
        pairs
            .iter()
            .map(|(path, number)| ((*path).to_owned(), *number))
            .collect()
    }

    #[test]
    fn folders_are_implied_by_names_or_said() {
        let found = paths(&["a/b/c.txt", "a/d.txt", "e/", "f.txt", "a/"]);
        let expected = [
            ("a/", None),
            ("a/b/", None),
            ("a/b/c.txt", Some(0)),
            ("a/d.txt", Some(1)),
            ("e/", None),
            ("f.txt", Some(3)),
        ];
        assert_eq!(found, of(&expected));
    }

    #[test]
    fn no_name_leads_out_of_the_archive() {
        let hostile = [
            "../x",
            "a/../../y",
            "/etc/passwd",
            "a//b",
            "./z",
            "..",
            "c:\\d",
            "..\\e",
            "t\tu",
            "",
            "/",
            "//",
            "f\0g",
        ];
        let found = paths(&hostile);
        let expected = [
            ("%2E%2E/", None),
            ("%2E%2E/x", Some(0)),
            ("a/", None),
            ("a/%2E%2E/", None),
            ("a/%2E%2E/%2E%2E/", None),
            ("a/%2E%2E/%2E%2E/y", Some(1)),
            ("%2Fetc%2Fpasswd", Some(2)),
            ("a%2F%2Fb", Some(3)),
            ("%2E/", None),
            ("%2E/z", Some(4)),
            // The place of its name is taken by a folder.
            ("%252E%2E", Some(5)),
            ("c:\\d", Some(6)),
            ("..\\e", Some(7)),
            ("t%09u", Some(8)),
            ("%", Some(9)),
            ("f%00g", Some(12)),
        ];
        assert_eq!(found, of(&expected));
    }

    #[test]
    fn of_members_with_one_name_the_last_counts() {
        assert_eq!(paths(&["a", "b", "a"]), of(&[("a", Some(2)), ("b", Some(1))]));
        assert_eq!(paths(&["a\n", "a\n"]), of(&[("a%0A", Some(1))]));
        // Others are told apart.
        let found = paths(&["a%0A", "a\n", "a\n"]);
        assert_eq!(found, of(&[("a%0A", Some(0)), ("a%0A~1", Some(2))]));
    }

    #[test]
    fn a_file_beside_a_folder_of_its_name_is_encoded() {
        let expected = [("a/", None), ("a/b", Some(1)), ("%61", Some(0))];
        assert_eq!(paths(&["a", "a/b"]), of(&expected));
        assert_eq!(paths(&["a/b", "a"]).len(), 3);
        assert_eq!(paths(&["a", "a/"]), of(&[("a/", None), ("%61", Some(0))]));
    }

    #[test]
    fn long_names_are_cut_and_told_apart() {
        let long = "x".repeat(300);
        let other = format!("{}y", &long[..299]);
        assert_eq!(paths(&[&long, &other]).len(), 2);
    }

    #[test]
    fn a_name_of_very_many_folders_is_refused_and_not_descended() {
        let deep = "a/".repeat(30_000) + "b";
        assert_eq!(paths(&[&deep]).len(), 30_001);
        let many: Vec<Member> = (0..40)
            .map(|n| member(&format!("{n}/{}", "a/".repeat(32_000))))
            .collect();
        let error = Contents::new(many, "test").unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
    }
}
