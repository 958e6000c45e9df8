//! Where each fake host sees which volume: the SAN's word, carried to the hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fabric::{Iqn, Lun, Wwid};
use crate::host::fake::{DiskId, FakeWorld};
use crate::san::{Onlooker, Seen, TARGET};

/// See the module.
pub(super) struct Seats {
    /// By initiator.
    hosts: Vec<(String, FakeWorld)>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    seen: BTreeSet<Seen>,
    /// By initiator and WWID.
    disks: BTreeMap<(String, String), DiskId>,
    /// Who had it last, and so the newest of its content.
    last: BTreeMap<String, String>,
    /// What snapshots and copies began with, by key or WWID.
    copied: BTreeMap<String, Content>,
}

/// Blocks of 4 KiB by their number.
pub(super) type Content = BTreeMap<u64, Vec<u8>>;

impl Seats {
    /// Of hosts that know [`TARGET`].
    pub(super) fn new(hosts: Vec<(String, FakeWorld)>) -> Self {
        Self {
            hosts,
            taken: Mutex::default(),
        }
    }

    /// The disk as this host sees it.
    pub(super) fn disk(&self, initiator: &str, wwid: &str) -> DiskId {
        self.taken().disks[&(initiator.to_owned(), wwid.to_owned())]
    }

    /// What a volume by its WWID, or a snapshot by its key, holds now.
    pub(super) fn content(&self, of: &str) -> Content {
        self.taken().content(of, self)
    }

    /// What a volume that no host has seen yet begins with.
    pub(super) fn put(&self, wwid: &str, content: Content) {
        self.taken().copied.insert(wwid.to_owned(), content);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self, initiator: &str) -> &FakeWorld {
        let of = |host: &&(String, FakeWorld)| host.0 == initiator;
        let found = self.hosts.iter().find(of);
        found.map(|(_, world)| world).expect("one of ours")
    }
}

impl Onlooker for Seats {
    fn see(&self, seen: &[Seen]) {
        let seen: BTreeSet<Seen> = seen.iter().cloned().collect();
        let mut taken = self.taken();
        if taken.seen == seen {
            return;
        }
        let target: Iqn = TARGET.parse().unwrap();
        let place = |it: &Seen| (it.initiator.clone(), it.lun, it.wwid.clone());
        let there: BTreeSet<_> = seen.iter().map(place).collect();
        for gone in taken.seen.iter().filter(|it| !there.contains(&place(it))) {
            let lun = Lun(u16::try_from(gone.lun).unwrap());
            self.host(&gone.initiator).unmap_lun(&target, lun);
        }
        let before: BTreeSet<_> = taken.seen.iter().map(place).collect();
        for new in &seen {
            let host = self.host(&new.initiator);
            let disk = taken.disk(new, host, self);
            host.resize_disk(disk, new.size);
            if !before.contains(&place(new)) {
                let lun = Lun(u16::try_from(new.lun).unwrap());
                host.map_lun(&target, lun, disk);
            }
        }
        taken.seen = seen;
    }

    fn is_blank(&self, wwid: &str) -> bool {
        let taken = self.taken();
        taken.content(wwid, self).is_empty()
    }

    fn copy(&self, from: &str, to: &str) {
        let mut taken = self.taken();
        let content = taken.content(from, self);
        taken.copied.insert(to.to_owned(), content);
    }
}

impl Taken {
    /// Of a volume by its WWID or a snapshot by its key, now.
    fn content(&self, of: &str, seats: &Seats) -> Content {
        match self.last.get(of) {
            Some(last) => {
                let disk = self.disks[&(last.clone(), of.to_owned())];
                seats.host(last).content(disk)
            }
            None => self.copied.get(of).cloned().unwrap_or_default(),
        }
    }

    /// With what the host before has written.
    fn disk(&mut self, seen: &Seen, host: &FakeWorld, seats: &Seats) -> DiskId {
        let key = (seen.initiator.clone(), seen.wwid.clone());
        let wwid: Wwid = seen.wwid.parse().unwrap();
        let new = || host.add_disk(&wwid, seen.size);
        let disk = *self.disks.entry(key).or_insert_with(new);
        let before = self.last.insert(seen.wwid.clone(), seen.initiator.clone());
        if before.is_none() {
            for (number, block) in self.copied.get(&seen.wwid).into_iter().flatten() {
                host.write_disk(disk, number * 4096, block);
            }
        }
        if let Some(before) = before.filter(|it| *it != seen.initiator) {
            let theirs = self.disks[&(before.clone(), seen.wwid.clone())];
            let other = seats.host(&before);
            host.take_disk(disk, (other, theirs));
        }
        disk
    }
}
