//! A record of the state that copies of the state share, with its text in the file.
//!
//! Each change of the state is made on a copy and the file is written whole, so without this a change of one volume would copy, compare and put into words every
//! other one too. The state's maps hold their records so.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error, Serialize, Serializer};
use serde_json::value::RawValue;

/// Every record stands this deep in the file: in a map that is a field of the state.
const INDENT: &str = "\n    ";

/// A record. It is read as the record itself; whoever changes it has a copy of his own.
#[derive(Debug)]
pub(super) struct Kept<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    record: T,
    /// As it stands in the file; made when it is first written.
    text: OnceLock<Box<RawValue>>,
}

impl<T> From<T> for Kept<T> {
    fn from(record: T) -> Self {
        Self(Arc::new(Inner {
            record,
            text: OnceLock::new(),
        }))
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What is changed next has no text yet.
impl<T: Clone> Clone for Inner<T> {
    fn clone(&self) -> Self {
        Self {
            record: self.record.clone(),
            text: OnceLock::new(),
        }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.record
    }
}

impl<T: Clone> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        let inner = Arc::make_mut(&mut self.0);
        inner.text.take();
        &mut inner.record
    }
}

impl<T: PartialEq> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.record == other.0.record
    }
}

impl<T: Eq> Eq for Kept<T> {}

impl<T: Serialize> Serialize for Kept<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = self.0.text.get() {
            return text.serialize(serializer);
        }
        let text = serde_json::to_string_pretty(&self.0.record).map_err(S::Error::custom)?;
        // JSON has no line end within a value.
        let text = RawValue::from_string(text.replace('\n', INDENT)).map_err(S::Error::custom)?;
        self.0.text.get_or_init(|| text).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Kept<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_changed_record_has_its_own_text_and_its_copies_keep_theirs() {
        type Record = BTreeMap<String, u64>;
        let of = |number| Record::from([("a\nb".to_owned(), number)]);
        let mut state = BTreeMap::from([("map", BTreeMap::from([("key", Kept::from(of(1)))]))]);
        let plain = |number| BTreeMap::from([("map", BTreeMap::from([("key", of(number))]))]);
        let told = |state: &_| serde_json::to_string_pretty(state).unwrap();
        assert_eq!(
            told(&state),
            serde_json::to_string_pretty(&plain(1)).unwrap()
        );
        let before = state.clone();
        assert_eq!(state, before);
        *state
            .get_mut("map")
            .unwrap()
            .get_mut("key")
            .unwrap()
            .get_mut("a\nb")
            .unwrap() = 2;
        assert_ne!(state, before);
        for (state, number) in [(state, 2), (before, 1)] {
            let wanted = serde_json::to_string_pretty(&plain(number)).unwrap();
            assert_eq!(told(&state), wanted);
            let read: BTreeMap<&str, BTreeMap<&str, Kept<Record>>> =
                serde_json::from_str(&wanted).unwrap();
            assert_eq!(read, state);
        }
    }
}
