//! CHAP on the real kernel, and logins that fail: fault cases A 4, A 5, A 6, A 11 and G 79.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sanpath::fabric::{Chap, ChapUser};
use tonic::Code;

use super::attach::{Rig, TARGET};
use super::san_chap::put;
use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::daemons::log_of;
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, Link, SAN_NAMESPACE};
use crate::kit::writer::Writer;

pub const CASES: &[Case] = &[Case {
    name: "chap_wrong_and_right",
    deadline: Duration::from_secs(400),
    run: wrong_and_right,
}];

pub const LONG: &[Case] = &[
    Case {
        name: "chap_secret_changes",
        deadline: Duration::from_secs(600),
        run: secret_changes,
    },
    Case {
        name: "login_fails_at_one_portal",
        deadline: Duration::from_secs(600),
        run: login_fails_at_one_portal,
    },
];

const SIZE: i64 = 64 << 20;
/// Every secret of these cases has this in it, and nothing else has.
const MARK: &str = "hunter2";
pub(super) const FIRST: &str = "hunter2-number-1";
pub(super) const SECOND: &str = "hunter2-number-2";
const OF_THE_SAN: &str = "hunter2-the-other";
/// Longer than two rounds of the node's path keeper and the time after which a session is given up, on an emulated machine.
const HEALED: Duration = Duration::from_secs(150);

/// A stack whose partition has its logins proven with what is in [`credentials`], to a SAN that asks for the first secret.
fn start(lab: &mut Lab, node_log: &'static str) -> Result<Stack> {
    let plan = Plan {
        node_log,
        // A record that a refused login left stays for the administrator's hand in between.
        session_idle: "600s",
        ..demanding(lab)?
    };
    Stack::start(lab, plan)
}

/// What that takes.
pub(super) fn demanding(lab: &Lab) -> Result<Plan> {
    let folder = credentials(lab);
    fs::create_dir_all(&folder)?;
    put(&of_the_san(lab), FIRST)?;
    Ok(Plan {
        settings: vec![
            "chapuser: nodes".to_owned(),
            format!("credentials: {}", folder.display()),
        ],
        san_arguments: vec![
            "--credentials".to_owned(),
            of_the_san(lab).display().to_string(),
        ],
        ..Plan::default()
    })
}

/// What the SAN asks for.
fn of_the_san(lab: &Lab) -> PathBuf {
    lab.work_folder().join("of-the-san")
}

fn credentials(lab: &Lab) -> PathBuf {
    lab.work_folder().join("credentials")
}

/// What the orchestrator would mount.
pub(super) fn mount_secret(lab: &Lab, secret: &str) -> Result<()> {
    let folder = credentials(lab);
    for (name, value) in [
        ("password", secret),
        ("username_in", "san"),
        ("password_in", OF_THE_SAN),
    ] {
        fs::write(folder.join(format!("node.session.auth.{name}")), value)?;
    }
    Ok(())
}

/// The kernel's target, and this node's place in it.
struct Acl {
    target: PathBuf,
    group: PathBuf,
    auth: PathBuf,
}

impl Acl {
    fn of(lab: &Lab, iqn: &str, group: &str) -> Result<Acl> {
        let target = Path::new("/sys/kernel/config/target/iscsi").join(iqn);
        let group = target.join(group);
        let auth = group.join("acls").join(lab.initiator()?).join("auth");
        Ok(Acl {
            target,
            group,
            auth,
        })
    }

    /// Logins must be proven with this secret.
    fn is_demanded(&self, secret: &str) -> Result<bool> {
        let read = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
        let asked = read(self.group.join("attrib/authentication"))? == "1";
        Ok(asked && read(self.auth.join("password"))? == secret)
    }

    /// From now on logins at a target that was made by hand must be proven.
    fn demand(&self, secret: &str) -> Result<()> {
        fs::write(self.auth.join("userid"), "nodes")?;
        fs::write(self.auth.join("password"), secret)?;
        fs::write(self.auth.join("userid_mutual"), "san")?;
        fs::write(self.auth.join("password_mutual"), OF_THE_SAN)?;
        fs::write(self.group.join("attrib/authentication"), "1")?;
        Ok(())
    }

