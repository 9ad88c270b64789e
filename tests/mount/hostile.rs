//! Names that would do harm, from a server and from a user: nothing leaves its folder, and each is shown and opens what it
//! names, or is refused with a reason.
//!
//! | | from a server | from a user |
//! |---|---|---|
//! | keys | in a record, in a draft | files in a draft, new and renamed |
//! | members of archives | in a ZIP file | |
//! | titles | of drafts, records | `mkdir` and `mv` in `drafts/` |
//! | ids of records | in every list | |
//! | slugs, types and words of vocabularies | in lists | looked up |
//! | DOIs | of records | looked up |
//! | queries | | folders in `search/` |
//! | all others | | looked up and made in every other folder |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use rdm_sandbox::{ALICE, NewRecord, Route, Sandbox, md5_hex};
use serde_json::{Value, json};

use crate::archives::zip;
use crate::support::{Mount, elsewhere, errno, how, mount, names, on_server};

/// Names with which programs were brought to read or write elsewhere, to hide something, or to stop.
fn hostile() -> Vec<String> {
    let mut found: Vec<String> = [
        "..",
        ".",
        "...",
        "....",
        "../x",
        "../../etc/passwd",
        "a/../../b",
        "/",
        "//",
        "/etc/passwd",
        "a//b",
        "a/",
        "/a",
        "a/.",
        "a/..",
        "./a",
        "~",
        "~root",
        "-",
        "-rf",
        "--help",
        "-rf *",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "$(id)",
        "`id`",
        "$HOME",
        "; rm -rf /",
        "| cat",
        "& x",
        "> x",
        "< x",
        "a'b",
        "a\"b",
        "a\\b",
        "\\",
        "..\\x",
        "C:\\x",
        "a:b",
        ":",
        "con",
        "NUL",
        "aux.txt",
        "a.",
        "a ",
        " a",
        " ",
        "  ",
        "\u{a0}",
        "\u{3000}",
        "\u{feff}",
        "\u{200b}",
        "\u{200d}",
        "\u{202e}txt.exe",
        "\u{202a}x",
        "\u{2066}x\u{2069}",
        "שלום",
        "مرحبا",
        "𝕏",
        "💩",
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "é",
        "e\u{301}",
        "ñ",
        "n\u{303}",
        "Å",
        "A\u{30a}",
        "\u{212b}",
        "ﬁ",
        "fi",
        "ß",
        "SS",
        "ẞ",
        "ı",
        "I",
        "i\u{307}",
        "a",
        "A",
        "%",
        "%%",
        "%2F",
        "%2f",
        "%2E%2E",
        "%2e%2e%2f",
        "%252F",
        "%00",
        "%0",
        "%zz",
        "%C3%A9",
        "%FF",
        "100%",
        "a%20b",
        "a+b",
        "a#b",
        "a?b",
        "?a=b",
        "#",
        "a&b",
        "a=b",
        "a;b",
        "a,b",
        "a@b",
        "a|b",
        "(a)",
        "<a>",
        "a\u{85}b",
        "\u{1}",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "a\nb",
        "a\rb",
        "\u{1b}[31mred",
        "\u{7}",
        "\u{8}",
        "\u{7f}",
        "\u{9b}x",
        "\u{80}",
        "record.json",
        "record.json.errors",
        "record.json.rejected",
        "md5sums.txt",
        "files",
        "versions",
        "exports",
        "archives",
        "latest",
        "1",
        "0",
        "01",
        "community.json",
        "logo",
        "records",
        "drafts",
        "search",
        "doi",
        ".rdmfs",
        "status.json",
        "control",
        ".git",
        ".git/config",
        ".DS_Store",
        ".hidden",
        ".Trash-1000",
        "._a",
        ".nfs0001",
        "autorun.inf",
        "desktop.ini",
        "Thumbs.db",
        "lost+found",
        "CVS",
        ".~lock.a#",
        "a~",
        "#a#",
        ".a.swp",
        "id.json",
        "x.json",
        ".json",
        "json",
        "null",
        "true",
        "undefined",
        "NaN",
        "{}",
        "[]",
        "\"\"",
        "''",
        "<script>alert(1)</script>",
        "' OR 1=1 --",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "%s%s%n",
        "a\u{300}\u{301}\u{302}",
        "x/y",
        "x/Y",
        "x",
        "b/c/d/e/f",
        "b/c",
        "b",
        "…",
        "．．",
        "／",
        "∕",
        "⁄",
        "\u{2215}a",
        "\u{ff0e}\u{ff0e}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{e000}",
        "\u{10ffff}",
        "\u{ad}",
        "a\u{ad}b",
        "Ω",
        "\u{2126}",
    ]
    .map(str::to_owned)
    .into();
    for length in [200, 250, 251, 254, 255, 256, 300] {
        found.push("x".repeat(length));
    }
    found.push("ü".repeat(127));
    found.push("ü".repeat(128));
    found.push("💩".repeat(64));
    found.push(format!("{}/{}", "y".repeat(255), "z".repeat(256)));
    found.sort();
    found.dedup();
    assert!(found.len() >= 200, "{}", found.len());
    found
}

