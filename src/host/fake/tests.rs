//! The fake behaves: what real hosts were seen to do, it does.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::{DiskId, FakeWorld, Fault, PortalState};
use crate::fabric::{Iqn, Lun, Portal, Wwid};
use crate::host::{Command, ExecError, FileKind, Host, MountCall, Output};

const GIB: u64 = 1 << 30;

struct Rig {
    fake: FakeWorld,
    host: Host,
    iqn: Iqn,
    portals: Vec<Portal>,
    wwid: Wwid,
    disk: DiskId,
}

impl Rig {
    fn new() -> Self {
        let fake = FakeWorld::new();
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:t".parse().unwrap();
        let portals: Vec<Portal> = vec!["10.1.0.1".parse().unwrap(), "10.2.0.1".parse().unwrap()];
        let wwid: Wwid = "360014050123456789abcdef012345678".parse().unwrap();
        fake.add_target(&iqn, &portals);
        let disk = fake.add_disk(&wwid, GIB);
        fake.map_lun(&iqn, Lun(5), disk);
        Self {
            host: fake.host(),
            fake,
            iqn,
            portals,
            wwid,
            disk,
        }
    }

    fn tool(&self, program: &'static str, arguments: &[&str]) -> Output {
        let command = Command::new(program, arguments, Duration::from_secs(60));
        self.host.run(&command).unwrap()
    }

    fn iscsiadm(&self, portal: usize, rest: &[&str]) -> i32 {
        let place = format!("{},1", self.portals[portal]);
        let mut words = vec!["-m", "node", "-T", self.iqn.as_str(), "-p", &place];
        words.extend(rest);
        self.tool("iscsiadm", &words).code.unwrap()
    }

    fn log_in(&self, portal: usize) -> i32 {
        self.iscsiadm(portal, &["-o", "new"]);
        let settings = [
            "-n",
            "node.session.scan",
            "-v",
            "manual",
            "-n",
            "node.session.timeo.replacement_timeout",
            "-v",
            "5",
        ];
        self.iscsiadm(portal, &[&["-o", "update"], &settings[..]].concat());
        self.iscsiadm(portal, &["--login"])
    }

    fn hosts(&self) -> Vec<String> {
        let names = self.host.list(Path::new("/sys/class/scsi_host")).unwrap();
        names
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect()
    }

    fn scan(&self) {
        for host in self.hosts() {
            let path = format!("/sys/class/scsi_host/{host}/scan");
            self.host
                .write_attribute(Path::new(&path), b"0 0 5")
                .unwrap();
        }
    }

    fn attach(&self) {
        self.tool("multipath", &["-a", self.wwid.as_str()]);
        assert_eq!((self.log_in(0), self.log_in(1)), (0, 0));
        self.scan();
        self.fake.settle();
    }

    fn text(&self, path: &str) -> String {
        self.host.read_attribute(Path::new(path)).unwrap()
    }

    fn tell(&self, command: &str) -> String {
        let answer = self.host.tell_multipathd(command, Duration::from_secs(4));
        answer.unwrap().trim().to_owned()
    }

    fn delete_all(&self) {
        for disk in self.host.list(Path::new("/sys/block")).unwrap() {
            let path = Path::new("/sys/block").join(disk).join("device/delete");
            self.host.write_attribute(&path, b"1").unwrap();
        }
        self.fake.settle();
    }

    fn log_out_all(&self) {
        for session in self
            .host
            .list(Path::new("/sys/class/iscsi_session"))
            .unwrap()
        {
            let id = session
                .to_str()
                .unwrap()
                .trim_start_matches("session")
                .to_owned();
            self.tool("iscsiadm", &["-m", "session", "-r", &id, "-u"]);
        }
    }
}

fn mount(source: &str, target: &str, kind: Option<&'static str>, flags: MsFlags) -> MountCall {
    MountCall {
        source: source.into(),
        target: target.into(),
        kind,
        flags,
        options: String::new(),
    }
}

#[test]
fn two_paths_become_one_map_and_go_again() {
    let rig = Rig::new();
    rig.attach();
    assert_eq!(rig.log_in(0), 15, "a session exists");
    assert_eq!(rig.text("/sys/block/dm-0/dm/uuid"), rig.wwid.dm_uuid());
    assert_eq!(
        rig.host.list(Path::new("/sys/block/dm-0/slaves")).unwrap(),
        ["sda", "sdb"]
    );
    assert_eq!(rig.text("/sys/block/sda/device/state"), "running");
    assert_eq!(rig.text("/sys/block/dm-0/size"), (GIB / 512).to_string());
    let shown = rig.tell("show paths raw format \"%d %m %t %T\"");
    let name = rig.wwid.as_str();
    assert_eq!(
        shown,
        format!("sda {name} active ready\nsdb {name} active ready")
    );
    let json: serde_json::Value = serde_json::from_str(&rig.tell("show maps json")).unwrap();
    assert_eq!(json["maps"][0]["path_groups"][0]["paths"][1]["dev"], "sdb");
    assert_eq!(rig.tell(&format!("del map {name}")), "ok");
    rig.delete_all();
    rig.log_out_all();
    let left = rig.fake.leftovers().of_volumes();
    assert_eq!(left.wwids, [name]);
    rig.tool("multipath", &["-w", name]);
    assert!(rig.fake.leftovers().of_volumes().is_empty());
    assert_eq!(rig.fake.violations(), [""; 0]);
}

