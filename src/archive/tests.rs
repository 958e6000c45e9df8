//! Snapshots there and back, over an object store in memory and over a directory; with an end of the process in every call.

use std::collections::BTreeMap;
use std::time::Duration;

use super::memory::{Memory, SMALL, Volume, opened};
use super::*;
use crate::fault::chain;

const DAY: Duration = Duration::from_hours(24);

fn name(text: &str) -> SnapshotName {
    text.parse().unwrap()
}

fn whole(snapshot: &str, volume: &Volume) -> Job {
    Job {
        notes: BTreeMap::new(),
        snapshot: name(snapshot),
        volume: None,
        cut_at: 1_790_000_000,
        runs: Runs::Allocated(volume.all()),
    }
}

fn carry(objects: &dyn Objects, snapshot: &str, volume: &Volume) -> Uploaded {
    upload(&opened(objects), &whole(snapshot, volume), volume).unwrap()
}

/// Fills a volume that held something else, of `size` bytes.
fn fetched(objects: &dyn Objects, snapshot: &str, size: usize) -> Result<Vec<u8>, ArchiveError> {
    let archive = opened(objects);
    let target = Volume::new(vec![b'x'; size]);
    let manifest = need_snapshot(&archive, &name(snapshot))?;
    restore(&archive, &manifest, &target)?;
    Ok(target.content())
}

/// Everything goes that nobody names.
fn prune_all(memory: &Memory) {
    for _ in 0..2 {
        memory.later(DAY * 8);
        prune(&opened(memory), Patience::default()).unwrap();
    }
}

#[test]
fn a_volume_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Bucket::directory(folder.path()).unwrap();
    let memory = Memory::default();
    let stores: [&dyn Objects; 2] = [&memory, &directory];
    let mut content = Volume::of("ab..a.c").content();
    content.extend(b"and a bit");
    for objects in stores {
        let volume = Volume::new(content.clone());
        let carried = carry(objects, "monday", &volume);
        assert_eq!(carried.manifest.chunks.len(), 5, "zeros are not stored");
        assert_eq!(fetched(objects, "monday", content.len()).unwrap(), content);
        // A larger one is zeros past it.
        let larger = fetched(objects, "monday", content.len() + 9000).unwrap();
        assert!(larger.starts_with(&content));
        assert!(larger[content.len()..].iter().all(|byte| *byte == 0));
        let refused = fetched(objects, "monday", content.len() - 1).unwrap_err();
        assert!(matches!(refused, ArchiveError::TooSmall { .. }));
        assert!(verify(&opened(objects), &carried.manifest).is_ok());
    }
    assert_eq!(memory.count("chunks"), 4, "equal chunks are stored once");
    assert_eq!((memory.count("pending"), memory.count("intents")), (0, 0));
}

#[test]
fn several_threads_carry_the_same() {
    let memory = Memory::default();
    let letters: String = ('a'..='z').chain(['.'; 20]).chain('A'..='Z').collect();
    let volume = Volume::of(&letters);
    let archive = OpenArchive {
        transfers: 4,
        ..opened(&memory)
    };
    let carried = upload(&archive, &whole("a", &volume), &volume).unwrap();
    assert_eq!(carried.progress.done, carried.progress.total);
    let target = Volume::new(vec![b'x'; letters.len() * 4096]);
    restore(&archive, &carried.manifest, &target).unwrap();
    assert_eq!(target.content(), volume.content());
}

#[test]
fn an_empty_volume_is_a_manifest_and_no_chunk() {
    let memory = Memory::default();
    let volume = Volume::of("........");
    let job = Job {
        notes: BTreeMap::new(),
        runs: Runs::Allocated(Vec::new()),
        ..whole("empty", &volume)
    };
    let carried = upload(&opened(&memory), &job, &volume).unwrap();
    assert_eq!(carried.progress, Progress::default());
    carry(&memory, "zeros", &volume);
    assert_eq!((memory.count("chunks"), memory.count("manifests")), (0, 2));
    assert_eq!(
        fetched(&memory, "empty", 8 * 4096).unwrap(),
        volume.content()
    );
}

