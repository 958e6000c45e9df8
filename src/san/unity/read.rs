//! From a Unity's answers to our own nouns. What does not parse is refused whole.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::super::error::Cause;
use super::super::nouns::{Checked, Exported, Grade, SanSnapshot, SanVolume, Trouble};
use super::notes::{self, Notes};
use super::wire;
use crate::fabric::{Export, Iqn, Lun, MAX_OFFERS, Offer, Portal, Wwid};
use crate::san::calendar;

/// Whether a host reaches the LUN itself.
const THE_LUN: u32 = 1;
/// A snapshot that is there.
const READY: u32 = 2;
/// Up to this a thing is well.
const WELL: u32 = 7;
/// Up to this it serves.
const SERVES: u32 = 15;

/// The part of an answer that cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) field: &'static str,
    pub(super) source: Cause,
}

fn unusable<E: Into<Cause>>(field: &'static str) -> impl FnOnce(E) -> Unusable {
    move |error| Unusable {
        field,
        source: error.into(),
    }
}

/// The hosts that LUNs name, by their ids.
pub(super) type Hosts = BTreeMap<String, wire::Host>;

/// The identity of the LUN on every path: `3` and its world wide name without colons.
pub(super) fn wwid(wwn: &str) -> Result<Wwid, Unusable> {
    format!("3{}", wwn.replace(':', ""))
        .parse()
        .map_err(unusable("wwn"))
}

/// The ids of the hosts that reach the LUN itself.
pub(super) fn reached_by(lun: &wire::Lun) -> impl Iterator<Item = &str> {
    let reaches = |access: &&wire::HostAccess| reaches(access.access_mask);
    let access = lun.host_access.iter().filter(reaches);
    access.map(|access| access.host.id.as_str())
}

/// Whether a host with this access reaches the LUN itself.
pub(super) fn reaches(mask: u32) -> bool {
    mask & THE_LUN != 0
}

pub(super) fn volume(lun: &wire::Lun, hosts: &Hosts) -> Result<SanVolume, Unusable> {
    let notes = Notes::read(&lun.description, &lun.name);
    let mut exported_to = Vec::new();
    for id in reached_by(lun) {
        // One that is gone meanwhile reaches nothing.
        let Some(host) = hosts.get(id) else { continue };
        let read_only = notes.readers.contains(id);
        for initiator in initiators(host)? {
            exported_to.push(Exported {
                node_name: node_name(host),
                initiator,
                read_only,
            });
        }
    }
    Ok(SanVolume {
        key: lun.id.clone(),
        name: notes.name,
        wwid: wwid(&lun.wwn)?,
        size: lun.size_total,
        metadata: notes.metadata,
        exported_to,
        source: notes.source,
    })
}

/// The names of the host's iSCSI initiators.
pub(super) fn initiators(host: &wire::Host) -> Result<Vec<Iqn>, Unusable> {
    let named = host.iscsi_host_initiators.iter();
    named
        .map(|initiator| {
            let name = initiator.initiator_id.as_deref();
            let name = name
                .ok_or("it is not there")
                .map_err(unusable("initiatorId"))?;
            name.parse().map_err(unusable("initiatorId"))
        })
        .collect()
}

/// The node that the host is for: by our word, or by the name that somebody else gave it.
pub(super) fn node_name(host: &wire::Host) -> String {
    notes::node(&host.description).unwrap_or_else(|| host.name.clone())
}

pub(super) fn checked(lun: &wire::Lun, hosts: &Hosts) -> Result<Checked, Unusable> {
    Ok(Checked {
        volume: volume(lun, hosts)?,
        troubles: trouble(&lun.health).into_iter().collect(),
    })
}

fn trouble(health: &wire::Health) -> Option<Trouble> {
    if health.value <= WELL {
        return None;
    }
    let grade = if health.value <= SERVES {
        Grade::Degraded
    } else {
        Grade::Inaccessible
    };
    let id = health.description_ids.first();
    let reason = id.map(|id| camel_case(id.trim_start_matches("ALRT_")));
    let message = health.descriptions.join(" ");
    Some(Trouble {
        grade,
        reason: reason.unwrap_or_else(|| format!("Health{}", health.value)),
        message: if message.is_empty() {
            format!("the array says that its health is {}", health.value)
        } else {
            message
        },
    })
}

fn camel_case(id: &str) -> String {
    let words = id.split('_').map(|word| {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        first.to_uppercase() + &rest.to_lowercase()
    });
    words.collect()
}

/// The snapshot of a LUN; `None` for one that is going, and for those of other things.
pub(super) fn snapshot(snap: &wire::Snap) -> Result<Option<SanSnapshot>, Unusable> {
    let (Some(lun), READY) = (&snap.lun, snap.state) else {
        return Ok(None);
    };
    let notes = Notes::read(&snap.description, &snap.name);
    Ok(Some(SanSnapshot {
        key: snap.id.clone(),
        name: notes.name,
        volume: lun.id.clone(),
        size: snap
            .size
            .ok_or("it is not there")
            .map_err(unusable("size"))?,
        created_at: moment(&snap.creation_time)
            .ok_or("no clock shows it")
            .map_err(unusable("creationTime"))?,
        metadata: notes.metadata,
    }))
}