#[test]
fn a_disk_nobody_claimed_is_an_orphan() {
    let rig = Rig::new();
    rig.log_in(0);
    rig.scan();
    rig.fake.settle();
    assert_eq!(rig.tell("show paths raw format \"%d %m\""), "sda [orphan]");
    assert_eq!(rig.tell("add path sda"), "ok", "and means nothing");
    assert_eq!(rig.fake.paths_of(&rig.wwid), None);
    rig.tool("multipath", &["-a", rig.wwid.as_str()]);
    rig.tell("add path sda");
    assert_eq!(rig.fake.paths_of(&rig.wwid), Some(1));
}

#[test]
fn portals_fail_in_their_own_ways() {
    let rig = Rig::new();
    rig.fake.set_portal(rig.portals[0], PortalState::Refusing);
    rig.fake.set_portal(rig.portals[1], PortalState::BlackHoled);
    let probe = |portal: Portal| {
        let start = rig.host.now();
        let answer = rig
            .host
            .probe_tcp(portal.socket_address(), None, Duration::from_secs(2));
        (
            answer.unwrap_err().kind(),
            rig.host.now().since(start).as_secs(),
        )
    };
    assert_eq!(
        probe(rig.portals[0]),
        (std::io::ErrorKind::ConnectionRefused, 0)
    );
    assert_eq!(probe(rig.portals[1]), (std::io::ErrorKind::TimedOut, 2));
    assert_eq!(rig.log_in(0), 4);
    rig.iscsiadm(1, &["-o", "new"]);
    let place = format!("{},1", rig.portals[1]);
    let words = [
        "-m",
        "node",
        "-T",
        rig.iqn.as_str(),
        "-p",
        &place,
        "--login",
    ];
    let login = Command::new("iscsiadm", &words, Duration::from_secs(20)).never_killed();
    let start = rig.host.now();
    assert!(matches!(
        rig.host.run(&login),
        Err(ExecError::StillRunning { .. })
    ));
    assert_eq!(rig.host.now().since(start).as_secs(), 20);
    // iscsid goes on: the portal returns and the session comes after all.
    rig.fake.set_portal(rig.portals[1], PortalState::Up);
    rig.fake.sleep(Duration::from_secs(120));
    assert_eq!(rig.fake.session_count(), 1);
}

#[test]
fn a_lost_portal_blocks_then_fails_and_the_other_path_serves() {
    let rig = Rig::new();
    rig.attach();
    rig.fake.set_portal(rig.portals[0], PortalState::BlackHoled);
    assert_eq!(rig.text("/sys/block/sda/device/state"), "blocked");
    rig.fake.sleep(Duration::from_secs(6));
    assert_eq!(rig.text("/sys/block/sda/device/state"), "transport-offline");
    let name = rig.wwid.to_string();
    assert!(
        rig.tell(&format!("show map {name} json"))
            .contains("\"faulty\"")
    );
    let mut map = rig.host.open_block(Path::new("/dev/dm-0")).unwrap();
    assert_eq!(map.read(0, 4096).unwrap(), [0; 4096]);
    let mut path = rig.host.open_block(Path::new("/dev/sda")).unwrap();
    assert!(path.read(0, 4096).is_err(), "unreadable is never blank");
    rig.fake.set_portal(rig.portals[0], PortalState::Up);
    rig.fake.sleep(Duration::from_secs(4));
    assert_eq!(rig.text("/sys/block/sda/device/state"), "running");
    assert!(
        path.inquiry(0x83, Duration::from_secs(1))
            .unwrap()
            .ends_with(&[0x78])
    );
}

#[test]
fn a_dead_map_queues_until_its_patience_ends() {
    let rig = Rig::new();
    rig.attach();
    for &portal in &rig.portals {
        rig.fake.set_portal(portal, PortalState::BlackHoled);
    }
    let start = rig.host.now();
    let mut map = rig.host.open_block(Path::new("/dev/dm-0")).unwrap();
    assert!(map.read(0, 4096).is_err());
    assert_eq!(rig.host.now().since(start).as_secs(), 60, "no_path_retry");
    drop(map);
    assert_eq!(rig.tell("del map dm-0"), "ok");
}

