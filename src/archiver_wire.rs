//! The generated code of `proto/archiver.proto`: both ends of it are in `archiver/`.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    rustdoc::all,
    reason = "generated code; its shape is the generator's"
)]

include!(concat!(env!("OUT_DIR"), "/archiver.v1.rs"));
