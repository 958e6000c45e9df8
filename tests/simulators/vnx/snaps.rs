//! Changes of snapshots.

use super::state::{MOST_SNAPS, Snap, State};
use super::words::{Asked, silence};
use super::{Done, No, no};

const NAME_TAKEN: &str = "The specified snapshot name is already in use. (0x716d8005)";

fn is_yes(asked: &Asked, option: &str) -> Option<bool> {
    asked
        .find(option)
        .map(|word| word.eq_ignore_ascii_case("yes"))
}

fn described(state: &State, asked: &Asked) -> Option<String> {
    let text = asked.find("-descr")?;
    Some(text.chars().take(state.longest_description).collect())
}

fn put(state: &mut State, name: &str, snap: Snap) -> Done {
    if state.snaps.contains_key(name) {
        return no(NAME_TAKEN);
    }
    let of_lun = state.snaps.values().filter(|it| it.lun == snap.lun);
    if of_lun.count() >= MOST_SNAPS {
        return no("The maximum number of snapshots of the LUN is reached.");
    }
    state.clock += 1;
    let cut_at = state.clock;
    state.snaps.insert(name.to_owned(), Snap { cut_at, ..snap });
    silence()
}

pub fn create(state: &mut State, asked: &Asked) -> Done {
    let lun = asked.number("-res").ok();
    let found = lun.and_then(|lun: u32| Some((lun, state.luns.get(&lun)?)));
    let Some((number, lun)) = found else {
        return no("Cannot create the snapshot. The specified resource does not exist.");
    };
    if state
        .migrations
        .iter()
        .any(|it| it.source == number || it.dest == number)
    {
        return no(
            "Cannot create the snapshot. The LUN is being used by a feature of the Storage System",
        );
    }
    let snap = Snap {
        lun: lun.primary.unwrap_or(number),
        description: described(state, asked).unwrap_or_default(),
        cut_at: 0,
        copied_from: None,
        is_writable: is_yes(asked, "-allowReadWrite").unwrap_or(false),
        may_go: is_yes(asked, "-allowAutoDelete").unwrap_or(true),
    };
    let name = asked.need("-name")?.to_owned();
    put(state, &name, snap)
}

pub fn copy(state: &mut State, asked: &Asked) -> Done {
    let Some(snap) = state.snaps.get(asked.need("-id")?).cloned() else {
        return no("Cannot copy the snapshot. The specified snapshot does not exist.");
    };
    let copied = Snap {
        description: String::new(),
        copied_from: Some(snap.cut_at),
        ..snap
    };
    let name = asked.need("-name")?.to_owned();
    put(state, &name, copied)
}

pub fn modify(state: &mut State, asked: &Asked) -> Done {
    let name = asked.need("-id")?.to_owned();
    let described = described(state, asked);
    let Some(snap) = state.snaps.get_mut(&name) else {
        return no("Could not retrieve the specified (Snapshot). The (Snapshot) may not exist");
    };
    if let Some(text) = described {
        snap.description = text;
    }
    snap.is_writable = is_yes(asked, "-allowReadWrite").unwrap_or(snap.is_writable);
    snap.may_go = is_yes(asked, "-allowAutoDelete").unwrap_or(snap.may_go);
    let Some(new) = asked.find("-name").filter(|new| **new != *name) else {
        return silence();
    };
    if state.snaps.contains_key(new) {
        return no(NAME_TAKEN);
    }
    let snap = state.snaps.remove(&name).ok_or_else(|| No(String::new()))?;
    state.snaps.insert(new.to_owned(), snap);
    silence()
}

pub fn destroy(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let name = asked.need("-id")?;
    if !state.snaps.contains_key(name) {
        return no("Cannot destroy the snapshot. The specified snapshot does not exist.");
    }
    if state
        .luns
        .values()
        .any(|lun| lun.attached.as_deref() == Some(name))
    {
        return no(
            "The snapshot cannot be destroyed because it is attached to a snapshot mount point. (0x716d8003)",
        );
    }
    let name = name.to_owned();
    state.snaps.remove(&name);
    silence()
}
