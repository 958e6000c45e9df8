//! Snapshots.

use serde_json::{Value, json};

use super::state::{Snap, State};
use super::{BAD_REFERENCE, Done, GONE, SNAP_NAME_TAKEN, only, reference, text};

/// Ids are large numbers.
const FIRST: u64 = 38_654_705_664;

pub fn create(state: &mut State, body: &Value) -> Done {
    only(
        body,
        &[
            "storageResource",
            "name",
            "description",
            "isAutoDelete",
            "retentionDuration",
        ],
    )?;
    let lun = reference(body, "storageResource")?;
    let size = state.luns.get(lun).ok_or(BAD_REFERENCE)?.size;
    let name = text(body, "name")?;
    let snap = Snap {
        name: name.to_owned(),
        description: state.described(body["description"].as_str().unwrap_or_default()),
        lun: lun.to_owned(),
        size,
        // The array may delete what nobody says that it may not.
        is_auto_delete: body["isAutoDelete"].as_bool().unwrap_or(true),
        created: "2026-11-26T10:08:02.125Z".to_owned(),
    };
    Ok(json!({"content": {"id": put(state, snap)?}}))
}

pub fn copy(state: &mut State, id: &str, body: &Value) -> Done {
    let mut snap = state.snaps.get(id).ok_or(GONE)?.clone();
    text(body, "copyName")?.clone_into(&mut snap.name);
    Ok(json!({"content": {"copies": [{"id": put(state, snap)?}]}}))
}

fn put(state: &mut State, snap: Snap) -> Result<String, super::No> {
    if state.snaps.values().any(|known| known.name == snap.name) {
        return Err(SNAP_NAME_TAKEN);
    }
    let id = (FIRST + state.number()).to_string();
    state.snaps.insert(id.clone(), snap);
    Ok(id)
}

/// Thin clones of it stay.
pub fn delete(state: &mut State, id: &str) -> Done {
    state.snaps.remove(id).map(|_| Value::Null).ok_or(GONE)
}