#[test]
fn of_a_second_snapshot_only_changes_are_read_and_sent() {
    let memory = Memory::default();
    carry(&memory, "monday", &Volume::of("abcdefgh"));
    let before = memory.count("chunks");
    // What it does not say is taken from the base unread: here it would be found to differ.
    let volume = Volume::of("XbcdZfgh");
    let changed = |runs: &[(u64, u64)]| {
        let run = |(offset, length): &(u64, u64)| Run {
            offset: *offset,
            length: *length,
        };
        Runs::Changed {
            base: name("monday"),
            runs: runs.iter().map(run).collect(),
        }
    };
    let job = Job {
        notes: BTreeMap::new(),
        runs: changed(&[(4 * SMALL + 5, 10)]),
        ..whole("tuesday", &volume)
    };
    let carried = upload(&opened(&memory), &job, &volume).unwrap();
    assert_eq!(carried.progress.total, SMALL);
    assert_eq!(carried.manifest.about.base, Some(name("monday")));
    assert_eq!(memory.count("chunks"), before + 1);
    let expected = Volume::of("abcdZfgh").content();
    assert_eq!(fetched(&memory, "tuesday", 8 * 4096).unwrap(), expected);
    // Without its base all is read.
    remove_snapshot(&memory, &name("monday")).unwrap();
    let job = Job {
        notes: BTreeMap::new(),
        runs: changed(&[]),
        ..whole("wednesday", &volume)
    };
    upload(&opened(&memory), &job, &volume).unwrap();
    assert_eq!(
        fetched(&memory, "wednesday", 8 * 4096).unwrap(),
        volume.content()
    );
}

#[test]
fn a_volume_that_grew_keeps_its_short_last_chunk_apart() {
    let memory = Memory::default();
    let mut content = Volume::of("ab").content();
    content.truncate(6000);
    carry(&memory, "small", &Volume::new(content.clone()));
    content.resize(3 * 4096, 0);
    content[2 * 4096] = b'c';
    let volume = Volume::new(content.clone());
    let runs = [(6000, 3 * SMALL - 6000)].map(|(offset, length)| Run { offset, length });
    let job = Job {
        notes: BTreeMap::new(),
        runs: Runs::Changed {
            base: name("small"),
            runs: runs.to_vec(),
        },
        ..whole("large", &volume)
    };
    upload(&opened(&memory), &job, &volume).unwrap();
    assert_eq!(fetched(&memory, "large", 3 * 4096).unwrap(), content);
}

#[test]
fn an_upload_that_ends_anywhere_is_taken_up_again() {
    let volume = Volume::of("abc.ab");
    let memory = Memory::default();
    carry(&memory, "a", &volume);
    let calls = memory.calls();
    for (call, is_done) in (0..calls).flat_map(|call| [(call, false), (call, true)]) {
        let memory = Memory::default();
        memory.end_after(call, is_done);
        assert!(upload(&opened(&memory), &whole("a", &volume), &volume).is_err());
        memory.restart();
        let sent = memory.count("chunks");
        carry(&memory, "a", &volume);
        assert_eq!(memory.count("chunks"), 3, "{sent} were sent and serve");
        assert_eq!(fetched(&memory, "a", 6 * 4096).unwrap(), volume.content());
        prune_all(&memory);
        assert_eq!(fetched(&memory, "a", 6 * 4096).unwrap(), volume.content());
        for root in ["pending", "intents", "condemned", "clock", "deleted"] {
            assert_eq!(memory.count(root), 0, "{root} after call {call}");
        }
        assert_eq!(memory.count("chunks"), 3);
    }
}

