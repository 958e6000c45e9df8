//! The CSI wire: parses requests into our own nouns, calls the workflow, builds the reply.

#[cfg(test)]
mod block_tests;
mod blocks;
mod controller;
#[cfg(test)]
mod controller_health_tests;
mod controller_parse;
#[cfg(test)]
mod controller_tests;
mod group;
mod health;
mod identity;
mod node;
mod node_requests;
#[cfg(test)]
mod node_tests;
pub mod parse;
#[cfg(test)]
mod promise_tests;
pub mod proto;
#[cfg(test)]
mod secret_tests;
mod server;
#[cfg(test)]
mod snapshot_tests;
mod snapshots;
#[cfg(test)]
mod span_tests;
mod topology;
mod usage;

pub use controller::ControllerService;
pub use identity::{Identity, NameError};
pub use node::NodeService;
pub use server::{ServeError, serve_controller, serve_node, socket_path};
pub use topology::TopologyKeys;
