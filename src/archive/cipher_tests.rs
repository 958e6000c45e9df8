//! Archives with a key: what they look like from outside, and that nothing else opens them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chunk::open_hashed;
use super::cipher::digest_of;
use super::memory::{Memory, Volume, opened};
use super::*;
use crate::fabric::Secret;
use crate::fault::chain;

const DAY: Duration = Duration::from_hours(24);
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const OTHER: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// Made by another implementation of HMAC and AES-GCM (Python's cryptography) around the golden chunk, as number 7 of its writer.
const GOLDEN: &[u8] = include_bytes!("golden/sealed-chunk-v2");
const GOLDEN_NAME: &str = "chunks/f1/f1192c7f457b81175fcad3bb4d4e035200f170ae6a9d9ccf032c44456d9a7e62/0123456789abcdef0123456789abcdef";
const GOLDEN_FORMAT: &str = "{\"archive\":2,\"chunkBytes\":1048576,\"encryption\":\"aes-256-gcm\",\"keyCheck\":\"f16ff935bd718bc8a00e4042cf74a4bf5c3a982caa7096dea5e1770898471a88\"}\n";

fn locked(key: &str) -> Locked<Memory> {
    Locked {
        inner: Memory::default(),
        cipher: Cipher::find(&Secret::from(key.to_owned())),
    }
}

/// The same objects under another key, or none.
fn reopened(before: Locked<Memory>, key: Option<&str>) -> Locked<Memory> {
    let cipher = key.and_then(|key| Cipher::find(&Secret::from(key.to_owned())));
    Locked { cipher, ..before }
}

fn job(snapshot: &str, volume: &Volume) -> Job {
    Job {
        snapshot: snapshot.parse().unwrap(),
        volume: Some("sp1:linux:cluster-a:5ab6".to_owned()),
        cut_at: 0,
        notes: [("note".to_owned(), "in the manifest".to_owned())].into(),
        runs: Runs::Allocated(volume.all()),
    }
}

fn carry(objects: &dyn Objects, snapshot: &str, letters: &str) -> Uploaded {
    let volume = Volume::of(letters);
    let archive = OpenArchive {
        transfers: 3,
        ..opened(objects)
    };
    upload(&archive, &job(snapshot, &volume), &volume).unwrap()
}

fn fetched(objects: &dyn Objects, snapshot: &str) -> Result<Vec<u8>, ArchiveError> {
    let archive = opened(objects);
    let manifest = need_snapshot(&archive, &snapshot.parse().unwrap())?;
    let target = Volume::of("....");
    restore(&archive, &manifest, &target)?;
    Ok(target.content())
}

fn sealed(memory: &Memory) -> Vec<(String, Vec<u8>)> {
    let names = memory.names().into_iter();
    let names = names.filter(|name| name.starts_with("chunks/") || name.starts_with("manifests/"));
    names
        .map(|name| (name.clone(), memory.get(&name).unwrap()))
        .collect()
}

#[test]
fn version_2_is_read_for_ever() {
    let locked = locked(KEY);
    locked.inner.put(GOLDEN_NAME, GOLDEN.to_vec()).unwrap();
    let object = locked.find(GOLDEN_NAME).unwrap().unwrap();
    let lines = (0..400).map(|line| format!("line {line} of the golden chunk\n"));
    let plain = lines.collect::<String>().into_bytes();
    let key = ChunkKey::find(GOLDEN_NAME).unwrap();
    let hash = |plain: &[u8]| digest_of(&locked, plain);
    let opened = open_hashed(&object, &key.digest, plain.len(), hash);
    assert_eq!(opened.unwrap(), plain);
    // And so it is written: the eighth that this process seals.
    for number in 0..7 {
        locked
            .put(
                &format!("manifests/{number}/0123456789abcdef0123456789abcdef"),
                vec![],
            )
            .unwrap();
    }
    locked.remove(GOLDEN_NAME).unwrap();
    locked.put(GOLDEN_NAME, object).unwrap();
    assert_eq!(locked.inner.get(GOLDEN_NAME).unwrap(), GOLDEN);
    ensure_archive(&locked, "store").unwrap();
    let format = locked.inner.get("sanpath-archive.json").unwrap();
    assert_eq!(String::from_utf8(format).unwrap(), GOLDEN_FORMAT);
}

#[test]
fn it_comes_back_and_outside_nothing_shows() {
    let locked = locked(KEY);
    let carried = carry(&locked, "a", "pq.p");
    carry(&locked, "b", "q...");
    assert_eq!(
        locked.inner.count("chunks"),
        2,
        "equal chunks are stored once"
    );
    assert_eq!(fetched(&locked, "a").unwrap(), Volume::of("pq.p").content());
    assert!(verify(&opened(&locked), &carried.manifest).is_ok());
    let names = locked.inner.names().concat();
    for letters in ["p", "q"] {
        let plain = Digest::of(&Volume::of(letters).content());
        assert!(!names.contains(&plain.to_string()), "the hash of {letters}");
    }
    // Zstandard's magic, the label of a chunk, what a manifest says.
    let shows: [&[u8]; 4] = [
        &[0x28, 0xb5, 0x2f, 0xfd],
        b"sha256",
        b"cluster",
        b"manifest",
    ];
    for (name, content) in sealed(&locked.inner) {
        for shown in shows {
            let found = content.windows(shown.len()).any(|window| window == shown);
            assert!(!found, "{name} shows {shown:?}");
        }
    }
}

