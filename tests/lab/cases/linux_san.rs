//! The Linux SAN against a real kernel, without controller and node: what it builds in configfs is what an initiator finds, a kill
//! changes nothing, an unexport waits for what is in flight, and a pool that is not mounted is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::linux_san_wire as pb;
use sanpath::linux_san_wire::linux_san_client::LinuxSanClient;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::Channel;

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::certificates;
use crate::kit::daemons::{self, Daemon};
use crate::kit::guest_setup;
use crate::kit::san_calls;
use crate::kit::stack::Stack;
use crate::kit::topology::{self, Link, SAN_NAMESPACE};

pub const CASES: &[Case] = &[
    Case {
        name: "linux_san_serves",
        deadline: Duration::from_secs(180),
        run: serves,
    },
    Case {
        name: "linux_san_drains",
        deadline: Duration::from_secs(180),
        run: drains,
    },
    Case {
        name: "linux_san_ipv6",
        deadline: Duration::from_secs(90),
        run: ipv6,
    },
    Case {
        name: "linux_san_without_pool",
        deadline: Duration::from_secs(90),
        run: without_pool,
    },
];

const SOON: Duration = Duration::from_secs(40);
const SIZE: u64 = 64 << 20;
const CONFIGFS: &str = "/sys/kernel/config/target";

fn serves(lab: &mut Lab) -> Result<()> {
    let mut san = San::start(lab)?;
    let volume = san.create("pvc-1")?;
    let export = san.export(lab, &volume)?;
    ensure!(export.blank, "a new volume is blank");
    ensure!(export.offers.len() == 2, "one offer for each path");
    check_backstore(&volume)?;
    let disk = Disk::attach(lab, &export)?;
    disk.check_identity(&volume)?;
    lab.story(format!("{} is {}", disk.name, volume.wwid));

    disk.write(lab, b'a')?;
    let allocated = san.find(&volume)?.allocated_bytes;
    ensure!(allocated > 0, "a write takes space");
    lab.execute(&["blkdiscard", &disk.path()])?;
    let allocated = san.find(&volume)?.allocated_bytes;
    ensure!(allocated == 0, "{allocated} bytes left after a discard");
    disk.write(lab, b'b')?;

    let before = tree()?;
    lab.daemons.kill("san")?;
    disk.write(lab, b'c')?;
    let mut san = San::start(lab)?;
    ensure!(tree()? == before, "a restart changed the kernel's target");
    let again = san.export(lab, &volume)?;
    ensure!(again == export, "{again:?} is not {export:?}");
    disk.write(lab, b'd')?;
    let refused = san.export_to(&volume, "node-2", "iqn.2026-01.dev.sanpath.lab:other");
    ensure!(code_of(refused)? == Code::FailedPrecondition, "given twice");

    check_read_only(lab, &mut san)?;
    disk.remove()?;
    san.unexport(&volume)?;
    let target = Path::new(CONFIGFS)
        .join("iscsi")
        .join(&export.offers[0].target_iqn);
    ensure!(target.exists(), "the target went under a live session");
    log_out(lab, &export.offers[0])?;
    wait_until_no_target(lab)?;
    san.delete(&volume)?;
    san.delete(&volume)?;
    ensure!(!image(lab, &volume).try_exists()?, "the image is left");
    lab.daemons.stop("san")
}

/// A second volume of the same target that the node may only read.
fn check_read_only(lab: &Lab, san: &mut San) -> Result<()> {
    let volume = san.create("pvc-2")?;
    let initiator = lab.initiator()?;
    let mut request = San::request(&volume, "node-1", &initiator);
    request.read_only = true;
    let export = san.call_export(request)?;
    let disk = Disk::scan(lab, &export.offers[0])?;
    // While the kernel asks the disk for its write protection anew, it says for a moment that there is none.
    lab.wait_for("the disk to be read-only", SOON, || {
        let ro = fs::read_to_string(format!("/sys/block/{}/ro", disk.name))?;
        Ok((ro.trim() == "1").then_some(()))
    })?;
    disk.remove()?;
    san.unexport(&volume)?;
    san.delete(&volume)
}

