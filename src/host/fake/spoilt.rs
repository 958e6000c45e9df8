//! Files as a failing disk or a careless hand leaves them.

use proptest::prelude::*;

/// A real file with a few bytes changed; the same seed of proptest changes the same ones.
pub fn spoilt(real: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>());
    proptest::collection::vec(edit, 1..5).prop_map(move |edits| {
        let mut bytes = real.to_vec();
        for (at, byte) in edits {
            bytes[at.index(real.len())] = byte;
        }
        bytes
    })
}