/// Whether a name is one of a folder's, and nothing that leads elsewhere.
fn stays(name: &str) -> bool {
    let mut components = Path::new(name).components();
    !name.contains('/')
        && matches!(components.next(), Some(Component::Normal(_)))
        && components.next().is_none()
        && name.len() <= 255
}

/// What a walk found: the content of each file, and the files that can't be read with the reason's errno.
#[derive(Default)]
struct Found {
    read: Vec<(PathBuf, String)>,
    refused: Vec<(PathBuf, i32)>,
}

/// Everything below a folder. Nothing of it is elsewhere, and each name is one.
fn walk(top: &Path) -> Found {
    let mut found = Found::default();
    let mut folders = vec![top.to_owned()];
    let real = fs::canonicalize(top).unwrap();
    while let Some(folder) = folders.pop() {
        assert!(
            fs::canonicalize(&folder).unwrap().starts_with(&real),
            "{folder:?}"
        );
        for name in names(&folder) {
            assert!(stays(&name) && !name.contains(char::is_control), "{name:?}");
            let path = folder.join(&name);
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                folders.push(path);
                continue;
            }
            match fs::read_to_string(&path) {
                Ok(text) => found.read.push((path, text)),
                Err(error) => found.refused.push((path, error.raw_os_error().unwrap())),
            }
        }
    }
    found
}

/// Keys that no request reaches: they lead out of the address, or are not routed.
fn is_reachable(key: &str) -> bool {
    !key.starts_with('/') && !key.contains('\n') && !key.split('/').any(|part| matches!(part, "." | ".."))
}

fn content_of(key: &str) -> String {
    format!("content of {key:?}")
}

/// What a server says of the files of these keys.
fn entries_of(keys: &[String]) -> Value {
    let entry = |key: &String| {
        let content = content_of(key);
        json!({"key": key, "size": content.len(), "status": "completed",
               "checksum": format!("md5:{}", md5_hex(content.as_bytes()))})
    };
    keys.iter().map(entry).collect()
}

/// Every key has a name of its own, and that opens it, or is refused with a reason where no request can.
#[track_caller]
fn check_keys(mount: &Mount, top: &Path, keys: &[String], beside: usize) {
    let found = walk(top);
    let mut contents: BTreeSet<&str> = found.read.iter().map(|(_, text)| text.as_str()).collect();
    for key in keys.iter().filter(|key| is_reachable(key)) {
        assert!(contents.remove(content_of(key).as_str()), "{key:?} is not there");
    }
    assert_eq!(contents.len(), beside, "{contents:?}");
    let unreachable = keys.iter().filter(|key| !is_reachable(key)).count();
    assert_eq!(found.refused.len(), unreachable, "{:?}", found.refused);
    assert_eq!(found.read.len() + unreachable, keys.len() + beside);
    for (path, errno) in found.refused {
        assert_eq!(errno, libc::EINVAL, "{path:?}");
    }
    let reasons = mount.log().matches("can't hold a file named").count();
    assert!(reasons >= unreachable, "{reasons} reasons for {unreachable}");
}

/// A server that says what it is told to: JSON, or a text as it is. It ends with the test's process.
fn says(answer: impl Fn(&str) -> Value + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = std::sync::Arc::clone(&answer);
            std::thread::spawn(move || serve(&stream, &*answer));
        }
    });
    url
}

