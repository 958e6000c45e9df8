//! Two portals, two sessions, one map with two paths, one of them cut and back, and nothing left: by hand, without any of our own
//! code. It guards the kit, and shows how a case is written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kit::case::{Case, Lab};
use crate::kit::paths;
use crate::kit::topology::{self, Link, SAN_NAMESPACE};

pub const CASES: &[Case] = &[Case {
    name: "lio_two_paths",
    deadline: Duration::from_secs(180),
    run: lio_two_paths,
}];

const TARGET: &str = "iqn.2026-01.dev.sanpath.lab:by-hand";
const SERIAL: &str = "0123456789abcdef0123456789abcdef";
const LUN: u32 = 5;
const SIZE: u64 = 256 << 20;
const SOON: Duration = Duration::from_secs(40);

fn lio_two_paths(lab: &mut Lab) -> Result<()> {
    let san = San::serve(lab)?;
    let wwid = format!("36001405{}", &SERIAL[..25]);
    log_in(lab)?;
    lab.execute(&["multipath", "-a", &wwid])?;
    let disks = scan(lab)?;
    wait_for_paths(lab, &wwid, 2)?;
    lab.story(format!("map {wwid} with two paths: {}", disks.join(", ")));

    let map = format!("/dev/mapper/{wwid}");
    write_through(&map, b"both paths")?;
    paths::cut(Link(1))?;
    let cut = Instant::now();
    write_through(&map, b"path two only")?;
    lab.story(format!(
        "a write over the cut finished after {} ms",
        cut.elapsed().as_millis()
    ));
    wait_for_paths(lab, &wwid, 1)?;
    paths::restore(Link(1))?;
    wait_for_paths(lab, &wwid, 2)?;

    lab.wait_for("the map to go", SOON, || {
        let answer = lab.execute(&["multipathd", "del", "map", &wwid])?;
        Ok((!Path::new(&map).exists()).then_some(answer))
    })?;
    lab.execute(&["multipath", "-w", &wwid])?;
    lab.execute(&["iscsiadm", "-m", "node", "-T", TARGET, "-u"])?;
    lab.execute(&["iscsiadm", "-m", "node", "-T", TARGET, "-o", "delete"])?;
    san.remove()
}

/// A LUN of the kernel's target with a portal on every path, and where its parts are.
struct San {
    target: PathBuf,
    group: PathBuf,
    backstore: PathBuf,
}

impl San {
    fn serve(lab: &Lab) -> Result<San> {
        let core = Path::new("/sys/kernel/config/target/core/fileio_77");
        let target = Path::new("/sys/kernel/config/target/iscsi").join(TARGET);
        let san = San {
            group: target.join("tpgt_1"),
            backstore: core.join("by-hand"),
            target,
        };
        san.make_backstore(&lab.pool_folder().join("by-hand.img"))?;
        fs::create_dir_all(&san.group)?;
        let lun = san.group.join(format!("lun/lun_{LUN}"));
        fs::create_dir_all(&lun)?;
        symlink(&san.backstore, lun.join("by-hand"))?;
        let acl = san.group.join("acls").join(lab.initiator()?);
        let mapped = acl.join(format!("lun_{LUN}"));
        fs::create_dir_all(&mapped)?;
        symlink(&lun, mapped.join("by-hand"))?;
        for link in topology::paths() {
            // A portal belongs to the network of whoever makes its folder.
            let portal = san.group.join(format!("np/{}:3260", link.san_address(1)));
            let network = format!("--net=/run/netns/{SAN_NAMESPACE}");
            lab.execute(&[
                "nsenter",
                &network,
                "mkdir",
                "-p",
                &portal.to_string_lossy(),
            ])?;
        }
        write(&san.group.join("attrib/authentication"), "0")?;
        write(&san.group.join("enable"), "1")?;
        Ok(san)
    }

    fn make_backstore(&self, file: &Path) -> Result<()> {
        fs::File::create(file)?.set_len(SIZE)?;
        fs::create_dir_all(&self.backstore)?;
        write(
            &self.backstore.join("control"),
            &format!("fd_dev_name={},fd_dev_size={SIZE}", file.display()),
        )?;
        // Before the LUN is linked, or its paths have no WWID.
        write(&self.backstore.join("wwn/vpd_unit_serial"), SERIAL)?;
        write(&self.backstore.join("enable"), "1")
    }

