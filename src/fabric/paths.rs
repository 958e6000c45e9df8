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
}
