//! What a partition's operator rules for its volumes, whatever the SAN would take.

use std::borrow::Cow;

/// The rules of one partition. Without any, the SAN alone decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `resourceprefix`: before the name of each volume on the SAN.
    pub prefix: String,
    /// `resourcesuffix`: after it.
    pub suffix: String,
    /// `maxvolumesizeingb`, in bytes: no volume is made or grown larger.
    pub max_volume: Option<u64>,
    /// `maxtotalvolumesizeingb`, in bytes: all volumes of the partition together.
    pub max_total: Option<u64>,
}

impl Rules {
    /// What a volume is called on the SAN.
    #[must_use]
    pub fn name_on_san(&self, name: &str) -> String {
        format!("{}{}{}", self.prefix, printable(name), self.suffix)
    }
}

/// How the names begin of what is called otherwise than it is called on the SAN.
const ENCODED: &str = "sanpath-encoded:";

/// The name without control characters. CSI lets a name have tabs and line breaks, which no SAN and no listing takes. Two names are never the same afterwards: what
/// begins as encoded is encoded, too, and the sign of what was encoded always is.
fn printable(name: &str) -> Cow<'_, str> {
    if !name.contains(char::is_control) && !name.starts_with(ENCODED) {
        return Cow::Borrowed(name);
    }
    let encoded = name.chars().map(|letter| {
        if letter == '%' || letter.is_control() {
            format!("%{:02X}", u32::from(letter))
        } else {
            letter.to_string()
        }
    });
    Cow::Owned([ENCODED.to_owned()].into_iter().chain(encoded).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn on_san(name: &str) -> String {
        Rules::default().name_on_san(name)
    }

    /// Names on the SAN find what was made before; so they stay what they are.
    #[test]
    fn names_are_on_the_san_as_they_are_unless_nothing_could_show_them() {
        for plain in ["pvc-1", "a%09b", "a b", "ä", "x sanpath-encoded:"] {
            assert_eq!(on_san(plain), plain);
        }
        assert_eq!(on_san("a\tb%\n"), "sanpath-encoded:a%09b%25%0A");
        assert_eq!(
            on_san("sanpath-encoded:a%09b"),
            "sanpath-encoded:sanpath-encoded:a%2509b"
        );
        let rules = Rules {
            prefix: "k-".to_owned(),
            ..Rules::default()
        };
        assert_eq!(rules.name_on_san("\r"), "k-sanpath-encoded:%0D");
    }

    proptest! {
        #[test]
        fn no_two_names_become_one_and_none_is_too_long(
            names in proptest::collection::btree_set("(sanpath-encoded:)?[ab%019\t\n\r]{1,6}", 2..40),
            long in "[\t\n%a]{128}",
        ) {
            let there: BTreeSet<String> = names.iter().map(|name| on_san(name)).collect();
            prop_assert_eq!(there.len(), names.len());
            prop_assert!(!there.iter().any(|name| name.contains(char::is_control)));
            prop_assert!(on_san(&long).len() <= 16 + 3 * 128);
        }
    }
}
