//! `sanhost`: the ordered management addresses of one SAN, and the way of a call through them.
//!
//! Two parts. [`Course`] is the pure one: which address is next, given how the attempts so far ended. [`Sanhost`] keeps what outlives a
//! call (the address that last answered, and who answered) and walks a course with the family's sockets, under one deadline.
//!
//! The invariants: a call never gives up for want of addresses while one of them is untried; what may have been done is not sent again
//! unless doing it twice does no harm; an address that answers as another SAN is not spoken to.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::Until;
use super::error::{Attempts, Cause, SanError};
use crate::fault::Fault;

/// An address that takes longer to be reached is treated as dead. A management network answers in milliseconds.
const LONGEST_CONNECT: Duration = Duration::from_secs(3);

/// Whether a call may be sent again when the first reply was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only looks, or doing it twice is doing it once.
    Freely,
    /// The caller must look first.
    Never,
}

/// How far an attempt that failed had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Nothing was sent.
    NotSent,
    /// Sent, no answer.
    Sent,
}

/// The way of one call through the addresses, by index.
#[derive(Debug)]
struct Course {
    repeat: Repeat,
    waiting: VecDeque<usize>,
    /// Those that have had their second chance.
    again: BTreeSet<usize>,
    /// Some attempt may have done it.
    sent: bool,
}

impl Course {
    /// Through `count` addresses: the preferred one, then the others in their order.
    fn new(count: usize, preferred: usize, repeat: Repeat) -> Self {
        let others = (0..count).filter(|&address| address != preferred);
        Self {
            repeat,
            waiting: std::iter::once(preferred).chain(others).collect(),
            again: BTreeSet::new(),
            sent: false,
        }
    }

    fn next(&mut self) -> Option<usize> {
        self.waiting.pop_front()
    }

    /// How many attempts are left as it looks now.
    fn left(&self) -> usize {
        self.waiting.len()
    }

    /// Takes note of a failed attempt. One that was cut after sending is worth a second chance: that address did take the call.
    fn failed(&mut self, address: usize, reach: Reach) {
        if reach == Reach::NotSent {
            return;
        }
        self.sent = true;
        match self.repeat {
            Repeat::Never => self.waiting.clear(),
            Repeat::Freely if self.again.insert(address) => self.waiting.push_back(address),
            Repeat::Freely => {}
        }
    }
}

/// Where and until when to try.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// `host:port`.
    pub(super) address: String,
    /// By when the address must have said who it is.
    pub(super) reached_by: Until,
    /// By when it must have answered.
    pub(super) answered_by: Until,
}

/// Why an attempt gave no result.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// Nothing was sent; any other address will do.
    NotReached(Cause),
    /// Sent, and no answer: it may have been done.
    NoAnswer(Cause),
    /// An answer, so no other address is asked.
    Refused(Fault, String),
    /// An answer that makes no sense.
    Answer(&'static str, Cause),
}

/// The management addresses of one SAN.
#[derive(Debug)]
pub(super) struct Sanhost {
    addresses: Vec<String>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    preferred: usize,
    san_uuid: Option<String>,
}

