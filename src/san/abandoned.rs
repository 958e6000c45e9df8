//! Copies that were begun under a passing name, given up, and never asked for again.
//!
//! A controller that goes on with a copy of that name does so at any moment, and gives it its own name when it is whole. So two things must hold before one goes: nobody
//! went on with it for long, and a removal that comes late cannot meet what is whole by then. The first is watched here; the second is what a family promises that
//! tells of such copies at all: it removes by the passing name, which nothing bears that is whole. If a controller does go on at that very moment, its copy is gone
//! under its hands, its call ends with an open outcome, and the repeated one begins anew.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Until;
use super::ensure::San;
use super::error::SanError;
use crate::fault::{Fault, Faulted};

/// A copy is looked at so often in the time after which it counts as given up.
const LOOKS: u32 = 24;

/// A copy under its passing name, as far as work on it would show.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unfinished {
    /// The passing name.
    pub(super) name: String,
    /// The SAN's key, which another one of that name has not.
    pub(super) key: String,
    pub(super) size: u64,
}

/// What was seen of such copies.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    looked_at: Option<Until>,
    /// Each as it is, and since when.
    since: BTreeMap<Unfinished, Until>,
}

impl Watch {
    /// Whether it is time for a look.
    fn is_due(&self, unchanged: Duration, now: Until) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = seen
            .looked_at
            .is_none_or(|last| now >= last + unchanged / LOOKS);
        if due {
            seen.looked_at = Some(now);
        }
        due
    }

    /// Takes note of all that are there; those that have been as they are for that long.
    fn note(&self, found: Vec<Unfinished>, unchanged: Duration, now: Until) -> Vec<Unfinished> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut seen.since);
        for one in found {
            let since = known.get(&one).copied().unwrap_or(now);
            seen.since.insert(one, since);
        }
        let is_old = |(_, since): &(&Unfinished, &Until)| now >= **since + unchanged;
        let old = seen.since.iter().filter(is_old);
        old.map(|(one, _)| one.clone()).collect()
    }
}

impl San {
    /// Removes one copy that was begun, and that this process has seen as it is for the time `unchanged`; what the SAN called it. It looks no more often than there is
    /// need for.
    ///
    /// # Errors
    /// As the SAN or the way to it failed; the next turn tries again.
    pub async fn remove_abandoned(
        &self,
        unchanged: Duration,
        until: Until,
    ) -> Result<Option<String>, SanError> {
        if !self.watch.is_due(unchanged, Until::now()) {
            return Ok(None);
        }
        let found = self.family.find_unfinished(until).await?;
        let old = self.watch.note(found, unchanged, Until::now());
        match old.into_iter().next() {
            Some(one) => match self.family.remove_unfinished(&one, until).await {
                Ok(is_gone) => Ok(is_gone.then_some(one.name)),
                Err(error) if error.fault() == Fault::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(name: &str, key: &str, size: u64) -> Unfinished {
        Unfinished {
            name: name.to_owned(),
            key: key.to_owned(),
            size,
        }
    }

    #[test]
    fn only_what_stays_as_it_is_gets_old() {
        let (watch, begun, day) = (Watch::default(), Until::now(), Duration::from_secs(86_400));
        let at = |hours: u64| begun + Duration::from_secs(hours * 3_600);
        let [one, grown, again] = [copy("a", "1", 1), copy("a", "1", 2), copy("a", "2", 2)];
        let other = copy("b", "3", 1);
        let note = |found: &[&Unfinished], hours| {
            watch.note(
                found.iter().map(|it| (*it).clone()).collect(),
                day,
                at(hours),
            )
        };
        assert_eq!(note(&[&one, &other], 0), []);
        assert_eq!(note(&[&one, &other], 23), []);
        assert_eq!(note(&[&grown, &other], 24), [copy("b", "3", 1)]);
        // Gone, and back under the same name; another of that name.
        assert_eq!(note(&[&grown], 25), []);
        assert_eq!(note(&[&again, &other], 48), []);
        assert_eq!(note(&[&again], 71), []);
        assert_eq!(note(&[&again, &other], 72), [again]);
    }

    #[test]
    fn looks_are_far_apart() {
        let (watch, begun) = (Watch::default(), Until::now());
        let hour = Duration::from_secs(3_600);
        assert!(watch.is_due(24 * hour, begun));
        assert!(!watch.is_due(24 * hour, begun + hour / 2));
        assert!(watch.is_due(24 * hour, begun + hour));
    }
}
