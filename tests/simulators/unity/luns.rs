//! LUNs: made, changed, cloned, deleted. As storage resources they have the same ids.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::state::{Lun, State};
use super::{
    AUTO_DELETE, BAD_BODY, BAD_REFERENCE, Done, GONE, HAS_ACCESS, HAS_CLONES, HAS_SNAPS, HLU_TAKEN,
    LUN_NAME_TAKEN, MODIFIED_MEANWHILE, NOTHING_TO_MODIFY, No, POLICY_NAME_TAKEN, SHRINK, is_name,
    only, reference, text,
};

const GRANULE: u64 = 8192;

pub fn create(state: &mut State, body: &Value) -> Done {
    only(body, &["name", "description", "lunParameters"])?;
    let parameters = &body["lunParameters"];
    only(
        parameters,
        &[
            "pool",
            "size",
            "isThinEnabled",
            "hostAccess",
            "ioLimitParameters",
            "fastVPParameters",
        ],
    )?;
    let name = free_name(state, text(body, "name")?)?;
    let pool = reference(parameters, "pool")?;
    if !state.pools.contains_key(pool) {
        return Err(BAD_REFERENCE);
    }
    let size = parameters["size"].as_u64().filter(|size| *size > 0);
    let size = size.ok_or(BAD_BODY)?.next_multiple_of(GRANULE);
    let lun = Lun {
        name,
        description: state.described(body["description"].as_str().unwrap_or_default()),
        pool: pool.to_owned(),
        size,
        wwn: wwn(state.number()),
        is_thin: parameters["isThinEnabled"].as_bool().unwrap_or(true),
        allocated: 0,
        parent: None,
        made_of: None,
        access: BTreeMap::new(),
        policy: None,
        health: 5,
    };
    Ok(put(state, lun))
}

pub fn clone(state: &mut State, id: &str, body: &Value) -> Done {
    only(body, &["name", "description", "snap", "lunParameters"])?;
    let parent = state.luns.get(id).ok_or(GONE)?.clone();
    let made_of = reference(body, "snap")?.to_owned();
    let snap = state.snaps.get(&made_of).ok_or(BAD_REFERENCE)?;
    if snap.lun != id {
        return Err(BAD_REFERENCE);
    }
    if snap.is_auto_delete {
        return Err(AUTO_DELETE);
    }
    let size = snap.size;
    let name = free_name(state, text(body, "name")?)?;
    let lun = Lun {
        name,
        description: state.described(body["description"].as_str().unwrap_or_default()),
        size,
        wwn: wwn(state.number()),
        allocated: 0,
        parent: Some(id.to_owned()),
        made_of: Some(made_of),
        access: BTreeMap::new(),
        policy: None,
        ..parent
    };
    Ok(put(state, lun))
}

fn put(state: &mut State, lun: Lun) -> Value {
    let id = format!("sv_{}", state.number());
    state.luns.insert(id.clone(), lun);
    json!({"content": {"storageResource": {"id": id}}})
}

fn free_name(state: &State, name: &str) -> Result<String, No> {
    match () {
        () if !is_name(name) => Err(BAD_BODY),
        () if !state.named(name).is_empty() => Err(LUN_NAME_TAKEN),
        () => Ok(name.to_owned()),
    }
}

fn wwn(number: u64) -> String {
    let bytes = number.to_be_bytes().map(|byte| format!("{byte:02X}"));
    format!("60:06:01:60:15:E0:3A:00:{}", bytes.join(":"))
}

