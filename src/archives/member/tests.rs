use std::sync::mpsc;

use parking_lot::Condvar;

use super::super::directory::Directory;
use super::super::sample::{Item, Sample};
use super::*;

/// Bytes that compress to about half.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let mut state = 5u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            b"abcdefghijklmnop"[(state >> 60) as usize]
        })
        .collect()
}

fn open_in(archive: &[u8], number: usize, memory: &Arc<Memory>) -> Result<OpenMember> {
    let member = Directory::read(&archive.to_vec(), "test")?.members.remove(number);
    let shared = Shared::new(member, "a member".into(), Arc::default(), Arc::clone(memory))?;
    Ok(OpenMember::new(Arc::new(shared), Box::new(archive.to_vec())))
}

fn again(open: &OpenMember, archive: &[u8]) -> OpenMember {
    OpenMember::new(Arc::clone(&open.shared), Box::new(archive.to_vec()))
}

fn read(open: &OpenMember, offset: u64, length: u32) -> Result<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    open.read(offset, length, Box::new(move |answer| tell.send(answer).unwrap()));
    told.recv().unwrap()
}

fn read_all(open: &OpenMember) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let piece = read(open, bytes.len() as u64, 128 << 10)?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend(piece);
    }
}

#[test]
fn members_have_their_bytes_and_are_right_when_all_was_read() {
    let bytes = text(3_000_000);
    let items = [
        Item::stored("s", &bytes),
        Item::deflated("d", &bytes),
        Item::deflated("empty", b""),
        Item::stored("small", b"x"),
        Item {
            is_wide: true,
            ..Item::deflated("wide", &bytes[..1000])
        },
    ];
    let archive = Sample::of(&items);
    let memory = Arc::default();
    for (number, item) in items.iter().enumerate() {
        let open = open_in(&archive, number, &memory).unwrap();
        assert!(!open.is_right());
        assert!(read_all(&open).unwrap() == item.bytes, "{number}");
        assert!(open.is_right() || item.bytes.is_empty());
    }
    assert_eq!(memory.decoders.load(Ordering::Relaxed), 0);
    assert_eq!(memory.points.load(Ordering::Relaxed), 0);
}

#[test]
fn any_part_can_be_read_in_any_order_and_by_several_handles() {
    let bytes = text(9_000_000);
    let archive = Sample::of(&[Item::stored("s", &bytes), Item::deflated("d", &bytes)]);
    let memory = Arc::default();
    for number in 0..2 {
        let first = open_in(&archive, number, &memory).unwrap();
        let handles = [again(&first, &archive), first];
        let mut state = 1u64;
        for round in 0..60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            let offset = (state >> 20) as usize % bytes.len();
            let length = 1 + (state >> 50) as usize * 20;
            let end = (offset + length).min(bytes.len());
            let got = read(&handles[round % 2], offset as u64, length as u32).unwrap();
            assert!(got == bytes[offset..end], "{offset}+{length}");
        }
    }
}

#[test]
fn pieces_out_of_order_cost_no_second_decoding() {
    let bytes = text(4_000_000);
    let archive = Sample::of(&[Item::deflated("d", &bytes)]);
    let counted = Counted::new(&archive);
    let open = counted.open(&Arc::default());
    for piece in [2u64, 0, 3, 1, 6, 4, 5, 7, 9, 8] {
        let at = piece * (128 << 10);
        assert!(read(&open, at, 128 << 10).unwrap() == bytes[at as usize..][..128 << 10]);
    }
    let compressed = open.shared.member.compressed;
    assert!(
        counted.bytes() <= compressed + 4096,
        "{} of {compressed}",
        counted.bytes()
    );
}

#[test]
fn going_back_begins_at_a_point_near() {
    let bytes = text(24 << 20);
    let archive = Sample::of(&[Item::deflated("d", &bytes)]);
    let counted = Counted::new(&archive);
    let memory: Arc<Memory> = Arc::default();
    let open = counted.open(&memory);
    read_all(&open).unwrap();
    let points = open.shared.points.count();
    assert!(
        (6..=super::super::inflate::MOST_POINTS).contains(&points),
        "{points}"
    );
    assert_eq!(memory.points.load(Ordering::Relaxed), points);
    for offset in [22u64 << 20, 11 << 20, 5 << 20, 17 << 20] {
        let before = counted.bytes();
        assert!(read(&open, offset, 100).unwrap() == bytes[offset as usize..][..100]);
        let cost = counted.bytes() - before;
        assert!(cost < 3 << 20, "{cost} at {offset}");
    }
    drop(open);
    assert_eq!(memory.points.load(Ordering::Relaxed), 0);
}

