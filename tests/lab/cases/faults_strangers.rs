//! Group A of the fault cases, other programs and people: their records and their sessions.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::iscsi::list_sessions;

use super::attach::{Rig, TARGET};
use super::faults_sessions::{OTHER, exported};
use crate::kit::case::{Case, Lab};
use crate::kit::csi::Volume;
use crate::kit::lio::Target;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology;

/// What every run proves.
pub const CASES: &[Case] = &[
    Case {
        name: "automatic_record_is_repaired",
        deadline: Duration::from_secs(300),
        run: automatic_record,
    },
    Case {
        name: "administrators_sessions_are_left_alone",
        deadline: Duration::from_secs(300),
        run: administrators_sessions,
    },
];

/// What only the long run proves.
pub const LONG: &[Case] = &[Case {
    name: "five_hundred_foreign_records",
    deadline: Duration::from_secs(300),
    run: foreign_records,
}];

/// The target of this node, as its volumes are published.
pub(super) fn target_of(volume: &Volume) -> Result<String> {
    let offers = volume.publish_context.get("offers").context("no offers")?;
    let mut parts = offers.split(',').next().unwrap_or_default().split('=');
    let iqn = parts.find(|part| part.starts_with("iqn."));
    Ok(iqn
        .with_context(|| format!("no target in {offers}"))?
        .to_owned())
}

/// Records that would log in at boot and scan everything lose these two settings and keep the others; only the wanted LUN appears.
fn automatic_record(lab: &mut Lab) -> Result<()> {
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let (mut wanted, other) = (
        exported(&mut orchestrator, "wanted")?,
        exported(&mut orchestrator, "other")?,
    );
    let iqn = target_of(&wanted)?;
    let settings = [
        ("node.startup", "automatic", "manual"),
        ("node.session.scan", "auto", "manual"),
        // None of our business, so it stays.
        ("node.session.iscsi.FirstBurstLength", "131072", "131072"),
    ];
    for link in topology::paths() {
        let portal = link.san_address(1);
        let node = ["iscsiadm", "-m", "node", "-T", &iqn, "-p", &portal];
        lab.execute(&[&node[..], &["-o", "new"]].concat())?;
        for (name, value, _) in settings {
            lab.execute(&[&node[..], &["-o", "update", "-n", name, "-v", value]].concat())?;
        }
    }
    orchestrator.bring_up(&mut wanted)?;
    lab.wait_for("a disk over each path", Duration::from_secs(60), || {
        let disks = lab.execute(&["sh", "-c", "ls /sys/block | grep -c ^sd"])?;
        ensure!(
            disks.trim() == "2",
            "{disks} disks for one volume on two paths"
        );
        Ok(Some(()))
    })?;
    for link in topology::paths() {
        let portal = link.san_address(1);
        let record = lab.execute(&["iscsiadm", "-m", "node", "-T", &iqn, "-p", &portal])?;
        for (name, _, after) in settings {
            let line = format!("{name} = {after}");
            ensure!(record.lines().any(|it| it == line), "not {line}: {record}");
        }
    }
    lab.story("no login at boot, no scan of its own, and the administrator's burst length kept");
    orchestrator.leave_node(&wanted)?;
    // Records that we did not make are not ours to end.
    lab.execute(&["iscsiadm", "-m", "node", "-T", &iqn, "-u"])?;
    lab.execute(&["iscsiadm", "-m", "node", "-T", &iqn, "-o", "delete"])?;
    orchestrator.bring_down(&wanted)?;
    orchestrator.bring_down(&other)?;
    stack.stop(lab)
}

