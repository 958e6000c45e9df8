//! Questions: schemas, lists with filter, fields and pages, and one thing by id or name.

use serde_json::{Map, Value, json};

use super::state::{Lun, State};
use super::{BAD_FIELD, Done, GONE, schema};
use crate::simulators::http::Request;

const WELL: u64 = 5;
/// What the largest LUN may have.
const LARGEST: u64 = 256 << 40;

pub fn look(state: &State, request: &Request) -> Done {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", "types", kind] => schema::told(kind).ok_or(GONE),
        ["api", "types", kind, "instances"] => list(state, kind, request),
        ["api", "instances", kind, which] => {
            let fields = fields(kind, request)?;
            let found = all(state, kind).into_iter().find(|thing| {
                let name = which.strip_prefix("name:");
                name.map_or(thing["id"] == **which, |name| thing["name"] == name)
            });
            let found = found.ok_or(GONE)?;
            Ok(json!({"content": shown(state, &found, &fields)}))
        }
        _ => Err(GONE),
    }
}

fn list(state: &State, kind: &str, request: &Request) -> Done {
    let fields = fields(kind, request)?;
    let mut things = all(state, kind);
    if let Some(filter) = request.asked("filter") {
        let filter = Filter::parse(filter)?;
        things.retain(|thing| filter.takes(thing));
    }
    let number = |name: &str| {
        request
            .asked(name)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let per_page = number("per_page")
        .unwrap_or(2000)
        .min(state.per_page)
        .max(1);
    let page = number("page").unwrap_or(1).max(1);
    let rest = things.len().saturating_sub(page * per_page);
    let things = things
        .into_iter()
        .skip((page - 1) * per_page)
        .take(per_page);
    let entries = things.map(|thing| json!({"content": shown(state, &thing, &fields)}));
    let entries: Vec<Value> = entries.collect();
    let mut links = vec![json!({"rel": "self", "href": format!("&page={page}")})];
    if rest > 0 {
        links.push(json!({"rel": "next", "href": format!("&page={}", page + 1)}));
    }
    Ok(
        json!({"@base": request.path, "updated": "2026-11-26T10:08:02.125Z", "links": links, "entries": entries}),
    )
}

/// The fields that are asked for, each of which the type has.
fn fields(kind: &str, request: &Request) -> Result<Vec<String>, super::No> {
    let known = schema::attributes(kind).ok_or(GONE)?;
    let asked = request.asked("fields").unwrap_or_default().split(',');
    let asked: Vec<String> = asked
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect();
    let first = |field: &String| field.split('.').next().unwrap_or_default().to_owned();
    if asked
        .iter()
        .all(|field| known.contains(&first(field).as_str()))
    {
        Ok(asked)
    } else {
        Err(BAD_FIELD)
    }
}

/// The fields of a thing, and of the things that it names.
fn shown(state: &State, thing: &Value, fields: &[String]) -> Value {
    let mut out = Map::new();
    if let Some(id) = thing.get("id") {
        out.insert("id".to_owned(), id.clone());
    }
    for field in fields {
        let (first, rest) = field.split_once('.').unwrap_or((field, ""));
        let Some(value) = thing.get(first) else {
            continue;
        };
        let rest: Vec<String> = match rest {
            "" => Vec::new(),
            rest => vec![rest.to_owned()],
        };
        let deeper = |value: &Value| deeper(state, first, value, &rest);
        let value = match value {
            Value::Array(values) => values.iter().map(deeper).collect(),
            value => deeper(value),
        };
        match out.get_mut(first) {
            Some(known) => merge(known, value),
            None => {
                out.insert(first.to_owned(), value);
            }
        }
    }
    Value::Object(out)
}

fn deeper(state: &State, attribute: &str, value: &Value, fields: &[String]) -> Value {
    if fields.is_empty() || !value.is_object() {
        return value.clone();
    }
    let whole = schema::named_by(attribute).and_then(|kind| {
        let mut things = all(state, kind).into_iter();
        things.find(|thing| thing["id"] == value["id"])
    });
    let mut out = value.clone();
    merge(
        &mut out,
        shown(state, whole.as_ref().unwrap_or(value), fields),
    );
    out
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(known) => merge(known, value),
                    None => {
                        into.insert(key, value);
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => {
            for (into, from) in into.iter_mut().zip(from) {
                merge(into, from);
            }
        }
        (into, from) => *into = from,
    }
}

/// `a eq "x" and b eq 2 or …`: alternatives of conditions.
struct Filter(Vec<Vec<(String, String)>>);

impl Filter {
    fn parse(text: &str) -> Result<Self, super::No> {
        let condition = |text: &str| {
            let (field, value) = text.split_once(" eq ").ok_or(BAD_FIELD)?;
            let field = field.trim().trim_end_matches(".id");
            Ok((field.to_owned(), value.trim().trim_matches('"').to_owned()))
        };
        let both = |text: &str| text.split(" and ").map(condition).collect();
        text.split(" or ")
            .map(both)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn takes(&self, thing: &Value) -> bool {
        let meets = |(field, wanted): &(String, String)| {
            let mut value = thing;
            for part in field.split('.') {
                value = &value[part];
            }
            let value = value.get("id").unwrap_or(value);
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            text == *wanted
        };
        self.0.iter().any(|all| all.iter().all(meets))
    }
}

/// Everything of that type, whole, in the order of ids.
fn all(state: &State, kind: &str) -> Vec<Value> {
    match kind {
        "lun" => state
            .luns
            .iter()
            .map(|(id, lun)| self::lun(state, id, lun))
            .collect(),
        "storageResource" => {
            let luns = state.luns.iter();
            luns.map(|(id, lun)| storage_resource(state, id, lun))
                .collect()
        }
        "hostLUN" => host_luns(state),
        "pool" => pools(state),
        "job" => state.jobs.values().cloned().collect(),
        "ioLimitPolicy" => state.policies.values().cloned().collect(),
        "snap" => snaps(state),
        "host" => hosts(state),
        "hostInitiator" => {
            let all = state.initiators.iter();
            all.map(|(id, it)| {
                let mut told = json!({"id": id, "initiatorId": it.name, "type": it.kind, "health": well(), "isIgnored": false, "isChapSecretEnabled": false, "paths": []});
                if let Some(host) = &it.host {
                    told["parentHost"] = json!({"id": host});
                }
                told
            })
            .collect()
        }
        _ => fixed(state, kind),
    }
}

fn well() -> Value {
    json!({"value": WELL, "descriptionIds": ["ALRT_COMPONENT_OK"], "descriptions": ["The component is operating normally. No action is required."]})
}

fn lun(state: &State, id: &str, lun: &Lun) -> Value {
    let access = lun.access.iter();
    let access: Vec<Value> = access
        .map(|(host, (mask, _))| json!({"accessMask": mask, "host": {"id": host}}))
        .collect();
    let snaps = state.snaps.values().filter(|snap| snap.lun == id).count();
    let base = lun.parent.as_deref().unwrap_or(id);
    let health = match lun.health {
        WELL => well(),
        bad => {
            json!({"value": bad, "descriptionIds": ["ALRT_VOL_POOL_OFFLINE"], "descriptions": ["The pool is offline."]})
        }
    };
    let mut told = json!({
        "id": id, "name": lun.name, "description": lun.description, "type": 2, "health": health, "wwn": lun.wwn, "sizeTotal": lun.size,
        "sizeAllocated": lun.allocated, "sizeUsed": lun.allocated, "isThinEnabled": lun.is_thin, "isThinClone": lun.parent.is_some(),
        "pool": {"id": lun.pool}, "storageResource": {"id": id}, "snapCount": snaps, "defaultNode": 0, "currentNode": 0,
        "familyBaseLun": {"id": base}, "familyCloneCount": 0, "operationalStatus": [2], "tieringPolicy": 0,
        "isReplicationDestination": false, "isSnapSchedulePaused": false,
    });
    // What is empty is not there.
    if !access.is_empty() {
        told["hostAccess"] = access.into();
    }
    if let Some(policy) = &lun.policy {
        told["ioLimitPolicy"] = json!({"id": policy});
    }
    told
}

fn storage_resource(state: &State, id: &str, lun: &Lun) -> Value {
    let snaps = state.snaps.values().filter(|snap| snap.lun == id).count();
    json!({
        "id": id, "name": lun.name, "description": lun.description, "type": 8, "health": well(), "sizeTotal": lun.size, "sizeAllocated": lun.allocated,
        "luns": [{"id": id}], "pools": [{"id": lun.pool}], "snapCount": snaps, "thinStatus": 1, "replicationType": 0, "isReplicationDestination": false,
    })
}

fn host_luns(state: &State) -> Vec<Value> {
    let all = state.luns.iter().flat_map(|(id, lun)| {
        lun.access.iter().map(move |(host, (_, hlu))| {
            json!({"id": format!("{host}_{id}_prod"), "hlu": hlu, "type": 1, "isReadOnly": false, "isDefaultSnap": false, "host": {"id": host}, "lun": {"id": id}})
        })
    });
    all.collect()
}

fn pools(state: &State) -> Vec<Value> {
    let pools = state.pools.iter().map(|(id, pool)| {
        let of_pool = || state.luns.values().filter(|lun| lun.pool == *id);
        let used: u64 = of_pool().map(|lun| lun.allocated).sum();
        let subscribed: u64 = of_pool().map(|lun| lun.size).sum();
        json!({
            "id": id, "name": pool.name, "description": "", "health": well(), "sizeFree": pool.total - used, "sizeTotal": pool.total, "sizeUsed": used,
            "sizeSubscribed": subscribed, "raidType": 1, "isAllFlash": true, "poolFastVP": {"status": 4}, "tiers": [], "isFASTCacheEnabled": false,
            "alertThreshold": 70,
        })
    });
    pools.collect()
}

fn snaps(state: &State) -> Vec<Value> {
    let snaps = state.snaps.iter().map(|(id, snap)| {
        json!({
            "id": id, "name": snap.name, "description": snap.description, "state": 2, "creationTime": snap.created, "isAutoDelete": snap.is_auto_delete,
            "isSystemSnap": false, "isModifiable": false, "isReadOnly": false, "isModified": false, "size": snap.size, "lun": {"id": snap.lun},
            "storageResource": {"id": snap.lun}, "creatorType": 2,
        })
    });
    snaps.collect()
}

fn hosts(state: &State) -> Vec<Value> {
    let hosts = state.hosts.iter().map(|(id, host)| {
        let initiators = |kind: u64| {
            let of_host = state.initiators.iter().filter(|(_, it)| it.host.as_ref() == Some(id) && it.kind == kind);
            of_host.map(|(id, _)| json!({"id": id})).collect::<Vec<_>>()
        };
        let mut told = json!({"id": id, "name": host.name, "description": host.description, "type": 1, "osType": host.os, "health": well(), "autoManageType": 0});
        let luns = host_luns(state).into_iter().filter(|it| it["host"]["id"] == id.as_str());
        let luns: Vec<Value> = luns.map(|it| json!({"id": it["id"]})).collect();
        for (name, list) in [("iscsiHostInitiators", initiators(2)), ("fcHostInitiators", initiators(1)), ("hostLUNs", luns)] {
            if !list.is_empty() {
                told[name] = list.into();
            }
        }
        told
    });
    hosts.collect()
}

fn fixed(state: &State, kind: &str) -> Vec<Value> {
    let serial = &state.serial;
    let ports = state.ports.iter();
    match kind {
        "iscsiPortal" => ports
            .enumerate()
            .map(|(at, port)| {
                json!({"id": format!("if_{at}"), "ipAddress": port.address, "netmask": "255.255.255.0", "gateway": "", "ipProtocolVersion": 4, "portalGroupTag": 1, "iscsiNode": {"id": format!("iscsinode_{}", port.name)}, "ethernetPort": {"id": port.name}})
            })
            .collect(),
        "iscsiNode" => ports
            .map(|port| {
                json!({"id": format!("iscsinode_{}", port.name), "name": state.target(port), "alias": port.short, "ethernetPort": {"id": port.name}})
            })
            .collect(),
        "ethernetPort" => ports
            .map(|port| json!({"id": port.name, "name": port.name, "health": well(), "storageProcessor": {"id": &port.name[..3]}, "speed": 10000, "isLinkUp": true}))
            .collect(),
        "system" => vec![json!({"id": "0", "name": serial, "model": "Unity 500", "serialNumber": serial, "health": well(), "platform": "Oberon_DualSP", "isEULAAccepted": true})],
        "basicSystemInfo" => vec![json!({"id": "0", "name": serial, "model": "Unity 500", "softwareVersion": "5.0.3", "apiVersion": "10.0", "earliestApiVersion": "4.0"})],
        "systemLimit" => vec![json!({"id": "Limit_MaxLUNSize", "name": "MaxLUNSize", "description": "", "unit": 2, "limitValue": LARGEST, "thresholdValue": 0})],
        "license" => vec![json!({"id": "VNXE_PROVISION", "name": "Thin Provisioning", "isInstalled": true, "isValid": true, "isPermanent": true, "version": "1.0"})],
        "user" => vec![json!({"id": "user_admin", "name": super::USER, "role": {"id": "administrator"}})],
        _ => Vec::new(),
    }
}
