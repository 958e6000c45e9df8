//! The one network plan of the lab, the same inside one guest and across a fleet: a management link and one link per path,
//! each a subnet of its own. Cases ask here instead of writing addresses down.

/// How many paths lead from a node to a SAN.
pub const PATHS: u8 = 2;

/// The namespace that holds the SAN when it shares a guest with the node.
pub const SAN_NAMESPACE: &str = "san";

/// Path 0 is the management link, 1 and up carry data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(pub u8);

/// The management link and every path.
pub fn links() -> impl Iterator<Item = Link> {
    (0..=PATHS).map(Link)
}

/// The data paths only.
pub fn paths() -> impl Iterator<Item = Link> {
    (1..=PATHS).map(Link)
}

impl Link {
    pub const MANAGEMENT: Link = Link(0);

    /// The network card's name on a node.
    pub fn name(self) -> String {
        if self == Link::MANAGEMENT {
            "mgmt".to_owned()
        } else {
            format!("path{}", self.0)
        }
    }

    /// The same wire's other end, as the SAN calls it where both live in one guest.
    pub fn san_name(self) -> String {
        format!("san-{}", self.name())
    }

    /// The address of SAN `san` (counted from 1) on this link.
    pub fn san_address(self, san: u8) -> String {
        let host = if san == 1 { 1 } else { 100 + san };
        format!("10.{}.1.{host}", 100 + self.0)
    }

    /// The address of node `node` (counted from 1) on this link.
    pub fn node_address(self, node: u8) -> String {
        format!("10.{}.1.{}", 100 + self.0, node + 1)
    }
}
