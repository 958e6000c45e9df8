//! What an operator is shown of paths, and what counts as missing.

use std::sync::Arc;

use super::rig::Rig;
use super::tests::ext4;
use super::{Limits, Node, PathSettings};
use crate::fabric::{LocalView, PathList};
use crate::volume::NodeId;

/// A node with this path list.
fn node(rig: &Rig, list: &str) -> Node {
    let host = rig.fake.host();
    let list: PathList = list.parse().unwrap();
    let local = LocalView::default();
    let settings = PathSettings {
        list,
        local,
        ..PathSettings::default()
    };
    let paths_of = Arc::new(move |_: &_| Some(settings.clone()));
    let id = NodeId::new("n1", "iqn.1993-08.org.debian:01:fake".parse().unwrap()).unwrap();
    let engine = rig.engine(&host);
    Node::new(id, host, engine, paths_of, Limits::default())
}

#[test]
fn each_path_is_shown_beside_its_element_and_what_is_not_offered_is_not_missed() {
    let rig = Rig::new();
    let node = node(&rig, "10.2.0.1:3260,10.9.0.1,10.1.0.1,iface7:10.1.0.1");
    node.stage(&rig.stage_call(ext4())).outcome.unwrap();
    let shown = node.paths(None).unwrap().remove(0);
    let elements: Vec<&str> = shown
        .elements
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    assert_eq!(
        elements,
        ["10.2.0.1", "10.1.0.1"],
        "in the order of the list"
    );
    let table = &shown.table;
    assert!(
        table.rows.iter().all(|row| row.state == "active"),
        "{table:?}"
    );
    assert!(
        table
            .rows
            .iter()
            .all(|row| row.errors == Some(31) && row.priority == Some(50))
    );
    assert_eq!((table.expected, table.left_out.len()), (3, 2));
    assert_eq!(node.paths(Some(&rig.volume())).unwrap(), [shown]);
    let health = node.health(&rig.volume()).unwrap().unwrap();
    assert_eq!(health.wanted, 3, "the interface is this node's fault");
    assert!(health.to_do.unwrap().starts_with("2 of 3 paths work"));
}
