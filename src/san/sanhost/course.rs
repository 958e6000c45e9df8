//! The way of one call through the addresses. Pure: outcomes and time come in, "try this address until then" or "give up" comes out.
//!
//! ```text
//!          ┌───────────── not reached: the next untried address ─────────────┐
//!          ▼                                                                 │
//!   next ──► Try ──► answered: the end, whatever the answer says             │
//!    ▲  │     ├────► not reached ─────────────────────────────────────────────┘
//!    │  │     ├────► no answer:  what only looks goes on, and may come back here once; what changes something ends,
//!    │  │     │                  for the caller looks first
//!    │  │     └────► busy ──► Wait ──► Try the same address, a few seconds in all
//!    │  └──────────────────────► GiveUp: no address is left, or no time
//!    └ each outcome
//! ```
//!
//! It always ends: each address is tried once, a second time at most after a lost answer, and busy answers are followed up for
//! [`BUSY_PATIENCE`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::super::Until;
use super::Repeat;
use super::roster::{Address, Mixed, Roster};

/// An address that takes longer to be connected is treated as dead. A management network answers in milliseconds, and it is the kernel that does.
pub(super) const LONGEST_CONNECT: Duration = Duration::from_secs(3);
/// A SAN that takes longer to say who it is, is. That may wait for its processors.
pub(super) const LONGEST_GREETING: Duration = Duration::from_secs(10);
/// What an address that was reached leaves of the call's time to the others, so that an answer lost there can be looked for.
const RESERVE: Duration = Duration::from_secs(8);
/// A SAN that is busy is asked again for so long; after that its answer goes up, for the orchestrator repeats calls too.
const BUSY_PATIENCE: Duration = Duration::from_secs(4);
const FIRST_BUSY_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Where and until when to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Attempt {
    /// `host:port`.
    pub(in super::super) address: String,
    /// By when the address must be connected.
    pub(in super::super) connected_by: Until,
    /// By when it must have said who it is.
    pub(in super::super) reached_by: Until,
    /// By when it must have answered.
    pub(in super::super) answered_by: Until,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Try(Attempt),
    /// And ask again.
    Wait(Until),
    GiveUp(Verdict),
}

/// Why a call ends without an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing that changes anything can have been done.
    NotSent,
    /// It may have been done.
    MaybeDone,
    /// The SAN was busy to the last.
    Busy,
    /// Two SANs are listed.
    Mixed(Mixed),
}

/// How an attempt ended that did not end the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing was sent.
    NotReached,
    /// Sent, no answer.
    NoAnswer,
    /// Answered: not done, ask again later.
    Busy,
}

/// The way of one call.
#[derive(Debug)]
pub(super) struct Course {
    repeat: Repeat,
    until: Until,
    preferred: Option<String>,
    tried: Vec<Address>,
    /// Those that took the call and may have it once more.
    again: Vec<Address>,
    maybe_done: bool,
    is_over: bool,
    busy: Option<Busy>,
    seed: u64,
}

#[derive(Debug)]
struct Busy {
    address: Address,
    /// No busy answer is followed up after this.
    patience: Until,
    times: u32,
    /// When it is asked again; `None` when that would be too late.
    resume: Option<Until>,
}

impl Course {
    /// A call that must end by `until`. Back-offs vary with `seed`.
    pub(super) fn new(repeat: Repeat, until: Until, seed: u64) -> Self {
        Self {
            repeat,
            until,
            preferred: None,
            tried: Vec::new(),
            again: Vec::new(),
            maybe_done: false,
            is_over: false,
            busy: None,
            seed,
        }
    }

    /// Begins at this address if it is listed and not known to be bad.
    pub(super) fn preferring(mut self, address: Option<&str>) -> Self {
        self.preferred = address.map(str::to_owned);
        self
    }

