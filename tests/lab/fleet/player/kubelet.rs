//! Inside a guest: what the kubelet does with one volume on its node. It stages and publishes until it works, and takes back what it believes to be there.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::csi::proto as csi;
use tokio::time::sleep;
use tonic::Code;

use super::claim::{Claim, Seat};
use super::lines::{Lines, Refusal, pass, within};
use super::rules::{Belief, Caller};
use crate::kit::csi::Access;

/// The kernel and udev take their time to remove what nobody holds any more.
const UNTIL_GONE: Duration = Duration::from_secs(60);

/// Until the pod runs.
pub async fn mount(lines: &Lines, claim: &mut Claim) -> Result<()> {
    let mut pauses = Caller::Kubelet.pauses();
    loop {
        if seat(claim)?.device != Belief::There {
            let answer = stage(lines, claim).await;
            let device = &mut seat(claim)?.device;
            *device = device.after(&answer.as_ref().map(drop).map_err(|it| it.code));
            if let (Belief::Nothing, Err(refusal)) = (*device, &answer) {
                let after = format!("NodeStageVolume was refused for good, {refusal}");
                expect_nothing(claim, &after).await?;
            }
        }
        if seat(claim)?.device == Belief::There {
            let answer = publish(lines, claim).await.map_err(|it| it.code);
            let pod = &mut seat(claim)?.pod;
            *pod = pod.after(&answer);
            if *pod == Belief::There {
                return Ok(());
            }
        }
        pass(&mut pauses).await;
    }
}

/// Until nothing is left that it believes in.
pub async fn unmount(lines: &Lines, claim: &mut Claim) -> Result<()> {
    let mut pauses = Caller::Kubelet.pauses();
    loop {
        if seat(claim)?.pod != Belief::Nothing && unpublish(lines, claim).await.is_ok() {
            seat(claim)?.pod = Belief::Nothing;
        }
        let seen = (seat(claim)?.pod, seat(claim)?.device);
        if seen.0 == Belief::Nothing
            && seen.1 != Belief::Nothing
            && unstage(lines, claim).await.is_ok()
        {
            seat(claim)?.device = Belief::Nothing;
            remove_staging(claim)?;
            expect_nothing(claim, "NodeUnstageVolume said that it is done").await?;
        }
        if (seat(claim)?.pod, seat(claim)?.device) == (Belief::Nothing, Belief::Nothing) {
            return Ok(());
        }
        pass(&mut pauses).await;
    }
}

/// Until the node's side of the new size is done.
pub async fn expand(lines: &Lines, claim: &Claim, size: i64) -> Result<()> {
    let request = csi::NodeExpandVolumeRequest {
        volume_id: claim.id.clone(),
        volume_path: claim.target().display().to_string(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: size,
            limit_bytes: 0,
        }),
        staging_target_path: claim.staging().display().to_string(),
        volume_capability: Some(claim.access.capability()),
        secrets: claim.secrets(),
    };
    let ask = |mut lines: Lines| {
        let request = within(Caller::Kubelet, request.clone());
        async move { lines.node.node_expand_volume(request).await }
    };
    let mut pauses = Caller::Kubelet.pauses();
    while lines
        .call((Caller::Kubelet, "NodeExpandVolume"), ask)
        .await
        .is_err()
    {
        pass(&mut pauses).await;
    }
    Ok(())
}

async fn stage(lines: &Lines, claim: &Claim) -> Result<(), Refusal> {
    let place = claim.staging();
    make_folder(&place)?;
    let request = csi::NodeStageVolumeRequest {
        volume_id: claim.id.clone(),
        publish_context: context_of(claim),
        staging_target_path: place.display().to_string(),
        volume_capability: Some(claim.access.capability()),
        volume_context: claim.volume_context.clone(),
        secrets: claim.secrets(),
    };
    let ask = |mut lines: Lines| {
        let request = within(Caller::Kubelet, request.clone());
        async move { lines.node.node_stage_volume(request).await }
    };
    let who = (Caller::Kubelet, "NodeStageVolume");
    lines.call(who, ask).await.map(drop)
}

