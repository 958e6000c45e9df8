//! Names on an array that follow from others: a part for people, and a hash that makes them one of a kind.

use ring::digest::{SHA256, digest};

/// So much of what does not fit is shown.
const SHOWN: usize = 24;
/// RFC 4648 §6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What people may recognise it by, with a dash behind it if it is anything.
pub(super) fn shown(name: &str) -> String {
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
    let plain: String = name.chars().filter(is_plain).take(SHOWN).collect();
    if plain.is_empty() {
        plain
    } else {
        format!("{plain}-")
    }
}

/// 130 bits of their hash.
pub(super) fn hashed(parts: &[&str]) -> String {
    let whole = digest(&SHA256, parts.join("\0").as_bytes());
    let mut letters = String::new();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in &whole.as_ref()[..17] {
        held = (held << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 && letters.len() < 26 {
            bits -= 5;
            letters.push(char::from(BASE32[(held >> bits & 31) as usize]));
        }
    }
    letters
}
