//! Who reaches a LUN and how: igroups, maps, portals.
//!
//! An igroup holds one initiator, is called after it, and has the node's name as its comment. ONTAP gives out the LUN's number. Only the nodes of
//! the array that report a map show the LUN, so only their portals are offered.

use serde_json::json;

use super::super::Until;
use super::super::error::SanError;
use super::super::family::{Family, Given};
use super::super::http::{Method, Request, encoded};
use super::super::nouns::{Access, SanVolume};
use super::wire::{Igroup, Interface, LunMap, Odd, Service, odd};
use super::{Ontap, codes, find, names};
use crate::fabric::{Chap, Export, Iqn, Lun, MAX_OFFERS, Offer, Portal};
use crate::fault::Fault;
use crate::volume::NodeId;

/// Where ONTAP's iSCSI listens.
const PORT: u16 = 3260;
/// An igroup may go between two steps, when another volume of the node is taken back: so often it is made anew.
const TRIES: usize = 3;

impl Ontap {
    pub(super) async fn let_in(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        // Read before anything is touched.
        let chap = self.logins.of(&node.initiator)?;
        let igroup = self
            .mapped(volume, (node, chap.as_ref()), access, until)
            .await?;
        let maps = self.maps(&volume.key, until).await?;
        let ours = maps.iter().find(|map| map.igroup.uuid == igroup.uuid);
        let ours = ours.ok_or_else(|| odd("export", "lun_maps")(Odd::Absent))?;
        // ONTAP does not compare and map at once.
        let after = self.find_by_key(&volume.key, until).await?;
        let offers = self.offers(ours, until).await?;
        let lun = self.lun(&volume.key, until).await?;
        let lun = lun.ok_or_else(|| self.absent("export"))?;
        let export = Export {
            wwid: lun.wwid()?,
            size: lun.space.size,
            offers,
            blank: volume.source.is_none() && lun.space.used == Some(0),
            read_only: access.read_only,
            own_target: false,
        };
        let after = Some(after.ok_or_else(|| self.absent("export"))?);
        Ok(Given { export, after })
    }

    /// The igroup of the node, to which the volume is mapped. What it has to prove is in force before it sees anything.
    async fn mapped(
        &self,
        volume: &SanVolume,
        (node, chap): (&NodeId, Option<&Chap>),
        access: Access,
        until: Until,
    ) -> Result<Igroup, SanError> {
        let mut round = 1;
        loop {
            let igroup = self.ensure_igroup(node, access.read_only, until).await?;
            // After the igroup, which whoever removes them looks for last.
            if let Some(chap) = chap {
                self.ensure_chap(&node.initiator, chap, until).await?;
            }
            let maps = self.maps(&volume.key, until).await?;
            if maps.iter().any(|map| map.igroup.uuid == igroup.uuid) {
                return Ok(igroup);
            }
            let request = || {
                Request::new(Method::POST, "/api/protocols/san/lun-maps").with_body(json!({
                    "svm": {"name": self.svm},
                    "lun": {"uuid": volume.key},
                    "igroup": {"uuid": igroup.uuid},
                }))
            };
            let mapped = self.change("map", until, request).await?;
            if mapped.is(&codes::NO_IGROUP) && round < TRIES {
                round += 1;
                continue;
            }
            mapped.but(&[codes::MAPPED])?;
            return Ok(igroup);
        }
    }

    async fn ensure_igroup(
        &self,
        node: &NodeId,
        read_only: bool,
        until: Until,
    ) -> Result<Igroup, SanError> {
        let name = names::igroup(&node.initiator, read_only);
        let found = match self.igroup(&name, until).await? {
            Some(found) => found,
            None => {
                let request = || {
                    Request::new(Method::POST, "/api/protocols/san/igroups").with_body(json!({
                        "svm": {"name": self.svm},
                        "name": name,
                        "protocol": "iscsi",
                        "os_type": "linux",
                        "comment": node.name,
                        "initiators": [{"name": node.initiator.to_string()}],
                    }))
                };
                let made = self.change("make an igroup", until, request).await?;
                made.but(&[codes::IGROUP_EXISTS])?;
                let made = self.igroup(&name, until).await?;
                made.ok_or_else(|| odd("make an igroup", "igroup")(Odd::Absent))?
            }
        };
        self.refuse_clones(&found, node)?;
        Ok(found)
    }