#[test]
fn an_upload_that_nobody_takes_up_leaves_nothing() {
    let volume = Volume::of("abc");
    let memory = Memory::default();
    carry(&memory, "a", &volume);
    for call in 0..memory.calls() - 4 {
        let memory = Memory::default();
        memory.end_after(call, true);
        assert!(upload(&opened(&memory), &whole("a", &volume), &volume).is_err());
        memory.restart();
        if memory.count("manifests") > 0 {
            continue;
        }
        prune_all(&memory);
        let left = memory.names();
        let is_revocation = |name: &String| name.starts_with("manifests/");
        assert!(left.iter().all(is_revocation), "{left:?}");
    }
}

#[test]
fn a_deletion_that_ends_anywhere_is_ended_by_prune() {
    let (gone, stays) = (Volume::of("abc"), Volume::of("bcd"));
    let made = || {
        let memory = Memory::default();
        carry(&memory, "gone", &gone);
        carry(&memory, "stays", &stays);
        memory
    };
    let memory = made();
    let before = memory.calls();
    remove_snapshot(&memory, &name("gone")).unwrap();
    for call in 0..memory.calls() - before {
        let memory = made();
        memory.end_after(call, true);
        assert!(remove_snapshot(&memory, &name("gone")).is_err());
        memory.restart();
        let is_gone = memory.count("deleted") > 0;
        let refused = fetched(&memory, "gone", 3 * 4096);
        assert_eq!(is_gone, matches!(refused, Err(ArchiveError::NoSnapshot(_))));
        let refused = upload(&opened(&memory), &whole("gone", &gone), &gone);
        assert_eq!(is_gone, matches!(refused, Err(ArchiveError::Deleted(_))));
        remove_snapshot(&memory, &name("gone")).unwrap();
        prune_all(&memory);
        assert_eq!(memory.count("chunks"), 3, "what the other names");
        assert_eq!(
            fetched(&memory, "stays", 3 * 4096).unwrap(),
            stays.content()
        );
        // The name is free again.
        carry(&memory, "gone", &gone);
    }
}

#[test]
fn a_prune_that_ends_anywhere_is_ended_by_the_next() {
    let made = || {
        let memory = Memory::default();
        carry(&memory, "gone", &Volume::of("abc"));
        carry(&memory, "stays", &Volume::of("cd"));
        remove_snapshot(&memory, &name("gone")).unwrap();
        memory.later(DAY * 2);
        prune(&opened(&memory), Patience::default()).unwrap();
        memory.later(DAY * 2);
        memory
    };
    let memory = made();
    let before = memory.calls();
    let pruned = prune(&opened(&memory), Patience::default()).unwrap();
    assert_eq!(pruned.removed, 2);
    for (call, is_done) in
        (0..memory.calls() - before).flat_map(|call| [(call, false), (call, true)])
    {
        let memory = made();
        memory.end_after(call, is_done);
        assert!(prune(&opened(&memory), Patience::default()).is_err());
        memory.restart();
        assert!(fetched(&memory, "stays", 2 * 4096).is_ok());
        prune_all(&memory);
        assert!(fetched(&memory, "stays", 2 * 4096).is_ok());
        assert_eq!(memory.names().len(), 3, "{:?}", memory.names());
    }
}

#[test]
fn what_is_young_or_under_way_is_left_alone() {
    let memory = Memory::default();
    carry(&memory, "gone", &Volume::of("abc"));
    remove_snapshot(&memory, &name("gone")).unwrap();
    let pruned = || prune(&opened(&memory), Patience::default()).unwrap();
    assert_eq!(pruned().condemned, 0, "younger than the grace");
    memory.later(Duration::from_secs(1));
    memory
        .put("intents/0123456789abcdef0123456789abcdef", Vec::new())
        .unwrap();
    memory.later(DAY * 2);
    assert_eq!(pruned().condemned, 3, "older than the intent");
    assert_eq!((pruned().waiting, memory.count("chunks")), (3, 3));
    memory.later(DAY * 2);
    assert_eq!(pruned().removed, 3);
}

