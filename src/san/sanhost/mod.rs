//! `sanhost`: the ordered management addresses of one SAN, and the way of a call through them.
//!
//! Two pure parts, and what moves them. [`roster`] is what is known of the addresses over all calls; [`course`] is the way of one call
//! through them. [`Sanhost`] walks a course with the family's sockets, and `probe` asks in the background who is there. Calls and probes feed
//! the same roster: what one learns of an address spares all others the wait.
//!
//! The invariants: a call never gives up for want of addresses while one of them is untried; what may have been done is not sent again
//! before the caller has looked; an address that answers as another SAN is not spoken to; one deadline holds for the whole call.

mod course;
#[cfg(test)]
mod course_tests;
pub(super) mod probe;
mod roster;
#[cfg(test)]
mod roster_tests;
mod view;

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout_at;

use super::Until;
use super::error::{Attempts, Cause, SanError};
use crate::fault::{Fault, chain};

pub(super) use course::Attempt;
use course::{Course, LONGEST_CONNECT, Outcome, Step, Verdict};
pub use roster::Mixed;
use roster::Roster;
pub use view::{AddressStanding, AddressState, SanhostState};

/// An address that takes longer for an answer may be dead.
const SILENCE: Duration = Duration::from_secs(1);

/// Whether a call may be sent again when the first reply was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only looks.
    Freely,
    /// It changes something: the caller must look first.
    Never,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand<'a> {
    /// Its name.
    pub(super) call: &'static str,
    pub(super) repeat: Repeat,
    /// The address to begin with, for SANs whose addresses are not equal (the two service processors of a VNX). It is a wish: a bad one is tried last.
    pub(super) preferred: Option<&'a str>,
}

impl Errand<'_> {
    /// To any address.
    pub(super) fn new(call: &'static str, repeat: Repeat) -> Self {
        Self {
            call,
            repeat,
            preferred: None,
        }
    }
}

/// Why an attempt gave no result.
#[derive(Debug)]
pub(super) enum AttemptError {
    /// Nothing was sent; any other address will do.
    NotReached(Cause),
    /// Sent, and no answer: it may have been done.
    NoAnswer(Cause),
    /// An answer, so no other address is asked; [`Fault::Busy`]: not done, and worth asking here once more.
    Refused(Fault, String),
    /// An answer that makes no sense.
    Answer(&'static str, Cause),
}

/// There was no time for this address.
#[derive(Debug, thiserror::Error)]
#[error("not tried, the time was over")]
struct Untried;

/// A call on its way.
struct Walk {
    call: &'static str,
    course: Course,
    attempts: Attempts,
    /// The last answer that said so.
    busy: Option<SanError>,
}

/// The management addresses of one SAN.
#[derive(Debug)]
pub(super) struct Sanhost {
    roster: Mutex<Roster>,
    /// Told at each change of the roster.
    changed: Notify,
    /// Differs from call to call.
    seed: AtomicU64,
}

impl Sanhost {
    /// The SAN behind `addresses`, in the order in which they are tried.
    pub(super) fn new(addresses: &[String]) -> Self {
        Self::seeded(addresses, RandomState::new().hash_one(addresses))
    }

    /// The same; how long it waits for a busy SAN follows from `seed`.
    pub(super) fn seeded(addresses: &[String], seed: u64) -> Self {
        Self {
            roster: Mutex::new(Roster::new(addresses)),
            changed: Notify::new(),
            seed: AtomicU64::new(seed),
        }
    }

    /// Takes over a changed list; what is known of the addresses that stay is kept. Calls under way go on with the new list.
    pub(super) fn relist(&self, addresses: &[String]) {
        self.change(|roster| roster.relist(addresses));
    }

    /// How the addresses stand.
    pub(super) fn state(&self) -> SanhostState {
        self.roster().state(Until::now())
    }

    /// Sends one call: `attempt` is asked for one address after the other until one answers.
    ///
    /// Cancel-safe as far as `attempt` is.
    pub(super) async fn call<T, A, F>(
        &self,
        errand: Errand<'_>,
        until: Until,
        attempt: A,
    ) -> Result<T, SanError>
    where
        A: Fn(Attempt) -> F,
        F: Future<Output = Result<T, AttemptError>>,
    {
        self.wait_until_asked(until).await;
        let seed = self.seed.fetch_add(1, Ordering::Relaxed);
        let mut walk = Walk {
            call: errand.call,
            course: Course::new(errand.repeat, until, seed).preferring(errand.preferred),
            attempts: Attempts::default(),
            busy: None,
        };
        loop {
            let step = walk.course.next(&self.roster(), Until::now());
            match step {
                Step::Try(window) => {
                    let address = window.address.clone();
                    let began = Until::now();
                    let ended = self.watched(&address, attempt(window)).await;
                    if let Some(end) = self.ended(&mut walk, address, began, ended) {
                        return end;
                    }
                }
                Step::Wait(until) => tokio::time::sleep_until(until).await,
                Step::GiveUp(verdict) => return Err(self.given_up(walk, verdict)),
            }
        }
    }

