//! Sample data: records as one meets them, and records as one would rather not.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use crate::app::App;
use crate::data::{Data, NewRecord};
use crate::formats;

/// Made by `samples/station-temperatures.py`: an integer axis `time` of 744 hours,
/// three gzip-compressed float series in the group `stations`, and an 8-bit `grid` of 64 x 64.
const HDF5: &[u8] = include_bytes!("../samples/station-temperatures.h5");

/// Size and seed of the large file.
pub(crate) const BIG: (u64, u64) = (300_000_000, 2024);

/// Its MD5, so that not every test has to hash it.
pub(crate) const BIG_MD5: &str = "032c5a16f4aa2743beb5653cd31db13c";

/// Ids of the sample records by name.
#[derive(Clone, Debug, Serialize)]
pub struct Samples {
    /// `temperatures.csv` (4,464 rows with a header) and `README.md`.
    pub csv: String,
    /// `snow-depth-map.png`.
    pub image: String,
    /// `station-temperatures.h5`.
    pub hdf5: String,
    /// `survey.zip` (four members, one in a folder) and `logs.tar`.
    pub archives: String,
    /// `scan.raw`, of the size in the options: 300 MB, generated as it is read.
    pub big: String,
    /// Three versions, oldest first: `data.txt` changes, `same.txt` stays, and versions 2 and 3
    /// have an `only-in-v2.txt` and `only-in-v3.txt` of their own.
    pub three_versions: [String; 3],
    /// The id that stands for all three.
    pub concept_of_three: String,
    /// `dir/sub/c.txt`, `dir/d.txt` and `top.txt`.
    pub nested: String,
    /// `Größe.txt`, `日本語.csv`, a name with a combining accent, and one with an emoji.
    pub unicode: String,
    /// Names that are hard to put into a URL; one has 255 characters.
    pub odd_names: String,
    /// `empty.txt`, and `one.txt` of one byte.
    pub empty_file: String,
    /// No files at all.
    pub metadata_only: String,
    /// `secret.bin`: everybody sees the record, only alice the file.
    pub restricted_files: String,
    /// `secret.bin`: only alice sees anything.
    pub restricted: String,
    /// An unpublished draft of alice's with `draft.txt`.
    pub draft: String,
    /// An unpublished draft of alice's without files.
    pub empty_draft: String,
}

/// Names with something in them that URLs, shells or headers care about.
const ODD_NAMES: &[&str] = &[
    "with space.txt",
    "100%.txt",
    "hash#1.txt",
    "q?x=1.txt",
    "plus+sign.txt",
    "a%2Fb.txt",
    "quote\"'.txt",
    "back\\slash.txt",
    "semi;colon&and.txt",
    ".hidden",
    "content",
];

