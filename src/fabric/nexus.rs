//! Which session: SCSI calls it the I_T nexus.

use std::fmt;

use super::{Iqn, Netdev, Portal};

/// The one session that a login gives: to a target, at a portal, from an interface, under a name. The same target and portal from another interface, or under another
/// name, is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nexus {
    /// Where to log in.
    pub portal: Portal,
    /// The target there.
    pub iqn: Iqn,
    /// The interface of this machine that it is bound to; without one the routes decide.
    pub iface: Option<Netdev>,
    /// The initiator's name that it is logged in under; without one the machine's own.
    pub initiator: Option<Iqn>,
}

/// A portal and the interface to it, as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Place<'n> {
    portal: Portal,
    iface: Option<&'n Netdev>,
}

impl Nexus {
    /// `10.0.0.1:3260`, or `10.0.0.1:3260 through br0`.
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place {
            portal: self.portal,
            iface: self.iface.as_ref(),
        }
    }
}

impl fmt::Display for Nexus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} at {}", self.iqn, self.place())
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.portal.fmt(out)?;
        match self.iface {
            Some(iface) => write!(out, " through {iface}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_with_its_interface() {
        let unbound = Nexus {
            portal: "10.0.0.1".parse().unwrap(),
            iqn: "iqn.2026-11.dev.sanpath:t".parse().unwrap(),
            iface: None,
            initiator: None,
        };
        assert_eq!(
            unbound.to_string(),
            "iqn.2026-11.dev.sanpath:t at 10.0.0.1:3260"
        );
        let bound = Nexus {
            iface: "eth0.100".parse().ok(),
            ..unbound
        };
        assert_eq!(bound.place().to_string(), "10.0.0.1:3260 through eth0.100");
    }
}
