//! `search/`: what a search finds, and what it costs.

use std::fs;
use std::path::Path;

use rdm_sandbox::{ALICE, Effect, Fault, Flavour, NewRecord, Options, Route, Sandbox};

use crate::control::done;
use crate::support::{errno, how, mount, names, shell, until};

/// Names in the order of the listing.
fn listed(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// 30 records about climate: 3 with restricted files of somebody else's, 2 with two versions. Returns the ids that are
/// found.
fn climate(sandbox: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    for number in 0..30 {
        let new = NewRecord::titled(&format!("climate {number}"))
            .file("a.csv", format!("station,{number}\n").as_str())
            .file("d/b.txt", "no table\n");
        found.push(match number {
            0..3 => sandbox.publish(new.restricted_files().owner("bob")),
            3 | 4 => {
                let first = sandbox.publish(new);
                let next = NewRecord::titled(&format!("climate {number}"))
                    .file("a.csv", "second\n")
                    .version_of(&first);
                sandbox.publish(next)
            }
            _ => sandbox.publish(new),
        });
    }
    sandbox.publish(NewRecord::titled("Something else").file("c.csv", "1\n"));
    found
}

#[test]
fn a_search_is_a_folder_of_links_best_match_first() {
    let sandbox = Sandbox::start();
    let weak = sandbox.publish(NewRecord::titled("Rain").description("about snow").file("a", "1"));
    let good = sandbox.publish(NewRecord::titled("Snow").file("a", "good"));
    sandbox.publish(NewRecord::titled("Sand").file("a", "1"));
    let mount = mount(&sandbox);
    let folder = mount.path("search/snow");
    assert_eq!(listed(&folder), [good.as_str(), weak.as_str()]);
    assert_eq!(
        fs::read_link(folder.join(&good)).unwrap(),
        Path::new(&format!("../../records/{good}"))
    );
    assert_eq!(
        fs::read_to_string(folder.join(&good).join("files/a")).unwrap(),
        "good"
    );
    assert!(names(&mount.path("search/metadata.title:nothing")).is_empty());
    let phrase = names(&mount.path("search/metadata.title:\"Rain\" OR id:x"));
    assert_eq!(phrase, [weak]);
}

#[test]
fn a_name_that_begins_with_a_question_mark_is_a_query_string() {
    let sandbox = Sandbox::start();
    let first = sandbox.publish(NewRecord::titled("Snow 1").file("a", "1"));
    let second = sandbox.publish(NewRecord::titled("Snow 1").file("a", "2").version_of(&first));
    let third = sandbox.publish(NewRecord::titled("Snow 2").file("a", "1"));
    let mount = mount(&sandbox);
    assert_eq!(
        listed(&mount.path("search/?q=snow&sort=oldest&allversions=true")),
        [first.as_str(), second.as_str(), third.as_str()]
    );
    assert_eq!(
        listed(&mount.path("search/?q=snow&sort=newest")),
        [third.as_str(), second.as_str()]
    );
    assert!(names(&mount.path("search/?q=snow&resource_type=poster")).is_empty());
}

#[test]
fn what_the_repository_or_the_syntax_refuses_is_einval_with_the_reason_in_the_status() {
    let sandbox = Sandbox::start();
    let mount = mount(&sandbox);
    for query in ["?sort=nonsense", "?token=x", "?size=0", "a\nb"] {
        let folder = mount.path("search").join(query);
        assert_eq!(errno(fs::read_dir(&folder)), libc::EINVAL, "{query}");
    }
    let status = mount.status();
    let problems: Vec<&str> = status
        .problems
        .iter()
        .map(|problem| problem.what.as_str())
        .collect();
    for part in [
        "query",
        "token has no place",
        "size is no number",
        "control characters",
    ] {
        assert!(
            problems.iter().any(|problem| problem.contains(part)),
            "{part}: {problems:?}"
        );
    }
    assert!(names(&mount.path("search")).is_empty(), "none of them was used");
}

#[test]
fn looking_a_query_up_asks_nobody_and_only_what_was_used_is_listed() {
    let sandbox = Sandbox::start();
    sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    for name in ["snow", "HEAD", "objects", "x y", "100%", "?q=a%2Fb"] {
        assert!(
            fs::metadata(mount.path("search").join(name)).unwrap().is_dir(),
            "{name}"
        );
    }
    for name in [
        ".git",
        ".hidden",
        "._snow",
        "autorun.inf",
        "desktop.ini",
        ".Trash-1000",
    ] {
        assert!(fs::metadata(mount.path("search").join(name)).is_err(), "{name}");
        assert!(
            fs::metadata(mount.path("search/snow").join(name)).is_err(),
            "{name}"
        );
    }
    for name in ["HEAD", "record.json", "no id"] {
        assert!(
            fs::symlink_metadata(mount.path("search/snow").join(name)).is_err(),
            "{name}"
        );
    }
    assert!(names(&mount.path("search")).is_empty());
    assert_eq!(sandbox.total(), 0, "{:?}", sandbox.requests());
    assert_eq!(names(&mount.path("search/snow")).len(), 1);
    assert_eq!(names(&mount.path("search")), ["snow"]);
    assert_eq!(sandbox.total(), 1, "{:?}", sandbox.requests());
}

#[test]
fn a_hit_opens_by_its_id_and_what_is_no_hit_does_not() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let other = sandbox.publish(NewRecord::titled("Sand").file("a", "1"));
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let folder = mount.path("search/snow");
    assert_eq!(fs::read_to_string(folder.join(&id).join("files/a")).unwrap(), "1");
    assert_eq!(errno(fs::symlink_metadata(folder.join(other))), libc::ENOENT);
    assert_eq!(sandbox.count(Route::Search), 1);
    assert_eq!(sandbox.total(), 2, "and the bytes: {:?}", sandbox.counts());
}

