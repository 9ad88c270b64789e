//! Keys and file names: which file a key is shown as, and which key a name means.
//!
//! A key is any text the server took; a `/` in it makes folders. What can't be shown as it is, is shown
//! percent-encoded. A [`Layout`] is made from all keys of a record at once, so that names never collide and a key
//! from a server never leaves the record's folder. Used by `tree/` alone; asks nobody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Result};

/// The longest name a file can have, in bytes (`NAME_MAX`).
pub const LONGEST_NAME: usize = 255;
/// The longest key the server takes, in characters (API notes, section 3).
pub const LONGEST_KEY: usize = 255;

/// What is encoded in a name that can't be shown as it is.
const UNSHOWABLE: &AsciiSet = &CONTROLS.add(b'/').add(b'%');

/// A folder of a layout: its entries by name.
pub type Folder = BTreeMap<String, Item>;

/// What a name in a folder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A folder, made by the `/` in the keys below it.
    Folder,
    /// The file with this place in the list of keys.
    File(usize),
}

/// The keys of one record as a tree of folders. The top folder has the path `""`, others `a/b`.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    folders: HashMap<String, Folder>,
    /// Keys that are not shown as they are. What they are called depends on all the others.
    encoded: usize,
}

impl Layout {
    /// Lays out `keys`. The names in `reserved` are taken in the top folder.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>, reserved: &[&str]) -> Self {
        let keys: Vec<&str> = keys.into_iter().collect();
        let mut layout = Layout::default();
        layout.folders.insert(String::new(), Folder::new());

        // Keys that can be shown as they are come first: no encoded name may take theirs.
        let folders = shown_folders(&keys);
        let plain = |key: &str| is_showable(key) && !folders.contains(key) && !reserved.contains(&key);
        let (shown, others): (Vec<_>, Vec<_>) = keys.iter().enumerate().partition(|(_, key)| plain(key));
        for (index, key) in shown {
            layout.insert(key, index);
        }
        layout.encoded = others.len();
        for (index, key) in others {
            let taken = |path: &str| layout.has(path) || reserved.contains(&path);
            let path = encoded_path(key, &folders, reserved, taken);
            layout.insert(&path, index);
        }
        layout
    }

    /// Adds a folder that no key makes (yet), with those above it.
    pub fn add_folder(&mut self, path: &str) {
        if self.folders.contains_key(path) {
            return;
        }
        self.folders.insert(path.to_owned(), Folder::new());
        let (above, name) = split(path);
        if !name.is_empty() {
            self.add_folder(above);
            if let Some(folder) = self.folders.get_mut(above) {
                folder.entry(name.to_owned()).or_insert(Item::Folder);
            }
        }
    }

    /// Adds a key that is shown as it is and changes the name of no other: as if all had been laid out anew. `None` if
    /// it isn't so, and nothing is changed.
    #[must_use]
    pub fn add_key(&mut self, key: &str, index: usize, reserved: &[&str]) -> Option<()> {
        let is_in_folders = above(key).all(|path| !self.has_file(path));
        let is_free = !self.has(key) && !self.folders.contains_key(key) && !reserved.contains(&key);
        (is_showable(key) && is_free && is_in_folders).then(|| self.insert(key, index))
    }

    /// Removes a key, and the folders that it alone made; `stays` tells the others. `None` if that may change the names
    /// of other keys: then all must be laid out anew.
    #[must_use]
    pub fn remove_key(&mut self, key: &str, stays: impl Fn(&str) -> bool) -> Option<()> {
        if self.encoded > 0 || !self.has_file(key) || self.folders.contains_key(key) {
            return None;
        }
        let (above, name) = split(key);
        self.folders.get_mut(above)?.remove(name);
        self.remove_empty(above, stays)
    }

    /// Removes a folder that nothing makes any more, if it is empty, and likewise those above it; `stays` tells the
    /// others. `None` if that may change names: then all must be laid out anew.
    #[must_use]
    pub fn remove_empty(&mut self, path: &str, stays: impl Fn(&str) -> bool) -> Option<()> {
        let mut path = path;
        while !path.is_empty() && !stays(path) && self.folders.get(path).is_some_and(Folder::is_empty) {
            if self.has_file(path) {
                return None;
            }
            self.folders.remove(path);
            let (above, name) = split(path);
            self.folders.get_mut(above)?.remove(name);
            path = above;
        }
        Some(())
    }

    /// The entries of a folder.
    #[must_use]
    pub fn folder(&self, path: &str) -> Option<&Folder> {
        self.folders.get(path)
    }

    fn item(&self, path: &str) -> Option<&Item> {
        let (above, name) = split(path);
        self.folders.get(above)?.get(name)
    }

    fn has(&self, path: &str) -> bool {
        self.item(path).is_some()
    }

    fn has_file(&self, path: &str) -> bool {
        matches!(self.item(path), Some(Item::File(_)))
    }

    fn insert(&mut self, path: &str, index: usize) {
        let (above, name) = split(path);
        self.add_folder(above);
        if let Some(folder) = self.folders.get_mut(above) {
            folder.insert(name.to_owned(), Item::File(index));
        }
    }
}

