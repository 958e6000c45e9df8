//! What the roster concludes: cool-downs, proofs, fail-back, and who the SAN is.

use std::time::Duration;

use proptest::prelude::*;

use super::roster::{Due, FIRST_PAUSE, GOOD_PROBES, IDLE_LOOK, LONGEST_PAUSE, PROVE_EVERY, Roster};
use super::view::{AddressStanding, AddressState, SanhostState};
use crate::san::Until;

const SECOND: Duration = Duration::from_secs(1);

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

fn roster(list: &[&str]) -> Roster {
    Roster::new(&names(list))
}

fn order(roster: &Roster) -> String {
    roster.order(None).concat()
}

fn state<'s>(state: &'s SanhostState, name: &str) -> &'s AddressState {
    let found = state.addresses.iter().find(|it| it.address == name);
    found.unwrap()
}

fn standing(roster: &Roster, name: &str, now: Until) -> AddressStanding {
    state(&roster.state(now), name).standing
}

fn in_use(roster: &Roster) -> Option<String> {
    let state = roster.state(Until::now());
    let used: Vec<AddressState> = state.addresses.into_iter().filter(|it| it.in_use).collect();
    assert!(used.len() < 2);
    used.first().map(|it| it.address.clone())
}

fn fail(roster: &mut Roster, name: &str, now: Until) {
    roster.failed(name, (now, now), "no answer".to_owned());
}

/// Probes what is due at `now`; those in `dead` fail.
fn probe(roster: &mut Roster, dead: &[&str], now: Until) {
    for address in roster.take_due(now) {
        if dead.contains(&&*address) {
            fail(roster, &address, now);
        } else {
            roster.proven(&address, now);
        }
        roster.probe_ended(&address);
    }
}

#[test]
fn the_address_that_answers_is_kept_until_it_fails() {
    let mut roster = roster(&["a", "b", "c"]);
    let now = Until::now();
    assert_eq!(order(&roster), "abc");
    fail(&mut roster, "a", now);
    fail(&mut roster, "b", now);
    roster.answered("c", now);
    assert_eq!(
        (order(&roster), in_use(&roster).as_deref()),
        ("cab".to_owned(), Some("c"))
    );
    fail(&mut roster, "c", now);
    assert_eq!((order(&roster), in_use(&roster)), ("abc".to_owned(), None));
}

#[test]
fn when_an_address_is_silent_the_other_good_ones_are_asked_at_once() {
    let mut roster = roster(&["a", "b", "c", "d"]);
    let begun = Until::now();
    for round in 0..GOOD_PROBES {
        probe(&mut roster, &["c"], begun + PROVE_EVERY * round);
    }
    let now = begun + PROVE_EVERY * GOOD_PROBES + FIRST_PAUSE;
    roster.answered("d", now - SECOND);
    // The bad one has its own time.
    assert_eq!(roster.take_due(now).concat(), "c");
    roster.probe_ended("c");
    fail(&mut roster, "c", now);
    assert!(roster.take_due(now).is_empty());
    roster.look_around("a", now);
    assert_eq!(roster.next_due(), Some(Due::Now));
    assert_eq!(roster.take_due(now).concat(), "b", "d answered just now");
    roster.look_around("a", now);
    assert!(roster.take_due(now).is_empty(), "it is being asked");
    roster.proven("b", now);
    assert!(roster.take_due(now).is_empty(), "once");
    assert_eq!(in_use(&roster).as_deref(), Some("a"));
}

#[test]
fn an_earlier_address_is_used_again_once_it_is_proven() {
    let mut roster = roster(&["a", "b"]);
    let begun = Until::now();
    fail(&mut roster, "a", begun);
    roster.answered("b", begun);
    let mut now = begun;
    let mut probes = 0;
    while in_use(&roster).as_deref() == Some("b") {
        now += SECOND;
        let before = standing(&roster, "a", now);
        probe(&mut roster, &[], now);
        probes += usize::from(standing(&roster, "a", now) != before);
        assert!(now < begun + LONGEST_PAUSE);
    }
    assert_eq!(in_use(&roster).as_deref(), Some("a"));
    assert_eq!(now - begun, FIRST_PAUSE + PROVE_EVERY * (GOOD_PROBES - 1));
    assert!(probes >= 2);
}

