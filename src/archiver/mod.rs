//! The archiver: a node with an object store. A controller gives it exports; it carries what they show to an archive, or fills them from one.
//!
//! | File | What it holds |
//! |---|---|
//! | `job` | one piece of work as it is kept: durable before anything is attached, until nothing is attached any more |
//! | `works` | all of them: begun, found, forgotten, taken up again after a crash |
//! | `labour` | one of them under way: from an export to an end |
//! | `shelves` | what archives hold, as a controller asks |
//! | `server`, `client` | both ends of `proto/archiver.proto`; `fleet` knows all archivers |
//!
//! The invariants: an archiver never has a right on a SAN, and knows of no volume but by an export; a work is known by the WWID of its export, so it is begun once
//! however often it is asked for; what is told to be done or failed is attached nowhere here.

mod client;
mod error;
mod fleet;
mod job;
mod labour;
mod server;
mod shelves;
mod works;

pub use client::{ArchiverError, Introduced, Link, Order, Told};
pub use error::WorkError;
pub use fleet::{Archivers, Settings};
pub use job::{End, Job, Kind};
pub use server::{Identity, Management, ServeError, serve};
pub use shelves::{Archived, Look};
pub use works::{Means, OpenStore, Standing, State, StoreOf, Ways, WaysOf, Works, partition_of};