/// Names that do not fit into memory are gone through in parts; the outcome is the same.
#[test]
fn a_prune_that_may_hold_little_does_the_same() {
    let letters: String = ('!'..='~').filter(|letter| *letter != '.').collect();
    let (kept, gone) = letters.split_at(40);
    let outcomes = [1, 3, 16, 1000].map(|most| {
        let memory = Memory::default();
        carry(&memory, "stays", &Volume::of(kept));
        carry(&memory, "gone", &Volume::of(gone));
        remove_snapshot(&memory, &name("gone")).unwrap();
        let pruned = || {
            memory.later(DAY * 2);
            collect::prune_within(&opened(&memory), Patience::default(), most).unwrap()
        };
        let outcome = [pruned(), pruned(), pruned()];
        assert_eq!(memory.count("chunks"), 40);
        let fetched = fetched(&memory, "stays", 40 * 4096).unwrap();
        assert_eq!(fetched, Volume::of(kept).content());
        outcome
    });
    let gone = gone.len() as u64;
    for [first, second, third] in outcomes {
        assert_eq!((first.condemned, first.removed), (gone, 0));
        assert_eq!((second.condemned, second.removed), (0, gone));
        assert_eq!(third, Pruned::default());
    }
}

/// An archive with one snapshot, and the name of an object of it below `root`.
fn damaged(root: &str, damage: impl FnOnce(&Memory, &str)) -> (Memory, String) {
    let memory = Memory::default();
    carry(&memory, "a", &Volume::of("ab"));
    let below = format!("{root}/");
    let names = memory.names();
    let object = names
        .into_iter()
        .find(|name| name.starts_with(&below))
        .unwrap();
    damage(&memory, &object);
    (memory, object)
}