    /// The logins that were refused.
    fn refused(&self) -> Result<u64> {
        let statistics = self.target.join("fabric_statistics/iscsi_login_stats");
        let mut sum = 0;
        for name in ["authorize_fails", "authenticate_fails"] {
            sum += fs::read_to_string(statistics.join(name))?
                .trim()
                .parse::<u64>()?;
        }
        Ok(sum)
    }
}

/// A volume that the SAN shows to this node, and to a proven login only.
fn guarded(lab: &Lab, orchestrator: &mut Orchestrator) -> Result<(Volume, Acl)> {
    let mut volume = patiently("CreateVolume", || {
        orchestrator.create("guarded", SIZE, Access::Ext4)
    })?;
    patiently("ControllerPublishVolume", || {
        orchestrator.attach(&mut volume)
    })?;
    let iqn = super::faults_strangers::target_of(&volume)?;
    let acl = Acl::of(lab, &iqn, "tpgt_1")?;
    ensure!(acl.is_demanded(FIRST)?, "nothing has to be proven");
    Ok((volume, acl))
}

/// Looks at the arguments of all processes, over and over.
struct Spy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, BTreeSet<String>)>,
}

impl Spy {
    fn start() -> Spy {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut iscsiadm) = (0, BTreeSet::new());
            while !told.load(Ordering::Relaxed) {
                rounds += 1;
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let text = String::from_utf8_lossy(&arguments).replace('\0', " ");
                    if text.contains("iscsiadm") || text.contains(MARK) {
                        iscsiadm.insert(text);
                    }
                }
            }
            (rounds, iscsiadm)
        });
        Spy { stop, thread }
    }

    /// No secret was seen. The calls that were, so that it is known that it looked.
    fn end(self, lab: &Lab) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, seen) = self.thread.join().ok().context("the spy panicked")?;
        let logins = seen.iter().filter(|text| text.contains("--login")).count();
        lab.story(format!(
            "{rounds} looks at all arguments: {} different calls of iscsiadm, {logins} of them logins",
            seen.len()
        ));
        ensure!(logins > 0, "the spy saw no login: {seen:?}");
        let told: Vec<&String> = seen.iter().filter(|text| text.contains(MARK)).collect();
        ensure!(told.is_empty(), "secrets in arguments: {told:?}");
        Ok(())
    }
}

/// The node records of a target: their files.
fn records(iqn: &str) -> Result<Vec<PathBuf>> {
    let folder = ["/etc/iscsi/nodes", "/var/lib/iscsi/nodes"]
        .map(|database| Path::new(database).join(iqn))
        .into_iter()
        .find(|folder| folder.is_dir())
        .context("no node records")?;
    let portals = fs::read_dir(folder)?.flatten();
    Ok(portals
        .map(|portal| portal.path().join("default"))
        .collect())
}

fn check_records(iqn: &str, secret: &str) -> Result<()> {
    let files = records(iqn)?;
    ensure!(files.len() == 2, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file)?;
        let line = format!("node.session.auth.password = {secret}");
        ensure!(
            text.lines().any(|it| it == line),
            "{} has not the secret",
            file.display()
        );
        ensure!(text.contains("node.session.auth.authmethod = CHAP\n"));
        let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{} has mode {mode:o}", file.display());
    }
    Ok(())
}

