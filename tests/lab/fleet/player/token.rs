//! What a pod leaves on its volume for the next one to find: a block that says by its content who wrote it, with a checksum of its own.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use crate::kit::csi::Access;
use crate::kit::dice::Dice;

const BLOCK: usize = 16 * 1024;

/// Who wrote it, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub by: String,
    pub number: u64,
}

impl Token {
    /// Words of its own, and at the end their sum.
    fn content(&self) -> Vec<u8> {
        let seed = sum_of(self.by.as_bytes()) ^ self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Dice::new(seed);
        let words = BLOCK / 8 - 1;
        let mut bytes: Vec<u8> = (0..words).flat_map(|_| dice.next().to_le_bytes()).collect();
        bytes.extend(sum_of(&bytes).to_le_bytes());
        bytes
    }
}

fn sum_of(bytes: &[u8]) -> u64 {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// The file or device of a token, and where in it.
fn place(claim: &Claim, number: u64) -> (PathBuf, u64) {
    match claim.access {
        Access::Block => (claim.target(), number * BLOCK as u64),
        _ => (claim.target().join(format!("token-{number}")), 0),
    }
}

/// Writes one, all the way to the SAN.
pub fn write(claim: &Claim, token: &Token) -> Result<()> {
    let (path, offset) = place(claim, token.number);
    let is_file = claim.access != Access::Block;
    let file = OpenOptions::new()
        .write(true)
        .create(is_file)
        .truncate(false)
        .open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    file.write_all_at(&token.content(), offset)?;
    file.sync_all()
        .with_context(|| format!("{} to the disk", path.display()))?;
    if is_file {
        File::open(claim.target())?.sync_all()?;
    }
    Ok(())
}

/// Reads every one that should be there, from the SAN.
pub fn verify_all(claim: &Claim) -> Result<()> {
    fs::write(Path::new("/proc/sys/vm/drop_caches"), "3").context("dropping caches")?;
    for token in &claim.tokens {
        let (path, offset) = place(claim, token.number);
        let file = File::open(&path).with_context(|| format!("{}: {token:?}", claim.name))?;
        let mut found = vec![0; BLOCK];
        file.read_exact_at(&mut found, offset)
            .with_context(|| format!("reading {token:?} of {}", claim.name))?;
        let (words, sum) = found.split_at(BLOCK - 8);
        ensure!(
            sum_of(words).to_le_bytes() == sum,
            "{token:?} of {} is spoilt",
            claim.name
        );
        ensure!(
            found == token.content(),
            "{}: something else is where {token:?} was",
            claim.name
        );
    }
    Ok(())
}
