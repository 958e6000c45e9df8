//! Volumes that grow: alone, under nodes, after a reboot; and what refuses to.

use super::*;
use crate::fault::{Fault, Faulted, chain};

fn shown_size(san: &SanBox) -> Vec<u64> {
    let tree = san.lio.tree();
    let sizes = tree.iter().filter_map(|line| {
        let (_, rest) = line.split_once("/info = ")?.1.split_once("  Size: ")?;
        rest.split_once(' ')?.0.parse().ok()
    });
    sizes.collect()
}

#[test]
fn a_volume_grows_under_its_nodes_and_never_shrinks() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let expand = |size| engine.expand_volume(&volume.key, &volume.wwid, size);
    assert_eq!(expand(8 * MIB).unwrap().size, 8 * MIB, "nobody has it");
    let first = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!((first.size, first.blank), (8 * MIB, true));
    write_over(&san.image(&volume), b"precious");
    assert_eq!(expand(16 * MIB).unwrap().size, 16 * MIB);
    assert_eq!(shown_size(&san), [16 * MIB]);
    let steps = san.host.counts().steps;
    for smaller in [16 * MIB, 4 * MIB, 0] {
        assert_eq!(expand(smaller).unwrap().size, 16 * MIB);
    }
    assert_eq!(san.host.counts().steps, steps, "nothing to do");
    let bytes = std::fs::read(san.image(&volume)).unwrap();
    assert!(bytes.starts_with(b"precious\0") && bytes.len() as u64 == 16 * MIB);
    let again = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!((again.size, again.offers), (16 * MIB, first.offers));
    assert_eq!(engine.capacity().unwrap().promised, 16 * MIB);
}

#[test]
fn after_a_reboot_the_new_size_is_served() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    engine
        .expand_volume(&volume.key, &volume.wwid, 8 * MIB)
        .unwrap();
    drop(engine);
    san.lio.reboot();
    let engine = Engine::open(&san.host, san.options()).unwrap();
    assert_eq!(engine.restore().unwrap().served, 1);
    assert_eq!(shown_size(&san), [8 * MIB]);
}

#[test]
fn what_cannot_grow_is_refused_with_nothing_done() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let largest = engine.capacity().unwrap().maximum_volume;
    let foreign = "360014050123456789abcdef012345678".parse().unwrap();
    let unknown = engine
        .expand_volume(&volume.key, &foreign, 8 * MIB)
        .unwrap_err();
    assert_eq!(unknown.fault(), Fault::NotFound);
    let expand = |size| engine.expand_volume(&volume.key, &volume.wwid, size);
    for size in [4 * MIB + 1, largest + MIB, u64::MAX] {
        let refused = expand(size).unwrap_err();
        assert_eq!(refused.fault(), Fault::OutOfRange, "{size}");
        assert!(chain(&refused).contains("size_bytes"));
    }
    std::fs::OpenOptions::new()
        .write(true)
        .open(san.image(&volume))
        .unwrap()
        .set_len(5 * MIB)
        .unwrap();
    let foreign = expand(8 * MIB).unwrap_err();
    assert_eq!(foreign.fault(), Fault::Precondition);
    let found = engine.find_volume(&volume.key).unwrap().unwrap();
    assert_eq!(found.size, 4 * MIB);
}