#[test]
fn pages_are_fetched_as_the_listing_is_read_up_to_the_limit() {
    let sandbox = Sandbox::start();
    sandbox.publish_many(450, 1);
    let limited = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--search-limit", "250"])
        .start();
    sandbox.reset_counts();
    let mut entries = fs::read_dir(limited.path("search/generated")).unwrap();
    entries.next().unwrap().unwrap();
    assert_eq!(sandbox.count(Route::Search), 1, "the beginning costs one page");
    assert_eq!(entries.count(), 249);
    assert_eq!(sandbox.count(Route::Search), 3, "{:?}", sandbox.counts());
    let mount = mount(&sandbox);
    assert_eq!(names(&mount.path("search/generated")).len(), 450);
}

#[test]
fn find_over_two_thousand_records_of_a_search_costs_pages() {
    let sandbox = Sandbox::start();
    sandbox.publish_many(2000, 2);
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--search-limit", "10000"])
        .start();
    sandbox.reset_counts();
    let folder = mount.path("search/generated");
    let found = shell(&format!("find {} -mindepth 1 | wc -l", folder.display()));
    assert_eq!(found.trim(), "2000");
    assert_eq!(sandbox.count(Route::Search), 20);
    assert_eq!(sandbox.total(), 20, "{:?}", sandbox.counts());
    let found = shell(&format!(
        "find {}/*/files -name '*.csv' | wc -l",
        folder.display()
    ));
    assert_eq!(found.trim(), "4000");
    assert_eq!(sandbox.total(), 20, "{:?}", sandbox.counts());
}

