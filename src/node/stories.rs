//! Whole lives of volumes on the fake host: every kind of use, a crash after every step, every tool failing once, and random stories of
//! calls, crashes, reboots and portals that come and go.

mod crashes;
mod expansion;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;

use super::{
    ExpandCall, Limits, Node, NodeError, PathSettings, PublishCall, StageCall, UnpublishCall,
    UnstageCall,
};
use crate::attach::{Dirs, Engine};
use crate::fabric::{Export, Iqn, Lun, NoPathRetry, Portal, Wwid};
use crate::fault::chain;
use crate::host::Host;
use crate::host::fake::{Delays, DiskId, FakeWorld, Fault, PortalState, sweep};
use crate::volume::{
    AccessMode, AccessType, Capability, Family, FileSystemKind, MkfsOptions, NodeId, Passphrase,
    Passphrases, SizeRange, VolumeId,
};

const GIB: u64 = 1 << 30;
const STATE: &str = "/var/lib/sanpath";
/// Header and key area of a LUKS2 device.
const PAYLOAD: u64 = 16 << 20;
/// Where a writer's bytes are looked for: past everything that mkfs writes.
const PAST_MKFS: u64 = 64 << 20;

struct Rig {
    fake: FakeWorld,
    iqn: Iqn,
    portals: [Portal; 2],
}

#[derive(Clone)]
struct Volume {
    id: VolumeId,
    disk: DiskId,
    export: Export,
    staging: PathBuf,
    access: AccessType,
    sealed: bool,
    retry: Option<NoPathRetry>,
    mode: AccessMode,
}

/// How a volume is used.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    access: AccessType,
    /// Encrypted.
    sealed: bool,
    /// How long its I/O waits without a path.
    retry: Option<NoPathRetry>,
}

impl From<AccessType> for Use {
    fn from(access: AccessType) -> Self {
        Self {
            access,
            sealed: false,
            retry: None,
        }
    }
}

fn sealed(access: AccessType) -> Use {
    Use {
        access,
        sealed: true,
        retry: None,
    }
}

fn waiting(access: AccessType) -> Use {
    Use {
        access,
        sealed: false,
        retry: Some(NoPathRetry::Checks(24)),
    }
}

impl Rig {
    fn new() -> Self {
        let fake = FakeWorld::new();
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:node1".parse().unwrap();
        let portals: [Portal; 2] = ["10.1.0.1", "10.2.0.1"].map(|text| text.parse().unwrap());
        fake.add_target(&iqn, &portals);
        fake.make_directory(Path::new("/var/lib/kubelet/pods/p"));
        Self { fake, iqn, portals }
    }

    fn volume(&self, number: u16, used: impl Into<Use>) -> Volume {
        let Use {
            access,
            sealed,
            retry,
        } = used.into();
        let wwid: Wwid = format!("36001405{number:025x}").parse().unwrap();
        let disk = self.fake.add_disk(&wwid, GIB);
        self.fake.map_lun(&self.iqn, Lun(number), disk);
        let staging = PathBuf::from(format!("/var/lib/kubelet/plugins/{number}/globalmount"));
        self.fake.make_directory(&staging);
        let id = VolumeId {
            family: Family::Linux,
            san: "cluster-a".parse().unwrap(),
            key: format!("v{number}"),
            wwid,
        };
        Volume {
            id,
            disk,
            export: self.fake.export(disk),
            staging,
            access,
            sealed,
            retry,
            mode: AccessMode::SingleNodeWriter,
        }
    }

    fn node(&self) -> Node {
        node_on(self.fake.new_process().host())
    }

    fn assert_nothing_left(&self, when: &str) {
        self.fake.settle();
        let mut left = self.fake.leftovers().of_volumes();
        let notes = Path::new(STATE).join("sessions");
        left.files
            .retain(|file| !Path::new(file).starts_with(&notes));
        left.wwids.clear();
        assert!(left.is_empty(), "{when}: {left:#?}");
        assert_eq!(self.fake.violations(), [""; 0], "{when}");
    }
}

fn node_on(host: Host) -> Node {
    let dirs = Dirs::under(Path::new("/"), Path::new(STATE), Path::new("/run/sanpath"));
    let engine = Engine::new(host.clone(), dirs);
    let initiator = "iqn.1993-08.org.debian:01:fake".parse().unwrap();
    let id = NodeId::new("node1", initiator).unwrap();
    let paths_of = Arc::new(|_: &_| Some(PathSettings::default()));
    let limits = Limits {
        grace: Duration::from_secs(2),
        ..Limits::default()
    };
    Node::new(id, host, engine, paths_of, limits)
}

