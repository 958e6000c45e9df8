//! From what the array tells to our own nouns.

use super::groups::Hosts;
use super::names;
use super::notes::Notes;
use super::text::{Lun, Port, Unusable, unusable};
use crate::fabric::{self, Export, Iqn, MAX_OFFERS, Offer, Portal};
use crate::san::nouns::{Checked, Exported, Grade, SanVolume, Trouble};

/// How the world wide names of all LUNs of all arrays of this kind begin, after the `3`.
const OF_VENDOR: &str = "60060160";

/// Its number, and what its world wide name has of its own: the array uses numbers again.
pub(super) fn key(lun: &Lun) -> String {
    let own = lun.wwid.as_str().get(1..).unwrap_or_default();
    let own = own.strip_prefix(OF_VENDOR).unwrap_or(own);
    format!("{}-{own}", lun.number)
}

/// The number of the LUN with this key.
pub(super) fn number(key: &str) -> Option<u32> {
    key.split_once('-')?.0.parse().ok()
}

pub(super) fn volume(lun: &Lun, notes: Option<Notes>, hosts: &Hosts) -> SanVolume {
    let notes = notes.unwrap_or_else(|| Notes {
        name: lun.name.clone(),
        ..Notes::default()
    });
    let mut exported_to = Vec::new();
    for host in hosts.with(lun.number) {
        for initiator in host.initiators() {
            exported_to.push(Exported {
                node_name: host.node_name(&initiator),
                read_only: notes.readers.contains(&names::reader(initiator.as_str())),
                initiator,
            });
        }
    }
    SanVolume {
        key: key(lun),
        name: notes.name,
        wwid: lun.wwid.clone(),
        size: lun.size,
        metadata: notes.metadata,
        exported_to,
        source: notes.source,
    }
}

pub(super) fn checked(lun: &Lun, volume: SanVolume) -> Checked {
    Checked {
        volume,
        troubles: trouble(lun).into_iter().collect(),
    }
}

fn trouble(lun: &Lun) -> Option<Trouble> {
    let state = lun.state.as_str();
    let serves = state == "Ready";
    if serves && !lun.is_faulted {
        return None;
    }
    let reason: String = state.split_whitespace().map(capital).collect();
    let status = lun.status.as_deref().unwrap_or("nothing more");
    Some(Trouble {
        grade: if serves {
            Grade::Degraded
        } else {
            Grade::Inaccessible
        },
        reason: if serves {
            "LunFaulted".to_owned()
        } else {
            format!("Lun{reason}")
        },
        message: format!("the array says that the LUN is {state}, and {status}"),
    })
}

fn capital(word: &str) -> String {
    let letters = word.chars().filter(char::is_ascii_alphanumeric);
    let mut word: String = letters.collect();
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
}

/// Where the array listens, each address with the target of its port. The two processors take turns, so that the first few are of both.
pub(super) fn targets(ports: &[Port]) -> Result<Vec<(Port, Portal, Iqn)>, Unusable> {
    let mut all = Vec::new();
    for port in ports {
        let portal: Portal = port.address.parse().map_err(unusable("IP Address"))?;
        let iqn: Iqn = port.iqn.parse().map_err(unusable("Port WWN"))?;
        all.push((port.clone(), portal, iqn));
    }
    all.sort_by_key(|(port, ..)| (port.port, port.vport, port.sp));
    let (of_a, of_b): (Vec<_>, Vec<_>) = all.into_iter().partition(|(port, ..)| port.sp == 'A');
    let longest = of_a.len().max(of_b.len());
    let in_turn = (0..longest).flat_map(|turn| {
        let pair = [of_a.get(turn), of_b.get(turn)];
        pair.into_iter().flatten().cloned().collect::<Vec<_>>()
    });
    Ok(in_turn.collect())
}

/// The LUN as a host is offered it that sees it under the number `hlu` at these targets.
pub(super) fn export(
    lun: &Lun,
    targets: &[(Port, Portal, Iqn)],
    hlu: u16,
    (blank, read_only): (bool, bool),
) -> Result<Export, Unusable> {
    if targets.is_empty() {
        let reason = "the node is registered at no port that listens for iSCSI";
        return Err(unusable("IP Address")(reason));
    }
    let offers = targets.iter().take(MAX_OFFERS);
    Ok(Export {
        wwid: lun.wwid.clone(),
        size: lun.size,
        offers: offers
            .map(|(_, portal, iqn)| Offer {
                portal: *portal,
                iqn: iqn.clone(),
                lun: fabric::Lun(hlu),
            })
            .collect(),
        blank,
        read_only,
        own_target: false,
    })
}
