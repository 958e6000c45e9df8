//! Turns a freshly booted guest into the place where cases run: modules, mounts, links, udev, iscsid, multipathd and the
//! pool's file system. Called once by `agent` before it says that the guest is ready.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

use super::command;
use super::services::Service;
use super::topology::{self, Link, SAN_NAMESPACE};
use super::wire::{Identity, Role};

/// The host's description of this guest.
pub const IDENTITY: &str = "/share/guest.json";

/// Where the pool's file system is mounted: XFS with reflink on the guest's own disk.
pub const POOL: &str = "/pool";

const SAN_MODULES: &[&str] = &["iscsi_target_mod", "target_core_file", "target_core_iblock"];
const NODE_MODULES: &[&str] = &[
    "iscsi_tcp",
    "dm-multipath",
    "dm-round-robin",
    "dm-service-time",
    "sd_mod",
    "sg",
    "scsi_dh_alua",
];

/// What a node with a disk keeps over a reboot, as every host does: the records and settings of its tools, the kubelet's folders, our ledger.
pub const KEPT: &[&str] = &[
    "/etc/iscsi",
    "/etc/multipath",
    "/var/lib/iscsi",
    "/var/lib/kubelet",
    "/var/lib/sanpath",
];

/// Short retries, so that cases see both sides of every deadline soon; otherwise Debian's defaults.
pub const MULTIPATH_CONF: &str = "\
defaults {
    find_multipaths strict
    user_friendly_names no
    polling_interval 2
    max_polling_interval 4
    no_path_retry 30
}
";

/// The same with other values of two of them.
pub fn multipath_conf(find_multipaths: &str, friendly_names: &str) -> String {
    MULTIPATH_CONF
        .replace("strict", find_multipaths)
        .replace("names no", &format!("names {friendly_names}"))
}

/// Sets up this guest.
pub fn run() -> Result<()> {
    step("system folders", mount_system_folders())?;
    let identity: Identity =
        serde_json::from_slice(&fs::read(IDENTITY)?).context("reading the guest's identity")?;
    let (role, name) = (identity.role, &identity.name);
    nix::unistd::sethostname(name)?;
    step("modules", load_modules(role))?;
    step(
        "configfs",
        mount_quietly("configfs", "/sys/kernel/config", "configfs"),
    )?;
    step(
        "udev",
        execute(&["/usr/lib/systemd/systemd-udevd", "--daemon"]),
    )?;
    step("links", set_up_links(&identity))?;
    if role == Role::Both {
        step("the SAN's network", set_up_san_namespace())?;
    }
    step("carrier", wait_for_links())?;
    step("pool", mount_pool())?;
    if role == Role::Node && find_disk("pool")?.is_some() {
        step("kept folders", keep_folders())?;
    }
    if role != Role::San {
        step("iscsid and multipathd", start_initiator(&identity))?;
    }
    Ok(())
}

/// One step, told on the console: the last one told is where a guest that never got ready stands.
fn step<T>(name: &str, done: Result<T>) -> Result<T> {
    println!(
        "lab: set up {name}: {}",
        if done.is_ok() { "done" } else { "failed" }
    );
    done.with_context(|| format!("setting up {name}"))
}

fn execute(argv: &[&str]) -> Result<String> {
    command::run(argv, Duration::from_secs(60))?.success(&argv.join(" "))
}

fn mount_system_folders() -> Result<()> {
    mount_quietly("tmpfs", "/run", "tmpfs")?;
    mount_quietly("tmpfs", "/tmp", "tmpfs")?;
    fs::create_dir_all("/run/lock")?;
    for (kind, target) in [
        ("devpts", "/dev/pts"),
        ("tmpfs", "/dev/shm"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        fs::create_dir_all(target)?;
        mount_quietly(kind, target, kind)?;
    }
    // Bind mounts of a node plugin travel to its pods only from a shared tree, which is what systemd makes of every root.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        None::<&str>,
    )?;
    Ok(())
}

