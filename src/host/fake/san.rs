//! The SAN of the fake: targets on portals, LUN maps, and disks with content.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use nix::errno::Errno;

use super::FakeWorld;
use crate::fabric::{Chap, Export, Iqn, Lun, Offer, Portal, Wwid};

/// Contents are kept in blocks of this size; what was never written is zero.
pub(super) const BLOCK: u64 = 4096;

/// How a portal answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortalState {
    /// It serves.
    #[default]
    Up,
    /// It answers RST: the port is closed.
    Refusing,
    /// It answers nothing: the network swallows all.
    BlackHoled,
    /// It takes the connection and never answers the login.
    Mute,
    /// It answers nothing any more, and nobody has noticed: sessions through it are logged in, and what is asked over them does not end.
    Stalled,
}

/// One backing disk. Two disks may carry the same WWID, as badly made arrays let them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DiskId(pub(super) usize);

#[derive(Default)]
pub(super) struct San {
    pub(super) portals: BTreeMap<Portal, PortalState>,
    /// The interfaces that lead to a portal; without an entry all do.
    pub(super) ways: BTreeMap<Portal, BTreeSet<String>>,
    pub(super) targets: BTreeMap<Iqn, Target>,
    pub(super) disks: Vec<Disk>,
    /// Where logins are sent on to.
    pub(super) redirects: BTreeMap<Portal, Portal>,
}

#[derive(Default)]
pub(super) struct Target {
    pub(super) portals: BTreeSet<Portal>,
    pub(super) luns: BTreeMap<Lun, DiskId>,
    /// What it wants to be proven, and what it proves.
    pub(super) chap: Option<Chap>,
    /// The same where one portal is set up otherwise.
    pub(super) chap_at: BTreeMap<Portal, Option<Chap>>,
    /// The logins that it refused, by portal.
    pub(super) refused: BTreeMap<Portal, u32>,
}

impl Target {
    /// Whether the target accepts the initiator, and the initiator the target.
    pub(super) fn admits(&self, portal: Portal, login: Option<&Chap>) -> (bool, bool) {
        let own = self.chap_at.get(&portal).unwrap_or(&self.chap).as_ref();
        let initiator =
            own.is_none_or(|own| login.is_some_and(|login| login.initiator == own.initiator));
        let asked = login.and_then(|login| login.target.as_ref());
        let proves =
            asked.is_none_or(|asked| own.is_some_and(|own| own.target.as_ref() == Some(asked)));
        (initiator, proves)
    }
}

#[derive(Clone)]
pub(super) struct Disk {
    pub(super) wwid: Wwid,
    pub(super) size: u64,
    /// What was never written reads as this.
    pub(super) filler: u8,
    pub(super) blocks: BTreeMap<u64, Vec<u8>>,
    /// Bytes that answer MEDIUM ERROR.
    pub(super) unreadable: Vec<Range<u64>>,
    /// A mkfs of ours was cut off here: making it anew destroys nothing.
    pub(super) torn: bool,
    /// Has a file system that was made here and never mounted.
    pub(super) fresh: bool,
    pub(super) writes: u64,
}

impl Disk {
    pub(super) fn blank(wwid: Wwid, size: u64) -> Self {
        Self {
            wwid,
            size,
            filler: 0,
            blocks: BTreeMap::new(),
            unreadable: Vec::new(),
            torn: false,
            fresh: false,
            writes: 0,
        }
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = offset + length as u64;
        if end > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bad = |range: &Range<u64>| range.start < end && offset < range.end;
        if self.unreadable.iter().any(bad) {
            return Err(Errno::EIO.into());
        }
        let mut bytes = vec![self.filler; length];
        for (&at, block) in self.blocks.range(offset / BLOCK..=end / BLOCK) {
            let start = at * BLOCK;
            for (index, &byte) in block.iter().enumerate() {
                let place = start + index as u64;
                if (offset..end).contains(&place) {
                    bytes[usize::try_from(place - offset).expect("inside the read")] = byte;
                }
            }
        }
        Ok(bytes)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.writes += 1;
        let size = usize::try_from(BLOCK).expect("4096");
        for (index, &byte) in bytes.iter().enumerate() {
            let place = offset + index as u64;
            let block = self
                .blocks
                .entry(place / BLOCK)
                .or_insert_with(|| vec![self.filler; size]);
            block[usize::try_from(place % BLOCK).expect("below 4096")] = byte;
        }
    }

    pub(super) fn is_blank(&self) -> bool {
        self.unreadable.is_empty()
            && self
                .blocks
                .values()
                .flatten()
                .all(|&byte| byte == self.filler)
    }

    pub(super) fn wipe(&mut self) {
        self.blocks.clear();
    }

    /// The parts that are not zero: what a test compares.
    pub(super) fn content(&self) -> BTreeMap<u64, Vec<u8>> {
        let written = |block: &&Vec<u8>| block.iter().any(|&byte| byte != 0);
        self.blocks
            .iter()
            .filter(|(_, block)| written(block))
            .map(|(&at, block)| (at, block.clone()))
            .collect()
    }
}

impl San {
    pub(super) fn portal(&self, portal: Portal) -> PortalState {
        self.portals
            .get(&portal)
            .copied()
            .unwrap_or(PortalState::Refusing)
    }

    pub(super) fn lun(&self, iqn: &Iqn, lun: Lun) -> Option<DiskId> {
        self.targets.get(iqn)?.luns.get(&lun).copied()
    }

    pub(super) fn disk(&self, id: DiskId) -> &Disk {
        &self.disks[id.0]
    }

    pub(super) fn disk_mut(&mut self, id: DiskId) -> &mut Disk {
        &mut self.disks[id.0]
    }

    /// The disk as the SAN would export it now: every portal of every target that maps it.
    pub(super) fn export(&self, id: DiskId) -> Export {
        let disk = self.disk(id);
        let mut offers = Vec::new();
        for (iqn, target) in &self.targets {
            let mapped = target.luns.iter().filter(|(_, mapped)| **mapped == id);
            for (&lun, _) in mapped {
                offers.extend(target.portals.iter().map(|&portal| Offer {
                    portal,
                    iqn: iqn.clone(),
                    lun,
                }));
            }
        }
        Export {
            wwid: disk.wwid.clone(),
            size: disk.size,
            offers,
            blank: disk.is_blank(),
            read_only: false,
            own_target: false,
        }
    }
}

impl FakeWorld {
    /// A new disk with what another one holds now: a clone, which may be larger.
    pub fn copy_disk(&self, origin: DiskId, wwid: &Wwid, size: u64) -> DiskId {
        let mut state = self.state();
        let copy = Disk {
            wwid: wwid.clone(),
            size,
            fresh: false,
            ..state.san.disk(origin).clone()
        };
        state.san.disks.push(copy);
        DiskId(state.san.disks.len() - 1)
    }
}
