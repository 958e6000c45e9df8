//! A player's day on the host's side: what each claim is to do next, what came of it, and a node that is lost and comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::super::parts::{start_node, start_plugins, stop_plugins};
use super::census;
use super::claim::{Act, Claim, MORE, Seat, Snapshot};
use super::lines::Tally;
use super::round::{self, Done, Task, Tasks};
use super::rules::Belief;
use super::trouble::{Trouble, What, kill};
use crate::kit::csi::Access;
use crate::kit::dice::Dice;
use crate::kit::fleet::{Fleet, Member};

/// How long the reapers and the kernels may take to be done with what nobody uses.
const SETTLED: Duration = Duration::from_secs(240);
const NODES: [u8; 2] = [1, 2];
/// How many claims there are at once, when nobody says.
const MOST: usize = 7;

/// See the module.
pub struct Day<'f, 'g> {
    fleet: &'f mut Fleet<'g>,
    pub dice: Dice,
    node_ids: [String; 2],
    pub claims: Vec<Claim>,
    snapshots: Vec<Snapshot>,
    /// What a lost node may still have; its kubelet takes it back.
    leavings: Vec<Claim>,
    named: u32,
    pub tally: Tally,
}

/// What some claims do in one round, by the claim's name.
pub type Acts = Vec<(String, Vec<Act>)>;

impl<'f, 'g> Day<'f, 'g> {
    /// On nodes whose plugins run.
    pub fn begin(fleet: &'f mut Fleet<'g>, seed: u64) -> Result<Self> {
        let mut node_ids = [String::new(), String::new()];
        for (id, number) in node_ids.iter_mut().zip(NODES) {
            let told = fleet.step(Member::Node(number), "node_id", Value::Null)?;
            *id = told.as_str().context("no node id")?.to_owned();
        }
        Ok(Day {
            fleet,
            dice: Dice::new(seed),
            node_ids,
            claims: Vec::new(),
            snapshots: Vec::new(),
            leavings: Vec::new(),
            named: 0,
            tally: Tally::default(),
        })
    }

    fn name(&mut self, kind: &str) -> String {
        self.named += 1;
        format!("{kind}-{}", self.named)
    }

    pub fn any_node(&mut self) -> u8 {
        NODES[self.dice.below(NODES.len())]
    }

    /// A claim that is still to be made; its name.
    pub fn claim(&mut self, access: Access, is_sealed: bool) -> String {
        let name = self.name("pvc");
        self.claims
            .push(Claim::new(name.clone(), access, is_sealed));
        name
    }

    /// A claim that is still to be made of the snapshot cut last; its name.
    pub fn restored(&mut self) -> Result<String> {
        let name = self.name("pvc");
        let snapshot = self.snapshots.last().context("no snapshot")?;
        self.claims.push(Claim::of(snapshot, name.clone()));
        Ok(name)
    }

    pub fn get(&mut self, name: &str) -> Result<&mut Claim> {
        let found = self.claims.iter_mut().find(|it| it.name == name);
        found.with_context(|| format!("no claim {name}"))
    }

    /// Gives a claim a place on this node, which it takes by `Act::Start`.
    pub fn seat(&mut self, name: &str, node: u8) -> Result<()> {
        let node_id = self.node_ids[usize::from(node) - 1].clone();
        self.get(name)?.seat = Some(Seat {
            node,
            node_id,
            publish_context: Default::default(),
            device: Belief::Nothing,
            pod: Belief::Nothing,
        });
        Ok(())
    }

    /// The acts that make a claim larger by a bit.
    pub fn grow(&mut self, name: &str) -> Result<Vec<Act>> {
        let claim = self.get(name)?;
        claim.wanted = claim.wanted.max(claim.size + MORE);
        Ok(vec![Act::Expand])
    }

    pub fn cut(&mut self) -> Act {
        Act::Snapshot(self.name("snap"))
    }

