//! Names that an EqualLogic group has no room for, or cannot bear itself.

use sanpath::fault::{Fault, Faulted as _};
use sanpath::san::{SanError, Source};

use crate::equallogic::{Rig, subject};
use crate::simulators::equallogic::{Mishap, Trap};
use crate::story::{ALONE, GIB, node, until, wanted};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_group_cannot_bear_is_noted() {
    let rig = Rig::new();
    let san = rig.san();
    for name in ["a b", "A"] {
        let made = subject(&san).make(&wanted(name, GIB, None)).await;
        let found = san.find_named(name, until()).await.unwrap().unwrap();
        assert_eq!(found, made);
    }
    let mut much = wanted("much", GIB, None);
    let parameters = format!(r#"{{"mkfsOptions":"{}"}}"#, "x y ".repeat(40));
    much.metadata
        .insert("csi/parameters".to_owned(), parameters);
    let refused = san.ensure_volume(&much, until()).await.unwrap_err();
    assert!(matches!(refused, SanError::Unfit(_)), "{refused}");
    assert_eq!(refused.fault(), Fault::Invalid);
    assert!(!rig.server.group().volumes.contains_key("much"));
}

/// As long as an orchestrator's may be: a repeated call finds what it made, and whoever has the key uses it; also a cut whose session was lost before it got
/// its name is found by the name that it was to get.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_room_is_found_by_whoever_has_it() {
    let rig = Rig::new();
    let san = rig.san();
    let subject = subject(&san);
    let (name, other) = ("Ab".repeat(64), "aB".repeat(64));
    let volume = subject.make(&wanted(&name, GIB, None)).await;
    assert_eq!(subject.make(&wanted(&name, GIB, None)).await, volume);
    assert_eq!(san.find_named(&other, until()).await.unwrap(), None);
    rig.server.set(Trap {
        of: |command| command.contains("snapshot rename"),
        after: 0,
        mishap: Mishap::DropsBefore,
    });
    let cut = subject.cut(&name, &volume).await;
    assert_eq!(rig.server.clear_traps(), 0);
    assert_eq!(subject.cut(&name, &volume).await, cut);
    let on_group: Vec<String> = rig.server.group().volumes.keys().cloned().collect();
    let [on_group] = on_group.as_slice() else {
        panic!("{on_group:?}")
    };
    assert_eq!(rig.server.group().volumes[on_group].snapshots.len(), 1);
    let copy = wanted(&other, 2 * GIB, Some(Source::Snapshot(cut.key.clone())));
    let copy = subject.make(&copy).await;
    subject.give(&volume, &node("node-1"), ALONE).await;
    // Whoever has not the name sees what the group calls it, and everything else.
    let found = subject.find(&volume).await.unwrap();
    assert_eq!(found.name, *on_group);
    assert_eq!(found.exported_to[0].node_name, "node-1");
    let listed = san.list_snapshots("", 9, None, until()).await.unwrap();
    let keys: Vec<&str> = listed.snapshots.iter().map(|it| &*it.key).collect();
    assert_eq!(keys, [&*cut.key]);
    assert_eq!(
        san.find_snapshot_named(&name, until()).await.unwrap(),
        Some(cut.clone())
    );
    subject.take_back(&found, None).await;
    subject.remove_cut(&cut).await;
    subject.remove(&volume).await;
    subject.remove(&copy).await;
    rig.is_empty();
}