/// The path of an entry of a folder.
#[must_use]
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        name.to_owned()
    } else {
        format!("{folder}/{name}")
    }
}

/// The folder of a path, and the last name in it.
#[must_use]
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The paths of all folders that a key is in, but the top one.
fn above(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('/').map(|(end, _)| &key[..end])
}

/// The name that an id of the server's (a slug, a word of a vocabulary) is shown under, with this at its end. It stands for
/// this id alone, and never begins with a dot. `None` if it would be too long.
#[must_use]
pub fn name_of_id(id: &str, end: &str) -> Option<String> {
    let mut name = String::new();
    for (place, character) in id.chars().enumerate() {
        if character.is_control() || matches!(character, '/' | '%') || (place == 0 && character == '.') {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                // Writing to a String can't fail.
                write!(name, "%{byte:02X}").unwrap_or_default();
            }
        } else {
            name.push(character);
        }
    }
    let fits = !name.is_empty() && name.len() + end.len() <= LONGEST_NAME;
    fits.then(|| name + end)
}

/// The id that is shown under this name, if one can be.
#[must_use]
pub fn id_of_name(name: &str, end: &str) -> Option<String> {
    let encoded = name.strip_suffix(end)?;
    let id = percent_decode_str(encoded).decode_utf8().ok()?.into_owned();
    // One name for one id.
    (name_of_id(&id, end).as_deref() == Some(name)).then_some(id)
}

/// Refuses what no file can be called. The kernel itself lets names of up to 1024 bytes through.
///
/// # Errors
/// `Call(ENAMETOOLONG)`.
pub fn check_length(name: &str) -> Result<()> {
    match name.len() > LONGEST_NAME {
        true => Err(Error::call(libc::ENAMETOOLONG)),
        false => Ok(()),
    }
}

/// Whether a name that a user makes can be (a part of) a key, and be the same when it comes back from the server.
#[must_use]
pub fn is_showable_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && name.len() <= LONGEST_NAME
        && !name.chars().any(char::is_control)
}

/// Names that shells, version control, file managers and indexers look for in every folder. They are answered
/// without a request. Collected from what git, ripgrep, GNOME, KDE, Windows and macOS ask for.
#[must_use]
pub fn is_probe(name: &str) -> bool {
    const PROBES: [&str; 44] = [
        ".AppleDB",
        ".AppleDesktop",
        ".AppleDouble",
        ".DS_Store",
        ".Spotlight-V100",
        ".TemporaryItems",
        ".Trash",
        ".Trashes",
        ".VolumeIcon.icns",
        ".bzr",
        ".comments",
        ".directory",
        ".dir-locals.el",
        ".dir-locals-2.el",
        ".editorconfig",
        ".envrc",
        ".fdignore",
        ".fseventsd",
        ".git",
        ".gitattributes",
        ".gitignore",
        ".gitmodules",
        ".hg",
        ".hidden",
        ".ignore",
        ".localized",
        ".metadata_never_index",
        ".nomedia",
        ".project",
        ".rgignore",
        ".svn",
        ".thumbnails",
        ".xdg-volume-info",
        ".xvpics",
        "AUTORUN.INF",
        "Autorun.inf",
        "BDMV",
        "CVS",
        "Desktop.ini",
        "Thumbs.db",
        "autorun.inf",
        "autorun.sh",
        "desktop.ini",
        "lost+found",
    ];
    PROBES.contains(&name)
        || name.starts_with("._")
        || name.starts_with(".Trash-")
        || name.starts_with(".nfs")
}

