//! One volume is detached while another is attached under the same LUN: whatever is handed out is the right one, and what is written arrives on the right one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sanpath::attach::{Attached, Outcome};

use super::attach::{Rig, Volume};
use crate::kit::case::{Case, Lab};

pub const CASES: &[Case] = &[Case {
    name: "detach_attach_races",
    deadline: Duration::from_secs(600),
    run: some_races,
}];

pub const LONG: &[Case] = &[Case {
    name: "thirty_races",
    deadline: Duration::from_secs(1800),
    run: thirty_races,
}];

fn some_races(lab: &mut Lab) -> Result<()> {
    races(lab, 8)
}

fn thirty_races(lab: &mut Lab) -> Result<()> {
    races(lab, 30)
}

/// In every third race the SAN gives the LUN away before it is let go, which no SAN should do.
fn races(lab: &mut Lab, rounds: usize) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let first = rig.volume(7)?;
    rig.unmap(&first)?;
    let second = rig.volume(7)?;
    let volumes = [first, second];
    let (attached, _) = rig.ensure("the first of them", &volumes[1])?;
    mark(&rig, &attached, &volumes[1], 0)?;
    let mut at_once = 0;
    for round in 1..=rounds {
        let (coming, going) = if round % 2 == 1 {
            (&volumes[0], &volumes[1])
        } else {
            (&volumes[1], &volumes[0])
        };
        let won = race(&rig, going, coming, round)
            .with_context(|| format!("race {round}, rude: {}", round % 3 == 0))?;
        at_once += usize::from(won);
        let (attached, _) = rig.ensure(&format!("after race {round}"), coming)?;
        mark(&rig, &attached, coming, round)?;
        // The one that went has its last word still.
        ensure_marked(&rig, going, round - 1)?;
    }
    lab.story(format!(
        "{rounds} races: in {at_once} the coming volume was attached by the very call that raced"
    ));
    let last = &volumes[usize::from(rounds.is_multiple_of(2))];
    rig.detach("the last of them", last)?;
    rig.unmap(last)?;
    rig.remove()
}

/// Detaches one, gives its LUN to the other, attaches the other, all at once. Whether that attach came through; if so, what it handed out is marked and proven.
fn race(rig: &Rig<'_>, going: &Volume, coming: &Volume, round: usize) -> Result<bool> {
    std::thread::scope(|scope| {
        let attaching = scope.spawn(|| rig.try_ensure(coming));
        if round.is_multiple_of(3) {
            rig.remap(going, coming)?;
        }
        let outcome = rig.detach(&format!("race {round}"), going)?;
        ensure!(outcome == Outcome::Changed, "{outcome:?}");
        if !round.is_multiple_of(3) {
            rig.remap(going, coming)?;
        }
        let attached = attaching
            .join()
            .map_err(|_| anyhow::anyhow!("the attaching thread panicked"))?;
        match attached {
            Ok(attached) => {
                rig.check_map(coming, &attached)?;
                mark(rig, &attached, coming, round)?;
                Ok(true)
            }
            // Its LUN was another's until a moment ago.
            Err(_) => Ok(false),
        }
    })
}

/// Writes who it should be through the map, and looks on the SAN where it arrived.
fn mark(rig: &Rig<'_>, attached: &Attached, volume: &Volume, round: usize) -> Result<()> {
    rig.write(attached, &text(volume, round))?;
    ensure_marked(rig, volume, round)
}

fn ensure_marked(rig: &Rig<'_>, volume: &Volume, round: usize) -> Result<()> {
    let (found, wanted) = (rig.content(volume)?, text(volume, round));
    ensure!(
        found.starts_with(&wanted),
        "it holds {:?}, not {:?}",
        String::from_utf8_lossy(&found[..wanted.len()]),
        String::from_utf8_lossy(&wanted)
    );
    Ok(())
}

fn text(volume: &Volume, round: usize) -> Vec<u8> {
    format!("{} in race {round:3}", volume.wwid()).into_bytes()
}
