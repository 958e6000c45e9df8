//! One address of an iSCSI target.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The port that RFC 7143 assigns to iSCSI.
pub(super) const ISCSI_PORT: u16 = 3260;

/// An address and port where a target listens. Compared as values: `[FD00::1]:3260` and `fd00:0::1` are the same portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Portal(SocketAddr);

/// Why a text is not a portal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a portal; write 192.0.2.1, 192.0.2.1:3260, fd00::1 or [fd00::1]:3260")]
pub struct PortalError(pub String);

impl Portal {
    /// The portal at `address` and `port`.
    #[must_use]
    pub fn new(address: IpAddr, port: u16) -> Self {
        // An IPv4 address in IPv6 clothes is the IPv4 address: open-iscsi takes any text with a dot as IPv4.
        Self(SocketAddr::new(address.to_canonical(), port))
    }

    /// The IP address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0.ip()
    }

    /// The TCP port.
    #[must_use]
    pub fn port(self) -> u16 {
        self.0.port()
    }

    /// Where to connect.
    #[must_use]
    pub fn socket_address(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Portal {
    type Err = PortalError;

    fn from_str(text: &str) -> Result<Self, PortalError> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::new(address, ISCSI_PORT));
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => Ok(Self::new(socket.ip(), socket.port())),
            _ => Err(PortalError(text.to_owned())),
        }
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl From<Portal> for String {
    fn from(portal: Portal) -> Self {
        portal.to_string()
    }
}

impl TryFrom<String> for Portal {
    type Error = PortalError;

    fn try_from(text: String) -> Result<Self, PortalError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_portal_are_equal() {
        let six: Portal = "[fd00::1]:3260".parse().unwrap();
        for spelling in ["fd00::1", "[FD00:0:0::1]", "FD00::1"] {
            assert_eq!(spelling.parse::<Portal>().unwrap(), six, "{spelling}");
        }
        assert_eq!(six.to_string(), "[fd00::1]:3260");
        let four: Portal = "10.101.1.1".parse().unwrap();
        assert_eq!(four.to_string(), "10.101.1.1:3260");
        assert_eq!("[::ffff:10.101.1.1]:3260".parse::<Portal>().unwrap(), four);
    }

    #[test]
    fn what_is_not_a_portal_is_named() {
        for text in [
            "",
            "san1",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.1:99999",
            "10.0.0",
            "[fd00::1",
        ] {
            assert_eq!(text.parse::<Portal>(), Err(PortalError(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn every_portal_is_read_as_it_is_printed(address in any::<IpAddr>(), port in 1..=u16::MAX) {
            let portal = Portal::new(address, port);
            prop_assert_eq!(portal.to_string().parse::<Portal>(), Ok(portal));
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"[\[\]0-9a-fA-F:.%]{0,50}|.{0,40}") {
            if let Ok(portal) = text.parse::<Portal>() {
                prop_assert_eq!(portal.to_string().parse::<Portal>(), Ok(portal));
            }
        }
    }
}
