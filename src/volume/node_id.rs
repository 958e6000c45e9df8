//! The node id: the node's name and its initiator's IQN.

use std::fmt;

use crate::fabric::Iqn;

/// Older API servers accept 192 bytes.
const MAX_BYTES: usize = 192;

/// A node as the orchestrator hands it from the node plugin to the controller, `NAME/IQN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The node's name, unique in the cluster.
    pub name: String,
    /// Its initiator.
    pub initiator: Iqn,
}

/// Why a node cannot have an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodeIdError {
    /// The name is empty or holds a slash, a blank or a control character.
    #[error("{0:?} is not a node name")]
    Name(String),
    /// The two together are too long.
    #[error("the node id {0:?} is longer than {MAX_BYTES} bytes; shorten the initiator name")]
    Length(String),
}

impl NodeId {
    /// The id of the node `name` with `initiator`.
    ///
    /// # Errors
    /// See [`NodeIdError`].
    pub fn new(name: &str, initiator: Iqn) -> Result<Self, NodeIdError> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
            return Err(NodeIdError::Name(name.to_owned()));
        }
        let id = Self {
            name: name.to_owned(),
            initiator,
        };
        let text = id.to_string();
        if text.len() > MAX_BYTES {
            Err(NodeIdError::Length(text))
        } else {
            Ok(id)
        }
    }

    /// Reads an id that we issued; any other names no node.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let (name, initiator) = text.split_once('/')?;
        Self::new(name, initiator.parse().ok()?).ok()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.name, self.initiator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_as_it_was() {
        let text = "node-1/iqn.1993-08.org.debian:01:abc";
        assert_eq!(NodeId::find(text).unwrap().to_string(), text);
        assert_eq!(NodeId::find("fake-node-id"), None);
        assert_eq!(NodeId::find("/iqn.1993-08.org.debian:01:abc"), None);
    }

    #[test]
    fn a_long_id_is_refused_at_start() {
        let iqn: Iqn = format!("iqn.{}", "a".repeat(200)).parse().unwrap();
        assert!(matches!(NodeId::new("n", iqn), Err(NodeIdError::Length(_))));
    }
}
