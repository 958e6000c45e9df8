//! A volume that somebody wrote down by hand: a PersistentVolume with the LUN in its attributes, no SAN of ours behind it.
//!
//! ```text
//! volumeHandle      sp1:static:PARTITION:NAME:WWID     the partition says over which paths, the WWID which disk; NAME is the writer's
//! volumeAttributes  portals, iqn, lun                  one target at all of these portals
//!                   offers                             or PORTAL=LUN=IQN, one for each portal, where targets or numbers differ
//!                   sizeBytes, readOnly                optional
//! ```
//!
//! Nothing that is written is believed of the disk: its WWID is read on every path, as always. It is never said to be blank, so it is never formatted.

use std::collections::HashMap;
use std::fmt::Display;

use super::context::parse_offer;
use super::{Setting, VolumeId};
use crate::fabric::{Export, Iqn, Lun, MAX_OFFERS, Offer, Portal};

/// Why attributes do not say where a volume is.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// An attribute is absent or empty.
    #[error("volume_context.{key} is missing: {means}")]
    Missing {
        /// Which.
        key: &'static str,
        /// What belongs there.
        means: &'static str,
    },
    /// An attribute says nothing that can be used.
    #[error("volume_context.{key}: {text:?} is not it ({why}): {means}")]
    Value {
        /// Which.
        key: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: String,
        /// What belongs there.
        means: &'static str,
    },
    /// Both ways of saying it.
    #[error(
        "volume_context.offers is given, so volume_context.{0} must not be: write one or the other"
    )]
    Both(&'static str),
    /// More than are used.
    #[error("volume_context.{key} has {count} portals; at most {MAX_OFFERS} are used")]
    TooMany {
        /// Which.
        key: &'static str,
        /// How many.
        count: usize,
    },
    /// The same portal again.
    #[error("volume_context.{key} has {portal} twice")]
    Twice {
        /// Which.
        key: &'static str,
        /// Which portal.
        portal: Portal,
    },
}

const PORTALS: (&str, &str) = (
    "portals",
    "the addresses at which the SAN offers the LUN, like 10.0.1.1:3260,10.0.2.1:3260",
);
const IQN: (&str, &str) = (
    "iqn",
    "the target's name, like iqn.2001-05.com.example:array",
);
const LUN: (&str, &str) = ("lun", "the LUN's number in that target, 0 to 65535");
const OFFERS: (&str, &str) = (
    "offers",
    "a list of PORTAL=LUN=IQN, like 10.0.1.1:3260=5=iqn.2001-05.com.example:array",
);
const SIZE: (&str, &str) = ("sizeBytes", "the least size in bytes, or nothing");
const READ_ONLY: (&str, &str) = ("readOnly", "true or false, or nothing for false");

/// All of them, for the reference.
pub const ATTRIBUTES: [Setting; 6] = [
    Setting::new(PORTALS.0, "required without `offers`", PORTALS.1),
    Setting::new(IQN.0, "required without `offers`", IQN.1),
    Setting::new(LUN.0, "required without `offers`", LUN.1),
    Setting::new(OFFERS.0, "", OFFERS.1),
    Setting::new(SIZE.0, "whatever the paths agree on", SIZE.1).counting("bytes"),
    Setting::new(READ_ONLY.0, "false", READ_ONLY.1),
];

type Context = HashMap<String, String>;

/// Where the volume is by the attributes that came with it.
///
/// # Errors
/// See [`ByHandError`].
pub fn export_by_hand(id: &VolumeId, context: &Context) -> Result<Export, ByHandError> {
    Ok(Export {
        wwid: id.wwid.clone(),
        // Of the size nothing need be known but that there is one: whatever the paths agree on is used.
        size: optional(context, SIZE)?.unwrap_or(1),
        offers: offers(context)?,
        blank: false,
        read_only: optional(context, READ_ONLY)?.unwrap_or(false),
        own_target: false,
    })
}

fn offers(context: &Context) -> Result<Vec<Offer>, ByHandError> {
    let Some(text) = find(context, OFFERS.0) else {
        return one_target(context);
    };
    let other = [PORTALS.0, IQN.0, LUN.0].into_iter();
    if let Some(key) = other.into_iter().find(|key| find(context, key).is_some()) {
        return Err(ByHandError::Both(key));
    }
    let offer = |text: &str| {
        parse_offer(text).map_err(|error| wrong(OFFERS, text, &crate::fault::chain(&error)))
    };
    let offers = elements(text).map(offer).collect::<Result<Vec<_>, _>>()?;
    checked(OFFERS.0, offers)
}

fn one_target(context: &Context) -> Result<Vec<Offer>, ByHandError> {
    let portals = needed(context, PORTALS)?;
    let portals = elements(portals).map(|text| parsed::<Portal>(PORTALS, text));
    let portals = portals.collect::<Result<Vec<_>, _>>()?;
    let iqn: Iqn = parsed(IQN, needed(context, IQN)?)?;
    let lun = Lun(parsed(LUN, needed(context, LUN)?)?);
    let offers = portals.into_iter().map(|portal| Offer {
        portal,
        iqn: iqn.clone(),
        lun,
    });
    checked(PORTALS.0, offers.collect())
}

fn checked(key: &'static str, offers: Vec<Offer>) -> Result<Vec<Offer>, ByHandError> {
    let count = offers.len();
    if count > MAX_OFFERS {
        return Err(ByHandError::TooMany { key, count });
    }
    for (number, offer) in offers.iter().enumerate() {
        if offers[..number].iter().any(|it| it.portal == offer.portal) {
            let portal = offer.portal;
            return Err(ByHandError::Twice { key, portal });
        }
    }
    Ok(offers)
}

