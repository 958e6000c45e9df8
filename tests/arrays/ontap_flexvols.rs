//! ONTAP with a FlexVol for each volume: our family's other layout on the simulator that NetApp's own client has exercised.

use std::time::Duration;

use sanpath::fault::{Fault as Class, Faulted};
use sanpath::san::Source;
use serde_json::json;

use crate::conformance::{self, MIB, until};
use crate::ontap::{Rig, lose_any_change_of, luns};
use crate::simulators::http::{Fault, Trap};
use crate::simulators::ontap::Manner;

/// The names of the FlexVols that are ours.
fn homes(rig: &Rig) -> Vec<String> {
    let all = rig.server.array.all("volumes").into_iter();
    let names = all.filter_map(|it| Some(it["name"].as_str()?.to_owned()));
    names
        .filter(|name| name.starts_with("sanpath_v_"))
        .collect()
}

fn is_empty(rig: &Rig) {
    assert_eq!(homes(rig), ["nothing"; 0]);
    assert_eq!(rig.server.array.luns(), ["nothing"; 0]);
    assert_eq!(rig.server.array.all("snapshots").len(), 0);
    assert_eq!(rig.server.array.all("igroups").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_san_with_a_flexvol_for_each_volume() {
    let rig = Rig::own();
    conformance::all(&conformance::Subject {
        has: conformance::Capabilities {
            snapshots_depend: true,
            ..conformance::Capabilities::default()
        },
        ..rig.subject()
    })
    .await;
    is_empty(&rig);
}

/// What `life` must have made, once each.
fn assert_once(rig: &Rig) {
    assert_eq!(luns(rig), ["sanpath-v-t-c", "sanpath-v-t-v"]);
    assert_eq!(homes(rig).len(), 2);
    assert_eq!(rig.server.array.all("snapshots").len(), 1);
    assert_eq!(rig.server.array.all("igroups").len(), 1);
    assert_eq!(rig.server.array.all("maps").len(), 1);
}

/// Each change is lost once, done or not, with a connection or with the node that had it: each object is there once.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_everything_is_made_once() {
    let mishaps = [
        Fault::CutsReply,
        Fault::CutsRequest,
        Fault::Dies { is_done: true },
    ];
    lose_any_change_of(Rig::own, &mishaps, 15, |rig, _| assert_once(rig)).await;
}

/// The changes of a deletion: the FlexVol is marked, its LUN goes, it goes.
const CHANGES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_marks_first_and_removes_then() {
    let rig = Rig::own();
    let subject = rig.subject();
    let made = subject.make("a", 8 * MIB, None).await;
    rig.server.take_seen();
    subject.delete(&made).await;
    let seen = rig.server.take_seen().into_iter();
    let changes = seen.filter(crate::simulators::http::Request::is_mutation);
    let methods: Vec<String> = changes.map(|it| it.method).collect();
    assert_eq!(methods, ["PATCH", "DELETE", "DELETE"]);
    assert_eq!(methods.len(), CHANGES);
}

/// A deletion that is cut off at any of its changes, done or not, and whose volume is gone for its caller: what it left goes with the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_deletion_left_goes_with_the_next() {
    for fault in [Fault::CutsReply, Fault::CutsRequest] {
        for number in 0..CHANGES {
            let rig = Rig::own();
            let subject = rig.subject();
            let one = subject.make("a", 8 * MIB, None).await;
            let two = subject.make("b", 8 * MIB, None).await;
            rig.server.set(Trap {
                times: usize::MAX,
                ..Trap::mutation(number, fault)
            });
            let soon = until() - Duration::from_secs(25);
            let _ = subject.san.remove_volume(&one.key, &one.wwid, soon).await;
            rig.server.clear_traps();
            // The name may be used again meanwhile.
            if subject.find(&one).await.is_none() {
                let again = subject.make("a", 8 * MIB, None).await;
                assert_ne!(again.key, one.key);
                subject.delete(&again).await;
            }
            subject.delete(&one).await;
            subject.delete(&two).await;
            is_empty(&rig);
        }
    }
}

/// While the array splits a clone off, what it was made of stays: both its snapshot and its volume.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_holds_its_source_until_it_is_split_off() {
    let rig = Rig::own();
    rig.server.array.set(Manner {
        slow_splits: true,
        ..Manner::default()
    });
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    let cut = subject.snapshot("s", &made).await;
    let of_cut = Some(Source::Snapshot(cut.key.clone()));
    let copy = subject.make("c", 8 * MIB, of_cut).await;
    let refused = subject.san.remove_snapshot(&cut.key, until()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.fault(), Class::Precondition, "{refused}");
    rig.server.array.state().end_splits();
    subject.delete_snapshot(&cut).await;
    let of_volume = Some(Source::Volume(made.key.clone()));
    let second = subject.make("d", 16 * MIB, of_volume).await;
    let refused = subject
        .san
        .remove_volume(&made.key, &made.wwid, until())
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.fault(), Class::Precondition, "{refused}");
    assert_eq!(subject.find(&made).await, Some(made.clone()), "whole");
    rig.server.array.state().end_splits();
    for volume in [&made, &copy, &second] {
        subject.delete(volume).await;
    }
    is_empty(&rig);
}

/// Snapshots of somebody else, who keeps his own schedule on the FlexVol, are none of ours; and ours hold the volume.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_others_are_left_out() {
    let rig = Rig::own();
    let subject = rig.subject();
    let made = subject.make("v", 8 * MIB, None).await;
    let cut = subject.snapshot("s", &made).await;
    rig.server.array.edit("snapshots", |it| {
        it["name"] = json!("hourly.2026-11-26_0005");
    });
    let found = subject.san.find_snapshot(&cut.key, until()).await;
    assert_eq!(found.unwrap(), None);
    let page = subject.san.list_snapshots("", 9, None, until()).await;
    assert!(page.unwrap().snapshots.is_empty());
    subject.delete_snapshot(&cut).await;
    assert_eq!(rig.server.array.all("snapshots").len(), 1, "not ours");
    subject.delete(&made).await;
    is_empty(&rig);
}
