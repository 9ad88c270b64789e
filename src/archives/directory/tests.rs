use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::super::Method;
use super::super::sample::{Item, Sample, field};
use super::*;

fn names(archive: &[u8]) -> Vec<String> {
    let directory = Directory::read(&archive.to_vec(), "test").unwrap();
    directory
        .members
        .iter()
        .map(|member| member.name.to_string())
        .collect()
}

fn kind(archive: &[u8]) -> Kind {
    Directory::read(&archive.to_vec(), "test").unwrap_err().kind()
}

#[test]
fn the_directory_is_found_behind_comments_and_other_bytes() {
    let items = [Item::deflated("a", b"1"), Item::stored("b/c", b"23")];
    let make = |front: &[u8]| {
        let mut sample = Sample::after(front);
        items.iter().for_each(|item| sample.add(item));
        sample
    };
    let long = vec![b'x'; 65_535];
    let fake = b"PK\x05\x06 no end";
    for archive in [
        make(b"").finish(b""),
        make(b"").finish(&long),
        make(b"").finish(fake),
        make(b"").finish_64(),
    ] {
        assert_eq!(names(&archive), ["a", "b/c"]);
        // Put behind something that its numbers don't know of.
        let moved = [b"#!/bin/sh\nexit\n".to_vec(), archive].concat();
        let directory = Directory::read(&moved, "test").unwrap();
        let header = directory.members[1].header as usize;
        assert!(moved[header..].starts_with(b"PK\x03\x04"));
        assert!(moved[header + 30..].starts_with(b"b/c"));
    }
    // And something that they do know of.
    assert_eq!(names(&make(b"MZ program").finish(b"")), ["a", "b/c"]);
    // Bytes after the end are passed over.
    assert_eq!(
        names(&[make(b"").finish(b""), b"\n\n".to_vec()].concat()),
        ["a", "b/c"]
    );
    assert!(names(&Sample::of(&[])).is_empty());
}

#[test]
fn what_is_no_archive_is_told_from_an_empty_one() {
    for bytes in [
        &b""[..],
        b"PK",
        b"some text that is longer than the end of a directory",
        &[0; 100_000],
    ] {
        assert_eq!(kind(bytes), Kind::Corrupt);
    }
    let archive = Sample::of(&[Item::stored("a", b"1"), Item::stored("b", b"1")]);
    let entry = archive
        .windows(4)
        .rposition(|four| four == b"PK\x01\x02")
        .unwrap();
    let mut damaged = archive.clone();
    damaged[entry] = b'Q';
    assert_eq!(kind(&damaged), Kind::Corrupt);
    // A part of several.
    let mut part = archive;
    let end = part.len() - 22;
    part[end + 4] = 2;
    assert_eq!(kind(&part), Kind::Local(libc::EOPNOTSUPP));
}

#[test]
fn sizes_and_places_of_zip64_are_read() {
    let mut sample = Sample::after(b"");
    sample.add(&Item {
        is_wide: true,
        ..Item::stored("wide", b"bytes")
    });
    let directory = Directory::read(&sample.finish_64(), "test").unwrap();
    let member = &directory.members[0];
    assert_eq!((member.size, member.compressed, member.header), (5, 5, 0));
    assert_eq!(member.method, Method::Stored);
}

#[test]
fn a_file_of_terabytes_costs_what_its_directory_has() {
    /// As if 5 TB of members were in front.
    struct Far(Vec<u8>, u64, Mutex<Vec<u64>>);
    impl Source for Far {
        fn size(&self) -> u64 {
            self.0.len() as u64 + self.1
        }
        fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
            self.2.lock().push(u64::from(length));
            match offset.checked_sub(self.1) {
                Some(at) => self.0.read_at(at, length),
                None => Ok(vec![0; length as usize]),
            }
        }
        fn stop_at(&self, _end: u64) {}
        fn doubt(&self, _offset: u64, _end: u64) {}
    }
    let mut sample = Sample::after(b"");
    for number in 0..5000 {
        sample.add(&Item::stored(&format!("folder/with/a/name/{number:05}.tif"), b""));
    }
    let far = Far(sample.finish_64(), 5 << 40, Mutex::default());
    // All places in it are off by 5 TB, as if something had been put in front.
    let directory = Directory::read(&far, "test").unwrap();
    assert_eq!(directory.members.len(), 5000);
    assert!(directory.members[0].header == 5 << 40);
    let read: u64 = far.2.lock().iter().sum();
    assert!(read < 2_700_000, "{read}");
}