#[test]
fn find_and_grep_over_a_search_cost_pages_restricted_records_and_records_with_versions() {
    let sandbox = Sandbox::start();
    let found = climate(&sandbox);
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let folder = mount.path("search/climate");
    // It reports the folders that it may not look into, and the links that lead back.
    let tables = shell(&format!(
        "find -L {} -name '*.csv' 2>/dev/null | sort | head -n 1000; true",
        folder.display()
    ));
    let own = tables
        .lines()
        .filter(|line| line.ends_with("/files/a.csv") && !line.contains("/versions/"))
        .count();
    assert_eq!(own, found.len() - 3, "{tables}");
    // One page; three lists of restricted files; the versions of two records.
    assert!(sandbox.total() <= 1 + 3 + 2, "{:?}", sandbox.counts());
    assert_eq!(sandbox.count(Route::Search), 1);
    assert_eq!(sandbox.count(Route::Versions), 2);

    sandbox.reset_counts();
    let hits = shell(&format!(
        "grep -l station {}/*/files/*.csv 2>/dev/null | wc -l",
        folder.display()
    ));
    assert_eq!(hits.trim(), "25");
    let others = sandbox.total() - sandbox.count(Route::Content);
    assert_eq!(others, 0, "{:?}", sandbox.counts());
}

#[test]
fn walking_a_search_on_zenodo_meets_no_limit() {
    let sandbox = Sandbox::start_with(Options {
        knobs: Flavour::Zenodo.knobs(),
        ..Options::default()
    });
    for number in 0..80 {
        sandbox.publish(NewRecord::titled(&format!("climate {number}")).file("a.csv", "1,2\n"));
    }
    let guest = how(&sandbox.url()).start();
    // Its records tell that it is Zenodo, whose pages are small.
    names(&guest.path("records"));
    sandbox.reset_counts();
    let found = shell(&format!(
        "find {}/*/files -name '*.csv' | wc -l",
        guest.path("search/climate").display()
    ));
    assert_eq!(found.trim(), "80");
    let requests = sandbox.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.status != 429 && request.status != 400)
    );
    assert_eq!(sandbox.count(Route::Search), 4, "{:?}", sandbox.counts());
    assert_eq!(sandbox.total(), 4, "{:?}", sandbox.counts());
}

#[test]
fn a_server_with_short_pages_is_searched_though_nothing_else_has_told_of_them() {
    let sandbox = Sandbox::start_with(Options {
        knobs: Flavour::Zenodo.knobs(),
        ..Options::default()
    });
    let guest = how(&sandbox.url()).start();
    let ids: Vec<String> = (0..30)
        .map(|number| sandbox.publish(NewRecord::titled(&format!("climate {number}")).file("a.csv", "1,2\n")))
        .collect();
    sandbox.reset_counts();
    assert_eq!(names(&guest.path("search/climate")).len(), ids.len());
    // The first, longer one is refused, once.
    assert_eq!(sandbox.count(Route::Search), 3, "{:?}", sandbox.counts());
    assert_eq!(names(&guest.path("search/climate")).len(), ids.len());
    assert_eq!(
        sandbox.count(Route::Search),
        4,
        "the first has another length now"
    );
    assert_eq!(
        names(&guest.path("search/?q=climate&size=50&sort=newest")).len(),
        ids.len()
    );
    assert_eq!(sandbox.count(Route::Search), 6, "{:?}", sandbox.counts());
}

#[test]
fn walks_that_follow_links_end() {
    let sandbox = Sandbox::start();
    let mut id = sandbox.publish(NewRecord::titled("Snow").file("a", "0"));
    for number in 1..9 {
        let next = NewRecord::titled("Snow")
            .file("a", number.to_string().as_str())
            .version_of(&id);
        id = sandbox.publish(next);
    }
    let mount = mount(&sandbox);
    for folder in ["search/snow", "records"] {
        let folder = mount.path(folder).join(&id);
        let place = folder.display();
        // Each version once, and not in every order; loops are reported.
        let files = shell(&format!("find -L {place} -name a 2>/dev/null | wc -l; true"));
        assert_eq!(files.trim(), "9", "{place}");
    }
    let copy = mount.local("copy");
    shell(&format!(
        "cp -r {} {}",
        mount.path("search/snow").display(),
        copy.display()
    ));
    assert!(fs::symlink_metadata(copy.join(&id)).unwrap().is_symlink());
    shell(&format!("ls -lR {} > /dev/null", mount.path("search").display()));
    let listing = shell(&format!("ls -lR {}", mount.path("records").join(&id).display()));
    assert!(listing.contains("latest -> ../../"), "{listing}");
}

