//! Names that would do harm, from a server and from a user: nothing leaves its folder, and each is shown and opens what it
//! names, or is refused with a reason.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path};

use percent_encoding::percent_decode_str;
use rdm_sandbox::{NewRecord, Sandbox};
use serde_json::{Value, json};

use crate::support::{errno, how, mount, names};

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

/// A server that says what it is told to. It ends with the test's process.
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
        let body = answer(&path);
        let status = if body.is_null() { "404 NOT FOUND" } else { "200 OK" };
        let text = if body.is_null() {
            json!({"status": 404, "message": "Not found."}).to_string()
        } else {
            body.to_string()
        };
        write!(
            &mut &*stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
        .ok()?;
    }
}

fn list(items: Vec<Value>) -> Value {
    json!({"hits": {"total": items.len(), "hits": items}, "links": {}})
}

#[test]
fn hostile_keys_are_shown_under_names_that_stay_and_open_what_they_name() {
    let keys: Vec<String> = hostile();
    let entries: serde_json::Map<String, Value> = keys
        .iter()
        .map(|key| {
            (
                key.clone(),
                json!({"key": key, "size": 0, "checksum": "md5:d41d8cd98f00b204e9800998ecf8427e"}),
            )
        })
        .collect();
    let record = json!({"id": "abcde-12345", "is_published": true, "is_draft": false, "metadata": {"title": "\u{202e}x\n"},
                        "versions": {"index": 1, "is_latest": true}, "access": {"record": "public", "files": "public"},
                        "files": {"enabled": true, "entries": entries}});
    let url = says(move |path| match path.split('?').next().unwrap_or_default() {
        "/api/records" => list(vec![record.clone()]),
        "/api/records/abcde-12345" => record.clone(),
        _ => Value::Null,
    });
    let mount = how(&url).start();
    let top = mount.path("records/abcde-12345/files");
    let mut files = 0;
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        assert!(
            fs::canonicalize(&folder)
                .unwrap()
                .starts_with(fs::canonicalize(&top).unwrap())
        );
        for name in names(&folder) {
            assert!(stays(&name) && !name.contains(char::is_control), "{name:?}");
            let path = folder.join(&name);
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(fs::read(&path).unwrap(), b"", "{name:?}");
                files += 1;
            }
        }
    }
    // Every key has a name of its own.
    assert_eq!(files, keys.len());
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
            "/api/records" => list(Vec::new()),
            "/api/vocabularies/" => {
                let types = known.iter().map(String::as_str).chain(["languages"]);
                list(types.map(|id| json!({"id": id})).collect())
            }
            "/api/communities" => all(&community),
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
    let mount = how(&url).arguments(&["--search-limit", "1000"]).start();
    // What fits into a name, encoded as the page says. The longest are left out.
    let shown = |end: usize| -> Vec<&String> {
        let length = |id: &str| -> usize {
            let encoded = |(place, c): (usize, char)| {
                let is_encoded = c.is_control() || c == '/' || c == '%' || (place == 0 && c == '.');
                if is_encoded {
                    3 * c.len_utf8()
                } else {
                    c.len_utf8()
                }
            };
            id.chars().enumerate().map(encoded).sum()
        };
        ids.iter().filter(|id| length(id) + end <= 255).collect()
    };
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
}

#[test]
fn hostile_queries_are_searched_for_or_refused_with_a_reason() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    let mut searched = BTreeSet::new();
    for query in hostile() {
        if !stays(&query) {
            // The kernel takes it apart, or refuses it, before anybody sees it as one name.
            continue;
        }
        let folder = mount.path("search").join(&query);
        match fs::read_dir(&folder) {
            Ok(entries) => {
                for entry in entries {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    assert_eq!(name, id, "{query:?}");
                    assert_eq!(fs::read(folder.join(name).join("files/a")).unwrap(), b"1");
                }
                searched.insert(query);
            }
            Err(error) => {
                let expected = if query.starts_with('.') || rdmfs_probe(&query) {
                    libc::ENOENT
                } else {
                    assert!(query.contains(char::is_control), "{query:?}: {error}");
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
        if !stays(&name) || name == "record.json" {
            continue;
        }
        match fs::write(folder.join(&name), "1") {
            Ok(()) => {
                assert_eq!(fs::read(folder.join(&name)).unwrap(), b"1", "{name:?}");
                kept.push(name);
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap();
                assert!(
                    matches!(
                        errno,
                        libc::EINVAL | libc::ENAMETOOLONG | libc::EPERM | libc::EACCES | libc::EEXIST
                    ),
                    "{name:?}: {error}"
                );
                assert!(!sandbox.draft_keys(&draft).contains(&name), "{name:?}");
            }
        }
    }
    assert!(kept.len() >= 100, "{}", kept.len());
    let listed: BTreeSet<String> = names(&folder).into_iter().collect();
    for name in &kept {
        assert!(listed.contains(name), "{name:?}");
    }
    for key in sandbox.draft_keys(&draft) {
        assert!(kept.contains(&key), "{key:?}");
    }
    assert_eq!(
        errno(fs::create_dir(mount.path("search/../../x/y"))),
        libc::ENOENT
    );
}
