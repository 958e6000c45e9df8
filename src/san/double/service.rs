//! The double's side of the wire.

use tonic::{Request, Response, Status};

use super::{Double, Given, Inner, Mishap, PORTALS, Seen, TARGET};
use crate::linux_san_wire as wire;
use crate::linux_san_wire::linux_san_server::LinuxSan;

type Reply<T> = Result<Response<T>, Status>;

pub(super) struct Service(pub(super) Double);

impl Service {
    /// Does `work`, or what goes wrong instead.
    async fn serve<T>(
        &self,
        call: &'static str,
        work: impl FnOnce(&mut Inner) -> Result<T, Status>,
    ) -> Reply<T> {
        let held = self.0.inner().held.take_if(|(held, _)| *held == call);
        if let Some((_, gate)) = held {
            gate.pass().await;
        }
        let (outcome, mishap) = {
            let mut inner = self.0.inner();
            inner.calls.push(call);
            let next = inner.mishaps.front().copied();
            let mishap = next.filter(|mishap| mishap.call() == call);
            if mishap.is_some() {
                inner.mishaps.pop_front();
            }
            let outcome = match mishap {
                Some(Mishap::Refuses(_, code)) => Err(Status::new(code, "as the test wants")),
                Some(Mishap::RefusesChange(_, code)) => inner.unless_it_changes(code, work),
                Some(Mishap::LosesRequest(_)) => Err(Status::unavailable("never heard")),
                Some(Mishap::LosesReply(_)) | None => work(&mut inner),
            };
            (outcome, mishap)
        };
        self.0.show();
        self.0.changes.send_modify(|count| *count += 1);
        if let Some(Mishap::LosesReply(_) | Mishap::LosesRequest(_)) = mishap {
            self.0.break_all();
            std::future::pending::<()>().await;
        }
        outcome.map(Response::new)
    }
}

impl Inner {
    fn unless_it_changes<T>(
        &mut self,
        code: tonic::Code,
        work: impl FnOnce(&mut Self) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let now = |it: &Self| (it.volumes.clone(), it.snapshots.clone(), it.given.clone());
        let before = now(self);
        let outcome = work(self);
        if before == now(self) {
            return outcome;
        }
        (self.volumes, self.snapshots, self.given) = before;
        Err(Status::new(code, "as the test wants"))
    }

    fn volume(&mut self, key: &str, wwid: &str) -> Result<&mut wire::Volume, Status> {
        let found = self.volumes.get_mut(key);
        found
            .filter(|volume| volume.wwid == wwid)
            .ok_or_else(|| Status::not_found("no such volume"))
    }

    fn create(&mut self, request: wire::CreateVolumeRequest) -> Result<wire::Volume, Status> {
        if let Some(found) = self.volumes.values().find(|v| v.name == request.name) {
            let same = found.size_bytes == request.size_bytes
                && found.metadata == request.metadata
                && found.source == request.source;
            return if same {
                Ok(found.clone())
            } else {
                Err(Status::already_exists("another volume has the name"))
            };
        }
        if let Some(source) = &request.source
            && self.source_size(source)? > request.size_bytes
        {
            return Err(Status::out_of_range("a copy is never smaller"));
        }
        self.made += 1;
        let volume = wire::Volume {
            key: format!("key-{:04}", self.made),
            name: request.name,
            wwid: format!("36001405{:025x}", self.made),
            size_bytes: request.size_bytes,
            metadata: request.metadata,
            allocated_bytes: 0,
            exported_to: Vec::new(),
            source: request.source,
        };
        self.volumes.insert(volume.key.clone(), volume.clone());
        self.copy_source(&volume);
        Ok(volume)
    }

    fn export(&mut self, request: wire::ExportVolumeRequest) -> Result<wire::Export, Status> {
        let place = (request.key.clone(), request.initiator_iqn.clone());
        let volume = self.volume(&request.key, &request.wwid)?;
        let (here, others): (Vec<_>, Vec<_>) = volume
            .exported_to
            .iter()
            .partition(|to| to.initiator_iqn == request.initiator_iqn);
        match here.first() {
            Some(same) if same.read_only != request.read_only => {
                return Err(Status::already_exists("exported in another way"));
            }
            None if others
                .iter()
                .any(|it| !request.shared || (request.beside_readers && !it.read_only)) =>
            {
                return Err(Status::failed_precondition("exported elsewhere"));
            }
            Some(_) => {}
            None => volume.exported_to.push(wire::ExportedTo {
                node_name: request.node_name,
                initiator_iqn: request.initiator_iqn,
                read_only: request.read_only,
            }),
        }
        let (wwid, size_bytes) = (volume.wwid.clone(), volume.size_bytes);
        let is_copy = volume.source.is_some();
        let Given { lun, blank } = self.give(place, &wwid, is_copy);
        let offer = |portal: &str| wire::Offer {
            portal: portal.to_owned(),
            target_iqn: TARGET.to_owned(),
            lun,
        };
        Ok(wire::Export {
            wwid,
            size_bytes,
            offers: PORTALS.map(offer).into(),
            blank,
            read_only: request.read_only,
            own_target: false,
        })
    }