fn mounted(kind: FileSystemKind) -> AccessType {
    let flags = vec!["noatime".to_owned()];
    AccessType::Mount { kind, flags }
}

fn all_uses() -> [Use; 6] {
    [
        mounted(FileSystemKind::Ext4).into(),
        mounted(FileSystemKind::Xfs).into(),
        AccessType::Block.into(),
        sealed(mounted(FileSystemKind::Ext4)),
        sealed(AccessType::Block),
        waiting(mounted(FileSystemKind::Ext4)),
    ]
}

impl Volume {
    fn capability(&self) -> Capability {
        Capability {
            access: self.access.clone(),
            mode: self.mode,
        }
    }

    fn target(&self, pod: u8) -> PathBuf {
        PathBuf::from(format!("/var/lib/kubelet/pods/p/{}-{pod}", self.id.key))
    }

    fn stage(&self, node: &Node) -> Result<(), NodeError> {
        let call = StageCall {
            volume: self.id.clone(),
            staging_path: self.staging.clone(),
            capability: self.capability(),
            export: self.export.clone(),
            mkfs: MkfsOptions::default(),
            encryption: self.sealed.then(|| {
                let passphrase = Passphrase::parse("correct horse").unwrap();
                Passphrases::new(passphrase, None)
            }),
            header: None,
            no_path_retry: self.retry,
        };
        node.stage(&call).outcome
    }

    fn publish(&self, node: &Node, pod: u8) -> Result<(), NodeError> {
        let call = PublishCall {
            volume: self.id.clone(),
            staging_path: self.staging.clone(),
            target_path: self.target(pod),
            capability: self.capability(),
            read_only: pod % 2 == 1,
        };
        node.publish(&call).outcome
    }

    /// At the staging path, to at least `size` bytes; with 0, to whatever there is.
    fn expand(&self, node: &Node, size: u64) -> Result<(), NodeError> {
        let call = ExpandCall {
            volume: self.id.clone(),
            path: self.staging.clone(),
            range: SizeRange::new(i64::try_from(size).unwrap(), 0).unwrap(),
        };
        node.expand(&call).outcome.map(drop)
    }

    fn unpublish(&self, node: &Node, pod: u8) -> Result<(), NodeError> {
        let call = UnpublishCall {
            volume: self.id.clone(),
            target_path: self.target(pod),
        };
        node.unpublish(&call).outcome
    }

    fn unstage(&self, node: &Node) -> Result<(), NodeError> {
        let call = UnstageCall {
            volume: self.id.clone(),
            staging_path: self.staging.clone(),
        };
        node.unstage(&call).outcome
    }

    /// The whole life, each call twice.
    fn live(&self, node: &Node) {
        for _ in 0..2 {
            must(self.stage(node), "stage");
        }
        for pod in [0, 1, 0, 1] {
            must(self.publish(node, pod), "publish");
        }
        for pod in [0, 1, 0, 1] {
            must(self.unpublish(node, pod), "unpublish");
        }
        for _ in 0..2 {
            must(self.unstage(node), "unstage");
        }
    }
}

fn must(outcome: Result<(), NodeError>, what: &str) {
    if let Err(error) = outcome {
        panic!("{what}: {}", chain(&error));
    }
}

#[test]
fn a_volume_lives_twice_and_leaves_nothing() {
    for access in all_uses() {
        let rig = Rig::new();
        let volume = rig.volume(5, access.clone());
        volume.live(&rig.node());
        rig.assert_nothing_left(&format!("{access:?}"));
        rig.fake.write_disk(volume.disk, PAST_MKFS, b"precious");
        let before = rig.fake.content(volume.disk);
        volume.live(&rig.node());
        assert_eq!(rig.fake.content(volume.disk), before, "{access:?}");
        rig.assert_nothing_left(&format!("{access:?} again"));
    }
}

#[test]
fn a_repeated_call_changes_nothing() {
    let rig = Rig::new();
    let host = rig.fake.new_process().host();
    let (node, volume) = (
        node_on(host.clone()),
        rig.volume(5, mounted(FileSystemKind::Ext4)),
    );
    must(volume.stage(&node), "stage");
    must(volume.publish(&node, 1), "publish");
    let steps = host.counts().steps;
    must(volume.stage(&node), "stage");
    must(volume.publish(&node, 1), "publish");
    assert_eq!(host.counts().steps, steps);
    let table = host.read(Path::new("/proc/self/mountinfo")).unwrap();
    let table = String::from_utf8(table).unwrap();
    let bind = table.lines().find(|line| line.contains("v5-1")).unwrap();
    assert!(bind.contains(" ro,noatime"), "{bind}");
}

