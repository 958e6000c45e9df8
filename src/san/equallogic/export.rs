//! Who reaches a volume: one access record for each node, and a word of it in the volume's notes, for a record has an initiator and no name.
//!
//! Records are the group's and are made and removed one by one. The notes are one description, which is read, changed and written by one caller at a time; between
//! two controllers a look afterwards tells whose word was lost. The group has no access for reading alone: who is only to read is noted, and kept to by the nodes.

use super::notes::{Known, NotedNode, Notes};
use super::read::{Record, Volume};
use super::{EqualLogic, names};
use crate::fabric::{Export, Iqn, Lun, Offer};
use crate::fault::Fault;
use crate::san::Until;
use crate::san::ensure::{ROUNDS, is_lost};
use crate::san::error::SanError;
use crate::san::exports::refuse_other_use;
use crate::san::family::Given;
use crate::san::nouns::{Access, Others, SanVolume};
use crate::volume::NodeId;

const EXPORT: &str = "export volume";
const UNEXPORT: &str = "unexport volume";

impl EqualLogic {
    /// Lets the node reach the volume.
    pub(super) async fn give(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        let _turn = self.access.lock().await;
        let given = self.given(volume, node, access, until).await?;
        let offer = Offer {
            portal: self.portal(until).await?,
            iqn: given.target.clone(),
            lun: Lun(0),
        };
        let export = Export {
            wwid: given.wwid.clone(),
            size: given.size,
            offers: vec![offer],
            blank: given.is_blank(),
            read_only: access.read_only,
            own_target: true,
        };
        Ok(Given {
            export,
            after: Some(given.as_volume()),
        })
    }