/// A moment as the array writes it, `2016-10-10T07:03:19.609Z` (ISO 8601).
fn moment(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let (clock, part) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    if part.is_empty() || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let millis: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    let whole = calendar::moment([year, month, day], [hour, minute, second])?;
    whole.checked_add(Duration::from_millis(millis))
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let numbers = text.split(between).map(|part| part.parse().ok());
    numbers.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

/// Where the array listens, each address with the target of its port. The two processors take turns, so that the first few are of both.
pub(super) fn portals(found: &[wire::IscsiPortal]) -> Result<Vec<(Portal, Iqn)>, Unusable> {
    let mut by_processor: BTreeMap<&str, Vec<(Portal, Iqn)>> = BTreeMap::new();
    for portal in found {
        let name = portal.iscsi_node.name.as_deref();
        let name = name
            .ok_or("it is not there")
            .map_err(unusable("iscsiNode"))?;
        let address = portal.ip_address.parse().map_err(unusable("ipAddress"))?;
        let iqn = name.parse().map_err(unusable("iscsiNode"))?;
        let port = &portal.ethernet_port.id;
        let processor = port.split('_').next().unwrap_or(port);
        by_processor
            .entry(processor)
            .or_default()
            .push((address, iqn));
    }
    for portals in by_processor.values_mut() {
        portals.sort();
    }
    let longest = by_processor.values().map(Vec::len).max().unwrap_or(0);
    let in_turn = (0..longest).flat_map(|turn| {
        let of_turn = by_processor.values().filter_map(move |it| it.get(turn));
        of_turn.cloned().collect::<Vec<_>>()
    });
    Ok(in_turn.collect())
}

/// The LUN as a host is offered it that sees it under the number `hlu`.
pub(super) fn export(
    lun: &wire::Lun,
    portals: &[(Portal, Iqn)],
    hlu: u16,
    read_only: bool,
) -> Result<Export, Unusable> {
    if portals.is_empty() {
        return Err(unusable("iscsiPortal")("the array listens nowhere"));
    }
    let offers = portals.iter().take(MAX_OFFERS);
    Ok(Export {
        wwid: wwid(&lun.wwn)?,
        size: lun.size_total,
        offers: offers
            .map(|(portal, iqn)| Offer {
                portal: *portal,
                iqn: iqn.clone(),
                lun: Lun(hlu),
            })
            .collect(),
        blank: lun.is_thin_enabled && !lun.is_thin_clone && lun.size_allocated == 0,
        read_only,
        own_target: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_moment_is_read_to_the_millisecond() {
        let since = |text: &str| {
            let moment = moment(text)?;
            Some(
                moment
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap()
                    .as_millis(),
            )
        };
        assert_eq!(since("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(since("2016-10-10T07:03:19.609Z"), Some(1_476_082_999_609));
        assert_eq!(since("2024-02-29T23:59:59Z"), Some(1_709_251_199_000));
        assert_eq!(since("2000-03-01T00:00:00.5Z"), Some(951_868_800_500));
        for odd in [
            "",
            "2016-10-10",
            "2016-13-10T07:03:19Z",
            "2016-10-10T07:03:19",
            "0-1-1T0:0:0Z",
            "2016-10-10T07:03:19.é9Z",
        ] {
            assert_eq!(since(odd), None, "{odd}");
        }
    }

    #[test]
    fn the_first_portals_are_of_both_processors() {
        let portal = |port: &str, address: &str, iqn: &str| {
            let portal = json!({"ipAddress": address, "iscsiNode": {"name": iqn}, "ethernetPort": {"id": port}});
            serde_json::from_value::<wire::IscsiPortal>(portal).unwrap()
        };
        let found = [
            portal("spa_eth2", "10.0.0.1", "iqn.1992-04.com.emc:cx.x.a0"),
            portal("spa_eth3", "10.0.0.2", "iqn.1992-04.com.emc:cx.x.a1"),
            portal("spb_eth2", "10.0.0.3", "iqn.1992-04.com.emc:cx.x.b0"),
        ];
        let order: Vec<String> = portals(&found)
            .unwrap()
            .iter()
            .map(|(portal, _)| portal.to_string())
            .collect();
        assert_eq!(order, ["10.0.0.1:3260", "10.0.0.3:3260", "10.0.0.2:3260"]);
        assert_eq!(
            portals(&found).unwrap()[1].1.as_str(),
            "iqn.1992-04.com.emc:cx.x.b0"
        );
    }

    #[test]
    fn health_is_told_in_our_words() {
        let health = |value: u32| {
            trouble(&serde_json::from_value(json!({"value": value, "descriptionIds": ["ALRT_VOL_OFFLINE_X"], "descriptions": ["It is off."]})).unwrap())
        };
        assert_eq!(health(5), None);
        assert_eq!(health(7), None);
        let told = health(20).unwrap();
        assert_eq!(
            (told.grade, &*told.reason, &*told.message),
            (Grade::Inaccessible, "VolOfflineX", "It is off.")
        );
        assert_eq!(health(10).unwrap().grade, Grade::Degraded);
    }

    #[test]
    fn a_wwn_becomes_what_multipath_prints() {
        let wwid = wwid("60:06:01:60:24:10:3E:00:9A:68:39:57:0D:65:04:B0").unwrap();
        assert_eq!(
            wwid.as_str(),
            "3600601602410 3e009a6839570d6504b0".replace(' ', "")
        );
        assert!(super::wwid("60:06").is_err());
    }
}