#[test]
fn names_are_utf8_where_they_say_so_else_cp437_and_the_better_name_counts() {
    let item = |name: &'static [u8], flags, host, extra| Item {
        name,
        flags,
        host,
        extra,
        ..Item::stored("", b"")
    };
    let better = |of: &[u8]| {
        let mut data = vec![1];
        data.extend(crc32fast::hash(of).to_le_bytes());
        data.extend("größer".as_bytes());
        field(0x7075, &data)
    };
    let archive = Sample::of(&[
        item("grün".as_bytes(), 1 << 11, 0, vec![]),
        item(b"gr\x81n", 0, 0, vec![]),
        // From Unix and macOS, bytes that are UTF-8 are UTF-8, flag or not.
        item("grün".as_bytes(), 0, 3, vec![]),
        item(b"gr\x81n", 0, 3, vec![]),
        // Not UTF-8 in spite of what it says.
        item(b"\x80\xff", 1 << 11, 0, vec![]),
        item(b"old", 0, 0, better(b"old")),
        // A better name for another name.
        item(b"new", 0, 0, better(b"old")),
    ]);
    assert_eq!(
        names(&archive),
        ["grün", "grün", "grün", "grün", "Ç\u{a0}", "größer", "new"]
    );
}

#[test]
fn times_are_the_extended_ones_else_the_dos_time_as_utc() {
    let item = |extra| Item {
        extra,
        ..Item::stored("a", b"")
    };
    let stamp = |seconds: i32| [&[1][..], &seconds.to_le_bytes()].concat();
    let ntfs = [
        &[0, 0, 0, 0, 1, 0, 24, 0][..],
        &((1_600_000_000u64 + 11_644_473_600) * 10_000_000).to_le_bytes(),
        &[0; 16],
    ]
    .concat();
    let archive = Sample::of(&[
        item(field(0x5455, &stamp(1_600_000_000))),
        item(field(0x5455, &stamp(-86_400))),
        item(field(0x000a, &ntfs)),
        item(vec![]),
    ]);
    let directory = Directory::read(&archive, "test").unwrap();
    let times: Vec<_> = directory.members.iter().map(|member| member.modified).collect();
    let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
    // 2024-06-05 12:00 is what the samples say.
    let before = UNIX_EPOCH.checked_sub(Duration::from_secs(86_400));
    assert_eq!(
        times,
        [at(1_600_000_000), before, at(1_600_000_000), at(1_717_588_800)]
    );
}

#[test]
fn directories_past_the_limits_are_refused_with_the_limit() {
    let mut archive = Sample::of(&[Item::stored("a", b"")]);
    let end = archive.len() - 22;
    archive[end + 12..end + 16].copy_from_slice(&(65u32 << 20).to_le_bytes());
    let error = Directory::read(&archive, "test").unwrap_err();
    assert_eq!(error.errno(), libc::EFBIG);
    assert!(error.to_string().contains("64 MiB"), "{error}");
}

#[test]
fn too_many_members_are_refused() {
    let entry = Sample::of(&[Item::stored("a", b"")]);
    let at = entry.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
    let one = &entry[at..entry.len() - 22];
    let mut archive = one.repeat(MOST_MEMBERS + 1);
    let size = archive.len() as u32;
    archive.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff");
    archive.extend(size.to_le_bytes());
    archive.extend([0; 6]);
    assert_eq!(kind(&archive), Kind::TooLarge);
}
