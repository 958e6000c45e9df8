//! What every kind of SAN must do, whatever it is made of: one suite over the public calls of `sanpath::san`. A kind may only differ in what it
//! declares in [`Capabilities`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sanpath::fabric::Wwid;
use sanpath::san::{
    Access, NewSnapshot, NewVolume, Others, San, SanError, SanSnapshot, SanVolume, Source, Until,
};
use sanpath::volume::{Family, NodeId, SanName, SizeRange, SnapshotId, VolumeId};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
/// The key of a note that must be the same for a repeated call to mean the same object.
const NOTE: &str = "csi/name";
const DECISIVE: &[&str] = &[NOTE];

/// In what kinds of SANs differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// Several volumes can be cut at one moment.
    pub groups: bool,
    /// It knows which blocks of a snapshot hold something; else it says that all may, or that it does not tell.
    pub extents: bool,
    /// It knows that a copy of what was never written to was never written to either; else no copy is called blank.
    pub blank_copies: bool,
    /// A volume cannot go before its snapshots.
    pub snapshots_depend: bool,
    /// A volume cannot go before its copies.
    pub copies_depend: bool,
    /// Every volume is behind one and the same portal.
    pub one_portal: bool,
    /// Volumes are of whole GiB.
    pub whole_gib: bool,
}

/// A SAN under test. It may hold other things; those whose names begin with `prefix` are the suite's.
pub struct Subject {
    pub san: Arc<San>,
    pub has: Capabilities,
    pub prefix: String,
}

/// Of a partition: ids must have room for it.
fn longest_name() -> SanName {
    "s".repeat(32).parse().unwrap()
}

/// The end of a call's time.
pub fn until() -> Until {
    Until::now() + Duration::from_secs(30)
}

pub fn node(number: u32) -> NodeId {
    let iqn = format!("iqn.2026-11.dev.sanpath.test:node{number}");
    NodeId::new(&format!("node{number}"), iqn.parse().unwrap()).unwrap()
}

/// To write, with nobody beside it.
pub const ALONE: Access = Access {
    read_only: false,
    others: Others::Nobody,
};

/// The same beside others.
pub const SHARED: Access = Access {
    read_only: false,
    others: Others::Anybody,
};