/// A secret that is refused everywhere is told at once and leaves nothing; the right one serves, both ways; no secret in any log or argument.
fn wrong_and_right(lab: &mut Lab) -> Result<()> {
    let stack = start(lab, "trace")?;
    let mut orchestrator = stack.orchestrator()?;
    let (mut volume, acl) = guarded(lab, &mut orchestrator)?;
    let iqn = super::faults_strangers::target_of(&volume)?;
    let spy = Spy::start();
    // Of no use, and told before anything is touched.
    fs::write(
        credentials(lab).join("node.session.auth.password"),
        "hunter2",
    )?;
    let short = orchestrator.stage(&volume).err();
    let short = short.context("staged with a short secret")?;
    lab.story(short.message());
    ensure!(short.code() == Code::FailedPrecondition, "{short:?}");
    ensure!(records(&iqn).is_err(), "a record was made");

    mount_secret(lab, SECOND)?;
    let start = Instant::now();
    let refused = orchestrator.stage(&volume).err();
    let refused = refused.context("staged with a wrong secret")?;
    lab.story(format!(
        "told after {} ms, {} logins refused: {}",
        start.elapsed().as_millis(),
        acl.refused()?,
        refused.message()
    ));
    ensure!(refused.code() == Code::PermissionDenied, "{refused:?}");
    ensure!(refused.message().contains("authentication failed"));
    ensure!(start.elapsed() < Duration::from_secs(60));
    ensure!((1..=4).contains(&acl.refused()?), "2 for each portal");
    let left = fs::read_dir("/sys/class/iscsi_session")?.count();
    ensure!(left == 0, "{left} sessions left");

    // What an administrator put there once is put right, too.
    for link in topology::paths() {
        let portal = link.san_address(1);
        let node = ["iscsiadm", "-m", "node", "-T", &iqn, "-p", &portal];
        let name = "node.session.auth.username";
        let old = ["-o", "update", "-n", name, "-v", "old"];
        lab.execute(&[&node[..], &old].concat())?;
    }
    mount_secret(lab, FIRST)?;
    orchestrator.bring_up(&mut volume)?;
    spy.end(lab)?;
    check_records(&iqn, FIRST)?;
    for session in fs::read_dir("/sys/class/iscsi_session")? {
        let session = session?.path();
        let name = |attribute| fs::read_to_string(session.join(attribute));
        ensure!(name("username")?.trim() == "nodes");
        ensure!(name("username_in")?.trim() == "san", "not mutual");
    }
    let lock = "/run/lock/iscsi/lock.write";
    ensure!(!Path::new(lock).exists(), "open-iscsi's lock was left");
    orchestrator.bring_down(&volume)?;
    super::faults_sessions::end(lab, &stack)?;
    let log = fs::read_to_string(log_of("node"))?;
    ensure!(log.contains("TRACE") || log.contains("DEBUG"), "no log");
    ensure!(
        log.contains("default"),
        "the records' changes are not in it"
    );
    ensure!(!log.contains(MARK), "a secret is in the node's log");
    Ok(())
}

/// The secret of both sides changes under a writer. Sessions go on; each that drops afterwards is made anew with the new one.
fn secret_changes(lab: &mut Lab) -> Result<()> {
    let stack = start(lab, "info,sanpath::host=debug")?;
    let mut orchestrator = stack.orchestrator()?;
    let (mut volume, acl) = guarded(lab, &mut orchestrator)?;
    let iqn = super::faults_strangers::target_of(&volume)?;
    mount_secret(lab, FIRST)?;
    orchestrator.bring_up(&mut volume)?;
    let before = sessions()?;
    let writer = Writer::start(&volume.target.join("data"), 256)?;
    writer.wait_for_more(2, HEALED)?;

    put(&of_the_san(lab), SECOND)?;
    lab.wait_for("the new secret to be asked for", HEALED, || {
        Ok(acl.is_demanded(SECOND)?.then_some(()))
    })?;
    mount_secret(lab, SECOND)?;
    lab.wait_for("the new secret in the records", HEALED, || {
        Ok(check_records(&iqn, SECOND).ok())
    })?;
    ensure!(sessions()? == before, "sessions were ended for it");
    for link in topology::paths() {
        let refused = acl.refused()?;
        paths::cut(link)?;
        writer.wait_for_more(2, HEALED)?;
        paths::restore(link)?;
        let start = Instant::now();
        lab.wait_for("both sessions with the new secret", HEALED, || {
            Ok((secret_at(link)? == SECOND && paths_ready(lab)? == 2).then_some(()))
        })?;
        lab.story(format!(
            "{}: back after {} s; the old secret was refused {} times",
            link.name(),
            start.elapsed().as_secs(),
            acl.refused()? - refused
        ));
        ensure!(acl.refused()? > refused, "iscsid did not keep the old one");
    }
    let now = sessions()?;
    ensure!(now.is_disjoint(&before) && now.len() == 2, "{now:?}");
    let blocks = writer.finish().context("an error reached the writer")?;
    lab.story(format!("{blocks} blocks written and no error"));
    orchestrator.bring_down(&volume)?;
    super::faults_sessions::end(lab, &stack)
}

