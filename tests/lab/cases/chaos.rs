//! Everything that may fail fails, in random order, under three writers: while one path lives no file system sees an error, and afterwards every
//! block is what was written.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Volume, patiently};
use crate::kit::dice::Dice;
use crate::kit::services::Service;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::{self, Link};
use crate::kit::writer::{Writer, verify};
use crate::kit::{command, paths};

pub const CASES: &[Case] = &[Case {
    name: "chaos",
    deadline: Duration::from_secs(900),
    run: chaos,
}];

/// xfs makes nothing smaller than 300 MiB.
const SIZE: i64 = 320 << 20;
/// The writers go round in this many blocks of 64 KiB.
const ROUND: u64 = 512;
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a path stays hurt. A black hole is noticed after ten seconds.
const HURT: Range<u64> = 2_000..14_000;
/// What the kernel says when a file system or a writer was told of an error. Of single paths it may say what it likes.
const ALARMS: [&str; 8] = [
    "Buffer I/O error on dev dm-",
    "I/O error, dev dm-",
    "EXT4-fs error",
    "EXT4-fs (dm-",
    "Aborting journal",
    "log I/O error",
    "metadata I/O error",
    "Shutting down filesystem",
];
/// What it says of a file system in good health.
const PLEASANTRIES: [&str; 2] = ["mounted filesystem", "unmounting filesystem"];

/// What may happen to one path; the other is left alone meanwhile.
#[derive(Debug, Clone, Copy)]
enum Injury {
    Cut,
    BlackHole,
    Drop,
}

