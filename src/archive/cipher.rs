//! What an archive with a key looks like from outside: chunks named after a keyed hash, and each chunk and manifest in an envelope of AES-256-GCM.
//! `docs/archives.md`, "With a key", is the same for readers that have nothing of ours.

use std::sync::atomic::{AtomicU64, Ordering};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

use super::manifest::Manifest;
use super::names::{CHUNKS, Digest, MANIFESTS, PENDING, Writer};
use super::store::{Listed, Objects, Put, StoreError};
use crate::fabric::Secret;

/// The envelope's first bytes.
const MAGIC: &[u8] = b"SPE1";
const NONCE: usize = 12;
const TAG: usize = 16;
/// Before what is sealed.
const HEAD: usize = MAGIC.len() + NONCE;
/// What an envelope adds.
const ADDED: u64 = (HEAD + TAG) as u64;

/// The key of an archive, made into what it is used for. Shows nothing of itself.
pub struct Cipher {
    names: hmac::Key,
    objects: hmac::Key,
    check: Digest,
    /// How many objects were sealed: each of them has a nonce of its own.
    sealed: AtomicU64,
}

impl Cipher {
    /// Of a key of 64 lower-case hexadecimal digits; `None` when it is none.
    #[must_use]
    pub fn find(key: &Secret) -> Option<Self> {
        let key = Digest::find(key.expose())?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.bytes());
        let derived = |purpose: &str| hmac::sign(&key, purpose.as_bytes());
        let made = |tag: hmac::Tag| hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        Some(Self {
            names: made(derived("sanpath-archive-2 names")),
            objects: made(derived("sanpath-archive-2 objects")),
            check: Digest::from_tag(&derived("sanpath-archive-2 check")),
            sealed: AtomicU64::new(0),
        })
    }

    /// What tells this key from others and nothing of it.
    #[must_use]
    pub fn check(&self) -> Digest {
        self.check
    }

    fn digest(&self, plain: &[u8]) -> Digest {
        Digest::from_tag(&hmac::sign(&self.names, plain))
    }

    /// A writer is one round of one upload and never comes again: nobody else ever seals with the key of its own.
    fn key_of(&self, writer: Writer) -> Option<LessSafeKey> {
        let key = hmac::sign(&self.objects, writer.to_string().as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref());
        key.ok().map(LessSafeKey::new)
    }

    fn seal(&self, name: &str, content: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let Some((writer, place)) = sealed_place(name) else {
            return Ok(content);
        };
        // It says nothing but that there is nothing; and who makes it is not the writer.
        if content == Manifest::revocation() {
            return Ok(content);
        }
        let mut nonce = [0; NONCE];
        let number = self.sealed.fetch_add(1, Ordering::Relaxed);
        nonce[NONCE - 8..].copy_from_slice(&number.to_be_bytes());
        let mut body = content;
        let key = self.key_of(writer);
        let key = key.ok_or_else(|| StoreError::Spoilt(name.to_owned()))?;
        let aad = Aad::from(place.as_bytes());
        let nonce_of = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce_of, aad, &mut body)
            .map_err(|_| StoreError::Spoilt(name.to_owned()))?;
        Ok([MAGIC, &nonce, &body].concat())
    }

    fn open(&self, name: &str, object: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let Some((writer, place)) = sealed_place(name) else {
            return Ok(object);
        };
        if object == Manifest::revocation() {
            return Ok(object);
        }
        self.opened(writer, &place, object)
            .ok_or_else(|| StoreError::Spoilt(name.to_owned()))
    }

    fn opened(&self, writer: Writer, place: &str, mut object: Vec<u8>) -> Option<Vec<u8>> {
        let (head, body) = object.split_at_mut_checked(HEAD)?;
        let nonce = head.strip_prefix(MAGIC)?.try_into().ok()?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.key_of(writer)?;
        let plain = key.open_in_place(nonce, Aad::from(place.as_bytes()), body);
        plain.ok().map(|plain| plain.to_vec())
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Cipher({})", self.check)
    }
}

/// Who seals the object `name` and what it is bound to, if it is sealed: a manifest that is pending is bound to the place where it will stand.
fn sealed_place(name: &str) -> Option<(Writer, String)> {
    let (root, rest) = name.split_once('/')?;
    let (_, writer) = rest.rsplit_once('/')?;
    let writer = Writer::find(writer)?;
    match root {
        CHUNKS | MANIFESTS => Some((writer, name.to_owned())),
        PENDING => Some((writer, format!("{MANIFESTS}/{rest}"))),
        _ => None,
    }
}

/// What a chunk of these bytes is named after in `objects`.
pub(super) fn digest_of(objects: &dyn Objects, plain: &[u8]) -> Digest {
    let keyed = objects.cipher().map(|cipher| cipher.digest(plain));
    keyed.unwrap_or_else(|| Digest::of(plain))
}

/// A store whose chunks and manifests are sealed, if there is a key.
pub struct Locked<O> {
    pub(super) inner: O,
    pub(super) cipher: Option<Cipher>,
}

impl<O: Objects> Objects for Locked<O> {
    fn put(&self, name: &str, content: Vec<u8>) -> Result<Put, StoreError> {
        match &self.cipher {
            Some(cipher) => self.inner.put(name, cipher.seal(name, content)?),
            None => self.inner.put(name, content),
        }
    }

    fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.find(name)?;
        match (&self.cipher, found) {
            (Some(cipher), Some(object)) => cipher.open(name, object).map(Some),
            (_, found) => Ok(found),
        }
    }

    fn list_while(
        &self,
        under: &str,
        show: &mut dyn FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        self.inner.list_while(under, &mut |mut listed| {
            if self.cipher.is_some() && sealed_place(&listed.name).is_some() {
                listed.size = listed.size.saturating_sub(ADDED);
            }
            show(listed)
        })
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.inner.remove(name)
    }

    fn cipher(&self) -> Option<&Cipher> {
        self.cipher.as_ref()
    }
}

impl<O: std::fmt::Debug> std::fmt::Debug for Locked<O> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(out)
    }
}
