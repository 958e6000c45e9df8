//! `sanpath san` has the nodes prove themselves, and proves itself to them: through the whole stack, over two IPv6 portals.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tonic::Code;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Volume};
use crate::kit::daemons::log_of;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, Link, SAN_NAMESPACE};
use crate::kit::writer::Writer;

pub const CASES: &[Case] = &[Case {
    name: "san_chap_mutual",
    deadline: Duration::from_secs(400),
    run: chap_mutual,
}];

const SIZE: i64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);
/// Every secret of this case has this in it, and nothing else has.
const MARK: &str = "hunter2";
const FIRST: &str = "hunter2-number-1";
const SECOND: &str = "hunter2-number-2";
const OF_THE_SAN: &str = "hunter2-the-other";

/// A wrong secret is refused everywhere; the right one serves, both ways, and goes on serving while it is changed; the new one is asked for afterwards.
fn chap_mutual(lab: &mut Lab) -> Result<()> {
    give_ipv6(lab, "add")?;
    let (of_san, of_node) = (folder(lab, "of-the-san"), folder(lab, "of-the-node"));
    put(&of_san, FIRST)?;
    put(&of_node, SECOND)?;
    let stack = start(lab, &of_san, &of_node)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("proven", SIZE, Access::Ext4)?;
    let auth = auth_of(lab, &volume)?;
    let refused = orchestrator.stage(&volume).err();
    let refused = refused.context("staged with a wrong secret")?;
    lab.story(refused.message());
    ensure!(refused.code() == Code::PermissionDenied, "{refused:?}");

    put(&of_node, FIRST)?;
    orchestrator.bring_up(&mut volume)?;
    let before = wait_for_sessions(lab)?;
    let writer = Writer::start(&volume.target.join("data"), 256)?;
    writer.wait_for_more(2, SOON)?;
    // From now on this node has secrets of its own.
    put(&of_san.join(lab.initiator()?), SECOND)?;
    lab.wait_for("the new secret in the kernel", SOON, || {
        let now = fs::read_to_string(auth.join("password"))?;
        Ok((now.trim() == SECOND).then_some(()))
    })?;
    put(&of_node, SECOND)?;
    writer.wait_for_more(4, SOON)?;
    ensure!(check_sessions()? == before, "sessions were ended for it");
    let blocks = writer.finish().context("an error reached the writer")?;
    lab.story(format!("{blocks} blocks written while the secret changed"));
    orchestrator.leave_node(&volume)?;
    lab.wait_for("the sessions to be logged out", SOON, || {
        let left = fs::read_dir("/sys/class/iscsi_session")?.count();
        Ok((left == 0).then_some(()))
    })?;
    orchestrator.bring_up(&mut volume)?;
    let after = wait_for_sessions(lab)?;
    ensure!(after.is_disjoint(&before), "no new login");
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)?;
    let log = fs::read_to_string(log_of("san"))?;
    ensure!(log.contains("new CHAP credentials are asked for"), "{log}");
    ensure!(!log.contains(MARK), "a secret is in the SAN's log");
    give_ipv6(lab, "del")
}

/// The second may still be on its way when a stage is done.
fn wait_for_sessions(lab: &Lab) -> Result<BTreeSet<String>> {
    lab.wait_for("proven sessions", SOON, || check_sessions().map(Some))
}

fn start(lab: &mut Lab, of_san: &Path, of_node: &Path) -> Result<Stack> {
    let plan = Plan {
        portals: &["[fd00:101::1]:3260", "[fd00:102::1]:3260"],
        // YAML would take the bracket for a list's.
        ncpaths: Some("'[fd00:101::1]:3260,[fd00:102::1]:3260'"),
        settings: vec![format!("credentials: {}", of_node.display())],
        san_arguments: vec![
            "--credentials".to_owned(),
            of_san.display().to_string(),
            "--log".to_owned(),
            "debug".to_owned(),
        ],
        ..Plan::default()
    };
    Stack::start(lab, plan)
}

fn folder(lab: &Lab, name: &str) -> PathBuf {
    lab.work_folder().join(name)
}

/// What an operator puts there, open to nobody else.
pub(super) fn put(folder: &Path, secret: &str) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    for (name, value) in [
        ("username", "nodes"),
        ("password", secret),
        ("username_in", "san"),
        ("password_in", OF_THE_SAN),
    ] {
        let scratch = folder.join("scratch");
        let file = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&scratch)?;
        std::io::Write::write_all(&mut &file, value.as_bytes())?;
        fs::rename(scratch, folder.join(format!("node.session.auth.{name}")))?;
    }
    Ok(())
}

/// The node's entry in the access list of its target.
fn auth_of(lab: &Lab, volume: &Volume) -> Result<PathBuf> {
    let iqn = super::faults_strangers::target_of(volume)?;
    let group = Path::new("/sys/kernel/config/target/iscsi")
        .join(iqn)
        .join("tpgt_1");
    let asked = fs::read_to_string(group.join("attrib/authentication"))?;
    ensure!(asked.trim() == "1", "nothing has to be proven");
    Ok(group.join("acls").join(lab.initiator()?).join("auth"))
}

/// One session on each path, over IPv6, each proven both ways.
fn check_sessions() -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for session in fs::read_dir("/sys/class/iscsi_session")? {
        let session = session?;
        let name = session.file_name().to_string_lossy().into_owned();
        let read = |attribute| fs::read_to_string(session.path().join(attribute));
        ensure!(read("username")?.trim() == "nodes");
        ensure!(read("username_in")?.trim() == "san", "not mutual");
        let connection = name.replace("session", "connection") + ":0";
        let connection = Path::new("/sys/class/iscsi_connection").join(connection);
        let address = fs::read_to_string(connection.join("persistent_address"))?;
        ensure!(address.contains("fd00:10"), "a session to {address}");
        names.insert(name);
    }
    ensure!(names.len() == topology::paths().count(), "{names:?}");
    Ok(names)
}

/// Gives both ends of both paths an IPv6 address, or takes it from them.
fn give_ipv6(lab: &Lab, verb: &str) -> Result<()> {
    for link in [Link(1), Link(2)] {
        let (near, far) = (link.name(), link.san_name());
        let address = |end: u8| format!("fd00:10{}::{end}/64", link.0);
        let more: &[&str] = if verb == "add" { &["nodad"] } else { &[] };
        let (node, san) = (address(2), address(1));
        lab.execute(&[&["ip", "addr", verb, &node, "dev", &near][..], more].concat())?;
        let in_san = ["ip", "-n", SAN_NAMESPACE, "addr", verb, &san, "dev", &far];
        lab.execute(&[&in_san[..], more].concat())?;
    }
    Ok(())
}
