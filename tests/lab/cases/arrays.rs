//! Simulated arrays whose LUNs exist: the whole life of a volume on each family, over the multipath that the maker's disks get on a node.
//!
//! The disks are the kernel target's under the maker's names. So vendor, product and WWID are the array's, and the settings that multipath has built in for it are in force;
//! what the array's own firmware does with a command is not shown.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::array_logins;
use crate::kit::array::{self, HostSetUp, PLAIN_CHECKER, Rig};
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, patiently};
use crate::kit::lio_array::LioArray;
use crate::kit::paths;
use crate::kit::topology::Link;
use crate::kit::writer::{self, Writer};

pub const CASES: &[Case] = &[
    Case {
        name: "array_ontap",
        deadline: Duration::from_secs(360),
        run: ontap,
    },
    Case {
        name: "array_unity",
        deadline: Duration::from_secs(360),
        run: unity,
    },
    Case {
        name: "array_vnx",
        deadline: Duration::from_secs(600),
        run: vnx,
    },
];

const SIZE: i64 = 128 << 20;
const LARGER: i64 = 192 << 20;
/// Blocks after which the writer starts over.
const ROUND: u64 = 64;
pub(super) const SOON: Duration = Duration::from_secs(90);
/// As `sanpath host-setup` writes it.
const CHECKS: &str = "12 chk";

/// How a family's disks are on a node.
pub(super) struct Disks {
    pub vendor: &'static str,
    pub product: &'static str,
    pub wwid: &'static str,
    /// Of the map's features.
    pub features: &'static str,
    /// Of the map's groups, the best first.
    pub priorities: &'static [u64],
    pub hwhandler: &'static str,
    pub failback: &'static str,
    /// Of the volume at first, and once it has grown.
    pub sizes: [i64; 2],
}

/// As most families have them: the better way and the other are groups of their own, by what each says of itself.
const USUAL: Disks = Disks {
    vendor: "DGC",
    product: "VRAID",
    wwid: "36006016",
    features: "queue_if_no_path",
    priorities: &[50, 10],
    hwhandler: "1 alua",
    // Of multipath's own entry for the family; its default is to go back by hand only.
    failback: "immediate",
    sizes: [SIZE, LARGER],
};

/// One interface of the SVM is lost, and with it one path. Nodes and array prove themselves to each other.
fn ontap(lab: &mut Lab) -> Result<()> {
    let set_up = HostSetUp::apply(lab, "")?;
    let credentials = array_logins::mounted(lab)?;
    let rig = array::ontap(lab, &credentials)?;
    array_logins::are_proven(lab, &rig, &credentials)?;
    let disks = Disks {
        vendor: "NETAPP",
        product: "LUN C-Mode",
        wwid: "3600a0980",
        // NETAPP's entry alone says so.
        features: "pg_init_retries 50",
        ..USUAL
    };
    life(lab, &rig, &disks, |volume, writer| {
        one_is_lost(lab, volume, writer, |lost| match lost {
            true => paths::cut(Link(1)),
            false => paths::restore(Link(1)),
        })
    })?;
    array::is_empty_ontap(&rig.server.array)?;
    rig.stop(lab)?;
    set_up.undo()
}

/// One processor is lost: its target ends its sessions and takes no login.
fn unity(lab: &mut Lab) -> Result<()> {
    let set_up = HostSetUp::apply(lab, PLAIN_CHECKER)?;
    let rig = array::unity(lab)?;
    life(lab, &rig, &USUAL, |volume, writer| {
        first_port_is_lost(lab, &rig.disks, volume, writer)
    })?;
    array::is_empty_unity(&rig.server.array)?;
    rig.stop(lab)?;
    set_up.undo()
}

/// As for Unity, whose disks are those of its elder.
fn vnx(lab: &mut Lab) -> Result<()> {
    let set_up = HostSetUp::apply(lab, PLAIN_CHECKER)?;
    let rig = array::vnx(lab)?;
    life(lab, &rig, &USUAL, |volume, writer| {
        first_port_is_lost(lab, &rig.disks, volume, writer)
    })?;
    array::is_empty_vnx(&rig.server)?;
    rig.stop(lab)?;
    set_up.undo()
}

