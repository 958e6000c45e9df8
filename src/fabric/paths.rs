//! `ncpaths` and `scpaths`: which portals of a SAN a partition's nodes use, and from which of their interfaces.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::portal::ISCSI_PORT;
use super::{IfaceKey, MAX_OFFERS, Portal};

/// What Eucalyptus wrote where nothing was set.
const UNSET: &str = "nopath";
/// RFC 1035 §2.3.4.
const LONGEST_HOST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The paths an operator listed, or all that the SAN offers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum PathList {
    /// Not set, or `nopath`: the SAN's own portals.
    #[default]
    SanPortals,
    /// Exactly these, in this order, without repetition; [`MAX_OFFERS`] at most.
    Listed(Vec<ListedPath>),
}

/// One element of a path list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListedPath {
    /// The interface to leave through; without one the routes decide.
    pub iface: Option<IfaceKey>,
    /// Where to go.
    pub address: PathAddress,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathAddress {
    /// To one portal.
    Portal(Portal),
    /// To what a name means, asked anew at each use.
    Name(HostName, u16),
}

/// A host's name, in small letters: a label or several, as DNS or a hosts file has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text is not a path list.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathListError {
    /// One element is wrong.
    #[error("element {position} of the path list")]
    Element {
        /// Counted from 1.
        position: usize,
        #[source]
        source: ElementError,
    },
    /// More than a publish context carries, and more than dm-multipath gains from.
    #[error("{0} paths are listed; at most {MAX_OFFERS} are used, so take some out")]
    TooMany(usize),
}

/// Why a text is not one path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElementError {
    /// Two commas, or one at the beginning.
    #[error("it is empty; take the comma before or after it out")]
    Empty,
    /// An interface that leads nowhere.
    #[error("{0:?} has an interface and no address; write IFACE:ADDRESS, such as iface0:192.0.2.1")]
    NoAddress(String),
    /// What stands where the address should.
    #[error(
        "{0:?} is not an address; write 192.0.2.1, 192.0.2.1:3260, [fd00::1]:3260 or a host name, with IFACE: before it if it is bound"
    )]
    Address(String),
    /// What stands after the last colon.
    #[error("{0:?} is not a port; write a number from 1 to 65535")]
    Port(String),
    /// IPv6 has colons of its own.
    #[error(
        "{0:?} has too many colons; write an IPv6 address in brackets, such as iface0:[fd00::1]"
    )]
    Brackets(String),
    /// What stands before the first colon.
    #[error("{0:?} is not an interface key; write a name such as iface0")]
    Iface(String),
}

/// A path list as it was read, and what was folded in it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ReadList {
    /// The list.
    pub list: PathList,
    /// Elements that stood there before, each as often as it was repeated.
    pub repeated: Vec<ListedPath>,
}

impl PathList {
    /// Reads comma-separated paths. Blanks around them and one comma or more at the end do no harm; a repetition is folded and told.
    ///
    /// # Errors
    /// See [`PathListError`].
    pub fn read(text: &str) -> Result<ReadList, PathListError> {
        let text = text
            .trim()
            .trim_end_matches(|c: char| c == ',' || c.is_whitespace());
        if text.is_empty() || text == UNSET {
            return Ok(ReadList::default());
        }
        let (mut paths, mut repeated) = (Vec::new(), Vec::new());
        for (index, element) in text.split(',').enumerate() {
            let path = element.trim().parse();
            let path: ListedPath = path.map_err(|source| PathListError::Element {
                position: index + 1,
                source,
            })?;
            if paths.contains(&path) {
                repeated.push(path);
            } else {
                paths.push(path);
            }
        }
        if paths.len() > MAX_OFFERS {
            return Err(PathListError::TooMany(paths.len()));
        }
        let list = Self::Listed(paths);
        Ok(ReadList { list, repeated })
    }

    /// The paths, none when the SAN's own portals are meant.
    #[must_use]
    pub fn listed(&self) -> &[ListedPath] {
        match self {
            Self::SanPortals => &[],
            Self::Listed(paths) => paths,
        }
    }
}

impl FromStr for PathList {
    type Err = PathListError;

    fn from_str(text: &str) -> Result<Self, PathListError> {
        Ok(Self::read(text)?.list)
    }
}

impl fmt::Display for PathList {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Listed(paths) = self else {
            return out.write_str(UNSET);
        };
        for (index, path) in paths.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{path}")?;
        }
        Ok(())
    }
}

impl FromStr for ListedPath {
    type Err = ElementError;

