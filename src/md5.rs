//! MD5, for telling whether bytes are those that the repository has. Not for secrets.
//!
//! The ground below `content/`, `staging/` and `repository/`. It wraps the implementation of the TLS library, which is a
//! quarter faster than the best in plain Rust: the sum is what bounds a first read.

use std::ffi::c_void;

use crate::repository::model::Md5;

/// A sum of the bytes so far.
#[derive(Clone)]
pub struct Hasher(aws_lc_sys::MD5_CTX);

impl Hasher {
    /// Of no bytes.
    #[must_use]
    pub fn new() -> Self {
        let mut context = aws_lc_sys::MD5_CTX {
            h: [0; 4],
            Nl: 0,
            Nh: 0,
            data: [0; 64],
            num: 0,
        };
        // SAFETY: the context is a valid one to write to, and nobody else knows it.
        let done = unsafe { aws_lc_sys::MD5_Init(&raw mut context) };
        debug_assert_eq!(done, 1, "it can't fail");
        Hasher(context)
    }

    /// Goes on with these.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // SAFETY: the context is initialised and borrowed by this call alone; `bytes` is readable for its length, and no
        // pointer to it is kept.
        let done =
            unsafe { aws_lc_sys::MD5_Update(&raw mut self.0, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
        debug_assert_eq!(done, 1, "it can't fail");
    }

    /// The sum.
    #[must_use]
    pub fn finish(mut self) -> Md5 {
        let mut sum = [0; 16];
        // SAFETY: the context is initialised and owned, and the sum has the 16 bytes that are written.
        let done = unsafe { aws_lc_sys::MD5_Final(sum.as_mut_ptr(), &raw mut self.0) };
        debug_assert_eq!(done, 1, "it can't fail");
        Md5(sum)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher::new()
    }
}

/// The sum of these bytes.
#[must_use]
pub fn of(bytes: impl AsRef<[u8]>) -> Md5 {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums_are_right() {
        // The test suite of RFC 1321.
        for (text, sum) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (&"1234567890".repeat(8), "57edf4a22be3c955ac49da2e2107b67a"),
            (&"a".repeat(1_000_000), "7707d6ae4e027c70eea2a935c2296f21"),
        ] {
            assert_eq!(of(text).to_string(), sum);
        }
    }

    #[test]
    fn a_sum_does_not_depend_on_how_its_bytes_are_cut() {
        let bytes: Vec<u8> = (0..100_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let whole = of(&bytes);
        let mut random = 1_u64;
        for round in 0..200 {
            let longest = [3, 64, 65, 1000, 70_000][round % 5];
            let mut hasher = Hasher::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (now, later) = rest.split_at(((random >> 33) as usize % (longest + 1)).min(rest.len()));
                hasher.update(now);
                rest = later;
            }
            assert_eq!(hasher.finish(), whole, "round {round}");
        }
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let mut first = Hasher::new();
        first.update("ab");
        let mut second = first.clone();
        first.update("c");
        second.update("d");
        assert_eq!(first.finish(), of("abc"));
        assert_eq!(second.finish(), of("abd"));
    }
}
