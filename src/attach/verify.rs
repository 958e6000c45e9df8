//! Proof that a map is the volume: its dm uuid, its size, and every member's own word, asked now.

use std::io;
use std::time::Duration;

use super::error::AttachError;
use super::path::{INQUIRY, name_of};
use super::{Engine, LedgerError, MapDevice};
use crate::deadline::Deadline;
use crate::fabric::{Export, Iqn, Wwid};
use crate::fault::chain;
use crate::flights::{Listener, Look};
use crate::host::Host;
use crate::iscsi::list_sessions;
use crate::multipath::{self, Map};
use crate::scsi::{self, Disk, IdentityError};

/// How long members may take to answer. A dead one is then counted as silent.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
/// multipathd suspends a map while it gives it another table, as when a second path joins; under load that has been seen to take tens of milliseconds.
const RELOAD_PATIENCE: Duration = Duration::from_secs(3);

/// What a member of a map says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MemberIdentity {
    /// Its name, and the target that shows it, when it hangs on an iSCSI session.
    Is(Wwid, Option<Iqn>),
    Other(String),
    /// No answer: a dead path. Proves nothing, for or against.
    Silent(String),
}

impl Engine {
    /// Checks the map of `key` again: its uuid, its size, and the identity of all members that answer. For the moment before mkfs, fsck, mount and
    /// bind.
    ///
    /// # Errors
    /// See [`AttachError`]; a member that is another volume is always one, and so is a map of which no member answers.
    pub fn verify(&self, key: &str) -> Result<MapDevice, AttachError> {
        let record = self
            .ledger()
            .find(key)?
            .ok_or_else(|| LedgerError::Missing {
                key: key.to_owned(),
            })?;
        self.verify_export(&record.export)
    }

    /// The same for a volume whose export is at hand.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_export(&self, export: &Export) -> Result<MapDevice, AttachError> {
        let wwid = &export.wwid;
        let amiss = |why: String| AttachError::Map {
            wwid: wwid.clone(),
            why,
        };
        let map = self.find_settled_map(wwid).map_err(AttachError::Read)?;
        let map = map.ok_or_else(|| amiss("there is none".to_owned()))?;
        check_map(&map, export)?;
        self.prove_members(&map, export)?;
        Ok(device_of(map, wwid))
    }

    /// The map of `wwid`, in force if it comes to be so soon.
    fn find_settled_map(&self, wwid: &Wwid) -> io::Result<Option<Map>> {
        let soon = self.host.deadline_in(RELOAD_PATIENCE);
        let settled = self.host.wait_for(soon, || {
            let map = multipath::find_map(&self.host, wwid)?;
            let is_settled = map.as_ref().is_none_or(Map::is_live);
            Ok::<_, io::Error>(is_settled.then_some(map))
        })?;
        settled.map_or_else(|| multipath::find_map(&self.host, wwid), Ok)
    }

    /// Asks all members of the map who they are; at least one must answer, and none may be another volume.
    pub(super) fn prove_members(&self, map: &Map, export: &Export) -> Result<(), AttachError> {
        let deadline = self.host.deadline_in(PATIENCE);
        let mut silent = Vec::new();
        let mut proven = 0;
        for (member, identity) in self.ask_members(map, deadline)? {
            match judge(map, export, &member, identity)? {
                None => proven += 1,
                Some(why) => silent.push(format!("{member}: {why}")),
            }
        }
        if proven > 0 {
            return Ok(());
        }
        Err(AttachError::Map {
            wwid: export.wwid.clone(),
            why: format!("no member answers: {}", silent.join("; ")),
        })
    }

    /// What each member says, by name.
    fn ask_members(
        &self,
        map: &Map,
        deadline: Deadline,
    ) -> Result<Vec<(String, MemberIdentity)>, AttachError> {
        let asked: Vec<(String, Listener<MemberIdentity>)> = map
            .members
            .iter()
            .map(|member| Ok((member.clone(), self.ask_member(member)?)))
            .collect::<Result<_, AttachError>>()?;
        self.wait_until_landed(asked.iter().map(|(_, listener)| listener), deadline);
        Ok(asked
            .into_iter()
            .map(|(member, listener)| (member, answer_of(&listener)))
            .collect())
    }

    /// Starts asking a disk who it is.
    pub(super) fn ask_member(&self, member: &str) -> Result<Listener<MemberIdentity>, AttachError> {
        let (host, name) = (self.host.clone(), member.to_owned());
        let ask = move || identity_of(&host, &name);
        self.shared
            .identities
            .join(member, ask, || {})
            .map_err(AttachError::Thread)
    }
}

