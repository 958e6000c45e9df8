//! The local socket of a running daemon: what an operator's command asks it, and what it answers.
//!
//! `daemon` serves it and puts a [`Desk`] behind it; `cli` asks. One line of JSON each way, then the connection ends. The invariant: a request that is
//! not understood to its last field is refused, never guessed at, since some of them give up data. Only root may connect.

mod client;
mod server;
mod wire;

pub use client::{AskError, ask};
pub use server::{Desk, MODE, serve};
pub use wire::{
    AddressRow, Answer, ExportRow, FailedPath, FailureRow, PathShown, PathsShown, Question,
    SanVolumeRow, SanhostRow, TroubleRow, VolumePathsRow, VolumeRow, WorkRow,
};

use std::path::{Path, PathBuf};

/// The socket of the node daemon in its runtime directory.
#[must_use]
pub fn node_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("node.sock")
}

/// The socket of the controller daemon in its runtime directory.
#[must_use]
pub fn controller_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("controller.sock")
}

/// The socket of the archiver daemon in its runtime directory.
#[must_use]
pub fn archiver_socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("archiver.sock")
}