    fn remove(self) -> Result<()> {
        write(&self.group.join("enable"), "0")?;
        for acl in folders_in(&self.group.join("acls"))? {
            let mapped = acl.join(format!("lun_{LUN}"));
            fs::remove_file(mapped.join("by-hand"))?;
            fs::remove_dir(mapped)?;
            fs::remove_dir(acl)?;
        }
        for portal in folders_in(&self.group.join("np"))? {
            fs::remove_dir(portal)?;
        }
        let lun = self.group.join(format!("lun/lun_{LUN}"));
        fs::remove_file(lun.join("by-hand"))?;
        fs::remove_dir(lun)?;
        fs::remove_dir(&self.group)?;
        fs::remove_dir(&self.target)?;
        fs::remove_dir(&self.backstore)?;
        fs::remove_dir(
            self.backstore
                .parent()
                .context("a backstore lies in its adapter")?,
        )?;
        Ok(())
    }
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(entries.collect::<std::io::Result<Vec<_>>>()?)
}

/// Kernel attributes take one write each, and must exist.
fn write(attribute: &Path, value: &str) -> Result<()> {
    let written = fs::File::options()
        .write(true)
        .open(attribute)
        .and_then(|mut file| file.write_all(value.as_bytes()));
    written.with_context(|| format!("writing {value} to {}", attribute.display()))
}

fn log_in(lab: &Lab) -> Result<()> {
    for link in topology::paths() {
        let portal = link.san_address(1);
        let node = ["iscsiadm", "-m", "node", "-T", TARGET, "-p", &portal];
        lab.execute(&[&node[..], &["-o", "new"]].concat())?;
        lab.execute(
            &[
                &node[..],
                &["-o", "update", "-n", "node.session.scan", "-v", "manual"],
            ]
            .concat(),
        )?;
        lab.execute(&[&node[..], &["-l"]].concat())?;
    }
    Ok(())
}

/// Looks for exactly our LUN behind every session; the disks found, one per path.
fn scan(lab: &Lab) -> Result<Vec<String>> {
    let mut disks = Vec::new();
    for session in folders_in(Path::new("/sys/class/iscsi_session"))? {
        // …/hostN/sessionM/iscsi_session/sessionM
        let real = fs::canonicalize(session.join("device"))?;
        let host = real
            .parent()
            .and_then(Path::file_name)
            .context("a session has a host")?
            .to_string_lossy()
            .into_owned();
        let number = host.trim_start_matches("host").to_owned();
        write(
            &Path::new("/sys/class/scsi_host").join(&host).join("scan"),
            &format!("0 0 {LUN}"),
        )?;
        let block = PathBuf::from(format!(
            "/sys/class/scsi_device/{number}:0:0:{LUN}/device/block"
        ));
        let disk = lab.wait_for("the scanned disk", SOON, || {
            let names = folders_in(&block)?;
            Ok(names
                .first()
                .and_then(|disk| disk.file_name())
                .map(|name| name.to_string_lossy().into_owned()))
        })?;
        disks.push(disk);
    }
    ensure!(disks.len() == 2, "{} disks instead of two", disks.len());
    Ok(disks)
}

/// Until multipathd says that so many paths of the map are active.
fn wait_for_paths(lab: &Lab, wwid: &str, wanted: usize) -> Result<()> {
    lab.wait_for(&format!("{wanted} active paths"), SOON, || {
        let maps: Value =
            serde_json::from_str(&lab.execute(&["multipathd", "show", "maps", "json"])?)?;
        let maps = maps["maps"].as_array().cloned().unwrap_or_default();
        let ours = maps
            .iter()
            .find(|map| map["uuid"] == wwid)
            .with_context(|| format!("no map {wwid} in {maps:?}"))?;
        let groups = ours["path_groups"].as_array().cloned().unwrap_or_default();
        let paths = groups
            .iter()
            .flat_map(|group| group["paths"].as_array().cloned().unwrap_or_default());
        let active = paths
            .filter(|path| path["dm_st"] == "active" && path["chk_st"] == "ready")
            .count();
        Ok((active == wanted).then_some(()))
    })
}

/// Writes to the device and waits until it is there.
fn write_through(device: &str, text: &[u8]) -> Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .open(device)
        .with_context(|| format!("opening {device}"))?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(())
}
