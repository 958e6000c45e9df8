//! Who reaches a LUN: one list on the array, which is replaced whole.
//!
//! So it is read, changed and written by one caller at a time for each volume, and never written from what was read before somebody else wrote: the array refuses
//! a writer who overlaps with another, and we look again then. Between two controllers nothing but that refusal stands; so what is told is read after it was
//! written. The array has no access for reading alone: who is only to read is noted with the volume, in the same change, and kept to by the nodes.

use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{Answer, Question, refused};
use super::notes::Notes;
use super::read::{self, Hosts};
use super::{UnitySan, refusal, wire};
use crate::fabric::Iqn;
use crate::fault::Fault;
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::exports::refuse_other_use;
use crate::san::family::Given;
use crate::san::http::encoded;
use crate::san::nouns::{Access, Others, SanVolume};
use crate::volume::NodeId;

/// Between one look and the next while others write.
const PAUSE: Duration = Duration::from_millis(200);
/// Of a host that sees the LUN itself: 1 LUN, 2 snapshot.
const THE_LUN: u32 = 1;
const LUN_BIT: u32 = 1;
const LUN_OF_HOST_FIELDS: &str = "hlu,type,lun,host";

/// The list as it is to be, and what is to be noted with it.
struct Wanted {
    access: Vec<wire::HostAccess>,
    notes: Notes,
}

impl Wanted {
    /// As it is.
    fn of(lun: &wire::Lun) -> Self {
        Self {
            access: lun.host_access.clone(),
            notes: Notes::read(&lun.description, &lun.name),
        }
    }

    /// That host reaches the LUN.
    fn add(&mut self, host: &str, read_only: bool) {
        match self.access.iter_mut().find(|it| it.host.id == host) {
            Some(known) => known.access_mask |= LUN_BIT,
            None => self.access.push(wire::HostAccess {
                host: wire::Reference {
                    id: host.to_owned(),
                },
                access_mask: LUN_BIT,
            }),
        }
        if read_only {
            self.notes.readers.insert(host.to_owned());
        } else {
            self.notes.readers.remove(host);
        }
    }

    /// That host does not reach the LUN; its snapshots perhaps.
    fn remove(&mut self, host: &str) {
        for access in self.access.iter_mut().filter(|it| it.host.id == host) {
            access.access_mask &= !LUN_BIT;
        }
        self.access.retain(|access| access.access_mask != 0);
        self.notes.readers.remove(host);
    }

    fn body(&self, lun: &wire::Lun) -> Value {
        let entry = |it: &wire::HostAccess| json!({"host": {"id": it.host.id}, "accessMask": it.access_mask});
        let access: Vec<Value> = self.access.iter().map(entry).collect();
        let mut body = json!({"lunParameters": {"hostAccess": access}});
        let before = Notes::read(&lun.description, &lun.name);
        // What is not ours stays as it is.
        if before != self.notes {
            body["description"] = self.notes.write(&lun.name).into();
        }
        body
    }

    fn is(&self, lun: &wire::Lun) -> bool {
        self.access == lun.host_access
            && self.notes.readers == Notes::read(&lun.description, &lun.name).readers
    }
}

