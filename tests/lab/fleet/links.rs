//! A SAN and a node, really apart: the links join them, fail one by one, and a SAN whose power is cut comes back with its disk
//! and its place on the network.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::parts::until;
use crate::kit::case::{Lab, Step};
use crate::kit::daemons::Daemon;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::guest_setup::POOL;
use crate::kit::topology::{self, Link};
use crate::kit::wire::Request;

pub const CASES: &[FleetCase] = &[FleetCase {
    name: "fleet_links",
    deadline: Duration::from_secs(300),
    run: fleet_links,
}];

pub const STEPS: &[Step] = &[Step {
    name: "keep_in_pool",
    run: keep_in_pool,
}];

const SAN: Member = Member::San(1);
const NODE: Member = Member::Node(1);

fn fleet_links(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, NODE])?;
    for link in topology::links() {
        comes_through(fleet, link)?;
    }
    fleet.step(SAN, "keep_in_pool", json!("what survives"))?;

    fleet.set_cable(SAN, Link(1), false)?;
    ensure!(
        !reaches(fleet, Link(1))?,
        "the pulled cable is not path 1's"
    );
    comes_through(fleet, Link(2))?;
    fleet.set_cable(SAN, Link(1), true)?;
    fleet.set_black_hole(NODE, Link(2), true);
    ensure!(!reaches(fleet, Link(2))?, "the black hole is not on path 2");
    comes_through(fleet, Link(1))?;
    fleet.set_black_hole(NODE, Link(2), false);

    let server = Daemon::new("web", ["busybox", "httpd", "-f", "-p", "8080"]);
    fleet.guest(SAN)?.start(server)?;
    fleet.guest(SAN)?.tell(Request::Kill {
        name: "web".to_owned(),
    })?;

    fleet.cut_power(SAN)?;
    ensure!(!reaches(fleet, Link(1))?, "a SAN without power answers");
    fleet.boot_again(SAN)?;
    for link in topology::links() {
        comes_through(fleet, link)?;
    }
    let kept = fleet
        .guest(SAN)?
        .execute(&["cat", &format!("{POOL}/kept")])?;
    ensure!(
        kept == "what survives",
        "the pool lost its file, it holds {kept:?}"
    );
    Ok(())
}

/// A guest sees late that its cable is plugged in, and asks for its neighbours then.
fn comes_through(fleet: &Fleet, link: Link) -> Result<()> {
    let what = format!("{} joins node and SAN", link.name());
    until(&what, Duration::from_secs(60), || reaches(fleet, link))
}

fn reaches(fleet: &Fleet, link: Link) -> Result<bool> {
    let ping = [
        "ping",
        "-c",
        "3",
        "-i",
        "0.3",
        "-W",
        "1",
        &SAN.address(link),
    ];
    Ok(fleet.guest(NODE)?.run(&ping, 20)?.code == Some(0))
}

/// Writes the given text to a file of the pool, all the way to the disk.
fn keep_in_pool(_: &mut Lab, text: Value) -> Result<Value> {
    let path = format!("{POOL}/kept");
    fs::write(&path, text.as_str().unwrap_or_default())?;
    fs::File::open(&path)?.sync_all()?;
    fs::File::open(POOL)?.sync_all()?;
    Ok(json!(path))
}
