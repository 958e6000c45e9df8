//! What a SAN box needs, in the order in which its daemon meets it; whether that runs or not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::certificates::{Mend, check_papers, check_privacy};
use super::{Finding, Report, kernel, machine};
use crate::fault::chain;
use crate::host::Host;
use crate::linux_san::{Certificates, Engine, Management, Room, SanOptions};
use crate::mount::MountTable;
use crate::tls::{Papers, san_named_in};

/// What puts targets of targetcli's making back at boot, by the names of distributions.
const RESTORERS: [&str; 3] = [
    "target.service",
    "rtslib-fb-targetctl.service",
    "targetclid.service",
];
const WANTS: &str = "etc/systemd/system/multi-user.target.wants";
/// The kernel's list of its IPv6 addresses.
const IPV6: &str = "/proc/net/if_inet6";

/// How the SAN is set up: its daemon's own arguments.
#[derive(Clone, Debug)]
pub struct SanSetup {
    /// Pool, portals, state.
    pub options: SanOptions,
    /// Where it is managed.
    pub listen: Vec<SocketAddr>,
    /// How long an address may take to answer.
    pub patience: Duration,
}

/// Looks at all of it.
#[must_use]
pub fn examine_san(host: &Host, setup: &SanSetup) -> Report {
    let options = &setup.options;
    let mut findings = vec![check_options(options)];
    findings.extend(check_modules(host, options));
    findings.push(check_configfs(host, options));
    findings.extend(check_state(host, options));
    findings.push(check_pool(host, options));
    findings.extend(check_addresses(host, setup));
    findings.extend(check_listening(host, setup));
    findings.extend(check_certificates(host, options));
    findings.push(check_foreign(host, options));
    findings.extend(check_restorers(host));
    findings.push(machine::check_clock(host));
    Report::new("san", findings)
}

fn check_options(options: &SanOptions) -> Finding {
    const CHECK: &str = "options";
    match options.check() {
        Ok(()) => Finding::good(CHECK, "they can be"),
        Err(error) => Finding::problem(
            CHECK,
            chain(&error),
            "the daemon does not start with them",
            "change them in its unit and in this command; `sanpath san --help` explains each",
        ),
    }
}

fn check_modules(host: &Host, options: &SanOptions) -> Vec<Finding> {
    const REASON: &str = "the daemon has it loaded at its start, and fails where it is not installed or a locked-down kernel refuses it";
    let modules = Engine::modules(options).into_iter();
    modules
        .map(|module| kernel::check_module(host, Path::new("/"), module, REASON))
        .collect()
}

fn check_configfs(host: &Host, options: &SanOptions) -> Finding {
    const CHECK: &str = "configfs";
    let place = options.configfs.parent().unwrap_or(&options.configfs);
    let table = MountTable::read(host);
    let top = table.as_ref().ok().and_then(|table| table.find_top(place));
    if top.is_some_and(|mount| mount.kind == "configfs") {
        return Finding::good(CHECK, format!("it is mounted at {}", place.display()));
    }
    Finding::problem(
        CHECK,
        format!("it is not mounted at {}", place.display()),
        "the kernel's target is set up through it",
        "mount it; systemd does by itself (sys-kernel-config.mount)",
    )
    .with_command(format!("mount -t configfs configfs {}", place.display()))
}

fn check_state(host: &Host, options: &SanOptions) -> Vec<Finding> {
    const CHECK: &str = "state-dir";
    let dir = &options.state_dir;
    if !matches!(host.find_stat(dir), Ok(Some(_))) {
        return vec![Finding::problem(
            CHECK,
            format!("{} is not there", dir.display()),
            "in it the SAN keeps which volumes there are and who has them; if there were volumes, the file system that it is on may not be mounted",
            "mount what it is on; for a new SAN make its certificates, and with them the folder",
        )
        .with_command(format!("sanpath san init --state-dir {}", dir.display()))];
    }
    let secret = ["", "ca", "ca/ca.pem", "tls", "tls/tls.key"];
    let places = secret.into_iter().map(|part| match part {
        "" => dir.clone(),
        part => dir.join(part),
    });
    let open: Vec<Finding> = places
        .filter_map(|path| check_privacy(host, CHECK, &path))
        .collect();
    if open.is_empty() {
        return vec![Finding::good(
            CHECK,
            format!("{} is its owner's alone", dir.display()),
        )];
    }
    open
}

fn check_pool(host: &Host, options: &SanOptions) -> Finding {
    const CHECK: &str = "pool";
    let pool = options.pool.display();
    let sight = match Engine::look_at_pool(host, options) {
        Ok(sight) => sight,
        Err(error) => {
            return Finding::problem(
                CHECK,
                chain(&error),
                "nothing is served without the very pool that the state knows",
                "mount the pool's file system or bring its disks back; a new pool is a directory on XFS (mkfs.xfs -m reflink=1) or btrfs, or a thin pool of LVM; see docs/san.md",
            );
        }
    };
    let (available, total) = (sight.space.available >> 20, sight.space.total >> 20);
    let found = format!("{pool}: {available} of {total} MiB are left");
    const FIX: &str = "add space to the pool's file system or thin pool, or delete volumes and snapshots; docs/san.md, \"A full pool\"";
    match sight.room {
        Room::Enough if sight.is_new => Finding::good(CHECK, format!("{found}, for a new SAN")),
        Room::Enough => Finding::good(CHECK, found),
        Room::Low => Finding::warning(
            CHECK,
            found,
            "volumes are thin: they may have been promised more than there is",
            FIX,
        ),
        Room::Reserved => Finding::problem(
            CHECK,
            found,
            "nothing new is made; when it is full, writes that need new blocks are refused and file systems on it fail",
            FIX,
        ),
    }
}