fn leave(volume: &Volume, node: &Node) {
    for pod in [0, 1] {
        must(volume.unpublish(node, pod), "unpublish");
    }
    must(volume.unstage(node), "unstage");
}

fn stage_and_publish(volume: &Volume, node: &Node) {
    must(volume.stage(node), "stage");
    must(volume.publish(node, 0), "publish");
    must(volume.publish(node, 1), "publish read-only");
}

#[test]
fn every_path_may_die_before_the_volume_leaves() {
    let rig = Rig::new();
    let (node, volume) = (rig.node(), rig.volume(5, mounted(FileSystemKind::Ext4)));
    stage_and_publish(&volume, &node);
    for portal in rig.portals {
        rig.fake.set_portal(portal, PortalState::BlackHoled);
    }
    leave(&volume, &node);
    rig.assert_nothing_left("every path dead");
}

#[test]
fn a_reboot_forgets_the_mounts_and_not_the_volume() {
    for access in all_uses() {
        let rig = Rig::new();
        let volume = rig.volume(5, access);
        stage_and_publish(&volume, &rig.node());
        rig.fake.reboot();
        assert_eq!(rig.fake.session_count(), 0, "nothing logs in by itself");
        let node = rig.node();
        stage_and_publish(&volume, &node);
        rig.fake.reboot();
        leave(&volume, &rig.node());
        assert_eq!(rig.fake.session_count(), 0, "leaving needs no session");
        rig.assert_nothing_left("after reboots");
    }
}

#[test]
fn failures_of_every_tool_leave_a_volume_that_can_be_staged_later() {
    let failing = [
        ("iscsiadm", Fault::Exit(6, "iscsiadm: Could not lock")),
        (
            "iscsiadm",
            Fault::Exit(20, "iscsiadm: can not connect to iSCSI daemon"),
        ),
        ("multipath", Fault::Exit(1, "error")),
        ("multipath", Fault::Overdue),
        ("append", Fault::Errno(Errno::EROFS)),
        ("blkid", Fault::Exit(4, "usage")),
        ("mkfs.ext4", Fault::Exit(1, "no space")),
        ("mkfs.ext4", Fault::Overdue),
        ("mount", Fault::Errno(Errno::EIO)),
        ("flush", Fault::Errno(Errno::EIO)),
        ("multipathd", Fault::Reply("fail\ntimeout\n")),
        ("multipathd", Fault::Errno(Errno::ETIMEDOUT)),
    ];
    for (what, fault) in failing {
        let rig = Rig::new();
        let (node, volume) = (rig.node(), rig.volume(5, mounted(FileSystemKind::Ext4)));
        if what == "multipath" {
            rig.fake.fail_next("append", Fault::Errno(Errno::EROFS));
        }
        rig.fake.fail_next(what, fault.clone());
        // Some of them are survived at once; what counts is what comes after.
        let first = volume.stage(&node).map_err(|error| chain(&error));
        if let Err(error) = volume.stage(&node) {
            panic!("{what} {fault:?} ({first:?}): {}", chain(&error));
        }
        leave(&volume, &node);
        rig.assert_nothing_left(&format!("{what} {fault:?}"));
    }
}

// ---- random sequences -------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Act {
    Stage,
    Publish(u8),
    /// The SAN makes it larger, and the node is told, perhaps of less.
    Expand(bool),
    Unpublish(u8),
    Unstage,
}

#[derive(Clone, Debug)]
enum Event {
    /// A call for a volume, perhaps cut off after so many steps.
    Call(usize, Act, Option<u64>),
    Portal(usize, PortalState),
    Multipathd(bool),
    /// udev takes so many milliseconds from now on.
    Udev(u16),
    Sleep(u8),
    Reboot,
}

fn any_event() -> impl Strategy<Value = Event> {
    let act = prop_oneof![
        3 => Just(Act::Stage),
        2 => (0_u8..2).prop_map(Act::Publish),
        2 => any::<bool>().prop_map(Act::Expand),
        1 => (0_u8..2).prop_map(Act::Unpublish),
        2 => Just(Act::Unstage),
    ];
    let cut = prop_oneof![2 => Just(None), 1 => (1_u64..25).prop_map(Some)];
    let answer = prop_oneof![
        2 => Just(PortalState::Up),
        1 => Just(PortalState::Refusing),
        1 => Just(PortalState::BlackHoled),
    ];
    prop_oneof![
        12 => (0_usize..2, act, cut).prop_map(|(volume, act, cut)| Event::Call(volume, act, cut)),
        3 => (0_usize..2, answer).prop_map(|(portal, answer)| Event::Portal(portal, answer)),
        1 => any::<bool>().prop_map(Event::Multipathd),
        1 => (0_u16..30_000).prop_map(Event::Udev),
        1 => (1_u8..60).prop_map(Event::Sleep),
        1 => Just(Event::Reboot),
    ]
}

