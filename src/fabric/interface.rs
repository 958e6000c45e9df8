//! `STORAGE_INTERFACES`: what an operator's names for interfaces mean on one node.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name of a Linux interface: `IFNAMSIZ` without its zero byte.
const LONGEST_NETDEV: usize = 15;

/// An operator's name for an interface, the same on every node of a partition: `iface0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfaceKey(String);

/// The name of a network interface of one node: `br0`. It ends up in file names and in open-iscsi's records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Netdev(String);

/// Which interface each key means on one node.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Interfaces(BTreeMap<IfaceKey, Netdev>);

/// Why a text does not say what interfaces are called.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InterfaceError {
    /// A key that could not stand in a path list.
    #[error(
        "{0:?} is not an interface key; write a name without comma, colon, equals sign, quote or line end, such as iface0"
    )]
    Key(String),
    /// What Linux would not take as a name.
    #[error(
        "{0:?} is not the name of a network interface; write 1 to {LONGEST_NETDEV} characters without blank, slash or colon, such as br0"
    )]
    Netdev(String),
    /// No pair.
    #[error(
        "element {position} of STORAGE_INTERFACES, {text:?}, is not KEY=INTERFACE; write for example iface0=br0,iface1=eth1"
    )]
    Pair {
        /// Counted from 1.
        position: usize,
        /// The element.
        text: String,
    },
    /// A pair that is not usable.
    #[error("element {position} of STORAGE_INTERFACES")]
    Element {
        /// Counted from 1.
        position: usize,
        #[source]
        source: Box<InterfaceError>,
    },
    /// Two meanings.
    #[error("STORAGE_INTERFACES says twice what {0} is; keep one of the two")]
    Twice(IfaceKey),
}

impl IfaceKey {
    /// As the operator wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfaceKey {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let fits = |c: char| !c.is_control() && !matches!(c, ',' | ':' | '=' | '"' | '[' | ']');
        if text.is_empty() || text.trim() != text || !text.chars().all(fits) {
            return Err(InterfaceError::Key(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IfaceKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Netdev {
    /// As the kernel has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Netdev {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let fits = |b: u8| b.is_ascii_graphic() && !b"/:,='\"\\".contains(&b);
        let is_dots = matches!(text, "." | "..");
        if text.is_empty() || text.len() > LONGEST_NETDEV || is_dots || !text.bytes().all(fits) {
            return Err(InterfaceError::Netdev(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Netdev {
    type Error = InterfaceError;

    fn try_from(text: String) -> Result<Self, InterfaceError> {
        text.parse()
    }
}

impl From<Netdev> for String {
    fn from(netdev: Netdev) -> Self {
        netdev.0
    }
}

impl fmt::Display for Netdev {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Interfaces {
    /// What `key` means here.
    #[must_use]
    pub fn find(&self, key: &IfaceKey) -> Option<&Netdev> {
        self.0.get(key)
    }

    /// Every key and what it means.
    pub fn iter(&self) -> impl Iterator<Item = (&IfaceKey, &Netdev)> {
        self.0.iter()
    }
}

impl FromStr for Interfaces {
    type Err = InterfaceError;

    /// Comma-separated `KEY=INTERFACE`; blanks around each part and one comma at the end do no harm. Nothing at all is no interface.
    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let text = text.trim();
        let mut found = BTreeMap::new();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let elements = text.strip_suffix(',').unwrap_or(text).split(',');
        for (index, element) in elements.enumerate() {
            let position = index + 1;
            let pair = element.split_once('=');
            let (key, netdev) = pair.ok_or_else(|| InterfaceError::Pair {
                position,
                text: element.trim().to_owned(),
            })?;
            let at = |source| InterfaceError::Element {
                position,
                source: Box::new(source),
            };
            let key: IfaceKey = key.trim().parse().map_err(at)?;
            let netdev: Netdev = netdev.trim().parse().map_err(at)?;
            if found.get(&key).is_some_and(|known| *known != netdev) {
                return Err(InterfaceError::Twice(key));
            }
            found.insert(key, netdev);
        }
        Ok(Self(found))
    }
}

impl fmt::Display for Interfaces {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, netdev)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{key}={netdev}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_seed_is_read() {
        let interfaces: Interfaces = "iface0=br0,iface1=eth1".parse().unwrap();
        let of = |key: &str| interfaces.find(&key.parse().unwrap()).map(Netdev::as_str);
        assert_eq!(of("iface0"), Some("br0"));
        assert_eq!(of("iface1"), Some("eth1"));
        assert_eq!(of("iface2"), None);
        let loose: Interfaces = " iface1 = eth1 , iface0=br0, iface0=br0,".parse().unwrap();
        assert_eq!(loose, interfaces);
    }

    #[test]
    fn a_refusal_names_the_element_and_the_mend() {
        for (text, expected) in [
            (
                "iface0",
                "element 1 of STORAGE_INTERFACES, \"iface0\", is not KEY=INTERFACE",
            ),
            ("a=b,,c=d", "element 2 of STORAGE_INTERFACES, \"\", is not"),
            ("=br0", "\"\" is not an interface key"),
            ("a=", "\"\" is not the name of a network interface"),
            ("a=a/b", "\"a/b\" is not the name"),
            ("a=b c", "\"b c\" is not the name"),
            ("a=sixteen-letters-", "\"sixteen-letters-\" is not the name"),
            ("a=b,a=c", "says twice what a is"),
        ] {
            let refused = crate::fault::chain(&text.parse::<Interfaces>().unwrap_err());
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_printed_and_read_again(text in "([a-z0-9 ]{0,4}=?[a-z0-9. /]{0,16},?){0,4}|.{0,40}") {
            if let Ok(interfaces) = text.parse::<Interfaces>() {
                prop_assert_eq!(interfaces.to_string().parse::<Interfaces>(), Ok(interfaces));
            }
        }
    }
}
