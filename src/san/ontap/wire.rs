//! ONTAP's answers as they come, and what we make of them. Unknown fields are left alone: releases add some.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::error::SanError;
use super::names::{self, Kind};
use super::notes::{ATTRIBUTE, Notes};
use crate::fabric::{Chap, Wwid};

/// What a LUN is asked for; what costs the array something comes only when it is named.
pub(super) const LUN_FIELDS: &str = "uuid,name,svm.name,serial_number,space.size,space.used,space.scsi_thin_provisioning_support_enabled,attributes,lun_maps,create_time,status";

/// NetApp's company id, before the serial number.
const NAA: &str = "3600a0980";
const SERIAL: usize = 12;

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Lun {
    pub(super) uuid: String,
    /// Its path.
    pub(super) name: String,
    #[serde(default)]
    pub(super) svm: Option<Named>,
    pub(super) serial_number: String,
    pub(super) space: Space,
    #[serde(default)]
    pub(super) attributes: Vec<Attribute>,
    #[serde(default)]
    pub(super) lun_maps: Vec<LunMap>,
    pub(super) create_time: String,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Space {
    pub(super) size: u64,
    #[serde(default)]
    pub(super) used: Option<u64>,
    #[serde(default, rename = "scsi_thin_provisioning_support_enabled")]
    pub(super) thin: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attribute {
    pub(super) name: String,
    pub(super) value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    pub(super) state: Option<String>,
    #[serde(default)]
    pub(super) container_state: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct LunMap {
    pub(super) igroup: Named,
    #[serde(default)]
    pub(super) logical_unit_number: Option<u16>,
    #[serde(default)]
    pub(super) reporting_nodes: Vec<Named>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Named {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) uuid: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Igroup {
    pub(super) uuid: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) comment: Option<String>,
    #[serde(default)]
    pub(super) initiators: Vec<Named>,
    #[serde(default)]
    pub(super) lun_maps: Vec<Value>,
}

/// What an initiator has to prove. Passwords never come.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Credentials {
    pub(super) svm: Named,
    pub(super) initiator: String,
    #[serde(default)]
    pub(super) authentication_type: String,
    #[serde(default)]
    chap: Option<Sides>,
}

#[derive(Clone, Debug, Deserialize)]
struct Sides {
    #[serde(default)]
    inbound: Option<Side>,
    #[serde(default)]
    outbound: Option<Side>,
}

#[derive(Clone, Debug, Deserialize)]
struct Side {
    #[serde(default)]
    user: Option<String>,
}

impl Credentials {
    /// Whether the names are those, as far as can be seen.
    pub(super) fn fits(&self, chap: &Chap) -> bool {
        let target = chap.target.as_ref().map(|user| user.name.as_str());
        self.authentication_type == "chap"
            && self.users() == (Some(chap.initiator.name.as_str()), target)
    }

    /// Whether the array proves itself as well.
    pub(super) fn is_mutual(&self) -> bool {
        self.users().1.is_some()
    }

    fn users(&self) -> (Option<&str>, Option<&str>) {
        fn name(side: Option<&Side>) -> Option<&str> {
            side?.user.as_deref().filter(|name| !name.is_empty())
        }
        let Some(chap) = &self.chap else {
            return (None, None);
        };
        (name(chap.inbound.as_ref()), name(chap.outbound.as_ref()))
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct FlexVol {
    pub(super) name: String,
    pub(super) space: FlexVolSpace,
}

/// The `FlexVol` of one volume.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Home {
    pub(super) uuid: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) comment: Option<String>,
    #[serde(default)]
    pub(super) size: u64,
}

/// A snapshot of such a `FlexVol`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Cut {
    pub(super) uuid: String,
    pub(super) name: String,
    pub(super) create_time: String,
    pub(super) volume: Named,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Aggregate {
    pub(super) name: String,
    space: AggregateSpace,
}

#[derive(Clone, Debug, Deserialize)]
struct AggregateSpace {
    block_storage: FlexVolSpace,
}

impl Aggregate {
    /// The bytes that are left.
    pub(super) fn available(&self) -> u64 {
        self.space.block_storage.available
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct FlexVolSpace {
    pub(super) available: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Service {
    pub(super) target: Named,
    #[serde(default)]
    pub(super) enabled: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Interface {
    pub(super) ip: Ip,
    #[serde(default)]
    pub(super) enabled: Option<bool>,
    pub(super) location: Location,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ip {
    pub(super) address: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Location {
    pub(super) node: Named,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Job {
    pub(super) state: String,
    #[serde(default)]
    pub(super) code: Option<u64>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) error: Option<JobError>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct JobError {
    #[serde(default)]
    pub(super) code: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

/// A part of an answer that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum Odd {
    #[error("{0:?} has not {SERIAL} printable characters")]
    Serial(String),
    #[error("{0:?} is no time as ONTAP writes it")]
    Time(String),
    #[error("it is absent")]
    Absent,
}

/// The answer to `call` as a `T`.
pub(super) fn read<T: DeserializeOwned>(
    call: &'static str,
    field: &'static str,
    value: Value,
) -> Result<T, SanError> {
    serde_json::from_value(value).map_err(|error| odd(call, field)(error))
}

pub(super) fn odd<E>(call: &'static str, field: &'static str) -> impl FnOnce(E) -> SanError
where
    E: Into<super::super::error::Cause>,
{
    move |error| SanError::Answer {
        call,
        field,
        source: error.into(),
    }
}

impl Lun {
    /// The notes that we keep with it; `None` for one that is not ours, or not complete.
    pub(super) fn notes(&self, kind: Kind) -> Option<Notes> {
        let (_, lun) = names::parts(&self.name)?;
        Notes::find(self.noted()?, lun).filter(|notes| notes.kind() == kind)
    }

    /// The text of the notes that are kept with it, whoever's they are.
    pub(super) fn noted(&self) -> Option<&str> {
        let noted = self.attributes.iter().find(|it| it.name == ATTRIBUTE);
        noted.map(|it| it.value.as_str())
    }

    /// The identity that all its paths show.
    pub(super) fn wwid(&self) -> Result<Wwid, SanError> {
        let serial = &self.serial_number;
        let fits = serial.len() == SERIAL && serial.bytes().all(|byte| byte.is_ascii_graphic());
        let hex: String = serial.bytes().map(|byte| format!("{byte:02x}")).collect();
        let wwid = format!("{NAA}{hex}").parse();
        let wwid = wwid.ok().filter(|_| fits);
        wwid.ok_or_else(|| odd("a LUN", "serial_number")(Odd::Serial(serial.clone())))
    }

    pub(super) fn created_at(&self) -> Result<SystemTime, SanError> {
        created_at("a LUN", &self.create_time)
    }
}

/// The `create_time` of `what`.
pub(super) fn created_at(what: &'static str, text: &str) -> Result<SystemTime, SanError> {
    moment(text).ok_or_else(|| odd(what, "create_time")(Odd::Time(text.to_owned())))
}

/// A time as ISO 8601 writes it, in UTC or with an offset; parts of a second are left out.
fn moment(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (clock, offset) = match time.find(['Z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, "Z"),
    };
    let mut clock = clock.split('.').next()?.split(':').map(str::parse::<i64>);
    let (hour, minute, second) = (
        clock.next()?.ok()?,
        clock.next()?.ok()?,
        clock.next()?.ok()?,
    );
    let is_date = (1970..=9999).contains(&year) && (1..=12).contains(&month);
    if !is_date || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let ahead = match offset.strip_prefix('Z') {
        Some(_) => 0,
        None => {
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
            sign * (i64::from(hours) * 60 + i64::from(minutes)) * 60
        }
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - ahead;
    let seconds = u64::try_from(seconds).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Since 1970, by the calendar that has leap years every four years but three in four hundred.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the odd day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year / 4 - year / 100 + year / 400;
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lun(serial: &str) -> Lun {
        let wire = serde_json::json!({
            "uuid": "u", "name": "/vol/f/l", "serial_number": serial, "space": {"size": 1},
            "create_time": "2026-11-26T12:00:00Z", "later": {"field": true},
        });
        serde_json::from_value(wire).unwrap()
    }

    /// The pair is in the tests of Trident, a driver that ran on real arrays.
    #[test]
    fn the_wwid_follows_from_the_serial() {
        let wwid = lun("yocwB?Wl7x2l").wwid().unwrap();
        assert_eq!(wwid.as_str(), "3600a0980796f6377423f576c3778326c");
        for serial in ["", "short", "with a blank", "much-too-long-one", "ääääää"] {
            assert!(lun(serial).wwid().is_err(), "{serial:?}");
        }
    }

    #[test]
    fn a_time_is_read_with_its_offset() {
        let seconds = |text: &str| {
            let since = moment(text)?.duration_since(SystemTime::UNIX_EPOCH);
            since.ok().map(|since| since.as_secs())
        };
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(seconds("2018-06-04T19:00:00.5+00:00"), Some(1_528_138_800));
        assert_eq!(seconds("2018-06-04T15:00:00-04:00"), Some(1_528_138_800));
        for odd in [
            "",
            "2018-06-04",
            "2018-13-04T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2018-06-04T00:00:00+153722867280912931:00",
        ] {
            assert_eq!(moment(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_none(text in "[-0-9TZ:+.]{0,40}|(?s:.{0,30})") {
            let _ = moment(&text);
        }
    }
}