impl Subject {
    /// So many times a size that is easy for this kind.
    fn size(&self, parts: u64) -> u64 {
        parts * if self.has.whole_gib { GIB } else { MIB }
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn wanted(&self, name: &str, size: u64, source: Option<Source>) -> NewVolume {
        NewVolume {
            name: self.name(name),
            size,
            range: SizeRange::new(i64::try_from(size).unwrap(), 0).unwrap(),
            metadata: [(NOTE.to_owned(), name.to_owned())].into(),
            decisive: DECISIVE,
            source,
        }
    }

    pub fn cut(&self, name: &str, of: &SanVolume) -> NewSnapshot {
        NewSnapshot {
            name: self.name(name),
            volume: of.key.clone(),
            metadata: [(NOTE.to_owned(), name.to_owned())].into(),
            decisive: DECISIVE,
        }
    }

    pub async fn make(&self, name: &str, size: u64, source: Option<Source>) -> SanVolume {
        let wanted = self.wanted(name, size, source);
        let made = self.san.ensure_volume(&wanted, until()).await.unwrap();
        let id = VolumeId {
            family: Family::Linux,
            san: longest_name(),
            key: made.key.clone(),
            wwid: made.wwid.clone(),
        };
        assert_eq!(VolumeId::find(&id.to_string()), Some(id), "it comes back");
        made
    }

    pub async fn snapshot(&self, name: &str, of: &SanVolume) -> SanSnapshot {
        let wanted = [self.cut(name, of)];
        let cut = self.san.ensure_snapshots(&wanted, until()).await;
        let cut = cut.unwrap().remove(0);
        let id = SnapshotId {
            family: Family::Linux,
            san: longest_name(),
            key: cut.key.clone(),
        };
        assert_eq!(SnapshotId::find(&id.to_string()), Some(id), "it comes back");
        cut
    }

    pub async fn find(&self, volume: &SanVolume) -> Option<SanVolume> {
        let found = self.san.find_volume(&volume.key, &volume.wwid, until());
        found.await.unwrap()
    }

    pub async fn delete(&self, volume: &SanVolume) {
        let removed = self.san.remove_volume(&volume.key, &volume.wwid, until());
        removed.await.unwrap();
    }

    /// Its deletion is refused for good reason, and nothing changes by it.
    async fn is_kept(&self, volume: &SanVolume) {
        let refused = self.san.remove_volume(&volume.key, &volume.wwid, until());
        let refused = refused.await.unwrap_err();
        let class = sanpath::fault::Faulted::fault(&refused);
        assert_eq!(class, sanpath::fault::Fault::Precondition, "{refused}");
        assert_eq!(self.find(volume).await.as_ref(), Some(volume));
    }

    pub async fn delete_snapshot(&self, snapshot: &SanSnapshot) {
        let removed = self.san.remove_snapshot(&snapshot.key, until()).await;
        removed.unwrap();
    }

    /// All volumes of the suite, by pages of two.
    async fn listed(&self) -> Vec<SanVolume> {
        let (mut all, mut after) = (Vec::<SanVolume>::new(), String::new());
        loop {
            let page = self.san.list_volumes(&after, 2, until()).await.unwrap();
            assert!(page.volumes.len() <= 2);
            if let Some(last) = page.volumes.last() {
                assert!(last.key > after, "in the order of keys");
                after.clone_from(&last.key);
            }
            all.extend(page.volumes);
            if !page.more {
                break;
            }
        }
        all.retain(|it| it.name.starts_with(&self.prefix));
        all
    }
}

/// The whole suite. Leaves nothing.
pub async fn all(subject: &Subject) {
    volumes(subject).await;
    sizes(subject).await;
    exports(subject).await;
    sharing(subject).await;
    snapshots(subject).await;
    copies(subject).await;
    groups(subject).await;
    pages(subject).await;
    room(subject).await;
    assert_eq!(subject.listed().await, [], "something is left");
}

async fn volumes(subject: &Subject) {
    let made = subject.make("v", subject.size(8), None).await;
    assert!(made.size >= subject.size(8) && made.exported_to.is_empty());
    assert_eq!(made.metadata[NOTE], "v");
    assert_eq!(
        subject.make("v", subject.size(8), None).await,
        made,
        "made once"
    );
    let named = subject.san.find_named(&made.name, until()).await.unwrap();
    assert_eq!(named.as_ref(), Some(&made));
    assert_eq!(subject.find(&made).await.as_ref(), Some(&made));
    let other: Wwid = "3600140500000000000000000000000ff".parse().unwrap();
    let stranger = subject.san.find_volume(&made.key, &other, until()).await;
    assert_eq!(stranger.unwrap(), None, "another WWID is another volume");
    for wanted in [
        subject.wanted("v", subject.size(64), None),
        subject.wanted("v", subject.size(8), Some(Source::Volume(made.key.clone()))),
        NewVolume {
            metadata: [(NOTE.to_owned(), "w".to_owned())].into(),
            ..subject.wanted("v", subject.size(8), None)
        },
    ] {
        let refused = subject.san.ensure_volume(&wanted, until()).await;
        assert!(
            matches!(refused, Err(SanError::Taken { .. })),
            "{refused:?}"
        );
    }
    let checked = subject.san.check_volume(&made.key, &made.wwid, until());
    assert_eq!(checked.await.unwrap().unwrap().troubles, []);
    let kept = subject.san.remove_volume(&made.key, &other, until()).await;
    kept.unwrap();
    assert!(subject.find(&made).await.is_some(), "not by another WWID");
    subject.delete(&made).await;
    subject.delete(&made).await;
    assert_eq!(subject.find(&made).await, None);
    let again = subject.make("v", subject.size(8), None).await;
    assert!(
        again.key != made.key && again.wwid != made.wwid,
        "never twice"
    );
    subject.delete(&again).await;
    let odd = "a name: with / and *, | and ä, of some length";
    let odd_one = subject.make(odd, subject.size(1), None).await;
    assert_eq!(odd_one.name, subject.name(odd));
    assert_eq!(subject.make(odd, subject.size(1), None).await, odd_one);
    subject.delete(&odd_one).await;
}

async fn sizes(subject: &Subject) {
    let made = subject.make("v", subject.size(8), None).await;
    let grown = subject
        .san
        .ensure_expanded(&made, subject.size(24), until())
        .await;
    let grown = grown.unwrap();
    assert!(grown.size >= subject.size(24) && grown.wwid == made.wwid);
    let again = subject
        .san
        .ensure_expanded(&grown, subject.size(24), until())
        .await;
    assert_eq!(again.unwrap(), grown, "once");
    let less = subject
        .san
        .ensure_expanded(&grown, subject.size(8), until())
        .await;
    assert_eq!(less.unwrap().size, grown.size, "nothing shrinks");
    subject.delete(&grown).await;
}

async fn exports(subject: &Subject) {
    let san = &subject.san;
    let made = subject.make("v", subject.size(8), None).await;
    let (one, two) = (node(1), node(2));
    let export = san
        .ensure_export(&made, &one, ALONE, until())
        .await
        .unwrap();
    assert_eq!((&export.wwid, export.size), (&made.wwid, made.size));
    assert!(export.blank && !export.read_only);
    assert!(!export.offers.is_empty());
    assert_eq!(export.offers.len() == 1, subject.has.one_portal);
    let here = subject.find(&made).await.unwrap();
    assert_eq!(here.exported_to.len(), 1);
    assert_eq!(here.exported_to[0].node_id().as_ref(), Some(&one));
    let again = san
        .ensure_export(&here, &one, ALONE, until())
        .await
        .unwrap();
    assert_eq!(again, export, "the same when repeated");
    let portals: BTreeSet<_> = san.portals(until()).await.unwrap().into_iter().collect();
    let offered = export.offers.iter().map(|offer| offer.portal);
    assert!(offered.collect::<BTreeSet<_>>().is_subset(&portals));
    alone_with(subject, [&here, &made], (&one, &two)).await;
    let here = subject.find(&made).await.unwrap();
    assert_eq!(here.exported_to.len(), 1, "the refused one is not in");
    let clone = NodeId::new("clone", one.initiator.clone()).unwrap();
    let refused = san.ensure_export(&here, &clone, ALONE, until()).await;
    assert!(
        matches!(refused, Err(SanError::OtherName { .. })),
        "{refused:?}"
    );
    let refused = san.remove_volume(&made.key, &made.wwid, until()).await;
    assert!(
        matches!(refused, Err(SanError::InUse { .. })),
        "{refused:?}"
    );
    for _ in 0..2 {
        let taken = san.remove_export(&made.key, &made.wwid, Some(&one.initiator), until());
        taken.await.unwrap();
    }
    let moved = subject.find(&made).await.unwrap();
    assert_eq!(moved.exported_to, []);
    san.ensure_export(&moved, &two, ALONE, until())
        .await
        .unwrap();
    let from_all = san
        .remove_export(&made.key, &made.wwid, None, until())
        .await;
    from_all.unwrap();
    subject.delete(&made).await;
    let gone = san
        .remove_export(&made.key, &made.wwid, None, until())
        .await;
    gone.unwrap();
}

/// The volume that the first node has alone is refused to the second, whether it was found with the first or before: then the SAN, or the look after it, must see it.
async fn alone_with(
    subject: &Subject,
    [here, before]: [&SanVolume; 2],
    (one, two): (&NodeId, &NodeId),
) {
    for known in [here, before] {
        let refused = subject.san.ensure_export(known, two, ALONE, until()).await;
        let refused = refused.unwrap_err();
        let class = sanpath::fault::Faulted::fault(&refused);
        assert_eq!(class, sanpath::fault::Fault::Precondition, "{refused}");
    }
    let refused = subject.san.ensure_export(here, two, ALONE, until()).await;
    assert!(
        matches!(&refused, Err(SanError::Elsewhere { nodes }) if *nodes == [one.name.as_str()]),
        "{refused:?}"
    );
}

async fn sharing(subject: &Subject) {
    let san = &subject.san;
    let made = subject.make("v", subject.size(8), None).await;
    let reading = Access {
        read_only: true,
        others: Others::Readers,
    };
    for number in [1, 2] {
        let known = subject.find(&made).await.unwrap();
        let export = san
            .ensure_export(&known, &node(number), reading, until())
            .await;
        assert!(export.unwrap().read_only);
    }
    let known = subject.find(&made).await.unwrap();
    assert_eq!(known.exported_to.len(), 2);
    assert!(known.exported_to.iter().all(|to| to.read_only));
    let refused = san.ensure_export(&known, &node(3), ALONE, until()).await;
    assert!(
        matches!(refused, Err(SanError::Elsewhere { .. })),
        "{refused:?}"
    );
    let refused = san.ensure_export(&known, &node(1), ALONE, until()).await;
    assert!(
        matches!(refused, Err(SanError::OtherAccess { .. })),
        "{refused:?}"
    );
    // That it has the volume is no leave to have it alone, and nobody loses it by the question.
    let alone = Access {
        others: Others::Nobody,
        ..reading
    };
    let refused = san.ensure_export(&known, &node(1), alone, until()).await;
    assert!(
        matches!(refused, Err(SanError::Elsewhere { .. })),
        "{refused:?}"
    );
    let still = subject.find(&made).await.unwrap();
    assert_eq!(still.exported_to, known.exported_to);
    let from_all = san.remove_export(&made.key, &made.wwid, None, until());
    from_all.await.unwrap();
    assert_eq!(subject.find(&made).await.unwrap().exported_to, []);
    subject.delete(&made).await;
}

async fn snapshots(subject: &Subject) {
    let san = &subject.san;
    let made = subject.make("v", subject.size(8), None).await;
    let other = subject.make("w", subject.size(8), None).await;
    let cut = subject.snapshot("s", &made).await;
    assert_eq!((&cut.volume, cut.size), (&made.key, made.size));
    assert_eq!(cut.metadata[NOTE], "s");
    assert_eq!(subject.snapshot("s", &made).await, cut, "cut once");
    let refused = san
        .ensure_snapshots(&[subject.cut("s", &other)], until())
        .await;
    assert!(
        matches!(refused, Err(SanError::Taken { .. })),
        "{refused:?}"
    );
    let found = san.find_snapshot(&cut.key, until()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&cut));
    assert_eq!(
        subject.find(&made).await.unwrap(),
        made,
        "a cut is no change"
    );
    let second = subject.snapshot("s2", &made).await;
    let of_other = subject.snapshot("s3", &other).await;
    snapshot_pages(san, &made, [&cut, &second]).await;
    extents_of(subject, &cut).await;
    if subject.has.snapshots_depend {
        subject.is_kept(&made).await;
    } else {
        subject.delete(&made).await;
    }
    let kept = san.find_snapshot(&cut.key, until()).await.unwrap();
    assert_eq!(kept, Some(cut.clone()), "it outlives its volume");
    for snapshot in [&cut, &second, &of_other, &cut] {
        subject.delete_snapshot(snapshot).await;
    }
    assert_eq!(san.find_snapshot(&cut.key, until()).await.unwrap(), None);
    if subject.has.snapshots_depend {
        subject.delete(&made).await;
    }
    subject.delete(&other).await;
}

