//! An object store in memory for tests, with a clock that is set, and processes that end in the middle of a call.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::open_archive::{OpenArchive, lock};
use super::source::{Run, Source, Target};
use super::store::{Listed, Objects, Put, StoreError};

/// How long chunks are in tests.
pub(super) const SMALL: u64 = 4096;

/// The store.
#[derive(Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Vec<u8>, SystemTimeSeconds)>,
    now: SystemTimeSeconds,
    calls: u64,
    /// How many more calls are answered, and whether the one after them is still done.
    ends: Option<(u64, bool)>,
}

type SystemTimeSeconds = u64;

impl Memory {
    pub(super) fn names(&self) -> Vec<String> {
        lock(&self.0).objects.keys().cloned().collect()
    }

    pub(super) fn count(&self, root: &str) -> usize {
        let root = format!("{root}/");
        let names = self.names();
        names.iter().filter(|name| name.starts_with(&root)).count()
    }

    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let state = lock(&self.0);
        state.objects.get(name).map(|(content, _)| content.clone())
    }

    /// What no process of ours does.
    pub(super) fn overwrite(&self, name: &str, content: Vec<u8>) {
        let mut state = lock(&self.0);
        let now = state.now;
        state.objects.insert(name.to_owned(), (content, now));
    }

    pub(super) fn later(&self, span: Duration) {
        lock(&self.0).now += span.as_secs();
    }

    pub(super) fn earlier(&self, span: Duration) {
        lock(&self.0).now -= span.as_secs();
    }

    pub(super) fn calls(&self) -> u64 {
        lock(&self.0).calls
    }

    /// The process ends in its call number `calls`, before it is done or after.
    pub(super) fn end_after(&self, calls: u64, is_done: bool) {
        lock(&self.0).ends = Some((calls, is_done));
    }

    /// Another process begins.
    pub(super) fn restart(&self) {
        lock(&self.0).ends = None;
    }

    fn call<T>(&self, work: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let mut state = lock(&self.0);
        state.calls += 1;
        match state.ends {
            None => {}
            Some((0, is_done)) => {
                state.ends = Some((0, false));
                if is_done {
                    work(&mut state);
                }
                return Err(StoreError::Crashed);
            }
            Some((left, is_done)) => state.ends = Some((left - 1, is_done)),
        }
        Ok(work(&mut state))
    }
}

impl Objects for Memory {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        self.call(|state| {
            let now = state.now;
            match state.objects.contains_key(name) {
                true => Put::WasThere,
                false => {
                    state.objects.insert(name.to_owned(), (content, now));
                    Put::Made
                }
            }
        })
    }

    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(|state| state.objects.get(name).map(|(content, _)| content.clone()))
    }

    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        let folder = format!("{under}/");
        let found = self.call(|state| {
            let below = state.objects.iter();
            let below = below.filter(|(name, _)| name.starts_with(&folder));
            let listed = below.map(|(name, (content, at))| Listed {
                name: name.clone(),
                size: content.len() as u64,
                modified: SystemTime::UNIX_EPOCH + Duration::from_secs(*at),
            });
            listed.collect::<Vec<_>>()
        })?;
        found.into_iter().all(show);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.call(|state| {
            state.objects.remove(name);
        })
    }
}

/// An archive in `objects` with small chunks and one thread.
pub(super) fn opened(objects: &dyn Objects) -> OpenArchive<'_> {
    OpenArchive {
        objects,
        chunk_bytes: SMALL,
        transfers: 1,
        pace: None,
        notice: &|_| {},
    }
}

/// A volume in memory.
pub(super) struct Volume(pub(super) Mutex<Vec<u8>>);

impl Volume {
    pub(super) fn new(content: Vec<u8>) -> Self {
        Self(Mutex::new(content))
    }

    /// Of so many chunks, each of them all of one letter; `.` is zeros.
    pub(super) fn of(letters: &str) -> Self {
        let chunk = |letter: u8| vec![if letter == b'.' { 0 } else { letter }; 4096];
        Self::new(letters.bytes().flat_map(chunk).collect())
    }

    pub(super) fn content(&self) -> Vec<u8> {
        lock(&self.0).clone()
    }

    pub(super) fn all(&self) -> Vec<Run> {
        vec![Run {
            offset: 0,
            length: Source::size(self),
        }]
    }
}

impl Source for Volume {
    fn size(&self) -> u64 {
        lock(&self.0).len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        into.copy_from_slice(&lock(&self.0)[at..at + into.len()]);
        Ok(())
    }
}

impl Target for Volume {
    fn size(&self) -> u64 {
        Source::size(self)
    }

    fn is_blank(&self) -> bool {
        false
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        lock(&self.0)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self) -> std::io::Result<()> {
        Ok(())
    }
}