    /// Each claim does its acts, on its own node or on any that keeps its power.
    pub fn play(&mut self, acts: Acts, trouble: Trouble) -> Result<()> {
        let safe = NODES
            .into_iter()
            .find(|it| Some(*it) != trouble.lost_node());
        let elsewhere = safe.context("no node keeps its power")?;
        let mut tasks = Tasks::new();
        let begun: Vec<String> = acts.iter().map(|(name, _)| name.clone()).collect();
        for (name, acts) in acts {
            let stutters = self.dice.one_in(8);
            let claim = self.get(&name)?.clone();
            let node = claim.seat.as_ref().map_or(elsewhere, |seat| seat.node);
            tasks.entry(node).or_default().push(Task {
                claim,
                acts,
                stutters,
            });
        }
        let outcome = round::play(self.fleet, &tasks, trouble)?;
        self.tally.add(outcome.tally);
        let done = outcome.done.iter().map(|done| done.claim.name.clone());
        let done: Vec<String> = done.collect();
        for done in outcome.done {
            self.note(done)?;
        }
        for name in begun.iter().filter(|it| !done.contains(it)) {
            // Perhaps it was written, perhaps not: nobody looks there any more.
            self.get(name)?.begun += 1;
        }
        if let Some(node) = trouble.lost_node() {
            self.believe_in_a_boot(node);
        }
        Ok(())
    }

    fn note(&mut self, done: Done) -> Result<()> {
        let Done { claim, acts, cut } = done;
        let name = claim.name.clone();
        for act in &acts {
            if let (Act::Snapshot(named), Some(id)) = (act, &cut) {
                let of = Claim {
                    seat: None,
                    ..claim.clone()
                };
                self.snapshots.push(Snapshot {
                    name: named.clone(),
                    id: id.clone(),
                    of,
                });
            }
            if let Act::DeleteSnapshot(id) = act {
                self.snapshots.retain(|it| it.id != *id);
            }
        }
        *self.get(&name)? = claim;
        if matches!(acts.last(), Some(Act::Delete)) {
            self.claims.retain(|it| it.name != name);
        }
        Ok(())
    }

    fn believe_in_a_boot(&mut self, node: u8) {
        let seats = self.claims.iter_mut().filter_map(|it| it.seat.as_mut());
        for seat in seats.filter(|it| it.node == node) {
            // The one that starts had its call on the way.
            seat.device = Belief::There.after_a_boot();
            seat.pod = Belief::There.after_a_boot();
        }
    }

    /// The orchestrator gives a node up: what is there is taken from it without asking, and goes on elsewhere.
    pub fn give_up(&mut self, node: u8) -> Result<()> {
        let other = if node == 1 { 2 } else { 1 };
        let seated = |it: &&Claim| it.seat.as_ref().is_some_and(|seat| seat.node == node);
        let theirs: Vec<Claim> = self.claims.iter().filter(seated).cloned().collect();
        let mut acts = Acts::new();
        for claim in theirs {
            let name = claim.name.clone();
            self.leavings.push(claim);
            self.seat(&name, other)?;
            let id = self.node_ids[usize::from(node) - 1].clone();
            let mut todo = vec![Act::ForceDetach(id), Act::Start];
            let claim = self.get(&name)?;
            if claim.wanted > claim.size {
                todo.push(Act::Expand);
            }
            acts.push((name, todo));
        }
        let calm = Trouble::new(What::Nothing, &mut self.dice);
        self.play(acts, calm)
    }

    /// A node whose power went is there again, or its plugin; its kubelet comes round to what is no longer its own.
    pub fn come_back(&mut self, node: u8, has_booted: bool) -> Result<()> {
        let member = Member::Node(node);
        if has_booted {
            self.fleet.boot_again(member)?;
            start_plugins(self.fleet, member)?;
        } else {
            start_node(self.fleet, member, &[])?;
        }
        let task = |claim| Task {
            claim,
            acts: vec![Act::Clear],
            stutters: false,
        };
        let leavings = std::mem::take(&mut self.leavings);
        let tasks = Tasks::from([(node, leavings.into_iter().map(task).collect())]);
        let calm = Trouble::new(What::Nothing, &mut self.dice);
        let outcome = round::play(self.fleet, &tasks, calm)?;
        self.tally.add(outcome.tally);
        Ok(())
    }

