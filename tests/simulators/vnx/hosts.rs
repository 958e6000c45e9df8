//! Changes of storage groups.

use super::state::{Group, Record, State};
use super::words::{Asked, invalid, silence};
use super::{Done, No, no};

const FAILED: &str = "Error: storagegroup command failed\n";
const NO_GROUP: &str = "The group name or UID does not match any storage groups for this array";

fn failed<T>(text: &str) -> Result<T, No> {
    no(&format!("{FAILED}{text}"))
}

/// The name of the group that is meant.
fn meant(state: &State, asked: &Asked) -> Result<String, No> {
    let name = asked.need("-gname")?;
    if state.groups.contains_key(name) {
        return Ok(name.to_owned());
    }
    failed(&format!("Error returned from Agent\n{NO_GROUP}"))
}

pub fn create(state: &mut State, asked: &Asked) -> Done {
    let name = asked.need("-gname")?;
    if state.groups.contains_key(name) {
        return failed("Error returned from Agent\nStorage Group name already in use");
    }
    let number = u32::try_from(state.groups.len()).unwrap();
    let group = Group {
        number,
        ..Group::default()
    };
    state.groups.insert(name.to_owned(), group);
    silence()
}

pub fn destroy(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let name = meant(state, asked)?;
    if state.connected.values().any(|group| *group == name) {
        return failed(
            "Error returned from Agent\nThe storage group still has hosts connected to it",
        );
    }
    state.groups.remove(&name);
    silence()
}

pub fn set_path(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let group = meant(state, asked)?;
    let sp = match asked.need("-sp")? {
        "a" | "A" => 'A',
        "b" | "B" => 'B',
        _ => return invalid(),
    };
    let port: u32 = asked.number("-spport")?;
    let vport: u32 = match asked.find("-spvport") {
        Some(_) => asked.number("-spvport")?,
        None => 0,
    };
    let initiator = asked.need("-hbauid")?.to_owned();
    let host = asked.need("-host")?.to_owned();
    let known = state.ports.iter().find(|it| (it.sp, it.port) == (sp, port));
    let has_address = known.is_some_and(|it| it.addresses.len() > vport as usize);
    if !has_address {
        return failed(&format!(
            "Error returned from Agent\nSP {sp}: This port is uninitialized. Please initialize the IP address before trying to use this port. (0x7155800d)"
        ));
    }
    let is_it =
        |it: &Record| (&it.initiator, it.sp, it.port, it.vport) == (&initiator, sp, port, vport);
    if state.records.iter().any(is_it) {
        return failed(&format!(
            "Error returned from Agent\nSP {sp}: Initiator record already exists."
        ));
    }
    state.records.push(Record {
        initiator,
        sp,
        port,
        vport,
        host: host.clone(),
    });
    state.connected.insert(host, group);
    silence()
}

pub fn connect(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let (group, host) = (meant(state, asked)?, asked.need("-host")?.to_owned());
    if !state.records.iter().any(|it| it.host == host) {
        return failed("Host specified is not known by storage system");
    }
    state.connected.insert(host, group);
    silence()
}

pub fn disconnect(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let (group, host) = (meant(state, asked)?, asked.need("-host")?);
    if state.connected.get(host) != Some(&group) {
        return failed(&format!(
            "The specified host is not currently connected to the storage group {group}"
        ));
    }
    let host = host.to_owned();
    state.connected.remove(&host);
    silence()
}

pub fn add(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let name = meant(state, asked)?;
    let (hlu, alu): (u16, u32) = (asked.number("-hlu")?, asked.number("-alu")?);
    if !state.luns.contains_key(&alu) {
        return failed("The ALU number specified by user is not a bound ALU number");
    }
    let rival = (state.rivals > 0).then(|| {
        state.rivals -= 1;
        u32::MAX - u32::try_from(state.rivals).unwrap()
    });
    let group = state.groups.get_mut(&name).unwrap();
    if let Some(theirs) = rival {
        group.luns.entry(hlu).or_insert(theirs);
    }
    if group.luns.values().any(|known| *known == alu) {
        return failed(
            "Error returned from Agent\nRequested LUN has already been added to this Storage Group",
        );
    }
    if group.luns.contains_key(&hlu) {
        return failed("Error returned from Agent\nRequested Host LUN Number already in use");
    }
    group.luns.insert(hlu, alu);
    silence()
}

pub fn remove(state: &mut State, asked: &Asked) -> Done {
    asked.is_meant()?;
    let name = meant(state, asked)?;
    let hlu: u16 = asked.number("-hlu")?;
    let group = state.groups.get_mut(&name).unwrap();
    match group.luns.remove(&hlu) {
        Some(_) => silence(),
        None => failed(&format!(
            "Error returned from Agent\nLUN {hlu} : No such Host LUN in this Storage Group"
        )),
    }
}