async fn publish(lines: &Lines, claim: &Claim) -> Result<(), Refusal> {
    let target = claim.target();
    target.parent().map_or(Ok(()), make_folder)?;
    let request = csi::NodePublishVolumeRequest {
        volume_id: claim.id.clone(),
        publish_context: context_of(claim),
        staging_target_path: claim.staging().display().to_string(),
        target_path: target.display().to_string(),
        volume_capability: Some(claim.access.capability()),
        volume_context: claim.volume_context.clone(),
        ..csi::NodePublishVolumeRequest::default()
    };
    let ask = |mut lines: Lines| {
        let request = within(Caller::Kubelet, request.clone());
        async move { lines.node.node_publish_volume(request).await }
    };
    let who = (Caller::Kubelet, "NodePublishVolume");
    lines.call(who, ask).await.map(drop)
}

async fn unpublish(lines: &Lines, claim: &Claim) -> Result<(), Refusal> {
    let request = csi::NodeUnpublishVolumeRequest {
        volume_id: claim.id.clone(),
        target_path: claim.target().display().to_string(),
    };
    let ask = |mut lines: Lines| {
        let request = within(Caller::Kubelet, request.clone());
        async move { lines.node.node_unpublish_volume(request).await }
    };
    let who = (Caller::Kubelet, "NodeUnpublishVolume");
    lines.call(who, ask).await.map(drop)
}

async fn unstage(lines: &Lines, claim: &Claim) -> Result<(), Refusal> {
    let request = csi::NodeUnstageVolumeRequest {
        volume_id: claim.id.clone(),
        staging_target_path: claim.staging().display().to_string(),
    };
    let ask = |mut lines: Lines| {
        let request = within(Caller::Kubelet, request.clone());
        async move { lines.node.node_unstage_volume(request).await }
    };
    let who = (Caller::Kubelet, "NodeUnstageVolume");
    lines.call(who, ask).await.map(drop)
}

fn seat(claim: &mut Claim) -> Result<&mut Seat> {
    claim.seat.as_mut().context("no seat")
}

fn context_of(claim: &Claim) -> std::collections::HashMap<String, String> {
    let seat = claim.seat.as_ref();
    seat.map(|seat| seat.publish_context.clone())
        .unwrap_or_default()
}

/// The kubelet could not make its own folder: not the plugin's doing, and it tries again.
fn make_folder(folder: &Path) -> Result<(), Refusal> {
    fs::create_dir_all(folder).map_err(|error| Refusal {
        code: Code::Unavailable,
        words: error.to_string(),
    })
}

/// A raw volume's staging folder goes with what is in it.
fn remove_staging(claim: &Claim) -> Result<()> {
    let folder = claim.staging();
    let removed = match claim.access {
        Access::Block => fs::remove_dir_all(&folder),
        _ => fs::remove_dir(&folder),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What nobody will take back is nowhere on this node.
async fn expect_nothing(claim: &Claim, after: &str) -> Result<()> {
    let end = Instant::now() + UNTIL_GONE;
    loop {
        let left = things_of(claim);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < end,
            "{after}, and there is {left:?} of {}",
            claim.name
        );
        sleep(Duration::from_millis(200)).await;
    }
}

/// The maps and disks that bear its WWID, and its mounts.
fn things_of(claim: &Claim) -> Vec<String> {
    let wwid = claim.wwid();
    let naa = wwid.get(1..).unwrap_or(wwid);
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let devices = blocks.filter(|entry| {
        let path = entry.path();
        read(&path.join("device/wwid")).contains(naa) || read(&path.join("dm/uuid")).contains(wwid)
    });
    let devices = devices.map(|entry| entry.path().display().to_string());
    let mounts = claim.mounts().into_iter().filter_map(|mount| {
        let mount = mount.display().to_string();
        let table = read(Path::new("/proc/self/mountinfo"));
        let is_there = table.lines().any(|it| it.split(' ').nth(4) == Some(&mount));
        is_there.then_some(mount)
    });
    devices.chain(mounts).collect()
}
