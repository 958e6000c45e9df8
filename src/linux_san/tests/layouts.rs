//! Where exports are in each layout, and what is left when they go.

use std::collections::BTreeSet;

use super::*;
use crate::fabric::{Export, Lun};

const SHARED: fn(&mut SanOptions) = |options| options.layout = Layout::Shared;
const OWN: fn(&mut SanOptions) = |options| options.layout = Layout::Volume;

fn target(export: &Export) -> Iqn {
    let targets: BTreeSet<&Iqn> = export.offers.iter().map(|offer| &offer.iqn).collect();
    assert_eq!(targets.len(), 1, "one target on every portal");
    export.offers[0].iqn.clone()
}

fn lun(export: &Export) -> Lun {
    export.offers[0].lun
}

fn targets_in(san: &SanBox) -> usize {
    let names = san.host.list(&san.path("target/iscsi")).unwrap();
    names.len() - 1
}

fn share(volume: &VolumeView, node: &str) -> ExportRequest {
    ExportRequest {
        shared: true,
        ..give(volume, node)
    }
}

#[test]
fn one_target_shows_each_node_its_own_volumes() {
    let san = SanBox::with(SHARED);
    let engine = san.start();
    let volumes = ["pvc-1", "pvc-2"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    let first = engine.ensure_export(&give(&volumes[0], "n1")).unwrap();
    let second = engine.ensure_export(&give(&volumes[1], "n2")).unwrap();
    assert_eq!(target(&first), target(&second));
    assert_eq!(
        (lun(&first), lun(&second)),
        (Lun(1), Lun(1)),
        "each node counts for itself"
    );
    let tree = san.lio.tree();
    let group = format!("iscsi/{}/tpgt_1", target(&first));
    for (node, slot) in [("n1", 1), ("n2", 2)] {
        let mapped = format!("{group}/acls/{}/lun_1/volume -> ", initiator(node));
        let lun = format!("{mapped}{group}/lun/lun_{slot}");
        assert!(tree.contains(&lun), "{lun} is not in {tree:#?}");
    }

    // Numbers go on in the target and at the node.
    take(&engine, &volumes[0], "n1").unwrap();
    let tree = san.lio.tree();
    assert!(
        !tree
            .iter()
            .any(|line| line.contains("/lun_1/volume -> core"))
    );
    assert!(
        tree.iter()
            .any(|line| line.starts_with(&format!("{group}/lun/lun_2/")))
    );
    san.lio
        .set_session(target(&second).as_str(), initiator("n2").as_str(), true);
    take(&engine, &volumes[1], "n2").unwrap();
    assert_eq!(
        targets_in(&san),
        1,
        "the target stays while a session lives"
    );
    let again = engine.ensure_export(&give(&volumes[1], "n2")).unwrap();
    assert_eq!((target(&again), lun(&again)), (target(&second), Lun(2)));
    take(&engine, &volumes[1], "n2").unwrap();
    san.lio
        .set_session(target(&second).as_str(), initiator("n2").as_str(), false);
    engine.sweep();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
    let fresh = engine.ensure_export(&give(&volumes[1], "n2")).unwrap();
    assert_ne!(
        target(&fresh),
        target(&second),
        "a removed target never comes back"
    );
}

#[test]
fn a_volumes_own_target_comes_and_goes_with_it() {
    let san = SanBox::with(OWN);
    let engine = san.start();
    let volumes = ["pvc-1", "pvc-2"].map(|name| engine.create_volume(&wanted(name)).unwrap());
    let first = engine.ensure_export(&share(&volumes[0], "n1")).unwrap();
    let second = engine.ensure_export(&give(&volumes[1], "n1")).unwrap();
    assert_ne!(target(&first), target(&second));
    assert_ne!(lun(&first), lun(&second), "numbers go round here, too");
    let other = engine.ensure_export(&share(&volumes[0], "n2")).unwrap();
    assert_eq!(
        target(&other),
        target(&first),
        "all nodes of a volume meet at one"
    );
    assert_eq!(targets_in(&san), 2);
    take(&engine, &volumes[1], "n1").unwrap();
    assert_eq!(targets_in(&san), 1);
    take(&engine, &volumes[0], "n1").unwrap();
    let tree = san.lio.tree();
    assert!(
        !tree
            .iter()
            .any(|line| line.contains(initiator("n1").as_str())),
        "{tree:#?}"
    );
    assert!(
        tree.iter()
            .any(|line| line.contains(initiator("n2").as_str()))
    );
    take(&engine, &volumes[0], "n2").unwrap();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

#[test]
fn another_layout_is_for_what_is_new() {
    let san = SanBox::new();
    let engine = san.start();
    let volumes = ["pvc-1", "pvc-2", "pvc-3"].map(|it| engine.create_volume(&wanted(it)).unwrap());
    let own = engine.ensure_export(&give(&volumes[0], "n1")).unwrap();
    drop(engine);
    let with = |layout| {
        let options = SanOptions {
            layout,
            ..san.options()
        };
        let engine = Engine::open(&san.host, options).unwrap();
        engine.restore().unwrap();
        engine
    };
    let engine = with(Layout::Shared);
    assert_eq!(engine.ensure_export(&give(&volumes[0], "n1")).unwrap(), own);
    let shared = engine.ensure_export(&give(&volumes[1], "n1")).unwrap();
    assert_ne!(target(&shared), target(&own));
    drop(engine);
    let engine = with(Layout::Volume);
    assert_eq!(
        engine.ensure_export(&give(&volumes[1], "n1")).unwrap(),
        shared
    );
    engine.ensure_export(&give(&volumes[2], "n1")).unwrap();
    assert_eq!(targets_in(&san), 3);
    let before = san.lio.tree();
    drop(engine);
    san.lio.reboot();
    let engine = with(Layout::Node);
    assert_eq!(san.lio.tree(), before, "each where it was");
    let text = std::fs::read_to_string(san.path("state/state.json")).unwrap();
    assert_eq!(text.matches("\"next_slot\"").count(), 2, "{text}");
    for volume in &volumes {
        take(&engine, volume, "n1").unwrap();
    }
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

#[test]
fn numbers_at_a_shared_target_go_round() {
    use super::super::places::next_in_round;
    let mut next = 65_534;
    let all = 1..=65_534;
    assert_eq!(
        next_in_round(all.clone(), &mut next, |_| false),
        Some(65_534)
    );
    assert_eq!(next_in_round(all.clone(), &mut next, |n| n < 3), Some(3));
    assert_eq!(next, 4);
    assert_eq!(next_in_round(all, &mut next, |_| true), None);
}
