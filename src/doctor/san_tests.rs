//! The checks of a SAN box, each tripped and not.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Finding, Grade, SanSetup, examine_san};
use crate::host::Host;
use crate::host::fake::FakeWorld;
use crate::linux_san::{Certificates, Management, SanOptions};
use crate::tls::Lifetime;

const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// A fake box whose pool is on a file system that can share no blocks.
struct Rig {
    fake: FakeWorld,
    setup: SanSetup,
}

impl Rig {
    fn new() -> Self {
        let fake = FakeWorld::new();
        for module in ["target_core_mod", "target_core_file", "iscsi_target_mod"] {
            fake.make_directory(&Path::new("/sys/module").join(module));
        }
        fake.add_address("eth0", [10, 1, 0, 1].into(), 24);
        let ipv6 = "fd000000000000000000000000000001 02 40 00 80 eth1\n";
        fake.write_file(Path::new("/proc/net/if_inet6"), ipv6);
        fake.make_directory(Path::new("/state"));
        let portals = ["10.1.0.1", "[fd00::1]"].map(|text| text.parse().unwrap());
        let options = SanOptions {
            state_dir: "/state".into(),
            management: Management::Plaintext,
            ..SanOptions::new(Path::new("/pool"), portals.to_vec())
        };
        let setup = SanSetup {
            options,
            listen: vec!["10.1.0.1:7420".parse().unwrap()],
            patience: Duration::from_secs(1),
        };
        Self { fake, setup }
    }

    fn told(&self, check: &str) -> Vec<(Grade, String)> {
        let findings = examine_san(&self.fake.host(), &self.setup).findings;
        let of = findings.into_iter().filter(|it| it.check == check);
        of.inspect(|it| assert_eq!(it.grade == Grade::Good, it.fix.is_none(), "{it:?}"))
            .map(|it| (it.grade, it.found))
            .collect()
    }

    fn is_good(&self, check: &str) -> bool {
        let told = self.told(check);
        !told.is_empty() && told.iter().all(|(grade, _)| *grade == Grade::Good)
    }

    #[track_caller]
    fn expect(&self, check: &str, grade: Grade, words: &str) {
        let told = self.told(check);
        let is_it = told.iter().any(|it| it.0 == grade && it.1.contains(words));
        assert!(is_it, "{check}: {told:?}");
    }
}

#[test]
fn options_that_cannot_be_are_told() {
    let mut rig = Rig::new();
    assert!(rig.is_good("options"));
    rig.setup.options.state_dir = "/pool/state".into();
    rig.expect("options", Grade::Problem, "must not lie inside the pool");
}

#[test]
fn modules_of_the_kind_of_pool_are_looked_for() {
    let mut rig = Rig::new();
    assert!(rig.is_good("kernel-module"));
    rig.setup.options.pool = "lvm:vg/thin".into();
    rig.expect(
        "kernel-module",
        Grade::Warning,
        "target_core_iblock is not loaded",
    );
}

#[test]
fn addresses_that_are_not_here_are_told() {
    let mut rig = Rig::new();
    assert!(rig.is_good("own-address"), "{:?}", rig.told("own-address"));
    rig.setup.options.second_portals = vec!["10.7.0.1:3261".parse().unwrap()];
    rig.setup.listen = vec![
        "0.0.0.0:7420".parse().unwrap(),
        "[fd00::9]:7420".parse().unwrap(),
    ];
    let told = rig.told("own-address");
    assert_eq!(told.len(), 2, "{told:?}");
    rig.expect(
        "own-address",
        Grade::Problem,
        "--portal 10.7.0.1:3261: no interface",
    );
    rig.expect("own-address", Grade::Problem, "--listen [fd00::9]:7420");
    rig.fake.add_address("eth0", [10, 7, 0, 1].into(), 24);
    assert_eq!(rig.told("own-address").len(), 1);
}

#[test]
fn a_pool_that_is_not_there_or_cannot_share_blocks_is_told() {
    let rig = Rig::new();
    rig.expect("pool", Grade::Problem, "is not a directory");
    rig.fake.make_directory(Path::new("/pool"));
    rig.expect("pool", Grade::Problem, "cannot share blocks");
    rig.fake.write_file(Path::new("/pool/volumes/a.img"), "");
    rig.expect("pool", Grade::Problem, "no state file that knows them");
}

#[test]
fn targets_of_others_and_what_restores_them_are_told() {
    let rig = Rig::new();
    let targets = Path::new("/sys/kernel/config/target/iscsi");
    rig.fake
        .make_directory(&targets.join("iqn.2026-11.dev.sanpath:a"));
    rig.fake.make_directory(&targets.join("discovery_auth"));
    assert!(rig.is_good("foreign-target") && rig.is_good("target-restore"));
    rig.fake
        .make_directory(&targets.join("iqn.2003-01.org.linux-iscsi.box:x"));
    rig.expect(
        "foreign-target",
        Grade::Warning,
        "iqn.2003-01.org.linux-iscsi.box:x",
    );
    let link = Path::new(WANTS).join("target.service");
    let host = rig.fake.host();
    host.ensure_directory(Path::new(WANTS)).unwrap();
    host.symlink(Path::new("/lib/systemd/system/target.service"), &link)
        .unwrap();
    rig.expect(
        "target-restore",
        Grade::Warning,
        "target.service is enabled",
    );
    host.remove_file(&link).unwrap();
    assert!(rig.is_good("target-restore"));
}

#[test]
fn configfs_and_the_clock_are_looked_at() {
    let rig = Rig::new();
    rig.expect(
        "configfs",
        Grade::Problem,
        "not mounted at /sys/kernel/config",
    );
    assert!(rig.is_good("clock"));
    rig.fake.set_clock_kept(false);
    rig.expect("clock", Grade::Warning, "nothing keeps it right");
}

/// On this machine, with real files and sockets.
#[test]
fn certificates_their_privacy_and_listeners_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let host = Host::real(Path::new("/"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = SanSetup {
        options: SanOptions {
            state_dir: state.clone(),
            ..SanOptions::new(&dir.path().join("pool"), vec!["127.0.0.1".parse().unwrap()])
        },
        listen: vec![listener.local_addr().unwrap()],
        patience: Duration::from_secs(5),
    };
    let find = |check: &str| -> Finding {
        let mut findings = examine_san(&host, &setup).findings.into_iter();
        findings.find(|it| it.check == check).unwrap()
    };
    let state_dir = find("state-dir");
    assert_eq!(state_dir.grade, Grade::Problem);
    let init = format!("sanpath san init --state-dir {}", state.display());
    assert_eq!(state_dir.command, Some(init));
    let office = Certificates::new(&host, &state);
    office.init(Lifetime::days(10)).unwrap();
    assert_eq!(
        find("state-dir").grade,
        Grade::Good,
        "{:?}",
        find("state-dir")
    );
    let ends = find("certificate");
    assert_eq!(ends.grade, Grade::Warning, "{ends:?}");
    let renew = format!("sanpath san renew --state-dir {}", state.display());
    assert_eq!(ends.command, Some(renew));
    office.renew(Lifetime::days(365)).unwrap();
    assert_eq!(find("certificate").grade, Grade::Good);
    let key = state.join("tls/tls.key");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let open = find("state-dir");
    assert_eq!(open.command, Some(format!("chmod go= {}", key.display())));
    assert_eq!(find("management").grade, Grade::Good);
    drop(listener);
    assert_eq!(find("management").grade, Grade::Problem);
}