/// Created, written, in trouble, grown, cut, restored, and gone without a trace.
pub(super) fn life<S>(
    lab: &Lab,
    rig: &Rig<S>,
    disks: &Disks,
    trouble: impl Fn(&Volume, &Writer) -> Result<()>,
) -> Result<()> {
    let [size, larger] = disks.sizes;
    let mut orchestrator = rig.stack.orchestrator()?;
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("data", size, Access::Ext4)
    })?;
    orchestrator.bring_up(&mut volume)?;
    both_ways(lab, &volume)?;
    are_the_makers(lab, &volume, disks)?;
    doctor_knows_them(lab, rig, disks)?;
    let file = volume.target.join("written");
    let writer = Writer::start(&file, ROUND)?;
    writer.wait_for_more(4, SOON)?;
    trouble(&volume, &writer)?;
    both_ways(lab, &volume)?;
    patiently("ControllerExpandVolume", || {
        orchestrator.expand(&mut volume, larger)
    })?;
    let grown = patiently("NodeExpandVolume", || orchestrator.expand_on_node(&volume))?;
    ensure!(grown == larger, "it has {grown} bytes");
    let pause = writer.wait_for_more(4, SOON)?.longest_pause;
    let blocks = writer.finish()?;
    let sums = writer::verify(&file, blocks, ROUND)?;
    ensure!(sums.written == sums.read, "{sums:?}");
    lab.story(format!(
        "{blocks} blocks without an error, the longest pause {} ms, checksum {:016x} written and read",
        pause.as_millis(),
        sums.read
    ));
    restored(lab, &mut orchestrator, &volume, (larger, blocks))?;
    orchestrator.bring_down(&volume)
}

/// And back.
fn one_is_lost(
    lab: &Lab,
    volume: &Volume,
    writer: &Writer,
    lose: impl Fn(bool) -> Result<()>,
) -> Result<()> {
    let lost = the_other_serves(lab, volume, writer, &lose);
    lost.and(lose(false))
}

fn first_port_is_lost(lab: &Lab, disks: &LioArray, volume: &Volume, writer: &Writer) -> Result<()> {
    let first = &disks.ports()[0];
    one_is_lost(lab, volume, writer, |lost| first.set_enabled(!lost))
}

fn the_other_serves(
    lab: &Lab,
    volume: &Volume,
    writer: &Writer,
    lose: impl Fn(bool) -> Result<()>,
) -> Result<()> {
    let start = Instant::now();
    lose(true)?;
    wait_for_paths(lab, volume, 1)?;
    writer.wait_for_more(4, SOON)?;
    lab.story(format!(
        "the other path alone served after {} ms",
        start.elapsed().as_millis()
    ));
    Ok(())
}

/// A snapshot has what was written, and so has what is made of it, once the source goes on.
fn restored(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    source: &Volume,
    (size, blocks): (i64, u64),
) -> Result<()> {
    let snapshot = orchestrator.cut("cut", source)?;
    // On the disk, so that a copy of the disk as it is now would have it.
    let later = fs::File::create(source.target.join("later"))?;
    later.sync_all()?;
    let origin = Origin::Snapshot(&snapshot);
    let mut copy = patiently("CreateVolume", || {
        orchestrator.copy("copy", size, Access::Ext4, origin)
    })?;
    orchestrator.bring_up(&mut copy)?;
    let is_blank = copy.publish_context.get("blank");
    ensure!(
        is_blank.is_some_and(|it| it == "false"),
        "a copy is not blank"
    );
    ensure!(copy.wwid() != source.wwid(), "both are {}", copy.wwid());
    let sums = writer::verify(&copy.target.join("written"), blocks, ROUND)?;
    ensure!(
        !copy.target.join("later").exists(),
        "what came after the cut is in the copy"
    );
    lab.story(format!(
        "restored from the snapshot: checksum {:016x}",
        sums.read
    ));
    orchestrator.bring_down(&copy)?;
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(&snapshot))
}

/// Both paths serve.
pub(super) fn both_ways(lab: &Lab, volume: &Volume) -> Result<()> {
    wait_for_paths(lab, volume, 2)
}

fn wait_for_paths(lab: &Lab, volume: &Volume, wanted: usize) -> Result<()> {
    lab.wait_for(&format!("{wanted} paths that serve"), SOON, || {
        let map = map_of(lab, volume)?;
        let serve = |path: &&Value| path["dm_st"] == "active" && path["chk_st"] == "ready";
        let serving = paths_of(&map).iter().filter(serve).count();
        ensure!(serving == wanted, "{serving} serve: {map}");
        Ok(Some(()))
    })
}