fn serve(stream: &TcpStream, answer: &dyn Fn(&str) -> Value) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let path = line.split(' ').nth(1)?.to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':')?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        reader.by_ref().take(length).read_to_end(&mut Vec::new()).ok()?;
        let (status, kind, text) = match answer(&path) {
            Value::Null => (
                "404 NOT FOUND",
                "application/json",
                json!({"status": 404, "message": "Not found."}).to_string(),
            ),
            Value::String(content) => ("200 OK", "application/octet-stream", content),
            body => ("200 OK", "application/json", body.to_string()),
        };
        write!(
            &mut &*stream,
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
        .ok()?;
    }
}

/// The name of an id, encoded as the page says.
fn shown_as(id: &str) -> String {
    let mut name = String::new();
    for (place, c) in id.chars().enumerate() {
        if c.is_control() || c == '/' || c == '%' || (place == 0 && c == '.') {
            for byte in c.to_string().bytes() {
                name.push_str(&format!("%{byte:02X}"));
            }
        } else {
            name.push(c);
        }
    }
    name
}

fn list(items: Vec<Value>) -> Value {
    json!({"hits": {"total": items.len(), "hits": items}, "links": {}})
}

#[test]
fn hostile_keys_are_shown_under_names_that_stay_and_open_what_they_name() {
    let keys: Vec<String> = hostile();
    let entries = entries_of(&keys);
    let in_document: serde_json::Map<String, Value> = keys
        .iter()
        .zip(entries.as_array().unwrap())
        .map(|(key, entry)| (key.clone(), entry.clone()))
        .collect();
    let record = json!({"id": "abcde-12345", "is_published": true, "is_draft": false, "metadata": {"title": "\u{202e}x\n"},
                        "versions": {"index": 1, "is_latest": true}, "access": {"record": "public", "files": "public"},
                        "files": {"enabled": true, "entries": in_document}});
    let draft = json!({"id": "fghij-67890", "is_published": false, "is_draft": true, "revision_id": 1,
                       "metadata": {"title": "x"}, "access": {"record": "public", "files": "public"},
                       "files": {"enabled": true}});
    let known = keys.clone();
    let url = says(move |path| match path.split('?').next().unwrap_or_default() {
        "/api/records" => list(vec![record.clone()]),
        "/api/user/records" => list(vec![draft.clone()]),
        "/api/records/abcde-12345" => record.clone(),
        "/api/records/fghij-67890/draft" => draft.clone(),
        "/api/records/fghij-67890/draft/files" => json!({"enabled": true, "entries": entries}),
        path => {
            let content = |owner: &str| {
                let key = path.strip_prefix(owner)?.strip_suffix("/content")?;
                let key = percent_decode_str(key).decode_utf8().ok()?.into_owned();
                known.contains(&key).then(|| json!(content_of(&key)))
            };
            content("/api/records/abcde-12345/files/")
                .or_else(|| content("/api/records/fghij-67890/draft/files/"))
                .unwrap_or_default()
        }
    });
    let mount = how(&url).token(ALICE).start();
    check_keys(&mount, &mount.path("records/abcde-12345/files"), &keys, 0);
    // And `record.json`, which no key takes the place of.
    let top = mount.path("drafts/fghij-67890");
    check_keys(&mount, &top, &keys, 1);
    let document: Value = serde_json::from_slice(&fs::read(top.join("record.json")).unwrap()).unwrap();
    assert_eq!(document["id"], "fghij-67890");
    assert_eq!(
        fs::read_to_string(top.join("%72ecord.json")).unwrap(),
        content_of("record.json")
    );
}

#[test]
fn hostile_members_of_an_archive_are_shown_under_names_that_stay_and_open_what_they_name() {
    // A name that ends with a slash is a folder.
    let members: Vec<String> = hostile()
        .into_iter()
        .filter(|name| !name.ends_with('/'))
        .collect();
    let archive = zip(&format!(
        "for number, name in enumerate({}):\n    z.writestr(name, 'content of %d' % number)",
        // A list of texts is written alike in both languages.
        serde_json::to_string(&members).unwrap()
    ));
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Packed").file("a.zip", archive));
    let mount = mount(&sandbox);
    let found = walk(&mount.path(format!("records/{id}/archives/a.zip")));
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    assert_eq!(found.read.len(), members.len());
    let contents: BTreeSet<&str> = found.read.iter().map(|(_, text)| text.as_str()).collect();
    for (number, name) in members.iter().enumerate() {
        assert!(
            contents.contains(format!("content of {number}").as_str()),
            "{name:?}"
        );
    }
}

