//! Hosts: one for each node. A host that already has the node's initiator is taken, whoever made it, if it is for this node and no other.

use serde_json::json;

use super::ask::Question;
use super::read::{self, Hosts};
use super::{UnitySan, names, notes, wire};
use crate::fabric::{Iqn, Portal};
use crate::fault::{Fault, Faulted};
use crate::san::Until;
use crate::san::error::SanError;
use crate::san::http::encoded;
use crate::volume::NodeId;

const HOST_FIELDS: &str = "id,name,description,iscsiHostInitiators.initiatorId";
/// Of a host that was made by hand, which is the kind that we make.
const MANUAL: u32 = 1;
const ISCSI: u32 = 2;

impl UnitySan {
    /// The hosts that the LUN names. One that is gone is left out.
    pub(super) async fn hosts_of(&self, lun: &wire::Lun, until: Until) -> Result<Hosts, SanError> {
        let mut hosts = Hosts::new();
        for id in read::reached_by(lun) {
            if let Some(host) = self.find_host(id, until).await? {
                hosts.insert(id.to_owned(), host);
            }
        }
        Ok(hosts)
    }

    /// All hosts.
    pub(super) async fn hosts(&self, until: Until) -> Result<Hosts, SanError> {
        let fields = [("fields", HOST_FIELDS)];
        let path = "/api/types/host/instances";
        let hosts: Vec<wire::Host> = self.all("list hosts", path, &fields, until).await?;
        Ok(hosts
            .into_iter()
            .map(|host| (host.id.clone(), host))
            .collect())
    }

    /// The id of the host for this node, made if it is not there.
    pub(super) async fn ensure_host(
        &self,
        node: &NodeId,
        until: Until,
    ) -> Result<String, SanError> {
        let _turn = self.turns.of(names::HOSTS, until).await;
        let known = self.find_initiator(&node.initiator, until).await?;
        let parent = known.as_ref().and_then(|it| it.parent_host.as_ref());
        if let Some(parent) = parent
            && let Some(host) = self.find_host(&parent.id, until).await?
        {
            return self.taken(host, node);
        }
        let host = self.ensure_host_alone(node, until).await?;
        let added = match known {
            Some(initiator) => self.move_initiator(&initiator.id, &host, until).await,
            None => self.add_initiator(&node.initiator, &host, until).await,
        };
        match added {
            // Another controller was first, perhaps with a host of its own.
            Err(error) if error.fault() == Fault::Conflict => {
                let known = self.find_initiator(&node.initiator, until).await?;
                let parent = known.and_then(|it| it.parent_host);
                Ok(parent.ok_or(error)?.id)
            }
            added => added.map(|()| host),
        }
    }

    /// That host, if it is for this node alone.
    fn taken(&self, host: wire::Host, node: &NodeId) -> Result<String, SanError> {
        let name = read::node_name(&host);
        let initiators = self.made("find host", read::initiators(&host))?;
        let reason = if name != node.name {
            format!(
                "its host {} has the initiator {} of node {} and is called {name:?}; rename that host to {:?}, or remove the initiator from it",
                host.id, node.initiator, node.name, node.name
            )
        } else if initiators != [node.initiator.clone()] {
            format!(
                "its host {} of node {} has other initiators as well; give each node a host of its own",
                host.id, node.name
            )
        } else {
            return Ok(host.id);
        };
        Err(self.refuse("find host", Fault::Precondition, reason))
    }

    async fn find_host(&self, id: &str, until: Until) -> Result<Option<wire::Host>, SanError> {
        let path = format!("/api/instances/host/{}", encoded(id));
        let question = Question::get("find host", &path, &[("fields", HOST_FIELDS)]);
        self.thing_if_there(&question, until).await
    }

    async fn find_initiator(
        &self,
        initiator: &Iqn,
        until: Until,
    ) -> Result<Option<wire::HostInitiator>, SanError> {
        let filter = format!("initiatorId eq \"{initiator}\"");
        let parameters = [
            ("fields", "id,initiatorId,parentHost"),
            ("filter", &*filter),
        ];
        let path = "/api/types/hostInitiator/instances";
        let found: Vec<wire::HostInitiator> =
            self.all("find initiator", path, &parameters, until).await?;
        let is_it = |it: &wire::HostInitiator| it.initiator_id.parse().as_ref() == Ok(initiator);
        Ok(found.into_iter().find(is_it))
    }

    /// The host that we name for this node, with or without its initiator. The array may take a name twice; the first one counts.
    async fn ensure_host_alone(&self, node: &NodeId, until: Until) -> Result<String, SanError> {
        let name = names::host(&node.name, node.initiator.as_str());
        let filter = format!("name eq \"{name}\"");
        let parameters = [("fields", HOST_FIELDS), ("filter", &*filter)];
        let path = "/api/types/host/instances";
        let found: Vec<wire::Host> = self.all("find host", path, &parameters, until).await?;
        let first = found.into_iter().map(|host| host.id).min();
        if let Some(id) = first {
            return Ok(id);
        }
        let body = json!({
            "type": MANUAL,
            "name": name,
            "description": notes::of_host(&node.name),
            "osType": "Linux",
        });
        let question = Question::post("create host", path, body);
        let made: wire::Made = self.thing(&question, until).await?;
        Ok(made.id)
    }

    async fn add_initiator(
        &self,
        initiator: &Iqn,
        host: &str,
        until: Until,
    ) -> Result<(), SanError> {
        let body = json!({
            "host": {"id": host},
            "initiatorType": ISCSI,
            "initiatorWWNorIqn": initiator.as_str(),
        });
        let path = "/api/types/hostInitiator/instances";
        let question = Question::post("add initiator", path, body);
        self.ask(&question, until, |_| Ok(())).await
    }

    /// An initiator that logged in before anybody named it has no host.
    async fn move_initiator(&self, id: &str, host: &str, until: Until) -> Result<(), SanError> {
        let path = format!("/api/instances/hostInitiator/{}/action/modify", encoded(id));
        let question = Question::post("move initiator", &path, json!({"host": {"id": host}}));
        self.ask(&question, until, |_| Ok(())).await
    }

    /// Where the array listens.
    pub(super) async fn targets(&self, until: Until) -> Result<Vec<(Portal, Iqn)>, SanError> {
        let fields = [("fields", super::PORTAL_FIELDS)];
        let path = "/api/types/iscsiPortal/instances";
        let found: Vec<wire::IscsiPortal> = self.all("list portals", path, &fields, until).await?;
        self.made("list portals", read::portals(&found))
    }
}