/// A disk is the best way to the kernel until it has asked it (`alua_initialize` of `scsi_dh_alua.c`, in the background), and multipathd takes the kernel's word (its
/// prioritizer `sysfs`). So a fresh map may have all paths in one group, and is mended at multipathd's next look.
fn wait_for_groups(lab: &Lab, volume: &Volume, disks: &Disks) -> Result<()> {
    lab.wait_for("the groups of the maker's disks", SOON, || {
        let groups = groups_of(&map_of(lab, volume)?);
        let priorities: Vec<Value> = groups.iter().map(|it| it["pri"].clone()).collect();
        let told = priorities == disks.priorities;
        ensure!(told, "the groups have {priorities:?}");
        Ok(Some(()))
    })
}

/// What multipathd says of the volume's map.
fn map_of(lab: &Lab, volume: &Volume) -> Result<Value> {
    let told = lab.execute(&["multipathd", "show", "maps", "json"])?;
    let told: Value = serde_json::from_str(&told)?;
    let maps = told["maps"].as_array().into_iter().flatten();
    let ours = maps.into_iter().find(|map| map["uuid"] == volume.wwid());
    ours.cloned()
        .with_context(|| format!("no map of {}", volume.wwid()))
}

fn groups_of(map: &Value) -> Vec<Value> {
    map["path_groups"].as_array().cloned().unwrap_or_default()
}

fn paths_of(map: &Value) -> Vec<Value> {
    let groups = groups_of(map).into_iter();
    groups
        .flat_map(|group| group["paths"].as_array().cloned().unwrap_or_default())
        .collect()
}

/// `sanpath doctor` finds a section for the maker's disks, and that their I/O waits as `sanpath host-setup` says.
fn doctor_knows_them<S>(lab: &Lab, rig: &Rig<S>, disks: &Disks) -> Result<()> {
    let config = rig.stack.config().display().to_string();
    let argv = [
        SANPATH, "doctor", "node", "--config", &config, "--output", "json",
    ];
    let told: Value = serde_json::from_str(&lab.run(&argv)?.stdout)?;
    for (check, said) in [
        ("multipath-device", "it has a section"),
        ("no-path-retry", "12 checks"),
    ] {
        let found = format!("{}: {said}", disks.vendor);
        let mut findings = told["findings"].as_array().into_iter().flatten();
        let is_it =
            |it: &Value| it["check"] == check && it["grade"] == "good" && it["found"] == found;
        ensure!(findings.any(is_it), "{check}: {told}");
    }
    Ok(())
}

/// What the node's kernel and multipathd see is what they would see of the maker's array, and they treat it so.
fn are_the_makers(lab: &Lab, volume: &Volume, disks: &Disks) -> Result<()> {
    wait_for_groups(lab, volume, disks)?;
    lab.story(lab.execute(&["multipath", "-ll"])?.trim_end());
    ensure!(
        volume.wwid().starts_with(disks.wwid),
        "the WWID is {}",
        volume.wwid()
    );
    let map = map_of(lab, volume)?;
    let paths = paths_of(&map);
    ensure!(paths.len() == 2, "{} paths", paths.len());
    for path in &paths {
        let name = path["dev"].as_str().context("a path has a name")?;
        let said = |of: &str| -> Result<String> {
            let attribute = Path::new("/sys/block").join(name).join("device").join(of);
            Ok(fs::read_to_string(attribute)?.trim().to_owned())
        };
        let seen = (said("vendor")?, said("model")?, said("wwid")?);
        let naa = format!("naa.{}", &volume.wwid()[1..]);
        let expected = (disks.vendor.to_owned(), disks.product.to_owned(), naa);
        ensure!(seen == expected, "{name} is {seen:?}");
        ensure!(path["checker"] == "tur", "{path}");
    }
    let text = |of: &str| map[of].as_str().unwrap_or_default().trim().to_owned();
    ensure!(text("vend") == disks.vendor, "{map}");
    ensure!(text("failback") == disks.failback, "{map}");
    ensure!(text("features").contains(disks.features), "{map}");
    ensure!(text("hwhandler") == disks.hwhandler, "{map}");
    // Of ours, which takes its endless waiting from NETAPP's.
    ensure!(text("queueing") == CHECKS, "{map}");
    Ok(())
}