#[test]
fn hostile_ids_of_records_are_in_no_listing() {
    let hit = |id: &str| {
        json!({"id": id, "is_published": true, "is_draft": false, "metadata": {"title": "x"},
               "versions": {"index": 1, "is_latest": true}, "parent": {"id": id},
               "access": {"record": "public", "files": "public"}, "files": {"enabled": true, "entries": {}}})
    };
    let ids: Vec<String> = hostile().into_iter().chain(["abcde-12345".to_owned()]).collect();
    let known: Vec<Value> = ids.iter().map(|id| hit(id)).collect();
    let url = says(move |path| match path.split('?').next().unwrap_or_default() {
        "/api/records" | "/api/user/records" | "/api/communities/snow/records" => list(known.clone()),
        "/api/communities/snow" => json!({"id": "u", "slug": "snow", "metadata": {"title": "Snow"},
                                          "access": {"visibility": "public"}}),
        "/api/records/abcde-12345" => hit("abcde-12345"),
        _ => Value::Null,
    });
    let mount = how(&url).token(ALICE).start();
    // What an id can be: no more than letters, digits, `-`, `_` and `.`, and no name that programs probe for.
    let fits = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    for folder in [
        "records",
        "search/snow",
        "user/records",
        "communities/snow/records",
        "drafts",
    ] {
        let listed = names(&mount.path(folder));
        for name in &listed {
            assert!(stays(name) && fits(name), "{folder}: {name:?}");
            assert!(ids.contains(name), "{folder}: {name:?}");
            let path = mount.path(folder).join(name);
            if let Ok(target) = fs::read_link(&path) {
                assert!(target.ends_with(Path::new("records").join(name)), "{target:?}");
            }
        }
        if folder != "drafts" {
            assert!(
                listed.iter().any(|name| name == "abcde-12345"),
                "{folder}: {listed:?}"
            );
        }
    }
}

