//! What the pages say of tests, endpoints and commands is so: each test that they name is there, each endpoint of
//! `tests/api_endpoints.txt` has one row in `docs/API.md` and is served by the sandbox, and each command is in the README.
//!
//! That the tests of a row really reach its endpoints is seen in a trace of the others: `scripts/test` writes one with
//! `RDM_SANDBOX_TRACE=FILE`, and then runs this with `RDMFS_TEST_TRACE=FILE`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rdm_sandbox::Route;

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where a test stands, by the forms that SEMANTICS explains.
fn source(name: &str) -> Option<(PathBuf, &str)> {
    if let Some(unit) = name.strip_prefix("unit ") {
        let (module, function) = unit.rsplit_once("::")?;
        let module = module.strip_suffix("::tests").unwrap_or(module);
        let file = Path::new("src").join(module.replace("::", "/"));
        let places = [
            file.with_extension("rs"),
            file.join("mod.rs"),
            file.join("tests.rs"),
        ];
        let holds = |place: &PathBuf| is_test(place, function);
        return Some((places.iter().find(|place| holds(place))?.clone(), function));
    }
    let parts: Vec<&str> = name.split("::").collect();
    Some(match parts[..] {
        [binary @ ("content" | "damage" | "checked" | "docs"), function] => {
            (format!("tests/{binary}.rs").into(), function)
        }
        [module, function] => (format!("tests/mount/{module}.rs").into(), function),
        [
            binary @ ("cli" | "crash" | "posix" | "conformance"),
            module,
            function,
        ] => (format!("tests/{binary}/{module}.rs").into(), function),
        _ => return None,
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// Whether a file holds a test of this name: marked as one, or in the list of those that run on both servers.
fn is_test(file: &Path, function: &str) -> bool {
    let Ok(text) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)) else {
        return false;
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(at) = lines.iter().position(|line| {
        line.trim_start_matches("pub ")
            .starts_with(&format!("fn {function}("))
    }) else {
        return false;
    };
    let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
    attributes.any(|line| *line == "#[test]")
        || (file.starts_with("tests/conformance")
            && between(&text, "![", "]").any(|list| words(list).any(|word| word == function)))
}

/// Pieces of a text between two marks.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start)
        .skip(1)
        .filter_map(move |piece| piece.split_once(end))
        .map(|(inner, _)| inner)
}

/// What stands in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A row of the table of endpoints.
struct Row {
    endpoints: Vec<String>,
    /// Paths and commands.
    expression: Vec<String>,
    tests: Vec<String>,
}

fn is_endpoint(text: &str) -> bool {
    text.split_once(' ')
        .is_some_and(|(method, path)| method.chars().all(|c| c.is_ascii_uppercase()) && path.starts_with('/'))
}

fn rows() -> Vec<Row> {
    let text = read("docs/API.md");
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 3, "{line}");
        if cells[0].trim() == "endpoint" || cells[0].starts_with("---") {
            continue;
        }
        let row = Row {
            endpoints: code(cells[0])
                .filter(|text| is_endpoint(text))
                .map(str::to_owned)
                .collect(),
            expression: code(cells[1]).map(str::to_owned).collect(),
            tests: code(cells[2]).map(str::to_owned).collect(),
        };
        assert!(!row.endpoints.is_empty(), "a row without an endpoint: {line}");
        assert!(!row.expression.is_empty(), "a row without an expression: {line}");
        assert!(!row.tests.is_empty(), "a row without a test: {line}");
        rows.push(row);
    }
    rows
}

/// The endpoints that the reference documents and our own client name.
fn known() -> Vec<String> {
    let text = read("tests/api_endpoints.txt");
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split('\t').next().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let semantics = read("docs/SEMANTICS.md");
    let mut named: BTreeSet<String> = between(&semantics, "`[", "]`")
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_owned())
        // `…` stands for any in the table that explains the forms, `<module>` too.
        .filter(|name| !name.contains(['…', '<']))
        .collect();
    assert!(named.len() > 400, "{}", named.len());
    named.extend(rows().into_iter().flat_map(|row| row.tests));
    // And below the tables.
    let api = read("docs/API.md");
    named.extend(
        code(&api)
            .filter(|text| text.contains("::") && !text.ends_with("::"))
            .map(str::to_owned),
    );
    let missing: Vec<&String> = named
        .iter()
        .filter(|name| !source(name).is_some_and(|(file, function)| is_test(&file, function)))
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    // And it would be seen.
    assert!(!is_test(Path::new("tests/docs.rs"), "rows"));
}

