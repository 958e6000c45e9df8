//! A simulated EqualLogic group in this guest, with a network of its own that both links lead to: the group's address, at which every login is sent on, and two members, at
//! which the kernel serves each volume as a target.

use std::fs::File;
use std::net::TcpListener;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};

use super::array::Rig;
use super::case::Lab;
use super::lio_array::{Face, LioArray, Port};
use super::stack::Plan;
use super::topology::{self, Link, SAN_NAMESPACE};
use crate::simulators::equallogic::{Gate, Group, Member, Redirector, Server};

/// All that initiators are told.
pub const GROUP: &str = "10.110.1.1";
const MEMBERS: [&str; 2] = ["10.110.1.11", "10.110.1.12"];
const NETWORK: &str = "10.110.1.0/24";
const PORT: u16 = 3260;

/// Both sides of a group.
pub struct Served {
    pub server: Server,
    pub redirector: Redirector,
}

/// How a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It ends its sessions and takes no login.
    Stops,
    /// It says nothing any more.
    Dies,
}

/// A member, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberNumber(pub u16);

impl MemberNumber {
    pub fn address(self) -> &'static str {
        MEMBERS[usize::from(self.0) - 1]
    }

    pub fn other(self) -> Self {
        Self(3 - self.0)
    }
}

/// The group, with controller and node of ours. A path on each link, both by way of the one address.
pub fn start(lab: &mut Lab) -> Result<Rig<Served>> {
    set_up_network(lab)?;
    let numbered = || (1..).zip(MEMBERS);
    let port = |(tag, address): (u16, &str)| Port {
        iqn: String::new(),
        tag,
        address: address.to_owned(),
        is_best: true,
    };
    let face = Face {
        vendor: "EQLOGIC",
        product: "100E-00",
        revision: "8.1",
        ports: numbered().map(port).collect(),
    };
    let disks = Arc::new(LioArray::serve(lab, face)?);
    // The key of the usual kind takes an emulated machine long to make.
    let gate = Gate {
        shell: "nc -N -U".to_owned(),
        key: "ed25519",
    };
    let server = Server::behind(Group::backed(GROUP, disks.clone()), 1, &gate);
    let server = server.with_one_connection();
    let members = numbered().map(|(tag, address)| Member {
        portal: format!("{address}:{PORT}"),
        tag,
    });
    let redirector = server.redirect(listen_in_san()?, members.collect());
    let plan = Plan {
        array: Some(server.settings()),
        ncpaths: Some("iface0:10.110.1.1,iface1:10.110.1.1"),
        node_arguments: &["--storage-interfaces", "iface0=path1,iface1=path2"],
        ..Plan::default()
    };
    Rig::over(lab, (Served { server, redirector }, disks), plan)
}

/// A member is lost. The group knows it at once.
pub fn lose(lab: &Lab, rig: &Rig<Served>, member: MemberNumber, loss: Loss) -> Result<()> {
    rig.server.redirector.set_serving(member.0, false);
    if loss == Loss::Dies {
        // From here on nobody hears of it, not even that its sessions end.
        change_address(lab, "del", member.address())?;
    }
    rig.disks.set_serving(member.0, false)
}

/// It is there again.
pub fn bring_back(lab: &Lab, rig: &Rig<Served>, member: MemberNumber, loss: Loss) -> Result<()> {
    if loss == Loss::Dies {
        change_address(lab, "add", member.address())?;
    }
    rig.disks.set_serving(member.0, true)?;
    rig.server.redirector.set_serving(member.0, true);
    Ok(())
}

/// No volume is in the group.
pub fn is_empty(served: &Served) -> Result<()> {
    let volumes = &served.server.group().volumes;
    ensure!(volumes.is_empty(), "they are left: {:?}", volumes.keys());
    Ok(())
}

/// Stops all of it, of which nothing is left.
pub fn stop(lab: &mut Lab, rig: Rig<Served>) -> Result<()> {
    rig.stop(lab)?;
    for address in MEMBERS.iter().chain([&GROUP]) {
        change_address(lab, "del", address)?;
    }
    for link in topology::paths() {
        lab.execute(&["ip", "route", "del", NETWORK, "dev", &link.name()])?;
    }
    Ok(())
}

/// The group's network is one hop behind each link; whoever is bound to an interface goes that way.
fn set_up_network(lab: &Lab) -> Result<()> {
    for address in MEMBERS.iter().chain([&GROUP]) {
        change_address(lab, "add", address)?;
    }
    for link in topology::paths() {
        let (Link(number), via, device) = (link, link.san_address(1), link.name());
        let metric = number.to_string();
        let route = ["ip", "route", "add", NETWORK, "via", &via, "dev", &device];
        lab.execute(&[&route[..], &["metric", &metric]].concat())?;
    }
    Ok(())
}

fn change_address(lab: &Lab, verb: &str, address: &str) -> Result<()> {
    let address = format!("{address}/32");
    let change = ["address", verb, &address, "dev", "lo"];
    lab.execute(&[&["ip", "-n", SAN_NAMESPACE][..], &change].concat())?;
    Ok(())
}

/// A socket belongs to the network in which it was made.
fn listen_in_san() -> Result<TcpListener> {
    let open = || -> Result<TcpListener> {
        let network = File::open(format!("/run/netns/{SAN_NAMESPACE}"))?;
        setns(network, CloneFlags::CLONE_NEWNET)?;
        Ok(TcpListener::bind((GROUP, PORT))?)
    };
    let opened = std::thread::spawn(open).join();
    opened
        .map_err(|_| anyhow::anyhow!("it panicked"))?
        .context("the group's address")
}
