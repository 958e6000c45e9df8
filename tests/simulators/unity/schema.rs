//! Which attributes each type has, and which of them name things of another type. Clients read this first, and ask for nothing that is not in it.

use serde_json::{Value, json};

/// A type with its attributes.
pub const TYPES: &[(&str, &[&str])] = &[
    (
        "lun",
        &[
            "id",
            "name",
            "description",
            "type",
            "health",
            "wwn",
            "sizeTotal",
            "sizeAllocated",
            "sizeUsed",
            "isThinEnabled",
            "isThinClone",
            "hostAccess",
            "pool",
            "storageResource",
            "snapCount",
            "defaultNode",
            "currentNode",
            "familyBaseLun",
            "familyCloneCount",
            "ioLimitPolicy",
            "operationalStatus",
            "tieringPolicy",
            "isReplicationDestination",
            "isSnapSchedulePaused",
        ],
    ),
    (
        "storageResource",
        &[
            "id",
            "name",
            "description",
            "type",
            "health",
            "sizeTotal",
            "sizeAllocated",
            "luns",
            "pools",
            "snapCount",
            "thinStatus",
            "replicationType",
            "isReplicationDestination",
        ],
    ),
    (
        "snap",
        &[
            "id",
            "name",
            "description",
            "state",
            "creationTime",
            "isAutoDelete",
            "isSystemSnap",
            "isModifiable",
            "isReadOnly",
            "isModified",
            "size",
            "lun",
            "storageResource",
            "creatorType",
            "hostAccess",
        ],
    ),
    (
        "host",
        &[
            "id",
            "name",
            "description",
            "type",
            "osType",
            "health",
            "iscsiHostInitiators",
            "fcHostInitiators",
            "hostLUNs",
            "hostIPPorts",
            "autoManageType",
        ],
    ),
    (
        "hostInitiator",
        &[
            "id",
            "initiatorId",
            "type",
            "health",
            "isIgnored",
            "isChapSecretEnabled",
            "parentHost",
            "paths",
        ],
    ),
    (
        "hostLUN",
        &[
            "id",
            "hlu",
            "type",
            "isReadOnly",
            "isDefaultSnap",
            "host",
            "lun",
            "snap",
        ],
    ),
    (
        "iscsiPortal",
        &[
            "id",
            "ipAddress",
            "netmask",
            "gateway",
            "ipProtocolVersion",
            "portalGroupTag",
            "iscsiNode",
            "ethernetPort",
        ],
    ),
    ("iscsiNode", &["id", "name", "alias", "ethernetPort"]),
    (
        "ethernetPort",
        &[
            "id",
            "name",
            "health",
            "storageProcessor",
            "speed",
            "isLinkUp",
        ],
    ),
    (
        "pool",
        &[
            "id",
            "name",
            "description",
            "health",
            "sizeFree",
            "sizeTotal",
            "sizeUsed",
            "sizeSubscribed",
            "raidType",
            "isAllFlash",
            "poolFastVP",
            "tiers",
            "isFASTCacheEnabled",
            "alertThreshold",
        ],
    ),
    (
        "job",
        &[
            "id",
            "state",
            "description",
            "progressPct",
            "tasks",
            "methodName",
            "messageOut",
            "stateChangeTime",
            "submitTime",
            "isJobCancelable",
            "isJobCancelled",
            "clientData",
            "owner",
        ],
    ),
    (
        "system",
        &[
            "id",
            "name",
            "model",
            "serialNumber",
            "health",
            "platform",
            "isEULAAccepted",
        ],
    ),
    (
        "basicSystemInfo",
        &[
            "id",
            "name",
            "model",
            "softwareVersion",
            "apiVersion",
            "earliestApiVersion",
        ],
    ),
    (
        "systemLimit",
        &[
            "id",
            "name",
            "description",
            "unit",
            "limitValue",
            "thresholdValue",
        ],
    ),
    (
        "license",
        &[
            "id",
            "name",
            "isInstalled",
            "isValid",
            "isPermanent",
            "expires",
            "version",
        ],
    ),
    (
        "ioLimitPolicy",
        &[
            "id",
            "name",
            "description",
            "type",
            "isShared",
            "ioLimitRuleSettings",
            "state",
            "isPaused",
        ],
    ),
    ("user", &["id", "name", "role"]),
];

/// Of which type what an attribute names is.
const NAMES: &[(&str, &str)] = &[
    ("pool", "pool"),
    ("pools", "pool"),
    ("storageResource", "storageResource"),
    ("luns", "lun"),
    ("lun", "lun"),
    ("familyBaseLun", "lun"),
    ("snap", "snap"),
    ("host", "host"),
    ("parentHost", "host"),
    ("hostLUNs", "hostLUN"),
    ("iscsiHostInitiators", "hostInitiator"),
    ("fcHostInitiators", "hostInitiator"),
    ("iscsiNode", "iscsiNode"),
    ("ethernetPort", "ethernetPort"),
    ("ioLimitPolicy", "ioLimitPolicy"),
];

pub fn attributes(kind: &str) -> Option<&'static [&'static str]> {
    let found = TYPES.iter().find(|(name, _)| *name == kind);
    found.map(|(_, attributes)| *attributes)
}

pub fn named_by(attribute: &str) -> Option<&'static str> {
    let found = NAMES.iter().find(|(name, _)| *name == attribute);
    found.map(|(_, kind)| *kind)
}

/// What the array says of a type.
pub fn told(kind: &str) -> Option<Value> {
    let attributes = attributes(kind)?.iter().map(|name| {
        json!({"name": name, "type": "String", "description": format!("{name} of {kind}"), "displayValue": name})
    });
    Some(json!({"content": {
        "name": kind,
        "description": format!("A {kind}."),
        "documentation": "",
        "attributes": attributes.collect::<Vec<_>>(),
    }}))
}