fn elements(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

fn find<'c>(context: &'c Context, key: &str) -> Option<&'c str> {
    let text = context.get(key).map(|text| text.trim());
    text.filter(|text| !text.is_empty())
}

fn needed<'c>(
    context: &'c Context,
    (key, means): (&'static str, &'static str),
) -> Result<&'c str, ByHandError> {
    find(context, key).ok_or(ByHandError::Missing { key, means })
}

fn optional<T>(
    context: &Context,
    what: (&'static str, &'static str),
) -> Result<Option<T>, ByHandError>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    let text = find(context, what.0);
    text.map(|text| parsed(what, text)).transpose()
}

fn parsed<T>(what: (&'static str, &'static str), text: &str) -> Result<T, ByHandError>
where
    T: std::str::FromStr,
    T::Err: Display,
{
    text.parse()
        .map_err(|error: T::Err| wrong(what, text, &error.to_string()))
}

fn wrong((key, means): (&'static str, &'static str), text: &str, why: &str) -> ByHandError {
    ByHandError::Value {
        key,
        // Attributes may have 4 KiB.
        text: text.chars().take(128).collect(),
        why: why.to_owned(),
        means,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> VolumeId {
        let id = "sp1:static:cluster-a:db-1:360014050123456789abcdef012345678";
        let found = VolumeId::find(id).unwrap();
        assert_eq!(found.to_string(), id);
        found
    }

    fn context(entries: &[(&str, &str)]) -> Context {
        let owned = |&(key, text): &(&str, &str)| (key.to_owned(), text.to_owned());
        entries.iter().map(owned).collect()
    }

    const GOOD: [(&str, &str); 3] = [
        ("portals", " 10.0.1.1, [fd00::1]:3261 "),
        ("iqn", "iqn.2001-05.com.example:array"),
        ("lun", "5"),
    ];

    #[test]
    fn one_target_or_one_for_each_portal() {
        let export = export_by_hand(&id(), &context(&GOOD)).unwrap();
        let told: Vec<String> = export
            .offers
            .iter()
            .map(|it| format!("{}={}={}", it.portal, it.lun, it.iqn))
            .collect();
        let expected = [
            "10.0.1.1:3260=5=iqn.2001-05.com.example:array",
            "[fd00::1]:3261=5=iqn.2001-05.com.example:array",
        ];
        assert_eq!(told, expected);
        assert!(!export.blank && !export.read_only && export.size > 0);
        let offers = context(&[
            ("offers", &told.join(",")),
            ("sizeBytes", "1073741824"),
            ("readOnly", "true"),
            ("storage.kubernetes.io/whatever", "is not ours"),
        ]);
        let again = export_by_hand(&id(), &offers).unwrap();
        assert_eq!(again.offers, export.offers);
        assert_eq!(
            (again.size, again.read_only, again.blank),
            (1 << 30, true, false)
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_what_belongs_there() {
        for (key, text, words) in [
            (
                "portals",
                "",
                "volume_context.portals is missing: the addresses",
            ),
            (
                "iqn",
                "",
                "volume_context.iqn is missing: the target's name",
            ),
            ("lun", " ", "volume_context.lun is missing"),
            ("portals", "10.0.1.1,", "volume_context.portals: \"\""),
            (
                "portals",
                "storage.example.com",
                "volume_context.portals: \"storage",
            ),
            (
                "portals",
                "10.0.1.1,10.0.1.1:3260",
                "has 10.0.1.1:3260 twice",
            ),
            ("iqn", "array-1", "volume_context.iqn: \"array-1\""),
            ("lun", "-1", "volume_context.lun: \"-1\""),
            ("lun", "65536", "0 to 65535"),
            ("sizeBytes", "10Gi", "volume_context.sizeBytes: \"10Gi\""),
            ("readOnly", "yes", "volume_context.readOnly: \"yes\""),
            (
                "offers",
                "10.0.1.1=5=iqn.2001-05.com.example:a",
                "volume_context.portals must not be",
            ),
        ] {
            let mut all = context(&GOOD);
            all.insert(key.to_owned(), text.to_owned());
            let told = export_by_hand(&id(), &all).unwrap_err().to_string();
            assert!(told.contains(words), "{key}={text}: {told}");
        }
        let many: Vec<String> = (1..=9).map(|it| format!("10.0.0.{it}")).collect();
        let mut all = context(&GOOD);
        all.insert("portals".to_owned(), many.join(","));
        let told = export_by_hand(&id(), &all).unwrap_err().to_string();
        assert!(told.contains("9 portals"), "{told}");
        for offers in [
            "10.0.1.1",
            "10.0.1.1=x=iqn.2001-05.com.example:a",
            "=5=iqn",
            ",",
        ] {
            let told = export_by_hand(&id(), &context(&[("offers", offers)]));
            let told = told.unwrap_err().to_string();
            assert!(told.contains("PORTAL=LUN=IQN"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_or_refused_with_its_field(
            key in prop::sample::select(vec!["portals", "iqn", "lun", "offers", "sizeBytes", "readOnly"]),
            text in "[0-9a-z=,.:iqn\\[\\]]{0,40}|.{0,60}",
        ) {
            let mut all = context(&GOOD);
            all.insert(key.to_owned(), text);
            match export_by_hand(&id(), &all) {
                Ok(export) => prop_assert!(!export.offers.is_empty()),
                Err(error) => prop_assert!(error.to_string().contains("volume_context."), "{error}"),
            }
        }
    }
}
