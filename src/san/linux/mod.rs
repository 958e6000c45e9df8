//! The Linux SAN (`sanpath san`) as one family: its gRPC client.
//!
//! Every attempt asks first who answers, unless the same connection answered a moment ago. So a dead or half-dead address is found before anything is sent. A
//! connection is one TCP connection and is never made anew behind our back, which could lead a change to another SAN.

mod connect;
#[cfg(test)]
mod guarded_tests;
mod link;
mod pool;
mod read;
#[cfg(test)]
mod simulation;
mod snapshots;
#[cfg(test)]
mod tests;

use std::future::Future;

use tonic::{Response, Status};

pub(super) use self::connect::Way;
use self::connect::{Client, Dial};
use self::pool::Pool;
#[cfg(test)]
pub(crate) use self::simulation::{Dice, Net, Trouble, fleet_over};
use super::Until;
use super::error::SanError;
use super::family::{Family, Given};
use super::nouns::{Access, Capacity, Checked, CheckedPage, NewVolume, Others, Page, SanVolume};
use super::sanhost::{Attempt, AttemptError, Errand, Repeat, Sanhost};
use crate::fabric::{Iqn, Portal};
use crate::fault::{Fault, Faulted};
use crate::linux_san_wire as wire;
use crate::linux_san_wire::check_volumes_request::Which;
use crate::linux_san_wire::find_volume_request::By;
use crate::volume::NodeId;

/// A Linux SAN behind its management addresses.
pub(super) struct LinuxSan {
    sanhost: Sanhost,
    dial: Box<dyn Dial>,
    pool: Pool,
}

impl LinuxSan {
    /// The SAN behind `addresses`, reached in this way.
    pub(super) fn new(addresses: &[String], way: Way) -> Self {
        Self {
            sanhost: Sanhost::new(addresses),
            dial: Box::new(way),
            pool: Pool::default(),
        }
    }

    /// Over connections of the test's making; all waits follow from `seed`.
    #[cfg(test)]
    fn dialled(addresses: &[String], seed: u64, dial: impl Dial + 'static) -> Self {
        Self {
            sanhost: Sanhost::seeded(addresses, seed),
            dial: Box::new(dial),
            pool: Pool::default(),
        }
    }

    /// Sends one request on its way through the addresses and reads the answer.
    async fn ask<W, T, S, F>(
        &self,
        (call, repeat): (&'static str, Repeat),
        until: Until,
        send: S,
        read: impl Fn(W) -> Result<T, read::Unusable>,
    ) -> Result<T, SanError>
    where
        S: Fn(Client) -> F,
        F: Future<Output = Result<Response<W>, Status>>,
    {
        let (send, read) = (&send, &read);
        let attempt = |attempt: Attempt| async move {
            let reached = connect::reach(&self.pool, &*self.dial, &attempt).await?;
            self.sanhost
                .recognise(&attempt.address, &reached.san_uuid)
                .map_err(|mixed| AttemptError::NotReached(mixed.into()))?;
            let client = reached.client_until(attempt.answered_by);
            let reply = connect::answered(send(client), attempt.answered_by).await;
            match &reply {
                Err(AttemptError::NoAnswer(_)) => {
                    self.pool.forget(&attempt.address, &reached.wire);
                }
                _ => reached.wire.answered(),
            }
            let reply = reply?;
            read(reply).map_err(|unusable| AttemptError::Answer(unusable.field, unusable.source))
        };
        let errand = Errand::new(call, repeat);
        self.sanhost.call(errand, until, attempt).await
    }

    async fn find(&self, by: By, until: Until) -> Result<Option<SanVolume>, SanError> {
        let request = wire::FindVolumeRequest { by: Some(by) };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.find_volume(request).await }
        };
        let call = ("FindVolume", Repeat::Freely);
        match self.ask(call, until, send, read::volume).await {
            Ok(volume) => Ok(Some(volume)),
            Err(error) if error.fault() == Fault::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn check_which(
        &self,
        which: Which,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        let request = wire::CheckVolumesRequest {
            which: Some(which),
            max_entries: most,
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.check_volumes(request).await }
        };
        let call = ("CheckVolumes", Repeat::Freely);
        self.ask(call, until, send, read::checked_page).await
    }
}

#[tonic::async_trait]
impl Family for LinuxSan {
    fn sanhost(&self) -> &Sanhost {
        &self.sanhost
    }

