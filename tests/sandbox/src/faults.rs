//! Faults on demand: which requests go wrong, how often, and how.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::routes::Route;

/// What goes wrong.
///
/// The first four change how an answer is sent, and all that match are applied. Of the others the
/// first that matches decides, so that a list of them is a sequence of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Waits before doing anything.
    Delay(#[serde(with = "millis")] Duration),
    /// Sends the body in pieces, with a pause before each.
    Trickle {
        /// Bytes in a piece.
        piece: usize,
        /// The pause, in milliseconds when written as JSON.
        #[serde(with = "millis")]
        pause: Duration,
    },
    /// Sends the body at so many bytes per second.
    Bandwidth(u64),
    /// Inverts one byte of the body, counted from the start of the file and not of the part sent.
    FlipByte {
        /// The byte's offset in the file.
        offset: u64,
    },
    /// 429 with `Retry-After` in seconds, before doing anything.
    TooManyRequests {
        /// Seconds to wait.
        retry_after: u64,
    },
    /// An error answer with this status, before doing anything.
    ServerError(u16),
    /// An error answer with this status although the action has succeeded.
    ErrorAfterSuccess(u16),
    /// Resets the connection before doing anything.
    Reset,
    /// Resets the connection in place of the answer, the action having succeeded.
    ResetAfterSuccess,
    /// Resets the connection after so many bytes of the body.
    ResetBody {
        /// Bytes sent before.
        after: u64,
    },
    /// Closes the connection after so many bytes of the body; `Content-Length` promised them all.
    ShortBody {
        /// Bytes sent before.
        after: u64,
    },
    /// Sends headers and so many bytes of the body, then nothing for ever.
    StallBody {
        /// Bytes sent before.
        after: u64,
    },
    /// Accepts the request, does nothing and never answers.
    Stall,
    /// Does what was asked and never answers.
    StallAfterSuccess,
    /// An HTML page with status 200 in place of the answer, before doing anything.
    HtmlPage,
    /// An HTML page with this status, as proxies and firewalls send it.
    HtmlError(u16),
    /// For uploads: 200 with `errors`, and the entry is gone, but for a part's.
    UploadLost,
    /// For parts: answered as if all had been stored, but only so many bytes are.
    KeepOnly {
        /// Bytes kept.
        bytes: u64,
    },
    /// For uploads: resets the connection after reading so many bytes; the entry is gone, but for a part's.
    ResetUpload {
        /// Bytes read before.
        after: u64,
    },
    /// For uploads: closes the connection after reading so many bytes; the entry stays pending.
    CloseUpload {
        /// Bytes read before.
        after: u64,
    },
    /// For uploads: stops reading after so many bytes, for ever.
    StallUpload {
        /// Bytes read before.
        after: u64,
    },
}

impl Effect {
    fn is_modifier(&self) -> bool {
        matches!(
            self,
            Effect::Delay(_) | Effect::Trickle { .. } | Effect::Bandwidth(_) | Effect::FlipByte { .. }
        )
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_millis() as u64)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// Names a fault that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FaultId(pub u64);

/// A fault: what it applies to, when, and its effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(default)]
    route: Option<Route>,
    #[serde(default)]
    record: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    skip: u64,
    #[serde(default)]
    times: Option<u64>,
    effect: Effect,
}

impl Fault {
    /// A fault of one kind of request. Says for ever unless limited by [`FaultOn::times`].
    pub fn on(route: Route) -> FaultOn {
        FaultOn {
            route: Some(route),
            record: None,
            key: None,
            skip: 0,
            times: None,
        }
    }

    /// A fault of every request.
    pub fn anywhere() -> FaultOn {
        FaultOn {
            route: None,
            record: None,
            key: None,
            skip: 0,
            times: None,
        }
    }
}

/// A fault being described; [`FaultOn::then`] completes it.
#[derive(Clone, Debug)]
pub struct FaultOn {
    route: Option<Route>,
    record: Option<String>,
    key: Option<String>,
    skip: u64,
    times: Option<u64>,
}

impl FaultOn {
    /// Only for this record or draft.
    pub fn record(mut self, id: impl AsRef<str>) -> FaultOn {
        self.record = Some(id.as_ref().to_string());
        self
    }

