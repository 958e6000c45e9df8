//! Each check on the fake host: it is silent where all is well, finds what was broken, and is silent again once the fix is applied.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Finding, Grade, NodeSetup, Report, examine_node};
use crate::config::InterfaceSource;
use crate::fabric::{Iqn, Portal};
use crate::host::fake::{FakeWorld, Fault, FindMultipaths, PortalState};

const GIB: u64 = 1 << 30;
const CONFIG: &str = "/etc/sanpath/config.yaml";
const GOOD: &str = "version: 1\npartitions:\n  a:\n    blockstoragemanager: linux\n    sanhost: 10.9.0.1\n    ncpaths: iface0:10.1.0.1,iface1:10.2.0.1\n";
const SOCKETS: &str = "/proc/net/unix";
const LISTENING: &str = "0000: 00000002 0 00010000 0001 01 123 @ISCSIADM_ABSTRACT_NAMESPACE\n";
const INITIATOR: &str = "/etc/iscsi/initiatorname.iscsi";

const RULES: &str = "/usr/lib/udev/rules.d";
const MASK: &str = "/etc/udev/rules.d/60-multipath.rules";
const RECORD: &str = "/etc/iscsi/nodes/iqn.2026-11.dev.sanpath:t/10.9.9.9,3260,1/default";
const FLAGS: &str = "/sys/class/net/eth0/flags";
const STATE: &str = "/sys/class/net/eth0/operstate";
const CONTEXT: &str = "/proc/self/attr/current";
const OTHER_DISK: &str = "/sys/block/sdz/device/vendor";

struct Rig {
    fake: FakeWorld,
    iqn: Iqn,
    portals: [Portal; 2],
    setup: NodeSetup,
}

impl Rig {
    /// A node on which nothing is wrong but that no daemon of ours answers.
    fn new() -> Self {
        let fake = FakeWorld::new();
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let portals = ["10.1.0.1", "10.2.0.1"].map(|text| text.parse().unwrap());
        fake.add_target(&iqn, &portals);
        for module in ["iscsi_tcp", "dm_multipath"] {
            fake.make_directory(&Path::new("/sys/module").join(module));
        }
        fake.write_file(Path::new(SOCKETS), LISTENING);
        fake.write_file(
            Path::new(INITIATOR),
            "InitiatorName=iqn.2026-11.dev.sanpath:n\n",
        );
        fake.write_file(Path::new(CONFIG), GOOD);
        for netdev in ["eth0", "eth1"] {
            let mtu = Path::new("/sys/class/net").join(netdev).join("mtu");
            fake.write_file(&mtu, "1500\n");
        }
        for rules in ["60-persistent-storage.rules", "60-multipath.rules"] {
            fake.write_file(&Path::new(RULES).join(rules), "# rules\n");
        }
        let setup = NodeSetup {
            root: PathBuf::from("/"),
            config: PathBuf::from(CONFIG),
            interfaces: InterfaceSource::Value("iface0=eth0,iface1=eth1".to_owned()),
            runtime_dir: PathBuf::from("/nowhere"),
            patience: Duration::from_secs(1),
        };
        Self {
            fake,
            iqn,
            portals,
            setup,
        }
    }

    fn examine(&self) -> Report {
        let mut report = examine_node(&self.fake.host(), &self.setup);
        // It is asked over a real socket, and there is none.
        report.findings.retain(|finding| finding.check != "daemon");
        report
    }

    /// What is not as it should be.
    fn complaints(&self) -> Vec<(&'static str, Grade, String)> {
        let findings = self.examine().findings;
        let bad = findings.into_iter().filter(|it| it.grade != Grade::Good);
        bad.map(|it| (it.check, it.grade, it.found)).collect()
    }

    /// Says it in a section of multipathd's configuration, or nothing more.
    fn configure(&self, section: &str, word: &str) {
        let text = format!("{section} {{\n\t{word}\n}}\n");
        self.fake.set_multipath_words(&text);
    }

    fn configure_device(&self, vendor: &str, word: &str) {
        let device = format!("device {{\n\t\tvendor \"{vendor}\"\n\t\t{word}\n\t}}");
        self.configure("devices", &device);
    }

    fn block_portal(&self, state: PortalState) {
        self.fake.set_portal(self.portals[0], state);
    }
}

/// A way to break a node, the check that finds it with what it says, and the mending.
type Break = (
    &'static str,
    Grade,
    &'static str,
    fn(&mut Rig),
    fn(&mut Rig),
);

