//! What changed lately, for those who keep something made from it and want to catch up instead of making it anew.

use std::collections::VecDeque;
use std::sync::Arc;

/// The latest changes of one set of names. Its owner counts them; the count only grows.
#[derive(Debug, Default)]
pub struct History {
    recent: VecDeque<(u64, Arc<str>)>,
    /// Changes up to this one are not in `recent` any more.
    lost: u64,
}

/// Who missed more changes than this is as fast to make it anew.
const KEPT: usize = 500;

impl History {
    /// The change of this number was one of `name`.
    pub fn note(&mut self, number: u64, name: &Arc<str>) {
        if self.recent.len() >= KEPT
            && let Some((oldest, _)) = self.recent.pop_front()
        {
            self.lost = oldest;
        }
        self.recent.push_back((number, Arc::clone(name)));
    }

    /// What changed after the change of this number, the last first and some perhaps more than once. `None` if that is
    /// not known any more.
    #[must_use]
    pub fn since(&self, number: u64) -> Option<impl Iterator<Item = &Arc<str>>> {
        (number >= self.lost).then(|| {
            let missed = self.recent.iter().rev();
            missed
                .take_while(move |(at, _)| *at > number)
                .map(|(_, name)| name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(history: &History, number: u64) -> Option<Vec<&str>> {
        history
            .since(number)
            .map(|names| names.map(|name| &**name).collect())
    }

    #[test]
    fn tells_what_was_missed() {
        let mut history = History::default();
        assert_eq!(since(&history, 0), Some(vec![]));
        history.note(3, &"a".into());
        history.note(7, &"b".into());
        assert_eq!(since(&history, 0), Some(vec!["b", "a"]));
        assert_eq!(since(&history, 3), Some(vec!["b"]));
        assert_eq!(since(&history, 7), Some(vec![]));
    }

    #[test]
    fn says_when_it_has_forgotten() {
        let mut history = History::default();
        for number in 1..=KEPT as u64 + 1 {
            history.note(number, &"a".into());
        }
        assert_eq!(since(&history, 0), None);
        assert_eq!(since(&history, 1).unwrap().len(), KEPT);
    }
}
