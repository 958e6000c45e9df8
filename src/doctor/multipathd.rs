//! multipathd's part: whether it answers, how it treats the disks of each family of SANs, maps without a path.

use std::path::Path;

use super::Finding;
use crate::fault::chain;
use crate::host::Host;
use crate::multipath::{self, DaemonError, MAKERS, Maker, Reaches, Settings};

const DISKS: &str = "/sys/block";
/// Where whoever runs the machine says what he wants.
const FILES: &str = "/etc/multipath.conf and /etc/multipath/conf.d";
const RELOAD: &str = "systemctl reload multipathd";

pub(super) fn check_multipathd(host: &Host) -> Vec<Finding> {
    let settings = match multipath::read_settings(host) {
        Ok(settings) => settings,
        Err(error) => return vec![silent(&error)],
    };
    let makers = makers_here(host);
    let mut findings = vec![Finding::good("multipathd", "it answers")];
    findings.extend(makers.iter().map(|maker| check_device(&settings, maker)));
    findings.extend(
        makers
            .iter()
            .filter_map(|maker| check_failback(&settings, maker)),
    );
    findings.extend(makers.iter().map(|maker| check_retry(&settings, maker)));
    findings.extend(makers.iter().map(|maker| check_name(&settings, maker)));
    findings.push(check_find(&settings));
    findings.push(check_blacklist(&settings, &makers));
    findings
}

/// Linux' own target, which `sanpath san` is, and whoever else has a disk here.
fn makers_here(host: &Host) -> Vec<&'static Maker> {
    let disks = host.list(Path::new(DISKS)).unwrap_or_default();
    let vendor = |disk| {
        let path = Path::new(DISKS).join(disk).join("device/vendor");
        host.find_attribute(&path).ok().flatten()
    };
    let vendors: Vec<String> = disks.into_iter().filter_map(vendor).collect();
    let is_here = |(index, maker): &(usize, &'static Maker)| {
        *index == 0 || vendors.iter().any(|it| it == maker.vendor)
    };
    let here = MAKERS.iter().enumerate().filter(is_here);
    here.map(|(_, maker)| maker).collect()
}

fn silent(error: &DaemonError) -> Finding {
    const REASON: &str = "it makes the maps that volumes are used through, and brings paths back";
    if error.is_absent() {
        return Finding::problem(
            "multipathd",
            "it does not run",
            REASON,
            "install multipath-tools (RHEL: device-mapper-multipath) and start it; in a container use the host's network",
        )
        .with_command("systemctl enable --now multipathd");
    }
    Finding::problem(
        "multipathd",
        chain(error),
        REASON,
        "see `journalctl -u multipathd`; a hanging path checker needs the SAN or network back; as a last resort systemctl restart multipathd, which leaves maps in use alone",
    )
}

fn check_device(settings: &Settings, maker: &Maker) -> Finding {
    const CHECK: &str = "multipath-device";
    if settings.knows(maker.vendor) {
        let says = |word| settings.value_for(maker.vendor, word);
        let mut needs = maker.needs.iter();
        return match needs.find(|(word, value)| says(word) != Some(value)) {
            None => Finding::good(CHECK, format!("{}: it has a section", maker.vendor)),
            Some((word, value)) => lacks(maker, word, (says(word), value)),
        };
    }
    Finding::warning(
        CHECK,
        format!("{}: multipathd has no device section", maker.vendor),
        "paths are used by multipath's plain defaults: no priorities from the SAN, no return to the better path",
        "write one, as `sanpath host-setup --check` shows it",
    )
    .with_command(format!("sanpath host-setup --apply && {RELOAD}"))
}

/// Its section lacks what these disks need.
fn lacks(maker: &Maker, word: &str, (found, wanted): (Option<&str>, &str)) -> Finding {
    let found = found.unwrap_or("not set");
    Finding::warning(
        "multipath-device",
        format!("{}: {word} is {found}", maker.vendor),
        "paths that could share the work stand by",
        format!(
            "set {word} {wanted} in its device section, as `sanpath host-setup --check` shows it"
        ),
    )
    .with_command(format!("sanpath host-setup --apply && {RELOAD}"))
}

/// Where paths are grouped by what the disks say of them. The kernel takes each path for a good one until it has asked the disk, so a map that is made in
/// between has all paths in one group; multipathd groups them anew when they say something else, but only with `immediate` (`update_mpp_prio` in its `main.c`).
fn check_failback(settings: &Settings, maker: &Maker) -> Option<Finding> {
    const CHECK: &str = "multipath-failback";
    let policy = settings.value_for(maker.vendor, "path_grouping_policy")?;
    if policy != "group_by_prio" {
        return None;
    }
    let failback = settings.value_for(maker.vendor, "failback");
    let found = format!(
        "{}: failback is {}",
        maker.vendor,
        failback.unwrap_or("manual")
    );
    if failback == Some("immediate") {
        return Some(Finding::good(CHECK, found));
    }
    let fix = format!("take failback out of {FILES}, or set it to immediate there, then {RELOAD}");
    let reason = "I/O stays on the worse path after the better one was away, or when a volume came before the kernel knew which is the better one";
    Some(Finding::warning(CHECK, found, reason, fix))
}

