//! The broken set-ups of `doctor_table`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;

use super::doctor_table::{BrokenSetUp, INTERFACES, Mend, Rig};
use crate::kit::services::Service;
use crate::kit::topology::{Link, SAN_NAMESPACE};

const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";
const MASK: &str = "/etc/udev/rules.d/60-multipath.rules";
const RECORD: &str = "iscsiadm -m node -T iqn.2026-11.dev.sanpath:lab -p 10.101.1.1:3260";
const HOST_SETUP: &str = "/etc/multipath/conf.d/sanpath-host.conf";
const FOREIGN: &str = "/sys/kernel/config/target/iscsi/iqn.2003-01.org.linux-iscsi.lab:x";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

fn unconfigure(rig: &mut Rig) -> Result<()> {
    rig.configure_multipath("")
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(mode))?)
}

/// Takes the SAN's address at the end of a link away, or gives it back.
fn portal(rig: &mut Rig, verb: &str, link: Link) -> Result<()> {
    let (address, far) = (link.san_address(1), link.san_name());
    rig.shell(&format!(
        "ip -n {SAN_NAMESPACE} address {verb} {address}/24 dev {far}"
    ))
}

/// Without a SAN, and quick.
pub const CHEAP: &[BrokenSetUp] = &[
    BrokenSetUp {
        name: "no initiator name",
        checks: &["initiator-name"],
        words: "sets no InitiatorName",
        broken: |rig| {
            rig.kept = fs::read(INITIATOR)?;
            Ok(fs::write(INITIATOR, "GenerateName=yes\n")?)
        },
        mend: Mend::Commands,
        tidy: Some(|rig| {
            fs::write(INITIATOR, &rig.kept)?;
            rig.shell("systemctl restart iscsid")
        }),
    },
    BrokenSetUp {
        name: "iscsid does not run",
        checks: &["iscsid"],
        words: "does not listen",
        broken: |_| Service::Iscsid.hold_down("TERM"),
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "I/O queues for ever",
        checks: &["no-path-retry"],
        words: "LIO-ORG: no_path_retry is queue",
        broken: |rig| {
            rig.configure_multipath(
                "devices {\n    device {\n        vendor \"LIO-ORG\"\n        product \".*\"\n        no_path_retry queue\n    }\n}\n",
            )
        },
        mend: Mend::Commands,
        tidy: Some(|rig| {
            fs::remove_file(HOST_SETUP)?;
            fs::remove_file("/etc/modules-load.d/sanpath-host.conf")?;
            unconfigure(rig)
        }),
    },
    BrokenSetUp {
        name: "a record that logs in at boot",
        checks: &["automatic-record"],
        words: "iqn.2026-11.dev.sanpath:lab at 10.101.1.1:3260",
        broken: |rig| {
            rig.shell(&format!(
                "{RECORD} -o new && {RECORD} -o update -n node.startup -v automatic"
            ))
        },
        mend: Mend::Commands,
        tidy: Some(|rig| rig.shell(&format!("{RECORD} -o delete"))),
    },
    BrokenSetUp {
        name: "masked udev rules",
        checks: &["udev-rules"],
        words: "60-multipath.rules masks",
        broken: |_| Ok(symlink("/dev/null", MASK)?),
        mend: Mend::Commands,
        tidy: None,
    },
];