    /// The lowest number that is free on the node's target; the same again to one that has it. A copy is as blank as its source was, if it is known what that held.
    fn give(&mut self, place: (String, String), wwid: &str, is_copy: bool) -> Given {
        if let Some(given) = self.given.get(&place) {
            return *given;
        }
        let is_taken = |lun: u32| {
            let mut given = self.given.iter();
            given.any(|((_, initiator), it)| *initiator == place.1 && it.lun == lun)
        };
        let nodes = self.onlooker.as_ref();
        let given = Given {
            lun: (1..).find(|lun| !is_taken(*lun)).unwrap(),
            blank: nodes.map_or(!is_copy, |nodes| nodes.is_blank(wwid)),
        };
        self.given.insert(place, given);
        given
    }

    /// What all nodes see.
    pub(super) fn seen(&self) -> Vec<Seen> {
        let seen = |((key, initiator), given): (&(String, String), &Given)| {
            let volume = self.volumes.get(key)?;
            Some(Seen {
                initiator: initiator.clone(),
                lun: given.lun,
                wwid: volume.wwid.clone(),
                size: volume.size_bytes,
            })
        };
        self.given.iter().filter_map(seen).collect()
    }
}

#[tonic::async_trait]
impl LinuxSan for Service {
    async fn identify(&self, _: Request<wire::IdentifyRequest>) -> Reply<wire::IdentifyResponse> {
        Ok(Response::new(wire::IdentifyResponse {
            san_uuid: self.0.inner().uuid.clone(),
            version: "double".to_owned(),
            clock_ms: Some(self.0.clock_ms()),
        }))
    }

    async fn get_capacity(
        &self,
        _: Request<wire::GetCapacityRequest>,
    ) -> Reply<wire::GetCapacityResponse> {
        self.serve("GetCapacity", |_| {
            Ok(wire::GetCapacityResponse {
                total_bytes: 100 << 30,
                available_bytes: 60 << 30,
                promised_bytes: 0,
                minimum_volume_bytes: 1 << 20,
                maximum_volume_bytes: 16 << 40,
                granule_bytes: 1 << 20,
            })
        })
        .await
    }

    async fn set_portal_group(
        &self,
        _: Request<wire::SetPortalGroupRequest>,
    ) -> Reply<wire::SetPortalGroupResponse> {
        Err(Status::unimplemented("an operator's call"))
    }

    async fn list_portals(
        &self,
        _: Request<wire::ListPortalsRequest>,
    ) -> Reply<wire::ListPortalsResponse> {
        self.serve("ListPortals", |_| {
            Ok(wire::ListPortalsResponse {
                portals: vec!["10.101.1.1:3260".to_owned(), "[fd00::1]:3260".to_owned()],
                groups: Vec::new(),
            })
        })
        .await
    }

    async fn create_volume(
        &self,
        request: Request<wire::CreateVolumeRequest>,
    ) -> Reply<wire::Volume> {
        let work = |inner: &mut Inner| inner.create(request.into_inner());
        self.serve("CreateVolume", work).await
    }

    async fn adopt_volume(&self, _: Request<wire::AdoptVolumeRequest>) -> Reply<wire::Volume> {
        Err(Status::unimplemented("no controller asks for it"))
    }

    async fn find_volume(&self, request: Request<wire::FindVolumeRequest>) -> Reply<wire::Volume> {
        use wire::find_volume_request::By;
        let by = request.into_inner().by.unwrap();
        self.serve("FindVolume", |inner| {
            let found = inner.volumes.values().find(|volume| match &by {
                By::Name(name) => volume.name == *name,
                By::Key(key) => volume.key == *key,
            });
            found
                .cloned()
                .ok_or_else(|| Status::not_found("no such volume"))
        })
        .await
    }

    async fn list_volumes(
        &self,
        request: Request<wire::ListVolumesRequest>,
    ) -> Reply<wire::ListVolumesResponse> {
        let wire::ListVolumesRequest {
            after_key,
            max_entries,
        } = request.into_inner();
        self.serve("ListVolumes", |inner| {
            if !after_key.is_empty() && !after_key.starts_with("key-") {
                return Err(Status::invalid_argument("after_key is no key"));
            }
            let mut rest: Vec<wire::Volume> = inner
                .volumes
                .values()
                .filter(|volume| volume.key > after_key)
                .cloned()
                .collect();
            let most = usize::try_from(max_entries).unwrap();
            let more = most != 0 && rest.len() > most;
            if more {
                rest.truncate(most);
            }
            Ok(wire::ListVolumesResponse {
                volumes: rest,
                more,
            })
        })
        .await
    }