fn ipv6(lab: &mut Lab) -> Result<()> {
    let (near, far) = (Link(1).name(), Link(1).san_name());
    let (node, target) = ("fd00:101::2/64", "fd00:101::1/64");
    lab.execute(&["ip", "addr", "add", node, "dev", &near, "nodad"])?;
    let in_san = ["ip", "-n", SAN_NAMESPACE];
    lab.execute(&[&in_san[..], &["addr", "add", target, "dev", &far, "nodad"]].concat())?;
    let start = Start {
        portals: vec!["[fd00:101::1]:3261".to_owned()],
        ..Start::usual(lab)
    };
    let mut san = San::start_as(lab, &start)?;
    let volume = san.create("pvc-1")?;
    let export = san.export(lab, &volume)?;
    let disk = Disk::attach(lab, &export)?;
    disk.check_identity(&volume)?;
    disk.write(lab, b'6')?;
    disk.remove()?;
    log_out(lab, &export.offers[0])?;
    san.unexport(&volume)?;
    wait_until_no_target(lab)?;
    san.delete(&volume)?;
    lab.execute(&["ip", "addr", "del", node, "dev", &near])?;
    lab.execute(&[&in_san[..], &["addr", "del", target, "dev", &far]].concat())?;
    lab.daemons.stop("san")
}

fn drains(lab: &mut Lab) -> Result<()> {
    let mut san = San::start(lab)?;
    let volume = san.create("pvc-1")?;
    let export = san.export(lab, &volume)?;
    let disk = Disk::attach(lab, &export)?;
    let frozen = Frozen::pool(lab)?;
    let mut writer = disk.start_write(lab, b'z')?;
    lab.wait_for("the write to be in flight", SOON, || {
        let inflight = fs::read_to_string(format!("/sys/block/{}/inflight", disk.name))?;
        let writes = inflight.split_whitespace().nth(1) == Some("1");
        Ok(writes.then_some(()))
    })?;

    let unexport = san.begin_unexport(&volume);
    let other = "iqn.2026-01.dev.sanpath.lab:other";
    lab.wait_for("the export to another node to be refused", SOON, || {
        let refused = code_of(san.export_to(&volume, "node-2", other))?;
        Ok((refused == Code::Aborted).then_some(()))
    })?;
    // Long enough for a removal that does not wait to be over.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(!unexport.is_finished(), "answered with a write in flight");
    frozen.thaw()?;
    san.runtime.block_on(unexport)??;
    let landed = fs::read(image(lab, &volume))?;
    ensure!(
        landed.first() == Some(&b'z'),
        "the write landed after the answer"
    );
    lab.story("the unexport answered after the write had landed");
    // The node may or may not have been told of its write's end; it must not hang.
    lab.wait_for("the writer to end", SOON, || Ok(writer.try_wait()?))?;
    ensure!(disk.write(lab, b'y').is_err(), "a write after the unexport");
    let landed = fs::read(image(lab, &volume))?;
    ensure!(
        landed.first() == Some(&b'z'),
        "a write landed after the unexport"
    );

    let moved = san.export_to(&volume, "node-2", other)?;
    ensure!(!moved.blank, "a written volume is not blank");
    san.unexport(&volume)?;
    disk.remove()?;
    log_out(lab, &export.offers[0])?;
    san.delete(&volume)?;
    wait_until_no_target(lab)?;
    lab.daemons.stop("san")
}

fn without_pool(lab: &mut Lab) -> Result<()> {
    let mut san = San::start(lab)?;
    let volume = san.create("pvc-1")?;
    lab.daemons.stop("san")?;
    let (pool, away) = (lab.pool_folder(), lab.pool_folder().with_extension("away"));
    fs::rename(&pool, &away)?;
    fs::create_dir(&pool)?;
    ensure!(San::start(lab).is_err(), "served without its pool");
    // Its port is open before it has looked, so that the start may fail here before it has said why there.
    lab.wait_for("the SAN to say why", SOON, || {
        let log = fs::read_to_string(daemons::log_of("san"))?;
        Ok(log.contains("may not be mounted").then_some(()))
    })?;
    ensure!(has_ended(lab), "it goes on without its pool");
    ensure!(fs::read_dir(&pool)?.next().is_none(), "something was made");
    fs::remove_dir(&pool)?;
    fs::rename(&away, &pool)?;
    let mut san = San::start(lab)?;
    ensure!(san.find(&volume)? == volume, "the volume is another");
    san.delete(&volume)?;
    lab.daemons.stop("san")
}