#[test]
fn many_open_members_keep_few_decoders_and_all_read_on() {
    let bytes = text(3_000_000);
    let archive = Sample::of(&[Item::deflated("d", &bytes)]);
    let memory: Arc<Memory> = Arc::default();
    let first = open_in(&archive, 0, &memory).unwrap();
    let handles: Vec<_> = (0..MOST_DECODERS + 20).map(|_| again(&first, &archive)).collect();
    for at in [0, 100_000, 2_200_000, 2_300_000] {
        for open in &handles {
            assert!(read(open, at as u64, 1000).unwrap() == bytes[at..][..1000]);
        }
        assert!(memory.decoders.load(Ordering::Relaxed) <= MOST_DECODERS);
    }
}

#[test]
fn points_stay_few_in_a_large_member() {
    let memory: Arc<Memory> = Arc::default();
    let points = Points::new(Arc::clone(&memory));
    let mut inflater = Inflater::new();
    for produced in (0..100_000u64).map(|n| n * (1 << 20)) {
        inflater.produced = produced;
        points.note(&inflater);
        assert!(points.count() <= super::super::inflate::MOST_POINTS);
    }
    assert!(points.count() > 8);
    // Half-way, the nearest is not further than some thirtieths of it all.
    assert!(50_000 << 20 <= points.reach(50_000 << 20) + (10_000 << 20));
}

#[test]
fn the_last_bytes_of_a_wrong_member_are_never_read() {
    let bytes = text(1_000_000);
    for item in [Item::stored("m", &bytes), Item::deflated("m", &bytes)] {
        let mut archive = Sample::of(&[item]);
        // In the middle of its data.
        let middle = archive.len() / 3;
        archive[middle] ^= 4;
        let open = open_in(&archive, 0, &Arc::default()).unwrap();
        let error = read_all(&open).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        // Nor anything else from then on, by nobody who has it open.
        assert!(read(&again(&open, &archive), 0, 10).is_err());
        assert!(!open.is_right());
        // Whoever reads it from the end finds out too.
        let open = open_in(&archive, 0, &Arc::default()).unwrap();
        let failed = (0..8u64)
            .rev()
            .filter(|n| read(&open, n * 125_000, 125_000).is_err());
        assert!(failed.count() > 0);
    }
}

