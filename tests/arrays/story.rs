//! Lives of volumes as an orchestrator leads them, through `sanpath::san`: each step may be repeated, and is, as often as its error leaves the outcome open. So
//! they can be led while anything goes wrong.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use sanpath::fabric::Export;
use sanpath::fault::{Fault, Faulted};
use sanpath::san::{
    Access, NewSnapshot, NewVolume, Others, San, SanError, SanSnapshot, SanVolume, Source, Until,
};
use sanpath::volume::{NodeId, SizeRange};

use crate::simulators::http::{self, Array, Server};

pub const GIB: u64 = 1 << 30;
/// A call has so long.
const BUDGET: Duration = Duration::from_secs(30);
/// An orchestrator has more patience than any failure of these tests lasts.
const PATIENCE: Duration = Duration::from_secs(90);

/// A simulator that fails at a change when it is told to.
pub trait Breakable {
    type Mishap: Copy + Debug;
    /// The change number `number` from now on, counted from none, meets that.
    fn fail_at(&self, number: usize, mishap: Self::Mishap);
    /// Whether all of those came; none is to come any more.
    fn all_came(&self) -> bool;
    /// How many changes there were since the last time.
    fn take_changes(&self) -> usize;
}

/// One whose array is behind HTTP.
pub trait OverHttp {
    type Array: Array;
    fn server(&self) -> &Server<Self::Array>;
}

impl<R: OverHttp> Breakable for R {
    type Mishap = http::Fault;

    fn fail_at(&self, number: usize, mishap: http::Fault) {
        self.server().set(http::Trap::mutation(number, mishap));
    }

    fn all_came(&self) -> bool {
        self.server().clear_traps()
    }

    fn take_changes(&self) -> usize {
        let seen = self.server().take_seen();
        seen.iter().filter(|it| it.is_mutation()).count()
    }
}

/// What is lost of the changes of a life.
pub struct Losses<'m, M> {
    /// Each in a life of its own.
    pub mishaps: &'m [M],
    /// In one life every so manieth is lost, from each of the first ones on.
    pub apart: usize,
    /// A life has so many.
    pub least: usize,
}

/// One alone in each life.
pub const ALONE_IN_ITS_LIFE: usize = usize::MAX;

/// Leads a life unharmed, and then once for each change and mishap; after each, `check` is to find what it should, and is told the first
/// change that was lost. `new` makes a simulator, or lends the same again.
pub async fn lose_any_change<R, T>(
    new: impl Fn() -> T,
    losses: Losses<'_, R::Mishap>,
    led: impl AsyncFn(&R, &str),
    check: impl Fn(&R, Option<usize>),
) where
    R: Breakable,
    T: Borrow<R>,
{
    let unharmed = new();
    unharmed.borrow().take_changes();
    led(unharmed.borrow(), "unharmed").await;
    let changes = unharmed.borrow().take_changes();
    check(unharmed.borrow(), None);
    assert!(changes >= losses.least, "only {changes} changes");
    for first in 0..losses.apart.min(changes) {
        for mishap in losses.mishaps {
            let rig = new();
            let rig = rig.borrow();
            rig.take_changes();
            for number in (first..changes).step_by(losses.apart) {
                rig.fail_at(number, *mishap);
            }
            led(rig, &format!("lost-{first}")).await;
            assert!(rig.all_came(), "{mishap:?} at {first}");
            check(rig, Some(first));
        }
    }
}

/// A SAN under test.
pub struct Subject<'s> {
    pub san: &'s San,
}

pub fn until() -> Until {
    Until::now() + BUDGET
}