/// Whether the SAN ends by itself. Its last word is in the log a moment before.
pub(super) fn has_ended(lab: &mut Lab) -> bool {
    let until = Instant::now() + SOON;
    while lab.daemons.is_running("san") && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    !lab.daemons.is_running("san")
}

pub(super) fn image(lab: &Lab, volume: &pb::Volume) -> PathBuf {
    let name = format!("{}.img", volume.key);
    lab.pool_folder().join("volumes").join(name)
}

/// The disk in the kernel, as the SAN made it: identity, write-through, discards.
fn check_backstore(volume: &pb::Volume) -> Result<()> {
    let tree = tree()?;
    let ours = |end: &str| {
        let found = tree
            .iter()
            .find(|(path, _)| path.contains(&volume.key) && path.ends_with(end));
        let (_, text) = found.with_context(|| format!("no {end} of {}", volume.key))?;
        Ok::<_, anyhow::Error>(text.clone())
    };
    let serial = ours("wwn/vpd_unit_serial")?;
    ensure!(
        serial.contains(&volume.wwid[8..]),
        "{serial} makes another WWID"
    );
    let info = ours("info")?;
    ensure!(info.contains("Mode: O_DSYNC"), "not write-through: {info}");
    for (name, value) in [("emulate_tpu", "1"), ("emulate_write_cache", "0")] {
        let found = ours(&format!("attrib/{name}"))?;
        ensure!(found == value, "{name} is {found}");
    }
    Ok(())
}

/// Every attribute and link that says how the target is set up, without counters.
pub(super) fn tree() -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for part in ["core", "iscsi"] {
        walk(&Path::new(CONFIGFS).join(part), &mut found)?;
    }
    Ok(found)
}

fn walk(folder: &Path, found: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = path.display().to_string();
        let counts = ["statistics", "info", "action"];
        if kind.is_symlink() {
            found.insert(name, fs::read_link(&path)?.display().to_string());
        } else if kind.is_dir() {
            found.insert(name.clone(), String::new());
            if !name.contains("statistics") {
                walk(&path, found)?;
            }
        } else if !counts.iter().any(|word| name.ends_with(word)) || name.contains("sanpath-") {
            // Some attributes can only be written.
            let text = fs::read_to_string(&path).unwrap_or_default();
            found.insert(name, text.trim().to_owned());
        }
    }
    Ok(())
}

/// The SAN's daemon and a client of it.
pub(super) struct San {
    pub(super) runtime: Runtime,
    pub(super) client: LinuxSanClient<Channel>,
}

