//! What a device holds, making a file system on a blank one, repairing one that was not cleanly unmounted, growing and trimming a mounted one.
//!
//! Called by `node/`, with a multipath map whose identity was just proven. The invariant: looking never writes, and only what was read in
//! full and found to be zero counts as blank.

mod check;
mod grow;
mod kinds;
mod make;
mod probe;
mod trim;
mod twin;

pub use check::{CheckError, repair};
pub use grow::{GrowError, Mounted, grow};
pub use kinds::Kind;
pub use make::{MakeError, Plan, Protection, make};
pub use probe::{Content, ProbeError, probe};
pub use trim::{TrimError, trim};
pub use twin::{TwinError, refuse_twin};
