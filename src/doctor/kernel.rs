//! The kernel's part: modules, and udev's database as seen from here.

use std::path::Path;

use super::Finding;
use crate::host::Host;
use crate::scsi;

/// Needed by every volume.
const MODULES: [&str; 2] = ["iscsi_tcp", "dm_multipath"];

/// Loaded, built in, or to be loaded by whoever needs it first.
pub(super) fn check_modules(host: &Host, root: &Path) -> Vec<Finding> {
    MODULES
        .into_iter()
        .map(|module| check_module(host, root, module))
        .collect()
}

fn check_module(host: &Host, root: &Path, module: &str) -> Finding {
    const CHECK: &str = "kernel-module";
    let loaded = host.find_stat(&Path::new("/sys/module").join(module));
    if matches!(loaded, Ok(Some(_))) {
        return Finding::good(CHECK, format!("{module} is loaded"));
    }
    if is_built_in(host, root, module) {
        return Finding::good(CHECK, format!("{module} is built in"));
    }
    Finding::warning(
        CHECK,
        format!("{module} is not loaded"),
        "the first stage has it loaded, and fails where the module is not installed or a locked-down kernel refuses it",
        format!("modprobe {module} && echo {module} >> /etc/modules-load.d/sanpath.conf"),
    )
}

fn is_built_in(host: &Host, root: &Path, module: &str) -> bool {
    let release = host.find_attribute(Path::new("/proc/sys/kernel/osrelease"));
    let Ok(Some(release)) = release else {
        return false;
    };
    let list = root
        .join("lib/modules")
        .join(release)
        .join("modules.builtin");
    let list = host.read(&list).unwrap_or_default();
    let names = [module.to_owned(), module.replace('_', "-")].map(|name| format!("/{name}.ko"));
    String::from_utf8_lossy(&list)
        .lines()
        .any(|line| names.iter().any(|name| line.ends_with(name.as_str())))
}

/// Disks are used when udev has finished with them.
pub(super) fn check_udev(host: &Host) -> Finding {
    const CHECK: &str = "udev";
    match scsi::sees_udev(host) {
        Ok(true) => Finding::good(CHECK, "its database can be seen"),
        _ => Finding::problem(
            CHECK,
            "/run/udev/data cannot be seen",
            "the driver waits until udev has finished with a disk, and cannot know when",
            "start systemd-udevd; in a container mount the host's /run/udev",
        ),
    }
}