fn sessions() -> Result<BTreeSet<String>> {
    let names = fs::read_dir("/sys/class/iscsi_session")?.flatten();
    Ok(names
        .map(|name| name.file_name().to_string_lossy().into_owned())
        .collect())
}

/// The secret that the session over a path was logged in with; nothing when it is not logged in.
fn secret_at(link: Link) -> Result<String> {
    for name in sessions()? {
        let session = Path::new("/sys/class/iscsi_session").join(&name);
        let connection = name.replace("session", "connection") + ":0";
        let connection = Path::new("/sys/class/iscsi_connection").join(connection);
        let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        let at = text(connection.join("persistent_address"));
        if at.trim() == link.san_address(1) && text(session.join("state")).trim() == "LOGGED_IN" {
            return Ok(text(session.join("password")).trim().to_owned());
        }
    }
    Ok(String::new())
}

/// The paths that serve, by multipathd's word.
fn paths_ready(lab: &Lab) -> Result<usize> {
    let shown = lab.execute(&["multipathd", "show", "paths", "raw", "format", "%t %T"])?;
    let serves = |line: &&str| line.trim() == "active ready";
    Ok(shown.lines().filter(serves).count())
}

/// One portal refuses the secret, then one never answers the login: the other serves, the reason is told, and nobody else waits.
fn login_fails_at_one_portal(lab: &mut Lab) -> Result<()> {
    let shared = &*lab;
    let mut rig = Rig::new(shared)?;
    let chap = Chap {
        initiator: user("nodes", FIRST)?,
        target: Some(user("san", OF_THE_SAN)?),
    };
    rig.prove(Arc::new(move |_| Ok(Some(chap.clone()))));
    let volume = rig.volume(7)?;
    Acl::of(shared, TARGET, "tpgt_1")?.demand(FIRST)?;
    let second = SecondGroup::make(shared, volume.lun)?;
    second.acl.demand(SECOND)?;
    let (attached, _) = rig.ensure("one portal refuses", &volume)?;
    ensure!(attached.map.members.len() == 1 && attached.missing.len() == 1);
    let (path, why) = &attached.missing[0];
    ensure!(path.portal.to_string() == second.portal, "{path:?}");
    ensure!(why.contains("authentication failed"), "{why}");
    let refused = second.acl.refused()?;
    ensure!((1..=2).contains(&refused), "{refused} logins refused");
    second.acl.demand(FIRST)?;
    let (whole, _) = rig.ensure("it takes the secret now", &volume)?;
    ensure!(whole.map.members.len() == 2, "{:?}", whole.missing);
    rig.detach("detach", &volume)?;

    let mute = TcpListener::bind("127.0.0.1:3261")?;
    let mut half = rig.volume(8)?;
    half.export.offers[1].portal = mute.local_addr()?.to_string().parse()?;
    let (slow, quick) = std::thread::scope(|scope| -> Result<_> {
        let slow = scope.spawn(|| rig.ensure("one portal is mute", &half));
        // The mute portal has taken the connection of the login, not only that of the probe.
        let taken = (mute.accept()?, mute.accept()?);
        let start = Instant::now();
        let quick = rig.ensure("beside it", &volume)?;
        let took = start.elapsed();
        let slow = slow.join().ok().context("the thread panicked")??;
        drop(taken);
        Ok((slow, (quick, took)))
    })?;
    let ((attached, _), ((beside, _), took)) = (slow, quick);
    ensure!(attached.map.members.len() == 1, "{:?}", attached.missing);
    ensure!(beside.map.members.len() == 2, "{:?}", beside.missing);
    shared.story(format!(
        "missing {:?}; the neighbour took {} ms meanwhile",
        attached.missing,
        took.as_millis()
    ));
    // iscsid is told to give up after one login timeout (10 s).
    let again = rig.ensure("again", &half)?.0;
    let why = &again.missing.first().context("the mute portal serves")?.1;
    ensure!(why.contains("iscsiadm could not log in"), "{why}");
    drop(mute);
    rig.detach("detach", &half)?;
    rig.detach("detach", &volume)?;
    second.remove(shared)?;
    rig.unmap(&half)?;
    rig.unmap(&volume)?;
    rig.remove()
}

