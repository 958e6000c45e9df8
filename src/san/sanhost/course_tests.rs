//! The way of a call under any sequence of outcomes: it ends, in time, and no way that is left is missed.

use std::time::Duration;

use proptest::prelude::*;

use super::Repeat;
use super::course::{Attempt, Course, Outcome, Step, Verdict};
use super::roster::Roster;
use super::view::AddressStanding;
use crate::san::Until;

const SECOND: Duration = Duration::from_secs(1);
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn roster(count: usize) -> Roster {
    let names: Vec<String> = NAMES[..count].iter().map(|&name| name.to_owned()).collect();
    Roster::new(&names)
}

/// One call and its time.
struct Call {
    course: Course,
    now: Until,
    tried: Vec<String>,
}

impl Call {
    fn new(repeat: Repeat, time: Duration) -> Self {
        Self::at(Until::now(), repeat, time)
    }

    fn at(now: Until, repeat: Repeat, time: Duration) -> Self {
        Self {
            course: Course::new(repeat, now + time, 7),
            now,
            tried: Vec::new(),
        }
    }

    fn next(&mut self, roster: &Roster) -> Step {
        loop {
            match self.course.next(roster, self.now) {
                Step::Wait(until) => {
                    assert!(until > self.now, "waits for the past");
                    self.now = until;
                }
                step => return step,
            }
        }
    }

    fn attempt(&mut self, roster: &Roster) -> Attempt {
        match self.next(roster) {
            Step::Try(attempt) => {
                self.tried.push(attempt.address.clone());
                attempt
            }
            other => panic!("{other:?}"),
        }
    }

    /// Fails so long after it began.
    fn fails(&mut self, roster: &Roster, outcome: Outcome, after: Duration) {
        let attempt = self.attempt(roster);
        self.now += after;
        self.course.ended(&attempt.address, outcome, self.now);
    }