/// What of the daemon a case wants different from the usual.
pub(super) struct Start {
    pub(super) portals: Vec<String>,
    pub(super) pool: PathBuf,
    pub(super) more: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

impl Start {
    pub(super) fn usual(lab: &Lab) -> Self {
        Start {
            portals: topology::paths().map(|path| path.san_address(1)).collect(),
            pool: lab.pool_folder(),
            more: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The daemon itself, with its own state and address.
    pub(super) fn daemon(&self, name: &str, state: &Path, address: &str) -> Daemon {
        let mut argv = vec![SANPATH.to_owned(), "san".to_owned()];
        let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        option("--pool", self.pool.display().to_string());
        option("--state-dir", state.display().to_string());
        option("--listen", address.to_owned());
        for portal in &self.portals {
            option("--portal", portal.clone());
        }
        argv.extend(self.more.iter().cloned());
        let daemon = Daemon::new(name, argv).in_network(SAN_NAMESPACE);
        let environment = self.environment.iter();
        environment.fold(daemon, |daemon, (key, value)| {
            daemon.with_environment(key, value)
        })
    }
}

impl San {
    pub(super) fn start(lab: &mut Lab) -> Result<Self> {
        let usual = Start::usual(lab);
        Self::start_as(lab, &usual)
    }

    pub(super) fn start_as(lab: &mut Lab, start: &Start) -> Result<Self> {
        let address = Stack::san_address();
        let state = lab.work_folder().join("san-state");
        let operator = lab.work_folder().join("tls");
        certificates::ensure_of_san(lab, &state)?;
        certificates::ensure_of_caller(lab, &state, "controller", &operator)?;
        lab.daemons.start(start.daemon("san", &state, &address))?;
        lab.daemons.wait_for_port("san", &address, SOON)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut client = runtime.block_on(san_calls::client(&address, &operator, SOON))?;
        // The port is open before the volumes are there again; the first answer says that they are.
        runtime.block_on(client.identify(pb::IdentifyRequest {}))?;
        Ok(San { runtime, client })
    }

    pub(super) fn create(&mut self, name: &str) -> Result<pb::Volume> {
        let request = pb::CreateVolumeRequest {
            name: name.to_owned(),
            size_bytes: SIZE,
            metadata: [("made-by".to_owned(), "lab".to_owned())].into(),
            source: None,
        };
        let made = self.runtime.block_on(self.client.create_volume(request))?;
        Ok(made.into_inner())
    }

    pub(super) fn find(&mut self, volume: &pb::Volume) -> Result<pb::Volume> {
        let by = Some(pb::find_volume_request::By::Key(volume.key.clone()));
        let request = pb::FindVolumeRequest { by };
        let found = self.runtime.block_on(self.client.find_volume(request))?;
        Ok(found.into_inner())
    }

    /// For this guest.
    pub(super) fn export(&mut self, lab: &Lab, volume: &pb::Volume) -> Result<pb::Export> {
        self.export_to(volume, "node-1", &lab.initiator()?)
    }

    pub(super) fn export_to(
        &mut self,
        volume: &pb::Volume,
        node: &str,
        initiator: &str,
    ) -> Result<pb::Export> {
        let request = Self::request(volume, node, initiator);
        self.call_export(request)
    }

    pub(super) fn request(
        volume: &pb::Volume,
        node: &str,
        initiator: &str,
    ) -> pb::ExportVolumeRequest {
        pb::ExportVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.clone(),
            node_name: node.to_owned(),
            initiator_iqn: initiator.to_owned(),
            read_only: false,
            shared: false,
            beside_readers: false,
        }
    }

    fn call_export(&mut self, request: pb::ExportVolumeRequest) -> Result<pb::Export> {
        let export = self.runtime.block_on(self.client.export_volume(request))?;
        Ok(export.into_inner())
    }

    pub(super) fn unexport(&mut self, volume: &pb::Volume) -> Result<()> {
        let unexport = self.begin_unexport(volume);
        self.runtime.block_on(unexport)?
    }

    pub(super) fn begin_unexport(
        &self,
        volume: &pb::Volume,
    ) -> tokio::task::JoinHandle<Result<()>> {
        let mut client = self.client.clone();
        let request = pb::UnexportVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.clone(),
            initiator_iqn: String::new(),
        };
        self.runtime.spawn(async move {
            // As the orchestrator does: ABORTED says that another call had the volume.
            loop {
                match client.unexport_volume(request.clone()).await {
                    Err(status) if status.code() == Code::Aborted => tokio::task::yield_now().await,
                    ended => return Ok(ended.map(drop)?),
                }
            }
        })
    }

    pub(super) fn delete(&mut self, volume: &pb::Volume) -> Result<()> {
        let request = pb::DeleteVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.clone(),
        };
        self.runtime.block_on(self.client.delete_volume(request))?;
        Ok(())
    }
}

pub(super) fn code_of<T>(refused: Result<T>) -> Result<Code> {
    let Err(error) = refused else {
        bail!("it was not refused");
    };
    let status = error.downcast::<tonic::Status>()?;
    Ok(status.code())
}

/// The volume as this guest sees it over one path, without multipath.
pub(super) struct Disk {
    pub(super) name: String,
}

impl Disk {
    pub(super) fn attach(lab: &Lab, export: &pb::Export) -> Result<Self> {
        log_in(lab, &export.offers[0])?;
        Self::scan(lab, &export.offers[0])
    }