    /// The end of an attempt. If it does not come soon the other addresses are looked at meanwhile: should this one be dead, the next is known to be good, and is
    /// connected.
    async fn watched<T>(&self, address: &str, attempt: impl Future<Output = T>) -> T {
        let mut attempt = pin!(attempt);
        let soon = Until::now() + SILENCE;
        if let Ok(ended) = timeout_at(soon, attempt.as_mut()).await {
            return ended;
        }
        self.change(|roster| roster.look_around(address, Until::now()));
        attempt.await
    }

    /// Takes note of how an attempt ended, and returns its answer when it ends the call.
    fn ended<T>(
        &self,
        walk: &mut Walk,
        address: String,
        began: Until,
        ended: Result<T, AttemptError>,
    ) -> Option<Result<T, SanError>> {
        let (call, now) = (walk.call, Until::now());
        let (outcome, cause) = match ended {
            Err(AttemptError::NotReached(cause)) => (Outcome::NotReached, cause),
            Err(AttemptError::NoAnswer(cause)) => (Outcome::NoAnswer, cause),
            answered => {
                self.change(|roster| roster.answered(&address, now));
                let error = match answered.map_err(|error| answer(call, &address, error)) {
                    Err(error) if is_busy(&error) => error,
                    end => return Some(end),
                };
                walk.course.ended(&address, Outcome::Busy, now);
                walk.busy = Some(error);
                return None;
            }
        };
        let why = chain(cause.as_ref());
        tracing::warn!(
            call,
            address,
            ?outcome,
            cause = why,
            "no answer from the SAN"
        );
        self.change(|roster| roster.failed(&address, (began, now), why));
        walk.course.ended(&address, outcome, now);
        walk.attempts.0.push((address, cause));
        None
    }

    fn given_up(&self, mut walk: Walk, verdict: Verdict) -> SanError {
        let untried = walk.course.untried(&self.roster());
        let untried = untried.iter().map(|it| (it.to_string(), Untried.into()));
        walk.attempts.0.extend(untried);
        let (call, attempts) = (walk.call, walk.attempts);
        match (verdict, walk.busy) {
            (Verdict::Busy, Some(refusal)) => refusal,
            (Verdict::MaybeDone, _) => SanError::NoAnswer { call, attempts },
            (Verdict::Mixed(source), _) => SanError::TwoSans { call, source },
            (Verdict::NotSent | Verdict::Busy, _) => SanError::Unreachable { call, attempts },
        }
    }

    /// Takes note of who answers at `address`; whether a call may be sent there.
    pub(super) fn recognise(&self, address: &str, san_uuid: &str) -> Result<(), Mixed> {
        self.change(|roster| roster.identified(address, san_uuid))
    }

    /// Before the first call every address is asked who it is, so that two SANs in one list are found before anything is sent to either.
    async fn wait_until_asked(&self, until: Until) {
        let now = Until::now();
        let shares =
            u32::try_from(self.roster().len()).map_or(u32::MAX, |count| count.saturating_add(1));
        let share = until.saturating_duration_since(now) / shares;
        let patience = now + share.min(LONGEST_CONNECT);
        loop {
            // Taken before the look, so that no change is missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if !self.roster().is_unasked() || timeout_at(patience, changed).await.is_err() {
                return;
            }
        }
    }

    /// Every change passes here: it is told to the log where it says something new, and to those who wait.
    fn change<T>(&self, change: impl FnOnce(&mut Roster) -> T) -> T {
        let (value, before, after) = {
            let mut roster = self.roster();
            let before = roster.state(Until::now());
            let value = change(&mut roster);
            (value, before, roster.state(Until::now()))
        };
        tell(&before, &after);
        self.changed.notify_waiters();
        value
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the log what changed for the worse or the better, once.
fn tell(before: &SanhostState, after: &SanhostState) {
    if let (Some(refused), None) = (&after.refused, &before.refused) {
        tracing::error!("no call is sent: {refused}");
    }
    for state in &after.addresses {
        let old = before
            .addresses
            .iter()
            .find(|it| it.address == state.address);
        let address = &state.address;
        let is_new = |wanted: fn(&AddressState) -> bool| wanted(state) && !old.is_some_and(wanted);
        if is_new(|it| it.standing == AddressStanding::Stranger) {
            let (theirs, ours) = (&state.says, &after.san_uuid);
            tracing::error!(
                address,
                theirs,
                ours,
                "another SAN answers at a management address; it is not spoken to"
            );
        }
        if is_new(|it| matches!(it.standing, AddressStanding::CoolingDown { .. })) {
            let why = state.error.as_ref().map(|(_, why)| why);
            tracing::warn!(address, why, "management address is tried last from now on");
        }
        if is_new(|it| it.in_use) {
            tracing::info!(address, "management address in use");
        }
    }
}

fn is_busy(error: &SanError) -> bool {
    matches!(
        error,
        SanError::Refused {
            fault: Fault::Busy,
            ..
        }
    )
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