fn check_retry(settings: &Settings, maker: &Maker) -> Finding {
    const CHECK: &str = "no-path-retry";
    let (word, reason) = match settings.retry_for(maker.vendor) {
        "queue" => (
            "queue",
            "while no path works I/O waits for ever: pods hang and cannot be killed, and neither can what looks at their file systems",
        ),
        "fail" | "0" => (
            "fail",
            "a moment without any path makes file systems read-only and databases stop",
        ),
        checks => return Finding::good(CHECK, format!("{}: {checks} checks", maker.vendor)),
    };
    let found = format!("{}: no_path_retry is {word}", maker.vendor);
    if settings.is_overridden("no_path_retry") {
        let fix = format!(
            "take no_path_retry out of the overrides section of {FILES}, where it overrules every SAN's own, then {RELOAD}; or noPathRetry in the StorageClass; see docs/recovery.md"
        );
        return Finding::warning(CHECK, found, reason, fix);
    }
    Finding::warning(
        CHECK,
        found,
        reason,
        "set it to a number of checks (12 is a minute) in a device section of a drop-in, as `sanpath host-setup --check` shows it; or noPathRetry in the StorageClass; see docs/recovery.md",
    )
    .with_command(format!("sanpath host-setup --apply && {RELOAD}"))
}

/// The WWID of a map is what udev says under this name.
fn check_name(settings: &Settings, maker: &Maker) -> Finding {
    const CHECK: &str = "multipath-uid";
    match settings.value_for(maker.vendor, "uid_attribute") {
        None | Some("ID_SERIAL") => Finding::good(CHECK, format!("{}: ID_SERIAL", maker.vendor)),
        Some(other) => Finding::problem(
            CHECK,
            format!("{}: uid_attribute is {other}", maker.vendor),
            "maps go by other names than the volumes they are of, and the driver uses no map that it cannot prove to be its volume's",
            format!("take uid_attribute out of {FILES}, then {RELOAD}"),
        ),
    }
}

fn check_find(settings: &Settings) -> Finding {
    const CHECK: &str = "find-multipaths";
    match settings.default_of("find_multipaths").unwrap_or("strict") {
        word @ ("greedy" | "off" | "no") => Finding::warning(
            CHECK,
            format!("find_multipaths is {word}"),
            "multipathd takes every disk that nobody forbids it, the machine's own ones and those of other drivers too",
            format!(
                "set find_multipaths strict in the defaults section of {FILES}, then {RELOAD}; the driver names its own disks to multipathd"
            ),
        ),
        word => Finding::good(CHECK, word.to_owned()),
    }
}

fn check_blacklist(settings: &Settings, makers: &[&'static Maker]) -> Finding {
    const CHECK: &str = "multipath-blacklist";
    let mut bans: Vec<String> = Vec::new();
    for maker in makers {
        let new = settings.bans_on(maker).into_iter();
        let new: Vec<_> = new.filter(|ban| !bans.contains(ban)).collect();
        bans.extend(new);
    }
    if bans.is_empty() {
        return Finding::good(CHECK, "it spares SCSI disks");
    }
    Finding::problem(
        CHECK,
        format!("it holds {}", bans.join(", ")),
        "multipathd makes no map of a disk that it is told to leave alone",
        format!(
            "take that out of the blacklist sections of {FILES}, or take it back for the SAN by a line of the same kind in blacklist_exceptions; then {RELOAD}"
        ),
    )
}

/// A map without a path is a volume that hangs or has failed, or a rest that somebody left.
pub(super) fn check_maps(host: &Host) -> Vec<Finding> {
    const CHECK: &str = "map";
    let maps = multipath::list_maps(host).unwrap_or_default();
    // That multipathd does not answer is told elsewhere.
    let Ok(reaches) = Reaches::read(host) else {
        return Vec::new();
    };
    let dead = maps.iter().filter(|map| reaches.of(map).is_dead());
    let findings: Vec<Finding> = dead
        .map(|map| {
            Finding::warning(
                CHECK,
                format!("{} ({}) has no path that works", map.name, map.dm),
                "its volume's I/O waits or fails; or it is the rest of a volume that is gone",
                "see `sanpath node volumes` whether a volume has it; if none has, `multipath -f` takes it away",
            )
        })
        .collect();
    if findings.is_empty() {
        let found = format!("{} maps, none without a path", maps.len());
        return vec![Finding::good(CHECK, found)];
    }
    findings
}
