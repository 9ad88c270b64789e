//! A deflated member as it comes: the decoder of one open handle, and the points that all handles of it share.
//!
//! Called by `member`. Reading on is decoding on. Whoever goes back begins again at the nearest point before, which are
//! a few MiB apart at first and further in a large member, so that there are never more than [`MOST_POINTS`].

use std::sync::Arc;

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};
use parking_lot::Mutex;

use super::damaged;
use super::member::Memory;
use crate::error::Result;

/// The first distance between two points, in bytes of the member.
const SPACING: u64 = 2 << 20;

/// Most points of one member; each takes about 45 KB.
pub(super) const MOST_POINTS: usize = 32;

/// The decoder, somewhere in a member.
#[derive(Clone)]
pub(super) struct Inflater {
    state: Box<InflateState>,
    /// Bytes read of the compressed ones.
    pub(super) consumed: u64,
    /// Bytes of the member decoded.
    pub(super) produced: u64,
    /// Their sum.
    pub(super) crc: crc32fast::Hasher,
    has_ended: bool,
}

impl Inflater {
    /// At the start.
    pub(super) fn new() -> Self {
        Inflater {
            state: InflateState::new_boxed(DataFormat::Raw),
            consumed: 0,
            produced: 0,
            crc: crc32fast::Hasher::new(),
            has_ended: false,
        }
    }

    /// Decodes some bytes into `output`. Returns how many of `input` it read and how many it wrote; nothing of both if it
    /// needs more input.
    ///
    /// # Errors
    /// `Corrupt` if these are no deflated bytes, or they end before the member does.
    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize)> {
        if self.has_ended {
            return Err(damaged("its bytes end before its size"));
        }
        let step = inflate(&mut self.state, input, output, MZFlush::None);
        match step.status {
            Ok(MZStatus::StreamEnd) => self.has_ended = true,
            Ok(_) | Err(MZError::Buf) => {}
            Err(_) => return Err(damaged("its bytes can't be decoded")),
        }
        if step.bytes_consumed == 0 && step.bytes_written == 0 && !self.has_ended && !input.is_empty() {
            return Err(damaged("its bytes can't be decoded"));
        }
        self.consumed += step.bytes_consumed as u64;
        self.produced += step.bytes_written as u64;
        self.crc.update(&output[..step.bytes_written]);
        Ok((step.bytes_consumed, step.bytes_written))
    }

    /// Whether all that the bytes hold was decoded.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// Where decoding can begin again, in order.
pub(super) struct Points {
    state: Mutex<State>,
    memory: Arc<Memory>,
}

struct State {
    spacing: u64,
    points: Vec<Inflater>,
}

impl Points {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        let state = State {
            spacing: SPACING,
            points: Vec::new(),
        };
        Points {
            state: Mutex::new(state),
            memory,
        }
    }

    /// Notes where a decoder is, if no point is near.
    pub(super) fn note(&self, inflater: &Inflater) {
        let mut state = self.state.lock();
        let State { spacing, points } = &mut *state;
        let at = points.partition_point(|point| point.produced <= inflater.produced);
        let before = at.checked_sub(1).map_or(0, |before| points[before].produced);
        if inflater.produced < before + *spacing || at < points.len() {
            return;
        }
        if points.len() >= MOST_POINTS {
            *spacing *= 2;
            let mut kept = false;
            let had = points.len();
            points.retain(|_| {
                kept = !kept;
                !kept
            });
            self.memory.give_points_back(had - points.len());
        } else if self.memory.takes_point() {
            points.push(inflater.clone());
        }
    }

    /// The nearest point not behind `offset`.
    pub(super) fn before(&self, offset: u64) -> Option<Inflater> {
        let state = self.state.lock();
        let at = state.points.partition_point(|point| point.produced <= offset);
        at.checked_sub(1).map(|before| state.points[before].clone())
    }

    /// How far such a point is; 0 without one.
    pub(super) fn reach(&self, offset: u64) -> u64 {
        let state = self.state.lock();
        let at = state.points.partition_point(|point| point.produced <= offset);
        at.checked_sub(1)
            .map_or(0, |before| state.points[before].produced)
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.state.lock().points.len()
    }
}

impl Drop for Points {
    fn drop(&mut self) {
        self.memory.give_points_back(self.state.lock().points.len());
    }
}