    fn verdict(&mut self, roster: &Roster) -> Verdict {
        match self.next(roster) {
            Step::GiveUp(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_preferred_address_is_first_and_the_others_keep_their_order() {
    let roster = roster(4);
    let mut call = Call::new(Repeat::Freely, 9 * SECOND);
    call.course = Course::new(Repeat::Freely, call.now + 9 * SECOND, 1).preferring(Some("c"));
    for _ in 0..4 {
        call.fails(&roster, Outcome::NotReached, SECOND);
    }
    assert_eq!(call.tried, ["c", "a", "b", "d"]);
    assert_eq!(call.verdict(&roster), Verdict::NotSent);
}

#[test]
fn a_change_that_may_be_done_is_not_sent_again_and_a_look_is_once() {
    let roster = roster(3);
    let mut change = Call::new(Repeat::Never, 9 * SECOND);
    change.fails(&roster, Outcome::NotReached, SECOND);
    change.fails(&roster, Outcome::NoAnswer, SECOND);
    assert_eq!(change.verdict(&roster), Verdict::MaybeDone);
    assert_eq!(change.tried, ["a", "b"]);
    let mut look = Call::new(Repeat::Freely, 9 * SECOND);
    for _ in 0..6 {
        look.fails(&roster, Outcome::NoAnswer, SECOND);
    }
    assert_eq!(look.verdict(&roster), Verdict::MaybeDone);
    assert_eq!(look.tried, ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_busy_san_is_asked_again_at_the_same_address_and_not_for_ever() {
    let roster = roster(2);
    let mut call = Call::new(Repeat::Never, 30 * SECOND);
    let begun = call.now;
    while let Step::Try(attempt) = call.next(&roster) {
        assert_eq!(attempt.address, "a");
        call.tried.push(attempt.address);
        call.course.ended("a", Outcome::Busy, call.now);
    }
    assert_eq!(call.verdict(&roster), Verdict::Busy);
    let took = call.now - begun;
    assert!(took > 2 * SECOND && took < 4 * SECOND, "{took:?}");
    assert!((5..15).contains(&call.tried.len()), "{:?}", call.tried);
}

#[test]
fn who_was_refused_together_does_not_come_back_together() {
    let roster = roster(1);
    let begun = Until::now();
    let resume = |seed| {
        let mut course = Course::new(Repeat::Never, begun + 30 * SECOND, seed);
        course.ended("a", Outcome::Busy, begun);
        course.next(&roster, begun)
    };
    let first = resume(0);
    assert!((1..5).any(|seed| resume(seed) != first));
}

/// An address that takes the call keeps its time, and leaves enough for a look at another.
#[test]
fn a_slow_san_has_most_of_the_time_and_a_dead_address_little() {
    let roster = roster(2);
    let mut call = Call::new(Repeat::Never, 30 * SECOND);
    let attempt = call.attempt(&roster);
    assert_eq!(attempt.connected_by, call.now + 3 * SECOND);
    assert_eq!(attempt.reached_by, call.now + 10 * SECOND);
    assert_eq!(attempt.answered_by, call.now + 22 * SECOND);
    let mut short = Call::new(Repeat::Never, 2 * SECOND);
    let attempt = short.attempt(&roster);
    assert_eq!(attempt.connected_by, short.now + SECOND);
    assert_eq!(attempt.reached_by, short.now + SECOND);
    assert_eq!(attempt.answered_by, short.now + SECOND);
}

/// What calls and probes before it found out.
fn with_history(count: usize, history: &[(usize, bool)], now: Until) -> Roster {
    let mut roster = roster(count);
    for &(address, is_good) in history {
        let name = NAMES[address % count];
        if is_good {
            roster.answered(name, now);
        } else {
            roster.failed(name, (now, now), "history".to_owned());
        }
    }
    roster
}

fn outcomes() -> impl Strategy<Value = Vec<(Outcome, u64)>> {
    let outcome = prop_oneof![
        3 => Just(Outcome::NotReached),
        2 => Just(Outcome::NoAnswer),
        1 => Just(Outcome::Busy),
    ];
    proptest::collection::vec((outcome, 0_u64..6000), 40)
}

proptest! {
    #[test]
    fn any_call_ends_in_time_and_misses_no_way(
        count in 1_usize..6,
        history in proptest::collection::vec((0_usize..6, any::<bool>()), 0..12),
        outcomes in outcomes(),
        is_change in any::<bool>(),
        time in 1_u32..60,
    ) {
        let repeat = if is_change { Repeat::Never } else { Repeat::Freely };
        let mut call = Call::new(repeat, time * SECOND);
        let until = call.now + time * SECOND;
        let mut roster = with_history(count, &history, call.now);
        let mut is_lost = false;
        let mut changes_sent = 0;
        let mut outcomes = outcomes.into_iter();
        let verdict = loop {
            let attempt = match call.next(&roster) {
                Step::Try(attempt) => attempt,
                Step::GiveUp(verdict) => break verdict,
                Step::Wait(_) => unreachable!("waited for"),
            };
            // It always ends: there are fewer attempts than outcomes.
            let (outcome, millis) = outcomes.next().expect("it goes on for ever");
            prop_assert!(call.now < until);
            prop_assert!(attempt.connected_by <= attempt.reached_by && attempt.reached_by <= attempt.answered_by && attempt.answered_by <= until);
            prop_assert!(attempt.connected_by > call.now);
            prop_assert!(!(is_change && is_lost), "a change is sent again before a look");
            let state = roster.state(call.now);
            let is_untried = |name: &String| !call.tried.contains(name);
            let is_bad = |name: &str| {
                let entry = state.addresses.iter().find(|it| it.address == name).unwrap();
                matches!(entry.standing, AddressStanding::CoolingDown { .. } | AddressStanding::Recovering { .. })
            };
            if is_untried(&attempt.address) && is_bad(&attempt.address) {
                let healthy = state.addresses.iter().find(|it| is_untried(&it.address) && !is_bad(&it.address));
                prop_assert!(healthy.is_none(), "{healthy:?} is skipped for {}", attempt.address);
            }
            call.tried.push(attempt.address.clone());
            let began = call.now;
            let latest = if outcome == Outcome::NotReached { attempt.reached_by } else { attempt.answered_by };
            call.now = (call.now + Duration::from_millis(millis)).min(latest);
            is_lost |= outcome == Outcome::NoAnswer;
            changes_sent += usize::from(outcome == Outcome::NoAnswer);
            if outcome == Outcome::Busy {
                roster.answered(&attempt.address, call.now);
            } else {
                roster.failed(&attempt.address, (began, call.now), "lost".to_owned());
            }
            call.course.ended(&attempt.address, outcome, call.now);
        };
        prop_assert!(!is_change || changes_sent <= 1);
        match verdict {
            Verdict::MaybeDone => prop_assert!(is_lost),
            Verdict::NotSent => {
                prop_assert!(!is_lost);
                let is_tried = |name: &str| call.tried.iter().any(|tried| tried == name);
                prop_assert!(call.now >= until || NAMES[..count].iter().all(|name| is_tried(name)), "one is untried");
            }
            Verdict::Busy => prop_assert!(!is_lost),
            Verdict::Mixed(mixed) => prop_assert!(false, "{mixed}"),
        }
    }

    /// What one call has learned no other pays for: it begins elsewhere.
    #[test]
    fn a_dead_address_is_paid_for_once(count in 2_usize..6, dead in 0_usize..6, calls in 1_usize..30) {
        let dead = dead % count;
        let mut roster = roster(count);
        let mut paid = 0;
        let mut now = Until::now();
        for _ in 0..calls {
            let mut call = Call::at(now, Repeat::Never, 30 * SECOND);
            loop {
                let attempt = call.attempt(&roster);
                if attempt.address != NAMES[dead] {
                    roster.answered(&attempt.address, call.now);
                    break;
                }
                paid += 1;
                let began = call.now;
                call.now = attempt.reached_by;
                roster.failed(&attempt.address, (began, call.now), "dead".to_owned());
                call.course.ended(&attempt.address, Outcome::NotReached, call.now);
            }
            now = call.now + 20 * SECOND;
        }
        prop_assert_eq!(paid, usize::from(dead == 0));
    }
}
