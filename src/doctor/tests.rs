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
        rig.fake.set_portal(portal, PortalState::Refusing);
    }
    let grades: Vec<Grade> = rig
        .complaints()
        .into_iter()
        .map(|(_, grade, _)| grade)
        .collect();
    assert_eq!(grades, [Grade::Problem, Grade::Problem]);
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
