//! Snapshots in an object store: carried there, brought back, and thrown away with nothing lost.
//!
//! | File | What it holds |
//! |---|---|
//! | `names` | the names of objects |
//! | `chunk` | one chunk as an object |
//! | `manifest` | what a snapshot consists of |
//! | `cipher` | the same in an archive with a key |
//! | `store` | what is asked of an object store; `bucket` asks a real one |
//! | `open_archive` | an archive in use: how many chunks at a time, how fast |
//! | `catalogue` | which snapshots an archive holds |
//! | `source` | what is read and what is filled: images, devices |
//! | `upload`, `restore` | one snapshot there and back; `known`: what of it is there already |
//! | `collect` | deleting, and taking away what nobody refers to |
//!
//! `docs/archives.md` is the format and the protocol of deletion, for readers that have nothing of ours. The invariants: an object is made whole and never
//! changed; the name of a chunk is used once and never again; a manifest is the last object of its snapshot, put only when every chunk of it was seen
//! beside it and none was condemned. All calls block and run on plain threads.

#[cfg(test)]
mod bench;
mod bucket;
#[cfg(test)]
mod bucket_tests;
mod catalogue;
mod chunk;
mod cipher;
#[cfg(test)]
mod cipher_tests;
mod collect;
mod error;
mod known;
mod manifest;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod moment_tests;
mod names;
mod open_archive;
#[cfg(test)]
mod race_tests;
mod restore;
#[cfg(test)]
mod s3_tests;
mod source;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turns_tests;
mod upload;

pub use bucket::{Bucket, OpenError, Store, read_cipher};
pub use catalogue::{Catalogue, Entry, find_snapshot, remove_snapshot, snapshots};
pub use chunk::{ChunkError, open, seal};
pub use cipher::{Cipher, Locked};
pub use collect::{Patience, Pruned, prune};
pub use error::ArchiveError;
pub use manifest::{About, Held, Manifest, ManifestError};
pub use names::{ChunkKey, Digest, NameError, SnapshotName, Writer};
pub use open_archive::{OpenArchive, Pace, Progress};
pub use restore::{need_snapshot, restore, verify};
pub use source::{OpenImage, Run, Source, Target};
pub use store::{CHUNK_BYTES, Listed, Objects, Put, StoreError, ensure_archive, find_archive};
pub use upload::{Job, Runs, Uploaded, upload};
