//! What goes wrong during a round of the player, and is mended before the next.

use std::time::Duration;

use anyhow::Result;

use super::super::parts::{SAN, start_controller, start_node, start_san};
use crate::kit::dice::Dice;
use crate::kit::fleet::{Fleet, Member};
use crate::kit::topology::{self, Link};
use crate::kit::wire::Request;

/// When it begins.
const SOON: std::ops::Range<u64> = 0..4_000;
/// How long it lasts. A black hole is noticed after ten seconds.
const WHILE: std::ops::Range<u64> = 1_000..14_000;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    what: What,
    begins: Duration,
    lasts: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Nothing,
    /// A cable is pulled, the carrier gone.
    Cable(Member, Link),
    /// A link loses every packet and stays up.
    BlackHole(Member, Link),
    /// A node plugin is killed, and started again.
    Plugin(u8),
    Controller(u8),
    San,
    /// A node's power goes, and does not come back in this round.
    Power(u8),
}

impl Trouble {
    pub fn new(what: What, dice: &mut Dice) -> Self {
        Trouble {
            what,
            begins: dice.moment(SOON),
            lasts: dice.moment(WHILE),
        }
    }

    /// The same, over soon.
    pub fn short(what: What, dice: &mut Dice) -> Self {
        Trouble {
            what,
            begins: dice.moment(0..2_000),
            lasts: dice.moment(1_000..5_000),
        }
    }

    /// Any that leaves the nodes their power.
    pub fn any(dice: &mut Dice, nodes: &[u8]) -> Self {
        let node = nodes[dice.below(nodes.len())];
        let member = [SAN, Member::Node(node)][dice.below(2)];
        let links: Vec<Link> = topology::links().collect();
        let link = links[dice.below(links.len())];
        let what = match dice.below(8) {
            0 => What::Nothing,
            1 | 2 => What::Cable(member, link),
            3 => What::BlackHole(member, link),
            4 | 5 => What::Plugin(node),
            6 => What::Controller(node),
            _ => What::San,
        };
        Trouble::new(what, dice)
    }

    /// The node that is off afterwards.
    pub fn lost_node(self) -> Option<u8> {
        match self.what {
            What::Power(node) => Some(node),
            _ => None,
        }
    }

    /// Lets it happen, and mends it.
    pub fn befall(self, fleet: &Fleet) -> Result<()> {
        if self.what == What::Nothing {
            return Ok(());
        }
        std::thread::sleep(self.begins);
        self.begin(fleet)?;
        if self.lost_node().is_none() {
            std::thread::sleep(self.lasts);
        }
        self.end(fleet)
    }

    fn begin(self, fleet: &Fleet) -> Result<()> {
        match self.what {
            What::Nothing => Ok(()),
            What::Cable(member, link) => fleet.set_cable(member, link, false),
            What::BlackHole(member, link) => {
                fleet.set_black_hole(member, link, true);
                Ok(())
            }
            What::Plugin(node) => kill(fleet, Member::Node(node), "node"),
            What::Controller(node) => kill(fleet, Member::Node(node), "controller"),
            What::San => kill(fleet, SAN, "san"),
            What::Power(node) => fleet.cut_power_under_all(Member::Node(node)),
        }
    }

    fn end(self, fleet: &Fleet) -> Result<()> {
        match self.what {
            What::Nothing | What::Power(_) => Ok(()),
            What::Cable(member, link) => fleet.set_cable(member, link, true),
            What::BlackHole(member, link) => {
                fleet.set_black_hole(member, link, false);
                Ok(())
            }
            What::Plugin(node) => start_node(fleet, Member::Node(node), &[]),
            What::Controller(node) => start_controller(fleet, Member::Node(node)),
            What::San => start_san(fleet),
        }
    }
}

/// At once, in the middle of whatever it does.
pub fn kill(fleet: &Fleet, member: Member, name: &str) -> Result<()> {
    fleet.guest(member)?.tell(Request::Kill {
        name: name.to_owned(),
    })
}