#[test]
fn a_reused_lun_keeps_its_old_face_until_it_is_asked() {
    let rig = Rig::new();
    rig.attach();
    let other: Wwid = "36001405ffffffffffffffffffffffff0".parse().unwrap();
    let disk = rig.fake.add_disk(&other, GIB);
    rig.fake.map_lun(&rig.iqn, Lun(5), disk);
    rig.scan();
    assert!(
        rig.text("/sys/block/sda/device/wwid").ends_with("2345678"),
        "a scan is no news"
    );
    let mut sda = rig.host.open_block(Path::new("/dev/sda")).unwrap();
    assert!(
        sda.inquiry(0x83, Duration::from_secs(1))
            .unwrap()
            .ends_with(&[0xf0])
    );
    rig.fake.format_disk(disk, "ext4");
    rig.fake.make_directory(Path::new("/mnt"));
    rig.host
        .mount(&mount("/dev/dm-0", "/mnt", Some("ext4"), MsFlags::empty()))
        .unwrap();
    assert!(rig.fake.violations()[0].contains("reaches 36001405ffff"));
}

#[test]
fn filesystems_are_made_probed_mounted_and_grown() {
    let rig = Rig::new();
    rig.attach();
    let blkid = || rig.tool("blkid", &["-p", "-o", "export", "/dev/dm-0"]);
    assert_eq!(blkid().code, Some(2));
    rig.fake.make_directory(Path::new("/mnt"));
    rig.fake.make_directory(Path::new("/pod vol"));
    let ext4 = mount("/dev/dm-0", "/mnt", Some("ext4"), MsFlags::MS_NOATIME);
    assert_eq!(
        rig.host.mount(&ext4).unwrap_err().raw_os_error(),
        Some(Errno::EINVAL as i32)
    );
    assert!(
        rig.tool("mkfs.ext4", &["-E", "nodiscard", "/dev/dm-0"])
            .success()
    );
    assert!(blkid().stdout.contains("TYPE=ext4\n"));
    rig.host.mount(&ext4).unwrap();
    let bind = mount("/mnt", "/pod vol", None, MsFlags::MS_BIND);
    rig.host.mount(&bind).unwrap();
    let table = rig.text("/proc/self/mountinfo");
    assert!(
        table.contains(" 253:0 / /mnt rw,noatime shared:"),
        "{table}"
    );
    assert!(table.contains(" 253:0 / /pod\\040vol rw"), "{table}");
    assert_eq!(rig.tell("del map dm-0"), "fail\nmap or partition in use");
    rig.fake.resize_disk(rig.disk, 2 * GIB);
    assert_eq!(rig.tell("resize map dm-0"), "ok", "and nothing grew");
    for disk in ["sda", "sdb"] {
        let path = format!("/sys/block/{disk}/device/rescan");
        rig.host.write_attribute(Path::new(&path), b"1").unwrap();
    }
    rig.tell("resize map dm-0");
    rig.tool("resize2fs", &["/dev/dm-0"]);
    assert_eq!(rig.host.space(Path::new("/mnt")).unwrap().total, 2 * GIB);
    rig.fake.hold_path(Path::new("/mnt/file"), Some("postgres"));
    let busy = rig.host.unmount(Path::new("/mnt")).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(Errno::EBUSY as i32));
    rig.fake.hold_path(Path::new("/mnt/file"), None);
    rig.host.unmount(Path::new("/mnt")).unwrap();
    rig.host.unmount(Path::new("/pod vol")).unwrap();
    assert_eq!(rig.fake.violations(), [""; 0]);
    rig.tool("mkfs.xfs", &["/dev/dm-0"]);
    assert!(rig.fake.violations()[0].contains("holds something"));
}

#[test]
fn a_device_node_bound_to_a_file_is_that_device() {
    let rig = Rig::new();
    rig.attach();
    let target = Path::new("/var/lib/kubelet/block");
    rig.host.ensure_empty_file(target).unwrap();
    let bind = mount(
        "/dev/dm-0",
        "/var/lib/kubelet/block",
        None,
        MsFlags::MS_BIND,
    );
    rig.host.mount(&bind).unwrap();
    let stat = rig.host.find_stat(target).unwrap().unwrap();
    assert_eq!((stat.kind, stat.device), (FileKind::BlockDevice, (253, 0)));
    assert!(
        rig.text("/proc/self/mountinfo")
            .contains("0:5 /dm-0 /var/lib/kubelet/block")
    );
    assert!(rig.host.remove_file(target).is_err(), "a mount point");
    assert_eq!(rig.fake.leftovers().mounts, ["/var/lib/kubelet/block"]);
    rig.host.unmount(target).unwrap();
    assert_eq!(rig.fake.leftovers().files, ["/var/lib/kubelet/block"]);
}