    /// `ADDRESS` or `IFACE:ADDRESS`. What could be both, such as `10.0.0.1:3260` or `san1:3260`, is an address with its port.
    fn from_str(text: &str) -> Result<Self, ElementError> {
        if text.is_empty() {
            return Err(ElementError::Empty);
        }
        if let Ok(portal) = text.parse() {
            let address = PathAddress::Portal(portal);
            return Ok(Self {
                iface: None,
                address,
            });
        }
        let (before, after) = match text.split_once(':') {
            None => ("", text),
            Some((_, port)) if is_number(port) => ("", text),
            Some((before, after)) => (before.trim(), after.trim()),
        };
        if after.is_empty() {
            return Err(ElementError::NoAddress(text.to_owned()));
        }
        let iface = match before {
            "" => None,
            key => Some(
                key.parse()
                    .map_err(|_| ElementError::Iface(key.to_owned()))?,
            ),
        };
        let address = match (before, after) {
            ("", after) => address(after.strip_prefix(':').unwrap_or(after))?,
            (_, after) => address(after)?,
        };
        Ok(Self { iface, address })
    }
}

/// An address with or without its port. IPv6 only in brackets: without them nobody can tell where an interface ends.
fn address(text: &str) -> Result<PathAddress, ElementError> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(ElementError::Brackets(text.to_owned()));
    }
    if let Ok(portal) = text.parse() {
        return Ok(PathAddress::Portal(portal));
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (text, ISCSI_PORT),
        Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
            return Err(ElementError::Brackets(text.to_owned()));
        }
        Some((host, port)) => {
            let number = port.parse().ok().filter(|port| *port != 0);
            let number = number.ok_or_else(|| ElementError::Port(port.to_owned()))?;
            (host, number)
        }
    };
    let host = host
        .parse()
        .map_err(|_| ElementError::Address(text.to_owned()))?;
    Ok(PathAddress::Name(host, port))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for ListedPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.iface {
            Some(iface) => write!(out, "{iface}:{}", self.address),
            None => self.address.fmt(out),
        }
    }
}