#[test]
fn cool_downs_double_to_a_minute_and_concurrent_failures_count_once() {
    let mut roster = roster(&["a"]);
    let mut now = Until::now();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        for _ in 0..30 {
            fail(&mut roster, "a", now);
        }
        // Begun long ago, before the address was known to be bad.
        roster.failed("a", (now - SECOND, now + 70 * SECOND), "slow".to_owned());
        let AddressStanding::CoolingDown { left } = standing(&roster, "a", now) else {
            panic!("{:?}", roster.state(now));
        };
        pauses.push(left.as_secs());
        now += left;
    }
    assert_eq!(pauses, [5, 10, 20, 40, 60, 60, 60]);
}

#[test]
fn one_good_answer_of_a_bad_address_proves_it_only_when_there_is_no_other() {
    let now = Until::now();
    let mut spare = roster(&["a", "b"]);
    fail(&mut spare, "a", now);
    spare.answered("b", now);
    spare.answered("a", now);
    let recovering = AddressStanding::Recovering {
        good: 1,
        of: GOOD_PROBES,
    };
    assert_eq!(standing(&spare, "a", now), recovering);
    assert_eq!(spare.next_due(), Some(Due::At(now + PROVE_EVERY)));
    let mut last = roster(&["a", "b"]);
    fail(&mut last, "a", now);
    fail(&mut last, "b", now);
    last.answered("a", now);
    assert_eq!(in_use(&last).as_deref(), Some("a"));
}

#[test]
fn a_wish_is_heard_unless_the_address_is_bad() {
    let mut roster = roster(&["a", "b", "c"]);
    let now = Until::now();
    roster.answered("a", now);
    assert_eq!(roster.order(Some("c")).concat(), "cab");
    fail(&mut roster, "c", now);
    assert_eq!(roster.order(Some("c")).concat(), "abc");
    assert_eq!(roster.order(Some("elsewhere")).concat(), "abc");
}

#[test]
fn addresses_that_stay_listed_keep_what_is_known_of_them() {
    let mut roster = roster(&["a", "b", "c"]);
    let now = Until::now();
    for name in ["a", "b", "c"] {
        roster.identified(name, "one").unwrap();
    }
    fail(&mut roster, "a", now);
    roster.answered("b", now);
    roster.relist(&names(&["d", "b", "a"]));
    assert_eq!(
        (order(&roster), in_use(&roster).as_deref()),
        ("bda".to_owned(), Some("b"))
    );
    assert!(matches!(
        standing(&roster, "a", now),
        AddressStanding::CoolingDown { .. }
    ));
    assert_eq!(roster.san_uuid(), Some("one"));
    assert_eq!(standing(&roster, "d", now), AddressStanding::Untried);
    // The operator's order changed, and all are known to be good: it counts at once.
    let mut swapped = self::roster(&["a", "b"]);
    swapped.answered("a", now);
    (0..GOOD_PROBES).for_each(|_| swapped.proven("b", now));
    swapped.relist(&names(&["b", "a"]));
    assert_eq!(in_use(&swapped).as_deref(), Some("b"));
}

#[test]
fn two_sans_in_one_list_are_refused_until_one_is_left() {
    let mut roster = roster(&["a", "b", "c"]);
    roster.identified("a", "one").unwrap();
    let refused = roster.identified("b", "two").unwrap_err().to_string();
    assert!(refused.contains("a is SAN one, b is SAN two"), "{refused}");
    assert_eq!(roster.san_uuid(), None);
    assert!(
        roster.identified("a", "one").is_err(),
        "which one is meant?"
    );
    let shown = roster.state(Until::now());
    assert!(shown.refused.is_some());
    assert_eq!(state(&shown, "b").standing, AddressStanding::Disputed);
    roster.relist(&names(&["b", "c"]));
    assert_eq!((roster.refusal(), roster.san_uuid()), (None, Some("two")));
    roster.identified("b", "two").unwrap();
}

#[test]
fn once_it_is_settled_who_is_meant_a_stranger_is_refused_alone() {
    let mut roster = roster(&["a", "b"]);
    let now = Until::now();
    roster.identified("a", "one").unwrap();
    roster.identified("b", "one").unwrap();
    roster.answered("a", now);
    roster.relist(&names(&["c", "a", "b"]));
    let refused = roster.identified("c", "two").unwrap_err().to_string();
    assert!(refused.contains("c is SAN two, not one"), "{refused}");
    assert_eq!(roster.refusal(), None);
    assert_eq!(order(&roster), "abc", "the stranger is the last");
    assert_eq!(standing(&roster, "c", now), AddressStanding::Stranger);
    roster.identified("a", "two").unwrap_err();
    assert_eq!(in_use(&roster), None, "it is not spoken to any more");
    roster.identified("a", "one").unwrap();
    roster.relist(&names(&["c"]));
    assert_eq!(roster.san_uuid(), Some("two"), "the operator's word");
}

