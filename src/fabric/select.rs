//! The one choice of paths: stage, heal and archive all ask here.

use serde::{Deserialize, Serialize};

use super::{Export, Iqn, Lun, Offer, PathList, Portal};

/// One path that a node should have to a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WantedPath {
    /// Where to log in.
    pub portal: Portal,
    /// The target there.
    pub iqn: Iqn,
    /// The volume's number there.
    pub lun: Lun,
}

/// What a path list makes of an export.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selection {
    /// The paths to have, in the order of the list.
    pub wanted: Vec<WantedPath>,
    /// Listed portals that the export does not hold. They need a new publish; nothing is guessed for them.
    pub not_offered: Vec<Portal>,
}

/// Chooses the paths to `export` that `list` asks for.
#[must_use]
pub fn select(export: &Export, list: &PathList) -> Selection {
    let want = |offer: &Offer| WantedPath {
        portal: offer.portal,
        iqn: offer.iqn.clone(),
        lun: offer.lun,
    };
    let PathList::Listed(portals) = list else {
        return Selection {
            wanted: export.offers.iter().map(want).collect(),
            ..Selection::default()
        };
    };
    let mut selection = Selection::default();
    for portal in portals {
        match export.offers.iter().find(|offer| offer.portal == *portal) {
            Some(offer) => selection.wanted.push(want(offer)),
            None => selection.not_offered.push(*portal),
        }
    }
    selection
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Export {
        let offer = |portal: &str| Offer {
            portal: portal.parse().unwrap(),
            iqn: "iqn.2026-11.dev.sanpath:t".parse().unwrap(),
            lun: Lun(3),
        };
        Export {
            wwid: "360014050123456789abcdef012345678".parse().unwrap(),
            size: 1 << 30,
            offers: vec![offer("10.101.1.1"), offer("10.102.1.1")],
            blank: true,
            read_only: false,
        }
    }

    #[test]
    fn without_a_list_every_offer_is_wanted() {
        let selection = select(&export(), &PathList::SanPortals);
        assert_eq!(selection.wanted.len(), 2);
        assert!(selection.not_offered.is_empty());
    }

    #[test]
    fn a_list_orders_and_narrows_and_never_guesses() {
        let list = "10.102.1.1,10.103.1.1".parse().unwrap();
        let selection = select(&export(), &list);
        assert_eq!(selection.wanted.len(), 1);
        assert_eq!(selection.wanted[0].portal, "10.102.1.1".parse().unwrap());
        assert_eq!(selection.not_offered, ["10.103.1.1".parse().unwrap()]);
    }
}
