//! The pages of numbers of both plugins while a link fails that carries a path and a management address.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::Access;
use crate::kit::paths;
use crate::kit::scrape::Page;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;

pub const LONG: &[Case] = &[Case {
    name: "a_scrape_shows_a_lost_link",
    deadline: Duration::from_secs(400),
    run: lost_link,
}];

const SIZE: i64 = 64 << 20;
const NODE: &str = "127.0.0.1:9810";
const CONTROLLER: &str = "127.0.0.1:9812";
/// What is promised beside the noop interval and time-out.
const MARGIN: Duration = Duration::from_secs(2);
/// Two scrapes and a call in quiet. A machine that needs longer is too busy for a margin of two seconds to be judged.
const CALM: Duration = Duration::from_millis(1500);
const CALMS: usize = 5;
const SOON: Duration = Duration::from_secs(120);

fn lost_link(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        node_arguments: &["--metrics", NODE],
        controller_arguments: &["--metrics", CONTROLLER],
        first_sanhost: Some(Link(1).san_address(1)),
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("watched", SIZE, Access::Block)?;
    orchestrator.bring_up(&mut volume)?;
    let mut call = || Ok(orchestrator.list().map(drop)?);
    let lost = Lost::of(&volume.id);
    lab.wait_for("all to be good on both pages", SOON, || {
        let (node, controller) = lost.look()?;
        Ok((node == Node::WELL && controller == Controller::WELL).then_some(()))
    })?;
    calm(&lost, &mut call)?;
    let bound = noop_bound()? + MARGIN;

    paths::black_hole(Link(1))?;
    let begun = Instant::now();
    let (mut node, mut controller) = (None, None);
    while node.is_none() || controller.is_none() {
        ensure!(
            begun.elapsed() < SOON,
            "node {node:?}, controller {controller:?}"
        );
        // A sidecar's: an address that nobody uses is looked at once a minute alone.
        call()?;
        let seen = lost.look()?;
        if seen.0 == Node::LOST {
            node.get_or_insert_with(|| begun.elapsed());
        }
        if seen.1 == Controller::LOST {
            controller.get_or_insert_with(|| begun.elapsed());
        }
    }
    let shown = [node, controller].map(Option::unwrap_or_default);
    lab.story(format!(
        "the lost link was on the node's page after {} ms and on the controller's after {} ms; bound {} ms",
        shown[0].as_millis(),
        shown[1].as_millis(),
        bound.as_millis()
    ));
    paths::clear(Link(1))?;
    lab.wait_for("all to be good on both pages", SOON, || {
        let (node, controller) = lost.look()?;
        Ok((node == Node::WELL && controller == Controller::WELL).then_some(()))
    })?;
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)?;
    ensure!(
        shown.iter().all(|after| *after <= bound),
        "{shown:?} is more than {bound:?}"
    );
    Ok(())
}

/// The node's page of the path over the link: is its session up, does it serve, and does the other one.
#[derive(Debug, PartialEq)]
struct Node([f64; 3]);

impl Node {
    const WELL: Node = Node([1.0, 1.0, 1.0]);
    const LOST: Node = Node([0.0, 0.0, 1.0]);
}

/// The controller's: is the address over the link good, is it used, and is the other one.
#[derive(Debug, PartialEq)]
struct Controller([f64; 3]);

impl Controller {
    const WELL: Controller = Controller([1.0, 1.0, 0.0]);
    const LOST: Controller = Controller([0.0, 0.0, 1.0]);
}

struct Lost {
    volume: String,
    portals: [String; 2],
    sanhosts: [String; 2],
}

impl Lost {
    fn of(volume: &str) -> Self {
        let at = |link: Link, port: u16| format!("{}:{port}", link.san_address(1));
        Self {
            volume: volume.to_owned(),
            portals: [Link(1), Link(2)].map(|link| at(link, 3260)),
            sanhosts: [Link(1), Link::MANAGEMENT].map(|link| at(link, 7420)),
        }
    }

    fn look(&self) -> Result<(Node, Controller)> {
        let page = Page::read(NODE)?;
        let path = |name: &str, portal: &str| {
            page.value(name, &[("volume", &self.volume), ("portal", portal)])
        };
        let [struck, other] = &self.portals;
        let node = [
            path("sanpath_path_session_up", struck)?,
            path("sanpath_path_active", struck)?,
            path("sanpath_path_active", other)?,
        ];
        let page = Page::read(CONTROLLER)?;
        let address = |name: &str, address: &str| page.value(name, &[("address", address)]);
        let [struck, other] = &self.sanhosts;
        let controller = [
            address("sanpath_sanhost_address_good", struck)?,
            address("sanpath_sanhost_address_in_use", struck)?,
            address("sanpath_sanhost_address_in_use", other)?,
        ];
        Ok((Node(node), Controller(controller)))
    }
}

/// Waits until the machine is quick enough for the margin to be judged.
fn calm(lost: &Lost, call: &mut impl FnMut() -> Result<()>) -> Result<()> {
    let mut took = Duration::ZERO;
    for _ in 0..CALMS {
        let begun = Instant::now();
        call()?;
        lost.look()?;
        took = begun.elapsed();
        if took <= CALM {
            return Ok(());
        }
    }
    bail!(
        "a call and two scrapes take {} ms without a cut: this machine is too busy to judge a margin of two seconds",
        took.as_millis()
    )
}

/// How long the kernel lets a silent connection be, by the settings in force.
fn noop_bound() -> Result<Duration> {
    let mut longest = 0;
    for connection in fs::read_dir("/sys/class/iscsi_connection")? {
        let connection = connection?.path();
        let seconds = |name: &str| -> Result<u64> {
            Ok(fs::read_to_string(connection.join(name))?.trim().parse()?)
        };
        longest = longest.max(seconds("recv_tmo")? + seconds("ping_tmo")?);
    }
    ensure!(longest > 0, "no connection, or no noop");
    Ok(Duration::from_secs(longest))
}
