//! `ncpaths` and `scpaths`: which portals of a SAN a partition's nodes use.

use std::str::FromStr;

use super::{Portal, PortalError};

/// The paths an operator listed, or all that the SAN offers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PathList {
    /// Not set, or `nopath`: the SAN's own portals.
    #[default]
    SanPortals,
    /// Exactly these, in this order, without repetition.
    Listed(Vec<Portal>),
}

/// Why a text is not a path list.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("element {position} of the path list")]
pub struct PathListError {
    /// Counted from 1.
    pub position: usize,
    #[source]
    source: PortalError,
}

impl FromStr for PathList {
    type Err = PathListError;

    /// Comma-separated portals; blanks around them and one comma at the end do no harm.
    fn from_str(text: &str) -> Result<Self, PathListError> {
        let text = text.trim();
        if text.is_empty() || text == "nopath" {
            return Ok(Self::SanPortals);
        }
        let mut portals = Vec::new();
        let elements = text.strip_suffix(',').unwrap_or(text).split(',');
        for (index, element) in elements.enumerate() {
            let portal = element.trim().parse().map_err(|source| PathListError {
                position: index + 1,
                source,
            })?;
            if !portals.contains(&portal) {
                portals.push(portal);
            }
        }
        Ok(Self::Listed(portals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_list_is_read() {
        let list: PathList = " 10.0.0.1, [fd00::1]:3261 ,10.0.0.1:3260,".parse().unwrap();
        let portals = ["10.0.0.1:3260", "[fd00::1]:3261"].map(|text| text.parse().unwrap());
        assert_eq!(list, PathList::Listed(portals.to_vec()));
        for unset in ["", "  ", "nopath"] {
            assert_eq!(unset.parse::<PathList>().unwrap(), PathList::SanPortals);
        }
    }

    #[test]
    fn the_element_at_fault_is_counted() {
        let refused = "10.0.0.1,,10.0.0.2".parse::<PathList>().unwrap_err();
        assert_eq!(refused.position, 2);
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written(portals in proptest::collection::vec(any::<(std::net::IpAddr, u16)>(), 1..6)) {
            let portals = portals.into_iter().map(|(address, port)| Portal::new(address, port.max(1)));
            let mut portals: Vec<Portal> = portals.collect();
            let text: Vec<String> = portals.iter().map(ToString::to_string).collect();
            let mut seen = std::collections::BTreeSet::new();
            portals.retain(|portal| seen.insert(*portal));
            prop_assert_eq!(text.join(" ,\t").parse::<PathList>().unwrap(), PathList::Listed(portals));
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"[\[\]0-9a-f:., \t]{0,60}|.{0,40}") {
            let _ = text.parse::<PathList>();
        }
    }
}