const BREAKS: &[Break] = &[
    (
        "initiator-name",
        Grade::Problem,
        "it is iqn.2026-11.dev.sanpath:n, and sessions live under iqn.2026-11.x:old",
        |rig| {
            let sid = rig
                .fake
                .add_session_by(&rig.iqn, rig.portals[0], "default", None);
            let name = format!("/sys/class/iscsi_session/session{sid}/initiatorname");
            rig.fake
                .show_attribute(Path::new(&name), "iqn.2026-11.x:old");
        },
        |rig| {
            rig.fake
                .write_file(Path::new(INITIATOR), "InitiatorName=iqn.2026-11.x:old\n")
        },
    ),
    (
        "automatic-record",
        Grade::Warning,
        "iqn.2026-11.dev.sanpath:t at 10.9.9.9:3260 is logged in to at each boot",
        |rig| {
            rig.fake
                .write_file(Path::new(RECORD), "node.startup = automatic\n")
        },
        |rig| {
            rig.fake
                .write_file(Path::new(RECORD), "node.startup = manual\n")
        },
    ),
    (
        "udev-rules",
        Grade::Problem,
        "/etc/udev/rules.d/60-multipath.rules masks the rules of its name",
        |rig| {
            let host = rig.fake.host();
            let folder = Path::new(MASK).parent().unwrap();
            host.ensure_directory(folder).unwrap();
            host.symlink(Path::new("/dev/null"), Path::new(MASK))
                .unwrap();
        },
        |rig| rig.fake.host().remove_file(Path::new(MASK)).unwrap(),
    ),
    (
        "udev-rules",
        Grade::Problem,
        "no rule file is named after multipath.rules",
        |rig| {
            let rules = Path::new(RULES).join("60-multipath.rules");
            rig.fake.host().remove_file(&rules).unwrap();
        },
        |rig| {
            let rules = Path::new(RULES).join("62-multipath.rules");
            rig.fake.write_file(&rules, "# rules\n");
        },
    ),
    (
        "clock",
        Grade::Warning,
        "nothing keeps it right",
        |rig| rig.fake.set_clock_kept(false),
        |rig| rig.fake.set_clock_kept(true),
    ),
    (
        "selinux",
        Grade::Problem,
        "confined, as system_u:system_r:container_t:s0:c1,c2",
        |rig| {
            let context = "system_u:system_r:container_t:s0:c1,c2";
            rig.fake.write_file(Path::new(CONTEXT), context);
            rig.fake
                .write_file(Path::new("/sys/fs/selinux/enforce"), "1");
        },
        |rig| {
            rig.fake
                .write_file(Path::new(CONTEXT), "system_u:system_r:spc_t:s0\n")
        },
    ),
    (
        "multipath-uid",
        Grade::Problem,
        "LIO-ORG: uid_attribute is ID_WWN",
        |rig| rig.configure_device("LIO-ORG", "uid_attribute \"ID_WWN\""),
        |rig| rig.configure_device("LIO-ORG", "uid_attribute \"ID_SERIAL\""),
    ),
    (
        "find-multipaths",
        Grade::Warning,
        "find_multipaths is greedy",
        |rig| rig.configure("defaults", "find_multipaths \"greedy\""),
        |rig| rig.configure("defaults", "find_multipaths \"strict\""),
    ),
    (
        "no-path-retry",
        Grade::Warning,
        "LIO-ORG: no_path_retry is queue",
        |rig| rig.configure("overrides", "no_path_retry \"queue\""),
        |rig| rig.configure("overrides", "fast_io_fail_tmo 5"),
    ),
    (
        "no-path-retry",
        Grade::Warning,
        "NETAPP: no_path_retry is queue",
        |rig| {
            rig.fake.write_file(Path::new(OTHER_DISK), "NETAPP  \n");
            rig.configure_device("NETAPP", "no_path_retry \"queue\"");
        },
        |rig| rig.configure_device("NETAPP", "no_path_retry 12"),
    ),
    (
        "multipath-device",
        Grade::Warning,
        "EQLOGIC: multipathd has no device section",
        |rig| rig.fake.write_file(Path::new(OTHER_DISK), "EQLOGIC \n"),
        |rig| rig.configure_device("EQLOGIC", "path_grouping_policy \"multibus\""),
    ),
    (
        "multipath-device",
        Grade::Warning,
        "EQLOGIC: path_grouping_policy is not set",
        |rig| {
            rig.fake.write_file(Path::new(OTHER_DISK), "EQLOGIC \n");
            rig.configure_device("EQLOGIC", "no_path_retry 12");
        },
        |rig| rig.configure_device("EQLOGIC", "path_grouping_policy \"multibus\""),
    ),
    (
        "multipath-failback",
        Grade::Warning,
        "NETAPP: failback is manual",
        |rig| {
            rig.fake.write_file(Path::new(OTHER_DISK), "NETAPP  \n");
            rig.configure_device("NETAPP", "path_grouping_policy \"group_by_prio\"");
        },
        |rig| {
            let words = "path_grouping_policy \"group_by_prio\"\n\t\tfailback \"immediate\"";
            rig.configure_device("NETAPP", words);
        },
    ),
    (
        "multipath-blacklist",
        Grade::Problem,
        "protocol \"scsi:iscsi\"",
        |rig| rig.configure("blacklist", "protocol \"scsi:iscsi\""),
        |rig| rig.configure("blacklist", "protocol \"scsi:ata\""),
    ),
    (
        "storage-interfaces",
        Grade::Problem,
        "iface0 is eth0, and that is down",
        |rig| {
            rig.fake.write_file(Path::new(FLAGS), "0x1002\n");
            rig.fake.write_file(Path::new(STATE), "down\n");
        },
        |rig| rig.fake.write_file(Path::new(STATE), "up\n"),
    ),
    (
        "storage-interfaces",
        Grade::Warning,
        "iface0 and iface1 are both eth0",
        |rig| rig.setup.interfaces = InterfaceSource::Value("iface0=eth0,iface1=eth0".to_owned()),
        |rig| rig.setup.interfaces = InterfaceSource::Value("iface0=eth0,iface1=eth1".to_owned()),
    ),
    (
        "mtu",
        Grade::Warning,
        "10.1.0.1 through eth0: packets of 9000 bytes get lost, 1500 arrive",
        |rig| {
            rig.fake
                .write_file(Path::new("/sys/class/net/eth0/mtu"), "9000\n")
        },
        |rig| rig.fake.set_width([10, 1, 0, 1].into(), 9000),
    ),
    (
        "initiator-name",
        Grade::Problem,
        "sets no InitiatorName",
        |rig| {
            rig.fake
                .write_file(Path::new(INITIATOR), "GenerateName=yes\n")
        },
        |rig| {
            rig.fake
                .write_file(Path::new(INITIATOR), "InitiatorName=iqn.2026-11.x:n\n")
        },
    ),
    (
        "iscsid",
        Grade::Problem,
        "does not listen",
        |rig| rig.fake.write_file(Path::new(SOCKETS), ""),
        |rig| rig.fake.write_file(Path::new(SOCKETS), LISTENING),
    ),
    (
        "open-iscsi",
        Grade::Problem,
        "not found",
        |rig| {
            rig.fake
                .fail_next("iscsiadm", Fault::Exit(127, "not found"))
        },
        |_| {},
    ),
    (
        "multipathd",
        Grade::Problem,
        "it does not run",
        |rig| rig.fake.stop_multipathd(),
        |rig| rig.fake.start_multipathd(),
    ),
    (
        "no-path-retry",
        Grade::Warning,
        "no_path_retry is queue",
        |rig| rig.fake.set_no_path_retry(None),
        |rig| rig.fake.set_no_path_retry(Some(Duration::from_secs(60))),
    ),
    (
        "no-path-retry",
        Grade::Warning,
        "no_path_retry is fail",
        |rig| rig.fake.set_no_path_retry(Some(Duration::ZERO)),
        |rig| rig.fake.set_no_path_retry(Some(Duration::from_secs(60))),
    ),
    (
        "multipath-blacklist",
        Grade::Problem,
        "^sd[a-z]",
        |rig| rig.fake.set_ban("^sd[a-z]", true),
        |rig| rig.fake.set_ban("^sd[a-z]", false),
    ),
    (
        "config",
        Grade::Problem,
        "/etc/sanpath/config.yaml: ",
        |rig| {
            rig.fake
                .write_file(Path::new(CONFIG), "version: 1\npartition: {}\n")
        },
        |rig| rig.fake.write_file(Path::new(CONFIG), GOOD),
    ),
    (
        "storage-interfaces",
        Grade::Problem,
        "iface1 is eth1, and there is no such interface",
        |rig| rig.fake.set_netdev("eth1", false),
        |rig| rig.fake.set_netdev("eth1", true),
    ),
    (
        "storage-interfaces",
        Grade::Problem,
        "partitions.a.ncpaths uses iface1, which STORAGE_INTERFACES does not have",
        |rig| rig.setup.interfaces = InterfaceSource::Value("iface0=eth0".to_owned()),
        |rig| rig.setup.interfaces = InterfaceSource::Value("iface0=eth0,iface1=eth1".to_owned()),
    ),
    (
        "address",
        Grade::Warning,
        "a.storage.ncpaths iface0:10.1.0.1 through eth0",
        |rig| rig.block_portal(PortalState::Refusing),
        |rig| rig.block_portal(PortalState::Up),
    ),
    (
        "session",
        Grade::Warning,
        "has lost its connection",
        |rig| {
            rig.fake.add_foreign_session(&rig.iqn, rig.portals[0]);
            rig.block_portal(PortalState::BlackHoled);
            rig.fake.sleep(Duration::from_secs(15));
        },
        |rig| {
            rig.block_portal(PortalState::Up);
            rig.fake.sleep(Duration::from_secs(15));
        },
    ),
    (
        "map",
        Grade::Warning,
        "has no path that works",
        |rig| {
            let wwid = format!("36001405{:025x}", 5).parse().unwrap();
            let disk = rig.fake.add_disk(&wwid, GIB);
            rig.fake.map_lun(&rig.iqn, crate::fabric::Lun(5), disk);
            rig.fake.set_find_multipaths(FindMultipaths::Greedy);
            rig.fake.add_foreign_session(&rig.iqn, rig.portals[0]);
            rig.fake.settle();
            rig.block_portal(PortalState::BlackHoled);
            rig.fake.sleep(Duration::from_secs(15));
        },
        |rig| {
            rig.block_portal(PortalState::Up);
            rig.fake.sleep(Duration::from_secs(15));
        },
    ),
];

