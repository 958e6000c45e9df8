//! Two groups of portals whose states are changed under I/O: hosts are told by the disks, leave a group before its link goes, and the writer sees nothing of it.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::certificates;
use crate::kit::csi::Access;
use crate::kit::paths;
use crate::kit::stack::{Plan, Stack};
use crate::kit::topology::Link;
use crate::kit::writer::Writer;

pub const LONG: &[Case] = &[Case {
    name: "san_alua_under_io",
    deadline: Duration::from_secs(500),
    run: under_io,
}];

const SIZE: i64 = 64 << 20;
/// multipathd looks at each path's priority every few seconds.
const SEEN: Duration = Duration::from_secs(90);
/// What the two states are called at the command line.
const OPTIMIZED_WORD: &str = "optimized";
const NON_OPTIMIZED_WORD: &str = "non-optimized";
/// What the two states are to multipathd (`alua` of libmultipath).
const OPTIMIZED: u32 = 50;
const NON_OPTIMIZED: u32 = 10;

fn under_io(lab: &mut Lab) -> Result<()> {
    let plan = Plan {
        portals: &["10.101.1.1"],
        ncpaths: Some("10.101.1.1,10.102.1.1"),
        san_arguments: vec!["--second-portal".to_owned(), "10.102.1.1".to_owned()],
        ..Plan::default()
    };
    let stack = Stack::start(lab, plan)?;
    let mut operator = Operator::new(lab, &stack)?;
    let mut orchestrator = stack.orchestrator()?;
    let mut volume = orchestrator.create_attached("announced", SIZE, Access::Ext4)?;
    orchestrator.bring_up(&mut volume)?;
    let writer = Writer::start(&volume.target.join("data"), 256)?;
    wait_for(lab, OPTIMIZED, OPTIMIZED)?;
    operator.set(lab, 2, NON_OPTIMIZED_WORD)?;
    wait_for(lab, OPTIMIZED, NON_OPTIMIZED)?;
    writer.wait_for_more(2, SEEN)?;
    ensure!(
        written_over(lab, Link(2), &writer)? == 0,
        "the second link is used"
    );

    // The announced maintenance: nothing is on the link when it goes.
    paths::cut(Link(2))?;
    writer.wait_for_more(4, SEEN)?;
    paths::restore(Link(2))?;
    wait_for(lab, OPTIMIZED, NON_OPTIMIZED)?;
    // The other one, and back and forth.
    for round in 0..4 * lab.scale {
        let (away, there) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        operator.set(lab, there, OPTIMIZED_WORD)?;
        operator.set(lab, away, NON_OPTIMIZED_WORD)?;
        let expected = if away == 1 {
            (NON_OPTIMIZED, OPTIMIZED)
        } else {
            (OPTIMIZED, NON_OPTIMIZED)
        };
        wait_for(lab, expected.0, expected.1)?;
        writer.wait_for_more(2, SEEN)?;
    }
    operator.set(lab, 1, OPTIMIZED_WORD)?;
    operator.set(lab, 2, OPTIMIZED_WORD)?;
    wait_for(lab, OPTIMIZED, OPTIMIZED)?;
    writer.wait_for_more(2, SEEN)?;
    let blocks = writer.finish().context("an error reached the writer")?;
    lab.story(format!(
        "{blocks} blocks written and no error, while the states of both groups changed {} times",
        operator.changes
    ));
    orchestrator.bring_down(&volume)?;
    stack.stop(lab)
}

/// Until multipathd has these priorities for the paths of both links.
fn wait_for(lab: &Lab, first: u32, second: u32) -> Result<()> {
    let begun = Instant::now();
    lab.wait_for("the priorities of both paths", SEEN, || {
        let found = (priority(lab, Link(1))?, priority(lab, Link(2))?);
        let reached = found == (Some(first), Some(second));
        ensure!(reached, "the priorities are {found:?}");
        Ok(Some(()))
    })?;
    lab.story(format!(
        "priorities {first} and {second} after {} s",
        begun.elapsed().as_secs()
    ));
    Ok(())
}

fn priority(lab: &Lab, link: Link) -> Result<Option<u32>> {
    let disk = disk_over(link)?;
    let shown = lab.execute(&[
        "multipathd",
        "show",
        "paths",
        "raw",
        "format",
        "%d %p %t %T",
    ])?;
    let line = shown.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(disk.as_str()))
            .then(|| (words.next(), line.ends_with("active ready")))
    });
    Ok(match line {
        Some((Some(priority), true)) => priority.parse().ok(),
        _ => None,
    })
}

/// The disk that is reached over a link.
fn disk_over(link: Link) -> Result<String> {
    for session in fs::read_dir("/sys/class/iscsi_session")? {
        let session = session?;
        let name = session.file_name().to_string_lossy().into_owned();
        let connection = name.replace("session", "connection") + ":0";
        let at = fs::read_to_string(format!(
            "/sys/class/iscsi_connection/{connection}/persistent_address"
        ))?;
        if at.trim() != link.san_address(1) {
            continue;
        }
        let device = fs::canonicalize(session.path().join("device"))?;
        for disk in fs::read_dir("/sys/block")? {
            let disk = disk?;
            if fs::canonicalize(disk.path())?.starts_with(&device) {
                return Ok(disk.file_name().to_string_lossy().into_owned());
            }
        }
    }
    anyhow::bail!("no disk over {}", link.name())
}

/// Sectors that were written over the link while the writer wrote some more blocks.
fn written_over(lab: &Lab, link: Link, writer: &Writer) -> Result<u64> {
    let stat = format!("/sys/block/{}/stat", disk_over(link)?);
    let count = || -> Result<u64> {
        let text = fs::read_to_string(&stat)?;
        let sectors = text.split_whitespace().nth(6);
        Ok(sectors.context("no count of sectors")?.parse()?)
    };
    let before = count()?;
    writer.wait_for_more(3, SEEN)?;
    let written = count()? - before;
    lab.story(format!("{written} sectors written over {}", link.name()));
    Ok(written)
}

/// The operator at his command line.
struct Operator {
    folder: PathBuf,
    changes: u32,
}

impl Operator {
    fn new(lab: &Lab, stack: &Stack) -> Result<Self> {
        let folder = lab.work_folder().join("operator");
        certificates::ensure_of_caller(lab, &stack.san_state(), "operator", &folder)?;
        Ok(Operator { folder, changes: 0 })
    }

    /// What the command shows.
    fn run(&self, lab: &Lab, more: &[&str]) -> Result<String> {
        let (address, tls) = (Stack::san_address(), self.folder.display().to_string());
        let command = [SANPATH, "san", "portal-groups"];
        let options = ["--address", &address, "--tls", &tls];
        lab.execute(&[&command[..], more, &options].concat())
    }

    fn set(&mut self, lab: &Lab, number: u32, access: &str) -> Result<()> {
        let shown = self.run(lab, &[&number.to_string(), access])?;
        let line = shown.lines().nth(usize::try_from(number)?);
        let found = line.and_then(|line| line.split_whitespace().nth(1));
        ensure!(found == Some(access), "it shows {shown}");
        self.changes += 1;
        Ok(())
    }
}
