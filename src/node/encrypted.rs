//! The layer of encryption between a volume's map and what is made of it.
//!
//! The volume's own identity is in its LUKS header, in the layer's name and in its dm uuid, so each can be held against the other two. A layer is
//! used only while it lies on exactly the volume's map.

use std::io;

use super::decide::{Sealing, SealingCase, decide_sealing};
use super::device::Device;
use super::intent::{Formatting, Intent};
use super::stage::{Staging, prove_still};
use super::{Node, NodeError};
use crate::fault::chain;
use crate::filesystem::probe;
use crate::luks::{self, Identity, Keys, Mapping};
use crate::volume::{Encryption, Passphrases, VolumeId};

/// What `volume` is called where it is encrypted, for all that does not ask which header it bears.
pub fn identity_of(volume: &VolumeId) -> Identity {
    Identity::of(volume.wwid.as_str())
}

/// The device that is formatted, mounted or bound: the map of a volume in the clear, else the encrypted layer on it, which is made and opened as
/// needed.
pub fn ensure_layer(
    node: &Node,
    staging: &Staging<'_>,
    map: &Device,
    intent: &mut Intent,
) -> Result<Device, NodeError> {
    let Some(passphrases) = &staging.call.encryption else {
        refuse_sealed(node, &intent.volume, map)?;
        return Ok(map.clone());
    };
    let identity = intent.identity();
    if !is_open(node, staging, &identity, map)? {
        ensure_sealed(node, staging, passphrases, map, intent)?;
        let keys = Keys {
            current: passphrases.current.expose(),
            old: passphrases.old.as_ref().map(|old| old.expose()),
        };
        luks::unlock(
            &node.host,
            &map.path,
            &identity,
            keys,
            staging.is_read_only(),
        )?;
    }
    // One that a crash left open may lie on a map that has grown since. That it does not grow is no reason to keep its data from anybody.
    if let Err(error) = luks::grow(&node.host, &identity) {
        tracing::warn!(volume.id = %intent.volume, error = chain(&error), "the encrypted layer does not fill its map");
    }
    node.device_in_use(&intent.volume, intent)
}