#[test]
fn hostile_ids_of_communities_and_words_round_trip_or_are_left_out() {
    let ids = hostile();
    let known = ids.clone();
    let community = |slug: &str| {
        json!({"id": format!("uuid of {slug}"), "slug": slug, "metadata": {"title": slug},
               "access": {"visibility": "public"}})
    };
    let word = |id: &str| json!({"id": id, "title": {"en": id}});
    let url = says(move |target| {
        let path = target.split('?').next().unwrap_or_default();
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let page: usize = target
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix("page="))
            .map_or(1, |page| page.parse().unwrap());
        let all = |make: &dyn Fn(&str) -> Value| {
            let items: Vec<Value> = known.iter().map(|id| make(id)).collect();
            let part: Vec<Value> = items.iter().skip((page - 1) * 100).take(100).cloned().collect();
            let mut body = list(part);
            body["hits"]["total"] = json!(items.len());
            if page * 100 < items.len() {
                body["links"]["next"] = json!("…");
            }
            body
        };
        match path {
            "/api/records" | "/api/user/records" => list(Vec::new()),
            "/api/vocabularies/" => {
                let types = known.iter().map(String::as_str).chain(["languages"]);
                list(types.map(|id| json!({"id": id})).collect())
            }
            "/api/communities" | "/api/user/communities" => all(&community),
            "/api/vocabularies/languages" => all(&word),
            _ => {
                let one = |start: &str| {
                    let id = decoded(path.strip_prefix(start)?);
                    known.contains(&id).then_some(id)
                };
                match (one("/api/communities/"), one("/api/vocabularies/languages/")) {
                    (Some(slug), _) => community(&slug),
                    (_, Some(id)) => word(&id),
                    _ => Value::Null,
                }
            }
        }
    });
    let mount = how(&url)
        .token(ALICE)
        .arguments(&["--search-limit", "1000"])
        .start();
    // The longest are left out.
    let shown =
        |end: usize| -> Vec<&String> { ids.iter().filter(|id| shown_as(id).len() + end <= 255).collect() };
    let types = names(&mount.path("vocabularies"));
    assert!(types.iter().all(|name| stays(name)), "{types:?}");
    // And `languages`.
    assert_eq!(types.len(), shown(0).len() + 1);

    let folder = mount.path("vocabularies/languages");
    let listed = names(&folder);
    assert_eq!(listed.len(), shown(5).len(), "those that are not too long");
    for name in &listed {
        assert!(stays(name) && !name.contains(char::is_control), "{name:?}");
        let document: Value = serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap();
        let id = document["id"].as_str().unwrap();
        let back = percent_decode_str(name.strip_suffix(".json").unwrap());
        assert_eq!(back.decode_utf8().unwrap(), id, "{name:?}");
    }

    let folder = mount.path("communities");
    let listed = names(&folder);
    assert_eq!(listed.len(), 200, "the first pages");
    for name in &listed {
        assert!(stays(name) && !name.contains(char::is_control), "{name:?}");
        let text = fs::read(folder.join(name).join("community.json")).unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        let slug = document["slug"].as_str().unwrap();
        assert!(ids.iter().any(|id| id == slug));
        let back = percent_decode_str(name).decode_utf8().unwrap();
        assert_eq!(back, slug, "{name:?}");
    }

    // Links to them are links to these.
    let own = mount.path("user/communities");
    let listed = names(&own);
    assert!(listed.len() >= 200, "{}", listed.len());
    for name in &listed {
        assert!(stays(name), "{name:?}");
        let target = fs::read_link(own.join(name)).unwrap_or_else(|error| panic!("{name:?}: {error}"));
        assert_eq!(target, Path::new("../../communities").join(name));
        assert!(own.join(name).join("community.json").exists(), "{name:?}");
    }

    // And as a user types them: as they are shown, they open what they name; else nothing is there.
    for (folder, end, field) in [
        ("communities", "/community.json", "slug"),
        ("vocabularies/languages", "", "id"),
    ] {
        let (mut opened, mut absent) = (0, 0);
        for id in ids
            .iter()
            .filter(|id| !id.contains('/') && !matches!(id.as_str(), "." | ".."))
        {
            let end = if end.is_empty() { ".json" } else { end };
            match fs::read(mount.path(folder).join(format!("{id}{end}"))) {
                Ok(text) => {
                    let document: Value = serde_json::from_slice(&text).unwrap();
                    let back = percent_decode_str(id).decode_utf8().unwrap();
                    assert_eq!(document[field], *back, "{id:?}");
                    opened += 1;
                }
                Err(error) => {
                    let is_long =
                        id.len() + end.len() > 255 && error.raw_os_error() == Some(libc::ENAMETOOLONG);
                    assert!(
                        is_long || error.raw_os_error() == Some(libc::ENOENT),
                        "{id:?}: {error}"
                    );
                    absent += 1;
                }
            }
        }
        assert!(
            opened >= 100 && opened + absent >= 150,
            "{folder}: {opened}, {absent}"
        );
    }
}

#[test]
fn hostile_dois_are_links_to_their_records_or_not_there() {
    let suffixes = hostile();
    let record = |number: usize, suffix: &str| {
        json!({"id": format!("doi00-{number:05}"), "is_published": true, "is_draft": false,
               "metadata": {"title": "x"}, "versions": {"index": 1, "is_latest": true},
               "pids": {"doi": {"identifier": format!("10.1234/{suffix}")}},
               "access": {"record": "public", "files": "public"}, "files": {"enabled": true, "entries": {}}})
    };
    let records: Vec<Value> = (0..)
        .zip(&suffixes)
        .map(|(n, suffix)| record(n, suffix))
        .collect();
    let url = says(move |target| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path.strip_prefix("/api/records") {
            Some("") => {
                let typed = query.split('&').find_map(|pair| pair.strip_prefix("q="));
                let typed = typed.unwrap_or_default().replace('+', " ");
                let typed = percent_decode_str(&typed).decode_utf8().unwrap().into_owned();
                let phrase = typed.strip_prefix("pids.doi.identifier:\"").unwrap_or_default();
                let phrase = phrase.strip_suffix('"').unwrap_or_default();
                let doi = phrase.replace("\\\"", "\"").replace("\\\\", "\\");
                let is_it = |record: &&Value| {
                    let known = record["pids"]["doi"]["identifier"].as_str().unwrap();
                    known.eq_ignore_ascii_case(&doi)
                };
                list(records.iter().filter(is_it).cloned().collect())
            }
            Some(id) => {
                let is_it = |record: &&Value| id.strip_prefix('/') == record["id"].as_str();
                records.iter().find(is_it).cloned().unwrap_or_default()
            }
            None => Value::Null,
        }
    });
    let mount = how(&url).start();
    let mut linked = 0;
    for suffix in &suffixes {
        let name = shown_as(suffix);
        match fs::read_link(mount.path("doi/10.1234").join(&name)) {
            Ok(target) => {
                let target = target.to_str().unwrap();
                let id = target.strip_prefix("../../records/doi00-").unwrap();
                let found = &suffixes[id.parse::<usize>().unwrap()];
                // Letters of a DOI are the same in either case.
                assert!(found.eq_ignore_ascii_case(suffix), "{suffix:?}: {found:?}");
                linked += 1;
            }
            Err(error) => {
                let expected = match name.len() > 255 {
                    true => libc::ENAMETOOLONG,
                    false => libc::ENOENT,
                };
                assert_eq!(error.raw_os_error(), Some(expected), "{suffix:?}");
                assert!(
                    name.len() > 255 || suffix.contains(char::is_control) || rdmfs_probe(suffix),
                    "{suffix:?} is not there"
                );
            }
        }
    }
    assert!(linked >= 150, "{linked}");
    for name in names(&mount.path("doi/10.1234")) {
        assert!(stays(&name) && !name.contains(char::is_control), "{name:?}");
    }
}

