//! Changes of LUNs, mount points and migrations.

use super::state::{GIB, Lun, Migration, State};
use super::words::{Asked, invalid, silence};
use super::{Done, No, no};

pub const GONE: &str = "Could not retrieve the specified (pool lun). The (pool lun) may not exist";
const NAME_TAKEN: &str = "Unable to create the LUN because the specified name is already in use. Please retry the operation using a unique name. (0x712d8d04)";
const USED: &str = "Cannot unbind LUN because it's being used by a feature of the Storage System";

/// The LUN that is meant by its number or its name.
fn meant(state: &State, asked: &Asked) -> Result<u32, No> {
    let found = match (asked.find("-l"), asked.find("-name")) {
        (Some(number), _) => number.parse().ok(),
        (_, Some(name)) => state.named(name),
        _ => return invalid(),
    };
    let there = found.filter(|number| state.luns.contains_key(number));
    there.ok_or_else(|| No(GONE.to_owned()))
}

fn put(state: &mut State, asked: &Asked, lun: Lun) -> Done {
    let number = match asked.find("-l") {
        Some(_) => asked.number("-l")?,
        None => (0..).find(|it| !state.luns.contains_key(it)).unwrap(),
    };
    let name = match asked.find("-name") {
        Some(name) => name.to_owned(),
        None => format!("LUN {number}"),
    };
    if state.named(&name).is_some() || state.luns.contains_key(&number) {
        return no(NAME_TAKEN);
    }
    let uid = state.uid();
    state.luns.insert(number, Lun { name, uid, ..lun });
    silence()
}

fn size(asked: &Asked) -> Result<u64, No> {
    let size: u64 = asked.number("-capacity")?;
    match asked.need("-sq")? {
        "gb" => Ok(size * GIB),
        "mb" => Ok(size << 20),
        _ => invalid(),
    }
}

pub fn create(state: &mut State, asked: &Asked) -> Done {
    let pool = match (asked.find("-poolName"), asked.find("-poolId")) {
        (Some(name), _) => state.pools.iter().find(|(known, _)| *known == name),
        (_, Some(id)) => id.parse::<usize>().ok().and_then(|id| state.pools.get(id)),
        _ => return invalid(),
    };
    let Some((pool, _)) = pool else {
        return no(
            "Could not retrieve the specified (Storagepool). The (Storagepool) may not exist",
        );
    };
    let size = size(asked)?;
    let lun = Lun {
        name: String::new(),
        uid: String::new(),
        size,
        pool: (*pool).to_owned(),
        is_thin: asked
            .find("-type")
            .is_some_and(|it| it.eq_ignore_ascii_case("thin")),
        primary: None,
        attached: None,
        preparing: state.preparing,
        state: "Ready".to_owned(),
        is_faulted: false,
        written: 0,
    };
    put(state, asked, lun)
}

pub fn mount(state: &mut State, asked: &Asked) -> Done {
    let primary: u32 = asked.number("-primaryLun")?;
    let Some(origin) = state.luns.get(&primary).cloned() else {
        return no(GONE);
    };
    let lun = Lun {
        primary: Some(origin.primary.unwrap_or(primary)),
        attached: None,
        preparing: 0,
        is_thin: true,
        ..origin
    };
    put(state, asked, lun)
}

pub fn attach(state: &mut State, asked: &Asked) -> Done {
    let number = meant(state, asked)?;
    let name = asked.need("-snapName")?;
    let Some(primary) = state.luns[&number].primary else {
        return no("Cannot attach the snapshot. Invalid LUN type.");
    };
    let Some(snap) = state.snaps.get(name) else {
        return no("Cannot attach the snapshot. The specified snapshot does not exist.");
    };
    if snap.lun != primary {
        return no(
            "The attach or restore operation is disallowed because the snapshot and snapshot mount point are associated with different primary LUNs. Use LUNs and snapshots from correct primary LUN for attach and restore. (0x716d8008)",
        );
    }
    let elsewhere = state
        .luns
        .values()
        .any(|lun| lun.attached.as_deref() == Some(name));
    if elsewhere || state.luns[&number].attached.is_some() {
        return no("The snapshot is already attached to a snapshot mount point. (0x716d8055)");
    }
    let name = name.to_owned();
    state.luns.get_mut(&number).unwrap().attached = Some(name);
    silence()
}