    async fn check_volumes(
        &self,
        request: Request<wire::CheckVolumesRequest>,
    ) -> Reply<wire::CheckVolumesResponse> {
        use wire::check_volumes_request::Which;
        let request = request.into_inner();
        self.serve("CheckVolumes", |inner| {
            let is_asked_for = |key: &String| match &request.which {
                Some(Which::Key(asked)) => key == asked,
                Some(Which::AfterKey(after)) => key > after,
                None => true,
            };
            if let Some(Which::AfterKey(after)) = &request.which
                && !after.is_empty()
                && !after.starts_with("key-")
            {
                return Err(Status::invalid_argument("after_key is no key"));
            }
            let asked: Vec<_> = inner
                .volumes
                .values()
                .filter(|it| is_asked_for(&it.key))
                .collect();
            let most = usize::try_from(request.max_entries).unwrap();
            let most = if most == 0 { asked.len() } else { most };
            let checked = asked.iter().take(most).map(|volume| wire::CheckedVolume {
                volume: Some((*volume).clone()),
                troubles: inner.troubles.get(&volume.key).cloned().unwrap_or_default(),
            });
            Ok(wire::CheckVolumesResponse {
                volumes: checked.collect(),
                more: asked.len() > most,
            })
        })
        .await
    }

    async fn expand_volume(
        &self,
        request: Request<wire::ExpandVolumeRequest>,
    ) -> Reply<wire::Volume> {
        let request = request.into_inner();
        self.serve("ExpandVolume", |inner| {
            let volume = inner.volume(&request.key, &request.wwid)?;
            if request.size_bytes > 16 << 40 {
                return Err(Status::out_of_range(
                    "size_bytes is more than a volume can have",
                ));
            }
            volume.size_bytes = volume.size_bytes.max(request.size_bytes);
            Ok(volume.clone())
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<wire::DeleteVolumeRequest>,
    ) -> Reply<wire::DeleteVolumeResponse> {
        let wire::DeleteVolumeRequest { key, wwid } = request.into_inner();
        self.serve("DeleteVolume", |inner| {
            if let Ok(volume) = inner.volume(&key, &wwid) {
                if !volume.exported_to.is_empty() {
                    return Err(Status::failed_precondition("exported"));
                }
                inner.volumes.remove(&key);
            }
            Ok(wire::DeleteVolumeResponse {})
        })
        .await
    }

    async fn create_snapshot(
        &self,
        request: Request<wire::CreateSnapshotRequest>,
    ) -> Reply<wire::Snapshot> {
        let wanted = [request.into_inner()];
        self.serve("CreateSnapshot", |inner| Ok(inner.cut(&wanted)?.remove(0)))
            .await
    }

    async fn create_group_snapshot(
        &self,
        request: Request<wire::CreateGroupSnapshotRequest>,
    ) -> Reply<wire::CreateGroupSnapshotResponse> {
        let wanted = request.into_inner().snapshots;
        self.serve("CreateGroupSnapshot", |inner| {
            let snapshots = inner.cut(&wanted)?;
            Ok(wire::CreateGroupSnapshotResponse { snapshots })
        })
        .await
    }

    async fn find_snapshot(
        &self,
        request: Request<wire::FindSnapshotRequest>,
    ) -> Reply<wire::Snapshot> {
        use wire::find_snapshot_request::By;
        let by = request.into_inner().by.unwrap();
        self.serve("FindSnapshot", |inner| {
            let found = inner.snapshots.values().find(|snapshot| match &by {
                By::Name(name) => snapshot.name == *name,
                By::Key(key) => snapshot.key == *key,
            });
            found
                .cloned()
                .ok_or_else(|| Status::not_found("no such snapshot"))
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Reply<wire::ListSnapshotsResponse> {
        let request = request.into_inner();
        self.serve("ListSnapshots", |inner| inner.list_snapshots(&request))
            .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<wire::DeleteSnapshotRequest>,
    ) -> Reply<wire::DeleteSnapshotResponse> {
        let key = request.into_inner().key;
        self.serve("DeleteSnapshot", |inner| {
            inner.snapshots.remove(&key);
            Ok(wire::DeleteSnapshotResponse {})
        })
        .await
    }

    async fn list_extents(
        &self,
        request: Request<wire::ListExtentsRequest>,
    ) -> Reply<wire::ListExtentsResponse> {
        let request = request.into_inner();
        self.serve("ListExtents", |inner| inner.list_extents(&request))
            .await
    }

    async fn export_volume(
        &self,
        request: Request<wire::ExportVolumeRequest>,
    ) -> Reply<wire::Export> {
        let work = |inner: &mut Inner| inner.export(request.into_inner());
        self.serve("ExportVolume", work).await
    }

    async fn unexport_volume(
        &self,
        request: Request<wire::UnexportVolumeRequest>,
    ) -> Reply<wire::UnexportVolumeResponse> {
        let request = request.into_inner();
        self.serve("UnexportVolume", |inner| {
            if let Ok(volume) = inner.volume(&request.key, &request.wwid) {
                let iqn = &request.initiator_iqn;
                volume
                    .exported_to
                    .retain(|to| !iqn.is_empty() && to.initiator_iqn != *iqn);
                inner.given.retain(|(key, initiator), _| {
                    *key != request.key || (!iqn.is_empty() && initiator != iqn)
                });
            }
            Ok(wire::UnexportVolumeResponse {})
        })
        .await
    }
}
