//! Copies on a simulated EqualLogic group: refused, or begun and given up while other controllers are there.

use std::collections::BTreeMap;
use std::time::Duration;

use sanpath::fault::{Fault, Faulted};
use sanpath::san::{Fleet, SanVolume, Source};

use crate::equallogic::{Rig, settings, subject};
use crate::simulators::equallogic::{Mishap, Trap};
use crate::story::{GIB, until, wanted};

/// Makes a larger copy whose every attempt at its name is lost; what it is called meanwhile.
async fn given_up(rig: &Rig, name: &str, origin: &SanVolume) -> String {
    for _ in 0..3 {
        rig.server.set(Trap {
            of: |command| command.starts_with("volume rename"),
            after: 0,
            mishap: Mishap::DropsBefore,
        });
    }
    let source = Some(Source::Volume(origin.key.clone()));
    let copy = wanted(name, 2 * GIB, source);
    let lost = rig.san().ensure_volume(&copy, until()).await.unwrap_err();
    assert_eq!(lost.fault(), Fault::MaybeDone, "{lost}");
    assert_eq!(rig.server.clear_traps(), 0);
    let group = rig.server.group();
    let mut names = group.volumes.keys().filter(|it| it.starts_with("sp-new-"));
    names.next_back().unwrap().clone()
}

/// So long a copy is left alone here, and a look is never too soon.
const SOON: Duration = Duration::from_millis(240);

/// A copy that stayed as it is goes, one at a turn, and nothing beside it: not what has its own name, not what is not ours, not what somebody can reach.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_given_up_goes() {
    let rig = Rig::new();
    let san = rig.san();
    let origin = subject(&san).make(&wanted("origin", GIB, None)).await;
    let left = given_up(&rig, "copy", &origin).await;
    {
        let mut group = rig.server.group();
        group.run("volume create sp-new-of-somebody 1G pool default");
        let exported = group.volumes[&left].clone();
        for (name, description) in [
            ("sp-new-mapped", &exported.description),
            ("sp-newer", &exported.description),
        ] {
            let create =
                format!("volume create {name} 1G pool default description \"{description}\"");
            group.run(&create);
        }
        group.run("volume select sp-new-mapped access create initiator iqn.2026-11.dev.sanpath:x");
    }
    let all = || -> Vec<String> { rig.server.group().volumes.keys().cloned().collect() };
    let before = all();
    let turn = |unchanged| san.remove_abandoned(unchanged, until());
    assert_eq!(turn(SOON).await.unwrap(), None, "seen for the first time");
    // Somebody goes on with it: its time begins anew.
    rig.server
        .group()
        .run(&format!("volume select {left} size 3G"));
    tokio::time::sleep(SOON).await;
    assert_eq!(turn(SOON).await.unwrap(), None);
    assert_eq!(all(), before);
    tokio::time::sleep(SOON).await;
    assert_eq!(turn(SOON).await.unwrap().as_ref(), Some(&left));
    let mut expected = before;
    expected.retain(|name| *name != left);
    assert_eq!(all(), expected);
    tokio::time::sleep(SOON).await;
    assert_eq!(turn(SOON).await.unwrap(), None);
    assert_eq!(all(), expected);
}

/// A controller goes on with a copy while another takes it for given up: whichever comes first, what is whole stays, and what is not is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_whole_by_then_does_not_go() {
    let rig = Rig::new();
    let settings = settings(rig.server.addresses(), &rig.server.folder());
    let fleet = Fleet::new(BTreeMap::from([("a".parse().unwrap(), settings)]));
    let (ours, theirs) = (rig.san(), fleet.find(&"a".parse().unwrap()).unwrap());
    let origin = subject(&ours).make(&wanted("origin", GIB, None)).await;
    let source = Some(Source::Volume(origin.key.clone()));
    let copy = |name: &str| wanted(name, 2 * GIB, source.clone());
    // Theirs has looked, and is slow to delete; ours gives the copy its name meanwhile.
    let left = given_up(&rig, "slow", &origin).await;
    assert_eq!(theirs.remove_abandoned(SOON, until()).await.unwrap(), None);
    tokio::time::sleep(SOON).await;
    rig.server.set(Trap {
        of: |command| command.starts_with("volume select sp-new-") && command.ends_with(" offline"),
        after: 0,
        mishap: Mishap::Takes(Duration::from_secs(3)),
    });
    let taking = theirs.remove_abandoned(SOON, until());
    let making = async {
        while !rig.server.seen().iter().any(|it| it.ends_with(" offline")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        subject(&ours).make(&copy("slow")).await
    };
    let (taken, made) = tokio::join!(taking, making);
    assert_eq!(taken.unwrap(), None, "{left} had its own name by then");
    assert_eq!(subject(&ours).find(&made).await, Some(made));
    assert!(rig.server.group().volumes["slow"].is_online);
    // Theirs takes it away between two steps of ours.
    rig.server.take_seen();
    rig.server.set(Trap {
        of: |command| command.contains(" size 2G"),
        after: 0,
        mishap: Mishap::Takes(Duration::from_secs(2)),
    });
    let taking = async {
        while !rig.server.seen().iter().any(|it| it.contains(" size 2G")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        theirs.remove_abandoned(Duration::ZERO, until()).await
    };
    let new = copy("taken");
    let making = async { subject(&ours).make(&new).await };
    let (taken, made) = tokio::join!(taking, making);
    assert!(taken.unwrap().unwrap().starts_with("sp-new-"));
    assert_eq!(subject(&ours).find(&made).await, Some(made));
    // And at any moment.
    for round in 0..6 {
        let name = format!("race-{round}");
        let collecting = async {
            for _ in 0..8 {
                theirs
                    .remove_abandoned(Duration::ZERO, until())
                    .await
                    .unwrap();
            }
        };
        let copy = copy(&name);
        let ours = subject(&ours);
        let (made, ()) = tokio::join!(ours.make(&copy), collecting);
        assert_eq!(ours.find(&made).await, Some(made));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_what_is_not_there_is_told() {
    let rig = Rig::new();
    let san = rig.san();
    for key in ["gone-abcde", "gone-abcdefghijklmnop-abcde", "odd"] {
        for source in [
            Source::Volume(key.to_owned()),
            Source::Snapshot(key.to_owned()),
        ] {
            let new = wanted("copy", GIB, Some(source));
            let refused = san.ensure_volume(&new, until()).await.unwrap_err();
            assert_eq!(refused.fault(), Fault::NotFound, "{refused}");
        }
    }
}
