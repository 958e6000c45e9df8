//! Group G of the fault cases: what changes around volumes that are attached: portals, targets, addresses, directories.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sanpath::fault::{Fault, Faulted, chain};

use super::attach::{self, PATIENCE, Rig, offers_of, open_for_writing};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Volume, patiently};
use crate::kit::lio::Target;
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;
use crate::kit::writer::{self, Writer};

/// What only the long run proves.
pub const LONG: &[Case] = &[
    Case {
        name: "target_renamed_at_the_same_address",
        deadline: Duration::from_secs(300),
        run: target_renamed,
    },
    Case {
        name: "portal_added_while_attached",
        deadline: Duration::from_secs(300),
        run: portal_added,
    },
    Case {
        name: "staging_directory_vanished",
        deadline: Duration::from_secs(300),
        run: staging_directory_vanished,
    },
    Case {
        name: "address_of_a_card_changes",
        deadline: Duration::from_secs(300),
        run: address_changes,
    },
];

/// The name under which a replaced controller answers.
const RENAMED: &str = "iqn.2026-01.dev.sanpath.lab:renamed";
/// Blocks after which the writer starts over.
const ROUND: u64 = 256;

/// The SAN gets one more portal. With the next call that names it the path is there, in the same map and under a writer, and carries the volume alone.
fn portal_added(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let late = format!("{}:3260", Link(2).san_address(1));
    rig.target.close_portal(&late)?;
    let mut volume = rig.volume(80)?;
    let both = std::mem::take(&mut volume.export.offers);
    volume.export.offers = both[..1].to_vec();
    let (before, _) = rig.ensure("over the only portal", &volume)?;
    ensure!(before.map.members.len() == 1 && before.missing.is_empty());
    let writer = Writer::start(&before.map.path, ROUND)?;
    rig.target.open_portal(lab, &late)?;
    volume.export.offers = both;
    let (after, _) = rig.ensure("with one portal more", &volume)?;
    ensure!(after.map.dm == before.map.dm, "another map");
    ensure!(after.map.members.len() == 2, "{:?}", after.map);
    writer.wait_for_more(5, PATIENCE)?;
    paths::cut(Link(1))?;
    let alone = writer.wait_for_more(20, PATIENCE);
    paths::restore(Link(1))?;
    alone.context("over the new path alone")?;
    let pause = writer.progress().longest_pause;
    let blocks = writer.finish()?;
    writer::verify(&after.map.path, blocks, ROUND)?;
    lab.story(format!(
        "{blocks} blocks, the longest pause {} ms",
        pause.as_millis()
    ));
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    rig.remove()
}

/// A controller of the SAN is replaced while a volume is attached: the old target is gone and another name answers at the same addresses. What is
/// there is asked who it is before it joins the map.
fn target_renamed(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let mut volume = rig.volume(81)?;
    let (attached, _) = rig.ensure("under the old name", &volume)?;
    let mut file = open_for_writing(&attached.map.path)?;
    file.write_all(b"written under the old name")?;
    file.sync_all()?;
    drop(file);
    let impostor = rig.hidden_volume(5)?;
    let renamed = Target::serve_beside(lab, RENAMED, 79)?;
    rig.unmap(&volume)?;
    rig.target.set_enabled(false)?;

    volume.export.offers = offers_of(RENAMED, 5)?;
    renamed.map(5, &impostor.disk)?;
    let refused = rig.engine.ensure(&rig.want(&volume));
    let refused = refused.err().context("another volume was taken")?;
    lab.story(format!("another volume there: {}", chain(&refused)));
    ensure!(refused.fault() == Fault::Precondition);
    if let Ok(device) = rig.engine.verify(volume.export.wwid.as_str()) {
        bail!("{device:?} was verified without a path");
    }
    renamed.unmap(5, &impostor.disk)?;

    renamed.map(5, &volume.disk)?;
    let (attached, _) = rig.ensure("under the new name", &volume)?;
    ensure!(attached.missing.is_empty(), "{:?}", attached.missing);
    let mut text = [0; 26];
    File::open(&attached.map.path)?.read_exact(&mut text)?;
    ensure!(&text == b"written under the old name", "{text:?}");
    rig.detach("detach", &volume)?;
    rig.check_clean()?;
    let reaped = rig.engine.reap_idle(Duration::ZERO)?;
    ensure!(reaped.ended.len() == 4, "old and new sessions: {reaped:?}");
    renamed.unmap(5, &volume.disk)?;
    renamed.remove_without_disks()?;
    rig.target.set_enabled(true)?;
    rig.remove()
}

