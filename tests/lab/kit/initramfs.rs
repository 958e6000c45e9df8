//! The small file system that the guest's kernel starts from: busybox, the few modules that reach the disks and shares, and a
//! script that stacks a writable layer over the image and hands over to the lab binary. Built by `image`, in memory.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;
use super::image;

const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "squashfs",
    "overlay",
];

/// Everything that shapes the archive; its name in the cache is a hash of it.
pub fn recipe() -> String {
    format!("{} {INIT}", MODULES.join(" "))
}

/// `lab.probe` on the command line only proves that this accelerator reaches user space.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
if grep -q lab.probe /proc/cmdline; then
    echo "lab: user space reached"
    echo o > /proc/sysrq-trigger
    sleep 60
fi
echo "lab: user space"
while read module; do insmod /modules/$module || echo "lab: $module does not load"; done < /modules/order
echo "lab: modules loaded"
while [ ! -b /dev/vda ]; do sleep 0.1; done
mount -t squashfs -o ro /dev/vda /ro || exec sh
mount -t tmpfs -o size=75% tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /new || exec sh
mkdir -p /new/lab /new/share
echo "lab: root mounted"
share=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o $share,ro,cache=loose lab /new/lab || exec sh
mount -t 9p -o $share share /new/share || exec sh
mount --move /proc /new/proc
mount --move /sys /new/sys
mount --move /dev /new/dev
echo "lab: starting the agent"
exec switch_root /new /lab/lab --guest
"#;

/// The archive for the kernel `version` of the image at `root`.
pub fn build(root: &Path, version: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for folder in ["bin", "proc", "sys", "dev", "ro", "rw", "new", "modules"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.program("init", INIT.as_bytes());
    archive.program("bin/busybox", &image::read(root, "/usr/bin/busybox")?);
    let modules_folder = format!("/usr/lib/modules/{version}");
    let dependencies =
        String::from_utf8(image::read(root, &format!("{modules_folder}/modules.dep"))?)?;
    let mut order = String::new();
    for path in load_order(&dependencies)? {
        let file = path
            .rsplit('/')
            .next()
            .expect("split always yields one piece")
            .trim_end_matches(".xz");
        let packed = image::read(root, &format!("{modules_folder}/{path}"))?;
        let module = if path.ends_with(".xz") {
            unpack_xz(&packed)?
        } else {
            packed
        };
        archive.program(&format!("modules/{file}"), &module);
        order.push_str(file);
        order.push('\n');
    }
    archive.program("modules/order", order.as_bytes());
    Ok(archive.finish())
}

/// The files of [`MODULES`] and of all they depend on, each after what it needs, as modules.dep tells. A module that is
/// not listed is built into this kernel.
fn load_order(dependencies: &str) -> Result<Vec<String>> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for wanted in MODULES {
        let Some((module, needs)) = find_module(dependencies, wanted) else {
            continue;
        };
        // modules.dep names the most basic one last.
        for path in needs.split_whitespace().rev().chain([module]) {
            if seen.insert(path.to_owned()) {
                order.push(path.to_owned());
            }
        }
    }
    if order.is_empty() {
        bail!("modules.dep names none of the modules that the guest boots with");
    }
    Ok(order)
}

fn find_module<'a>(dependencies: &'a str, wanted: &str) -> Option<(&'a str, &'a str)> {
    dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(path, _)| {
            let file = path
                .rsplit('/')
                .next()
                .expect("split always yields one piece");
            file.split('.')
                .next()
                .is_some_and(|stem| stem.replace('-', "_") == *wanted)
        })
}

fn unpack_xz(packed: &[u8]) -> Result<Vec<u8>> {
    let mut xz = Command::new("xz")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("xz did not start")?;
    let mut input = xz.stdin.take().context("xz has no input")?;
    let packed = packed.to_vec();
    let feed = std::thread::spawn(move || input.write_all(&packed));
    let output = xz.wait_with_output()?;
    let _ = feed.join();
    if !output.status.success() {
        bail!("xz could not unpack a kernel module");
    }
    Ok(output.stdout)
}