#[test]
fn what_no_careful_driver_does_is_noted() {
    let rig = Rig::new();
    rig.attach();
    let host = &rig.hosts()[0];
    let scan = format!("/sys/class/scsi_host/{host}/scan");
    rig.host
        .write_attribute(Path::new(&scan), b"- - -")
        .unwrap();
    rig.host
        .write_attribute(Path::new("/sys/block/sda/device/delete"), b"1")
        .unwrap();
    rig.log_out_all();
    let noted = rig.fake.violations();
    for what in [
        "wildcard scan",
        "deleted while it is a path",
        "logged out with disks",
    ] {
        assert!(
            noted.iter().any(|note| note.contains(what)),
            "{what} in {noted:?}"
        );
    }
}

#[test]
fn a_crash_ends_the_process_and_frees_its_locks() {
    let rig = Rig::new();
    rig.host.ensure_directory(Path::new("/var/lib/x")).unwrap();
    let lock = Path::new("/var/lib/x/lock");
    let path = Path::new("/var/lib/x/ledger");
    let crashed = rig.fake.crash_after(2, |host| {
        let soon = host.deadline_in(Duration::from_secs(1));
        let held = host.lock(lock, soon).unwrap();
        assert!(rig.host.lock(lock, soon).unwrap().is_none(), "held");
        host.replace_file(path, b"one").unwrap();
        host.replace_file(path, b"two").unwrap();
        host.replace_file(path, b"three").unwrap();
        drop(held);
    });
    assert!(crashed.is_none());
    assert_eq!(rig.host.read(path).unwrap(), b"two");
    let soon = rig.host.deadline_in(Duration::from_secs(1));
    assert!(rig.host.lock(lock, soon).unwrap().is_some());
    assert_eq!(rig.fake.crash_after(1, |_| 7), Some(7));
}

#[test]
fn a_reboot_leaves_only_what_is_on_the_disk() {
    let rig = Rig::new();
    rig.attach();
    let boot = rig.text("/proc/sys/kernel/random/boot_id");
    rig.fake.reboot();
    let host = rig.fake.new_process().host();
    assert_ne!(
        host.read_attribute(Path::new("/proc/sys/kernel/random/boot_id"))
            .unwrap(),
        boot
    );
    let left = rig.fake.leftovers();
    assert_eq!(
        (left.sessions.len(), left.records.len(), left.maps.len()),
        (0, 2, 0)
    );
    assert_eq!(left.wwids, [rig.wwid.to_string()]);
    assert_eq!(host.list(Path::new("/sys/block")).unwrap(), [""; 0]);
}

#[test]
fn faults_come_when_told() {
    let rig = Rig::new();
    rig.attach();
    rig.fake.fail_next("mkfs.ext4", Fault::CrashHalfway);
    let process = rig.fake.new_process();
    let host = process.host();
    let mkfs = Command::new("mkfs.ext4", &["/dev/dm-0"], Duration::from_secs(60));
    assert!(process.until_killed(|| host.run(&mkfs)).is_none());
    assert_eq!(rig.fake.filesystem_on(rig.disk), None);
    assert!(!rig.fake.content(rig.disk).is_empty());
    rig.fake.fail_next("mount", Fault::Errno(Errno::EBUSY));
    let call = mount("/dev/dm-0", "/tmp", Some("ext4"), MsFlags::empty());
    let busy = rig.host.mount(&call).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(Errno::EBUSY as i32));
    rig.fake.stop_multipathd();
    let silent = rig
        .host
        .show_multipathd("show daemon", Duration::from_secs(4));
    assert_eq!(
        silent.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

#[test]
fn waiting_threads_share_one_clock_that_working_threads_hold() {
    let fake = FakeWorld::new();
    let path = Path::new("/tmp/done");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Known by its first call, then busy in real time: no virtual time may pass meanwhile.
            assert!(fake.host().find_stat(path).unwrap().is_none());
            let mut sum = 0_u64;
            for round in 0..20_000_000_u64 {
                sum = std::hint::black_box(sum ^ round);
            }
            let host = fake.host();
            host.wait_for_event(Duration::from_secs(3));
            host.replace_file(path, b"").unwrap();
        });
        for _ in 0..4 {
            scope.spawn(|| {
                let host = fake.host();
                let soon = host.deadline_in(Duration::from_secs(4));
                let found = host.wait_for(soon, || host.find_stat(path));
                assert!(found.unwrap().is_some(), "at {:?}", host.now());
            });
        }
    });
    assert!(
        fake.host()
            .now()
            .since(crate::deadline::Moment::from_zero(Duration::ZERO))
            < Duration::from_secs(4)
    );
}