/// What takes a SAN, or longer.
pub const NODE: &[BrokenSetUp] = &[
    BrokenSetUp {
        name: "multipathd does not run",
        checks: &["multipathd"],
        words: "does not run",
        broken: |_| Service::Multipathd.hold_down("TERM"),
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "an interface that is not there",
        checks: &["storage-interfaces"],
        words: "iface2 is path9, and there is no such interface",
        broken: |rig| {
            rig.interfaces = "iface1=path1,iface2=path9".to_owned();
            Ok(())
        },
        mend: Mend::Words(|rig| {
            INTERFACES.clone_into(&mut rig.interfaces);
            Ok(())
        }),
        tidy: None,
    },
    BrokenSetUp {
        name: "a module that is not loaded",
        checks: &["kernel-module"],
        words: "dm_multipath is not loaded",
        broken: |rig| rig.shell("modprobe -r dm_service_time dm_round_robin dm_multipath"),
        mend: Mend::Commands,
        tidy: Some(|rig| rig.shell("modprobe -a dm_service_time dm_round_robin")),
    },
    BrokenSetUp {
        name: "I/O that fails at once, by an override",
        checks: &["no-path-retry"],
        words: "no_path_retry is fail",
        broken: |rig| rig.configure_multipath("overrides {\n    no_path_retry fail\n}\n"),
        mend: Mend::Words(unconfigure),
        tidy: None,
    },
    BrokenSetUp {
        name: "disks forbidden by name",
        checks: &["multipath-blacklist"],
        words: "^sd[x-z]",
        broken: |rig| rig.configure_multipath("blacklist {\n    devnode \"^sd[x-z]\"\n}\n"),
        mend: Mend::Words(unconfigure),
        tidy: None,
    },
    BrokenSetUp {
        name: "disks forbidden by protocol",
        checks: &["multipath-blacklist"],
        words: "scsi:iscsi",
        broken: |rig| rig.configure_multipath("blacklist {\n    protocol \"scsi:iscsi\"\n}\n"),
        // A line of the same kind takes it back.
        mend: Mend::Words(|rig| {
            rig.configure_multipath("blacklist {\n    protocol \"scsi:iscsi\"\n}\nblacklist_exceptions {\n    protocol \"scsi:iscsi\"\n}\n")
        }),
        tidy: Some(unconfigure),
    },
    BrokenSetUp {
        name: "disks forbidden by maker",
        checks: &["multipath-blacklist"],
        words: "LIO-ORG",
        broken: |rig| {
            rig.configure_multipath(
                "blacklist {\n    device {\n        vendor \"LIO-ORG\"\n        product \".*\"\n    }\n}\n",
            )
        },
        mend: Mend::Words(unconfigure),
        tidy: None,
    },
    BrokenSetUp {
        name: "disks forbidden by WWID",
        checks: &["multipath-blacklist"],
        words: "36001405",
        broken: |rig| rig.configure_multipath("blacklist {\n    wwid \"36001405.*\"\n}\n"),
        mend: Mend::Words(unconfigure),
        tidy: None,
    },
    BrokenSetUp {
        name: "multipathd takes every disk",
        checks: &["find-multipaths"],
        words: "find_multipaths is greedy",
        broken: |rig| rig.configure_multipath("defaults {\n    find_multipaths greedy\n}\n"),
        mend: Mend::Words(|rig| {
            rig.configure_multipath("defaults {\n    find_multipaths strict\n}\n")
        }),
        tidy: Some(unconfigure),
    },
    BrokenSetUp {
        name: "maps of another name",
        checks: &["multipath-uid"],
        words: "uid_attribute is ID_WWN",
        broken: |rig| rig.configure_multipath("overrides {\n    uid_attribute ID_WWN\n}\n"),
        mend: Mend::Words(unconfigure),
        tidy: None,
    },
    BrokenSetUp {
        name: "no return to the better path",
        checks: &["multipath-failback"],
        words: "LIO-ORG: failback is manual",
        broken: |rig| rig.configure_multipath("overrides {\n    failback manual\n}\n"),
        mend: Mend::Words(unconfigure),
        tidy: None,
    },
    BrokenSetUp {
        name: "an interface that is down",
        checks: &["storage-interfaces", "address"],
        words: "iface1 is path1, and that is down",
        broken: |rig| rig.shell("ip link set dev path1 down"),
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "two keys of one interface",
        checks: &["storage-interfaces"],
        words: "iface1 and iface2 are both path1",
        broken: |rig| {
            rig.interfaces = "iface1=path1,iface2=path1".to_owned();
            Ok(())
        },
        mend: Mend::Words(|rig| {
            INTERFACES.clone_into(&mut rig.interfaces);
            Ok(())
        }),
        tidy: None,
    },
    BrokenSetUp {
        name: "a key that nobody knows",
        checks: &["storage-interfaces", "address"],
        words: "iface9",
        broken: |rig| rig.stack()?.set_paths("iface9:10.101.1.1,10.102.1.1"),
        mend: Mend::Words(|rig| rig.stack()?.set_paths("10.101.1.1,10.102.1.1")),
        tidy: None,
    },
    BrokenSetUp {
        name: "two interfaces on one subnet",
        checks: &["subnet"],
        words: "path1 and path2 share 10.150.0.0/24",
        broken: |rig| {
            rig.shell(
                "ip address add 10.150.0.1/24 dev path1 && ip address add 10.150.0.2/24 dev path2",
            )
        },
        mend: Mend::Commands,
        tidy: Some(|rig| {
            rig.shell("ip address del 10.150.0.1/24 dev path1 && ip address del 10.150.0.2/24 dev path2 && for p in path1 path2; do sysctl -w net.ipv4.conf.$p.arp_ignore=0 net.ipv4.conf.$p.arp_announce=0 net.ipv4.conf.$p.rp_filter=0; done")
        }),
    },
    BrokenSetUp {
        name: "packets longer than the way takes",
        checks: &["mtu"],
        words: "through path1: packets of 9000 bytes get lost, 1500 arrive",
        broken: |rig| rig.shell("ip link set dev path1 mtu 9000"),
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "a cable that is out",
        checks: &["storage-interfaces", "address"],
        words: "iface1 is path1, and that is down",
        broken: |rig| {
            rig.shell(&format!(
                "ip -n {SAN_NAMESPACE} link set dev san-path1 down"
            ))
        },
        mend: Mend::Words(|rig| {
            rig.shell(&format!("ip -n {SAN_NAMESPACE} link set dev san-path1 up"))
        }),
        tidy: None,
    },
    BrokenSetUp {
        name: "a portal that does not answer",
        checks: &["address"],
        words: "10.101.1.1",
        broken: |rig| portal(rig, "del", Link(1)),
        mend: Mend::Words(|rig| portal(rig, "add", Link(1))),
        tidy: None,
    },
    BrokenSetUp {
        name: "a config file that cannot be",
        checks: &["config"],
        words: "partition",
        broken: |rig| {
            let path = rig.stack()?.config();
            rig.kept = fs::read(&path)?;
            Ok(fs::write(&path, "version: 1\npartition: {}\n")?)
        },
        mend: Mend::Words(|rig| Ok(fs::write(rig.stack()?.config(), &rig.kept)?)),
        tidy: None,
    },
    BrokenSetUp {
        name: "a clock that nobody keeps",
        checks: &["clock"],
        words: "nothing keeps it right",
        broken: |rig| rig.keep_clock(false),
        mend: Mend::Words(|rig| rig.keep_clock(true)),
        tidy: None,
    },
];

