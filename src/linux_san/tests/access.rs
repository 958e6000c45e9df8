//! Two groups of portals: what the kernel is given, and what hosts are told of each.

use super::*;
use crate::fault::{Fault, Faulted, chain};

/// The second portal in a group of its own.
pub(super) fn two_groups(options: &mut SanOptions) {
    options.second_portals = options.portals.split_off(1);
}

/// What every line of the tree that ends so says.
fn all(san: &SanBox, end: &str) -> Vec<String> {
    let tree = san.lio.tree();
    let lines = tree.iter().filter_map(|line| line.split_once(" = "));
    let found = lines.filter(|(path, _)| path.ends_with(end));
    found.map(|(_, value)| value.to_owned()).collect()
}

#[test]
fn each_group_has_its_portals_and_tells_its_state() {
    let san = SanBox::with(two_groups);
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!(export.offers.len(), 2, "both groups are offered");
    let target = export.offers[0].iqn.clone();
    let tree = san.lio.tree();
    for (group, portal) in [(1, "10.101.1.1:3260"), (2, "[fd00::1]:3261")] {
        let group_dir = format!("iscsi/{target}/tpgt_{group}");
        let portals: Vec<_> = tree
            .iter()
            .filter(|line| {
                line.starts_with(&format!("{group_dir}/np/"))
                    && line.ends_with(":3260/") | line.ends_with(":3261/")
            })
            .collect();
        assert_eq!(portals, [&format!("{group_dir}/np/{portal}/")]);
        let alias = format!("{group_dir}/lun/lun_1/alua_tg_pt_gp = TG Port Alias: sanpath-{group}");
        assert!(tree.contains(&alias), "{alias} is not in {tree:#?}");
        for line in [
            format!("{group_dir}/enable = 1"),
            format!(
                "{group_dir}/acls/{}/lun_1/volume -> {group_dir}/lun/lun_1",
                initiator("n1")
            ),
        ] {
            assert!(tree.contains(&line), "{line} is not in {tree:#?}");
        }
    }
    assert_eq!(all(&san, "/alua_access_type"), ["Implicit", "Implicit"]);
    let state = |group: u16| all(&san, &format!("sanpath-{group}/alua_access_state"));
    engine.set_access(2, Access::NonOptimized).unwrap();
    assert_eq!(
        (state(1), state(2)),
        (vec!["0".to_owned()], vec!["1".to_owned()])
    );
    let steps = san.host.counts().steps;
    engine.set_access(2, Access::NonOptimized).unwrap();
    assert_eq!(san.host.counts().steps, steps, "the same again");
    let told: Vec<_> = engine.portal_groups().iter().map(|it| it.access).collect();
    assert_eq!(told, [Access::Optimized, Access::NonOptimized]);

    // A second volume, a restart and a reboot find it so.
    let other = engine.create_volume(&wanted("pvc-2")).unwrap();
    engine.ensure_export(&give(&other, "n1")).unwrap();
    assert_eq!(state(2), ["1", "1"]);
    drop(engine);
    let before = san.lio.tree();
    san.lio.reboot();
    let engine = san.start();
    assert_eq!(san.lio.tree(), before);
    for volume in [&volume, &other] {
        take(&engine, volume, "n1").unwrap();
    }
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

#[test]
fn only_groups_that_are_there_change() {
    let san = SanBox::with(two_groups);
    let engine = san.start();
    for group in [0, 3] {
        let refused = engine.set_access(group, Access::Optimized).unwrap_err();
        assert_eq!(refused.fault(), Fault::Invalid);
    }
    let single = SanBox::new();
    let refused = single.start().set_access(1, Access::NonOptimized);
    assert!(chain(&refused.unwrap_err()).contains("--second-portal"));
}

#[test]
fn a_second_group_comes_and_goes_with_the_options() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    drop(engine);
    let mut options = san.options();
    two_groups(&mut options);
    let engine = Engine::open(&san.host, options).unwrap();
    engine.restore().unwrap();
    assert_eq!(engine.ensure_export(&give(&volume, "n1")).unwrap(), export);
    assert_eq!(all(&san, "tpgt_2/enable"), ["1"]);
    drop(engine);
    let engine = san.start();
    let tree = san.lio.tree();
    assert!(
        !tree.iter().any(|line| line.contains("tpgt_2/np/[")),
        "{tree:#?}"
    );
    assert!(
        tree.iter()
            .any(|line| line.contains("tpgt_1/np/[fd00::1]:3261/"))
    );
    take(&engine, &volume, "n1").unwrap();
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}