fn user(name: &str, secret: &str) -> Result<ChapUser> {
    match ChapUser::new(name.to_owned(), secret.to_owned().into()) {
        Ok(user) => Ok(user),
        Err((error, _)) => bail!("{name} {error}"),
    }
}

/// A second portal group of the hand-made target, with an access list of its own: it takes the second portal from the first one.
struct SecondGroup {
    acl: Acl,
    portal: String,
    lun: u16,
}

impl SecondGroup {
    fn make(lab: &Lab, lun: u16) -> Result<SecondGroup> {
        let portal = format!("{}:3260", Link(2).san_address(1));
        let acl = Acl::of(lab, TARGET, "tpgt_2")?;
        let first = acl.target.join("tpgt_1");
        fs::remove_dir(first.join("np").join(&portal))?;
        let folder = acl.auth.parent().context("no access list")?;
        fs::create_dir_all(folder)?;
        let (name, disk) = linked_disk(&first.join(format!("lun/lun_{lun}")))?;
        let place = acl.group.join(format!("lun/lun_{lun}"));
        fs::create_dir_all(&place)?;
        std::os::unix::fs::symlink(disk, place.join(&name))?;
        let mapped = folder.join(format!("lun_{lun}"));
        fs::create_dir_all(&mapped)?;
        std::os::unix::fs::symlink(&place, mapped.join(&name))?;
        move_portal(lab, &acl.group, &portal)?;
        fs::write(acl.group.join("enable"), "1")?;
        Ok(SecondGroup { acl, portal, lun })
    }

    /// The portal goes back to the first group.
    fn remove(self, lab: &Lab) -> Result<()> {
        for session in sessions()? {
            let sid = session.trim_start_matches("session").to_owned();
            lab.execute(&["iscsiadm", "-m", "session", "-r", &sid, "-u"])?;
        }
        let group = &self.acl.group;
        fs::write(group.join("enable"), "0")?;
        let folder = self.acl.auth.parent().context("no access list")?;
        for place in [
            folder.join(format!("lun_{}", self.lun)),
            group.join(format!("lun/lun_{}", self.lun)),
        ] {
            let (name, _) = linked_disk(&place)?;
            fs::remove_file(place.join(name))?;
            fs::remove_dir(place)?;
        }
        fs::remove_dir(folder)?;
        fs::remove_dir(group.join("np").join(&self.portal))?;
        fs::remove_dir(group)?;
        move_portal(lab, &self.acl.target.join("tpgt_1"), &self.portal)
    }
}

/// The one link in a folder of the kernel's target, and where it leads.
fn linked_disk(folder: &Path) -> Result<(String, PathBuf)> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            let name = entry.file_name().to_string_lossy().into_owned();
            return Ok((name, fs::canonicalize(entry.path())?));
        }
    }
    bail!("no link in {}", folder.display())
}

/// A portal belongs to the network of whoever makes its folder.
fn move_portal(lab: &Lab, group: &Path, portal: &str) -> Result<()> {
    let folder = group.join("np").join(portal).display().to_string();
    let network = format!("--net=/run/netns/{SAN_NAMESPACE}");
    lab.execute(&["nsenter", &network, "mkdir", "-p", &folder])?;
    Ok(())
}