#[test]
fn each_break_is_found_and_told_with_its_fix_and_mended() {
    for (check, grade, words, breaking, mending) in BREAKS {
        let mut rig = Rig::new();
        assert_eq!(rig.complaints(), [], "before {check}");
        breaking(&mut rig);
        let report = rig.examine();
        let found = report
            .findings
            .iter()
            .find(|it| it.check == *check && it.grade == *grade && it.found.contains(words));
        let found = found.unwrap_or_else(|| panic!("{check}: {:#?}", report.findings));
        assert!(found.reason.is_some() && found.fix.is_some(), "{found:?}");
        assert!(report.worst >= *grade);
        mending(&mut rig);
        assert_eq!(rig.complaints(), [], "after {check}");
    }
}

#[test]
fn a_module_that_is_missing_is_told_and_a_built_in_one_is_not() {
    let fake = FakeWorld::new();
    let root = Path::new("/");
    let told = |fake: &FakeWorld| -> Vec<String> {
        let findings = super::kernel::check_modules(&fake.host(), root);
        findings.into_iter().map(|it| it.found).collect()
    };
    assert_eq!(
        told(&fake),
        ["iscsi_tcp is not loaded", "dm_multipath is not loaded"]
    );
    fake.write_file(Path::new("/proc/sys/kernel/osrelease"), "6.12.0\n");
    let list = Path::new("/lib/modules/6.12.0/modules.builtin");
    fake.write_file(list, "kernel/drivers/md/dm-multipath.ko\n");
    fake.make_directory(Path::new("/sys/module/iscsi_tcp"));
    assert_eq!(
        told(&fake),
        ["iscsi_tcp is loaded", "dm_multipath is built in"]
    );
}

