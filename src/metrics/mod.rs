//! Numbers by which a daemon is watched, in the text that Prometheus reads.
//!
//! `csi` counts its calls in [`Calls`]; how things stand is asked of a [`Gauges`] at each scrape, and a [`Board`] takes what it says. `daemon` puts both
//! behind one page. The invariant: a scrape changes nothing, answers in a bounded time whatever hangs, and never starts a second look while one hangs.

mod board;
mod calls;
mod page;

pub use board::Board;
pub use calls::{Calls, CountCalls};
pub use page::{Gauges, PageError, serve};
