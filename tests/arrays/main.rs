//! Arrays that are managed over HTTP or by a program of their own: simulators, proven by clients that we did not write, and our families on them.
//!
//! `make arrays` installs those clients and runs this; it is no part of a plain `cargo test`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests; the clock and the programs are not a daemon's"
)]

#[path = "../conformance/mod.rs"]
mod conformance;
#[path = "../sanity/mod.rs"]
mod sanity;
#[allow(dead_code, reason = "each family has a use for another part of it")]
#[path = "../simulators/mod.rs"]
mod simulators;

mod equallogic;
mod equallogic_copies;
mod equallogic_disks;
mod equallogic_names;
mod foreign;
mod netapp;
mod ontap;
mod ontap_certificate;
mod ontap_chap;
mod ontap_flexvols;
mod policies;
mod sanity_tests;
mod server;
mod storops;
mod story;
mod unity;
mod vnx;