/// On the SAN's side.
pub const SAN: &[BrokenSetUp] = &[
    BrokenSetUp {
        name: "a private key that others can read",
        checks: &["state-dir"],
        words: "tls.key is open to others (mode 644)",
        broken: |rig| mode(&rig.san_state.join("tls/tls.key"), 0o644),
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "a state folder that others can enter",
        checks: &["state-dir"],
        words: "is open to others (mode 755)",
        broken: |rig| mode(&rig.san_state, 0o755),
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "a certificate that ends soon",
        checks: &["certificate"],
        words: "it ends on",
        broken: |rig| {
            let state = rig.san_state.display();
            rig.shell(&format!("sanpath san renew --days 10 --state-dir {state}"))
        },
        mend: Mend::Commands,
        tidy: None,
    },
    BrokenSetUp {
        name: "a SAN that was never set up",
        checks: &["state-dir", "certificate"],
        words: "is not there",
        broken: |rig| {
            rig.san_state = rig.lab.work_folder().join("other-state");
            Ok(())
        },
        // Both findings print the same command, and it says so when it was done.
        mend: Mend::Words(|rig| {
            let state = rig.san_state.display();
            rig.shell(&format!("sanpath san init --state-dir {state}"))
        }),
        tidy: Some(|rig| {
            rig.san_state = rig.stack()?.san_state();
            Ok(())
        }),
    },
    BrokenSetUp {
        name: "a pool that is not mounted",
        checks: &["pool"],
        words: "holds no pool.json",
        broken: |rig| {
            Ok(fs::rename(
                rig.pool.join("pool.json"),
                rig.pool.join("away"),
            )?)
        },
        mend: Mend::Words(|rig| {
            Ok(fs::rename(
                rig.pool.join("away"),
                rig.pool.join("pool.json"),
            )?)
        }),
        tidy: None,
    },
    BrokenSetUp {
        name: "a pool that runs full",
        checks: &["pool"],
        words: "MiB are left",
        broken: |rig| {
            let pool = rig.pool.display();
            rig.shell(&format!(
                "fallocate -l $(($(df --output=avail -B1 {pool} | tail -n 1) * 9 / 10)) {pool}/big"
            ))
        },
        mend: Mend::Words(|rig| Ok(fs::remove_file(rig.pool.join("big"))?)),
        tidy: None,
    },
    BrokenSetUp {
        name: "a portal whose address is elsewhere",
        checks: &["own-address"],
        words: "--portal 10.102.1.1",
        broken: |rig| portal(rig, "del", Link(2)),
        mend: Mend::Words(|rig| portal(rig, "add", Link(2))),
        tidy: None,
    },
    BrokenSetUp {
        name: "a daemon that does not run",
        checks: &["management"],
        words: "nobody listens at",
        broken: |rig| rig.lab.daemons.stop("san"),
        mend: Mend::Words(|rig| rig.stack()?.start_san(rig.lab)),
        tidy: None,
    },
    BrokenSetUp {
        name: "a target of somebody else",
        checks: &["foreign-target"],
        words: "iqn.2003-01.org.linux-iscsi.lab:x",
        broken: |_| Ok(fs::create_dir(FOREIGN)?),
        // What `targetcli /iscsi delete` does.
        mend: Mend::Words(|_| Ok(fs::remove_dir(FOREIGN)?)),
        tidy: None,
    },
    BrokenSetUp {
        name: "a service that clears the kernel's target",
        checks: &["target-restore"],
        words: "target.service is enabled",
        broken: |_| {
            fs::create_dir_all(WANTS)?;
            let link = Path::new(WANTS).join("target.service");
            Ok(symlink("/lib/systemd/system/target.service", link)?)
        },
        mend: Mend::Commands,
        tidy: None,
    },
];
