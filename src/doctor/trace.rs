//! `sanpath trace`: one volume, from the pod's mount on this node back to the SAN, and where it stops being right.
//!
//! [`trace`] judges what the daemons of this machine answered; it looks at nothing itself. A half that could not be asked is told as not known, never as
//! good.

#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::admin::{
    AddressRow, FailedPath, FailureRow, PathShown, SanVolumeRow, SanhostRow, VolumePathsRow,
    VolumeRow,
};

/// The form of [`Trace`] as JSON.
const VERSION: u32 = 1;

/// How a hop is; the worst is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// It could not be looked at from here.
    Unknown,
    /// It serves, with less than it should have.
    Degraded,
    /// The volume is not served through it.
    Broken,
}

/// One thing between the pod and the SAN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// What: `mount`, `file system`, `map`, `path ADDRESS`, `export`, `volume`, `sanhost`.
    pub hop: String,
    /// How it is.
    pub state: State,
    /// What there is.
    pub found: String,
    /// What to do; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// All of it, from the pod's end to the SAN's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    version: u32,
    /// The volume's id, or what was asked for when nobody knows it.
    pub volume: String,
    /// The hop at which it stops being right; nothing when all that could be looked at is well.
    pub breaks_at: Option<String>,
    /// The hops.
    pub hops: Vec<Hop>,
}

/// What the node's daemon knows of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSide {
    /// How it stands.
    pub volume: Option<VolumeRow>,
    /// Its paths.
    pub paths: Option<VolumePathsRow>,
    /// The name under which SANs know this node.
    pub initiator: Option<String>,
    /// The dm name of a map with the volume's WWID, known to the daemon or not.
    pub map: Option<String>,
    /// How the orchestrator's last call for it failed.
    pub failure: Option<FailureRow>,
}

impl NodeSide {
    fn id(&self) -> Option<&String> {
        let failed = || self.failure.as_ref().map(|row| &row.volume);
        self.volume.as_ref().map(|row| &row.volume).or_else(failed)
    }
}

/// A half of the way: what was answered, or why nothing was.
pub type Side<T> = Result<T, String>;

/// Judges. `asked` is what the operator named.
#[must_use]
pub fn trace(asked: &str, node: &Side<NodeSide>, san: &Side<SanVolumeRow>) -> Trace {
    let mut hops = match node {
        Ok(node) => node_hops(node),
        Err(why) => vec![unknown("node", why, "run it on the node that has the pod")],
    };
    match san {
        Ok(san) => hops.extend(san_hops(san, node.as_ref().ok())),
        Err(why) => hops.push(unknown(
            "SAN",
            why,
            "run it where the controller daemon runs, too",
        )),
    }
    let id = node.as_ref().ok().and_then(NodeSide::id);
    let id = id.or_else(|| san.as_ref().ok().map(|row| &row.volume));
    Trace {
        version: VERSION,
        volume: id.map_or(asked, String::as_str).to_owned(),
        breaks_at: breaks_at(&hops),
        hops,
    }
}

/// What is broken next to the SAN is the cause of what is broken next to the pod. Management is the exception: volumes are served without it.
fn breaks_at(hops: &[Hop]) -> Option<String> {
    let last = |state: State, is_data: bool| {
        let fits = |hop: &&Hop| hop.state == state && (hop.hop != SANHOST) == is_data;
        hops.iter().rev().find(fits).map(|hop| hop.hop.clone())
    };
    last(State::Broken, true)
        .or_else(|| last(State::Broken, false))
        .or_else(|| last(State::Degraded, true))
        .or_else(|| last(State::Degraded, false))
}

const SANHOST: &str = "sanhost";

fn hop(name: &str, state: State, found: impl Into<String>, fix: Option<String>) -> Hop {
    Hop {
        hop: name.to_owned(),
        state,
        found: found.into(),
        fix: fix.filter(|_| state != State::Good),
    }
}

fn unknown(name: &str, why: &str, fix: &str) -> Hop {
    hop(name, State::Unknown, why, Some(fix.to_owned()))
}

