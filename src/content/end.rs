//! What it costs to read the end of a file: some servers answer a range with the whole file.
//!
//! `tree/` asks before it looks into an archive. Of a host that nobody has asked for a range yet, the end itself is asked
//! for, and that answer is left as soon as it turns out to be the whole file. It waits for the network.

use super::file::Content;
use super::hosts::Ranges;
use super::{Result, Store};
use crate::error::{Error, Kind};
use crate::repository::Coverage;

/// What the last bytes of a file cost.
#[derive(Debug)]
pub enum End {
    /// Nothing, or not much more than themselves.
    Near,
    /// They were asked for, and here they are.
    Came(Vec<u8>),
    /// Everything before them.
    Far,
}

impl Store {
    /// Whether the repository sends parts of files, if anybody has asked for one.
    #[must_use]
    pub fn is_known_to_send_parts(&self) -> Option<bool> {
        let expected = self.table.lock().hosts.expected()?;
        Some(expected == Ranges::Honoured)
    }
}

impl Content {
    /// What the last `length` bytes cost.
    ///
    /// # Errors
    /// Why that could not be found out.
    pub fn end(&self, length: u64) -> Result<End> {
        let start = self.size().saturating_sub(length);
        let (is_here, place, gone) = {
            let mut state = self.lock_open();
            let is_here = state.first_missing(start, self.size()).is_none();
            let place = state.place.clone();
            let gone = self.rest(&mut state);
            (is_here, place, gone)
        };
        self.store.discard(gone);
        if is_here {
            return Ok(End::Near);
        }
        let expected = self.store.table.lock().hosts.expected();
        match expected {
            Some(Ranges::Honoured) => return Ok(End::Near),
            Some(Ranges::Ignored) => return Ok(End::Far),
            None => {}
        }
        let mut download = self
            .store
            .repository
            .open_content(&place, Some((start, self.size() - 1)))?;
        if !matches!(download.coverage, Coverage::Part { first, .. } if first == start) {
            self.store.learn(download.host(), Ranges::Ignored);
            return Ok(End::Far);
        }
        self.store.learn(download.host(), Ranges::Honoured);
        let mut bytes = Vec::new();
        while let Some(piece) = download.next()? {
            bytes.extend_from_slice(&piece);
        }
        if bytes.len() as u64 != self.size() - start {
            return Err(Error::new(
                Kind::ServerFailed,
                format!("the end of {place} came cut"),
            ));
        }
        Ok(End::Came(bytes))
    }
}