#[test]
fn every_endpoint_has_one_row() {
    let known = known();
    assert!(known.len() > 60, "{}", known.len());
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in rows().into_iter().flat_map(|row| row.endpoints) {
        *times.entry(endpoint).or_default() += 1;
    }
    let mut wrong = String::new();
    for endpoint in &known {
        match times.remove(endpoint) {
            Some(1) => {}
            Some(_) => writeln!(wrong, "{endpoint} has several rows, or is listed twice").unwrap(),
            None => writeln!(wrong, "{endpoint} has no row").unwrap(),
        }
    }
    for endpoint in times.keys() {
        writeln!(wrong, "{endpoint} is not in tests/api_endpoints.txt").unwrap();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What the sandbox has and no repository, what is not of the API (contents at another origin), and what administrators do.
const OF_THE_SANDBOX: &[Route] = &[
    Route::Ping,
    Route::Object,
    Route::PutObjectPart,
    Route::Plain,
    Route::PlainIndex,
    Route::DeleteRecord,
    Route::Other,
];

#[test]
fn the_sandbox_serves_every_endpoint_and_every_route_of_it_has_a_row() {
    let mut left: BTreeSet<Route> = Route::ALL.iter().copied().collect();
    for route in OF_THE_SANDBOX {
        left.remove(route);
    }
    for endpoint in known() {
        let (method, path) = endpoint.split_once(' ').unwrap();
        let filled: String = path.replace("{part}", "1").replace(['{', '}'], "");
        match Route::of(method, &filled) {
            None | Some(Route::Other) => panic!("{endpoint} is not served by the sandbox"),
            Some(route) => left.remove(&route),
        };
    }
    assert!(left.is_empty(), "of these routes there is no row: {left:?}");
}

/// A test's name as the harness and the sandbox's trace have it.
fn traced(name: &str) -> String {
    match name.split("::").collect::<Vec<_>>()[..] {
        ["conformance", module, function] => format!("conformance::{module}::{function}"),
        ["content" | "damage" | "checked", _] | [_, _, _] => name.to_owned(),
        _ => format!("mount::{name}"),
    }
}

/// Whether a path is one of an endpoint. Keys come percent-encoded, as one part.
fn fits(endpoint: &str, method: &str, path: &str) -> bool {
    let (wanted, pattern) = endpoint.split_once(' ').unwrap();
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    wanted == method
        && pattern.len() == path.len()
        && pattern
            .iter()
            .zip(&path)
            .all(|(pattern, part)| (pattern.starts_with('{') && !part.is_empty()) || pattern == part)
}

#[test]
fn the_tests_of_a_row_reach_its_endpoints() {
    let Some(file) = std::env::var_os("RDMFS_TEST_TRACE").filter(|file| !file.is_empty()) else {
        eprintln!("NOT CHECKED: set RDMFS_TEST_TRACE to a trace of the other tests");
        return;
    };
    let trace = read(PathBuf::from(file));
    let mut reached: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for line in trace.lines() {
        let [test, method, path, status] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("no line of a trace: {line}");
        };
        if status.parse::<u16>().unwrap() < 400 {
            let test = test.replace("::on_the_sandbox", "");
            reached.entry(test).or_default().push((method, path));
        }
    }
    let mut wrong = String::new();
    for row in rows() {
        let hits = |test: &str, endpoint: &str| {
            let all = reached.get(&traced(test));
            all.is_some_and(|all| all.iter().any(|(method, path)| fits(endpoint, method, path)))
        };
        for endpoint in &row.endpoints {
            if !row.tests.iter().any(|test| hits(test, endpoint)) {
                writeln!(wrong, "{endpoint}: reached by none of {:?}", row.tests).unwrap();
            }
        }
        for test in &row.tests {
            if !row.endpoints.iter().any(|endpoint| hits(test, endpoint)) {
                writeln!(wrong, "{test}: reaches none of {:?}", row.endpoints).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A command with what its help says.
struct Help {
    /// `community create`
    name: String,
    text: String,
    has_more: bool,
}

fn help(command: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_rdmfs"))
        .args(command)
        .arg("--help")
        .output();
    String::from_utf8(run.unwrap().stdout).unwrap()
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<&str> {
    let list = help.split_once("Commands:\n").map_or("", |(_, list)| list);
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

fn commands() -> Vec<Help> {
    let mut all = Vec::new();
    for name in listed(&help(&[])) {
        let text = help(&[name]);
        let below = listed(&text);
        for sub in &below {
            all.push(Help {
                name: format!("{name} {sub}"),
                text: help(&[name, sub]),
                has_more: false,
            });
        }
        let has_more = !below.is_empty();
        all.push(Help {
            name: name.to_owned(),
            text,
            has_more,
        });
    }
    all
}

#[test]
fn the_readme_has_a_line_for_every_command() {
    let readme = read("README.md");
    let commands = commands();
    assert!(commands.len() > 30, "{}", commands.len());
    let rows: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("| `rdmfs "))
        .collect();
    let is_named =
        |row: &str, word: &str| code(row).any(|text| text.split_whitespace().any(|part| part == word));
    for Help { name, .. } in &commands {
        let (command, sub) = name.split_once(' ').unwrap_or((name, ""));
        let found = rows
            .iter()
            .any(|row| is_named(row, command) && (sub.is_empty() || is_named(row, sub)));
        assert!(found, "the README has no line for rdmfs {name}");
    }
}

#[test]
fn every_command_and_flag_that_the_pages_name_is_there() {
    let commands = commands();
    let find = |name: &str| commands.iter().find(|help| help.name == name);
    let mut seen = 0;
    for page in ["docs/API.md", "docs/SEMANTICS.md", "README.md"] {
        let text = read(page);
        for span in code(&text.replace("```", "")).filter(|span| span.starts_with("rdmfs ")) {
            let words: Vec<&str> = span.split_whitespace().skip(1).collect();
            let Some(mut help) = find(words[0]) else {
                assert!(words[0].starts_with('-'), "{page}: `{span}` is no command");
                continue;
            };
            if help.has_more
                && words
                    .get(1)
                    .is_some_and(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
            {
                let name = words[..2].join(" ");
                match find(&name) {
                    Some(below) => help = below,
                    None => assert!(words[1].starts_with('-'), "{page}: `{span}` is no command"),
                }
            }
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                let flag: &str = flag
                    .trim_start_matches('[')
                    .split(['=', ']', ','])
                    .next()
                    .unwrap();
                assert!(help.text.contains(flag), "{page}: `{span}`: there is no {flag}");
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}
