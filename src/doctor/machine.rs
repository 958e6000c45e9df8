//! The machine around it all: its clock, and SELinux.

use std::path::Path;

use super::Finding;
use crate::host::Host;

/// Nobody notices a clock until certificates, S3's signatures or the order of log lines depend on it.
pub(super) fn check_clock(host: &Host) -> Finding {
    const CHECK: &str = "clock";
    match host.is_clock_kept() {
        Ok(true) => Finding::good(CHECK, "something keeps it right"),
        Ok(false) => Finding::warning(
            CHECK,
            "nothing keeps it right, by the kernel's word",
            "certificates begin and end by it, object stores refuse requests that are minutes off, and logs of several machines cannot be put in order",
            "start chronyd, systemd-timesyncd or ntpd and let it reach a server; it may take a few minutes to be content",
        ),
        Err(error) => Finding::good(CHECK, format!("not looked at: {error}")),
    }
}

/// What runs confined reaches neither iscsid's socket nor the host's tools.
pub(super) fn check_selinux(host: &Host) -> Finding {
    const CHECK: &str = "selinux";
    let enforced = host.find_attribute(Path::new("/sys/fs/selinux/enforce"));
    if enforced.ok().flatten().as_deref() != Some("1") {
        return Finding::good(CHECK, "it enforces nothing here");
    }
    let context = host.find_attribute(Path::new("/proc/self/attr/current"));
    let context = context.ok().flatten().unwrap_or_default();
    let kind = context.split(':').nth(2).unwrap_or_default();
    if kind != "container_t" {
        return Finding::good(CHECK, format!("it enforces, and we run as {context}"));
    }
    Finding::problem(
        CHECK,
        format!("it enforces, and we run confined, as {context}"),
        "a confined container reaches neither the sockets of iscsid and multipathd nor the host's disks",
        "run the plugin privileged, as deploy/ has it, or with securityContext.seLinuxOptions.type: spc_t",
    )
}
