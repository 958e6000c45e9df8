//! The plan on a world of nothing but values: what it does to it, to its end.

use proptest::prelude::*;

use super::*;
use crate::attach::ledger::Learned;
use crate::fabric::{Export, LocalView, Lun, Offer, PathList, Portal, Why, select};

const BOOT: &str = "this boot";
const SIZE: u64 = 1 << 30;
const PORTALS: u8 = 6;

fn portal(number: u8) -> Portal {
    format!("10.{number}.0.1").parse().unwrap()
}

fn path(number: u8) -> WantedPath {
    WantedPath {
        portal: portal(number),
        iqn: "iqn.2026-11.dev.sanpath:t".parse().unwrap(),
        lun: Lun(3),
        iface: None,
    }
}

fn record(wanted: &[u8]) -> Record {
    let offers = (0..PORTALS).map(path).map(|path| Offer {
        portal: path.portal,
        iqn: path.iqn,
        lun: path.lun,
    });
    Record::begin(
        &crate::attach::Want {
            key: "v".to_owned(),
            export: Export {
                wwid: "360014050123456789abcdef012345678".parse().unwrap(),
                size: SIZE,
                offers: offers.collect(),
                blank: true,
                read_only: false,
                own_target: false,
            },
            wanted: wanted.iter().copied().map(path).collect(),
            no_path_retry: None,
            min_paths: 1,
            deadline: crate::deadline::Deadline::at(crate::deadline::Moment::from_zero(
                std::time::Duration::ZERO,
            )),
            grace: std::time::Duration::ZERO,
            payload: serde_json::Value::Null,
        },
        BOOT.to_owned(),
    )
}

fn listed(record: &Record, list: &str) -> Selection {
    let list: PathList = list.parse().unwrap();
    select(&record.export, &list, &LocalView::default())
}

fn selection(numbers: &[u8]) -> Selection {
    Selection {
        wanted: numbers.iter().copied().map(path).collect(),
        left_out: Vec::new(),
    }
}

fn serving() -> Seen {
    Seen {
        session: SessionSeen::Up,
        disk: Some(DiskSeen {
            runs: true,
            size: SIZE,
            member: true,
            active: true,
            proven: true,
            failed_by_hand: false,
        }),
        rests: false,
    }
}

fn observed(paths: &[(u8, Seen)]) -> Observed {
    let seen = paths
        .iter()
        .map(|(number, seen)| (path(*number), seen.clone()));
    Observed {
        map: Some(SIZE),
        paths: seen.collect(),
    }
}

fn planned(record: &Record, selection: &Selection, seen: &Observed) -> Vec<Action> {
    plan(record, BOOT, selection, seen)
}

#[test]
fn nothing_is_planned_for_what_is_as_it_should_be_or_not_ours_to_mend() {
    let whole = observed(&[(0, serving()), (1, serving())]);
    let known = record(&[0, 1]);
    assert_eq!(planned(&known, &selection(&[0, 1]), &whole), []);
    let leaving = Record {
        leaving: true,
        learned: Learned::default(),
        ..known.clone()
    };
    let earlier = Record {
        boot_id: "another boot".to_owned(),
        ..known.clone()
    };
    let nothing = observed(&[]);
    for record in [leaving, earlier] {
        assert_eq!(planned(&record, &selection(&[0, 2]), &nothing), []);
    }
    let no_map = Observed {
        map: None,
        ..nothing.clone()
    };
    assert_eq!(planned(&known, &selection(&[0, 1]), &no_map), []);
}

