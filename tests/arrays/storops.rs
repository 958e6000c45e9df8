//! The simulated Unity and VNX under Dell's own client.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::foreign::run;
use crate::simulators::http::Server;
use crate::simulators::unity::{PASSWORD, USER, Unity};
use crate::simulators::vnx::{Navi, PROCESSORS};
use crate::story::GIB;
use crate::unity::SERIAL;
use crate::vnx;

/// What storops saw, by operation. Each counts in the table of `tests/README.md`.
fn foreign() -> BTreeMap<String, Value> {
    let server = Server::sealed(Unity::new(SERIAL), 1);
    let address = server.addresses().remove(0);
    let (host, port) = address.rsplit_once(':').unwrap();
    let words = [host, port, USER, PASSWORD];
    let lines = run("SANPATH_STOROPS", "unity.py", &words).into_iter();
    lines
        .map(|line| (line["operation"].as_str().unwrap().to_owned(), line))
        .collect()
}

#[allow(clippy::too_many_lines, reason = "one line for each operation")]
#[test]
fn storops_drives_the_simulator_through_every_operation() {
    let mut told = foreign();
    let mut was = |operation: &str, expected: Value| {
        let found = told
            .remove(operation)
            .unwrap_or_else(|| panic!("no {operation}"));
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{found}");
        }
        found
    };
    was("version", json!({"version": "5.0.3"}));
    was("identity", json!({"serial": SERIAL, "model": "Unity 500"}));
    was("license", json!({}));
    was(
        "capacity",
        json!({"id": "pool_1", "free": 8_u64 << 40, "total": 8_u64 << 40}),
    );
    let portals = was(
        "portals",
        json!({"addresses": ["10.101.1.1", "10.102.1.2", "10.101.1.3", "10.102.1.4"]}),
    );
    assert_eq!(
        portals["targets"][2],
        "iqn.1992-04.com.emc:cx.fnm00151200215.b0"
    );
    was(
        "create",
        json!({"size": 2 * GIB, "thin": true, "description": "made by storops"}),
    );
    was("create again", json!({"refused": "UnityLunNameInUseError"}));
    let found = was("get by name", json!({}));
    assert_eq!(found["id"], found["of"]);
    was(
        "get what is not there",
        json!({"existed": false, "refused": "UnityResourceNotFoundError"}),
    );
    was("list", json!({"names": ["lun-1", "lun-2"]}));
    was("expand", json!({"size": 3 * GIB}));
    was(
        "expand to the same",
        json!({"refused": "UnityNothingToModifyError"}),
    );
    was(
        "shrink",
        json!({"refused": "UnityLunShrinkNotSupportedError"}),
    );
    was(
        "rename",
        json!({"name": "lun-1-renamed", "description": "changed"}),
    );
    was("host", json!({"names": ["node-1", "node-2"]}));
    let iqns = [
        "iqn.1993-08.org.debian:01:node-1",
        "iqn.1993-08.org.debian:01:node-2",
    ];
    was(
        "initiator",
        json!({"initiators": [[iqns[0]], [iqns[1]]], "refused": "UnityHostInitiatorExistedError"}),
    );
    let found = was("find initiator", json!({}));
    assert_eq!(found["hosts"], json!([found["of"]]));
    was(
        "map",
        json!({"hlus": [0, 1, 0], "hosts": ["node-1", "node-2"]}),
    );
    was("number of the LUN", json!({"hlus": [0], "types": ["LUN"]}));
    let mapped = was("delete while mapped", json!({}));
    assert!(mapped["refused"].is_string(), "{mapped}");
    let cut = was(
        "snapshot",
        json!({"name": "snap-1", "size": 3 * GIB, "auto": false}),
    );
    assert_eq!(cut["lun"], cut["of"]);
    was(
        "snapshot again",
        json!({"refused": "UnitySnapNameInUseError"}),
    );
    was("list snapshots", json!({"names": ["snap-1"]}));
    was("copy snapshot", json!({"name": "snap-copy"}));
    let refused = was("clone of what may go", json!({}));
    assert!(refused["refused"].is_string(), "{refused}");
    let clone = was("clone", json!({"thin": true, "size": 3 * GIB}));
    assert_eq!(clone["base"], clone["of"]);
    let limit = was("limit", json!({"again": "UnityPolicyNameInUseError"}));
    assert_eq!(limit["policy"], limit["of"]);
    was("unmap one", json!({"hosts": ["node-2"]}));
    was("unmap all", json!({"left": true}));
    was("delete under a clone", json!({"existed": true}));
    was("delete a clone", json!({"existed": false}));
    was(
        "delete under snapshots",
        json!({"refused": "UnityDeleteStorageResourceHasSnapError"}),
    );
    was("delete snapshot", json!({"names": []}));
    was("delete", json!({"existed": false}));
    was(
        "delete as a job",
        json!({"state": "COMPLETED", "existed": false}),
    );
    was("delete host", json!({"left": 0}));
    assert!(told.is_empty(), "not looked at: {told:?}");
}

