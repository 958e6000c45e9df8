//! Decides how guests run: KVM where it really boots one, emulation everywhere else. A /dev/kvm that opens proves nothing, so
//! a guest is tried once per run, with a short deadline.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::command;
use super::image::Image;

/// How the processors of a guest are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

const PROBE_DEADLINE: Duration = Duration::from_secs(12);

impl Accel {
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// As results and people call it.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }

    /// How long a guest may take until it is set up.
    pub fn boot_deadline(self) -> Duration {
        match self {
            Accel::Kvm => Duration::from_secs(60),
            Accel::Tcg => Duration::from_secs(240),
        }
    }
}

/// KVM if a guest reaches user space with it; `LAB_ACCEL` (kvm or tcg) decides without a trial.
pub fn choose(image: &Image, folder: &Path) -> Result<Accel> {
    match std::env::var("LAB_ACCEL").as_deref() {
        Ok("kvm") => return Ok(Accel::Kvm),
        Ok("tcg") => return Ok(Accel::Tcg),
        Ok(other) => bail!("LAB_ACCEL is {other}: kvm and tcg are known"),
        Err(_) => {}
    }
    if fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accel::Tcg);
    }
    Ok(if probe_kvm(image, folder)? {
        Accel::Kvm
    } else {
        Accel::Tcg
    })
}

fn probe_kvm(image: &Image, folder: &Path) -> Result<bool> {
    let console = folder.join("probe-console.log");
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(Accel::Kvm.arguments())
        .args([
            "-m",
            "512",
            "-smp",
            "2",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initramfs)
        .args(["-append", "console=ttyS0 panic=-1 lab.probe", "-serial"])
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("qemu-system-x86_64 did not start")?;
    command::wait_until(&mut qemu, Instant::now() + PROBE_DEADLINE)?;
    let _ = qemu.kill();
    let _ = qemu.wait();
    Ok(fs::read_to_string(console)
        .unwrap_or_default()
        .contains("lab: user space reached"))
}