#[test]
fn no_nonce_is_used_twice() {
    let locked = locked(KEY);
    let letters: String = ('a'..='z').collect();
    carry(&locked, "a", &letters);
    carry(&locked, "b", &letters.to_uppercase());
    let all = sealed(&locked.inner);
    let nonces: BTreeSet<&[u8]> = all.iter().map(|(_, content)| &content[4..16]).collect();
    assert_eq!((all.len(), nonces.len()), (54, 54));
}

#[test]
fn another_key_or_none_is_told_before_anything_is_done() {
    let made = locked(KEY);
    ensure_archive(&made, "store").unwrap();
    carry(&made, "a", "pq");
    let other = reopened(made, Some(OTHER));
    for refused in [ensure_archive(&other, "store"), find_archive(&other)] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, StoreError::OtherKey { .. }), "{refused}");
        assert!(refused.to_string().contains("f16ff935bd71…"), "{refused}");
        assert!(!refused.to_string().contains(&KEY[..8]), "{refused}");
    }
    // Who does not ask first opens nothing, and removes nothing.
    let refused = chain(&fetched(&other, "a").unwrap_err());
    assert!(
        refused.contains("does not open with the archive's key"),
        "{refused}"
    );
    other.inner.later(DAY * 9);
    assert!(prune(&opened(&other), Patience::default()).is_err());
    assert_eq!(other.inner.count("chunks"), 2);
    let none = reopened(other, None);
    assert!(matches!(find_archive(&none), Err(StoreError::NoKey)));
    let plain = Memory::default();
    ensure_archive(&plain, "store").unwrap();
    let keyed = Locked {
        inner: plain,
        ..locked(KEY)
    };
    assert!(matches!(
        find_archive(&keyed),
        Err(StoreError::NotEncrypted)
    ));
    let shown = format!("{:?}", keyed.cipher().unwrap());
    assert!(
        !shown.contains(&KEY[..8]) && shown.contains("f16ff935"),
        "{shown}"
    );
    for none in ["", &KEY[1..], &KEY.to_uppercase(), "hunter2"] {
        assert!(Cipher::find(&Secret::from(none.to_owned())).is_none());
    }
}

#[test]
fn what_somebody_changed_is_refused_and_named() {
    let made = locked(KEY);
    carry(&made, "a", "pq");
    carry(&made, "b", "rs");
    let (objects, plain) = (sealed(&made.inner), Memory::default());
    carry(&plain, "a", "xy");
    let plain = sealed(&plain);
    for (name, content) in &objects {
        // Every byte of the envelope, the cut, another object of the same writer, and one that was never sealed.
        let mut spoilt: Vec<Vec<u8>> = Vec::new();
        for at in 0..content.len() {
            let mut flipped = content.clone();
            flipped[at] ^= 1;
            spoilt.push(flipped);
        }
        spoilt.extend([0, 15, 31, content.len() - 1].map(|at| content[..at].to_vec()));
        let others = objects.iter().filter(|(other, _)| other != name);
        spoilt.extend(others.map(|(_, content)| content.clone()));
        spoilt.extend(plain.iter().map(|(_, content)| content.clone()));
        for spoilt in spoilt {
            made.inner.overwrite(name, spoilt);
            let refused = made.find(name).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
        }
        made.inner.overwrite(name, content.clone());
    }
    // One damaged manifest does not hide the other snapshot, and goes by an operator's word.
    let (manifest, _) = objects
        .iter()
        .find(|(name, _)| name.starts_with("manifests/a/"))
        .unwrap();
    made.inner.overwrite(manifest, b"spoilt".to_vec());
    let listed = snapshots(&made).unwrap();
    assert_eq!(
        (
            listed.len(),
            listed.iter().filter(|entry| entry.manifest.is_ok()).count()
        ),
        (2, 1)
    );
    remove_snapshot(&made, &"a".parse().unwrap()).unwrap();
    for _ in 0..2 {
        made.inner.later(DAY * 8);
        prune(&opened(&made), Patience::default()).unwrap();
    }
    assert_eq!(
        (made.inner.count("chunks"), made.inner.count("manifests")),
        (2, 1)
    );
}

/// Who prunes is not who wrote: a revocation is seen by both, whatever is sealed.
#[test]
fn an_upload_that_was_given_up_is_revoked_in_plain() {
    let made = locked(KEY);
    carry(&made, "a", "pq");
    let (place, content) = sealed(&made.inner).pop().unwrap();
    made.inner.remove(&place).unwrap();
    let pending = place.replacen("manifests/", "pending/", 1);
    made.inner.put(&pending, content).unwrap();
    for _ in 0..3 {
        made.inner.later(DAY * 8);
        prune(&opened(&made), Patience::default()).unwrap();
    }
    assert_eq!(
        (made.inner.count("chunks"), made.inner.count("pending")),
        (0, 0)
    );
    assert_eq!(
        made.inner.get(&place).unwrap(),
        b"{\"format\":1,\"revoked\":true}\n"
    );
    assert!(snapshots(&made).unwrap().is_empty());
    carry(&made, "a", "pq");
}
