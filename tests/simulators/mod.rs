//! Arrays that we do not have, as far as their management shows: stateful, on loopback, and able to fail in every way that a driver must survive.
//!
//! What a simulator does counts only after a client that we did not write has exercised it (`tests/arrays/foreign/`); our own driver comes after.

pub mod backing;
pub mod equallogic;
pub mod http;
pub mod ontap;
pub mod unity;
pub mod vnx;
