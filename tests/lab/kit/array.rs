//! A simulated array in this guest: its management in the case's own process, its disks served by the kernel, and controller and node of ours on it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::case::{Lab, SANPATH};
use super::leftovers;
use super::lio_array::{Face, LioArray, Port};
use super::multipath_conf::Configured;
use super::stack::{Plan, Stack};
use super::topology;
use crate::simulators::http::{Array, Server};
use crate::simulators::ontap::{self, Ontap};
use crate::simulators::unity::{self, Unity, state};
use crate::simulators::vnx::{self, Navi};

/// Of performance, as the array's administrator has made it.
pub const POLICY: &str = "gold";
const UNITY_SERIAL: &str = "FNM00150600267";
const VNX_SERIAL: &str = "APM00153042305";

const DROP_IN: &str = "/etc/multipath/conf.d/sanpath-host.conf";
/// The kernel target has not the vendor page that multipath's checker for these arrays reads, so the plain one is forced.
pub const PLAIN_CHECKER: &str = "\
devices {
    device {
        vendor \"DGC\"
        product \".*\"
        path_checker tur
    }
}
";

/// All of it; `server` is the array's management.
pub struct Rig<S> {
    pub server: S,
    pub disks: Arc<LioArray>,
    pub stack: Stack,
}

impl<A: Array> Rig<Server<A>> {
    /// The array behind TLS on this machine's loopback, with `settings` of its partition beside those that every array has.
    fn start(
        lab: &mut Lab,
        (array, disks): (A, Arc<LioArray>),
        login: (&str, &str),
        settings: &[&str],
    ) -> Result<Self> {
        let server = Server::sealed(array, 1);
        let folder = lab.work_folder().join("array");
        fs::create_dir_all(&folder)?;
        let mut lines: Vec<String> = settings.iter().map(|&line| line.to_owned()).collect();
        lines.extend(server.settings(login, &folder));
        let plan = Plan {
            array: Some(lines),
            ..Plan::default()
        };
        Rig::over(lab, (server, disks), plan)
    }
}

impl<S> Rig<S> {
    /// Controller and node of ours on it.
    pub(super) fn over(
        lab: &mut Lab,
        (server, disks): (S, Arc<LioArray>),
        plan: Plan,
    ) -> Result<Self> {
        let stack = Stack::start(lab, plan)?;
        Ok(Rig {
            server,
            disks,
            stack,
        })
    }

    /// Stops the daemons and takes the array away; nothing is left in it.
    pub fn stop(self, lab: &mut Lab) -> Result<()> {
        // The session goes first, and a plugin that is stopped in between leaves the record to the next one.
        lab.wait_for("records to go", Duration::from_secs(90), || {
            let left = leftovers::records();
            ensure!(left.is_empty(), "{left:?} are left");
            Ok(Some(()))
        })?;
        self.stack.stop(lab)?;
        self.disks.remove()
    }
}

/// One address of an array on every path.
fn addresses() -> Vec<String> {
    topology::paths().map(|link| link.san_address(1)).collect()
}

/// An SVM of two nodes: one target, a LIF on each, of which the first node's is the better way. What its nodes prove their logins with is in `credentials`.
pub fn ontap(lab: &mut Lab, credentials: &Path) -> Result<Rig<Server<Ontap>>> {
    let addresses = addresses();
    let port = |(tag, address): (u16, &String)| Port {
        iqn: ontap::TARGET.to_owned(),
        tag,
        address: address.clone(),
        is_best: tag == 1,
    };
    let face = Face {
        vendor: "NETAPP",
        product: "LUN C-Mode",
        revision: "9151",
        ports: (1..).zip(&addresses).map(port).collect(),
    };
    let disks = Arc::new(LioArray::serve(lab, face)?);
    let array = Ontap::backed(disks.clone(), &addresses);
    let limit = json!({"max_throughput_iops": 100_000});
    array.state().put_policy(ontap::SVM, POLICY, &limit);
    let pool = format!("pools: {}", ontap::FLEXVOLS[0]);
    let svm = format!("svm: {}", ontap::SVM);
    let credentials = format!("credentials: {}", credentials.display());
    let settings = ["blockstoragemanager: ontap", &svm, &pool, &credentials];
    Rig::start(lab, (array, disks), ontap::ACCOUNTS[1], &settings)
}