pub fn detach(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let number = meant(state, asked)?;
    let lun = state.luns.get_mut(&number).unwrap();
    if lun.primary.is_none() {
        return no(&format!(
            "Cannot detach the specified LUN {number} as it is not a snapshot mount point. Retry the detach operation with a valid snapshot mount point."
        ));
    }
    match lun.attached.take() {
        Some(_) => silence(),
        None => no("Snapshot mount point is not currently attached."),
    }
}

pub fn destroy(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let number = meant(state, asked)?;
    if !state.groups_with(number).is_empty() {
        return no("Cannot unbind LUN because it's contained in a Storage Group.");
    }
    if state
        .migrations
        .iter()
        .any(|it| it.source == number || it.dest == number)
    {
        return no(USED);
    }
    if state.luns.values().any(|lun| lun.primary == Some(number)) {
        return no(
            "SP A: The LUN cannot be destroyed because it still has snapshot mount points. Destroy the snapshot mount points then retry the LUN destroy command. (0x716d801a)",
        );
    }
    if state.luns[&number].attached.is_some() && !asked.has("-forceDetach") {
        return no(
            "SP A: The snapshot mount point cannot be destroyed while a snapshot is attached.",
        );
    }
    let has_snaps = state.snaps.values().any(|snap| snap.lun == number);
    if has_snaps && !asked.has("-destroySnapshots") {
        return no(
            "SP A: The LUN cannot be destroyed because it still has snapshots. Destroy the snapshots then retry the LUN destroy command.",
        );
    }
    state.snaps.retain(|_, snap| snap.lun != number);
    state.luns.remove(&number);
    silence()
}

pub fn expand(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let number = meant(state, asked)?;
    let size = size(asked)?;
    let lun = state.luns.get_mut(&number).unwrap();
    let largest = 999_999 * GIB;
    if size >= largest || lun.primary.is_some() {
        return no(
            "SP A: The new capacity specified is not supported for the expand operation. (0x712d8e08)",
        );
    }
    if size <= lun.size {
        return no("SP A: Expansion LUN size must be greater than current LUN size. (0x712d8e04)");
    }
    lun.size = size;
    silence()
}

pub fn modify(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let number = meant(state, asked)?;
    let name = asked.need("-newName")?.to_owned();
    if state.named(&name).is_some_and(|other| other != number) {
        return no("Could not set properties:(Name).");
    }
    state.luns.get_mut(&number).unwrap().name = name;
    silence()
}

pub fn migrate(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let (source, dest): (u32, u32) = (asked.number("-source")?, asked.number("-dest")?);
    let (Some(from), Some(to)) = (state.luns.get(&source), state.luns.get(&dest)) else {
        return no(GONE);
    };
    let is_busy = |number: u32| {
        let mut migrations = state.migrations.iter();
        migrations.any(|it| [it.source, it.dest].contains(&number))
    };
    let is_free = to.size >= from.size
        && to.primary.is_none()
        && to.preparing == 0
        && state.groups_with(dest).is_empty()
        && !state.snaps.values().any(|snap| snap.lun == dest);
    if source == dest || !is_free || is_busy(source) || is_busy(dest) {
        return no("The destination LUN is not available for migration.");
    }
    state.migrations.push(Migration {
        source,
        dest,
        left: state.migrating,
        state: "MIGRATING".to_owned(),
    });
    silence()
}

/// One that is looked at goes on. At the end the source is what the destination was, but for its number and names.
pub fn go_on(state: &mut State, source: u32) {
    let Some(at) = state.migrations.iter().position(|it| it.source == source) else {
        return;
    };
    let migration = &mut state.migrations[at];
    if migration.state != "MIGRATING" {
        return;
    }
    if migration.left > 0 {
        migration.left -= 1;
        return;
    }
    let dest = state.migrations.remove(at).dest;
    let to = state.luns.remove(&dest).unwrap();
    let lun = state.luns.get_mut(&source).unwrap();
    (lun.size, lun.is_thin, lun.pool) = (to.size, to.is_thin, to.pool);
    // What was copied to it counts as written.
    (lun.primary, lun.attached, lun.written) = (None, None, 1);
}

pub fn cancel(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let source: u32 = asked.number("-source")?;
    let before = state.migrations.len();
    state.migrations.retain(|it| it.source != source);
    if state.migrations.len() == before {
        return no(
            "Error: migrate -cancel command failed.\nThe specified source LUN is not currently migrating.",
        );
    }
    silence()
}
