//! Archives with changed and missing bytes: none may panic, take much memory, or give wrong bytes for a whole member.

use std::sync::{Arc, mpsc};

use super::sample::{Item, Sample};
use super::{Directory, Memory, OpenMember, Shared};
use crate::error::Result;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

fn archives() -> Vec<Vec<u8>> {
    let text: Vec<u8> = (0..5000u32)
        .map(|n| b"the snow of 1999 "[(n * n) as usize % 17])
        .collect();
    let items = [
        Item::deflated("a/b.txt", &text),
        Item::stored("a/c.txt", &text[..700]),
        Item {
            is_wide: true,
            ..Item::deflated("d", &text[..100])
        },
        Item {
            flags: 1 << 11,
            ..Item::stored("ü", b"")
        },
    ];
    let make = |front: &[u8]| {
        let mut sample = Sample::after(front);
        items.iter().for_each(|item| sample.add(item));
        sample
    };
    vec![
        make(b"").finish(b"a comment"),
        make(b"").finish_64(),
        make(b"#!/bin/sh\n").finish(b""),
    ]
}

/// Reads everything that can be. What is read whole has the sum that the directory says.
fn read_everything(archive: &[u8]) {
    let Ok(directory) = Directory::read(&archive.to_vec(), "test") else {
        return;
    };
    let memory: Arc<Memory> = Arc::default();
    for member in directory.members {
        let (crc, size) = (member.crc32, member.size);
        let Ok(shared) = Shared::new(member, "member".into(), Arc::default(), Arc::clone(&memory)) else {
            continue;
        };
        let open = OpenMember::new(Arc::new(shared), Box::new(archive.to_vec()));
        if let Ok(bytes) = read_whole(&open)
            && bytes.len() as u64 == size
        {
            assert_eq!(crc32fast::hash(&bytes), if size == 0 { 0 } else { crc });
        }
        // The last byte, of whatever size it says.
        if size > 1 << 20 {
            let _ = read(&open, 0, 10);
        }
    }
}

fn read_whole(open: &OpenMember) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // More than any of them has.
    while bytes.len() < 1 << 20 {
        let piece = read(open, bytes.len() as u64, 3000)?;
        if piece.is_empty() {
            break;
        }
        bytes.extend(piece);
    }
    Ok(bytes)
}

fn read(open: &OpenMember, offset: u64, length: u32) -> Result<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    open.read(offset, length, Box::new(move |answer| tell.send(answer).unwrap()));
    told.recv().unwrap()
}

#[test]
fn an_archive_with_changed_bytes_gives_no_wrong_member() {
    let mut random = Random(0x5eed);
    for archive in archives() {
        read_everything(&archive);
        for _ in 0..1500 {
            let mut changed = archive.clone();
            for _ in 0..=random.below(3) {
                let at = match random.below(3) {
                    // Mostly where the directory is.
                    0 => random.below(changed.len()),
                    _ => changed.len() - 1 - random.below(400),
                };
                match random.below(4) {
                    0 => changed[at] = 0xff,
                    1 => changed[at] = 0,
                    _ => changed[at] ^= 1 << random.below(8),
                }
            }
            read_everything(&changed);
        }
    }
}

#[test]
fn an_archive_that_is_cut_gives_no_wrong_member() {
    for archive in archives() {
        for length in 0..archive.len() {
            if length > 300 && length < archive.len() - 700 && length % 37 != 0 {
                continue;
            }
            read_everything(&archive[..length]);
            read_everything(&archive[archive.len() - length..]);
        }
    }
}