/// Puts the samples in.
pub(crate) fn seed(app: &App, big_size: u64) -> Samples {
    let publish = |record: NewRecord| app.make_record(record);
    let csv = publish(
        NewRecord::titled("Air temperatures at three Alpine stations, 2024")
            .creators(&["Huber, Anna", "Rossi, Marco"])
            .description(
                "<p>Ten-minute means of air temperature and humidity, <b>quality controlled</b>.</p>",
            )
            .metadata("rights", json!([{"id": "cc-by-4.0"}]))
            .metadata("languages", json!([{"id": "eng"}]))
            .default_preview("temperatures.csv")
            .file("temperatures.csv", Data::text(temperatures()))
            .file(
                "README.md",
                "# Air temperatures\n\nColumns: time (UTC), station, temperature in °C, humidity in %.\n",
            ),
    );
    let image = publish(
        NewRecord::titled("Snow depth map of the Silvretta glacier")
            .creators(&["Keller, Lea"])
            .metadata("resource_type", json!({"id": "image-figure"}))
            .description("<p>Snow depth on 1 April 2024, from airborne laser scanning.</p>")
            .file("snow-depth-map.png", formats::png(96, 64)),
    );
    let hdf5 = publish(
        NewRecord::titled("Hourly temperatures of Vienna, Graz and Innsbruck, January 2024")
            .creators(&["Novák, Petr", "Huber, Anna"])
            .file("station-temperatures.h5", HDF5),
    );
    let archives = publish(
        NewRecord::titled("Household energy survey: questionnaires and logs")
            .creators(&["Öztürk, Elif"])
            .description("<p>Anonymised answers of 1,204 households.</p>")
            .file("survey.zip", formats::zip(&archive_members()))
            .file("logs.tar", formats::tar(&archive_members())),
    );
    let big = publish(
        NewRecord::titled("Micro-CT scan of a sandstone core")
            .creators(&["Lindqvist, Maja"])
            .description("<p>Raw 16-bit volume, one file.</p>")
            .file("scan.raw", Data::generated(big_size, BIG.1)),
    );
    let three_versions = three_versions(app);
    let concept_of_three = app.store.lock().records[&three_versions[0]].parent.clone();
    let nested = publish(
        NewRecord::titled("Simulation runs with nested output")
            .file("dir/sub/c.txt", "c in a folder in a folder\n")
            .file("dir/d.txt", "d in a folder\n")
            .file("top.txt", "at the top\n"),
    );
    let unicode = publish(
        NewRecord::titled("Überprüfung der Größe: 日本語のデータ")
            .creators(&["Müller-Łukasiewicz, Žofie", "山田, 太郎"])
            .file("Größe.txt", "Größe: 42\n")
            .file("日本語.csv", "名前,値\nあ,1\n")
            .file("e\u{301} decomposed.txt", "an e and a combining accent\n")
            .file("emoji 😀.dat", vec![1, 2, 3, 4, 5, 6, 7]),
    );
    let mut odd = NewRecord::titled("Names with spaces / and: odd * characters?");
    for name in ODD_NAMES {
        odd = odd.file(name, Data::text(format!("the content of {name}\n")));
    }
    let odd_names = publish(odd.file(&"x".repeat(255), "a very long name\n"));
    let empty_file = publish(
        NewRecord::titled("An empty file")
            .file("empty.txt", "")
            .file("one.txt", "1"),
    );
    let metadata_only = publish(
        NewRecord::titled("Field diary of the 1931 expedition (on paper)")
            .creators(&["Sverdrup, Harald"])
            .description("<p>Kept in the archive; not digitised.</p>"),
    );
    let secret = || Data::generated(1000, 1);
    let restricted_files = publish(
        NewRecord::titled("Interview transcripts")
            .restricted_files()
            .file("secret.bin", secret()),
    );
    let restricted = publish(
        NewRecord::titled("Unpublished patent drawings")
            .restricted()
            .file("secret.bin", secret()),
    );
    let draft = app.make_draft(
        NewRecord::titled("Soil moisture, work in progress").file("draft.txt", "not yet final\n"),
    );
    let empty_draft = app.make_draft(NewRecord::titled("A draft without files"));
    Samples {
        csv,
        image,
        hdf5,
        archives,
        big,
        three_versions,
        concept_of_three,
        nested,
        unicode,
        odd_names,
        empty_file,
        metadata_only,
        restricted_files,
        restricted,
        draft,
        empty_draft,
    }
}

fn three_versions(app: &App) -> [String; 3] {
    let version = |number: usize| {
        NewRecord::titled("River discharge of the upper Inn")
            .creators(&["Moser, Jakob"])
            .metadata("version", json!(format!("v{number}")))
            .file(
                "data.txt",
                Data::text(format!("discharge, release {number}\n").repeat(number)),
            )
            .file("same.txt", "This file is the same in all versions.\n")
    };
    let first = app.make_record(version(1));
    let second = app.make_record(
        version(2)
            .version_of(&first)
            .file("only-in-v2.txt", "version 2\n"),
    );
    let third = app.make_record(
        version(3)
            .version_of(&second)
            .file("only-in-v3.txt", "version 3\n"),
    );
    [first, second, third]
}

fn archive_members() -> [(&'static str, Vec<u8>); 4] {
    let answers: String = (1..=400).fold("household,kwh\n".to_string(), |mut text, number| {
        let _ = writeln!(text, "{number},{}", 1800 + number * 37 % 2900);
        text
    });
    [
        ("readme.txt", b"Survey of 2023, second wave.\n".to_vec()),
        ("answers.csv", answers.into_bytes()),
        ("forms/page-1.png", formats::png(24, 32)),
        ("forms/empty.txt", Vec::new()),
    ]
}

/// A month of ten-minute values, one station every ten days.
fn temperatures() -> String {
    let mut text = "time,station,temperature_c,humidity_pct\n".to_string();
    for step in 0..31 * 144_u32 {
        let (day, minute) = (step / 144, step % 144 * 10);
        let station = ["Sonnblick", "Patscherkofel", "Rax"][(day / 11) as usize];
        let phase = f64::from(minute) / 1440.0 * std::f64::consts::TAU;
        let temperature = -6.0 + 4.0 * (phase - 2.3).sin() + f64::from(step * 7919 % 100) / 50.0;
        let humidity = 60 + step * 31 % 35;
        let _ = writeln!(
            text,
            "2024-01-{:02}T{:02}:{:02}:00Z,{station},{temperature:.2},{humidity}",
            day + 1,
            minute / 60,
            minute % 60
        );
    }
    text
}
