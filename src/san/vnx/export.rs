//! Who reaches a LUN, and under which number.
//!
//! The number is picked by us: the lowest that the group does not use, from 1 on, for at 0 the array shows a LUN of its own. Another may pick it at the same time; the
//! array takes one of the two, and the other looks again. Between two controllers nothing else stands, so what is told is read after it was given. The array has
//! no access for reading alone: who is only to read is noted with the volume, and kept to by the nodes.

use super::ask::Question;
use super::groups::{Hosted, Hosts};
use super::notes::Notes;
use super::text::Lun;
use super::{PAUSE, Vnx, names, read, refusal};
use crate::fabric::Iqn;
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::exports::refuse_other_use;
use crate::san::family::Given;
use crate::san::nouns::{Access, Others, SanVolume};
use crate::volume::NodeId;

const NUMBERS: std::ops::RangeInclusive<u16> = 1..=255;

impl Vnx {
    /// Lets the node reach the volume.
    pub(super) async fn give(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        let _turn = self.turns.of(&volume.key, until).await;
        let lun = self.same_lun(volume, until).await?;
        let notes = self.noted(&lun.name, until).await?;
        let hosts = self.hosts(until).await?;
        refuse_other_use(&read::volume(&lun, notes.clone(), &hosts), node, access)?;
        self.refuse_unseen(&lun, &hosts, access)?;
        let ports = self.ports(until).await?;
        let notes = self
            .note_use(&lun, (node, access), (notes, &hosts), until)
            .await?;
        let hosts = self.ensure_host(node, &ports, hosts, until).await?;
        let (hosts, hlu) = self.ensure_number(&lun, hosts, node, until).await?;
        self.refuse_unseen(&lun, &hosts, access)?;
        let hosted = self.host_of(&hosts, node)?;
        let targets = self.made("list portals", read::targets(&ports))?;
        let of_node = targets.into_iter().filter(|(port, ..)| {
            let mut paths = hosted.paths_of(&node.initiator);
            paths.any(|path| path.is_at(port))
        });
        let of_node: Vec<_> = of_node.collect();
        // Ours, never filled by the array, and with no node before that could write: it is all zeros.
        let is_blank = notes
            .as_ref()
            .is_some_and(|notes| notes.source.is_none() && !notes.was_written);
        let export = read::export(&lun, &of_node, hlu, (is_blank, access.read_only));
        Ok(Given {
            export: self.made("export LUN", export)?,
            after: Some(read::volume(&lun, notes, &hosts)),
        })
    }

    /// Takes the volume back from one node, or from all nodes that reach it over iSCSI.
    pub(super) async fn take_back(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        let _turn = self.turns.of(&volume.key, until).await;
        loop {
            let lun = self.same_lun(volume, until).await?;
            let hosts = self.hosts(until).await?;
            let is_meant = |hosted: &&Hosted| {
                let initiators = hosted.initiators();
                match initiator {
                    Some(initiator) => initiators.contains(initiator),
                    None => !initiators.is_empty(),
                }
            };
            let meant: Vec<&Hosted> = hosts.with(lun.number).filter(is_meant).collect();
            if meant.is_empty() {
                return Ok(());
            }
            self.note_end(&lun, &meant, until).await?;
            for hosted in meant {
                self.unmap(hosted, lun.number, until).await?;
            }
        }
    }

    /// The LUN of this key, if it is still that volume.
    async fn same_lun(&self, volume: &SanVolume, until: Until) -> Result<Lun, SanError> {
        let lun = self.lun(&volume.key, until).await?;
        if lun.wwid == volume.wwid {
            return Ok(lun);
        }
        Err(SanError::WrongVolume {
            wanted: volume.wwid.clone(),
            got: lun.wwid,
        })
    }

    /// Groups without an iSCSI initiator are no nodes of ours, and use it all the same.
    fn refuse_unseen(&self, lun: &Lun, hosts: &Hosts, access: Access) -> Result<(), SanError> {
        let unseen = hosts
            .with(lun.number)
            .filter(|hosted| hosted.initiators().is_empty());
        let nodes: Vec<String> = unseen.map(|it| it.group.name.clone()).collect();
        if nodes.is_empty() || access.others == Others::Anybody {
            return Ok(());
        }
        Err(SanError::Elsewhere { nodes })
    }

