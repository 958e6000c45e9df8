//! One volume is detached while another is attached under the same LUN: whatever is handed out is the right one, and what is written arrives on the right one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sanpath::attach::{Attached, Outcome};

use super::attach::{Rig, Volume, ended};
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

/// How long the orchestrator of the coming volume goes on asking.
const PATIENCE: Duration = Duration::from_secs(120);
/// It asks again at once, so that an attach is under way at every moment of the detach.
const PAUSE: Duration = Duration::from_millis(20);

/// The kernel uses the name of the old disk for the new one, and udev may tell of the old one's end last: multipathd, which knows disks by their names, then takes the
/// new map away again (seen with 0.11.1 on a loaded machine). Whoever uses it gets an error and asks again; nothing goes to the wrong place. As often as disks went
/// meanwhile: the two of the volume that goes, and in a rude race the two that the other found in its place. More is something else.
const MOST_VANISHED: usize = 4;

/// What came of one race.
#[derive(Default)]
struct Race {
    /// How long the detach took.
    detach: Duration,
    /// How often the attach was refused.
    refused: usize,
    /// How often multipathd took the new map away again before it was used.
    vanished: usize,
    /// The attach that came through had begun while the detach was under way.
    in_flight: bool,
}

/// The attach is first asked at another moment of each detach, from its first to its last. In every third race the SAN gives the LUN away before it is let go,
/// which no SAN should do.
fn races(lab: &mut Lab, rounds: usize) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let first = rig.volume(7)?;
    rig.unmap(&first)?;
    let second = rig.volume(7)?;
    let volumes = [first, second];
    let (attached, _) = rig.ensure("the first of them", &volumes[1])?;
    mark(&rig, &attached, &volumes[1], 0)?;
    let mut shortest = Duration::from_millis(800);
    let (mut refused, mut in_flight) = (0, 0);
    for round in 1..=rounds {
        let (coming, going) = if round % 2 == 1 {
            (&volumes[0], &volumes[1])
        } else {
            (&volumes[1], &volumes[0])
        };
        // Neighbouring moments in rounds far apart: each is met by clean and by rude races, by both volumes.
        let part = u32::try_from(round * 7 % rounds)?;
        let after = shortest * part / u32::try_from(rounds)?;
        let race = race(&rig, going, coming, round, after)
            .with_context(|| format!("race {round}, rude: {}", is_rude(round)))?;
        lab.story(format!(
            "race {round}: asked {} ms into the detach of {} ms, refused {} times, vanished {} times, in flight at its end: {}",
            after.as_millis(),
            race.detach.as_millis(),
            race.refused,
            race.vanished,
            race.in_flight,
        ));
        shortest = shortest.min(race.detach);
        refused += usize::from(race.refused > 0);
        in_flight += usize::from(race.in_flight);
        // The one that went has its last word still.
        ensure_marked(&rig, going, round - 1)?;
    }
    lab.story(format!(
        "{rounds} races: {refused} with an attach that was refused first, {in_flight} won by one that had begun before the detach was done"
    ));
    ensure!(
        refused > 0 && in_flight > 0,
        "only one order was seen: this proves little"
    );
    let last = &volumes[usize::from(rounds.is_multiple_of(2))];
    rig.detach("the last of them", last)?;
    rig.unmap(last)?;
    rig.remove()
}

fn is_rude(round: usize) -> bool {
    round.is_multiple_of(3)
}

/// Detaches one, gives its LUN to the other, and `after` a while the other is tried to be attached until it is. What that hands out is marked and proven at
/// once.
fn race(
    rig: &Rig<'_>,
    going: &Volume,
    coming: &Volume,
    round: usize,
    after: Duration,
) -> Result<Race> {
    std::thread::scope(|scope| {
        if is_rude(round) {
            rig.remap(going, coming)?;
        }
        let attaching = scope.spawn(move || {
            std::thread::sleep(after);
            let mut vanished = 0;
            loop {
                let (attached, begun, refused) = attach_in_the_end(rig, coming)?;
                let proven = rig
                    .check_map(coming, &attached)
                    .and_then(|()| mark(rig, &attached, coming, round));
                match proven {
                    Ok(()) => return Ok((begun, refused, vanished)),
                    Err(error)
                        if (is_gone(&error) || !is_there(coming, &attached))
                            && vanished < MOST_VANISHED =>
                    {
                        vanished += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        });
        let start = Instant::now();
        let outcome = rig.detach(&format!("race {round}"), going)?;
        let end = Instant::now();
        ensure!(outcome == Outcome::Changed, "{outcome:?}");
        if !is_rude(round) {
            rig.remap(going, coming)?;
        }
        let (begun, refused, vanished) = ended(attaching)?;
        Ok(Race {
            detach: end - start,
            refused,
            vanished,
            in_flight: begun < end,
        })
    })
}

/// Whether there is no such device any more.
fn is_gone(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    let number = cause.and_then(std::io::Error::raw_os_error);
    number.is_some_and(|number| [nix::libc::ENXIO, nix::libc::ENOENT].contains(&number))
}

/// Whether the map is still what was handed out.
fn is_there(volume: &Volume, attached: &Attached) -> bool {
    let uuid = Path::new("/sys/block")
        .join(&attached.map.dm)
        .join("dm/uuid");
    fs::read_to_string(uuid).is_ok_and(|uuid| uuid.trim() == volume.export.wwid.dm_uuid())
}

/// As an orchestrator does it: again and again. When the call was made that came through, and how many did not.
fn attach_in_the_end(rig: &Rig<'_>, volume: &Volume) -> Result<(Attached, Instant, usize)> {
    let until = Instant::now() + PATIENCE;
    let mut refused = 0;
    loop {
        let begun = Instant::now();
        match rig.try_ensure(volume) {
            Ok(attached) => return Ok((attached, begun, refused)),
            Err(error) if begun > until => return Err(error),
            Err(_) => refused += 1,
        }
        std::thread::sleep(PAUSE);
    }
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