#[test]
fn a_list_of_which_no_address_answers_is_a_problem() {
    let rig = Rig::new();
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::BlackHoled);
    }
    let grades: Vec<Grade> = rig
        .complaints()
        .into_iter()
        .map(|(_, grade, _)| grade)
        .collect();
    assert_eq!(grades, [Grade::Problem, Grade::Problem]);
}

#[test]
fn a_san_that_is_there_and_shows_no_volume_yet_is_no_problem() {
    let rig = Rig::new();
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::Refusing);
    }
    assert_eq!(rig.complaints(), []);
    // One that had a session of ours listened.
    rig.fake.set_portal(rig.portals[0], PortalState::Up);
    rig.fake.add_foreign_session(&rig.iqn, rig.portals[0]);
    rig.fake.set_portal(rig.portals[0], PortalState::Refusing);
    let complaints = rig.complaints();
    let told = complaints.iter().find(|it| it.0 == "address");
    assert!(
        told.is_some_and(|it| it.1 == Grade::Problem),
        "{complaints:?}"
    );
}

#[test]
fn interfaces_on_one_subnet_are_told_with_the_words_that_mend_them() {
    let rig = Rig::new();
    for netdev in ["eth0", "eth1"] {
        let address = if netdev == "eth0" {
            "10.1.0.2"
        } else {
            "10.1.0.3"
        };
        rig.fake.add_address(netdev, address.parse().unwrap(), 24);
        for (name, value) in [
            ("arp_ignore", "1"),
            ("arp_announce", "0"),
            ("rp_filter", "1"),
        ] {
            for of in ["all", netdev] {
                let path = Path::new("/proc/sys/net/ipv4/conf").join(of).join(name);
                rig.fake
                    .write_file(&path, if of == "all" { "0\n" } else { value });
            }
        }
    }
    let complaints = rig.complaints();
    let [("subnet", Grade::Warning, told)] = complaints.as_slice() else {
        panic!("{complaints:?}")
    };
    assert!(
        told.contains("sysctl -w net.ipv4.conf.eth0.arp_announce=2"),
        "{told}"
    );
}

