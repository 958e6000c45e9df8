//! The conformance suite of all kinds of SANs on the real one: the Linux SAN with its kernel target, on either pool.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sanpath::host::Host;
use sanpath::san::{Fleet, Rules, Settings};
use sanpath::tls::Papers;
use sanpath::volume::Family;

use super::linux_san::{San, Start};
use super::san_lvm::ThinPool;
use crate::conformance::{self, Capabilities, Subject};
use crate::kit::case::{Case, Lab};
use crate::kit::stack::Stack;

pub const CASES: &[Case] = &[Case {
    name: "conformance_of_reflink",
    deadline: Duration::from_secs(300),
    run: reflink,
}];

pub const LONG: &[Case] = &[Case {
    name: "conformance_of_lvm_thin",
    deadline: Duration::from_secs(600),
    run: lvm_thin,
}];

fn reflink(lab: &mut Lab) -> Result<()> {
    let start = Start::usual(lab);
    let has = Capabilities {
        extents: true,
        blank_copies: true,
        ..Capabilities::default()
    };
    conforms(lab, &start, has)
}

fn lvm_thin(lab: &mut Lab) -> Result<()> {
    let pool = ThinPool::make(lab, 900)?;
    let start = Start {
        pool: PathBuf::from(ThinPool::place()),
        ..Start::usual(lab)
    };
    let has = Capabilities {
        groups: true,
        blank_copies: true,
        ..Capabilities::default()
    };
    conforms(lab, &start, has)?;
    pool.remove(lab)
}

/// Runs the suite as a controller would call; it leaves nothing.
fn conforms(lab: &mut Lab, start: &Start, has: Capabilities) -> Result<()> {
    let san = San::start_as(lab, start)?;
    let host = Host::real(Path::new("/"));
    let settings = Settings {
        family: Family::Linux,
        sanhost: vec![Stack::san_address()],
        papers: Some(Papers::of_caller(&host, &lab.work_folder().join("tls"))),
        san_uuid: None,
        array: None,
        rules: Rules::default(),
    };
    let name = "a".parse()?;
    let inside = san.runtime.enter();
    let fleet = Fleet::new(BTreeMap::from([(name, settings)]));
    let subject = Subject {
        san: fleet.find(&"a".parse()?).context("the fleet has its SAN")?,
        has,
        prefix: "suite-".to_owned(),
    };
    san.runtime.block_on(conformance::all(&subject));
    drop(inside);
    let left = san
        .runtime
        .block_on(subject.san.list_volumes("", 10, conformance::until()))?;
    ensure!(left.volumes.is_empty(), "left: {:?}", left.volumes);
    drop((subject, fleet, san));
    lab.daemons.stop("san")
}