#[test]
fn hostile_queries_are_searched_for_or_refused_with_a_reason() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let mut searched = BTreeSet::new();
    for query in hostile() {
        if query.len() > 255 && !query.contains('/') {
            assert_eq!(
                errno(fs::read_dir(mount.path("search").join(&query))),
                libc::ENAMETOOLONG
            );
        }
        if !stays(&query) {
            // The kernel takes it apart, or refuses it, before anybody sees it as one name.
            continue;
        }
        let folder = mount.path("search").join(&query);
        sandbox.reset_counts();
        match fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    assert_eq!(name, id, "{query:?}");
                    assert_eq!(fs::read(folder.join(name).join("files/a")).unwrap(), b"1");
                }
                if !query.starts_with('?') {
                    let asked = sandbox.requests().into_iter().any(|request| {
                        let typed = request
                            .path
                            .split(['?', '&'])
                            .find_map(|pair| pair.strip_prefix("q="));
                        typed.is_some_and(|typed| {
                            let typed = typed.replace('+', " ");
                            percent_decode_str(&typed).decode_utf8().unwrap() == query
                        })
                    });
                    assert!(asked, "{query:?} is searched for as it is");
                }
                searched.insert(query);
            }
            Err(error) => {
                let expected = if query.starts_with('.') || rdmfs_probe(&query) {
                    libc::ENOENT
                } else {
                    assert!(query.contains(char::is_control), "{query:?}: {error}");
                    let problems = mount.status().problems;
                    let reason = &problems.last().unwrap().what;
                    assert!(
                        reason.contains("it holds control characters"),
                        "{query:?}: {reason}"
                    );
                    libc::EINVAL
                };
                assert_eq!(error.raw_os_error(), Some(expected), "{query:?}");
            }
        }
    }
    assert!(searched.len() >= 100, "{}", searched.len());
    let listed: BTreeSet<String> = names(&mount.path("search")).into_iter().collect();
    assert!(
        listed.len() == 100 && listed.is_subset(&searched),
        "the last hundred"
    );
}

/// What programs look for in every folder.
fn rdmfs_probe(name: &str) -> bool {
    matches!(
        name,
        "autorun.inf" | "desktop.ini" | "Thumbs.db" | "lost+found" | "CVS"
    )
}

