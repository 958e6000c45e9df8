//! A snapshot out of the archive, every chunk proven before a byte of it is written.

use super::catalogue::find_snapshot;
use super::chunk::open_hashed;
use super::cipher::digest_of;
use super::error::ArchiveError;
use super::manifest::{Held, Manifest};
use super::names::SnapshotName;
use super::open_archive::{OpenArchive, Progress, Tally};
use super::source::Target;
use super::upload::stored;

/// What is zeros in a chunk is left out in pieces of this length.
const PIECE: usize = 64 << 10;
/// Zeros for targets that hold something else.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// The manifest of `snapshot`.
///
/// # Errors
/// See [`ArchiveError`]; `NoSnapshot` when there is none.
pub fn need_snapshot(
    archive: &OpenArchive<'_>,
    snapshot: &SnapshotName,
) -> Result<Manifest, ArchiveError> {
    let found = find_snapshot(archive.objects, snapshot)?;
    found.ok_or_else(|| ArchiveError::NoSnapshot(snapshot.clone()))
}

/// Fills `target` with what `manifest` names. A larger target is zeros past it.
///
/// # Errors
/// See [`ArchiveError`]. Nothing is written when the target is too small or an object is missing or of another length; after any other error it is incomplete and must not be
/// used. What was written is proven, so a repetition may write it again.
pub fn restore(
    archive: &OpenArchive<'_>,
    manifest: &Manifest,
    target: &dyn Target,
) -> Result<Progress, ArchiveError> {
    let about = &manifest.about;
    if target.size() < about.size {
        return Err(ArchiveError::TooSmall {
            needed: about.size,
            found: target.size(),
        });
    }
    need_all(archive, manifest)?;
    let total = manifest.chunks.iter();
    let total = total.map(|held| about.length_at(held.index)).sum();
    let tally = Tally::new(total, archive.notice);
    archive.for_each(manifest.chunks.iter(), |held| {
        let (plain, moved) = fetch(archive, manifest, held)?;
        fill(target, held.index * about.chunk_bytes, &plain)?;
        tally.add(plain.len() as u64, moved);
        Ok(())
    })?;
    if !target.is_blank() {
        blank(manifest, target)?;
    }
    target.finish().map_err(ArchiveError::Sync)?;
    Ok(tally.now())
}

/// Fetches and proves every chunk of `manifest`.
///
/// # Errors
/// See [`ArchiveError`]; it names the first object that is wrong.
pub fn verify(archive: &OpenArchive<'_>, manifest: &Manifest) -> Result<Progress, ArchiveError> {
    need_all(archive, manifest)?;
    let lengths = manifest.chunks.iter();
    let total = lengths
        .map(|held| manifest.about.length_at(held.index))
        .sum();
    let tally = Tally::new(total, archive.notice);
    archive.for_each(manifest.chunks.iter(), |held| {
        let (plain, moved) = fetch(archive, manifest, held)?;
        tally.add(plain.len() as u64, moved);
        Ok(())
    })?;
    Ok(tally.now())
}

/// Looks for every chunk, so that what is not whole is found before anything is written.
fn need_all(archive: &OpenArchive<'_>, manifest: &Manifest) -> Result<(), ArchiveError> {
    let there = stored(archive, manifest, false)?;
    let missing = manifest.chunks.iter();
    let mut missing = missing.filter(|held| !there.contains_key(&held.key));
    match missing.next() {
        Some(held) => Err(ArchiveError::Missing(held.key.name())),
        None => Ok(()),
    }
}

/// The bytes of a chunk, and how long its object is.
fn fetch(
    archive: &OpenArchive<'_>,
    manifest: &Manifest,
    held: &Held,
) -> Result<(Vec<u8>, usize), ArchiveError> {
    let object = held.key.name();
    archive.wait_for_turn(usize::try_from(held.stored).unwrap_or(usize::MAX));
    let content = archive.objects.find(&object)?;
    let content = content.ok_or_else(|| ArchiveError::Missing(object.clone()))?;
    let length = manifest.about.length_at(held.index);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let hash = |plain: &[u8]| digest_of(archive.objects, plain);
    let plain = open_hashed(&content, &held.key.digest, length, hash)
        .map_err(|source| ArchiveError::Chunk { object, source })?;
    Ok((plain, content.len()))
}

fn fill(target: &dyn Target, offset: u64, plain: &[u8]) -> Result<(), ArchiveError> {
    let is_left_out = |piece: &[u8]| target.is_blank() && *piece == ZEROS[..piece.len()];
    let mut at = 0;
    // Neighbours that are written go in one write.
    while at < plain.len() {
        let mut pieces = plain[at..].chunks(PIECE);
        let zeros: usize = pieces
            .by_ref()
            .take_while(|piece| is_left_out(piece))
            .map(<[u8]>::len)
            .sum();
        at += zeros;
        let pieces = plain[at..].chunks(PIECE);
        let length: usize = pieces
            .take_while(|piece| !is_left_out(piece))
            .map(<[u8]>::len)
            .sum();
        write(target, offset + at as u64, &plain[at..at + length])?;
        at += length;
    }
    Ok(())
}

/// Writes zeros wherever no chunk is.
fn blank(manifest: &Manifest, target: &dyn Target) -> Result<(), ArchiveError> {
    let mut at = 0;
    for held in &manifest.chunks {
        let offset = held.index * manifest.about.chunk_bytes;
        zero(target, at, offset)?;
        at = offset + manifest.about.length_at(held.index);
    }
    zero(target, at, target.size())
}

fn zero(target: &dyn Target, mut at: u64, end: u64) -> Result<(), ArchiveError> {
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        write(target, at, &ZEROS[..length])?;
        at += length as u64;
    }
    Ok(())
}

fn write(target: &dyn Target, offset: u64, bytes: &[u8]) -> Result<(), ArchiveError> {
    if bytes.is_empty() {
        return Ok(());
    }
    target
        .write(offset, bytes)
        .map_err(|source| ArchiveError::Write {
            offset,
            length: bytes.len(),
            source,
        })
}
