//! Several guests, each a SAN or a node of its own, joined by one switch per link. Fleet cases run on the host and drive the
//! guests through this: boot, ask, cut links, cut power, boot again with the same disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::guest::{Ground, Guest, Plan};
use super::qemu::Card;
use super::switch::Switch;
use super::topology::{self, Link};
use super::wire::{Identity, Job, LinkIdentity, Role};

/// Something to prove with several guests.
#[derive(Clone, Copy)]
pub struct FleetCase {
    pub name: &'static str,
    pub deadline: Duration,
    pub run: fn(&mut Fleet) -> Result<()>,
}

/// A guest's part in a fleet, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    San(u8),
    Node(u8),
}

impl Member {
    pub fn name(self) -> String {
        match self {
            Member::San(number) => format!("san{number}"),
            Member::Node(number) => format!("node{number}"),
        }
    }

    pub fn address(self, link: Link) -> String {
        match self {
            Member::San(number) => link.san_address(number),
            Member::Node(number) => link.node_address(number),
        }
    }

    // 52:54:00 is QEMU's own prefix; the rest says who and where.
    fn mac(self, link: Link) -> String {
        let (kind, number) = match self {
            Member::San(number) => (1, number),
            Member::Node(number) => (2, number),
        };
        format!("52:54:00:{kind:02x}:{number:02x}:{:02x}", link.0)
    }
}

/// The guests of one fleet case. All of them are killed at its deadline, which ends every pending question.
pub struct Fleet<'a> {
    ground: &'a Ground,
    switches: Vec<(Link, Switch)>,
    plans: BTreeMap<String, Plan>,
    guests: BTreeMap<String, Guest>,
    /// Nodes with a disk of their own.
    with_disk: BTreeSet<String>,
    watchdog: Watchdog,
    until: Instant,
    pub scale: u32,
    /// `LAB_SEED`, for a case that leaves things to chance.
    pub seed: Option<u64>,
}

impl<'a> Fleet<'a> {
    pub fn new(ground: &'a Ground, deadline: Duration, seed: Option<u64>) -> Result<Self> {
        Ok(Fleet {
            ground,
            switches: topology::links()
                .map(|link| (link, Switch::default()))
                .collect(),
            plans: BTreeMap::new(),
            guests: BTreeMap::new(),
            with_disk: BTreeSet::new(),
            watchdog: Watchdog::start(deadline),
            until: Instant::now() + deadline,
            scale: ground.scale,
            seed,
        })
    }

    /// Gives a node that is not yet on a disk, so that what a host keeps on its root disk (`guest_setup::KEPT`) outlives a power cut. A SAN
    /// has one in any case.
    pub fn give_disk(&mut self, member: Member) {
        self.with_disk.insert(member.name());
    }

    /// Gives guests that are not yet on these links beside the usual ones.
    pub fn add_links(&mut self, links: impl IntoIterator<Item = Link>) {
        let more = links.into_iter().map(|link| (link, Switch::default()));
        self.switches.extend(more);
    }

    /// Boots these guests, all at the same time, and waits until each is set up.
    pub fn boot(&mut self, members: &[Member]) -> Result<()> {
        for &member in members {
            let plan = self.plan(member)?;
            self.plans.insert(member.name(), plan);
        }
        let ground = self.ground;
        let plans: Vec<&Plan> = members
            .iter()
            .filter_map(|member| self.plans.get(&member.name()))
            .collect();
        let booted: Vec<Result<Guest>> = std::thread::scope(|scope| {
            let boots: Vec<_> = plans
                .iter()
                .map(|plan| scope.spawn(|| Guest::boot(ground, plan)))
                .collect();
            boots
                .into_iter()
                .map(|boot| {
                    boot.join()
                        .unwrap_or_else(|_| Err(anyhow!("a boot panicked")))
                })
                .collect()
        });
        for guest in booted {
            self.add(guest?)?;
        }
        Ok(())
    }

    /// Cuts a guest's power. What it had written to its disk stays.
    pub fn cut_power(&mut self, member: Member) -> Result<()> {
        let guest = self
            .guests
            .remove(&member.name())
            .with_context(|| format!("{} is off", member.name()))?;
        self.watchdog.forget(guest.process_id());
        guest.cut_power();
        Ok(())
    }

    /// Cuts a guest's power while others still ask it things, all of which fail. [`Fleet::cut_power`] is still to be called.
    pub fn cut_power_under_all(&self, member: Member) -> Result<()> {
        let process = i32::try_from(self.guest(member)?.process_id())?;
        kill(Pid::from_raw(process), Signal::SIGKILL).context("killing QEMU")
    }

    /// Boots a guest again, with its disk and addresses of before.
    pub fn boot_again(&mut self, member: Member) -> Result<()> {
        let plan = self
            .plans
            .get(&member.name())
            .with_context(|| format!("{} was never on", member.name()))?;
        let guest = Guest::boot(self.ground, plan)?;
        self.add(guest)
    }