/// A volume that we have encrypted is not shown as what it looks like from outside. A raw volume that cannot be read at its start is nothing to us: its
/// owner may want to rescue the rest.
fn refuse_sealed(node: &Node, volume: &VolumeId, map: &Device) -> Result<(), NodeError> {
    let header = luks::find_header(&node.host, &map.path);
    match header {
        // Also a copy's, whose header bears its origin's identity.
        Ok(Some(header)) if identity_of(volume).is_akin(&header.uuid) => Err(NodeError::Sealed {
            volume: volume.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether the volume's layer is open as it is wanted. One of ours that is open otherwise is closed, if nobody uses it.
fn is_open(
    node: &Node,
    staging: &Staging<'_>,
    identity: &Identity,
    map: &Device,
) -> Result<bool, NodeError> {
    let Some(mapping) = luks::find_mapping(&node.host, identity)? else {
        return Ok(false);
    };
    if !mapping.is_of(identity) {
        return Err(foreign(identity, &mapping));
    }
    if mapping.lies_on(&map.name) && mapping.read_only == staging.is_read_only() {
        return Ok(true);
    }
    // Half made, or on a device that was the volume once, or open for another use than the one now asked for.
    tracing::warn!(volume.id = %staging.call.volume, mapping = identity.name(), under = mapping.under.join(", "),
        "an old mapping of the volume is closed");
    luks::close(&node.host, identity)?;
    Ok(false)
}

fn foreign(identity: &Identity, mapping: &Mapping) -> NodeError {
    NodeError::Mapping {
        name: identity.name().to_owned(),
        uuid: mapping.dm_uuid.clone(),
        under: mapping.under.join(", "),
    }
}

/// Makes the volume have its LUKS header. The ledger says "begun" before the first byte is written and "done" after the last.
fn ensure_sealed(
    node: &Node,
    staging: &Staging<'_>,
    passphrases: &Passphrases,
    map: &Device,
    intent: &mut Intent,
) -> Result<(), NodeError> {
    let identity = intent.identity();
    let content = probe(&node.host, &map.path)?;
    let header = luks::find_header(&node.host, &map.path)?;
    let decision = decide_sealing(&SealingCase {
        content: &content,
        is_ours: header.is_some_and(|header| header.version == 2 && header.uuid == identity.uuid()),
        read_only: staging.is_read_only(),
        blank_by_san: staging.call.export.blank,
        sealing: intent.sealing,
    });
    // Looking took its time; whose device it is is asked again before anything writes.
    prove_still(node, &intent.volume, map)?;
    match decision {
        Sealing::Open => Ok(()),
        Sealing::Make => {
            intent.sealing = Formatting::Begun;
            intent.formatting = Formatting::No;
            node.keep(intent)?;
            luks::format(
                &node.host,
                &map.path,
                &identity,
                passphrases.current.expose(),
            )?;
            intent.sealing = Formatting::Done;
            node.keep(intent)
        }
        Sealing::Refuse(reason) => Err(NodeError::NotSealed {
            device: map.path.display().to_string(),
            found: content.to_string(),
            reason,
        }),
    }
}

impl Node {
    /// The device that the staged volume is used through: its map, or the encrypted layer that lies on exactly that map.
    pub(super) fn device_in_use(
        &self,
        volume: &VolumeId,
        intent: &Intent,
    ) -> Result<Device, NodeError> {
        let map = self.device(volume)?;
        let Some(Encryption::Luks2) = intent.encryption else {
            return Ok(map);
        };
        let identity = intent.identity();
        let absent = || NodeError::Device {
            volume: volume.clone(),
            source: io::Error::new(io::ErrorKind::NotFound, "its encrypted layer is not open"),
        };
        let mapping = luks::find_mapping(&self.host, &identity)?.ok_or_else(absent)?;
        if !mapping.is_of(&identity) || !mapping.lies_on(&map.name) {
            return Err(foreign(&identity, &mapping));
        }
        self.find_layer(volume)?.ok_or_else(absent)
    }

    /// Closes the volume's encrypted layer, if there is one, after what is in its page cache has been written out.
    pub(super) fn close_layer(&self, volume: &VolumeId) -> Result<(), NodeError> {
        let identity = identity_of(volume);
        let Some(mapping) = luks::find_mapping(&self.host, &identity)? else {
            return Ok(());
        };
        if !mapping.may_be_of(&identity) {
            tracing::warn!(volume.id = %volume, mapping = identity.name(), uuid = mapping.dm_uuid,
                "a mapping that is not the volume's bears its name; it stays");
            return Ok(());
        }
        if mapping.size > 0
            && let Some(layer) = self.find_layer(volume)?
        {
            self.host
                .flush_block(&layer.path)
                .map_err(|source| luks::LuksError::Flush {
                    device: layer.path.display().to_string(),
                    source,
                })?;
        }
        self.shut_layer(volume, &identity, &mapping)
    }

    /// Closes the volume's encrypted layer, if there is one, with all that is not written: an operator gave it up.
    pub(super) fn drop_layer(&self, volume: &VolumeId) -> Result<(), NodeError> {
        let identity = identity_of(volume);
        match luks::find_mapping(&self.host, &identity)? {
            Some(mapping) if mapping.may_be_of(&identity) => {
                self.shut_layer(volume, &identity, &mapping)
            }
            _ => Ok(()),
        }
    }

    fn shut_layer(
        &self,
        volume: &VolumeId,
        identity: &Identity,
        mapping: &Mapping,
    ) -> Result<(), NodeError> {
        let closed = luks::close(&self.host, identity);
        let map = self.find_device(volume)?;
        let holds_map = map.is_some_and(|map| mapping.under.contains(&map.name));
        match closed {
            // An old one on another device: it keeps nothing of the volume here.
            Err(luks::LuksError::Busy { name, summary }) if !holds_map => {
                tracing::warn!(volume.id = %volume, mapping = name, summary,
                    under = mapping.under.join(", "), "an old mapping of the volume is in use and stays");
                Ok(())
            }
            closed => Ok(closed?),
        }
    }
}
