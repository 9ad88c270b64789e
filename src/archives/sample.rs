//! Archives made for tests, byte by byte, so that any of them can be wrong.

use miniz_oxide::deflate::compress_to_vec;

/// What is put together.
pub(super) struct Sample {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

/// One member, as it is to be said.
pub(super) struct Item<'a> {
    pub name: &'a [u8],
    pub bytes: &'a [u8],
    pub method: u16,
    pub flags: u16,
    /// The system it was made on.
    pub host: u8,
    /// Extra fields in the directory.
    pub extra: Vec<u8>,
    /// Sizes and place go into a ZIP64 field.
    pub is_wide: bool,
}

impl<'a> Item<'a> {
    pub fn deflated(name: &'a str, bytes: &'a [u8]) -> Self {
        Item {
            name: name.as_bytes(),
            bytes,
            method: 8,
            flags: 0,
            host: 3,
            extra: Vec::new(),
            is_wide: false,
        }
    }

    pub fn stored(name: &'a str, bytes: &'a [u8]) -> Self {
        Item {
            method: 0,
            ..Item::deflated(name, bytes)
        }
    }
}

/// An extra field.
pub(super) fn field(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = kind.to_le_bytes().to_vec();
    out.extend((data.len() as u16).to_le_bytes());
    out.extend(data);
    out
}

impl Sample {
    /// An archive with these bytes in front.
    pub fn after(front: &[u8]) -> Self {
        Sample {
            bytes: front.to_vec(),
            directory: Vec::new(),
            count: 0,
        }
    }

    pub fn of(items: &[Item]) -> Vec<u8> {
        let mut sample = Sample::after(b"");
        items.iter().for_each(|item| sample.add(item));
        sample.finish(b"")
    }

    pub fn add(&mut self, item: &Item) {
        let at = self.bytes.len() as u64;
        let packed = match item.method {
            8 => compress_to_vec(item.bytes, 6),
            _ => item.bytes.to_vec(),
        };
        let crc = crc32fast::hash(item.bytes).to_le_bytes();
        let (size, compressed) = (item.bytes.len() as u64, packed.len() as u64);
        let numbers = |a: u64, b: u64| {
            let narrow = |number: u64| if item.is_wide { u32::MAX } else { number as u32 };
            [narrow(a).to_le_bytes(), narrow(b).to_le_bytes()].concat()
        };
        let fixed = [
            item.flags.to_le_bytes(),
            item.method.to_le_bytes(),
            0x6000u16.to_le_bytes(),
            0x58c5u16.to_le_bytes(),
        ]
        .concat();
        let name_length = (item.name.len() as u16).to_le_bytes();
        let own_extra = field(0xcafe, b"own");
        self.bytes.extend(b"PK\x03\x04\x14\0");
        self.bytes.extend(&fixed);
        self.bytes.extend(crc);
        self.bytes.extend(numbers(compressed, size));
        self.bytes.extend(name_length);
        self.bytes.extend((own_extra.len() as u16).to_le_bytes());
        self.bytes.extend(item.name);
        self.bytes.extend(own_extra);
        self.bytes.extend(packed);

        let mut extra = item.extra.clone();
        if item.is_wide {
            let wide = [size, compressed, at].map(u64::to_le_bytes).concat();
            extra.extend(field(1, &wide));
        }
        let entry = &mut self.directory;
        entry.extend(b"PK\x01\x02\x14");
        entry.extend([item.host, 0x14, 0]);
        entry.extend(&fixed);
        entry.extend(crc);
        entry.extend(numbers(compressed, size));
        entry.extend(name_length);
        entry.extend((extra.len() as u16).to_le_bytes());
        entry.extend([0; 10]);
        entry.extend(if item.is_wide { u32::MAX } else { at as u32 }.to_le_bytes());
        entry.extend(item.name);
        entry.extend(extra);
        self.count += 1;
    }

    pub fn finish(mut self, comment: &[u8]) -> Vec<u8> {
        let at = self.bytes.len() as u32;
        self.bytes.extend(&self.directory);
        self.end(at, self.directory.len() as u32, comment);
        self.bytes
    }

    /// With the records of ZIP64 at the end.
    pub fn finish_64(mut self) -> Vec<u8> {
        let at = self.bytes.len() as u64;
        self.bytes.extend(&self.directory);
        let record = self.bytes.len() as u64;
        self.bytes.extend(b"PK\x06\x06");
        self.bytes.extend(44u64.to_le_bytes());
        self.bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for number in [
            u64::from(self.count),
            u64::from(self.count),
            self.directory.len() as u64,
            at,
        ] {
            self.bytes.extend(number.to_le_bytes());
        }
        self.bytes.extend(b"PK\x06\x07\0\0\0\0");
        self.bytes.extend(record.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.count = u16::MAX;
        self.end(u32::MAX, u32::MAX, b"");
        self.bytes
    }

    fn end(&mut self, at: u32, size: u32, comment: &[u8]) {
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend(self.count.to_le_bytes());
        self.bytes.extend(self.count.to_le_bytes());
        self.bytes.extend(size.to_le_bytes());
        self.bytes.extend(at.to_le_bytes());
        self.bytes.extend((comment.len() as u16).to_le_bytes());
        self.bytes.extend(comment);
    }
}