fn node_hops(node: &NodeSide) -> Vec<Hop> {
    let failure = node.failure.as_ref();
    let Some(volume) = &node.volume else {
        return match failure {
            Some(failure) if node.map.is_none() => failed_hops(failure),
            _ => vec![not_here(node)],
        };
    };
    let mut hops = vec![mount(volume, failure), file_system(volume)];
    hops.push(map(volume, node.map.as_ref()));
    let paths = node.paths.iter().flat_map(|it| &it.paths);
    let failed = failure.map_or(&[][..], |failure| &failure.paths);
    hops.extend(paths.map(|row| path(row, failed)));
    hops
}

/// A call that failed for good left nothing here; all that is known is why.
fn failed_hops(failure: &FailureRow) -> Vec<Hop> {
    let fix = match failure.paths.is_empty() {
        true => {
            "mend what it says; the kubelet repeats the call, and the plugin's log has each try"
        }
        false => "bring the paths below back; the kubelet repeats the call",
    };
    let mount = hop("mount", State::Broken, words(failure), Some(fix.to_owned()));
    let paths = failure.paths.iter().map(failed_path);
    std::iter::once(mount).chain(paths).collect()
}

fn words(failure: &FailureRow) -> String {
    // Of a failure for want of paths, they tell.
    let why = match failure.paths.is_empty() {
        true => failure.error.clone(),
        false => "paths are missing".to_owned(),
    };
    format!("{} failed {} s ago: {why}", failure.call, failure.age)
}

fn failed_path(row: &FailedPath) -> Hop {
    let iface = row.iface.as_ref();
    let iface = iface.map_or_else(String::new, |it| format!(" over {it}"));
    let cause = row.cause.as_deref();
    let state = match cause {
        Some("under way") => State::Unknown,
        _ => State::Broken,
    };
    let kind = cause.map_or_else(String::new, |it| format!("{it}: "));
    let found = format!("{kind}{}", row.why);
    let fix = cause_fix(cause, &row.portal);
    let fix = fix.unwrap_or_else(|| format!("see the way to {} and the SAN there", row.portal));
    hop(
        &format!("path {}{iface}", row.portal),
        state,
        found,
        Some(fix),
    )
}

/// What helps against one kind of hindrance.
fn cause_fix(cause: Option<&str>, portal: &str) -> Option<String> {
    match cause? {
        "no answer" => Some(format!(
            "bring the portal {portal} back, or the way to it: `ping` it from this node over that interface; the plugin tries again by itself"
        )),
        "login refused" => Some(
            "give both the same CHAP secret: the partition's credentials here (docs/sessions.md), and what the SAN has for this node's initiator; no login is tried with a secret that was refused before some minutes are over".to_owned(),
        ),
        "under way" => Some("it was not waited for: the others tell".to_owned()),
        _ => None,
    }
}

fn not_here(node: &NodeSide) -> Hop {
    match &node.map {
        Some(map) => hop(
            "map",
            State::Broken,
            format!("{map} is here, and this node's daemon has no record of the volume"),
            Some(format!(
                "when nothing uses it (`lsblk`, `fuser -vm`), `multipathd del map {map}` and then delete its disks; `sanpath doctor node` tells which"
            )),
        ),
        None => hop(
            "node",
            State::Unknown,
            "this node has no such volume",
            Some("run it on the node that has the pod, if there is one".to_owned()),
        ),
    }
}

/// With how the last call failed, where that is why it is not as it should be.
fn mount(row: &VolumeRow, failure: Option<&FailureRow>) -> Hop {
    let mut hop = stage(row);
    if let Some(failure) = failure
        && hop.state == State::Broken
    {
        hop.found = format!("{}; {}", hop.found, words(failure));
    }
    hop
}

fn stage(row: &VolumeRow) -> Hop {
    const HOP: &str = "mount";
    let fix = |text: &str| Some(text.to_owned());
    match row.stage.as_str() {
        "staged" if row.places.is_empty() && row.file_system != "raw" => hop(
            HOP,
            State::Broken,
            "staged, and mounted nowhere",
            Some(to_do(row, "delete the pod, so that it is staged anew")),
        ),
        "staged" if row.places.is_empty() => hop(HOP, State::Good, "staged", None),
        "staged" => hop(HOP, State::Good, row.places.join(", "), None),
        "begun" => hop(
            HOP,
            State::Broken,
            "its stage has not come to its end",
            fix(
                "the hops below tell what it waits for; the kubelet repeats it, and the plugin's log has the error of each try",
            ),
        ),
        "leaving" => hop(
            HOP,
            State::Broken,
            "its detach has not come to its end",
            fix("the kubelet repeats it; the plugin's log has the error of each try"),
        ),
        stage => hop(
            HOP,
            State::Broken,
            format!("staged in an {stage}; nothing of it is here"),
            fix("delete the pod, so that it is staged anew"),
        ),
    }
}