/// Sessions of an administrator, over an interface of its own to our target and to another target: not used, not counted, not ended.
fn administrators_sessions(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(22)?;
    let other = Target::serve_beside(lab, OTHER, 79)?;
    let disk = other.add_disk("0123456789abcdef0123456789abcdef", 16 << 20)?;
    other.map(1, &disk)?;
    let interface = ["iscsiadm", "-m", "iface", "-I", "administrator", "-o"];
    lab.execute(&[&interface[..], &["new"]].concat())?;
    // With its group's tag, as a discovery notes it: open-iscsi itself drops a record without one when it gets one with it.
    let portal = format!("{}:3260,1", topology::Link(1).san_address(1));
    let logins = [(TARGET, "administrator"), (OTHER, "default")];
    for (iqn, bound) in logins {
        let node = node_of(iqn, &portal, bound);
        lab.execute(&[&node[..], &["-o", "new"]].concat())?;
        let scan = ["-o", "update", "-n", "node.session.scan", "-v", "manual"];
        if iqn == TARGET {
            lab.execute(&[&node[..], &scan].concat())?;
        }
        lab.execute(&[&node[..], &["--login"]].concat())?;
    }
    let theirs = list_sessions(&rig.host)?;
    ensure!(theirs.len() == 2, "{theirs:?}");
    let (attached, _) = rig.ensure("beside an administrator's sessions", &volume)?;
    ensure!(attached.map.members.len() == 2 && attached.missing.is_empty());
    let ours = list_sessions(&rig.host)?;
    ensure!(ours.len() == 4, "theirs were taken for ours: {ours:?}");
    rig.detach("detach", &volume)?;
    let reaped = rig.engine.reap_idle(Duration::ZERO)?;
    lab.story(format!("{reaped:?}"));
    ensure!(
        reaped.ended.len() == 2 && reaped.failed.is_empty(),
        "{reaped:?}"
    );
    ensure!(
        list_sessions(&rig.host)? == theirs,
        "an administrator's session was touched"
    );
    for (iqn, bound) in logins {
        let node = node_of(iqn, &portal, bound);
        lab.execute(&[&node[..], &["--logout"]].concat())?;
        lab.execute(&[&node[..], &["-o", "delete"]].concat())?;
    }
    lab.execute(&[&interface[..], &["delete"]].concat())?;
    rig.unmap(&volume)?;
    other.unmap(1, &disk)?;
    other.remove(&[disk])?;
    rig.remove()
}

fn node_of<'a>(iqn: &'a str, portal: &'a str, interface: &'a str) -> [&'a str; 9] {
    let node = ["iscsiadm", "-m", "node", "-T", iqn, "-p", portal];
    let [a, b, c, d, e, f, g] = node;
    [a, b, c, d, e, f, g, "-I", interface]
}

/// 500 records of other targets in open-iscsi's database: a login is not slower for them, and they stay as they are.
fn foreign_records(lab: &mut Lab) -> Result<()> {
    const COUNT: usize = 500;
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(29)?;
    let fresh = |what: &str| -> Result<(Duration, u64)> {
        let start = Instant::now();
        let (_, processes) = rig.ensure(what, &volume)?;
        let took = start.elapsed();
        rig.detach("detach", &volume)?;
        let reaped = rig.engine.reap_idle(Duration::ZERO)?;
        ensure!(reaped.ended.len() == 2, "{reaped:?}");
        Ok((took, processes))
    };
    let alone = fresh("alone")?;
    let portal = topology::Link(1).san_address(1);
    let name = |number: usize| format!("iqn.2020-01.lab.foreign:{number}");
    let node = ["iscsiadm", "-m", "node", "-T", &name(0), "-p", &portal];
    lab.execute(&[&node[..], &["-o", "new"]].concat())?;
    let database = ["/var/lib/iscsi/nodes", "/etc/iscsi/nodes"]
        .map(Path::new)
        .into_iter()
        .find(|folder| folder.join(name(0)).exists())
        .context("no database")?;
    let known = texts_below(&database.join(name(0)))?;
    for number in 1..COUNT {
        for (file, text) in &known {
            let copy = database.join(name(number)).join(file);
            fs::create_dir_all(copy.parent().context("no folder")?)?;
            fs::write(copy, text.replace(&name(0), &name(number)))?;
        }
    }
    let among = fresh("among 500 records")?;
    lab.story(format!(
        "a fresh attach took {} ms, and {} ms among {COUNT} foreign records",
        alone.0.as_millis(),
        among.0.as_millis()
    ));
    ensure!(among.1 == alone.1, "{} processes more", among.1 - alone.1);
    ensure!(among.0 < 2 * alone.0 + Duration::from_secs(5), "too slow");
    for number in 0..COUNT {
        let now = texts_below(&database.join(name(number)))?;
        let same = now.iter().zip(&known).all(|(now, before)| {
            now.0 == before.0 && now.1 == before.1.replace(&name(0), &name(number))
        });
        ensure!(now.len() == known.len() && same, "{} changed", name(number));
        fs::remove_dir_all(database.join(name(number)))?;
    }
    rig.unmap(&volume)?;
    rig.remove()
}

/// Every file below a folder, by its path from there.
fn texts_below(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path)?;
                found.push((path.strip_prefix(folder)?.to_owned(), text));
            }
        }
    }
    Ok(found)
}