/// Of a cut in which nothing was ever written.
async fn extents_of(subject: &Subject, cut: &SanSnapshot) {
    let told = subject
        .san
        .list_extents((&cut.key, None), 0, 100, until())
        .await;
    match (told, subject.has.extents) {
        (Ok(told), true) => assert_eq!((told.extents, told.size), (vec![], cut.size)),
        (Ok(told), false) => {
            assert_eq!(
                told.extents,
                [(0, cut.size)],
                "all of it may hold something"
            );
            assert_eq!(told.size, cut.size);
        }
        (Err(refused), false) => {
            let class = sanpath::fault::Faulted::fault(&refused);
            assert_eq!(class, sanpath::fault::Fault::Precondition, "{refused}");
        }
        (Err(refused), true) => panic!("{refused}"),
    }
}

/// Those of one volume, one at a time.
async fn snapshot_pages(san: &San, made: &SanVolume, both: [&SanSnapshot; 2]) {
    let page = san
        .list_snapshots("", 1, Some(&made.key), until())
        .await
        .unwrap();
    assert!(page.more && page.snapshots.len() == 1);
    let after = &page.snapshots[0].key;
    let rest = san
        .list_snapshots(after, 5, Some(&made.key), until())
        .await
        .unwrap();
    assert!(!rest.more && rest.snapshots.len() == 1);
    let keys: BTreeSet<&String> = [after, &rest.snapshots[0].key].into();
    assert_eq!(keys, both.map(|it| &it.key).into());
}