impl fmt::Display for PathAddress {
    /// Without the port where it is iSCSI's own, as operators write it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Portal(portal) if portal.port() != ISCSI_PORT => portal.fmt(out),
            Self::Portal(portal) if portal.address().is_ipv6() => {
                write!(out, "[{}]", portal.address())
            }
            Self::Portal(portal) => portal.address().fmt(out),
            Self::Name(host, ISCSI_PORT) => host.fmt(out),
            Self::Name(host, port) => write!(out, "{host}:{port}"),
        }
    }
}

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a host's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a host name")]
pub struct HostNameError(String);

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let fits = |label: &str| {
            let letters = label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            letters
                && !label.is_empty()
                && label.len() <= LONGEST_LABEL
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A last label of digits is a broken IPv4 address (RFC 3696 §2), and never a name.
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_address = is_number(last) || name.parse::<Ipv4Addr>().is_ok();
        if name.len() > LONGEST_HOST || is_address || !name.split('.').all(fits) {
            return Err(HostNameError(text.to_owned()));
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::chain;
    use proptest::prelude::*;

    /// A text, and how its list is printed or what its refusal says.
    const TEXTS: &[(&str, Result<&str, &str>)] = &[
        ("192.168.1.100", Ok("192.168.1.100")),
        (
            "iface0:192.168.1.100,iface1:192.168.1.101",
            Ok("iface0:192.168.1.100,iface1:192.168.1.101"),
        ),
        (
            "iface0:10.0.0.1, iface0:10.0.0.2 ",
            Ok("iface0:10.0.0.1,iface0:10.0.0.2"),
        ),
        (" iface 0 : 10.0.0.1", Ok("iface 0:10.0.0.1")),
        ("fd00::1", Ok("[fd00::1]")),
        ("iface0:[FD00:0::1]", Ok("iface0:[fd00::1]")),
        ("iface0:[fd00::1]:3261", Ok("iface0:[fd00::1]:3261")),
        (
            "iface0:fd00::1",
            Err(
                "element 1 of the path list: \"fd00::1\" has too many colons; write an IPv6 address in brackets",
            ),
        ),
        ("iface0:10.0.0.1:1:2", Err("has too many colons")),
        ("10.0.0.1:3260", Ok("10.0.0.1")),
        ("iface0:10.0.0.1:3261", Ok("iface0:10.0.0.1:3261")),
        ("san1", Ok("san1")),
        (
            "SAN1.local.,iface0:san-2.storage.example:3261",
            Ok("san1.local,iface0:san-2.storage.example:3261"),
        ),
        ("san1:3261", Ok("san1:3261")),
        ("", Ok("nopath")),
        ("  ", Ok("nopath")),
        ("nopath", Ok("nopath")),
        ("10.0.0.1,", Ok("10.0.0.1")),
        ("10.0.0.1,, ,", Ok("10.0.0.1")),
        (",10.0.0.1", Err("element 1 of the path list: it is empty")),
        (
            "10.0.0.1,,10.0.0.2",
            Err("element 2 of the path list: it is empty"),
        ),
        (":10.0.0.1", Ok("10.0.0.1")),
        (
            "iface0:",
            Err("\"iface0:\" has an interface and no address"),
        ),
        ("10.0.0.1,10.0.0.1:3260,10.0.0.2", Ok("10.0.0.1,10.0.0.2")),
        ("10.0.0", Err("\"10.0.0\" is not an address")),
        ("iface0:10.0.0.256", Err("\"10.0.0.256\" is not an address")),
        ("iface0:san1:0", Err("\"0\" is not a port")),
        ("iface0:san1:99999", Err("\"99999\" is not a port")),
        ("10.0.0.1:99999", Err("is not")),
        ("a=b:10.0.0.1", Err("\"a=b\" is not an interface key")),
        (
            "10.0.0.1,san one",
            Err("element 2 of the path list: \"san one\" is not an address"),
        ),
    ];

    /// Every row of what Eucalyptus' own reader did with a text, and what is made of it here.
    #[test]
    fn every_text_of_eucalyptus_is_read_or_refused_with_its_reason() {
        for (text, expected) in TEXTS {
            match (text.parse::<PathList>(), expected) {
                (Ok(list), Ok(printed)) => assert_eq!(list.to_string(), *printed, "{text:?}"),
                (Err(error), Err(part)) => {
                    let error = chain(&error);
                    assert!(error.contains(part), "{text:?}: {error}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_repetition_is_folded_and_told() {
        let read = PathList::read("iface0:10.0.0.1,10.0.0.1,iface0:10.0.0.1:3260").unwrap();
        assert_eq!(
            read.list.listed().len(),
            2,
            "another interface is another path"
        );
        assert_eq!(read.repeated, ["iface0:10.0.0.1".parse().unwrap()]);
    }

    #[test]
    fn more_paths_than_are_used_are_refused() {
        let list = |count: usize| {
            let all: Vec<String> = (1..=count).map(|it| format!("10.0.0.{it}")).collect();
            all.join(",").parse::<PathList>()
        };
        assert!(list(8).is_ok());
        assert_eq!(list(9), Err(PathListError::TooMany(9)));
    }

    fn any_path() -> impl Strategy<Value = ListedPath> {
        let portal = any::<(std::net::IpAddr, u16)>()
            .prop_map(|(at, port)| PathAddress::Portal(Portal::new(at, port.max(1))));
        let name = (
            "[a-z0-9]{1,8}(-[a-z0-9]{1,4})?(\\.[a-z]{2,5})?",
            1..=u16::MAX,
        )
            .prop_filter_map("a name", |(name, port)| {
                Some(PathAddress::Name(name.parse().ok()?, port))
            });
        let iface = proptest::option::of("[a-z][a-z0-9]{0,7}");
        (iface, prop_oneof![portal, name]).prop_map(|(iface, address)| ListedPath {
            iface: iface.map(|key| key.parse().unwrap()),
            address,
        })
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_printed(mut paths in proptest::collection::vec(any_path(), 1..8)) {
            let mut seen = std::collections::BTreeSet::new();
            paths.retain(|path| seen.insert(path.clone()));
            let list = PathList::Listed(paths);
            prop_assert_eq!(list.to_string().parse::<PathList>(), Ok(list));
        }

        #[test]
        fn blanks_and_a_comma_at_the_end_do_no_harm(paths in proptest::collection::vec(any_path(), 1..5)) {
            let text: Vec<String> = paths.iter().map(ToString::to_string).collect();
            let loose = format!(" {} ,", text.join(" ,\t"));
            prop_assert_eq!(loose.parse::<PathList>(), text.join(",").parse());
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"[\[\]0-9a-f:., \t]{0,60}|(if0:|[a-z0-9.:\[\]]{0,12},?){0,6}|.{0,40}") {
            if let Ok(list) = text.parse::<PathList>() {
                prop_assert_eq!(list.to_string().parse::<PathList>(), Ok(list));
            }
        }
    }
}
