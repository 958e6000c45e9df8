//! The publish context: the export as it travels from the controller through the orchestrator to the node.
//!
//! It is readable to many and must fit in 4 KiB: no secrets, eight offers at most.

use std::collections::HashMap;

use crate::fabric::{Export, MAX_OFFERS};

const VERSION: &str = "1";

/// An export in the form of a CSI map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishContext(pub Export);

/// Why a publish context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// A key is absent.
    #[error(
        "publish_context lacks {0:?}; it must be the one that ControllerPublishVolume returned"
    )]
    Missing(&'static str),
    /// Written by a version of the driver that this one does not know.
    #[error("publish_context.version is {0:?}; this driver reads version 1")]
    Version(String),
    /// A value does not parse.
    #[error("publish_context.{key} does not parse")]
    Value {
        /// Which.
        key: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing to attach from.
    #[error("publish_context.offers is empty")]
    NoOffers,
}

impl PublishContext {
    /// The map that the orchestrator keeps.
    #[must_use]
    pub fn to_map(&self) -> HashMap<String, String> {
        let export = &self.0;
        let offers: Vec<String> = export
            .offers
            .iter()
            .take(MAX_OFFERS)
            .map(|offer| format!("{}={}={}", offer.portal, offer.lun, offer.iqn))
            .collect();
        [
            ("version", VERSION.to_owned()),
            ("wwid", export.wwid.to_string()),
            ("sizeBytes", export.size.to_string()),
            ("offers", offers.join(",")),
            ("blank", export.blank.to_string()),
            ("readOnly", export.read_only.to_string()),
        ]
        .into_iter()
        // Nodes of before would not miss it: their sessions end when they are idle.
        .chain(export.own_target.then(|| ("ownTarget", true.to_string())))
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Reads the map back.
    ///
    /// # Errors
    /// See [`ContextError`].
    pub fn from_map(map: &HashMap<String, String>) -> Result<Self, ContextError> {
        let version = text(map, "version")?;
        if version != VERSION {
            return Err(ContextError::Version(version.to_owned()));
        }
        let offers = text(map, "offers")?
            .split(',')
            .filter(|offer| !offer.is_empty())
            .map(parse_offer)
            .collect::<Result<Vec<_>, _>>()?;
        if offers.is_empty() {
            return Err(ContextError::NoOffers);
        }
        Ok(Self(Export {
            wwid: value(map, "wwid")?,
            size: value(map, "sizeBytes")?,
            offers,
            blank: value(map, "blank")?,
            read_only: value(map, "readOnly")?,
            own_target: map.contains_key("ownTarget") && value(map, "ownTarget")?,
        }))
    }
}

fn text<'m>(map: &'m HashMap<String, String>, key: &'static str) -> Result<&'m str, ContextError> {
    map.get(key)
        .map(String::as_str)
        .ok_or(ContextError::Missing(key))
}

fn value<T>(map: &HashMap<String, String>, key: &'static str) -> Result<T, ContextError>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text(map, key)?
        .parse()
        .map_err(|source: T::Err| ContextError::Value {
            key,
            source: source.into(),
        })
}

pub(super) fn parse_offer(text: &str) -> Result<crate::fabric::Offer, ContextError> {
    let bad = |source: Box<dyn std::error::Error + Send + Sync>| ContextError::Value {
        key: "offers",
        source,
    };
    let parts: Vec<&str> = text.splitn(3, '=').collect();
    let [portal, lun, iqn] = parts.as_slice() else {
        return Err(bad(format!("{text:?} is not portal=lun=iqn").into()));
    };
    Ok(crate::fabric::Offer {
        portal: portal
            .parse()
            .map_err(|e: crate::fabric::PortalError| bad(e.into()))?,
        iqn: iqn
            .parse()
            .map_err(|e: crate::fabric::IqnError| bad(e.into()))?,
        lun: crate::fabric::Lun(
            lun.parse()
                .map_err(|e: std::num::ParseIntError| bad(e.into()))?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{Iqn, Lun, Offer};
    use proptest::prelude::*;

    fn golden() -> HashMap<String, String> {
        [
            ("version", "1"),
            ("wwid", "360014050123456789abcdef012345678"),
            ("sizeBytes", "1073741824"),
            ("offers", "10.101.1.1:3260=5=iqn.2026-11.dev.sanpath:t,[fd00::1]:3260=5=iqn.2026-11.dev.sanpath:t"),
            ("blank", "true"),
            ("readOnly", "false"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let context = PublishContext::from_map(&golden()).unwrap();
        assert_eq!(context.0.offers.len(), 2);
        assert_eq!(context.0.offers[1].lun, Lun(5));
        assert_eq!(context.to_map(), golden());
    }

    #[test]
    fn a_target_of_the_volumes_own_is_told_and_read() {
        let mut map = golden();
        map.insert("ownTarget".to_owned(), "true".to_owned());
        let context = PublishContext::from_map(&map).unwrap();
        assert!(context.0.own_target);
        assert_eq!(context.to_map(), map);
        map.insert("ownTarget".to_owned(), "perhaps".to_owned());
        let wrong = PublishContext::from_map(&map).unwrap_err();
        assert!(wrong.to_string().contains("ownTarget"), "{wrong}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for key in [
            "version",
            "wwid",
            "sizeBytes",
            "offers",
            "blank",
            "readOnly",
        ] {
            let mut map = golden();
            map.remove(key);
            assert!(
                PublishContext::from_map(&map)
                    .unwrap_err()
                    .to_string()
                    .contains(key)
            );
            map.insert(key.to_owned(), "?".to_owned());
            assert!(
                PublishContext::from_map(&map)
                    .unwrap_err()
                    .to_string()
                    .contains(key)
            );
        }
        assert!(PublishContext::from_map(&HashMap::new()).is_err());
    }

    #[test]
    fn the_largest_context_fits_in_4_kib() {
        let iqn: Iqn = format!("iqn.{}", "a".repeat(219)).parse().unwrap();
        let offer = Offer {
            portal: "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535"
                .parse()
                .unwrap(),
            iqn,
            lun: Lun(16383),
        };
        let mut export = PublishContext::from_map(&golden()).unwrap().0;
        export.offers = vec![offer; 20];
        let bytes: usize = PublishContext(export)
            .to_map()
            .iter()
            .map(|(k, v)| k.len() + v.len())
            .sum();
        assert!(bytes <= 4096, "{bytes}");
    }

    prop_compose! {
        fn any_export()(
            digits in "3[0-9a-f]{32}|3[0-9a-f]{16}",
            size in any::<u64>(),
            offers in proptest::collection::vec(
                (any::<std::net::IpAddr>(), 1..=u16::MAX, "iqn[.][-.:a-z0-9]{1,60}", any::<u16>()),
                1..=MAX_OFFERS,
            ),
            blank in any::<bool>(),
            read_only in any::<bool>(),
        ) -> Export {
            let offers = offers.into_iter().map(|(address, port, iqn, lun)| Offer {
                portal: crate::fabric::Portal::new(address, port),
                iqn: iqn.parse().unwrap(),
                lun: Lun(lun),
            });
            Export { wwid: digits.parse().unwrap(), size, offers: offers.collect(), blank, read_only, own_target: false }
        }
    }

    proptest! {
        #[test]
        fn every_export_survives_the_journey(export in any_export()) {
            let context = PublishContext(export);
            prop_assert_eq!(PublishContext::from_map(&context.to_map()).unwrap(), context);
        }

        #[test]
        fn a_spoilt_value_is_read_or_refused(key in 0..6_usize, value in "[0-9a-z=,.:iqn\\[\\]]{0,40}|.{0,40}") {
            let mut map = golden();
            let mut keys: Vec<String> = map.keys().cloned().collect();
            keys.sort_unstable();
            map.insert(keys[key].clone(), value);
            if let Ok(context) = PublishContext::from_map(&map) {
                prop_assert!(!context.0.offers.is_empty());
            }
        }
    }
}