async fn copies(subject: &Subject) {
    let made = subject.make("v", subject.size(8), None).await;
    let cut = subject.snapshot("s", &made).await;
    let of_cut = Source::Snapshot(cut.key.clone());
    let restored = subject.make("r", made.size, Some(of_cut.clone())).await;
    assert_eq!(restored.source, Some(of_cut.clone()));
    assert_eq!(restored.metadata[NOTE], "r", "its own notes");
    assert_ne!(restored.wwid, made.wwid);
    let again = subject.make("r", made.size, Some(of_cut.clone())).await;
    assert_eq!(again, restored);
    let larger = subject.make("l", subject.size(32), Some(of_cut)).await;
    assert!(larger.size >= subject.size(32));
    let of_volume = Source::Volume(made.key.clone());
    let cloned = subject.make("c", made.size, Some(of_volume)).await;
    let export = subject
        .san
        .ensure_export(&cloned, &node(1), ALONE, until())
        .await;
    assert_eq!(
        export.unwrap().blank,
        subject.has.blank_copies,
        "a copy of what was never written to"
    );
    let taken = subject
        .san
        .remove_export(&cloned.key, &cloned.wwid, None, until());
    taken.await.unwrap();
    let of_nothing = Source::Snapshot("0f1e2d3c-4b5a-4978-8796-a5b4c3d2e1f0".to_owned());
    let refused = subject.wanted("n", made.size, Some(of_nothing));
    let refused = subject
        .san
        .ensure_volume(&refused, until())
        .await
        .unwrap_err();
    let class = sanpath::fault::Faulted::fault(&refused);
    assert_eq!(class, sanpath::fault::Fault::NotFound, "{refused}");
    if subject.has.copies_depend || subject.has.snapshots_depend {
        subject.is_kept(&made).await;
    }
    subject.delete_snapshot(&cut).await;
    if subject.has.copies_depend {
        subject.is_kept(&made).await;
    } else {
        subject.delete(&made).await;
    }
    for copy in [restored, larger, cloned] {
        assert_eq!(
            subject.find(&copy).await.as_ref(),
            Some(&copy),
            "independent"
        );
        subject.delete(&copy).await;
    }
    if subject.has.copies_depend {
        subject.delete(&made).await;
    }
}

