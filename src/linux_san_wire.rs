//! The generated code of `proto/linux_san.proto`: all that `san/` and `linux_san/` share, so that either could be replaced.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    rustdoc::all,
    reason = "generated code; its shape is the generator's"
)]

include!(concat!(env!("OUT_DIR"), "/linux_san.v1.rs"));