#[test]
fn nothing_that_is_found_can_be_changed() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = mount(&sandbox);
    names(&mount.path("search/snow"));
    // In `search` every name is there already.
    assert_eq!(errno(fs::create_dir(mount.path("search/new"))), libc::EEXIST);
    assert_eq!(errno(fs::write(mount.path("search/new"), "x")), libc::EISDIR);
    for folder in [
        "search/snow",
        "user",
        "user/records",
        "communities",
        "vocabularies",
        "vocabularies/languages",
        "doi",
        "doi/10.5072",
        &format!("records/{id}/versions"),
        &format!("records/{id}/exports"),
    ] {
        let folder = mount.path(folder);
        assert_eq!(
            errno(fs::create_dir(folder.join("new"))),
            libc::EROFS,
            "{folder:?}"
        );
        assert_eq!(
            errno(fs::write(folder.join("new.txt"), "x")),
            libc::EROFS,
            "{folder:?}"
        );
    }
    assert_eq!(
        errno(fs::remove_file(mount.path("search/snow").join(&id))),
        libc::EROFS
    );
    assert_eq!(errno(fs::remove_dir(mount.path("search/snow"))), libc::EROFS);
    shell(&format!(
        "! rm -r {} 2>/dev/null",
        mount.path("search/snow").display()
    ));
    assert_eq!(names(&mount.path("search/snow")), [id]);
}

#[test]
fn a_page_that_fails_is_eio_where_it_stands_and_not_the_end_of_the_listing() {
    let sandbox = Sandbox::start();
    sandbox.publish_many(250, 1);
    let mount = mount(&sandbox);
    sandbox.reset_counts();
    let fault = sandbox.fault(Fault::on(Route::Search).skip(2).then(Effect::ServerError(501)));
    let folder = mount.path("search/generated");
    let read: Vec<std::io::Result<fs::DirEntry>> = fs::read_dir(&folder).unwrap().take(1000).collect();
    let (last, before) = read.split_last().unwrap();
    assert_eq!(before.len(), 200);
    assert!(before.iter().all(Result::is_ok));
    assert_eq!(last.as_ref().unwrap_err().raw_os_error(), Some(libc::EIO));
    sandbox.remove_fault(fault);
    until("the failure is forgotten", || {
        fs::read_dir(&folder).unwrap().filter(Result::is_ok).count() == 250
    });
}

#[test]
fn records_that_a_page_told_of_are_renewed_by_the_page() {
    let sandbox = Sandbox::start();
    let ids = sandbox.publish_many(90, 1);
    let mount = mount(&sandbox);
    assert_eq!(names(&mount.path("search/generated")).len(), 90);
    done(&mount, "refresh");
    sandbox.reset_counts();
    for id in &ids {
        assert_eq!(names(&mount.path(format!("records/{id}/files"))).len(), 1);
    }
    assert_eq!(sandbox.count(Route::Search), 1, "{:?}", sandbox.counts());
    assert!(sandbox.total() <= 1 + 4, "{:?}", sandbox.counts());
}

#[test]
fn a_search_that_was_made_is_shown_while_the_repository_is_silent() {
    let sandbox = Sandbox::start();
    let id = sandbox.publish(NewRecord::titled("Snow").file("a", "1"));
    let mount = how(&sandbox.url())
        .token(ALICE)
        .arguments(&["--metadata-ttl", "0s"])
        .start();
    assert_eq!(names(&mount.path("search/snow")), [id.as_str()]);
    drop(sandbox);
    assert_eq!(names(&mount.path("search/snow")), [id.as_str()]);
    assert_eq!(errno(fs::read_dir(mount.path("search/other"))), libc::EIO);
    assert!(mount.status().offline.is_some());
}
