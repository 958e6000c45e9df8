//! What must hold for the whole product and needs neither a guest nor a SAN: the CSI wire, what may be printed, who may call
//! whom in `src/`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its own fixture has to fail"
)]

mod arrows;
mod docs;
mod faults;
mod fuzz;
mod house;
mod manifests;
mod metrics;
mod node_config;
mod program;
mod properties;
mod reference;
mod secrets;
mod source;
mod wire_facts;