#[test]
fn damage_is_refused_and_named() {
    let flip = |memory: &Memory, object: &str| {
        let mut content = memory.get(object).unwrap();
        let last = content.len() - 1;
        content[last] ^= 1;
        memory.overwrite(object, content);
    };
    let cut = |memory: &Memory, object: &str| {
        let mut content = memory.get(object).unwrap();
        content.truncate(content.len() / 2);
        memory.overwrite(object, content);
    };
    let remove = |memory: &Memory, object: &str| memory.remove(object).unwrap();
    type Damage<'d> = &'d dyn Fn(&Memory, &str);
    let cases: [(&str, Damage<'_>); 5] = [
        ("chunks", &flip),
        ("chunks", &cut),
        ("chunks", &remove),
        ("manifests", &flip),
        ("manifests", &cut),
    ];
    for (root, damage) in cases {
        let (memory, object) = damaged(root, damage);
        let archive = opened(&memory);
        let target = Volume::of("..");
        let restored = need_snapshot(&archive, &name("a"))
            .and_then(|manifest| restore(&archive, &manifest, &target));
        let refused = chain(&restored.unwrap_err());
        assert!(refused.contains(&object), "{refused}");
        // The other chunk may have been written, no byte of this one.
        let content = target.content();
        assert!(content[..4096] == [0; 4096] || content[4096..] == [0; 4096]);
    }
    let (memory, object) = damaged("chunks", remove);
    let target = Volume::of("..");
    let manifest = need_snapshot(&opened(&memory), &name("a")).unwrap();
    let refused = restore(&opened(&memory), &manifest, &target).unwrap_err();
    assert!(matches!(refused, ArchiveError::Missing(name) if name == object));
    assert_eq!(target.content(), Volume::of("..").content(), "untouched");
}

#[test]
fn prune_removes_nothing_while_a_manifest_cannot_be_read() {
    let (memory, object) = damaged("manifests", |memory, object| {
        memory.overwrite(object, b"spoilt".to_vec());
    });
    for _ in 0..3 {
        memory.later(DAY * 8);
        let refused = prune(&opened(&memory), Patience::default()).unwrap_err();
        assert!(chain(&refused).contains(&object));
    }
    assert_eq!(memory.count("chunks"), 2);
    let listed = snapshots(&memory).unwrap();
    assert!(matches!(
        listed.as_slice(),
        [Entry {
            manifest: Err(_),
            ..
        }]
    ));
    // By an operator's word it goes.
    remove_snapshot(&memory, &name("a")).unwrap();
    prune_all(&memory);
    assert_eq!(memory.names(), [""; 0]);
}

#[test]
fn a_catalogue_reads_each_manifest_once_and_lists_what_a_fresh_look_does() {
    let memory = Memory::default();
    let mut catalogue = Catalogue::default();
    let mut list = |expected: &[&str]| {
        let before = memory.calls();
        let listed = catalogue.list(&memory).unwrap();
        let calls = memory.calls() - before;
        let fresh = snapshots(&memory).unwrap().into_iter();
        let fresh = fresh.map(|it| (it.snapshot, it.manifest.unwrap().about));
        let listed = listed
            .into_iter()
            .map(|(name, about)| (name, about.unwrap()));
        let listed: BTreeMap<_, _> = listed.collect();
        assert_eq!(listed, fresh.collect::<BTreeMap<_, _>>());
        let names: Vec<_> = listed.keys().map(SnapshotName::as_str).collect();
        assert_eq!(names, expected);
        calls
    };
    carry(&memory, "a", &Volume::of("ab"));
    carry(&memory, "b", &Volume::of("bc"));
    let two_lists = list(&["a", "b"]) - 2;
    assert_eq!(list(&["a", "b"]), two_lists);
    carry(&memory, "c", &Volume::of("d"));
    assert_eq!(list(&["a", "b", "c"]), two_lists + 1);
    remove_snapshot(&memory, &name("b")).unwrap();
    assert_eq!(list(&["a", "c"]), two_lists);
    prune_all(&memory);
    carry(&memory, "b", &Volume::of("other"));
    assert_eq!(list(&["a", "b", "c"]), two_lists + 1);
}

#[test]
fn another_snapshot_of_the_name_is_a_conflict_and_the_same_is_done() {
    let memory = Memory::default();
    carry(&memory, "a", &Volume::of("ab"));
    let again = carry(&memory, "a", &Volume::of("ab"));
    assert_eq!(again.progress, Progress::default());
    let other = Volume::of("abc");
    let refused = upload(&opened(&memory), &whole("a", &other), &other).unwrap_err();
    assert!(matches!(refused, ArchiveError::Conflict { .. }));
}

#[test]
fn what_is_there_is_not_asked_for_each_chunk() {
    let memory = Memory::default();
    let letters: String = ('a'..='z').chain('A'..='Z').collect();
    let (fewer, all) = (Volume::of(&letters[1..]), Volume::of(&letters));
    for (name, volume, puts) in [("a", &fewer, 51), ("b", &all, 1)] {
        let before = memory.calls();
        upload(&opened(&memory), &whole(name, volume), volume).unwrap();
        let besides = memory.calls() - before - puts;
        assert!(besides < 20, "{besides} calls beside {puts} puts of chunks");
    }
}

#[test]
fn a_store_that_overwrites_can_hold_no_archive() {
    struct Careless(Memory);
    impl Objects for Careless {
        fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
            self.0.overwrite(name, content);
            Ok(Put::Made)
        }
        fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.find(name)
        }
        fn list_while(
            &self,
            under: &str,
            show: &mut dyn FnMut(Listed) -> bool,
        ) -> Result<(), StoreError> {
            self.0.list_while(under, show)
        }
        fn remove(&self, name: &str) -> Result<(), StoreError> {
            self.0.remove(name)
        }
    }
    let refused = ensure_archive(&Careless(Memory::default()), "store").unwrap_err();
    assert!(matches!(refused, StoreError::Overwrites(_)));
    let memory = Memory::default();
    assert!(matches!(find_archive(&memory), Err(StoreError::NoArchive)));
    assert_eq!(ensure_archive(&memory, "store").unwrap(), CHUNK_BYTES);
    assert_eq!(ensure_archive(&memory, "store").unwrap(), CHUNK_BYTES);
    memory.overwrite("sanpath-archive.json", b"{\"archive\":2}".to_vec());
    assert!(matches!(find_archive(&memory), Err(StoreError::Format(_))));
}