#[test]
fn hostile_names_of_a_user_stay_in_the_draft_or_are_refused() {
    let sandbox = Sandbox::start();
    let draft = sandbox.draft(NewRecord::titled("Draft"));
    let mount = mount(&sandbox);
    sandbox.knobs(|knobs| knobs.max_files = 1000);
    let folder = mount.path("drafts").join(&draft);
    let mut kept = Vec::new();
    for name in hostile() {
        if name.len() > 255 && !name.contains('/') {
            assert_eq!(errno(fs::write(folder.join(&name), "1")), libc::ENAMETOOLONG);
        }
        if !stays(&name) || name == "record.json" {
            continue;
        }
        match fs::write(folder.join(&name), "1") {
            Ok(()) => {
                assert_eq!(fs::read(folder.join(&name)).unwrap(), b"1", "{name:?}");
                kept.push(name.clone());
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}");
                assert!(name.contains(char::is_control), "{name:?}");
                let problems = mount.status().problems;
                let reason = &problems.last().unwrap().what;
                assert!(
                    reason.contains("it holds control characters"),
                    "{name:?}: {reason}"
                );
                assert!(!sandbox.draft_keys(&draft).contains(&name), "{name:?}");
            }
        }
        // And as the new name of a file.
        let other = folder.join("other");
        let _ = fs::remove_file(folder.join(&name));
        fs::write(&other, "2").unwrap();
        match fs::rename(&other, folder.join(&name)) {
            Ok(()) => {
                assert_eq!(kept.last(), Some(&name), "it could be made, too");
                assert_eq!(fs::read(folder.join(&name)).unwrap(), b"2", "{name:?}");
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{name:?}");
                assert!(kept.last() != Some(&name), "{name:?}");
                assert!(!sandbox.draft_keys(&draft).contains(&name), "{name:?}");
            }
        }
    }
    let _ = fs::remove_file(folder.join("other"));
    assert!(kept.len() >= 100, "{}", kept.len());
    let listed: BTreeSet<String> = names(&folder).into_iter().collect();
    for name in &kept {
        assert!(listed.contains(name), "{name:?}");
    }
    for key in sandbox.draft_keys(&draft) {
        assert!(kept.contains(&key), "{key:?}");
    }
    // A slash makes folders, each in a draft of its own.
    for name in hostile().into_iter().filter(|name| name.contains('/')) {
        if !name.split('/').all(stays) {
            continue;
        }
        let draft = sandbox.draft(NewRecord::titled("Folders"));
        let path = mount.path("drafts").join(&draft).join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "1").unwrap();
        // What names junk stays here.
        let arrived = sandbox.draft_keys(&draft);
        assert!(arrived.is_empty() || arrived == [name.as_str()], "{arrived:?}");
        assert_eq!(fs::read(&path).unwrap(), b"1", "{name:?}");
    }
    assert_eq!(
        errno(fs::create_dir(mount.path("search/../../x/y"))),
        libc::ENOENT
    );
}

#[test]
fn hostile_titles_make_drafts_that_are_listed_under_them_or_are_refused() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    let folder = mount.path("drafts");
    let mut made = BTreeSet::new();
    let mut refused = 0;
    let check = |title: &str| {
        let path = folder.join(title);
        let document: Value = serde_json::from_slice(&fs::read(path.join("record.json")).unwrap()).unwrap();
        let id = document["id"].as_str().unwrap().to_owned();
        let kept = on_server(&sandbox, &id)["metadata"]["title"].clone();
        if !title.contains(char::is_control) {
            assert_eq!(kept, title);
        }
        id
    };
    for title in hostile() {
        if title.contains('/') {
            // The kernel takes it apart: there is no folder to make it in.
            assert!(fs::create_dir(Path::new(&format!("{}/{title}", folder.display()))).is_err());
            continue;
        }
        let before = sandbox.count(Route::CreateDraft);
        match fs::create_dir(folder.join(&title)) {
            Ok(()) => {
                check(&title);
                made.insert(title);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap();
                let is_right = match errno {
                    libc::ENAMETOOLONG => title.len() > 255,
                    libc::EEXIST => title == "." || title == "..",
                    libc::EPERM => title.starts_with('.') || rdmfs_probe(&title),
                    libc::EINVAL => {
                        let problems = mount.status().problems;
                        let reason = &problems.last().unwrap().what;
                        assert!(
                            reason.contains("can't be the title of a draft"),
                            "{title:?}: {reason}"
                        );
                        true
                    }
                    _ => false,
                };
                assert!(is_right, "{title:?}: {error}");
                assert_eq!(sandbox.count(Route::CreateDraft), before, "{title:?}");
                refused += 1;
            }
        }
    }
    let listed: BTreeSet<String> = names(&folder).into_iter().collect();
    assert_eq!(listed, made);
    assert!(
        made.len() >= 80 && made.len() + refused >= 150,
        "{} {refused}",
        made.len()
    );
    // And as the new title of one.
    fs::create_dir(folder.join("The last one")).unwrap();
    let (id, mut path) = (check("The last one"), folder.join("The last one"));
    for title in made {
        fs::remove_dir_all(folder.join(&title)).unwrap();
        fs::rename(&path, folder.join(&title)).unwrap_or_else(|error| panic!("{title:?}: {error}"));
        assert_eq!(check(&title), id);
        path = folder.join(&title);
        assert!(names(&folder).contains(&title));
    }
    assert_eq!(names(&folder).len(), 1);
}

