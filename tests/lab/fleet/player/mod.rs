//! A player of sidecars and kubelets lives days on real machines: a SAN and two nodes with the built plugins, whose links, daemons and power fail.
//!
//! It goes by the same rules as the player of the fake world (`src/daemon/player/rules.rs`). What a pod wrote, every later pod of that claim finds, and every
//! claim made of its snapshot. At the end of a day there is exactly what the player still owns, and in the evening nothing at all.

mod acts;
mod census;
mod claim;
mod day;
mod kubelet;
mod lines;
mod round;
#[path = "../../../../src/daemon/player/rules.rs"]
mod rules;
mod token;
mod trouble;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use self::claim::Act;
use self::day::{Acts, Day};
use self::trouble::{Trouble, What};
use super::parts::{SAN, start_plugins, start_san};
use crate::kit::case::Step;
use crate::kit::csi::Access;
use crate::kit::fleet::{Fleet, FleetCase, Member};
use crate::kit::topology::Link;

pub const CASES: &[FleetCase] = &[FleetCase {
    name: "player_day",
    deadline: Duration::from_secs(1200),
    run: short_day,
}];

pub const LONG: &[FleetCase] = &[FleetCase {
    name: "days_of_a_player",
    deadline: Duration::from_secs(1800),
    run: long_days,
}];

pub const STEPS: &[Step] = &[round::STEP, census::STEP];

const NODES: [Member; 2] = [Member::Node(1), Member::Node(2)];
/// The everyday day is always this one, unless `LAB_SEED` asks for another.
const EVERYDAY: u64 = 6;
/// Of a long day, and how many claims there are in each of them.
const ROUNDS: u32 = 12;
const FEWEST: usize = 4;

fn boot(fleet: &mut Fleet) -> Result<()> {
    fleet.boot(&[SAN, NODES[0], NODES[1]])?;
    start_san(fleet)?;
    NODES
        .into_iter()
        .try_for_each(|node| start_plugins(fleet, node))
}

/// Everything once, who and where by the seed: claims of two kinds made and used under a failing link, grown, cut and stopped under a dying plugin, restored
/// and moved under a dying SAN, and a node given up.
fn short_day(fleet: &mut Fleet) -> Result<()> {
    let seed = fleet.seed.unwrap_or(EVERYDAY);
    println!("    seed {seed}: LAB_SEED repeats it");
    boot(fleet)?;
    let begun = Instant::now();
    let mut day = Day::begin(fleet, seed)?;
    let (first, second) = (
        &day.claim(Access::Ext4, false),
        &day.claim(Access::Block, false),
    );
    let lost = day.any_node();
    let other = 3 - lost;
    day.seat(first, lost)?;
    day.seat(second, other)?;
    let both = |acts: &[Act]| [first, second].map(|it| (it.clone(), acts.to_vec()));
    let path = Link(1 + u8::try_from(day.dice.below(2))?);
    let trouble = Trouble::short(What::Cable(SAN, path), &mut day.dice);
    day.play(both(&[Act::Provision, Act::Start]).to_vec(), trouble)?;
    told(begun, "claims made and pods started while a link failed");

    let mut grow = day.grow(first)?;
    grow.push(day.cut());
    let acts: Acts = vec![
        (first.clone(), grow),
        (
            second.clone(),
            vec![Act::ExpandTooFar, Act::Write, Act::Stop],
        ),
    ];
    let trouble = Trouble::short(What::Plugin(other), &mut day.dice);
    day.play(acts, trouble)?;
    told(begun, "one grown and cut, one stopped while a plugin died");

    let restored = day.restored()?;
    day.seat(&restored, other)?;
    day.seat(second, lost)?;
    let acts: Acts = vec![
        (restored.clone(), vec![Act::Provision, Act::Start]),
        (second.clone(), vec![Act::Start]),
    ];
    let trouble = Trouble::short(What::San, &mut day.dice);
    day.play(acts, trouble)?;
    told(begun, "one restored, one moved while the SAN died");

    day.lose_plugin(lost)?;
    day.give_up(lost)?;
    told(begun, "a node given up, its volumes used on the other one");
    day.come_back(lost, false)?;
    day.check()?;
    told(
        begun,
        "there is what the player owns, and nothing beside it",
    );
    let tally = day.end()?;
    told(begun, "nothing is left");
    println!("    {tally}");
    for call in ["NodeExpandVolume Ok", "CreateSnapshot Ok"] {
        ensure!(tally.count(call) > 0, "the day had no {call}");
    }
    Ok(())
}

fn told(begun: Instant, what: &str) {
    println!("    {:>4} s: {what}", begun.elapsed().as_secs());
}

/// A few days, more of them with `LAB_SCALE`, each of its own seed, on the same machines.
fn long_days(fleet: &mut Fleet) -> Result<()> {
    let any = || RandomState::new().build_hasher().finish() >> 16;
    let seed = fleet.seed.unwrap_or_else(any);
    for node in NODES {
        fleet.give_disk(node);
    }
    boot(fleet)?;
    for number in 0..=u64::from(fleet.scale) / 5 {
        println!(
            "    day {number}, seed {}: LAB_SEED repeats it",
            seed + number
        );
        if number > 0 {
            start_san(fleet)?;
            for node in NODES {
                start_plugins(fleet, node)?;
            }
        }
        let mut day = Day::begin(fleet, seed + number)?;
        live(&mut day)?;
        day.check()?;
        println!("    {}", day.end()?);
    }
    Ok(())
}

/// Random rounds; once a day a node loses its power in the middle of one.
fn live(day: &mut Day) -> Result<()> {
    let kinds = [
        (Access::Ext4, false),
        (Access::Xfs, false),
        (Access::Block, false),
        (Access::Ext4, true),
    ];
    for (kind, is_sealed) in kinds {
        day.claim(kind, is_sealed);
    }
    let blow = 3 + u32::try_from(day.dice.below(4))?;
    for number in 0..ROUNDS {
        if day.claims.len() < FEWEST {
            let (kind, is_sealed) = kinds[day.dice.below(kinds.len())];
            day.claim(kind, is_sealed);
        }
        let doomed = (number == blow).then(|| day.any_node());
        let trouble = match doomed {
            Some(node) => Trouble::new(What::Power(node), &mut day.dice),
            None => Trouble::any(&mut day.dice, &[1, 2]),
        };
        let mut acts = Acts::new();
        for index in 0..day.claims.len() {
            acts.extend(day.improvise(index, doomed)?);
        }
        day.improvise_snapshots(&mut acts, doomed)?;
        println!("    {number}: {trouble:?} {acts:?}");
        day.play(acts, trouble)?;
        if let Some(node) = doomed {
            day.give_up(node)?;
            day.come_back(node, true)?;
        }
    }
    // Nobody has asked for these yet.
    day.claims.retain(|claim| !claim.id.is_empty());
    Ok(())
}