#[test]
fn a_member_of_another_size_than_declared_is_wrong() {
    let bytes = text(100_000);
    for (method, size) in [(8u16, 99_999u32), (8, 100_001), (8, u32::MAX - 1), (0, 99_999)] {
        let item = Item {
            method,
            ..Item::stored("m", &bytes)
        };
        let mut archive = Sample::of(&[item]);
        let entry = archive
            .windows(4)
            .rposition(|four| four == b"PK\x01\x02")
            .unwrap();
        archive[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
        let open = open_in(&archive, 0, &Arc::default()).unwrap();
        assert_eq!(
            read_all(&open).unwrap_err().kind(),
            Kind::Corrupt,
            "{method} {size}"
        );
    }
}

#[test]
fn encrypted_members_and_other_methods_are_refused_with_an_errno_that_tells() {
    for (method, flags, errno) in [
        (8, 1, libc::EACCES),
        (0, 1 << 13, libc::EACCES),
        (99, 1, libc::EACCES),
        (12, 0, libc::EOPNOTSUPP),
        (93, 0, libc::EOPNOTSUPP),
    ] {
        let item = Item {
            method,
            flags,
            ..Item::stored("m", b"bytes")
        };
        let archive = Sample::of(&[item]);
        let error = open_in(&archive, 0, &Arc::default()).err().unwrap();
        assert_eq!(error.errno(), errno, "{error}");
    }
}

#[test]
fn a_small_member_is_one_read_of_the_archive() {
    let bytes = text(500_000);
    let items = [Item::deflated("m", &bytes), Item::stored("other", &bytes)];
    let counted = Counted::new(&Sample::of(&items));
    let open = counted.open(&Arc::default());
    read_all(&open).unwrap();
    assert_eq!(counted.reads(), 1);
}

#[test]
fn what_decodes_to_very_much_takes_little_memory() {
    let bytes = vec![0; 60 << 20];
    let archive = Sample::of(&[Item::deflated("bomb", &bytes)]);
    let open = open_in(&archive, 0, &Arc::default()).unwrap();
    assert_eq!(read(&open, (60 << 20) - 10, 10).unwrap(), [0; 10]);
    let line = open.line.lock();
    let decoder = line.decoder.as_ref().unwrap();
    assert!(
        decoder.recent.capacity() <= 4 << 20,
        "{}",
        decoder.recent.capacity()
    );
}

#[test]
fn a_read_that_waits_does_not_keep_the_others_of_its_handle_from_being_answered_after_it() {
    let bytes = text(400_000);
    let archive = Sample::of(&[Item::stored("m", &bytes)]);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let source = Gated(archive.clone(), Arc::clone(&gate));
    let shared = Arc::clone(&open_in(&archive, 0, &Arc::default()).unwrap().shared);
    let open = Arc::new(OpenMember::new(shared, Box::new(source)));
    let (tell, told) = mpsc::channel();
    let ask = |offset: u64| {
        let (open, tell) = (Arc::clone(&open), tell.clone());
        move || {
            open.read(
                offset,
                10,
                Box::new(move |answer| tell.send((offset, answer)).unwrap()),
            )
        }
    };
    let first = std::thread::spawn(ask(0));
    while !open.line.lock().is_busy {
        std::thread::yield_now();
    }
    // These only leave their question.
    ask(200)();
    ask(100)();
    assert!(told.try_recv().is_err());
    *gate.0.lock() = true;
    gate.1.notify_all();
    first.join().unwrap();
    let mut answers: Vec<_> = (0..3).map(|_| told.recv().unwrap()).collect();
    answers.sort_by_key(|(offset, _)| *offset);
    for (offset, answer) in answers {
        assert!(answer.unwrap() == bytes[offset as usize..][..10]);
    }
}

#[test]
fn a_panic_leaves_the_handle_usable() {
    struct Panics(Vec<u8>, AtomicBool);
    impl Source for Panics {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
            assert!(self.1.swap(true, Ordering::Relaxed), "on purpose");
            self.0.read_at(offset, length)
        }
        fn stop_at(&self, _end: u64) {}
        fn doubt(&self, _offset: u64, _end: u64) {}
    }
    let archive = Sample::of(&[Item::deflated("m", b"bytes")]);
    let shared = Arc::clone(&open_in(&archive, 0, &Arc::default()).unwrap().shared);
    let open = OpenMember::new(shared, Box::new(Panics(archive, AtomicBool::new(false))));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&open, 0, 10)));
    assert!(caught.is_err());
    assert_eq!(read(&open, 0, 10).unwrap(), b"bytes");
}

/// An archive that counts what is read of it.
#[derive(Clone)]
struct Counted {
    archive: Arc<Vec<u8>>,
    reads: Arc<Mutex<Vec<u64>>>,
}

impl Counted {
    fn new(archive: &[u8]) -> Self {
        Counted {
            archive: Arc::new(archive.to_vec()),
            reads: Arc::default(),
        }
    }

    fn open(&self, memory: &Arc<Memory>) -> OpenMember {
        let shared = Arc::clone(&open_in(&self.archive, 0, memory).unwrap().shared);
        OpenMember::new(shared, Box::new(self.clone()))
    }

    fn bytes(&self) -> u64 {
        self.reads.lock().iter().sum()
    }

    fn reads(&self) -> usize {
        self.reads.lock().len()
    }
}

impl Source for Counted {
    fn size(&self) -> u64 {
        self.archive.size()
    }
    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        self.reads.lock().push(u64::from(length));
        self.archive.read_at(offset, length)
    }
    fn stop_at(&self, _end: u64) {}
    fn doubt(&self, _offset: u64, _end: u64) {}
}

/// An archive whose bytes wait.
struct Gated(Vec<u8>, Arc<(Mutex<bool>, Condvar)>);

impl Source for Gated {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        let mut is_open = self.1.0.lock();
        while !*is_open {
            self.1.1.wait(&mut is_open);
        }
        self.0.read_at(offset, length)
    }
    fn stop_at(&self, _end: u64) {}
    fn doubt(&self, _offset: u64, _end: u64) {}
}
