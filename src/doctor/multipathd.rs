//! multipathd's part: whether it answers, how long I/O waits, what it is told to leave alone, maps without a path.

use super::Finding;
use crate::fault::chain;
use crate::host::Host;
use crate::multipath::{self, DaemonError, Reaches, Settings};

/// As `sanpath san` and every other LIO target calls itself.
const VENDOR: &str = "LIO-ORG";

pub(super) fn check_multipathd(host: &Host) -> Vec<Finding> {
    match multipath::read_settings(host) {
        Ok(settings) => vec![
            Finding::good("multipathd", "it answers"),
            check_retry(&settings),
            check_blacklist(&settings),
        ],
        Err(error) => vec![silent(&error)],
    }
}

fn silent(error: &DaemonError) -> Finding {
    let (found, fix) = if error.is_absent() {
        (
            "it does not run".to_owned(),
            "install multipath-tools (RHEL: device-mapper-multipath) and systemctl enable --now multipathd; in a container use the host's network",
        )
    } else {
        (
            chain(error),
            "see `journalctl -u multipathd`; a hanging path checker needs the SAN or network back; as a last resort systemctl restart multipathd, which leaves maps in use alone",
        )
    };
    Finding::problem(
        "multipathd",
        found,
        "it makes the maps that volumes are used through, and brings paths back",
        fix,
    )
}

fn check_retry(settings: &Settings) -> Finding {
    const CHECK: &str = "no-path-retry";
    const FIX: &str = "set no_path_retry to a number of checks (12 is a minute) in a device section for LIO-ORG of /etc/multipath/conf.d, or noPathRetry in the StorageClass; see docs/recovery.md";
    match settings.retry_for(VENDOR) {
        "queue" => Finding::warning(
            CHECK,
            "no_path_retry is queue",
            "while no path works I/O waits for ever: pods hang and cannot be killed, and neither can what looks at their file systems",
            FIX,
        ),
        "fail" | "0" => Finding::warning(
            CHECK,
            "no_path_retry is fail",
            "a moment without any path makes file systems read-only and databases stop",
            FIX,
        ),
        checks => Finding::good(CHECK, format!("{checks} checks")),
    }
}

fn check_blacklist(settings: &Settings) -> Finding {
    const CHECK: &str = "multipath-blacklist";
    let bans = settings.bans_on_disks();
    if bans.is_empty() {
        return Finding::good(CHECK, "it spares SCSI disks");
    }
    Finding::problem(
        CHECK,
        format!("it holds {}", bans.join(", ")),
        "multipathd makes no map of a disk that it is told to leave alone",
        "take that out of the blacklist sections of /etc/multipath.conf and /etc/multipath/conf.d, or name the SAN in blacklist_exceptions; then systemctl reload multipathd",
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
