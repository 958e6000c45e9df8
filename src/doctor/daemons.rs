//! What the daemon that runs here knows already: volumes that lack paths or more, addresses that do not answer.

use std::path::Path;
use std::time::Duration;

use super::Finding;
use crate::admin::{
    AddressRow, Answer, Question, SanhostRow, VolumeRow, ask, controller_socket, node_socket,
};
use crate::fault::chain;

/// An answer that takes longer than a daemon in good health needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The volumes of the node daemon.
pub(super) fn check_volumes(runtime_dir: &Path) -> Vec<Finding> {
    const CHECK: &str = "volume";
    let answer = ask(&node_socket(runtime_dir), &Question::Volumes {}, PATIENCE);
    let rows = match answer {
        Ok(Answer::Volumes(rows)) => rows,
        Ok(_) => return vec![silent("it answered something else")],
        Err(error) => return vec![silent(chain(&error))],
    };
    let mut findings = vec![Finding::good("daemon", format!("{} volumes", rows.len()))];
    findings.extend(rows.iter().filter_map(|row| volume_finding(CHECK, row)));
    findings
}

fn silent(found: impl Into<String>) -> Finding {
    Finding::warning(
        "daemon",
        found,
        "the driver's own daemon does not run here, or has another --runtime-dir; without it volumes are served as they are, and no path is brought back",
        "see its pod or unit, and `kubectl logs`; or say with --runtime-dir where its socket is",
    )
}

fn volume_finding(check: &'static str, row: &VolumeRow) -> Option<Finding> {
    let lacks = row
        .active_paths
        .is_some_and(|active| active < row.wanted_paths);
    if row.to_do.is_none() && !(lacks && row.stage == "staged") {
        return None;
    }
    let paths = row
        .active_paths
        .map_or_else(|| "?".to_owned(), |paths| paths.to_string());
    let found = format!(
        "{}: {paths}/{} paths, file system {}",
        row.volume, row.wanted_paths, row.file_system
    );
    let fix = row.to_do.clone();
    let fix = fix.unwrap_or_else(|| {
        format!(
            "`sanpath paths {}` says which path lacks and why",
            row.volume
        )
    });
    let finding = match row.active_paths {
        Some(0) => Finding::problem(check, found, "it is not served", fix),
        _ => Finding::warning(check, found, "it is served by less than it should be", fix),
    };
    Some(finding)
}

/// The management addresses as the controller daemon knows them.
pub(super) fn check_sanhosts(runtime_dir: &Path) -> Vec<Finding> {
    let question = Question::Sanhosts { partition: None };
    let answer = ask(&controller_socket(runtime_dir), &question, PATIENCE);
    match answer {
        Ok(Answer::Sanhosts(rows)) => rows.iter().flat_map(san_findings).collect(),
        Ok(_) => vec![silent("it answered something else")],
        Err(error) => vec![silent(chain(&error))],
    }
}

fn san_findings(row: &SanhostRow) -> Vec<Finding> {
    const CHECK: &str = "sanhost";
    if let Some(why) = &row.refused {
        return vec![Finding::problem(
            CHECK,
            format!("{}: {why}", row.partition),
            "no call is sent to either SAN",
            "leave the addresses of one SAN in the list",
        )];
    }
    let is_served = row.addresses.iter().any(|address| address.in_use);
    let grade = |address: &AddressRow| {
        let why = address.error.as_deref().unwrap_or("it does not say why");
        let found = format!(
            "{} {} is {}: {why}",
            row.partition, address.address, address.state
        );
        let fix = "see the way there and the SAN's daemon; docs/sanhost.md explains the states";
        match address.state.as_str() {
            "good" | "untried" => Finding::good(
                CHECK,
                format!("{} {} is {}", row.partition, address.address, address.state),
            ),
            _ if is_served => Finding::warning(CHECK, found, "another address serves", fix),
            _ => Finding::problem(
                CHECK,
                found,
                "the SAN cannot be managed: volumes are neither created nor attached",
                fix,
            ),
        }
    };
    row.addresses.iter().map(grade).collect()
}