/// What an orchestrator does: it repeats a call whose outcome is open.
pub async fn repeated<T, F>(call: impl Fn() -> F) -> Result<T, SanError>
where
    F: Future<Output = Result<T, SanError>>,
{
    let end = Until::now() + PATIENCE;
    loop {
        match call().await {
            Err(error) if is_open(&error) && Until::now() < end => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_open(error: &SanError) -> bool {
    matches!(
        error.fault(),
        Fault::MaybeDone | Fault::Busy | Fault::Timeout
    )
}

pub fn node(name: &str) -> NodeId {
    let initiator = format!("iqn.2026-11.dev.sanpath:{name}").parse().unwrap();
    NodeId::new(name, initiator).unwrap()
}

pub const ALONE: Access = Access {
    read_only: false,
    others: Others::Nobody,
};
pub const SHARED: Access = Access {
    read_only: false,
    others: Others::Anybody,
};

/// A volume to be, with notes of more than one alphabet.
pub fn wanted(name: &str, size: u64, source: Option<Source>) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        size,
        range: range(size),
        metadata: notes(name),
        decisive: &["csi/name", "csi/parameters"],
        source,
    }
}

/// That size or a little more.
fn range(size: u64) -> SizeRange {
    let bytes = |size: u64| i64::try_from(size).unwrap();
    SizeRange::new(bytes(size), bytes(size + GIB)).unwrap()
}

fn notes(name: &str) -> BTreeMap<String, String> {
    let notes = [
        ("sanpath/version", "1"),
        ("csi/name", name),
        ("csi/parameters", r#"{"mkfsOptions":"-i 8192 -L \"ä\""}"#),
    ];
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    notes.map(owned).into()
}

impl Subject<'_> {
    pub async fn make(&self, wanted: &NewVolume) -> SanVolume {
        let made = repeated(|| self.san.ensure_volume(wanted, until())).await;
        let made = made.unwrap_or_else(|error| panic!("{}: {error}", wanted.name));
        assert_eq!(
            (&made.name, &made.metadata),
            (&wanted.name, &wanted.metadata)
        );
        assert_eq!(made.source, wanted.source, "{}", wanted.name);
        assert!(wanted.range.holds(made.size), "{} bytes", made.size);
        made
    }

    pub async fn cut(&self, name: &str, volume: &SanVolume) -> SanSnapshot {
        let wanted = [NewSnapshot {
            name: name.to_owned(),
            volume: volume.key.clone(),
            metadata: notes(name),
            decisive: &["csi/name"],
        }];
        let cut = repeated(|| self.san.ensure_snapshots(&wanted, until())).await;
        let cut = cut
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .remove(0);
        assert_eq!((cut.name.as_str(), &cut.volume), (name, &volume.key));
        assert_eq!((&cut.metadata, cut.size), (&notes(name), volume.size));
        cut
    }

    pub async fn give(&self, volume: &SanVolume, to: &NodeId, access: Access) -> Export {
        let given = repeated(|| async {
            let known = self
                .san
                .find_volume(&volume.key, &volume.wwid, until())
                .await?;
            let known = known.expect("it is there");
            self.san.ensure_export(&known, to, access, until()).await
        });
        let export = given.await.unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!(
            (&export.wwid, export.read_only),
            (&volume.wwid, access.read_only)
        );
        assert!(!export.offers.is_empty());
        export
    }

    pub async fn take_back(&self, volume: &SanVolume, from: Option<&NodeId>) {
        let initiator = from.map(|node| &node.initiator);
        let taken = || {
            self.san
                .remove_export(&volume.key, &volume.wwid, initiator, until())
        };
        repeated(taken).await.unwrap();
    }

    pub async fn remove(&self, volume: &SanVolume) {
        let removed = || self.san.remove_volume(&volume.key, &volume.wwid, until());
        repeated(removed)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", volume.name));
    }

    pub async fn remove_cut(&self, cut: &SanSnapshot) {
        let removed = || self.san.remove_snapshot(&cut.key, until());
        repeated(removed).await.unwrap();
    }

    pub async fn find(&self, volume: &SanVolume) -> Option<SanVolume> {
        let found = || self.san.find_volume(&volume.key, &volume.wwid, until());
        repeated(found).await.unwrap()
    }

    /// One life of a volume, from its creation to its end, with everything that can be made of it. Whatever goes wrong on the way, nothing is left.
    pub async fn life(&self, prefix: &str) {
        let name = |what: &str| format!("{prefix}-{what}");
        let volume = self.make(&wanted(&name("volume"), 2 * GIB, None)).await;
        let same = self.make(&wanted(&name("volume"), 2 * GIB, None)).await;
        assert_eq!((&same.key, &same.wwid), (&volume.key, &volume.wwid));
        let (one, two) = (node("node-1"), node("node-2"));
        let export = self.give(&volume, &one, ALONE).await;
        assert_eq!(self.give(&volume, &one, ALONE).await, export);
        let grown = repeated(|| self.san.ensure_expanded(&volume, 3 * GIB, until())).await;
        assert_eq!(grown.unwrap().size, 3 * GIB);
        let volume = self.find(&volume).await.unwrap();
        let cut = self.cut(&name("cut"), &volume).await;
        assert_eq!(self.cut(&name("cut"), &volume).await, cut);
        let of_cut = Some(Source::Snapshot(cut.key.clone()));
        let copy = self
            .make(&wanted(&name("copy"), 3 * GIB, of_cut.clone()))
            .await;
        let larger = self.make(&wanted(&name("larger"), 5 * GIB, of_cut)).await;
        assert_eq!(larger.size, 5 * GIB);
        let of_volume = Some(Source::Volume(volume.key.clone()));
        let twin = self.make(&wanted(&name("twin"), 3 * GIB, of_volume)).await;
        let wwids = [&volume, &copy, &larger, &twin].map(|it| &it.wwid);
        for (at, wwid) in wwids.iter().enumerate() {
            assert!(!wwids[..at].contains(wwid), "{wwid} twice");
        }
        self.give(&copy, &two, ALONE).await;
        for (volume, node) in [(&volume, &one), (&copy, &two)] {
            self.take_back(volume, Some(node)).await;
            self.take_back(volume, Some(node)).await;
            assert_eq!(self.find(volume).await.unwrap().exported_to, []);
        }
        for copy in [&copy, &larger, &twin] {
            self.remove(copy).await;
        }
        self.remove_cut(&cut).await;
        self.remove_cut(&cut).await;
        self.remove(&volume).await;
        self.remove(&volume).await;
        assert_eq!(self.find(&volume).await, None);
    }

    /// Names of any kind come back as they were, and none is another's.
    pub async fn names(&self) {
        let long = "n".repeat(128);
        let names = ["a b", "a/b", "0-first", "ä", &long, "A", "a", "sanpath-a"];
        let mut made = Vec::new();
        for name in names {
            made.push(self.make(&wanted(name, GIB, None)).await);
        }
        for (name, volume) in names.iter().zip(&made) {
            let found = self.san.find_named(name, until()).await.unwrap().unwrap();
            assert_eq!(found.key, volume.key, "{name}");
        }
        for volume in &made {
            self.remove(volume).await;
        }
    }

    /// There is room, and a way to it.
    pub async fn room(&self) {
        let capacity = self.san.capacity(until()).await.unwrap();
        assert!(capacity.available >= GIB && capacity.minimum_volume <= GIB);
        assert!(capacity.maximum_volume >= GIB);
        assert!(!self.san.portals(until()).await.unwrap().is_empty());
    }
}
