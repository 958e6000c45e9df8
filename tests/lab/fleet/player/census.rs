//! Counts what there is, on the nodes, at the SAN and by the controllers' word, beside what the player owns.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, anyhow};
use sanpath::csi::proto as csi;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::parts::{SAN, SAN_POOL};
use super::claim::{Claim, Snapshot, key_of};
use super::lines::{Lines, within};
use super::rules::Caller;
use crate::kit::case::{Lab, Step};
use crate::kit::fleet::{Fleet, Member};
use crate::kit::leftovers;
use crate::kit::topology::PATHS;

pub const STEP: Step = Step {
    name: "player_census",
    run: count_here,
};

/// What one node has, and what its controller tells.
#[derive(Debug, Serialize, Deserialize)]
struct Count {
    sessions: usize,
    disks: usize,
    maps: BTreeSet<String>,
    mounts: BTreeSet<String>,
    ledger_records: usize,
    /// Id, size and nodes.
    volumes: BTreeSet<(String, i64, Vec<String>)>,
    snapshots: BTreeSet<String>,
}

/// What is there and should not be, or the other way round.
pub fn differences(fleet: &Fleet, claims: &[Claim], snapshots: &[Snapshot]) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for number in [1, 2] {
        let member = Member::Node(number);
        let found: Count = serde_json::from_value(fleet.step(member, STEP.name, Value::Null)?)?;
        let expected = expected_on(number, claims, snapshots);
        if json!(found) != json!(expected) {
            told.push(format!(
                "{}: there is {found:?}, owned is {expected:?}",
                member.name()
            ));
        }
    }
    let (found, expected) = (at_the_san(fleet)?, expected_at_the_san(claims, snapshots));
    let extra = found.difference(&expected).map(|it| format!("extra {it}"));
    let missing = expected.difference(&found).map(|it| format!("no {it}"));
    told.extend(extra.chain(missing).map(|it| format!("SAN: {it}")));
    Ok(told)
}

fn expected_on(number: u8, claims: &[Claim], snapshots: &[Snapshot]) -> Count {
    let here = |claim: &&Claim| claim.seat.as_ref().is_some_and(|seat| seat.node == number);
    let here: Vec<&Claim> = claims.iter().filter(here).collect();
    let paths = usize::from(PATHS);
    let maps = here.iter().map(|claim| claim.wwid().to_owned());
    let mounts = here.iter().flat_map(|claim| claim.mounts());
    let volume = |claim: &Claim| {
        let nodes = claim.seat.iter().map(|seat| seat.node_id.clone());
        (claim.id.clone(), claim.size, nodes.collect())
    };
    Count {
        sessions: if here.is_empty() { 0 } else { paths },
        disks: paths * here.len(),
        maps: maps.collect(),
        mounts: mounts.map(|it| it.display().to_string()).collect(),
        ledger_records: here.len(),
        volumes: claims.iter().map(volume).collect(),
        snapshots: snapshots.iter().map(|it| it.id.clone()).collect(),
    }
}

fn expected_at_the_san(claims: &[Claim], snapshots: &[Snapshot]) -> BTreeSet<String> {
    let volumes = claims.iter().map(|it| format!("volume {}", it.key()));
    let snapshots = snapshots
        .iter()
        .map(|it| format!("snapshot {}", key_of(&it.id)));
    let seats = || claims.iter().filter(|it| it.seat.is_some()).count();
    let counts = [
        format!("{} LUNs", seats()),
        format!("{} backstores", seats()),
    ];
    volumes.chain(snapshots).chain(counts).collect()
}

/// The files of the pool by their keys, and how many LUNs and backstores the kernel has.
fn at_the_san(fleet: &Fleet) -> Result<BTreeSet<String>> {
    let look = format!(
        "for kind in volume snapshot; do for file in {SAN_POOL}/${{kind}}s/*; do \
             test -e $file && basename $file | sed \"s/^/$kind /; s/\\.[a-z]*$//\"; done; done; \
         echo \"$(ls -d /sys/kernel/config/target/iscsi/*/tpgt_*/lun/lun_* | wc -l) LUNs\"; \
         echo \"$(ls -d /sys/kernel/config/target/core/*/*/enable | wc -l) backstores\""
    );
    let seen = fleet.guest(SAN)?.run(&["sh", "-c", &look], 30)?;
    Ok(seen.stdout.lines().map(str::to_owned).collect())
}

/// Inside a node's guest.
fn count_here(_: &mut Lab, _: Value) -> Result<Value> {
    let things = leftovers::count();
    let of = |kind: &'static str| things.iter().filter_map(move |it| it.strip_prefix(kind));
    // A raw volume in the clear and an encrypted one have their map under the WWID; what is opened of the latter has another name.
    let maps = of("map ").filter(|name| name.starts_with('3'));
    let mounts = of("mount ").filter_map(|it| it.rsplit_once(" (").map(|(target, _)| target));
    let mounts = mounts.filter(|it| Path::new(it).starts_with("/var/lib/kubelet/"));
    // The folder itself is a mount of the node's disk.
    let mounts = mounts.filter(|it| *it != "/var/lib/kubelet");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (volumes, snapshots) = runtime.block_on(listed())?;
    Ok(json!(Count {
        sessions: of("session ").count(),
        disks: of("disk ").count(),
        maps: maps.map(str::to_owned).collect(),
        mounts: mounts.map(str::to_owned).collect(),
        ledger_records: of("ledger record ").count(),
        volumes,
        snapshots,
    }))
}

type Listed = (BTreeSet<(String, i64, Vec<String>)>, BTreeSet<String>);

/// What external-attacher reconciles by, and the snapshots.
async fn listed() -> Result<Listed> {
    let lines = Lines::new()?;
    let ask = |mut lines: Lines| {
        let request = within(Caller::Attacher, csi::ListVolumesRequest::default());
        async move { lines.controller.list_volumes(request).await }
    };
    let volumes = lines.insist((Caller::Attacher, "ListVolumes"), ask).await;
    let volumes = volumes.map_err(|it| anyhow!("ListVolumes: {it}"))?;
    let volume = |entry: csi::list_volumes_response::Entry| {
        let nodes = entry.status.unwrap_or_default().published_node_ids;
        let volume = entry.volume.unwrap_or_default();
        (volume.volume_id, volume.capacity_bytes, nodes)
    };
    let volumes = volumes.entries.into_iter().map(volume).collect();
    let ask = |mut lines: Lines| {
        let request = within(Caller::Snapshotter, csi::ListSnapshotsRequest::default());
        async move { lines.controller.list_snapshots(request).await }
    };
    let who = (Caller::Snapshotter, "ListSnapshots");
    let snapshots = lines.insist(who, ask).await;
    let snapshots = snapshots.map_err(|it| anyhow!("ListSnapshots: {it}"))?;
    let id = |entry: csi::list_snapshots_response::Entry| entry.snapshot.unwrap_or_default();
    let snapshots = snapshots.entries.into_iter().map(id);
    Ok((volumes, snapshots.map(|it| it.snapshot_id).collect()))
}