/// All paths that are folders because a key goes through them, as it is shown.
fn shown_folders(keys: &[&str]) -> HashSet<String> {
    let mut folders = HashSet::new();
    for key in keys.iter().filter(|key| !key.split('/').any(str::is_empty)) {
        let parts: Vec<String> = key.split('/').map(part_name).collect();
        for end in 1..parts.len() {
            folders.insert(parts[..end].join("/"));
        }
    }
    folders
}

fn is_showable(key: &str) -> bool {
    key.split('/').all(is_showable_name)
}

/// The path that stands for a key that can't be shown as it is, and isn't taken yet.
fn encoded_path(
    key: &str,
    folders: &HashSet<String>,
    reserved: &[&str],
    taken: impl Fn(&str) -> bool,
) -> String {
    // An empty part can't be a name: the whole key becomes one. Otherwise the folders stay.
    let encoded = if key.split('/').any(str::is_empty) {
        encoded_name(key)
    } else {
        let parts: Vec<String> = key.split('/').map(part_name).collect();
        parts.join("/")
    };
    // Showable by itself, but its place is taken by a folder of the same name or a reserved name: the first
    // character of the name is encoded.
    let mut path = if folders.contains(encoded.as_str()) || reserved.contains(&encoded.as_str()) {
        let (above, name) = split(&encoded);
        join(above, &first_encoded(name))
    } else {
        encoded
    };
    let mut number = 1;
    while taken(&path) || folders.contains(path.as_str()) {
        let (above, name) = split(&path);
        let name = shortened(name, &format!("~{number}"));
        path = join(above, &name);
        number += 1;
    }
    path
}

/// What a part of a key is shown as, if nothing else has that name.
pub(super) fn part_name(part: &str) -> String {
    match part {
        "." | ".." => part.replace('.', "%2E"),
        _ if is_showable_name(part) => part.to_owned(),
        _ => encoded_name(part),
    }
}

/// Percent-encodes what can't be in a name. A name over 255 bytes is cut and told apart by a hash of the whole.
pub(super) fn encoded_name(part: &str) -> String {
    let encoded = utf8_percent_encode_keeping_unicode(part);
    if encoded.len() <= LONGEST_NAME && !encoded.is_empty() {
        return encoded;
    }
    if encoded.is_empty() {
        // The empty key.
        return "%".to_owned();
    }
    shortened(&encoded, &format!("%~{:08x}", crc32fast::hash(part.as_bytes())))
}

