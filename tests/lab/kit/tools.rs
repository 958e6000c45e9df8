//! Finds the host programs that the lab needs and, as root on a Debian-like machine, installs the missing ones by package
//! name. Called once before anything else; afterwards every named program exists or the run has stopped with a list.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command;

/// A thing looked for (a program, or a file by its absolute path) and the Debian package that brings it.
struct Tool {
    wanted: &'static str,
    package: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        wanted: "qemu-system-x86_64",
        package: "qemu-system-x86",
    },
    Tool {
        wanted: "mmdebstrap",
        package: "mmdebstrap",
    },
    Tool {
        wanted: "tar2sqfs",
        package: "squashfs-tools-ng",
    },
    Tool {
        wanted: "rdsquashfs",
        package: "squashfs-tools-ng",
    },
    Tool {
        wanted: "xz",
        package: "xz-utils",
    },
    Tool {
        wanted: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
    },
];

/// Without root, mmdebstrap works in a user namespace and needs these.
const TOOLS_WITHOUT_ROOT: &[Tool] = &[Tool {
    wanted: "newuidmap",
    package: "uidmap",
}];

/// Makes sure that every tool is there.
pub fn ensure() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the lab boots amd64 guests and was only made for x86_64 machines");
    }
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() || find("apt-get").is_none() {
        bail!(
            "the lab needs these Debian packages, please install them: {}",
            missing.join(" ")
        );
    }
    eprintln!("lab: installing {} …", missing.join(" "));
    install(&missing)?;
    let still = missing_packages();
    if !still.is_empty() {
        bail!("still missing after installing: {}", still.join(" "));
    }
    Ok(())
}

fn missing_packages() -> Vec<&'static str> {
    let without_root = if nix::unistd::geteuid().is_root() {
        &[]
    } else {
        TOOLS_WITHOUT_ROOT
    };
    let mut missing: Vec<&str> = TOOLS
        .iter()
        .chain(without_root)
        .filter(|tool| find(tool.wanted).is_none())
        .map(|tool| tool.package)
        .collect();
    missing.dedup();
    missing
}

fn install(packages: &[&str]) -> Result<()> {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"];
    let update = [&quiet[..], &["update"]].concat();
    command::run(&update, minutes(5))?.success("apt-get update")?;
    let install = [
        &quiet[..],
        &["install", "-y", "--no-install-recommends"],
        packages,
    ]
    .concat();
    command::run(&install, minutes(15))?
        .success("apt-get install")
        .context("installing the lab's tools")?;
    Ok(())
}

/// Where a program (or an absolute path) is, looking in the system folders too: a user's PATH often lacks them.
pub fn find(wanted: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|folder| Path::new(folder).join(wanted))
        .find(|candidate| candidate.is_file())
}
