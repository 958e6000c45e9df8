//! `csi.v1` as generated from `proto/csi.proto`: messages, servers, clients. Only `csi/` names these types.
//!
//! The invariant: no `{:?}` of any of them prints a secret or a mount flag; the build script writes the `Debug` of each
//! message that holds one.

#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    rustdoc::all,
    reason = "generated code; its shape is the generator's"
)]

include!(concat!(env!("OUT_DIR"), "/csi.v1.rs"));