/// All of it or nothing.
pub fn modify(state: &mut State, id: &str, body: &Value) -> Done {
    only(
        body,
        &[
            "name",
            "description",
            "lunParameters",
            "snapScheduleParameters",
        ],
    )?;
    let before = state.luns.get(id).ok_or(GONE)?.clone();
    let mut lun = before.clone();
    if let Some(name) = body["name"].as_str().filter(|name| *name != lun.name) {
        lun.name = free_name(state, name)?;
    }
    if let Some(description) = body["description"].as_str() {
        lun.description = state.described(description);
    }
    let parameters = &body["lunParameters"];
    if let Some(size) = parameters["size"].as_u64() {
        let size = size.next_multiple_of(GRANULE);
        if size < lun.size {
            return Err(SHRINK);
        }
        lun.size = size;
    }
    if let Some(policy) = parameters["ioLimitParameters"]["ioLimitPolicy"]["id"].as_str() {
        let known = state.policies.contains_key(policy);
        lun.policy = Some(known.then(|| policy.to_owned()).ok_or(BAD_REFERENCE)?);
    }
    if let Some(wanted) = parameters["hostAccess"].as_array() {
        if let Some(rival) = state.rivals.pop() {
            state.put_access(id, &rival);
            return Err(MODIFIED_MEANWHILE);
        }
        lun.access = access(state, &before, wanted)?;
    }
    let same = |one: &Lun, other: &Lun| format!("{one:?}") == format!("{other:?}");
    if same(&before, &lun) {
        return Err(NOTHING_TO_MODIFY);
    }
    let is_list_changed = lun.access != before.access;
    state.luns.insert(id.to_owned(), lun);
    if let Some(latecomer) = state.latecomers.pop_if(|_| is_list_changed) {
        state.put_access(id, &latecomer);
    }
    Ok(Value::Null)
}

/// The whole new list; who was on it keeps its number.
fn access(
    state: &State,
    before: &Lun,
    wanted: &[Value],
) -> Result<BTreeMap<String, (u64, u64)>, No> {
    let mut access = BTreeMap::new();
    for entry in wanted {
        only(entry, &["host", "accessMask", "hlu"])?;
        let host = reference(entry, "host")?;
        if !state.hosts.contains_key(host) {
            return Err(BAD_REFERENCE);
        }
        let mask = entry["accessMask"].as_u64().ok_or(BAD_BODY)?;
        let known = before.access.get(host).map(|(_, hlu)| *hlu);
        let asked = entry["hlu"].as_u64();
        let others = state.luns.values().filter(|lun| lun.wwn != before.wwn);
        let mut others = others.filter_map(|lun| lun.access.get(host));
        if asked.is_some_and(|asked| others.any(|(_, hlu)| *hlu == asked)) {
            return Err(HLU_TAKEN);
        }
        let hlu = asked.or(known).unwrap_or_else(|| state.free_hlu(host));
        access.insert(host.to_owned(), (mask, hlu));
    }
    Ok(access)
}

pub fn delete(state: &mut State, id: &str, body: &Value) -> Done {
    let lun = state.luns.get(id).ok_or(GONE)?;
    if !lun.access.is_empty() {
        return Err(HAS_ACCESS);
    }
    if state
        .luns
        .values()
        .any(|it| it.parent.as_deref() == Some(id))
    {
        return Err(HAS_CLONES);
    }
    if state.snaps.values().any(|snap| snap.lun == id) {
        if body["forceSnapDeletion"] != true {
            return Err(HAS_SNAPS);
        }
        state.snaps.retain(|_, snap| snap.lun != id);
    }
    state.luns.remove(id);
    Ok(Value::Null)
}

pub fn create_policy(state: &mut State, body: &Value) -> Done {
    let name = text(body, "name")?;
    if state.policies.values().any(|policy| policy["name"] == name) {
        return Err(POLICY_NAME_TAKEN);
    }
    let id = format!("qp_{}", state.number());
    let rules = body["ioLimitRules"].clone();
    let policy = json!({
        "id": id, "name": name, "description": body["description"], "type": body["type"],
        "isShared": body["isShared"], "ioLimitRuleSettings": rules, "state": 2, "isPaused": false,
    });
    state.policies.insert(id.clone(), policy);
    Ok(json!({"content": {"id": id}}))
}