async fn groups(subject: &Subject) {
    let volumes = [
        subject.make("v", subject.size(8), None).await,
        subject.make("w", subject.size(8), None).await,
    ];
    let wanted = [
        subject.cut("g0", &volumes[0]),
        subject.cut("g1", &volumes[1]),
    ];
    let cut = subject.san.ensure_snapshots(&wanted, until()).await;
    match (cut, subject.has.groups) {
        (Ok(cut), true) => {
            assert_eq!(cut.len(), 2);
            for snapshot in &cut {
                subject.delete_snapshot(snapshot).await;
            }
        }
        (Err(refused), false) => {
            let class = sanpath::fault::Faulted::fault(&refused);
            assert_eq!(class, sanpath::fault::Fault::Precondition, "{refused}");
        }
        (other, _) => panic!("{other:?}"),
    }
    for volume in &volumes {
        subject.delete(volume).await;
    }
}

async fn pages(subject: &Subject) {
    let mut made = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        made.push(subject.make(name, subject.size(1), None).await);
    }
    let cut = subject.snapshot("s", &made[0]).await;
    made.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(subject.listed().await, made, "volumes, and no snapshot");
    subject.delete_snapshot(&cut).await;
    shown_with_nodes(subject, &made[1]).await;
    for volume in &made {
        subject.delete(volume).await;
    }
}

/// A volume that two nodes share is one entry of the list, with both.
async fn shown_with_nodes(subject: &Subject, shared: &SanVolume) {
    for number in [1, 2] {
        let (known, node) = (subject.find(shared).await.unwrap(), node(number));
        let given = subject.san.ensure_export(&known, &node, SHARED, until());
        given.await.unwrap();
    }
    let listed = subject.listed().await.into_iter();
    let mut found: Vec<SanVolume> = listed.filter(|it| it.key == shared.key).collect();
    assert_eq!(found.len(), 1);
    let nodes = found.remove(0).exported_to;
    let names: BTreeSet<String> = nodes.into_iter().map(|it| it.node_name).collect();
    assert_eq!(names, [1, 2].map(|it| node(it).name).into());
    let taken = subject
        .san
        .remove_export(&shared.key, &shared.wwid, None, until());
    taken.await.unwrap();
}

async fn room(subject: &Subject) {
    let room = subject.san.capacity(until()).await.unwrap();
    assert!(room.available > 0);
    assert!(room.minimum_volume <= subject.size(1) && room.maximum_volume > subject.size(64));
}