#[test]
fn the_json_form_is_kept() {
    let findings = vec![
        Finding::good("iscsid", "it runs"),
        Finding::problem("multipathd", "it is silent", "no maps", "start it"),
    ];
    let text = serde_json::to_string_pretty(&Report::new("node", findings)).unwrap();
    assert_eq!(text, include_str!("golden-v1.json").trim_end());
}

#[test]
fn commands_are_told_where_a_line_for_a_shell_mends_it() {
    let rig = Rig::new();
    let command = |check: &str| {
        let findings = rig.examine().findings;
        let found = findings
            .into_iter()
            .find(|it| it.check == check && it.grade != Grade::Good);
        found.unwrap_or_else(|| panic!("no {check}")).command
    };
    let mtu = "/sys/class/net/eth0/mtu";
    rig.fake.write_file(Path::new(mtu), "9000\n");
    assert_eq!(
        command("mtu").as_deref(),
        Some("ip link set dev eth0 mtu 1500")
    );
    rig.fake.write_file(Path::new(mtu), "1500\n");
    rig.fake
        .write_file(Path::new(RECORD), "node.startup = automatic\n");
    assert_eq!(
        command("automatic-record").as_deref(),
        Some(
            "iscsiadm -m node -T iqn.2026-11.dev.sanpath:t -p 10.9.9.9:3260 -I default --op update -n node.startup -v manual"
        )
    );
    for (flags, mends) in [("0x1002\n", true), ("0x1003\n", false)] {
        rig.fake.write_file(Path::new(FLAGS), flags);
        rig.fake.write_file(Path::new(STATE), "down\n");
        assert_eq!(command("storage-interfaces").is_some(), mends, "{flags}");
    }
    rig.configure("overrides", "no_path_retry \"queue\"");
    assert_eq!(
        command("no-path-retry"),
        None,
        "an override is taken out by hand"
    );
    rig.configure_device("LIO-ORG", "no_path_retry \"queue\"");
    let apply = "sanpath host-setup --apply && systemctl reload multipathd";
    assert_eq!(command("no-path-retry").as_deref(), Some(apply));
}

#[test]
fn records_of_other_sans_are_left_in_peace() {
    let rig = Rig::new();
    let other = "/etc/iscsi/nodes/iqn.1992-04.com.emc:x/10.9.9.9,3260,1/default";
    rig.fake
        .write_file(Path::new(other), "node.startup = automatic\n");
    assert_eq!(rig.complaints(), []);
    let listed = "/var/lib/iscsi/nodes/iqn.1992-04.com.emc:x/10.1.0.1,3260,1/default";
    rig.fake
        .write_file(Path::new(listed), "node.startup = automatic\n");
    let complaints = rig.complaints();
    let [("automatic-record", Grade::Warning, told)] = complaints.as_slice() else {
        panic!("{complaints:?}")
    };
    assert!(told.contains("10.1.0.1:3260"), "{told}");
}

#[test]
fn an_address_that_does_not_echo_says_nothing_of_its_way() {
    let rig = Rig::new();
    rig.fake.set_width([10, 1, 0, 1].into(), 100);
    assert_eq!(rig.complaints(), []);
}