#[test]
fn each_lack_has_its_remedy() {
    let known = record(&[0, 1]);
    let at = |seen: Seen| {
        let seen = observed(&[(0, serving()), (1, seen)]);
        planned(&known, &selection(&[0, 1]), &seen)
    };
    let with = |change: &dyn Fn(&mut DiskSeen)| {
        let mut seen = serving();
        change(seen.disk.as_mut().unwrap());
        seen
    };
    let ensure = vec![Action::Ensure(path(1))];
    assert_eq!(at(Seen::default()), ensure);
    assert_eq!(at(with(&|disk| disk.member = false)), ensure);
    for session in [SessionSeen::Absent, SessionSeen::Outdated] {
        let seen = Seen {
            session,
            ..serving()
        };
        assert_eq!(at(seen), ensure);
    }
    let lags = with(&|disk| disk.size = SIZE / 2);
    assert_eq!(at(lags), [Action::Reread(path(1))]);
    let by_hand = with(&|disk| (disk.active, disk.failed_by_hand) = (false, true));
    let told = Finding::FailedByHand(path(1));
    assert_eq!(at(by_hand), [Action::Report(told)]);
    let left_alone = [
        Seen {
            session: SessionSeen::Down,
            ..serving()
        },
        with(&|disk| disk.active = false),
        with(&|disk| (disk.runs, disk.member) = (false, false)),
        Seen {
            rests: true,
            ..Seen::default()
        },
    ];
    for seen in left_alone {
        assert_eq!(at(seen.clone()), [], "{seen:?}");
    }
}

#[test]
fn a_path_that_is_listed_anew_is_written_down_before_it_is_made() {
    let known = record(&[0]);
    let seen = observed(&[(0, serving())]);
    assert_eq!(
        planned(&known, &selection(&[0, 1]), &seen),
        [Action::Adopt(path(1)), Action::Ensure(path(1))]
    );
}

#[test]
fn what_the_export_does_not_hold_is_told_and_takes_nothing_away() {
    let known = record(&[0, 1]);
    let whole = observed(&[(0, serving()), (1, serving())]);
    let chosen = listed(&known, "10.0.0.1,10.1.0.1,10.9.0.1");
    let actions = planned(&known, &chosen, &whole);
    let [Action::Report(Finding::LeftOut(told))] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(told.why, Why::NotOffered);
    assert!(
        Finding::LeftOut(told.clone())
            .to_string()
            .contains("re-attach")
    );
    // The second is meant by a name that cannot be resolved, or by an interface that is gone.
    for list in ["10.0.0.1,san.example", "10.0.0.1,iface7:10.1.0.1"] {
        let chosen = listed(&known, list);
        let actions = planned(&known, &chosen, &whole);
        assert!(
            matches!(actions[..], [Action::Report(Finding::LeftOut(_))]),
            "{list}: {actions:?}"
        );
    }
    // A name that means something else keeps nothing.
    let mut local = LocalView::default();
    local.names.insert(
        "elsewhere".parse().unwrap(),
        vec!["10.8.0.1".parse().unwrap()],
    );
    let list: PathList = "10.0.0.1,elsewhere".parse().unwrap();
    let chosen = select(&known.export, &list, &local);
    assert!(planned(&known, &chosen, &whole).contains(&Action::Prune(path(1))));
}

#[test]
fn the_last_path_that_serves_stays_though_it_is_not_listed() {
    let known = record(&[0, 1]);
    let dead = |change: &dyn Fn(&mut DiskSeen)| {
        let mut seen = serving();
        change(seen.disk.as_mut().unwrap());
        seen
    };
    let unfit = [
        Seen::default(),
        dead(&|disk| disk.active = false),
        dead(&|disk| disk.proven = false),
        dead(&|disk| disk.runs = false),
        dead(&|disk| disk.member = false),
        dead(&|disk| disk.size = SIZE / 2),
        Seen {
            session: SessionSeen::Down,
            ..serving()
        },
    ];
    let kept = Action::Report(Finding::LastToServe(path(1)));
    for seen in unfit {
        let seen = observed(&[(0, seen), (1, serving())]);
        let actions = planned(&known, &selection(&[0]), &seen);
        assert!(actions.contains(&kept), "{actions:?}");
        assert!(!actions.contains(&Action::Prune(path(1))), "{actions:?}");
    }
    let whole = observed(&[(0, serving()), (1, serving())]);
    assert_eq!(
        planned(&known, &selection(&[0]), &whole),
        [Action::Prune(path(1))]
    );
    let pruned = observed(&[(0, serving())]);
    assert_eq!(
        planned(&known, &selection(&[0]), &pruned),
        [Action::Forget(path(1))]
    );
}

/// A world that does what it is told, where it can be reached.
#[derive(Clone, Debug)]
struct Model {
    record: Record,
    seen: Observed,
    /// The portals at which a login succeeds.
    alive: Vec<u8>,
}