fn mount_quietly(source: &str, target: &str, kind: &str) -> Result<()> {
    mount(
        Some(source),
        target,
        Some(kind),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mounting {kind} at {target}"))
}

fn load_modules(role: Role) -> Result<()> {
    // The target looks for this folder as it loads.
    fs::create_dir_all("/etc/target")?;
    let mut modules = vec!["modprobe", "-a", "configfs"];
    if role != Role::Node {
        modules.extend(SAN_MODULES);
    }
    if role != Role::San {
        modules.extend(NODE_MODULES);
    }
    if role == Role::Both {
        modules.push("veth");
    }
    execute(&modules)?;
    Ok(())
}

/// Network cards of a fleet guest, found by hardware address.
fn set_up_links(identity: &Identity) -> Result<()> {
    let mut batch = "link set lo up\n".to_owned();
    for link in &identity.links {
        let card = find_card(&link.mac)?;
        batch.push_str(&format!(
            "link set {card} name {0}\naddr add {1}/24 dev {0}\nlink set {0} up\n",
            link.name, link.address
        ));
    }
    run_batch(&["ip", "-batch", "-"], &batch)
}

fn find_card(mac: &str) -> Result<String> {
    for card in fs::read_dir("/sys/class/net")? {
        let card = card?;
        let address = fs::read_to_string(card.path().join("address")).unwrap_or_default();
        if address.trim() == mac {
            return Ok(card.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("no network card has the address {mac}")
}

/// One veth pair per link into a namespace that plays the SAN.
fn set_up_san_namespace() -> Result<()> {
    execute(&["ip", "netns", "add", SAN_NAMESPACE])?;
    let (mut node, mut san) = (String::new(), "link set lo up\n".to_owned());
    for link in topology::links() {
        let (near, far) = (link.name(), link.san_name());
        node.push_str(&format!(
            "link add {near} type veth peer name {far} netns {SAN_NAMESPACE}\n"
        ));
        node.push_str(&format!(
            "addr add {}/24 dev {near}\nlink set {near} up\n",
            link.node_address(1)
        ));
        san.push_str(&format!(
            "addr add {}/24 dev {far}\nlink set {far} up\n",
            link.san_address(1)
        ));
    }
    run_batch(&["ip", "-batch", "-"], &node)?;
    run_batch(&["ip", "-n", SAN_NAMESPACE, "-batch", "-"], &san)
}

/// The kernel reports a carrier some time after it is there.
fn wait_for_links() -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while let Some(link) = topology::links().find(|link| !is_up(*link)) {
        if Instant::now() > until {
            bail!("{} has no carrier", link.name());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn is_up(link: Link) -> bool {
    let state = fs::read_to_string(format!("/sys/class/net/{}/operstate", link.name()));
    state.is_ok_and(|state| state.trim() == "up")
}

fn run_batch(argv: &[&str], batch: &str) -> Result<()> {
    if !batch.is_empty() {
        command::run_with_input(argv, batch, Duration::from_secs(60))?.success(&argv.join(" "))?;
    }
    Ok(())
}

/// The guest's disk: formatted only when it is blank, so that it survives a reboot of the guest with what is on it. A guest
/// without a disk has an empty folder instead.
fn mount_pool() -> Result<()> {
    fs::create_dir_all(POOL)?;
    let Some(disk) = find_disk("pool")? else {
        return Ok(());
    };
    let disk = disk.to_string_lossy();
    let blank = !command::run(&["blkid", "-p", &disk], Duration::from_secs(30))?
        .stdout
        .contains("TYPE=");
    if blank {
        execute(&["mkfs.xfs", "-q", "-K", "-m", "reflink=1", &disk])?;
    }
    mount(
        Some(&*disk),
        POOL,
        Some("xfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("mounting the pool")
}

/// Puts the folders of [`KEPT`] onto the guest's disk. At its first boot they hold what the image has there.
fn keep_folders() -> Result<()> {
    for folder in KEPT {
        let kept = format!("{POOL}/host{folder}");
        fs::create_dir_all(folder)?;
        if !Path::new(&kept).exists() {
            fs::create_dir_all(&kept)?;
            execute(&["cp", "-a", &format!("{folder}/."), &kept])?;
        }
        mount(
            Some(kept.as_str()),
            *folder,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("mounting {kept} at {folder}"))?;
    }
    Ok(())
}

fn find_disk(serial: &str) -> Result<Option<PathBuf>> {
    for disk in fs::read_dir("/sys/block")? {
        let disk = disk?;
        if fs::read_to_string(disk.path().join("serial")).is_ok_and(|found| found.trim() == serial)
        {
            return Ok(Some(Path::new("/dev").join(disk.file_name())));
        }
    }
    Ok(None)
}

/// iscsid and multipathd; ready when both answer.
fn start_initiator(identity: &Identity) -> Result<()> {
    fs::write("/etc/multipath.conf", MULTIPATH_CONF)?;
    let initiator = format!(
        "InitiatorName={}
",
        initiator_name(&identity.name)
    );
    fs::write("/etc/iscsi/initiatorname.iscsi", initiator)?;
    fs::create_dir_all("/run/lock/iscsi")?;
    for service in Service::ALL {
        service.supervise();
    }
    Service::ALL
        .into_iter()
        .try_for_each(|service| service.wait_until(true))
}

/// The initiator's name of the guest called `guest`.
pub fn initiator_name(guest: &str) -> String {
    format!("iqn.2026-01.dev.sanpath.lab:{guest}")
}