/// Whether the addresses that are promised are this machine's.
fn check_addresses(host: &Host, setup: &SanSetup) -> Vec<Finding> {
    const CHECK: &str = "own-address";
    let own = own_addresses(host);
    let options = &setup.options;
    let portals = options.portals.iter().chain(&options.second_portals);
    let portals = portals.map(|portal| (format!("--portal {portal}"), portal.address()));
    let listen = setup.listen.iter();
    let listen = listen.map(|address| (format!("--listen {address}"), address.ip()));
    let all = portals.chain(listen);
    let absent = all.filter(|(_, address)| !address.is_unspecified() && !own.contains(address));
    let findings: Vec<Finding> = absent
        .map(|(shown, address)| {
            Finding::problem(
                CHECK,
                format!("{shown}: no interface of this machine has {address}"),
                "nobody can be served at an address that is not here: a portal does not come up, and a daemon that cannot listen ends",
                format!("give the interface that carries this path the address: ip address add {address}/PREFIX dev INTERFACE, and the same in the host's network configuration"),
            )
        })
        .collect();
    if findings.is_empty() {
        return vec![Finding::good(
            CHECK,
            "all portals and management addresses are here",
        )];
    }
    findings
}

fn own_addresses(host: &Host) -> Vec<IpAddr> {
    let ipv4 = host.addresses().unwrap_or_default();
    let mut own: Vec<IpAddr> = ipv4.into_iter().map(|it| it.address.into()).collect();
    let text = host.read(Path::new(IPV6)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let ipv6 = words.filter_map(|word| u128::from_str_radix(word, 16).ok());
    own.extend(ipv6.map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
    own
}

fn check_listening(host: &Host, setup: &SanSetup) -> Vec<Finding> {
    const CHECK: &str = "management";
    let ask = |address: &SocketAddr| {
        let mut place = *address;
        if place.ip().is_unspecified() {
            place.set_ip(match place {
                SocketAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        host.probe_tcp(place, None, setup.patience)
    };
    let found = setup.listen.iter().map(|address| match ask(address) {
        Ok(()) => Finding::good(CHECK, format!("somebody listens at {address}")),
        Err(error) => Finding::problem(
            CHECK,
            format!("nobody listens at {address}: {error}"),
            "volumes are neither created nor attached; those that are attached serve on, as the kernel does that",
            "start the daemon (`systemctl start sanpath-san`); its log says why it does not stay",
        ),
    });
    found.collect()
}

fn check_certificates(host: &Host, options: &SanOptions) -> Vec<Finding> {
    if options.management == Management::Plaintext {
        return Vec::new();
    }
    let folder = Certificates::folder_in(&options.state_dir);
    let state = options.state_dir.display();
    let (init, renew) = (
        format!("sanpath san init --state-dir {state}"),
        format!("sanpath san renew --state-dir {state}"),
    );
    let uuid = match san_named_in(host, &folder) {
        Ok(uuid) => uuid,
        Err(error) => {
            return vec![
                Finding::problem(
                    "certificate",
                    chain(&error),
                    "the daemon does not start without it",
                    "make the SAN's certificates",
                )
                .with_command(init),
            ];
        }
    };
    let mend = Mend {
        fix: "make a new one; the daemon takes it at the next connection",
        command: Some(&renew),
    };
    vec![check_papers(
        host,
        &Papers::of_san(host, &folder, uuid),
        &mend,
    )]
}

fn check_foreign(host: &Host, options: &SanOptions) -> Finding {
    const CHECK: &str = "foreign-target";
    let targets = Engine::foreign_targets(host, options);
    if targets.is_empty() {
        return Finding::good(CHECK, "the kernel serves nothing but this SAN's");
    }
    Finding::warning(
        CHECK,
        format!(
            "the kernel serves targets of somebody else: {}",
            targets.join(", ")
        ),
        "the SAN leaves them alone, but who made them may clear the kernel's whole target, as targetcli's `clearconfig` and `restoreconfig` do",
        "if nobody needs one: targetcli /iscsi delete NAME, then targetcli saveconfig; else keep it on another box",
    )
}

/// A service that at boot puts back what targetcli saved, clearing what is there before.
fn check_restorers(host: &Host) -> Vec<Finding> {
    const CHECK: &str = "target-restore";
    let is_wanted = |unit: &&'static str| {
        let path = Path::new("/").join(WANTS).join(unit);
        matches!(host.find_stat(&path), Ok(Some(_)))
    };
    let wanted = RESTORERS.into_iter().filter(is_wanted);
    let findings: Vec<Finding> = wanted
        .map(|unit| {
            Finding::warning(
                CHECK,
                format!("{unit} is enabled"),
                "started or stopped beside the SAN it clears the kernel's target, and with it every volume that is being served",
                "have it not started any more; do not stop it while volumes are served, for that is what clears the target",
            )
            .with_command(format!("systemctl disable {unit}"))
        })
        .collect();
    if findings.is_empty() {
        return vec![Finding::good(
            CHECK,
            "nothing restores targets of others at boot",
        )];
    }
    findings
}
