//! The kernel's part: modules, and udev's database as seen from here.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::host::Host;
use crate::scsi;

const REASON: &str = "the first stage has it loaded, and fails where the module is not installed or a locked-down kernel refuses it";
/// Needed by every volume.
const MODULES: [&str; 2] = ["iscsi_tcp", "dm_multipath"];

/// Loaded, built in, or to be loaded by whoever needs it first.
pub(super) fn check_modules(host: &Host, root: &Path) -> Vec<Finding> {
    MODULES
        .into_iter()
        .map(|module| check_module(host, root, module, REASON))
        .collect()
}

pub(super) fn check_module(
    host: &Host,
    root: &Path,
    module: &str,
    reason: &'static str,
) -> Finding {
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
        reason,
        "load it now and, by a file of /etc/modules-load.d, at each boot; on a node `sanpath host-setup --apply` writes that",
    )
    .with_command(format!("modprobe {module}"))
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

/// Where rules are read, the first of a name counts (udev(7)).
const RULES: [&str; 4] = [
    "etc/udev/rules.d",
    "run/udev/rules.d",
    "usr/lib/udev/rules.d",
    "lib/udev/rules.d",
];

/// The rules that give disks their names, and those that keep others off the disks of maps.
pub(super) fn check_rules(host: &Host, root: &Path) -> Finding {
    const CHECK: &str = "udev-rules";
    const REASON: &str = "multipathd knows a disk by the name that these rules give it, and without multipath's own other programs take the disks of a map for themselves";
    let rules = rules(host, root);
    if let Some(masked) = rules.iter().find(|rule| rule.is_needed() && rule.is_masked) {
        let path = masked.shown.display();
        return Finding::problem(
            CHECK,
            format!("{path} masks the rules of its name"),
            REASON,
            "take it away and have udev read its rules anew",
        )
        .with_command(format!("rm {path} && udevadm control --reload"));
    }
    let lacks = |part: &str| !rules.iter().any(|rule| rule.name.contains(part));
    let lacking = match rules.is_empty() {
        // A host without any: it keeps them elsewhere, or we do not see its root.
        true => return Finding::good(CHECK, "not looked at: none are seen"),
        false => NEEDED.iter().find(|part| lacks(part)),
    };
    match lacking {
        None => Finding::good(CHECK, "disks get their names, and multipath its disks"),
        Some(part) => Finding::problem(
            CHECK,
            format!("no rule file is named after {part}"),
            REASON,
            "install udev's own rules and those of multipath-tools (RHEL: device-mapper-multipath), then udevadm control --reload",
        ),
    }
}

/// Parts of the names of rule files; the numbers before them differ from distribution to distribution.
const NEEDED: [&str; 2] = ["persistent-storage.rules", "multipath.rules"];

struct Rule {
    name: String,
    /// Where it is, as the host itself sees it.
    shown: PathBuf,
    /// An empty file or a link to /dev/null.
    is_masked: bool,
}

impl Rule {
    fn is_needed(&self) -> bool {
        NEEDED.iter().any(|part| self.name.contains(part))
    }
}

/// By name, each from the first folder that has it.
fn rules(host: &Host, root: &Path) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for folder in RULES {
        for name in host.list(&root.join(folder)).unwrap_or_default() {
            let name = name.to_string_lossy().into_owned();
            if rules.iter().any(|rule| rule.name == name) {
                continue;
            }
            let inner = Path::new(folder).join(&name);
            let path = root.join(&inner);
            let leads = host.read_link(&path).ok();
            let is_masked = match leads {
                Some(target) => target == Path::new("/dev/null"),
                None => matches!(host.find_stat(&path), Ok(Some(stat)) if stat.size == 0),
            };
            rules.push(Rule {
                name,
                shown: Path::new("/").join(inner),
                is_masked,
            });
        }
    }
    rules
}