    /// Before the node reaches it: whether it is only to read, and whether another may have written before.
    async fn note_use(
        &self,
        lun: &Lun,
        (node, access): (&NodeId, Access),
        (notes, hosts): (Option<Notes>, &Hosts),
        until: Until,
    ) -> Result<Option<Notes>, SanError> {
        let ours = notes.is_some();
        let before = notes.unwrap_or_else(|| Notes {
            name: lun.name.clone(),
            ..Notes::default()
        });
        let mut after = before.clone();
        let reader = names::reader(node.initiator.as_str());
        if access.read_only {
            after.readers.insert(reader);
        } else {
            after.readers.remove(&reader);
        }
        let another = hosts
            .with(lun.number)
            .any(|hosted| !hosted.initiators().contains(&node.initiator));
        after.was_written |= another && !lun.is_untouched;
        if after != before {
            self.note(&lun.name, &after, until).await?;
        }
        Ok(ours.then_some(after))
    }

    /// Before they lose it: whoever could write may have.
    async fn note_end(&self, lun: &Lun, ends: &[&Hosted], until: Until) -> Result<(), SanError> {
        let Some(mut notes) = self.noted(&lun.name, until).await? else {
            return Ok(());
        };
        let mut initiators = ends.iter().flat_map(|hosted| hosted.initiators());
        let is_writer = |it: &Iqn| !notes.readers.contains(&names::reader(it.as_str()));
        if notes.was_written || lun.is_untouched || !initiators.any(|it| is_writer(&it)) {
            return Ok(());
        }
        notes.was_written = true;
        self.note(&lun.name, &notes, until).await
    }

    /// The storage group of the node, which is in one.
    fn host_of<'h>(&self, hosts: &'h Hosts, node: &NodeId) -> Result<&'h Hosted, SanError> {
        hosts.of(&node.initiator).ok_or_else(|| {
            let reason = format!("{} is in no storage group any more", node.initiator);
            self.refuse("export LUN", Fault::Busy, reason)
        })
    }

    /// The number under which the node's group sees the LUN, which it is given if it has none; and all groups as they are then.
    async fn ensure_number(
        &self,
        lun: &Lun,
        mut hosts: Hosts,
        node: &NodeId,
        until: Until,
    ) -> Result<(Hosts, u16), SanError> {
        let mut pause = PAUSE;
        loop {
            let hosted = self.host_of(&hosts, node)?;
            if let Some(hlu) = hosted.hlu(lun.number) {
                return Ok((hosts, hlu));
            }
            let (group, taken) = (&hosted.group.name, &hosted.group.luns);
            let Some(free) = NUMBERS.into_iter().find(|hlu| !taken.contains_key(hlu)) else {
                let reason = format!("storage group {group} has no number left");
                return Err(self.refuse("export LUN", Fault::Exhausted, reason));
            };
            if !self.map(group, free, lun.number, until).await? {
                let state = format!("number {free} has just been taken");
                self.pause(&mut pause, "export LUN", state, until).await?;
            }
            hosts = self.hosts(until).await?;
        }
    }

    /// Adds the LUN to the group; false when another was first, with this number or with this LUN.
    async fn map(&self, group: &str, hlu: u16, lun: u32, until: Until) -> Result<bool, SanError> {
        let (hlu, alu) = (hlu.to_string(), lun.to_string());
        let words = [
            "storagegroup",
            "-addhlu",
            "-gname",
            group,
            "-hlu",
            &hlu,
            "-alu",
            &alu,
            "-o",
        ];
        let question = Question::change("export LUN", &words);
        self.change_whether(&question, until, |done| match done {
            Ok(()) => Ok(true),
            Err(refusal)
                if refusal.text.contains(refusal::NUMBER_TAKEN)
                    || refusal.text.contains(refusal::ALREADY_ADDED) =>
            {
                Ok(false)
            }
            Err(refusal) => Err(refusal),
        })
        .await
    }

    /// Takes the LUN out of the group; absent is fine.
    async fn unmap(&self, hosted: &Hosted, lun: u32, until: Until) -> Result<(), SanError> {
        let Some(hlu) = hosted.hlu(lun) else {
            return Ok(());
        };
        let hlu = hlu.to_string();
        let words = [
            "storagegroup",
            "-removehlu",
            "-gname",
            &hosted.group.name,
            "-hlu",
            &hlu,
            "-o",
        ];
        match self
            .change(Question::change("unexport LUN", &words), until)
            .await
        {
            Err(error) if error.fault() != Fault::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