impl Model {
    fn numbered(&self, wanted: &WantedPath) -> u8 {
        let mut numbers = 0..PORTALS;
        numbers.find(|number| path(*number) == *wanted).unwrap()
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Adopt(path) => self.record.wanted.push(path.clone()),
            Action::Forget(path) => self.record.wanted.retain(|known| known != path),
            Action::Ensure(path) if self.alive.contains(&self.numbered(path)) => {
                self.seen.paths.insert(path.clone(), serving());
            }
            Action::Ensure(path) => {
                let seen = self.seen.paths.entry(path.clone()).or_default();
                seen.rests = true;
            }
            Action::Reread(path) => {
                let disk = self.seen.paths.get_mut(path).unwrap().disk.as_mut();
                disk.unwrap().size = SIZE;
            }
            Action::Prune(path) => {
                self.seen.paths.get_mut(path).unwrap().disk = None;
            }
            Action::Report(_) => {}
        }
    }

    fn serves(&self) -> bool {
        // Whether somebody works on it says nothing of what it carries.
        let good = |seen: &Seen| {
            let rests = seen.rests;
            *seen == Seen { rests, ..serving() }
        };
        self.seen.paths.values().any(good)
    }
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let session = prop::sample::select(vec![
        SessionSeen::Absent,
        SessionSeen::Down,
        SessionSeen::Outdated,
        SessionSeen::Up,
    ]);
    let disk = (any::<[bool; 5]>(), any::<bool>()).prop_map(
        |([runs, member, active, proven, by_hand], lags)| DiskSeen {
            runs,
            size: if lags { SIZE / 2 } else { SIZE },
            member,
            active: active && member && runs && !by_hand,
            proven: proven && runs,
            failed_by_hand: by_hand && member && runs,
        },
    );
    let seen = (session, proptest::option::of(disk), any::<bool>());
    prop_oneof![
        Just(serving()),
        seen.prop_map(|(session, disk, rests)| Seen {
            session,
            disk: disk.filter(|_| session != SessionSeen::Absent),
            rests,
        })
    ]
}

fn some_numbers() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::subsequence((0..PORTALS).collect::<Vec<_>>(), 0..=usize::from(PORTALS))
}

proptest! {
    #[test]
    fn it_converges_and_never_takes_the_last_path_that_serves(
        (recorded, wanted, alive) in (some_numbers(), some_numbers(), some_numbers()),
        seen in proptest::collection::vec(any_seen(), usize::from(PORTALS)),
    ) {
        let seen: Vec<(u8, Seen)> = (0..PORTALS).zip(seen).collect();
        let mut model = Model { record: record(&recorded), seen: observed(&seen), alive };
        let selection = selection(&wanted);
        let mut rounds = 0;
        loop {
            let actions = planned(&model.record, &selection, &model.seen);
            prop_assert_eq!(&actions, &planned(&model.record, &selection, &model.seen));
            let prunes = |action: &&Action| matches!(action, Action::Prune(_));
            prop_assert!(actions.iter().filter(prunes).count() <= 1);
            let deeds: Vec<&Action> = actions.iter().filter(|it| it.is_deed()).collect();
            if deeds.is_empty() {
                break;
            }
            for deed in deeds {
                let was_member = |path| model.seen.paths[path].disk.is_some_and(|disk| disk.member);
                let takes = matches!(deed, Action::Prune(path) if was_member(path));
                if let Action::Ensure(path) = deed {
                    prop_assert!(model.record.wanted.contains(path), "made before it was written down");
                }
                model.act(deed);
                prop_assert!(!takes || model.serves(), "{deed:?} left no path");
            }
            rounds += 1;
            prop_assert!(rounds <= 3 * usize::from(PORTALS), "it goes on for ever");
        }
        for path in &selection.wanted {
            prop_assert!(model.record.wanted.contains(path));
        }
        // Whatever is still recorded beyond the list has a disk, rests, or is the last to serve.
        for path in stale(&model.record, &selection) {
            let seen = look_at(&model.seen, path);
            let told = Action::Report(Finding::LastToServe(path.clone()));
            let actions = planned(&model.record, &selection, &model.seen);
            prop_assert!(seen.rests || actions.contains(&told), "{path:?} {seen:?}");
        }
    }
}
