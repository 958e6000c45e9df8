//! The moments on which the protocol of deletion rests, each brought about by hand: what another process does between two calls of one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::memory::{Memory, Volume, opened};
use super::*;

const DAY: Duration = Duration::from_hours(24);

/// The store, with somebody who acts right after a list.
struct Watched<'a> {
    memory: &'a Memory,
    after_list: Box<dyn Fn(&str) + Send + Sync + 'a>,
}

impl Objects for Watched<'_> {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        self.memory.put(name, content)
    }
    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.find(name)
    }
    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        self.memory.list_while(under, show)?;
        (self.after_list)(under);
        Ok(())
    }
    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.memory.remove(name)
    }
}

fn carry(objects: &dyn Objects, volume: &Volume) -> Uploaded {
    let job = Job {
        notes: std::collections::BTreeMap::new(),
        snapshot: "a".parse().unwrap(),
        volume: None,
        cut_at: 0,
        runs: Runs::Allocated(volume.all()),
    };
    upload(&opened(objects), &job, volume).unwrap()
}

fn fetched(memory: &Memory) -> Vec<u8> {
    let archive = opened(memory);
    let target = Volume::of("...");
    let manifest = need_snapshot(&archive, &"a".parse().unwrap()).unwrap();
    restore(&archive, &manifest, &target).unwrap();
    target.content()
}

/// An archive whose upload sleeps before its last put, when it has seen that everything is there: the content of its manifest, and where that is to stand.
struct Asleep {
    memory: Memory,
    content: Vec<u8>,
    place: String,
    pending: String,
}

fn asleep(volume: &Volume) -> Asleep {
    let memory = Memory::default();
    carry(&memory, volume);
    let mut names = memory.names().into_iter();
    let place = names.find(|name| name.starts_with("manifests/")).unwrap();
    let content = memory.get(&place).unwrap();
    let pending = place.replacen("manifests/", "pending/", 1);
    memory.remove(&place).unwrap();
    memory.put(&pending, content.clone()).unwrap();
    Asleep {
        memory,
        content,
        place,
        pending,
    }
}

fn condemn_all(memory: &Memory) {
    for key in memory
        .names()
        .iter()
        .filter_map(|name| ChunkKey::find(name))
    {
        memory.put(&key.condemnation(), Vec::new()).unwrap();
    }
}

/// A prune condemned on the word of old lists what an upload needs that had looked already. The next one sweeps while the upload commits between its two lists.
#[test]
fn an_upload_that_commits_while_prune_looks_is_seen() {
    let volume = Volume::of("pqr");
    let upload = asleep(&volume);
    condemn_all(&upload.memory);
    upload.memory.later(DAY * 2);
    let (is_sweeping, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let watched = Watched {
        memory: &upload.memory,
        after_list: Box::new(|under| {
            if under == "condemned" {
                is_sweeping.store(true, Ordering::Relaxed);
            }
            let is_look = under == "pending" || under == "manifests";
            if is_look
                && is_sweeping.load(Ordering::Relaxed)
                && !is_over.swap(true, Ordering::Relaxed)
            {
                upload
                    .memory
                    .put(&upload.place, upload.content.clone())
                    .unwrap();
                upload.memory.remove(&upload.pending).unwrap();
            }
        }),
    };
    let pruned = prune(&opened(&watched), Patience::default()).unwrap();
    assert!(is_over.load(Ordering::Relaxed));
    assert_eq!(pruned.removed, 0);
    assert_eq!(fetched(&upload.memory), volume.content());
}

/// An upload looks whether everything stays; between its two looks a prune removes it, and its condemnation.
#[test]
fn what_goes_while_an_upload_looks_is_seen() {
    let volume = Volume::of("p..");
    let memory = Memory::default();
    let is_over = AtomicBool::new(false);
    let watched = Watched {
        memory: &memory,
        after_list: Box::new(|under| {
            let is_look = under == "condemned" || under.starts_with("chunks/");
            if is_look && memory.count("pending") > 0 && !is_over.swap(true, Ordering::Relaxed) {
                for name in memory.names() {
                    if name.starts_with("condemned/") || name.starts_with("chunks/") {
                        memory.remove(&name).unwrap();
                    }
                }
            }
            // Before the first look there are chunks, and they are condemned.
            if !is_over.load(Ordering::Relaxed) && memory.count("chunks") == 1 {
                condemn_all(&memory);
            }
        }),
    };
    carry(&watched, &volume);
    assert!(is_over.load(Ordering::Relaxed));
    assert_eq!(fetched(&memory), volume.content());
}

/// However long an upload sleeps: once prune gave it up, its manifest cannot come.
#[test]
fn an_upload_that_was_given_up_cannot_commit() {
    let volume = Volume::of("pqr");
    let upload = asleep(&volume);
    for _ in 0..3 {
        upload.memory.later(DAY * 8);
        prune(&opened(&upload.memory), Patience::default()).unwrap();
    }
    assert_eq!(upload.memory.count("chunks"), 0);
    let late = upload.memory.put(&upload.place, upload.content.clone());
    assert_eq!(late.unwrap(), Put::WasThere);
    assert!(snapshots(&upload.memory).unwrap().is_empty());
    // Another try is another writer's.
    carry(&upload.memory, &volume);
    assert_eq!(fetched(&upload.memory), volume.content());
}