    /// The next step as the addresses stand now.
    pub(super) fn next(&mut self, roster: &Roster, now: Until) -> Step {
        if let Some(mixed) = roster.refusal() {
            return Step::GiveUp(self.verdict(Some(mixed)));
        }
        if self.is_over || now >= self.until {
            return Step::GiveUp(self.verdict(None));
        }
        let order = roster.order(self.preferred.as_deref());
        let is_listed = |busy: &&Busy| order.contains(&busy.address);
        if let Some(busy) = self.busy.as_ref().filter(is_listed) {
            return match busy.resume {
                None => Step::GiveUp(self.verdict(None)),
                Some(resume) if now < resume => Step::Wait(resume),
                Some(_) => Step::Try(self.attempt(&busy.address, 0, now)),
            };
        }
        let untried = order.iter().filter(|address| !self.tried.contains(address));
        let again = self.again.iter().filter(|address| order.contains(address));
        let waiting: Vec<Address> = untried.chain(again).cloned().collect();
        let Some(address) = waiting.first() else {
            return Step::GiveUp(self.verdict(None));
        };
        self.again.retain(|other| other != address);
        Step::Try(self.attempt(address, waiting.len() - 1, now))
    }

    /// Takes note of how the attempt at `address` ended.
    pub(super) fn ended(&mut self, address: &str, outcome: Outcome, now: Until) {
        let address: Address = address.into();
        let is_first = !self.tried.contains(&address);
        if is_first {
            self.tried.push(Arc::clone(&address));
        }
        if outcome == Outcome::Busy {
            return self.is_busy(address, now);
        }
        self.busy = None;
        if outcome == Outcome::NoAnswer {
            self.maybe_done = true;
            match self.repeat {
                Repeat::Never => self.is_over = true,
                Repeat::Freely if is_first => self.again.push(address),
                Repeat::Freely => {}
            }
        }
    }

    fn is_busy(&mut self, address: Address, now: Until) {
        let before = self.busy.take().filter(|busy| busy.address == address);
        let (patience, times) = before.map_or_else(
            || ((now + BUSY_PATIENCE).min(self.until), 0),
            |busy| (busy.patience, busy.times + 1),
        );
        let doubled = FIRST_BUSY_PAUSE * 2_u32.saturating_pow(times.min(8));
        let pause = part_of(doubled.min(LONGEST_BUSY_PAUSE), self.seed, times);
        let resume = now + pause;
        self.busy = Some(Busy {
            address,
            patience,
            times,
            resume: (resume < patience).then_some(resume),
        });
    }

    /// For each of the `others` there is to be time. An address that takes the call keeps most of it: whether it lives, its connection says.
    fn attempt(&self, address: &Address, others: usize, now: Until) -> Attempt {
        let left = self.until.saturating_duration_since(now);
        let shares = u32::try_from(others).map_or(u32::MAX, |others| others.saturating_add(1));
        let share = left / shares;
        Attempt {
            address: address.to_string(),
            connected_by: now + share.min(LONGEST_CONNECT),
            reached_by: now + share.min(LONGEST_GREETING),
            answered_by: now + share.max(left.saturating_sub(RESERVE)),
        }
    }

    fn verdict(&self, mixed: Option<Mixed>) -> Verdict {
        match (mixed, &self.busy) {
            _ if self.maybe_done => Verdict::MaybeDone,
            (Some(mixed), _) => Verdict::Mixed(mixed),
            (None, Some(_)) => Verdict::Busy,
            (None, None) => Verdict::NotSent,
        }
    }

    /// Those that there was no time for.
    pub(super) fn untried(&self, roster: &Roster) -> Vec<Address> {
        let mut all = roster.order(None);
        all.retain(|address| !self.tried.contains(address));
        all
    }
}

/// Part of `most`, at least half, that differs from call to call: callers who were refused together do not come back together.
fn part_of(most: Duration, seed: u64, times: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (seed, times).hash(&mut hasher);
    let part = u32::try_from(hasher.finish() >> 44).unwrap_or(0);
    most / 2 + most / 2 * part / (1 << 20)
}