    /// The volume, with the node's record and its word. What another controller wrote over is written again.
    async fn given(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Volume, SanError> {
        let mut is_written = false;
        let mut refused = None;
        for _ in 0..ROUNDS {
            let known = self.same(volume, until).await?;
            refused = self.refuse_others(&known, node, access).err();
            if refused.is_some() {
                break;
            }
            if is_given(&known, node) && known.is_online() {
                return Ok(known);
            }
            is_written = true;
            if let Err(error) = self.write(&known, node, access, until).await {
                if is_lost(&error) {
                    return Err(error);
                }
                refused = Some(error);
                break;
            }
        }
        if is_written {
            let known = self.same(volume, until).await?;
            self.withdraw(&known, Some(&node.initiator), until).await?;
        }
        Err(refused.unwrap_or_else(|| {
            let reason = "another controller changes who reaches it".to_owned();
            self.refuse(EXPORT, Fault::Busy, reason)
        }))
    }

    /// Takes the volume back from one node, or from all.
    pub(super) async fn take_back(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        let _turn = self.access.lock().await;
        let known = self.same(volume, until).await?;
        self.withdraw(&known, initiator, until).await?;
        let left = self.same(volume, until).await?;
        if left
            .records
            .iter()
            .any(|record| is_meant(record, initiator))
        {
            let reason = "an access record is still there".to_owned();
            return Err(self.refuse(UNEXPORT, Fault::Busy, reason));
        }
        // A record lets in; it does not put out. With nobody left the volume can be taken away for a moment, which ends every session.
        if left.records.is_empty() && left.connections() > 0 {
            let select = format!("volume select {}", left.name);
            let commands = [format!("{select} offline"), format!("{select} online")];
            self.change(UNEXPORT, &commands, until).await?;
        }
        Ok(())
    }

    /// The volume, if it is still that one.
    async fn same(&self, volume: &SanVolume, until: Until) -> Result<Volume, SanError> {
        let found = self.volume(&volume.key, until).await?;
        if found.wwid == volume.wwid {
            return Ok(found);
        }
        Err(SanError::WrongVolume {
            wanted: volume.wwid.clone(),
            got: found.wwid,
        })
    }

    /// Records that let in by an address are no nodes of ours, and use the volume all the same.
    fn refuse_others(
        &self,
        volume: &Volume,
        node: &NodeId,
        access: Access,
    ) -> Result<(), SanError> {
        refuse_other_use(&volume.as_volume(), node, access)?;
        let foreign = volume.records.iter().find(|it| it.initiator.is_none());
        match foreign.filter(|_| access.others != Others::Anybody) {
            Some(record) => {
                let reason = format!("its access record {} is nobody's of ours", record.id);
                Err(self.refuse(EXPORT, Fault::Precondition, reason))
            }
            None => Ok(()),
        }
    }

    /// The word in the notes first: a record without it would be a stranger's.
    async fn write(
        &self,
        volume: &Volume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<(), SanError> {
        let select = format!("volume select {}", volume.name);
        let mut commands = Vec::new();
        let mut notes = volume.notes.clone().ok_or_else(|| {
            let reason = "it has no notes of this driver's".to_owned();
            self.refuse(EXPORT, Fault::Precondition, reason)
        })?;
        keep_recorded(&mut notes, volume);
        let mark = names::node(node.initiator.as_str());
        notes.nodes.retain(|it| it.mark != mark);
        notes.nodes.push(NotedNode {
            mark,
            read_only: access.read_only,
            name: node.name.clone(),
        });
        commands.extend(described(volume, &notes)?);
        commands.push(format!("{select} multihost-access enable"));
        if !volume.is_online() {
            commands.push(format!("{select} online"));
        }
        if !is_recorded(volume, &node.initiator) {
            let initiator = &node.initiator;
            commands.push(format!("{select} access create initiator {initiator}"));
        }
        self.change(EXPORT, &commands, until).await?;
        Ok(())
    }

    /// Removes the records and the words of one initiator, or of all.
    async fn withdraw(
        &self,
        volume: &Volume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        let select = format!("volume select {}", volume.name);
        let (gone, left): (Vec<&Record>, Vec<&Record>) = volume
            .records
            .iter()
            .partition(|record| is_meant(record, initiator));
        let delete = |record: &&Record| format!("{select} access delete {}", record.id);
        let mut commands: Vec<String> = gone.iter().map(delete).collect();
        if let Some(mut notes) = volume.notes.clone() {
            let marks: Vec<String> = left.into_iter().filter_map(mark).collect();
            notes.nodes.retain(|it| marks.contains(&it.mark));
            commands.extend(described(volume, &notes)?);
        }
        if commands.is_empty() {
            return Ok(());
        }
        self.change(UNEXPORT, &commands, until).await?;
        Ok(())
    }
}

fn is_meant(record: &Record, initiator: Option<&Iqn>) -> bool {
    let found = record.initiator.as_ref();
    found.is_some_and(|found| initiator.is_none_or(|initiator| found == initiator))
}

fn is_recorded(volume: &Volume, initiator: &Iqn) -> bool {
    let mut records = volume.records.iter();
    records.any(|record| is_meant(record, Some(initiator)))
}

/// Whether it has both: the record, and the word with the node's name.
fn is_given(volume: &Volume, node: &NodeId) -> bool {
    let mark = names::node(node.initiator.as_str());
    let nodes = volume.notes.iter().flat_map(|notes| &notes.nodes);
    let is_noted = nodes
        .into_iter()
        .any(|it| it.mark == mark && it.name == node.name);
    is_noted && is_recorded(volume, &node.initiator)
}

fn mark(record: &Record) -> Option<String> {
    let initiator = record.initiator.as_ref()?;
    Some(names::node(initiator.as_str()))
}

/// Words of nodes that have no record any more are old.
fn keep_recorded(notes: &mut Notes, volume: &Volume) {
    let marks: Vec<String> = volume.records.iter().filter_map(mark).collect();
    notes.nodes.retain(|node| marks.contains(&node.mark));
}

/// The command that writes the notes, if they are others than before.
fn described(volume: &Volume, notes: &Notes) -> Result<Option<String>, SanError> {
    let known = Known {
        name: &volume.name,
        volume: None,
    };
    let text = notes.write(known);
    let text = text.map_err(|too_long| SanError::Unfit(too_long.into()))?;
    let command = format!("volume select {} description \"{text}\"", volume.name);
    Ok((text != volume.description).then_some(command))
}
