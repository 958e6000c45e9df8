//! A simulated EqualLogic group whose volumes exist: initiators know one address, and each login is sent on to a member (RFC 7143, 11.13.5).
//!
//! That open-iscsi follows is what makes the redirector count: it was not written by us, and goes wherever a login's answer says.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::arrays::{self, Disks, SOON};
use crate::kit::array::{HostSetUp, Rig};
use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::csi::Volume;
use crate::kit::equallogic::{self, GROUP, Loss, MemberNumber, Served};
use crate::kit::writer::Writer;

pub const CASES: &[Case] = &[Case {
    name: "array_equallogic",
    deadline: Duration::from_secs(360),
    run: equallogic,
}];

const GIB: i64 = 1 << 30;

/// A member is lost, and then the one on which all are then: sessions come back through the group's address.
fn equallogic(lab: &mut Lab) -> Result<()> {
    let set_up = HostSetUp::apply(lab, "")?;
    let rig = equallogic::start(lab)?;
    let disks = Disks {
        vendor: "EQLOGIC",
        product: "100E-00",
        wwid: "36090a0",
        features: "queue_if_no_path",
        // All ways are alike.
        priorities: &[1],
        hwhandler: "0",
        // multipath's default: this release has no entry for these disks, and going back means nothing in one group.
        failback: "manual",
        sizes: [GIB, 2 * GIB],
    };
    arrays::life(lab, &rig, &disks, |volume, writer| {
        members_are_lost(lab, &rig, volume, writer)
    })?;
    equallogic::is_empty(&rig.server)?;
    equallogic::stop(lab, rig)?;
    set_up.undo()
}

fn members_are_lost(lab: &Lab, rig: &Rig<Served>, volume: &Volume, writer: &Writer) -> Result<()> {
    // Members take turns; on a slow machine a login may have been tried twice, and both sessions be at one.
    let sent = rig.server.redirector.sent().len();
    let all = at();
    ensure!(
        sent >= 2 && all.len() == 2,
        "{sent} logins were sent on: {all:?}"
    );
    let serves = |number: &MemberNumber| all.iter().any(|it| it.is_at(*number));
    let numbers = [MemberNumber(1), MemberNumber(2)].into_iter();
    let first = numbers.clone().find(serves).context("no member serves")?;
    one_is_lost(lab, rig, volume, writer, (first, Loss::Stops))?;
    equallogic::bring_back(lab, rig, first, Loss::Stops)?;
    // Nothing moves by itself: both sessions go at once, and until they are back I/O has nowhere to go.
    let second = first.other();
    ensure!(at().iter().all(|it| it.is_at(second)), "{:?}", at());
    one_is_lost(lab, rig, volume, writer, (second, Loss::Dies))?;
    equallogic::bring_back(lab, rig, second, Loss::Dies)
}

/// Both sessions are at the other member, each by way of the group's address, and the writer goes on.
fn one_is_lost(
    lab: &Lab,
    rig: &Rig<Served>,
    volume: &Volume,
    writer: &Writer,
    (member, loss): (MemberNumber, Loss),
) -> Result<()> {
    let before = rig.server.redirector.sent().len();
    let moved = at().iter().filter(|it| it.is_at(member)).count();
    writer.forget_pauses();
    let start = Instant::now();
    equallogic::lose(lab, rig, member, loss)?;
    let other = member.other();
    lab.wait_for("both sessions to be at the other member", SOON, || {
        let found = at();
        let are_there = found.len() == 2 && found.iter().all(|it| it.is_at(other));
        ensure!(are_there, "{found:?}");
        Ok(Some(()))
    })?;
    let took = start.elapsed();
    arrays::both_ways(lab, volume)?;
    are_told_as_written(lab)?;
    let pause = writer.wait_for_more(4, SOON)?.longest_pause;
    let sent = rig.server.redirector.sent().split_off(before);
    let is_there = sent.iter().all(|it| it.to.starts_with(other.address()));
    ensure!(
        moved > 0 && sent.len() >= moved && is_there,
        "{moved} sessions: {sent:?}"
    );
    lab.story(format!(
        "{member:?} {loss:?}: {moved} sessions moved after {} ms, {} logins sent on, the longest pause {} ms",
        took.as_millis(),
        sent.len(),
        pause.as_millis()
    ));
    Ok(())
}

/// To an operator they lead where his list says, whichever member serves behind that.
fn are_told_as_written(lab: &Lab) -> Result<()> {
    let portal = format!("{GROUP}:3260");
    let row = |iface: &str| [iface, &portal, "logged in", "active"].map(str::to_owned);
    let wanted = [row("path1"), row("path2")];
    lab.wait_for("the plugin to see both", SOON, || {
        let told = lab.execute(&[SANPATH, "paths", "--output", "json"])?;
        let told: Value = serde_json::from_str(&told)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |path: &Value| ["iface", "portal", "session", "state"].map(|of| text(&path[of]));
        let paths = told[0]["paths"].as_array().into_iter().flatten();
        let mut rows: Vec<[String; 4]> = paths.map(row).collect();
        rows.sort();
        ensure!(rows == wanted, "{told}");
        Ok(Some(()))
    })
}

/// A session's two addresses.
#[derive(Debug)]
struct At {
    current: String,
    asked: String,
    state: String,
}

impl At {
    /// It serves there, and was asked for at the group's address.
    fn is_at(&self, member: MemberNumber) -> bool {
        self.current == member.address() && self.asked == GROUP && self.state == "LOGGED_IN"
    }
}

/// Where every session is. One that has lost its connection is nowhere.
fn at() -> Vec<At> {
    let class = Path::new("/sys/class");
    let told = |path: String| {
        let text = fs::read_to_string(class.join(path)).unwrap_or_default();
        text.trim().to_owned()
    };
    let entries = fs::read_dir(class.join("iscsi_session"));
    let names = entries.into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let session = |name: String| {
        let connection = name.replace("session", "connection");
        At {
            current: told(format!("iscsi_connection/{connection}:0/address")),
            asked: told(format!(
                "iscsi_connection/{connection}:0/persistent_address"
            )),
            state: told(format!("iscsi_session/{name}/state")),
        }
    };
    names.map(session).collect()
}