/// What may happen to a daemon, at any time.
#[derive(Debug, Clone, Copy)]
enum Death {
    Iscsid(&'static str),
    Multipathd(&'static str),
    Plugin,
}

fn chaos(lab: &mut Lab) -> Result<()> {
    let seconds = 180 * u64::from(lab.scale);
    lab.story(format!("seed {}: LAB_SEED repeats it", lab.seed));
    let mut dice = Dice::new(lab.seed);
    let stack = Stack::start(lab, Plan::default())?;
    let mut orchestrator = stack.orchestrator()?;
    let volumes = bring_up(&mut orchestrator)?;
    mark_the_kernels_log()?;
    let writers = volumes
        .iter()
        .map(|volume| Writer::start(&file_of(volume), ROUND))
        .collect::<Result<Vec<_>>>()?;
    all_go_on(&writers)?;

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0_u32;
    while Instant::now() < until {
        rounds += 1;
        let round = round(lab, &stack, &mut dice)?;
        patiently("NodeStageVolume", || {
            orchestrator.stage(&volumes[dice.below(volumes.len())])
        })
        .with_context(|| format!("round {rounds}: {round}"))?;
        wait_until_whole(lab, volumes.len()).with_context(|| format!("round {rounds}: {round}"))?;
        all_go_on(&writers).with_context(|| format!("round {rounds}: {round}"))?;
    }

    let mut told = Vec::new();
    for (volume, writer) in volumes.iter().zip(writers) {
        let pause = writer.progress().longest_pause;
        let blocks = writer.finish().context("the writer saw an error")?;
        verify(&file_of(volume), blocks, ROUND)?;
        told.push(format!("{blocks} blocks, pause {} ms", pause.as_millis()));
    }
    expect_no_alarm()?;
    lab.story(format!(
        "{rounds} rounds in {seconds} s; {}; no error, no mismatch",
        told.join("; ")
    ));
    for volume in &volumes {
        orchestrator.bring_down(volume)?;
    }
    stack.stop(lab)
}

fn bring_up(orchestrator: &mut Orchestrator) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for access in [Access::Ext4, Access::Xfs, Access::Block] {
        let name = format!("{access:?}").to_lowercase();
        let mut volume = patiently("CreateVolume", || orchestrator.create(&name, SIZE, access))?;
        orchestrator.bring_up(&mut volume)?;
        volumes.push(volume);
    }
    Ok(volumes)
}

fn file_of(volume: &Volume) -> PathBuf {
    match volume.access {
        Access::Block => volume.target.clone(),
        _ => volume.target.join("data"),
    }
}

fn all_go_on(writers: &[Writer]) -> Result<()> {
    for writer in writers {
        writer.wait_for_more(4, PATIENCE)?;
    }
    Ok(())
}

/// One path hurt, none or one of the daemons killed meanwhile, the path healed. What was done.
fn round(lab: &mut Lab, stack: &Stack, dice: &mut Dice) -> Result<String> {
    let links: Vec<Link> = topology::paths().collect();
    let link = links[dice.below(links.len())];
    let injury = [Injury::Cut, Injury::BlackHole, Injury::Drop][dice.below(3)];
    let death = [
        None,
        Some(Death::Iscsid("TERM")),
        Some(Death::Iscsid("KILL")),
        Some(Death::Multipathd("TERM")),
        Some(Death::Multipathd("KILL")),
        Some(Death::Plugin),
    ][dice.below(6)];
    let told = format!("{injury:?} of {}, {death:?}", link.name());
    lab.story(&told);
    hurt(link, injury)?;
    std::thread::sleep(dice.moment(HURT));
    let died = death.map_or(Ok(()), |death| kill(lab, stack, death));
    std::thread::sleep(dice.moment(0..HURT.start));
    heal(link, injury)?;
    died.map(|()| told)
}

fn hurt(link: Link, injury: Injury) -> Result<()> {
    match injury {
        Injury::Cut => paths::cut(link),
        Injury::BlackHole => paths::black_hole(link),
        Injury::Drop => drop_connection(link),
    }
}

fn heal(link: Link, injury: Injury) -> Result<()> {
    match injury {
        Injury::Cut => paths::restore(link),
        Injury::BlackHole => paths::clear(link),
        Injury::Drop => Ok(()),
    }
}

/// The session's connection is reset, as by a firewall that forgot it; the link stays.
pub(super) fn drop_connection(link: Link) -> Result<()> {
    let portal = link.san_address(1);
    let argv = ["ss", "-K", "-t", "dst", &portal, "dport", "=", "3260"];
    let dropped = command::run(&argv, Duration::from_secs(20))?.success("ss -K")?;
    ensure!(
        dropped.contains(&portal),
        "no connection to {portal} was there to be dropped: {dropped}"
    );
    Ok(())
}

fn kill(lab: &mut Lab, stack: &Stack, death: Death) -> Result<()> {
    match death {
        Death::Iscsid(signal) => restart(Service::Iscsid, signal),
        Death::Multipathd(signal) => restart(Service::Multipathd, signal),
        Death::Plugin => {
            lab.daemons.kill("node")?;
            stack.start_node(lab)
        }
    }
}

fn restart(service: Service, signal: &str) -> Result<()> {
    service.hold_down(signal)?;
    service.release()
}

/// Until both sessions are logged in and the maps of so many volumes have both their paths: only then may the other path be hurt.
pub(super) fn wait_until_whole(lab: &Lab, volumes: usize) -> Result<()> {
    lab.wait_for("every session", PATIENCE, || {
        let mut states = Vec::new();
        for session in fs::read_dir("/sys/class/iscsi_session")? {
            states.push(fs::read_to_string(session?.path().join("state"))?);
        }
        let up = states.iter().filter(|state| state.trim() == "LOGGED_IN");
        let all = up.count() == states.len() && states.len() == usize::from(topology::PATHS);
        ensure!(all, "the sessions are {states:?}");
        Ok(Some(()))
    })?;
    lab.wait_for("every path in every map", PATIENCE, || {
        let show = ["multipathd", "show", "paths", "raw", "format", "%t %T"];
        let shown = lab.run(&show)?.stdout;
        let states: Vec<&str> = shown.lines().map(str::trim).collect();
        let wanted = volumes * usize::from(topology::PATHS);
        if states.len() == wanted && states.iter().all(|state| *state == "active ready") {
            return Ok(Some(()));
        }
        bail!("multipathd tells: {states:?}")
    })
}

const MARK: &str = "sanpath lab: the chaos begins";

fn mark_the_kernels_log() -> Result<()> {
    fs::write(Path::new("/dev/kmsg"), MARK).context("writing to the kernel's log")
}

fn expect_no_alarm() -> Result<()> {
    let log = command::run(&["dmesg"], Duration::from_secs(20))?.success("dmesg")?;
    let (_, since) = log.rsplit_once(MARK).context("the mark left the log")?;
    let alarms: Vec<&str> = since
        .lines()
        .filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)))
        .filter(|line| !PLEASANTRIES.iter().any(|word| line.contains(word)))
        .collect();
    ensure!(
        alarms.is_empty(),
        "errors reached the file systems:\n{}",
        alarms.join("\n")
    );
    Ok(())
}