    /// A node's plugin dies and does not come back for a while; the machine lives.
    pub fn lose_plugin(&mut self, node: u8) -> Result<()> {
        kill(self.fleet, Member::Node(node), "node")
    }

    /// There is what the player owns, and nothing beside it.
    pub fn check(&self) -> Result<()> {
        let end = Instant::now() + SETTLED;
        loop {
            let told = census::differences(self.fleet, &self.claims, &self.snapshots)?;
            if told.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("what is owned and what is there: {told:#?}");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Gives all of it back; the world is empty then.
    pub fn end(mut self) -> Result<Tally> {
        ensure!(self.leavings.is_empty(), "a node was not waited for");
        let mut acts = Acts::new();
        for claim in &self.claims {
            let stop = claim.seat.as_ref().map(|_| Act::Stop);
            let todo = stop.into_iter().chain([Act::Delete]).collect();
            acts.push((claim.name.clone(), todo));
        }
        let carrier = self.claims.first_mut().context("no claim")?;
        for snapshot in &self.snapshots {
            let todo = &mut acts.iter_mut().find(|it| it.0 == carrier.name);
            let (_, todo) = todo.as_mut().context("no acts")?;
            todo.insert(0, Act::DeleteSnapshot(snapshot.id.clone()));
        }
        let calm = Trouble::new(What::Nothing, &mut self.dice);
        self.play(acts, calm)?;
        self.check()?;
        stop_plugins(self.fleet, &NODES.map(Member::Node))?;
        Ok(self.tally)
    }

    /// What a claim does next when nobody says.
    pub fn improvise(
        &mut self,
        index: usize,
        doomed: Option<u8>,
    ) -> Result<Option<(String, Vec<Act>)>> {
        let claim = self.claims[index].clone();
        let name = claim.name.clone();
        let node = claim.seat.as_ref().map(|seat| seat.node);
        let is_doomed = node.is_some() && node == doomed;
        let todo = match (claim.id.is_empty(), node) {
            (true, _) => vec![Act::Provision],
            (false, None) if self.dice.one_in(6) => vec![Act::Delete],
            (false, None) if self.dice.one_in(4) => vec![self.cut()],
            (false, None) => {
                let node = self.any_node();
                self.seat(&name, node)?;
                vec![Act::Start]
            }
            (false, Some(_)) => match self.dice.below(8) {
                0 | 1 => vec![Act::Stop],
                2 | 3 => self.grow(&name)?,
                4 | 5 if !is_doomed => vec![Act::Write, self.cut()],
                6 if !is_doomed => vec![Act::ExpandTooFar],
                7 => return Ok(None),
                _ => vec![Act::Write],
            },
        };
        Ok(Some((name, todo)))
    }

    /// A snapshot is restored or deleted, now and then.
    pub fn improvise_snapshots(&mut self, acts: &mut Acts, doomed: Option<u8>) -> Result<()> {
        let is_awaited = |it: &Snapshot| {
            let of_it = |claim: &Claim| claim.origin.as_ref() == Some(&it.id);
            self.claims.iter().any(|it| it.id.is_empty() && of_it(it))
        };
        let unused = self.snapshots.iter().find(|it| !is_awaited(it));
        let unused = unused.map(|it| Act::DeleteSnapshot(it.id.clone()));
        match (self.dice.below(4), unused) {
            (0, Some(delete)) => {
                let is_safe =
                    |it: &Claim| it.seat.as_ref().is_none_or(|it| Some(it.node) != doomed);
                let claims = &self.claims;
                let safe = |name: &String| claims.iter().any(|it| it.name == *name && is_safe(it));
                if let Some((_, todo)) = acts.iter_mut().find(|(name, _)| safe(name)) {
                    todo.insert(0, delete);
                }
                Ok(())
            }
            (1, _) if !self.snapshots.is_empty() && self.claims.len() < MOST => {
                self.restored().map(drop)
            }
            _ => Ok(()),
        }
    }
}