    /// A running guest.
    pub fn guest(&self, member: Member) -> Result<&Guest> {
        self.guests
            .get(&member.name())
            .with_context(|| format!("{} is off", member.name()))
    }

    /// Has a guest do one of the steps of `fleet/mod.rs`; what it gave back.
    pub fn step(&self, member: Member, name: &str, arguments: Value) -> Result<Value> {
        let seconds = self
            .until
            .saturating_duration_since(Instant::now())
            .as_secs();
        let job = Job {
            name: name.to_owned(),
            arguments,
            seconds,
            scale: self.scale,
            is_counted: false,
        };
        let verdict = self.guest(member)?.job(job)?;
        match verdict.failed {
            Some(failed) => bail!("{} on {}: {failed}", name, member.name()),
            None => Ok(verdict.value),
        }
    }

    /// Pulls or plugs the cable of one guest on one link: its carrier goes or comes.
    pub fn set_cable(&self, member: Member, link: Link, plugged: bool) -> Result<()> {
        self.guest(member)?.set_link(&link.name(), plugged)
    }

    /// Swallows all that one guest sends and is sent on one link, or ends that.
    pub fn set_black_hole(&self, member: Member, link: Link, on: bool) {
        for (_, switch) in self.switches.iter().filter(|(found, _)| *found == link) {
            switch.set_black_hole(&member.name(), on);
        }
    }

    /// What the guests hold that they did not hold when they were ready. A guest that does not say is a leftover itself.
    pub fn leftovers(&self) -> BTreeSet<String> {
        let of = |guest: &Guest| {
            let things = guest
                .leftovers()
                .unwrap_or_else(|error| BTreeSet::from([format!("no answer: {error:#}")]));
            things
                .into_iter()
                .map(|thing| format!("{}: {thing}", guest.name()))
                .collect::<Vec<_>>()
        };
        self.guests.values().flat_map(of).collect()
    }

    /// Lets the guests live past the deadline, for someone who wants to look.
    pub fn stay(&self) {
        for guest in self.guests.values() {
            self.watchdog.forget(guest.process_id());
        }
    }

    /// Every guest that is on.
    pub fn guests(&self) -> Vec<&Guest> {
        self.guests.values().collect()
    }

    /// Ends all guests and removes their disks.
    pub fn end(self) {
        for guest in self.guests.into_values() {
            self.watchdog.forget(guest.process_id());
            guest.cut_power();
        }
        for name in self.plans.keys() {
            let _ = std::fs::remove_dir_all(self.ground.place.disks.join(name));
        }
    }

    fn add(&mut self, guest: Guest) -> Result<()> {
        self.watchdog.watch(guest.process_id())?;
        self.guests.insert(guest.name().to_owned(), guest);
        Ok(())
    }

    fn plan(&self, member: Member) -> Result<Plan> {
        let name = member.name();
        let (mut cards, mut links) = (Vec::new(), Vec::new());
        for (link, switch) in &self.switches {
            let socket = self
                .ground
                .place
                .sockets
                .join(format!("{}-{name}", link.name()));
            let _ = std::fs::remove_file(&socket);
            let (mac, socket) = (member.mac(*link), switch.add_port(&name, &socket)?);
            links.push(LinkIdentity {
                mac: mac.clone(),
                name: link.name(),
                address: member.address(*link),
            });
            cards.push(Card {
                link: *link,
                mac,
                socket,
            });
        }
        let role = if matches!(member, Member::San(_)) {
            Role::San
        } else {
            Role::Node
        };
        let with_pool = role == Role::San || self.with_disk.contains(&name);
        Ok(Plan {
            identity: Identity { name, role, links },
            memory_megabytes: 1024,
            processors: 1,
            with_pool,
            cards,
        })
    }
}

/// Kills every guest of a fleet at its deadline.
struct Watchdog {
    watched: Arc<Mutex<BTreeSet<u32>>>,
    _ended: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(deadline: Duration) -> Self {
        let watched: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
        let (ended, end) = mpsc::channel::<()>();
        let victims = Arc::clone(&watched);
        std::thread::spawn(move || {
            // The fleet's end closes the channel; only the deadline is a timeout.
            if end.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout) {
                let victims = victims
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                for process in victims
                    .iter()
                    .filter_map(|process| i32::try_from(*process).ok())
                {
                    let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
                }
            }
        });
        Watchdog {
            watched,
            _ended: ended,
        }
    }

    fn watch(&self, process: u32) -> Result<()> {
        self.watched
            .lock()
            .map_err(|_| anyhow!("the watchdog died"))?
            .insert(process);
        Ok(())
    }

    fn forget(&self, process: u32) {
        self.watched
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&process);
    }
}
