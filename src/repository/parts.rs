//! All parts of a file, side by side, each repeated alone.
//!
//! Called by `staging/` in place of sending the whole. The calling thread hashes the file in order meanwhile, because
//! the parts are not sent in order and only the MD5 of the whole can be compared after the commit.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, scope};

use parking_lot::Mutex;

use super::Repository;
use super::model::Md5;
use super::multipart::{Feed, Multipart};
use super::transfers::SIDE_BY_SIDE;
use super::upload::{Upload, md5_of};
use crate::error::{Error, Kind, Result};

impl Repository {
    /// Sends all parts of a file and gives the MD5 of the whole. When it succeeds, the server has accepted each part in
    /// this call. The progress counts the bytes of all parts, and goes back by what is sent again.
    ///
    /// # Errors
    /// Those of [`Repository::put_part`], of the first part that could not be sent. [`Repository::way`] tells then whether
    /// another way is worth a try.
    pub fn put_parts(&self, multipart: &Multipart, upload: &Upload<'_>) -> Result<Md5> {
        let layout = multipart.layout();
        if layout.size() != upload.size {
            return Err(Error::new(
                Kind::Internal,
                format!("{} bytes were announced, not {}", layout.size(), upload.size),
            ));
        }
        let sending = Sending {
            repository: self,
            multipart,
            upload,
            next: AtomicU64::new(1),
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
            failed: Mutex::new(None),
        };
        let md5 = scope(|scope| {
            // Each holds a few pieces in memory, however large its part is.
            for number in 1..=SIDE_BY_SIDE.min(layout.count()) {
                let sender = Builder::new()
                    .name(format!("part-{number}"))
                    .spawn_scoped(scope, || sending.send_those_left());
                if let Err(error) = sender {
                    sending.give_up(Error::local("start a thread that sends parts", &error));
                }
            }
            md5_of(upload.file, upload.size, &|| sending.is_stopped())
                .inspect_err(|error| sending.give_up(error.clone()))
        });
        if let Some(error) = sending.failed.into_inner() {
            return Err(error);
        }
        if sending.accepted.into_inner() != layout.count() {
            return Err(Error::new(
                Kind::Local(libc::ECANCELED),
                "not all parts were sent: it was cancelled",
            ));
        }
        md5
    }
}

/// What the senders of one file share.
struct Sending<'a> {
    repository: &'a Repository,
    multipart: &'a Multipart,
    upload: &'a Upload<'a>,
    /// The next part that nobody sends yet.
    next: AtomicU64,
    /// Bytes handed to connections.
    sent: AtomicU64,
    /// Parts that the server has taken.
    accepted: AtomicU64,
    given_up: AtomicBool,
    /// Why.
    failed: Mutex<Option<Error>>,
}

impl Sending<'_> {
    fn is_stopped(&self) -> bool {
        self.given_up.load(Ordering::Relaxed) || self.upload.cancelled.load(Ordering::Relaxed)
    }

    /// One part can't be sent, so the others are in vain.
    fn give_up(&self, error: Error) {
        // The others fail because they are stopped; the first error is the reason.
        self.failed.lock().get_or_insert(error);
        self.given_up.store(true, Ordering::Relaxed);
    }

    fn send_those_left(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number > self.multipart.layout().count() || self.is_stopped() {
                return;
            }
            match self.send(number) {
                Ok(_) => self.accepted.fetch_add(1, Ordering::Relaxed),
                Err(error) => return self.give_up(error),
            };
        }
    }

    fn send(&self, number: u64) -> Result<Md5> {
        let counted = AtomicU64::new(0);
        let progress = |sent| {
            let before = counted.swap(sent, Ordering::Relaxed);
            // Wraps below zero and back when a part begins anew.
            let change = sent.wrapping_sub(before);
            let all = self
                .sent
                .fetch_add(change, Ordering::Relaxed)
                .wrapping_add(change);
            (self.upload.progress)(all);
        };
        let feed = Feed {
            file: self.upload.file,
            progress: &progress,
            stopped: &|| self.is_stopped(),
        };
        self.repository.send_part(self.multipart, number, &feed)
    }
}