    async fn identify(&self, attempt: Attempt) -> Result<String, AttemptError> {
        let reached = connect::reach(&self.pool, &*self.dial, &attempt).await?;
        Ok(reached.san_uuid)
    }

    async fn create_volume(&self, wanted: &NewVolume, until: Until) -> Result<SanVolume, SanError> {
        let request = wire::CreateVolumeRequest {
            name: wanted.name.clone(),
            size_bytes: wanted.size,
            metadata: wanted.metadata.clone().into_iter().collect(),
            source: wanted.source.clone().map(snapshots::source),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.create_volume(request).await }
        };
        let call = ("CreateVolume", Repeat::Never);
        self.ask(call, until, send, read::volume).await
    }

    async fn find_by_name(&self, name: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        self.find(By::Name(name.to_owned()), until).await
    }

    async fn find_by_key(&self, key: &str, until: Until) -> Result<Option<SanVolume>, SanError> {
        self.find(By::Key(key.to_owned()), until).await
    }

    async fn list_volumes(&self, after: &str, most: u32, until: Until) -> Result<Page, SanError> {
        let request = wire::ListVolumesRequest {
            after_key: after.to_owned(),
            max_entries: most,
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.list_volumes(request).await }
        };
        let call = ("ListVolumes", Repeat::Freely);
        self.ask(call, until, send, read::page).await
    }

    async fn check(&self, key: &str, until: Until) -> Result<Option<Checked>, SanError> {
        let which = Which::Key(key.to_owned());
        Ok(self.check_which(which, 1, until).await?.volumes.pop())
    }

    async fn check_many(
        &self,
        after: &str,
        most: u32,
        until: Until,
    ) -> Result<CheckedPage, SanError> {
        let which = Which::AfterKey(after.to_owned());
        self.check_which(which, most, until).await
    }

    async fn expand(
        &self,
        volume: &SanVolume,
        size: u64,
        until: Until,
    ) -> Result<SanVolume, SanError> {
        let request = wire::ExpandVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.to_string(),
            size_bytes: size,
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.expand_volume(request).await }
        };
        let call = ("ExpandVolume", Repeat::Never);
        self.ask(call, until, send, read::volume).await
    }

    async fn delete_volume(&self, volume: &SanVolume, until: Until) -> Result<(), SanError> {
        let request = wire::DeleteVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.to_string(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.delete_volume(request).await }
        };
        let call = ("DeleteVolume", Repeat::Never);
        self.ask(call, until, send, |_| Ok(())).await
    }

    async fn export(
        &self,
        volume: &SanVolume,
        node: &NodeId,
        access: Access,
        until: Until,
    ) -> Result<Given, SanError> {
        let request = wire::ExportVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.to_string(),
            node_name: node.name.clone(),
            initiator_iqn: node.initiator.to_string(),
            read_only: access.read_only,
            shared: access.others != Others::Nobody,
            beside_readers: access.others == Others::Readers,
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.export_volume(request).await }
        };
        let call = ("ExportVolume", Repeat::Never);
        let export = self.ask(call, until, send, read::export).await?;
        // Its rule is kept under one lock with the change.
        Ok(Given {
            export,
            after: None,
        })
    }

    async fn unexport(
        &self,
        volume: &SanVolume,
        initiator: Option<&Iqn>,
        until: Until,
    ) -> Result<(), SanError> {
        let request = wire::UnexportVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.to_string(),
            initiator_iqn: initiator.map(ToString::to_string).unwrap_or_default(),
        };
        let send = |mut client: Client| {
            let request = request.clone();
            async move { client.unexport_volume(request).await }
        };
        let call = ("UnexportVolume", Repeat::Never);
        self.ask(call, until, send, |_| Ok(())).await
    }

    async fn capacity(&self, until: Until) -> Result<Capacity, SanError> {
        let send = |mut client: Client| async move {
            client.get_capacity(wire::GetCapacityRequest {}).await
        };
        let call = ("GetCapacity", Repeat::Freely);
        self.ask(call, until, send, |wire| Ok(read::capacity(&wire)))
            .await
    }

    async fn portals(&self, until: Until) -> Result<Vec<Portal>, SanError> {
        let send = |mut client: Client| async move {
            client.list_portals(wire::ListPortalsRequest {}).await
        };
        let call = ("ListPortals", Repeat::Freely);
        self.ask(call, until, send, read::portals).await
    }
}