impl Sanhost {
    /// The SAN behind `addresses`, in the order in which they are tried.
    pub(super) fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            known: Mutex::default(),
        }
    }

    /// Sends one call: `attempt` is asked for one address after the other until one answers.
    ///
    /// Cancel-safe as far as `attempt` is.
    pub(super) async fn call<T, A, F>(
        &self,
        call: &'static str,
        repeat: Repeat,
        until: Until,
        attempt: A,
    ) -> Result<T, SanError>
    where
        A: Fn(Attempt) -> F,
        F: Future<Output = Result<T, AttemptError>>,
    {
        let mut course = Course::new(self.addresses.len(), self.preferred(), repeat);
        let mut attempts = Attempts::default();
        while let Some(index) = course.next() {
            let address = &self.addresses[index];
            let outcome = attempt(self.window(address, course.left(), until)).await;
            let (reach, cause) = match outcome {
                Err(AttemptError::NotReached(cause)) => (Reach::NotSent, cause),
                Err(AttemptError::NoAnswer(cause)) => (Reach::Sent, cause),
                answered => {
                    self.prefer(index);
                    return answered.map_err(|error| answer(call, address, error));
                }
            };
            tracing::warn!(
                call,
                address,
                ?reach,
                cause = crate::fault::chain(cause.as_ref()),
                "no answer from the SAN"
            );
            self.disappointed(index);
            course.failed(index, reach);
            attempts.0.push((address.clone(), cause));
        }
        Err(if course.sent {
            SanError::NoAnswer { call, attempts }
        } else {
            SanError::Unreachable { call, attempts }
        })
    }

    /// Whether `san_uuid` is the SAN that has answered before; the first that answers is.
    pub(super) fn recognise(&self, san_uuid: &str) -> Result<(), Stranger> {
        let mut known = self.known();
        match &known.san_uuid {
            Some(ours) if ours != san_uuid => Err(Stranger {
                ours: ours.clone(),
                theirs: san_uuid.to_owned(),
            }),
            Some(_) => Ok(()),
            None => {
                known.san_uuid = Some(san_uuid.to_owned());
                Ok(())
            }
        }
    }

    /// An equal share of what is left for this attempt and each of the `after` others.
    fn window(&self, address: &str, after: usize, until: Until) -> Attempt {
        let now = Until::now();
        let shares = u32::try_from(after).map_or(u32::MAX, |after| after.saturating_add(1));
        let share = until.saturating_duration_since(now) / shares;
        Attempt {
            address: address.to_owned(),
            reached_by: now + share.min(LONGEST_CONNECT),
            answered_by: now + share,
        }
    }

    fn preferred(&self) -> usize {
        self.known().preferred
    }

    fn prefer(&self, index: usize) {
        self.known().preferred = index;
    }

    /// The next call starts elsewhere, unless another call found a better address meanwhile.
    fn disappointed(&self, index: usize) {
        let mut known = self.known();
        if known.preferred == index {
            known.preferred = (index + 1) % self.addresses.len();
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address of another SAN.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is SAN {theirs}, not {ours}: two SANs in one sanhost list")]
pub(super) struct Stranger {
    ours: String,
    theirs: String,
}

fn answer(call: &'static str, address: &str, error: AttemptError) -> SanError {
    match error {
        AttemptError::Refused(fault, reason) => SanError::Refused {
            address: address.to_owned(),
            call,
            fault,
            reason,
        },
        AttemptError::Answer(field, source) => SanError::Answer {
            call,
            field,
            source,
        },
        AttemptError::NotReached(source) | AttemptError::NoAnswer(source) => SanError::NoAnswer {
            call,
            attempts: Attempts(vec![(address.to_owned(), source)]),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The addresses that a course leads to when each attempt ends as `ends` says (the last goes on for ever).
    fn walk(mut course: Course, ends: &[Reach]) -> (Vec<usize>, bool) {
        let mut visited = Vec::new();
        while let Some(address) = course.next() {
            let end = ends
                .get(visited.len())
                .or(ends.last())
                .copied()
                .unwrap_or(Reach::NotSent);
            visited.push(address);
            course.failed(address, end);
        }
        (visited, course.sent)
    }

    #[test]
    fn the_preferred_address_is_first_and_the_others_keep_their_order() {
        let course = Course::new(4, 2, Repeat::Freely);
        assert_eq!(walk(course, &[Reach::NotSent]), (vec![2, 0, 1, 3], false));
    }

    #[test]
    fn what_may_be_done_is_not_sent_again_unless_that_does_no_harm() {
        let never = Course::new(3, 0, Repeat::Never);
        let ends = [Reach::NotSent, Reach::Sent];
        assert_eq!(walk(never, &ends), (vec![0, 1], true));
        let freely = Course::new(2, 0, Repeat::Freely);
        assert_eq!(walk(freely, &[Reach::Sent]), (vec![0, 1, 0, 1], true));
    }

    #[test]
    fn the_first_to_answer_says_who_the_san_is() {
        let sanhost = Sanhost::new(vec!["a".to_owned()]);
        sanhost.recognise("one").unwrap();
        sanhost.recognise("one").unwrap();
        assert!(sanhost.recognise("two").is_err());
    }

    proptest! {
        #[test]
        fn none_left_means_that_all_were_tried(
            count in 1_usize..6,
            preferred in 0_usize..6,
            ends in proptest::collection::vec(any::<bool>(), 1..12),
        ) {
            let ends: Vec<Reach> = ends.iter().map(|&sent| if sent { Reach::Sent } else { Reach::NotSent }).collect();
            let (visited, _) = walk(Course::new(count, preferred % count, Repeat::Freely), &ends);
            prop_assert_eq!(visited.iter().collect::<BTreeSet<_>>().len(), count);
            prop_assert!(visited.len() <= 2 * count);
        }
    }
}