/// What a writer left on each volume once it was staged: it must be there ever after.
type Written = BTreeMap<usize, BTreeMap<u64, Vec<u8>>>;

struct Story {
    rig: Rig,
    volumes: [Volume; 2],
    node: Node,
    written: Written,
}

impl Story {
    fn new(uses: [Use; 2]) -> Self {
        let rig = Rig::new();
        let [first, second] = uses;
        Self {
            volumes: [rig.volume(1, first), rig.volume(2, second)],
            node: rig.node(),
            rig,
            written: Written::new(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Call(volume, act, cut) => self.call(volume, act, cut),
            Event::Portal(portal, answer) => {
                self.rig.fake.set_portal(self.rig.portals[portal], answer);
            }
            Event::Multipathd(true) => self.rig.fake.start_multipathd(),
            Event::Multipathd(false) => self.rig.fake.stop_multipathd(),
            Event::Udev(span) => self.rig.fake.set_delays(Delays {
                udev: Duration::from_millis(span.into()),
                ..Delays::default()
            }),
            Event::Sleep(seconds) => self.rig.fake.sleep(Duration::from_secs(seconds.into())),
            Event::Reboot => {
                self.rig.fake.reboot();
                self.node = self.rig.node();
            }
        }
    }

    fn call(&mut self, index: usize, act: Act, cut: Option<u64>) {
        let volume = &self.volumes[index];
        if let Act::Expand(_) = act {
            self.rig.fake.grow_disk(volume.disk, GIB);
        }
        let perform = |node: &Node| match act {
            Act::Stage => volume.stage(node),
            Act::Publish(pod) => volume.publish(node, pod),
            Act::Expand(open) => volume.expand(node, if open { 0 } else { 2 * GIB }),
            Act::Unpublish(pod) => volume.unpublish(node, pod),
            Act::Unstage => volume.unstage(node),
        };
        let Some(step) = cut else {
            let staged = perform(&self.node).is_ok() && matches!(act, Act::Stage);
            if staged && !self.written.contains_key(&index) {
                self.rig
                    .fake
                    .write_disk(volume.disk, PAST_MKFS, b"precious");
                let content = content_past_sizes(&self.rig, volume);
                self.written.insert(index, content);
            }
            return;
        };
        let cut = self
            .rig
            .fake
            .crash_after(step, |host| perform(&node_on(host.clone())));
        drop(cut);
        self.node = self.rig.node();
    }

    /// The orchestrator's end of it: everything unpublished, everything unstaged, until it says yes.
    fn end(&mut self) {
        for portal in self.rig.portals {
            self.rig.fake.set_portal(portal, PortalState::Up);
        }
        self.rig.fake.start_multipathd();
        self.rig.fake.settle();
        for volume in &self.volumes {
            leave(volume, &self.node);
        }
        self.rig.assert_nothing_left("at the end");
        for (&index, written) in &self.written {
            let held = content_past_sizes(&self.rig, &self.volumes[index]);
            assert_eq!(held, *written, "volume {index} changed");
        }
    }
}

/// Without the first block, or the first one inside, where a file system says how large it is.
fn content_past_sizes(rig: &Rig, volume: &Volume) -> BTreeMap<u64, Vec<u8>> {
    let mut content = rig.fake.content(volume.disk);
    content.remove(&if volume.sealed { PAYLOAD / 4096 } else { 0 });
    content
}

proptest! {
    #![proptest_config(sweep::cases(ProptestConfig::default().cases / 8))]

    #[test]
    fn any_story_ends_with_nothing_left_and_nothing_lost(
        events in proptest::collection::vec(any_event(), 1..14),
        uses in any::<[(bool, bool, bool); 2]>(),
    ) {
        let used = |(block, sealed, waits): (bool, bool, bool)| {
            let access = if block { AccessType::Block } else { mounted(FileSystemKind::Ext4) };
            let retry = waits.then_some(NoPathRetry::Checks(24));
            Use { access, sealed, retry }
        };
        let mut story = Story::new(uses.map(used));
        for event in &events {
            story.happen(event);
        }
        story.end();
    }
}