#[test]
fn hostile_titles_from_a_server_are_in_documents_and_name_nothing() {
    let sandbox = Sandbox::start();
    let titles = hostile();
    // A server publishes what has three characters, and drops those that control something.
    let is_title = |title: &&String| title.trim().chars().filter(|c| !c.is_control()).count() >= 3;
    let draft = |title: &String| (title.clone(), sandbox.draft(NewRecord::titled(title)));
    let drafts: BTreeMap<_, _> = titles.iter().map(draft).collect();
    let record = |title: &String| {
        let record = NewRecord::titled(title).file("a", "1");
        (title.clone(), sandbox.publish(record))
    };
    let records: BTreeMap<_, _> = titles.iter().filter(is_title).map(record).collect();
    assert!(records.len() >= 90, "{}", records.len());
    let mount = mount(&sandbox);
    for (folder, ids) in [("drafts", &drafts), ("records", &records)] {
        for (title, id) in ids {
            let text = fs::read(mount.path(folder).join(id).join("record.json")).unwrap();
            let document: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(document["id"], id.as_str());
            if is_title(&title) && !title.contains(char::is_control) {
                assert_eq!(document["metadata"]["title"], title.as_str());
            }
        }
        let listed: BTreeSet<String> = names(&mount.path(folder)).into_iter().collect();
        assert!(
            listed.is_subset(&ids.values().cloned().collect()),
            "{folder}: by their ids alone"
        );
        assert!(listed.len() >= 25, "{folder}: {}", listed.len());
    }
}

#[test]
fn hostile_names_of_a_user_are_nowhere_else() {
    let sandbox = Sandbox::start();
    let document = json!({"slug": "snow", "access": {"visibility": "public"},
                          "metadata": {"title": "Snow", "description": "About it", "type": {"id": "project"}}});
    elsewhere(&sandbox).create_community(&document).unwrap();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let of_record = ["", "/files", "/versions", "/exports"].map(|below| format!("records/{id}{below}"));
    let others = [
        "",
        "records",
        "user",
        "user/records",
        "user/communities",
        "communities",
        "communities/snow",
        "communities/snow/records",
        "vocabularies",
        "vocabularies/languages",
        "doi",
        "doi/10.1234",
        "search/snow",
        ".rdmfs",
    ];
    for folder in of_record.iter().map(String::as_str).chain(others) {
        let top = mount.path(folder);
        let before = names(&top);
        for name in hostile().into_iter().filter(|name| !name.contains('/')) {
            let path = top.join(&name);
            if name == "." || name == ".." || before.contains(&name) {
                continue;
            }
            let is_long = name.len() > 255;
            let absent = if is_long { libc::ENAMETOOLONG } else { libc::ENOENT };
            match fs::symlink_metadata(&path) {
                // The top knows its hidden folder.
                Ok(_) => assert!(name == ".rdmfs" && folder.is_empty(), "{folder}/{name:?}"),
                Err(error) => assert_eq!(error.raw_os_error(), Some(absent), "{folder}/{name:?}"),
            }
            for made in [fs::write(&path, "x"), fs::create_dir(&path)] {
                let errno = errno(made);
                assert!(
                    matches!(
                        errno,
                        libc::EROFS | libc::EPERM | libc::EACCES | libc::EEXIST | libc::EISDIR
                    ) || (is_long && errno == libc::ENAMETOOLONG),
                    "{folder}/{name:?}: {errno}"
                );
            }
        }
        assert_eq!(names(&top), before, "{folder}");
    }
    // Below a file, and out of the mount.
    let file = mount.path(format!("records/{id}/files/a"));
    for name in hostile().into_iter().filter(|name| stays(name)) {
        assert_eq!(errno(fs::symlink_metadata(file.join(name))), libc::ENOTDIR);
    }
}