/// Staging and target directories vanish, mounts and all, as when somebody cleans up by hand: a repeated stage brings the volume back, and an unstage
/// takes it off the node by our own record.
fn staging_directory_vanished(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("vanished", 128 << 20, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    fs::write(volume.target.join("file"), "still there")?;
    take_away(lab, &volume)?;
    orchestrator.bring_up(&mut volume)?;
    let text = fs::read_to_string(volume.target.join("file"))?;
    ensure!(text == "still there", "{text}");
    take_away(lab, &volume)?;
    orchestrator.leave_node(&volume)?;
    let maps = lab.execute(&["dmsetup", "ls"])?;
    ensure!(!maps.contains(volume.wwid()), "{maps}");
    let records = fs::read_dir(stack.node_state().join("ledger"))?.count();
    ensure!(records == 0, "{records} records are left");
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

fn take_away(lab: &Lab, volume: &Volume) -> Result<()> {
    for place in [&volume.target, &volume.staging] {
        lab.execute(&["umount", &place.display().to_string()])?;
        fs::remove_dir(place)?;
    }
    fs::remove_dir(volume.staging.parent().context("no parent")?)?;
    Ok(())
}

/// A card of the node comes back with another address. Its session is built anew from there, under a writer, and the volume has both paths again.
fn address_changes(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(85)?;
    let (before, _) = rig.ensure("before", &volume)?;
    let writer = Writer::start(&before.map.path, ROUND)?;
    let (card, usual) = (Link(1).name(), Link(1).node_address(1));
    let other = usual.replace(".1.2", ".1.77");
    let readdress = |from: &str, to: &str| -> Result<()> {
        for (verb, address) in [("del", from), ("add", to)] {
            let address = format!("{address}/24");
            lab.execute(&["ip", "address", verb, &address, "dev", &card])?;
        }
        Ok(())
    };
    readdress(&usual, &other)?;
    let rebuilt = wait_for_session_from(lab, &rig, &volume, &other);
    readdress(&other, &usual)?;
    rebuilt.and(wait_for_session_from(lab, &rig, &volume, &usual))?;
    let (after, processes) = rig.ensure("after", &volume)?;
    ensure!(after.map == before.map && processes == 0, "{after:?}");
    let pause = writer.progress().longest_pause;
    let blocks = writer.finish()?;
    writer::verify(&after.map.path, blocks, ROUND)?;
    lab.story(format!(
        "{blocks} blocks, the longest pause {} ms",
        pause.as_millis()
    ));
    rig.detach("detach", &volume)?;
    rig.unmap(&volume)?;
    rig.remove()
}

fn wait_for_session_from(
    lab: &Lab,
    rig: &Rig,
    volume: &attach::Volume,
    address: &str,
) -> Result<()> {
    lab.wait_for("the session from there", 2 * PATIENCE, || {
        let rows = rig.engine.paths(volume.export.wwid.as_str())?;
        let ready = |checker: Option<&str>| checker == Some("ready");
        let all = rows.iter().all(|row| ready(row.checker.as_deref()));
        let from = lab.execute(&["ss", "-Htn", "state", "established", "src", address])?;
        Ok((all && from.contains(":3260")).then_some(()))
    })
}