impl UnitySan {
    /// Lets the node reach the volume.
    pub(super) async fn give(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        let host = self.ensure_host(node, until).await?;
        let _turn = self.turns.of(&volume.key, until).await;
        let (lun, after) = loop {
            let lun = self.same_lun(volume, until).await?;
            let hosts = self.hosts_of(&lun, until).await?;
            let known = self.made("find LUN", read::volume(&lun, &hosts))?;
            self.refuse_others(&lun, (&host, &hosts), access)?;
            let mut wanted = Wanted::of(&lun);
            wanted.add(&host, access.read_only);
            if wanted.is(&lun) {
                break (lun, known);
            }
            refuse_other_use(&known, node, access)?;
            if !self.write(&lun, &wanted, until).await? {
                pause(until).await;
            }
        };
        let hlu = self.hlu(&lun.id, &host, until).await?;
        let portals = self.targets(until).await?;
        let export = read::export(&lun, &portals, hlu, access.read_only);
        Ok(Given {
            export: self.made("export LUN", export)?,
            after: Some(after),
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
            let hosts = self.hosts_of(&lun, until).await?;
            let mut wanted = Wanted::of(&lun);
            for (id, host) in &hosts {
                let initiators = self.made("find host", read::initiators(host))?;
                let is_meant = match initiator {
                    Some(initiator) => initiators.contains(initiator),
                    None => !initiators.is_empty(),
                };
                if is_meant {
                    wanted.remove(id);
                }
            }
            if wanted.is(&lun) {
                return Ok(());
            }
            if !self.write(&lun, &wanted, until).await? {
                pause(until).await;
            }
        }
    }

    /// The LUN of this key, if it is still that volume.
    async fn same_lun(&self, volume: &SanVolume, until: Until) -> Result<wire::Lun, SanError> {
        let lun = self.lun(&volume.key, until).await?;
        let got = self.made("find LUN", read::wwid(&lun.wwn))?;
        if got == volume.wwid {
            return Ok(lun);
        }
        Err(SanError::WrongVolume {
            wanted: volume.wwid.clone(),
            got,
        })
    }

    /// Hosts that reach the LUN otherwise than over iSCSI are no nodes of ours, and use it all the same.
    fn refuse_others(
        &self,
        lun: &wire::Lun,
        (ours, hosts): (&str, &Hosts),
        access: Access,
    ) -> Result<(), SanError> {
        let others = read::reached_by(lun).filter(|id| *id != ours);
        let unseen = others.filter_map(|id| {
            let host = hosts.get(id)?;
            host.iscsi_host_initiators
                .is_empty()
                .then(|| host.name.clone())
        });
        let nodes: Vec<String> = unseen.collect();
        if nodes.is_empty() || access.others == Others::Anybody {
            return Ok(());
        }
        Err(SanError::Elsewhere { nodes })
    }

    /// Replaces the list; false when it was another list by then, and nothing was done.
    async fn write(
        &self,
        lun: &wire::Lun,
        wanted: &Wanted,
        until: Until,
    ) -> Result<bool, SanError> {
        let path = format!(
            "/api/instances/storageResource/{}/action/modifyLun",
            encoded(&lun.id)
        );
        let read = |answer: Answer| match answer {
            Ok(_) => Ok(true),
            Err(refusal) if refusal::is_nothing_to_change(refusal.error_code) => Ok(true),
            Err(refusal) if refusal::fault(&refusal) == Fault::Busy => Ok(false),
            Err(refusal) => Err(refused(&refusal)),
        };
        let question = Question::post("set host access", &path, wanted.body(lun));
        self.ask_whether(&question, until, read).await
    }

    /// The number under which the host sees the LUN.
    async fn hlu(&self, lun: &str, host: &str, until: Until) -> Result<u16, SanError> {
        let filter = format!("host eq \"{host}\" and lun eq \"{lun}\"");
        let parameters = [("fields", LUN_OF_HOST_FIELDS), ("filter", &*filter)];
        let path = "/api/types/hostLUN/instances";
        let found: Vec<wire::HostLun> = self.all("find LUN id", path, &parameters, until).await?;
        let is_it = |it: &&wire::HostLun| {
            let of_lun = it.lun.as_ref().is_some_and(|of| of.id == lun);
            it.kind == THE_LUN && it.host.id == host && of_lun
        };
        match found.iter().find(is_it) {
            Some(found) => Ok(found.hlu),
            None => Err(SanError::Answer {
                call: "find LUN id",
                field: "hlu",
                source: format!("{host} has access to {lun} and does not see it").into(),
            }),
        }
    }
}

/// The next look comes a moment later; when the time is over it says so.
async fn pause(until: Until) {
    let later = Until::now() + PAUSE;
    tokio::time::sleep_until(later.min(until)).await;
}