    /// Only for this file.
    pub fn key(mut self, key: impl AsRef<str>) -> FaultOn {
        self.key = Some(key.as_ref().to_string());
        self
    }

    /// Lets so many matching requests pass first.
    pub fn skip(mut self, requests: u64) -> FaultOn {
        self.skip = requests;
        self
    }

    /// Happens so many times, then no more.
    pub fn times(mut self, times: u64) -> FaultOn {
        self.times = Some(times);
        self
    }

    /// What happens.
    pub fn then(self, effect: Effect) -> Fault {
        let FaultOn {
            route,
            record,
            key,
            skip,
            times,
        } = self;
        Fault {
            route,
            record,
            key,
            skip,
            times,
            effect,
        }
    }
}

/// The faults that are set.
#[derive(Default)]
pub(crate) struct FaultList {
    next: u64,
    faults: Vec<(FaultId, Fault)>,
}

/// What has been decided about one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decided {
    pub delay: Duration,
    pub trickle: Option<(usize, Duration)>,
    pub bandwidth: Option<u64>,
    pub flip: Option<u64>,
    pub effect: Option<Effect>,
}

impl FaultList {
    pub fn add(&mut self, fault: Fault) -> FaultId {
        self.next += 1;
        self.faults.push((FaultId(self.next), fault));
        FaultId(self.next)
    }

    pub fn remove(&mut self, id: FaultId) -> bool {
        let before = self.faults.len();
        self.faults.retain(|(known, _)| *known != id);
        self.faults.len() < before
    }

    pub fn clear(&mut self) {
        self.faults.clear();
    }

    pub fn list(&self) -> &[(FaultId, Fault)] {
        &self.faults
    }

    /// Decides about a request, and counts it.
    pub fn decide(&mut self, route: Route, id: &str, key: &str) -> Decided {
        let mut decided = Decided::default();
        for (_, fault) in &mut self.faults {
            let matches = fault.route.is_none_or(|wanted| wanted == route)
                && fault.record.as_ref().is_none_or(|wanted| wanted == id)
                && fault.key.as_ref().is_none_or(|wanted| wanted == key);
            if !matches || (decided.effect.is_some() && !fault.effect.is_modifier()) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                if *times == 0 {
                    continue;
                }
                *times -= 1;
            }
            match &fault.effect {
                Effect::Delay(time) => decided.delay += *time,
                Effect::Trickle { piece, pause } => decided.trickle = Some(((*piece).max(1), *pause)),
                Effect::Bandwidth(rate) => decided.bandwidth = Some(*rate),
                Effect::FlipByte { offset } => decided.flip = Some(*offset),
                effect => decided.effect = Some(effect.clone()),
            }
        }
        self.faults.retain(|(_, fault)| fault.times != Some(0));
        decided
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_one_route_happen_one_after_another() {
        let mut faults = FaultList::default();
        faults.add(
            Fault::on(Route::Content)
                .key("a")
                .skip(1)
                .times(1)
                .then(Effect::ServerError(503)),
        );
        faults.add(Fault::on(Route::Content).times(1).then(Effect::Reset));
        faults.add(Fault::on(Route::Content).then(Effect::FlipByte { offset: 3 }));
        let mut next = |key| {
            let decided = faults.decide(Route::Content, "id", key);
            assert_eq!(decided.flip, Some(3));
            decided.effect
        };
        assert_eq!(next("a"), Some(Effect::Reset));
        assert_eq!(next("b"), None);
        assert_eq!(next("a"), Some(Effect::ServerError(503)));
        assert_eq!(next("a"), None);
    }

    #[test]
    fn faults_are_written_as_json() {
        let text =
            r#"{"route": "GET content", "times": 2, "effect": {"trickle": {"piece": 10, "pause": 5}}}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        let expected = Effect::Trickle {
            piece: 10,
            pause: Duration::from_millis(5),
        };
        assert_eq!(fault, Fault::on(Route::Content).times(2).then(expected));
        let fault: Fault = serde_json::from_str(r#"{"effect": "reset"}"#).unwrap();
        assert_eq!(fault, Fault::anywhere().then(Effect::Reset));
    }
}