#[test]
fn credentials_that_are_refused_are_not_tried_around() {
    let mut roster = roster(&["a", "b", "c"]);
    let now = Until::now();
    assert_eq!(roster.take_due(now).len(), 3);
    roster.denied("a", now, "wrong password".to_owned());
    for name in ["a", "b", "c"] {
        roster.probe_ended(name);
    }
    let quiet = now + LONGEST_PAUSE;
    assert_eq!(roster.next_due(), Some(Due::At(quiet)));
    assert!(roster.take_due(quiet - SECOND).is_empty());
    assert_eq!(roster.take_due(quiet).len(), 3);
}

#[test]
fn idle_addresses_are_asked_now_and_then() {
    let mut roster = roster(&["a", "b"]);
    let now = Until::now();
    for step in 0..GOOD_PROBES {
        probe(&mut roster, &[], now + PROVE_EVERY * step);
    }
    let proven = now + PROVE_EVERY * (GOOD_PROBES - 1);
    assert_eq!(standing(&roster, "b", proven), AddressStanding::Good);
    assert_eq!(roster.next_due(), Some(Due::At(proven + IDLE_LOOK)));
    roster.answered("a", proven + 30 * SECOND);
    assert_eq!(&*roster.take_due(proven + IDLE_LOOK).concat(), "b");
}

#[derive(Clone, Debug)]
enum Event {
    Answered(usize),
    Failed(usize, u32),
    Identified(usize, bool),
    Probes(Vec<bool>),
    Relisted(Vec<usize>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..4).prop_map(Event::Answered),
        (0_usize..4, 0_u32..20).prop_map(|(at, ago)| Event::Failed(at, ago)),
        (0_usize..4, any::<bool>()).prop_map(|(at, ours)| Event::Identified(at, ours)),
        proptest::collection::vec(any::<bool>(), 4).prop_map(Event::Probes),
        Just(vec![0, 1, 2, 3])
            .prop_shuffle()
            .prop_flat_map(|all| (1_usize..=4).prop_map(move |count| all[..count].to_vec()))
            .prop_map(Event::Relisted),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_conclusions_hold(events in proptest::collection::vec((event(), 0_u32..30), 1..60)) {
        let all = names(&["a", "b", "c", "d"]);
        let mut roster = Roster::new(&all);
        let mut now = Until::now() + 100 * SECOND;
        for (event, pause) in events {
            now += pause * SECOND;
            match event {
                Event::Answered(at) => roster.answered(&all[at], now),
                Event::Failed(at, ago) => roster.failed(&all[at], (now - ago * SECOND, now), "lost".to_owned()),
                Event::Identified(at, ours) => {
                    let _ = roster.identified(&all[at], if ours { "one" } else { "two" });
                }
                Event::Probes(ends) => {
                    let due = roster.take_due(now);
                    prop_assert!(roster.take_due(now).is_empty(), "one probe at a time");
                    for (address, is_good) in due.iter().zip(ends) {
                        if is_good {
                            roster.proven(address, now);
                        } else {
                            fail(&mut roster, address, now);
                        }
                        roster.probe_ended(address);
                    }
                }
                Event::Relisted(places) => {
                    let list: Vec<String> = places.iter().map(|&at| all[at].clone()).collect();
                    roster.relist(&list);
                }
            }
            check(&roster, now)?;
        }
    }
}

fn check(roster: &Roster, now: Until) -> Result<(), TestCaseError> {
    let shown = roster.state(now);
    prop_assert_eq!(
        roster.order(None).len(),
        shown.addresses.len(),
        "every address is a way"
    );
    prop_assert_eq!(shown.refused.is_some(), roster.refusal().is_some());
    let mut is_before = true;
    for address in &shown.addresses {
        if address.in_use {
            is_before = false;
            let is_fit = matches!(address.standing, AddressStanding::Good);
            prop_assert!(is_fit, "{shown:?}");
            prop_assert!(*roster.order(None)[0] == *address.address);
        } else if is_before && shown.addresses.iter().any(|it| it.in_use) {
            prop_assert_ne!(
                address.standing,
                AddressStanding::Good,
                "it is not failed back to: {:?}",
                &shown
            );
        }
        if let AddressStanding::CoolingDown { left } = address.standing {
            prop_assert!(left <= LONGEST_PAUSE);
        }
    }
    if let Some(Due::At(due)) = roster.next_due() {
        prop_assert!(due <= now + LONGEST_PAUSE.max(IDLE_LOOK), "forgotten");
    }
    Ok(())
}
