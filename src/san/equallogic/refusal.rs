//! What the words of a refusal mean: the command line has no codes.

use crate::fault::Fault;

/// The words, and what they mean; the first that fits. What none fits is a state that forbids it.
const MEANINGS: &[(&str, Fault)] = &[
    ("does not exist", Fault::NotFound),
    ("not found", Fault::NotFound),
    ("already exists", Fault::Conflict),
    ("already in use", Fault::Conflict),
    ("not enough", Fault::Exhausted),
    ("insufficient", Fault::Exhausted),
    ("exceed", Fault::Exhausted),
    ("permission", Fault::Denied),
    ("in progress", Fault::Busy),
    ("try again", Fault::Busy),
];

/// What a refusal means.
pub(super) fn fault(refusal: &str) -> Fault {
    let lower = refusal.to_lowercase();
    let found = MEANINGS.iter().find(|(words, _)| lower.contains(words));
    found.map_or(Fault::Precondition, |(_, fault)| *fault)
}

/// Without the mark that it is one.
pub(super) fn said(refusal: &str) -> String {
    let words = refusal
        .trim_start_matches("% Error")
        .trim_start_matches("Error:");
    words.trim_start_matches([' ', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_say_the_class() {
        for (text, class) in [
            ("% Error - Volume x does not exist.", Fault::NotFound),
            (
                "Error: a volume of this name already exists",
                Fault::Conflict,
            ),
            ("% Error - Not enough free space in pool", Fault::Exhausted),
            ("% Error - Volume is online", Fault::Precondition),
        ] {
            assert_eq!(fault(text), class, "{text}");
        }
        assert_eq!(said("% Error - Volume is online"), "Volume is online");
    }
}
