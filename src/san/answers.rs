//! The readers of arrays' answers, as one function over bytes: for whoever tries them with what no array says.

use crate::volume::Family;

/// Whether the readers of that family make anything of `bytes`, taken for an answer of an array. They must not panic, and never take a refusal for what was asked.
#[must_use]
pub fn reads(family: Family, bytes: &[u8]) -> bool {
    match family {
        Family::Linux | Family::Static => false,
        Family::Ontap => super::ontap::reads(bytes),
        Family::Unity => super::unity::reads(bytes),
        Family::Vnx => super::vnx::reads(bytes),
        Family::Equallogic => super::equallogic::reads(bytes),
    }
}