fn file_system(row: &VolumeRow) -> Hop {
    let words = row.file_system.as_str();
    let state = match words {
        "good" | "raw" | "read-only as asked" => State::Good,
        "NO ANSWER" => State::Unknown,
        _ if words.starts_with("not known") => State::Unknown,
        // Without a mount there is nothing to judge: the mount's hop tells.
        _ if row.stage != "staged" => State::Unknown,
        _ => State::Broken,
    };
    let recover = format!(
        "once its users have ended, `sanpath node recover {}`",
        row.volume
    );
    hop("file system", state, words, Some(to_do(row, &recover)))
}

/// The daemon's own advice, which knows more, or else ours.
fn to_do(row: &VolumeRow, ours: &str) -> String {
    row.to_do.clone().unwrap_or_else(|| ours.to_owned())
}

fn map(row: &VolumeRow, seen: Option<&String>) -> Hop {
    const HOP: &str = "map";
    let Some(map) = row.map.as_ref().or(seen) else {
        let found = "there is no map of its WWID";
        let fix = "the paths below tell why; with paths and no map, `sanpath doctor node` looks at multipathd";
        return hop(HOP, State::Broken, found, Some(fix.to_owned()));
    };
    let queueing = match row.queueing {
        true => "I/O waits when no path is left",
        false => "I/O fails when no path is left",
    };
    let Some(active) = row.active_paths else {
        let found = format!("{map}: multipathd does not say how it stands");
        return unknown(
            HOP,
            &found,
            "systemctl status multipathd; `sanpath doctor node`",
        );
    };
    let found = format!("{map}: {active} of {} paths, {queueing}", row.wanted_paths);
    let state = match active {
        0 => State::Broken,
        active if active < row.wanted_paths => State::Degraded,
        _ => State::Good,
    };
    let fix = "bring the paths below back";
    hop(HOP, state, found, Some(fix.to_owned()))
}

