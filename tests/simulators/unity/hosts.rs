//! Hosts and their initiators. The array takes a host's name twice.

use serde_json::{Value, json};

use super::state::{Host, Initiator, State};
use super::{
    BAD_BODY, BAD_REFERENCE, Done, GONE, HAS_ACCESS, INITIATOR_THERE, only, reference, text,
};

pub fn create(state: &mut State, body: &Value) -> Done {
    only(body, &["type", "name", "description", "osType", "tenant"])?;
    if body["type"] != 1 {
        return Err(BAD_BODY);
    }
    let host = Host {
        name: text(body, "name")?.to_owned(),
        description: body["description"].as_str().unwrap_or_default().to_owned(),
        os: body["osType"].as_str().unwrap_or_default().to_owned(),
    };
    let id = format!("Host_{}", state.number());
    state.hosts.insert(id.clone(), host);
    Ok(json!({"content": {"id": id}}))
}

pub fn delete(state: &mut State, id: &str) -> Done {
    if state.luns.values().any(|lun| lun.access.contains_key(id)) {
        return Err(HAS_ACCESS);
    }
    state.hosts.remove(id).ok_or(GONE)?;
    state
        .initiators
        .retain(|_, it| it.host.as_deref() != Some(id));
    Ok(Value::Null)
}

pub fn add_initiator(state: &mut State, body: &Value) -> Done {
    let name = text(body, "initiatorWWNorIqn")?;
    let host = reference(body, "host")?;
    if !state.hosts.contains_key(host) {
        return Err(BAD_REFERENCE);
    }
    if state.initiators.values().any(|known| known.name == name) {
        return Err(INITIATOR_THERE);
    }
    let initiator = Initiator {
        name: name.to_owned(),
        kind: body["initiatorType"].as_u64().ok_or(BAD_BODY)?,
        host: Some(host.to_owned()),
    };
    let id = format!("HostInitiator_{}", state.number());
    state.initiators.insert(id.clone(), initiator);
    Ok(json!({"content": {"id": id}}))
}

pub fn modify_initiator(state: &mut State, id: &str, body: &Value) -> Done {
    let host = reference(body, "host")?.to_owned();
    if !state.hosts.contains_key(&host) {
        return Err(BAD_REFERENCE);
    }
    state.initiators.get_mut(id).ok_or(GONE)?.host = Some(host);
    Ok(Value::Null)
}