fn identity_of(host: &Host, name: &str) -> MemberIdentity {
    let disks = match scsi::list_disks(host) {
        Ok(disks) => disks,
        Err(error) => return MemberIdentity::Silent(error.to_string()),
    };
    let Some(disk) = disks.into_iter().find(|disk| disk.name == name) else {
        return MemberIdentity::Silent("it is gone".to_owned());
    };
    match scsi::read_identity(host, &disk, INQUIRY) {
        Ok(identity) => match identity.wwid() {
            Some(wwid) => match target_of(host, &disk) {
                Ok(target) => MemberIdentity::Is(wwid, target),
                Err(error) => MemberIdentity::Silent(error.to_string()),
            },
            None => MemberIdentity::Other(name_of(&identity)),
        },
        Err(error @ IdentityError::NotConnected { .. }) => MemberIdentity::Other(error.to_string()),
        Err(error) => MemberIdentity::Silent(chain(&error)),
    }
}

/// The target whose session carries the disk; `None` when no session does, as over Fibre Channel.
fn target_of(host: &Host, disk: &Disk) -> std::io::Result<Option<Iqn>> {
    let mut sessions = list_sessions(host)?.into_iter();
    let session = sessions.find(|session| session.scsi_host == disk.hctl.host);
    Ok(session.map(|session| session.iqn))
}

/// The answer, or silence.
pub(super) fn answer_of(listener: &Listener<MemberIdentity>) -> MemberIdentity {
    match listener.look() {
        Look::Ended(identity) => MemberIdentity::clone(&identity),
        Look::Flying => MemberIdentity::Silent("it does not answer".to_owned()),
        Look::Lost => MemberIdentity::Silent("asking it failed".to_owned()),
    }
}

/// `None` for a proven member, the reason for a silent one; another volume is an error. So is one with the same name at a target that does not
/// offer the volume: two SANs that give one name twice are met in the field, and their volumes differ.
pub(super) fn judge(
    map: &Map,
    export: &Export,
    member: &str,
    identity: MemberIdentity,
) -> Result<Option<String>, AttachError> {
    let wwid = &export.wwid;
    let is_home = |target: &Iqn| export.offers.iter().any(|offer| offer.iqn == *target);
    let found = match identity {
        MemberIdentity::Is(found, target) if found == *wwid => match target {
            Some(target) if !is_home(&target) => {
                format!("{found} of target {target}, which does not offer the volume")
            }
            _ => return Ok(None),
        },
        MemberIdentity::Silent(why) => return Ok(Some(why)),
        MemberIdentity::Is(found, _) => found.to_string(),
        MemberIdentity::Other(found) => found,
    };
    Err(AttachError::WrongMember {
        map: map.name.clone(),
        wwid: wwid.clone(),
        member: member.to_owned(),
        found,
    })
}

/// A map in force, not smaller than it should be. It may be larger: the volume has grown since the export was written down, and whether it is the
/// volume at all is not for its size to say.
fn check_map(map: &Map, export: &Export) -> Result<(), AttachError> {
    let amiss = |why: String| {
        Err(AttachError::Map {
            wwid: export.wwid.clone(),
            why,
        })
    };
    if !map.is_live() {
        return amiss(format!("{} is not in force", map.name));
    }
    if map.size < export.size {
        let (is, should) = (map.size, export.size);
        return amiss(format!("{} has {is} bytes, less than {should}", map.name));
    }
    Ok(())
}

pub(super) fn device_of(map: Map, wwid: &Wwid) -> MapDevice {
    MapDevice {
        path: map.node(),
        name: map.name,
        dm: map.dm,
        wwid: wwid.clone(),
        size: map.size,
        members: map.members,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Lun, Offer};

    #[test]
    fn another_volume_in_the_map_is_an_error_and_silence_is_none() {
        let wwid: Wwid = "360014050123456789abcdef012345678".parse().unwrap();
        let other: Wwid = "360014050123456789abcdef012345679".parse().unwrap();
        let [home, abroad] = ["a", "b"].map(|name| {
            let iqn = format!("iqn.2026-11.dev.sanpath:{name}");
            iqn.parse::<Iqn>().unwrap()
        });
        let export = Export {
            wwid: wwid.clone(),
            size: 1,
            offers: vec![Offer {
                portal: "10.1.0.1".parse().unwrap(),
                iqn: home.clone(),
                lun: Lun(1),
            }],
            blank: false,
            read_only: false,
            own_target: false,
        };
        let map = Map {
            name: "m".to_owned(),
            dm: "dm-0".to_owned(),
            uuid: wwid.dm_uuid(),
            size: 1,
            suspended: false,
            members: Vec::new(),
        };
        let judged = |identity| judge(&map, &export, "sda", identity);
        for right in [None, Some(home.clone())] {
            let identity = MemberIdentity::Is(wwid.clone(), right);
            assert_eq!(judged(identity).unwrap(), None);
        }
        let silent = judged(MemberIdentity::Silent("EIO".to_owned())).unwrap();
        assert_eq!(silent.as_deref(), Some("EIO"));
        for wrong in [
            MemberIdentity::Is(other, Some(home)),
            MemberIdentity::Is(wwid.clone(), Some(abroad)),
            MemberIdentity::Other("LUNZ".to_owned()),
        ] {
            assert!(matches!(
                judged(wrong),
                Err(AttachError::WrongMember { .. })
            ));
        }
    }
}