    /// Looks for exactly this LUN behind the one session.
    fn scan(lab: &Lab, offer: &pb::Offer) -> Result<Self> {
        let session = fs::read_dir("/sys/class/iscsi_session")?.next();
        let session = fs::canonicalize(session.context("no session")??.path().join("device"))?;
        let host = session.parent().and_then(Path::file_name);
        let host = host.context("a session has a host")?.to_string_lossy();
        let scan = format!("/sys/class/scsi_host/{host}/scan");
        fs::write(scan, format!("0 0 {}", offer.lun))?;
        let number = host.trim_start_matches("host");
        let address = format!("{number}:0:0:{}", offer.lun);
        let block = format!("/sys/class/scsi_device/{address}/device/block");
        let name = lab.wait_for("the scanned disk", SOON, || {
            let disk = fs::read_dir(&block)?.next().transpose()?;
            Ok(disk.map(|disk| disk.file_name().to_string_lossy().into_owned()))
        })?;
        // The kernel shows a disk under its device first, then under /sys/block, then in /dev.
        let disk = Disk { name };
        let shown = [
            PathBuf::from(format!("/sys/block/{}/size", disk.name)),
            disk.path().into(),
        ];
        lab.wait_for("the disk to be shown everywhere", SOON, || {
            Ok(shown.iter().all(|path| path.exists()).then_some(()))
        })?;
        Ok(disk)
    }

    pub(super) fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    fn check_identity(&self, volume: &pb::Volume) -> Result<()> {
        let shown = fs::read_to_string(format!("/sys/block/{}/device/wwid", self.name))?;
        let expected = format!("naa.{}", &volume.wwid[1..]);
        ensure!(shown.trim() == expected, "{shown} instead of {expected}");
        let sectors = fs::read_to_string(format!("/sys/block/{}/size", self.name))?;
        ensure!(
            sectors.trim() == (SIZE / 512).to_string(),
            "{sectors} sectors"
        );
        Ok(())
    }

    /// A direct write of 4 KiB at the disk's start, begun and left to itself.
    pub(super) fn start_write(&self, lab: &Lab, letter: u8) -> Result<Child> {
        let block = lab.work_folder().join("block");
        fs::write(&block, [letter; 4096])?;
        let writer = Command::new("dd")
            .arg(format!("if={}", block.display()))
            .arg(format!("of={}", self.path()))
            .args(["bs=4096", "count=1", "oflag=direct", "status=none"])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(writer)
    }

    pub(super) fn write(&self, lab: &Lab, letter: u8) -> Result<()> {
        let mut writer = self.start_write(lab, letter)?;
        let status = lab.wait_for("the write to end", SOON, || Ok(writer.try_wait()?))?;
        ensure!(
            status.success(),
            "the write of {:?} failed",
            char::from(letter)
        );
        Ok(())
    }

    pub(super) fn remove(self) -> Result<()> {
        Ok(fs::write(
            format!("/sys/block/{}/device/delete", self.name),
            "1",
        )?)
    }
}

fn node_of(offer: &pb::Offer) -> [&str; 7] {
    let (target, portal) = (offer.target_iqn.as_str(), offer.portal.as_str());
    ["iscsiadm", "-m", "node", "-T", target, "-p", portal]
}

fn log_in(lab: &Lab, offer: &pb::Offer) -> Result<()> {
    let node = node_of(offer);
    lab.execute(&[&node[..], &["-o", "new"]].concat())?;
    let manual = ["-o", "update", "-n", "node.session.scan", "-v", "manual"];
    lab.execute(&[&node[..], &manual].concat())?;
    lab.execute(&[&node[..], &["-l"]].concat())?;
    Ok(())
}

pub(super) fn log_out(lab: &Lab, offer: &pb::Offer) -> Result<()> {
    let node = node_of(offer);
    lab.execute(&[&node[..], &["-u"]].concat())?;
    lab.execute(&[&node[..], &["-o", "delete"]].concat())?;
    Ok(())
}

pub(super) fn wait_until_no_target(lab: &Lab) -> Result<()> {
    lab.wait_for("the idle targets to go", SOON, || {
        let ours = tree()?.keys().any(|path| path.contains("dev.sanpath:"));
        Ok((!ours).then_some(()))
    })
}

/// The pool while nothing can be written to it; thawed when dropped, or every later case would hang.
struct Frozen;

impl Frozen {
    fn pool(lab: &Lab) -> Result<Self> {
        lab.execute(&["fsfreeze", "-f", guest_setup::POOL])?;
        Ok(Frozen)
    }

    fn thaw(self) -> Result<()> {
        let thawed = thaw();
        std::mem::forget(self);
        thawed
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = thaw();
    }
}

fn thaw() -> Result<()> {
    let thawed = Command::new("fsfreeze")
        .args(["-u", guest_setup::POOL])
        .status()?;
    ensure!(thawed.success(), "the pool could not be thawed");
    Ok(())
}