/// Of a volume whose stage goes on, the last try knows why a path is missing when nobody else has tried it.
fn path(row: &PathShown, failed: &[FailedPath]) -> Hop {
    let is_it = |it: &&FailedPath| row.portal.as_ref() == Some(&it.portal) && row.iface == it.iface;
    let failed = failed.iter().find(is_it).filter(|_| row.note.is_none());
    let note = row.note.as_ref().or(failed.map(|it| &it.why));
    let cause = row
        .cause
        .as_ref()
        .or(failed.and_then(|it| it.cause.as_ref()));
    let name = row.element.as_ref().or(row.portal.as_ref());
    let name = format!("path {}", name.map_or("?", String::as_str));
    let parts = [
        row.iface.as_ref().map(|iface| format!("over {iface}")),
        row.portal.clone(),
        row.session.as_ref().map(|it| format!("session {it}")),
        row.disk.clone(),
        row.checker.as_ref().map(|it| format!("checker {it}")),
        note.cloned(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let found = format!("{}: {}", row.state, parts.join(", "));
    let state = match row.state.as_str() {
        "active" => State::Good,
        "not known" => State::Unknown,
        _ => State::Broken,
    };
    hop(
        &name,
        state,
        found,
        Some(path_fix(row, cause.map(String::as_str))),
    )
}

fn path_fix(row: &PathShown, cause: Option<&str>) -> String {
    let portal = row.portal.as_deref().unwrap_or("the address");
    let has_session = row.session.as_deref() == Some("logged in");
    if let Some(fix) = cause_fix(cause.filter(|_| !has_session), portal) {
        return fix;
    }
    match row.state.as_str() {
        "disabled" => "mend the partition's ncpaths or the node's STORAGE_INTERFACES; `sanpath doctor node` shows both".to_owned(),
        "needs re-attach" => "the volume was published without this address: stop and start its pod, or take the element out of ncpaths".to_owned(),
        "no session" | "session down" => format!(
            "see that {portal} answers from this node over that interface, that the target is there, and that both have the same CHAP secret; the plugin tries again by itself"
        ),
        "no disk" => format!(
            "the target at {portal} shows no LUN {}: see the export",
            row.lun.map_or_else(|| "of it".to_owned(), |lun| lun.to_string())
        ),
        "not in the map" => "`sanpath doctor node` looks at multipathd and its blacklists".to_owned(),
        _ => format!("the disk does not answer: see the way to {portal}, and the volume on its SAN"),
    }
}

fn san_hops(row: &SanVolumeRow, node: Option<&NodeSide>) -> Vec<Hop> {
    let mut hops = Vec::new();
    match &row.error {
        Some(why) => hops.push(unknown(
            "volume",
            why,
            "bring the SAN's management back: the next hop",
        )),
        None if !row.found => hops.push(hop(
            "volume",
            State::Broken,
            "no SAN of the config file has it",
            Some("it was deleted, or its partition was taken out of the config file".to_owned()),
        )),
        None => {
            hops.push(export(row, node));
            hops.push(object(row));
        }
    }
    hops.extend(row.sanhost.iter().map(sanhost));
    hops
}

fn export(row: &SanVolumeRow, node: Option<&NodeSide>) -> Hop {
    const HOP: &str = "export";
    let given: Vec<String> = row
        .exported_to
        .iter()
        .map(|to| {
            let only = if to.read_only { ", read-only" } else { "" };
            format!("{} ({}{only})", to.node, to.initiator)
        })
        .collect();
    let given = match given.is_empty() {
        true => "given to no node".to_owned(),
        false => format!("given to {}", given.join(", ")),
    };
    let is_here = |node: &&NodeSide| node.id().is_some() || node.map.is_some();
    let here = node.filter(is_here);
    let initiator = here.and_then(|node| node.initiator.as_ref());
    let is_given = |name: &String| row.exported_to.iter().any(|to| to.initiator == *name);
    match initiator {
        Some(name) if !is_given(name) => hop(
            HOP,
            State::Broken,
            format!("{given}; not to this node ({name})"),
            Some(
                "see its VolumeAttachment: the pod must be stopped here, or stopped and started so that the volume is attached anew"
                    .to_owned(),
            ),
        ),
        _ => hop(HOP, State::Good, given, None),
    }
}

fn object(row: &SanVolumeRow) -> Hop {
    const HOP: &str = "volume";
    let name = row.name.as_deref().unwrap_or("?");
    let size = row.size_bytes.unwrap_or(0);
    let partition = row.partition.as_deref().unwrap_or("?");
    let found = format!("{name} in {partition}, {size} bytes");
    if row.troubles.is_empty() {
        return hop(HOP, State::Good, found, None);
    }
    let told: Vec<&str> = row.troubles.iter().map(|it| it.message.as_str()).collect();
    // A pool without room refuses writes: whatever is broken before it is broken by it.
    let is_grave = |it: &crate::admin::TroubleRow| it.inaccessible || it.reason == "PoolFull";
    let state = match row.troubles.iter().any(is_grave) {
        true => State::Broken,
        false => State::Degraded,
    };
    let fix = "mend it on the SAN; docs/san.md and docs/pools.md say how";
    hop(
        HOP,
        state,
        format!("{found}: {}", told.join("; ")),
        Some(fix.to_owned()),
    )
}

fn sanhost(row: &SanhostRow) -> Hop {
    if let Some(why) = &row.refused {
        let fix = "leave the addresses of one SAN in the list";
        return hop(SANHOST, State::Broken, why, Some(fix.to_owned()));
    }
    let is_well = |it: &&AddressRow| matches!(it.state.as_str(), "good" | "untried");
    let told = |it: &AddressRow| match &it.error {
        Some(error) if !is_well(&it) => format!("{} {} ({error})", it.address, it.state),
        _ => format!("{} {}", it.address, it.state),
    };
    let found: Vec<String> = row.addresses.iter().map(told).collect();
    let well = row.addresses.iter().filter(is_well).count();
    let state = match well {
        0 => State::Broken,
        well if well < row.addresses.len() => State::Degraded,
        _ => State::Good,
    };
    let fix = "see the way there and the SAN's daemon; docs/sanhost.md explains the states";
    hop(SANHOST, state, found.join(", "), Some(fix.to_owned()))
}