    /// An igroup that somebody edited, or that another node with the same initiator name has.
    fn refuse_clones(&self, igroup: &Igroup, node: &NodeId) -> Result<(), SanError> {
        let nodes = find::nodes_of(igroup)?;
        if nodes.len() != 1 || nodes[0].initiator != node.initiator {
            return Err(SanError::Refused {
                address: self.svm.clone(),
                call: "export",
                fault: Fault::Precondition,
                reason: format!(
                    "the igroup {} does not hold {} alone; it is sanpath's: take out what does not belong there",
                    igroup.name, node.initiator
                ),
            });
        }
        if nodes[0].node_name == node.name {
            return Ok(());
        }
        Err(SanError::OtherName {
            initiator: node.initiator.clone(),
            known: nodes[0].node_name.clone(),
            asked: node.name.clone(),
        })
    }

    async fn igroup(&self, name: &str, until: Until) -> Result<Option<Igroup>, SanError> {
        let found = self.igroups(&[name.to_owned()], until).await?;
        Ok(found.into_iter().next())
    }

    /// Those of these names that there are.
    async fn igroups(&self, names: &[String], until: Until) -> Result<Vec<Igroup>, SanError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let any = names.join("|");
        let fields = "uuid,name,comment,initiators,lun_maps";
        let pairs = [("name", any.as_str()), ("fields", fields)];
        let target = self.target("protocols/san/igroups", &pairs);
        self.records("find an igroup", until, &target).await
    }

    async fn maps(&self, key: &str, until: Until) -> Result<Vec<LunMap>, SanError> {
        let fields = "igroup.uuid,igroup.name,logical_unit_number,reporting_nodes";
        let pairs = [("lun.uuid", key), ("fields", fields)];
        let target = self.target("protocols/san/lun-maps", &pairs);
        self.records("find maps", until, &target).await
    }

    pub(super) async fn shut_out(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        let maps = self.maps(&volume.key, until).await?;
        let of_one = initiator.map(|it| vec![names::igroup(it, false), names::igroup(it, true)]);
        let is_meant = |name: &String| match &of_one {
            Some(names) => names.contains(name),
            None => names::is_igroup(name).is_some(),
        };
        let mut names = Vec::new();
        for map in maps.iter().filter(|map| is_meant(&map.igroup.name)) {
            self.unmap(&volume.key, &map.igroup.uuid, until).await?;
            names.push(map.igroup.name.clone());
        }
        // Of a certain node both, for the one that lost its last map may be left of a call whose reply was lost.
        let mut initiators: Vec<Iqn> = initiator.cloned().into_iter().collect();
        for igroup in self.igroups(&of_one.unwrap_or(names), until).await? {
            self.remove_igroup(&igroup, until).await?;
            // Not a stranger whom somebody put beside it.
            let is_its_own = |it: &Iqn| {
                [false, true]
                    .map(|to_read| names::igroup(it, to_read))
                    .contains(&igroup.name)
            };
            let of_it = find::nodes_of(&igroup)?.into_iter();
            initiators.extend(of_it.map(|node| node.initiator).filter(is_its_own));
        }
        initiators.sort();
        initiators.dedup();
        for initiator in &initiators {
            self.remove_chap(initiator, until).await?;
        }
        Ok(())
    }

    async fn unmap(&self, key: &str, igroup: &str, until: Until) -> Result<(), SanError> {
        let target = format!(
            "/api/protocols/san/lun-maps/{}/{}",
            encoded(key),
            encoded(igroup)
        );
        let request = || Request::new(Method::DELETE, target.as_str());
        let unmapped = self.change("unmap", until, request).await?;
        unmapped.but(&[codes::NO_MAP, 4]).map(drop)
    }

    /// Without a map an igroup is of no use. The array refuses while there is one, also one that was made this moment.
    async fn remove_igroup(&self, found: &Igroup, until: Until) -> Result<(), SanError> {
        if !found.lun_maps.is_empty() {
            return Ok(());
        }
        let target = format!("/api/protocols/san/igroups/{}", encoded(&found.uuid));
        let request = || Request::new(Method::DELETE, target.as_str());
        let removed = self.change("remove an igroup", until, request).await?;
        let [by_name, by_uuid] = codes::NO_IGROUP;
        let fine = [codes::IGROUP_IN_USE, by_name, by_uuid, 4];
        removed.but(&fine).map(drop)
    }

    /// The volume on each portal that shows it.
    async fn offers(&self, map: &LunMap, until: Until) -> Result<Vec<Offer>, SanError> {
        let number = map.logical_unit_number;
        let number = number.ok_or_else(|| odd("export", "logical_unit_number")(Odd::Absent))?;
        let iqn = self.target_name(until).await?;
        let all = self.interfaces(until).await?;
        let shows = |node: &str| {
            map.reporting_nodes.is_empty() || map.reporting_nodes.iter().any(|it| it.name == node)
        };
        let showing = all.into_iter().filter(|(_, node)| shows(node));
        let offers = showing.map(|(portal, _)| Offer {
            portal,
            iqn: iqn.clone(),
            lun: Lun(number),
        });
        let offers: Vec<Offer> = offers.take(MAX_OFFERS).collect();
        if offers.is_empty() {
            return Err(SanError::Refused {
                address: self.svm.clone(),
                call: "export",
                fault: Fault::Precondition,
                reason:
                    "no iSCSI interface of the SVM is on a node of the array that shows the LUN"
                        .to_owned(),
            });
        }
        Ok(offers)
    }

    async fn target_name(&self, until: Until) -> Result<Iqn, SanError> {
        const CALL: &str = "find the iSCSI service";
        let pairs = [("fields", "enabled,target.name")];
        let target = self.target("protocols/san/iscsi/services", &pairs);
        let found: Vec<Service> = self.records(CALL, until, &target).await?;
        let service = found.first().filter(|it| it.enabled != Some(false));
        let service = service.ok_or_else(|| SanError::Refused {
            address: self.svm.clone(),
            call: CALL,
            fault: Fault::Precondition,
            reason: "the SVM has no iSCSI service that is enabled".to_owned(),
        })?;
        service.target.name.parse().map_err(odd(CALL, "target"))
    }

    /// Every iSCSI portal of the SVM with the node of the array that it is on, one after the other from each node. One that is down may come back.
    pub(super) async fn interfaces(&self, until: Until) -> Result<Vec<(Portal, String)>, SanError> {
        const CALL: &str = "list portals";
        let fields = "ip.address,enabled,location.node.name";
        let pairs = [("services", "data_iscsi"), ("fields", fields)];
        let target = self.target("network/ip/interfaces", &pairs);
        let mut found: Vec<Interface> = self.records(CALL, until, &target).await?;
        found.sort_by(|one, other| one.ip.address.cmp(&other.ip.address));
        let mut portals = Vec::new();
        for it in found.into_iter().filter(|it| it.enabled != Some(false)) {
            let address = it.ip.address.parse().map_err(odd(CALL, "ip"))?;
            let rank = portals
                .iter()
                .filter(|(_, (_, node))| *node == it.location.node.name)
                .count();
            portals.push((rank, (Portal::new(address, PORT), it.location.node.name)));
        }
        portals.sort();
        Ok(portals.into_iter().map(|(_, portal)| portal).collect())
    }
}