/// Nothing is on the SVM any more, groups of initiators and their logins included.
pub fn is_empty_ontap(array: &Ontap) -> Result<()> {
    for collection in ["luns", "maps", "igroups", "credentials"] {
        let left = array.all(collection);
        ensure!(left.is_empty(), "{collection} are left: {left:?}");
    }
    Ok(())
}

/// A port on each of two processors, each a target of its own; the first processor's is the better way.
pub fn unity(lab: &mut Lab) -> Result<Rig<Server<Unity>>> {
    let names = [("spa_eth2", "a0"), ("spb_eth2", "b0")];
    let addresses = addresses();
    let ports = names.iter().zip(&addresses);
    let ports = ports.map(|((name, short), address)| state::Port::new(name, short, address));
    let ports: Vec<state::Port> = ports.collect();
    let port = |port: &state::Port| Port {
        iqn: Unity::target(UNITY_SERIAL, port),
        tag: 1,
        address: port.address.clone(),
        is_best: port.short == "a0",
    };
    let face = Face {
        vendor: "DGC",
        product: "VRAID",
        revision: "5003",
        ports: ports.iter().map(port).collect(),
    };
    let disks = Arc::new(LioArray::serve(lab, face)?);
    let array = Unity::backed(UNITY_SERIAL, disks.clone(), ports);
    let policy = json!({"id": "qp_1", "name": POLICY, "type": 1, "isShared": false, "state": 2});
    array.state().policies.insert("qp_1".to_owned(), policy);
    let settings = ["blockstoragemanager: unity"];
    Rig::start(
        lab,
        (array, disks),
        (unity::USER, unity::PASSWORD),
        &settings,
    )
}

/// No LUN and no snapshot is on it. Hosts stay, without access to anything.
pub fn is_empty_unity(array: &Unity) -> Result<()> {
    let state = array.state();
    let names: Vec<&String> = state.luns.keys().chain(state.snaps.keys()).collect();
    ensure!(names.is_empty(), "they are left: {names:?}");
    Ok(())
}

/// A port on each of two processors, whose own program leads to them; the first processor's is the better way.
pub fn vnx(lab: &mut Lab) -> Result<Rig<Navi>> {
    let addresses = addresses();
    let ports = ['A', 'B'].into_iter().zip(&addresses);
    let ports = ports.map(|(sp, address)| vnx::state::Port::new(sp, 4, &[address]));
    let ports: Vec<vnx::state::Port> = ports.collect();
    let port = |port: &vnx::state::Port| Port {
        iqn: Navi::target(VNX_SERIAL, port),
        tag: 1,
        address: port.addresses[0].clone(),
        is_best: port.sp == 'A',
    };
    let face = Face {
        vendor: "DGC",
        product: "VRAID",
        revision: "0533",
        ports: ports.iter().map(port).collect(),
    };
    let disks = Arc::new(LioArray::serve(lab, face)?);
    let navi = Navi::backed(VNX_SERIAL, disks.clone(), ports);
    let plan = Plan {
        array: Some(navi.settings()),
        ..Plan::default()
    };
    Rig::over(lab, (navi, disks), plan)
}

/// No LUN is on it but those that hold notes, which go then. Storage groups stay, and show nothing.
pub fn is_empty_vnx(array: &Navi) -> Result<()> {
    has_notes_alone(&array.state())?;
    array.clear().map_err(anyhow::Error::msg)
}

fn has_notes_alone(state: &vnx::State) -> Result<()> {
    let luns = state.luns.values().map(|lun| lun.name.clone());
    let luns: Vec<String> = luns
        .filter(|name| !name.starts_with("sanpath-notes-"))
        .collect();
    ensure!(luns.is_empty(), "they are left: {luns:?}");
    let shown = state.groups.values().any(|group| !group.luns.is_empty());
    ensure!(!shown, "something is shown: {:?}", state.groups);
    Ok(())
}

/// The node's files as `sanpath host-setup` writes them, for as long as a case runs.
pub struct HostSetUp(Configured);

impl HostSetUp {
    /// With `sections` of multipath's configuration beside.
    pub fn apply(lab: &Lab, sections: &str) -> Result<Self> {
        lab.execute(&[SANPATH, "host-setup", "--apply"])?;
        Ok(HostSetUp(Configured::with("strict", "no", sections)?))
    }

    /// As they were before.
    pub fn undo(self) -> Result<()> {
        fs::remove_file(DROP_IN)?;
        drop(self.0);
        Ok(())
    }
}