/// Encodes control characters, `/` and `%`, and leaves the rest of Unicode readable.
fn utf8_percent_encode_keeping_unicode(part: &str) -> String {
    let mut out = String::new();
    for character in part.chars() {
        let mut buffer = [0; 4];
        let text = character.encode_utf8(&mut buffer);
        if character.is_ascii() {
            out.extend(utf8_percent_encode(text, UNSHOWABLE));
        } else if character.is_control() {
            // Writing to a String can't fail.
            text.bytes()
                .for_each(|byte| write!(out, "%{byte:02X}").unwrap_or_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A name that begins with its first character encoded.
pub(super) fn first_encoded(name: &str) -> String {
    let mut out = String::new();
    let mut characters = name.chars();
    if let Some(first) = characters.next() {
        let mut buffer = [0; 4];
        for byte in first.encode_utf8(&mut buffer).bytes() {
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
    out.push_str(characters.as_str());
    shortened(&out, "")
}

/// Appends `tail`, cutting the name where the whole would be too long for a file name.
pub(super) fn shortened(name: &str, tail: &str) -> String {
    let mut end = name.len().min(LONGEST_NAME - tail.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{tail}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All files of a layout by path.
    fn paths(keys: &[&str], reserved: &[&str]) -> BTreeMap<String, String> {
        let layout = Layout::new(keys.iter().copied(), reserved);
        let mut found = BTreeMap::new();
        let mut folders = vec![String::new()];
        while let Some(path) = folders.pop() {
            for (name, item) in layout.folder(&path).unwrap() {
                assert!(is_showable_name(name), "{name:?}");
                let path = join(&path, name);
                match item {
                    Item::Folder => folders.push(path),
                    Item::File(index) => {
                        found.insert(path, keys[*index].to_owned());
                    }
                }
            }
        }
        assert_eq!(
            found.len(),
            keys.len(),
            "every key has a name of its own: {found:?}"
        );
        found
    }

    #[test]
    fn ordinary_keys_are_their_own_names() {
        let keys = [
            "a.csv",
            "dir/sub/c.txt",
            "dir/d.txt",
            "Größe ü.txt",
            "100%.txt",
            "a%2Fb.txt",
            "q?x=1#y",
            " b ",
        ];
        for (path, key) in paths(&keys, &[]) {
            assert_eq!(path, key);
        }
    }

    #[test]
    fn keys_that_would_leave_the_folder_are_encoded() {
        let found = paths(&["../x", "a/../b", ".", "..", "/lead", "trail/", "a//b", ""], &[]);
        assert!(found.keys().all(|path| {
            path.split('/')
                .all(|part| part != ".." && part != "." && !part.is_empty())
        }));
        assert_eq!(found["%2E%2E/x"], "../x");
        assert_eq!(found["a/%2E%2E/b"], "a/../b");
        assert_eq!(found["%2Flead"], "/lead");
        assert_eq!(found["a%2F%2Fb"], "a//b");
    }

    #[test]
    fn control_characters_are_encoded() {
        let found = paths(&["a\nb", "t\tx", "d/e\u{85}f"], &[]);
        assert_eq!(found["a%0Ab"], "a\nb");
        assert_eq!(found["t%09x"], "t\tx");
        assert_eq!(found["d/e%C2%85f"], "d/e\u{85}f");
    }

    #[test]
    fn a_file_beside_a_folder_of_its_name_is_encoded() {
        let found = paths(&["a", "a/b", "d/a", "d/a/b"], &[]);
        assert_eq!(found["%61"], "a");
        assert_eq!(found["a/b"], "a/b");
        assert_eq!(found["d/%61"], "d/a");
        let found = paths(&["x", "x/a\nb", "..", "../y"], &[]);
        assert_eq!(found["%78"], "x");
        assert_eq!(found["x/a%0Ab"], "x/a\nb");
    }

    #[test]
    fn a_reserved_name_is_encoded_in_the_top_folder_only() {
        let found = paths(&["record.json", "d/record.json"], &["record.json"]);
        assert_eq!(found["%72ecord.json"], "record.json");
        assert_eq!(found["d/record.json"], "d/record.json");
    }

    #[test]
    fn an_encoded_name_never_takes_the_place_of_a_key() {
        let found = paths(&["a\nb", "a%0Ab", "a", "a/x", "%61"], &[]);
        assert_eq!(found["a%0Ab"], "a%0Ab");
        assert_eq!(found["a%0Ab~1"], "a\nb");
        assert_eq!(found["%61"], "%61");
        assert_eq!(found["%61~1"], "a");
    }

    #[test]
    fn names_over_255_bytes_are_cut_and_told_apart() {
        let long = "ü".repeat(200);
        let other = format!("{}x", "ü".repeat(199));
        paths(&[&long, &other], &[]);
        let fits = "x".repeat(255);
        assert_eq!(paths(&[&fits], &[])[&fits], fits);
    }

    #[test]
    fn an_added_folder_is_listed_and_empty() {
        let mut layout = Layout::new(["a/b"], &[]);
        layout.add_folder("c/d");
        assert_eq!(layout.folder("c").unwrap()["d"], Item::Folder);
        assert!(layout.folder("c/d").unwrap().is_empty());
        assert_eq!(layout.folder("").unwrap().len(), 2);
    }

    /// All that a layout says, whatever the keys' places in their list are.
    fn shown(layout: &Layout, keys: &[&str]) -> BTreeMap<String, BTreeMap<String, Option<String>>> {
        let entry = |(name, item): (&String, &Item)| {
            let key = match item {
                Item::Folder => None,
                Item::File(index) => Some(keys[*index].to_owned()),
            };
            (name.clone(), key)
        };
        let folders = layout.folders.iter();
        folders
            .map(|(path, folder)| (path.clone(), folder.iter().map(entry).collect()))
            .collect()
    }

    /// Every set of a few keys that get into each other's way, and every step to one key more or less.
    #[test]
    fn a_changed_layout_is_as_a_new_one() {
        const KEYS: [&str; 10] = [
            "a", "a/b", "a/b/c", "%61", "a\nb", "a%0Ab", "r", "r/x", "..", "a/%62",
        ];
        let added = ["c", "a/b"];
        let laid_out = |set: u32, folders: &[&str]| {
            let chosen: Vec<usize> = (0..KEYS.len()).filter(|bit| set & (1 << bit) != 0).collect();
            let keys: Vec<&str> = chosen.iter().map(|bit| KEYS[*bit]).collect();
            let mut layout = Layout::new(keys.iter().copied(), &["r"]);
            for folder in layout.folders.values_mut() {
                for item in folder.values_mut() {
                    if let Item::File(index) = item {
                        *index = chosen[*index];
                    }
                }
            }
            folders.iter().for_each(|folder| layout.add_folder(folder));
            layout
        };
        let mut steps = 0;
        for folders in [&[][..], &added[..1], &added[1..], &added[..]] {
            for set in 0..1 << KEYS.len() {
                let layout = laid_out(set, folders);
                for (bit, key) in KEYS.iter().enumerate() {
                    let mut changed = layout.clone();
                    let step = if set & (1 << bit) == 0 {
                        changed.add_key(key, bit, &["r"])
                    } else {
                        changed.remove_key(key, |path| folders.contains(&path))
                    };
                    if step.is_some() {
                        let anew = laid_out(set ^ (1 << bit), folders);
                        assert_eq!(shown(&changed, &KEYS), shown(&anew, &KEYS), "{key} of {set:b}");
                        assert_eq!(changed.encoded, anew.encoded);
                        steps += 1;
                    }
                }
                for (index, folder) in folders.iter().enumerate() {
                    let fewer: Vec<&str> = [&folders[..index], &folders[index + 1..]].concat();
                    let mut changed = layout.clone();
                    if changed
                        .remove_empty(folder, |path| fewer.contains(&path))
                        .is_some()
                    {
                        assert_eq!(shown(&changed, &KEYS), shown(&laid_out(set, &fewer), &KEYS));
                        steps += 1;
                    }
                }
            }
        }
        assert!(steps > 10_000, "{steps}");
    }

    #[test]
    fn an_id_has_one_name_and_a_name_one_id() {
        let long = "x".repeat(300);
        let ids = [
            "eng",
            "https://id.example/a/b",
            "a%2Fb",
            "a/b",
            ".",
            "..",
            ".git",
            "a.b",
            "100%",
            "\u{1}\n\t\u{85}",
            "\u{202e}rtl",
            "e\u{301}",
            "\u{e9}",
            "\u{1f4a9}",
            " ",
            "../../etc/passwd",
            "record.json",
            "x.json",
        ];
        let mut seen = HashSet::new();
        for id in ids {
            for end in ["", ".json"] {
                let name = name_of_id(id, end).unwrap();
                assert!(
                    is_showable_name(&name) && !name.contains('/') && !name.starts_with('.'),
                    "{name:?}"
                );
                assert_eq!(id_of_name(&name, end).as_deref(), Some(id));
                assert!(seen.insert((name, end)), "{id:?}");
            }
        }
        assert_eq!((name_of_id(&long, ""), name_of_id("", "")), (None, None));
        for name in [".git", "a%2fb", "%", "%zz", "%65ng", "", "a%FFb", "\n"] {
            assert_eq!(id_of_name(name, ""), None, "{name:?}");
        }
    }

    #[test]
    fn probes_are_known_and_data_is_not() {
        for name in [
            ".git",
            ".hidden",
            "._a.csv",
            ".Trash-1000",
            "autorun.inf",
            ".DS_Store",
        ] {
            assert!(is_probe(name), "{name}");
        }
        for name in ["a.csv", ".zenodo.json", ".hidden.csv", "HEAD.txt"] {
            assert!(!is_probe(name), "{name}");
        }
    }
}