/// What storops saw of a VNX, by operation.
fn foreign_vnx() -> BTreeMap<String, Value> {
    let navi = Navi::new(vnx::SERIAL);
    let (program, security) = (navi.program(), navi.security());
    let [a, b] = PROCESSORS;
    let words = [program.to_str().unwrap(), security.to_str().unwrap(), a, b];
    let lines = run("SANPATH_STOROPS", "vnx.py", &words).into_iter();
    lines
        .map(|line| (line["operation"].as_str().unwrap().to_owned(), line))
        .collect()
}

/// What the client is to see of each operation.
const VNX: &str = r#"{
    "identity": {"serial": "APM00153042305", "model": "VNX5800", "revision": "05.33.008.3.297"},
    "wrong login": {"refused": "VNXCredentialError"},
    "software": {"thin": true, "snaps": true},
    "capacity": {"id": 0, "free": 8192.0, "total": 8192.0, "names": ["Archive", "Pool 0"]},
    "pool that is not there": {"refused": "VNXPoolNotFoundError"},
    "limits": {"luns": 2100, "most": 262144.0},
    "portals": {"addresses": ["10.101.1.1", "10.102.1.2", "10.101.1.3", "10.102.1.4"], "targets": ["iqn.1992-04.com.emc:cx.apm00153042305.a4", "iqn.1992-04.com.emc:cx.apm00153042305.a5", "iqn.1992-04.com.emc:cx.apm00153042305.b4", "iqn.1992-04.com.emc:cx.apm00153042305.b5"]},
    "create": {"id": 0, "size": 2.0, "thin": true, "pool": "Pool 0"},
    "create again": {"refused": "VNXLunNameInUseError"},
    "preparing": {"first": "Preparing", "then": "None", "state": "Ready"},
    "get by name": {"id": 0, "of": 0},
    "get what is not there": {"existed": false},
    "list": {"names": ["lun-1", "lun-2"]},
    "expand": {"size": 3.0},
    "expand to the same": {"refused": "VNXLunExpandSizeError"},
    "rename": {"existed": true, "taken": "VNXNameInUseError"},
    "group": {"names": ["group-1"], "again": "VNXStorageGroupNameInUseError"},
    "initiator": {"initiators": ["iqn.1993-08.org.debian:01:node-1"], "ports": ["A-4-0", "A-5-0", "B-4-0", "B-5-0"], "hosts": ["node-1"]},
    "initiator again": {"refused": "VNXInitiatorExistedError"},
    "unknown host": {"refused": "VNXStorageGroupError"},
    "host": {"left": ["iqn.1993-08.org.debian:01:node-2"], "initiators": ["iqn.1993-08.org.debian:01:node-2"]},
    "map": {"hlus": [1, 7], "seen": {"0": 1, "1": 7}},
    "map again": {"refused": "VNXAluAlreadyAttachedError"},
    "number that is taken": {"refused": "VNXHluNumberInUseError"},
    "LUN that is not there": {"refused": "VNXAluNotFoundError"},
    "delete while mapped": {"refused": "VNXLunInStorageGroupError"},
    "snapshot": {"name": "snap-1", "of": [0], "lun": 0, "auto": false, "writable": false},
    "snapshot again": {"refused": "VNXSnapNameInUseError"},
    "describe snapshot": {"description": "a description", "writable": true},
    "list snapshots": {"names": ["snap-1"], "of_lun": ["snap-1"]},
    "copy snapshot": {"existed": true, "again": "VNXSnapNameInUseError"},
    "mount point": {"is_one": true, "primary": "lun-1", "of_lun": "VNXAttachSnapLunTypeError"},
    "attach": {"shows": "snap-copy", "in_use": "VNXDeleteAttachedSnapError"},
    "delete under a mount point": {"refused": "VNXLunHasSnapMountPointError"},
    "migrate to what is too small": {"refused": "VNXTargetNotReadyError"},
    "migrate": {"going": true, "in_use": "VNXLunUsedByFeatureError"},
    "migrated": {"mount_point": false, "same": true, "target": false, "size": 3.0, "cancel": "VNXLunNotMigratingError"},
    "one processor down": {"names": true, "alive": "10.9.0.2"},
    "unmap": {"left": 0, "again": "VNXDetachAluNotFoundError"},
    "delete under snapshots": {"refused": "VNXLunHasSnapError"},
    "delete snapshot": {"left": 0, "again": "VNXSnapNotExistsError"},
    "delete": {"left": [], "again": "VNXLunNotFoundError"},
    "delete group": {"kept": true, "left": []}
}"#;

#[test]
fn storops_drives_the_vnx_through_every_operation() {
    let mut told = foreign_vnx();
    let expected: Value = serde_json::from_str(VNX).unwrap();
    for (operation, expected) in expected.as_object().unwrap() {
        let found = told.remove(operation);
        let found = found.unwrap_or_else(|| panic!("no {operation}"));
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&found[key], value, "{found}");
        }
    }
    assert!(told.is_empty(), "not looked at: {told:?}");
}
