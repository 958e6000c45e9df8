//! Archives in an S3 that we did not write: `make s3` starts one and runs these.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::memory::Volume;
use super::*;
use crate::config::{Archive, ArchiveKind, S3};
use crate::host::Host;

const WHY: &str = "make s3 sets it";

fn host() -> Host {
    Host::real(Path::new("/"))
}

/// A bucket as `user` has it, with a prefix of its own for each call.
pub(super) fn opened_as(
    user: &str,
    bucket: &str,
    endpoint: Option<&str>,
) -> Result<Bucket, OpenError> {
    let told = std::env::var("SANPATH_TEST_S3").expect(WHY);
    let keys = std::env::var_os("SANPATH_TEST_S3_KEYS").expect(WHY);
    let s3 = S3 {
        endpoint: endpoint.unwrap_or(&told).to_owned(),
        region: "us-east-1".to_owned(),
        bucket: bucket.to_owned(),
        prefix: format!("tests/{}/", Writer::random()),
        credentials: PathBuf::from(keys).join(user),
        ca: None,
        path_style: true,
    };
    let archive = Archive {
        kind: ArchiveKind::S3(s3),
        transfers: 4,
        bytes_per_second: None,
        encryption_key: None,
    };
    Bucket::open(&host(), &"away".parse().unwrap(), &archive)
}

/// Twelve chunks and a bit, with zeros between; two of them equal.
fn volume() -> Volume {
    let mut content = vec![0_u8; (12 << 20) + 5000];
    let mut state = 1_u64;
    for (number, chunk) in content.chunks_mut(1 << 20).enumerate() {
        if number % 3 == 1 {
            continue;
        }
        for byte in &mut *chunk {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = state.to_be_bytes()[0] & 0x3f;
        }
    }
    content.copy_within(0..1 << 20, 5 << 20);
    Volume::new(content)
}

fn count(bucket: &Bucket, root: &str) -> usize {
    let mut count = 0;
    bucket.list(root, &mut |_| count += 1).unwrap();
    count
}

/// An archive in `bucket`.
fn made(bucket: &Bucket) -> OpenArchive<'_> {
    OpenArchive {
        objects: bucket,
        chunk_bytes: ensure_archive(bucket, bucket.place()).unwrap(),
        transfers: 4,
        pace: None,
        notice: &|_| {},
    }
}

#[test]
#[ignore = "needs an S3: make s3"]
fn a_volume_comes_back_from_a_bucket_and_leaves_nothing_in_it() {
    let bucket = opened_as("good", "snapshots", None).unwrap();
    assert!(matches!(find_archive(&bucket), Err(StoreError::NoArchive)));
    let archive = made(&bucket);
    let volume = volume();
    let job = Job {
        notes: std::collections::BTreeMap::new(),
        // As a controller will name it.
        snapshot: "sps1:linux:cluster-a:0f".parse().unwrap(),
        volume: None,
        cut_at: 0,
        runs: Runs::Allocated(volume.all()),
    };
    let carried = upload(&archive, &job, &volume).unwrap();
    assert_eq!(count(&bucket, "chunks"), carried.manifest.chunks.len() - 1);
    assert_eq!(upload(&archive, &job, &volume).unwrap().progress.moved, 0);
    assert_eq!(snapshots(&bucket).unwrap().len(), 1);
    let target = Volume::new(vec![b'x'; volume.content().len()]);
    let manifest = need_snapshot(&archive, &job.snapshot).unwrap();
    restore(&archive, &manifest, &target).unwrap();
    assert!(
        target.content() == volume.content(),
        "other bytes came back"
    );

    remove_snapshot(&bucket, &job.snapshot).unwrap();
    assert!(need_snapshot(&archive, &job.snapshot).is_err());
    // The store's clock counts seconds.
    let patience = Patience {
        grace: Duration::from_secs(1),
        lease: Duration::from_secs(1),
    };
    let host = host();
    let emptied = host.wait_for(host.deadline_in(Duration::from_mins(2)), || {
        prune(&archive, patience)?;
        let roots = [
            "chunks",
            "condemned",
            "deleted",
            "manifests",
            "pending",
            "intents",
            "clock",
        ];
        let left: usize = roots.iter().map(|root| count(&bucket, root)).sum();
        Ok::<_, ArchiveError>((left == 0).then_some(()))
    });
    assert!(emptied.unwrap().is_some(), "something stays");
}

#[test]
#[ignore = "needs an S3: make s3"]
fn an_archive_with_a_key_comes_back_from_a_bucket() {
    let key = crate::fabric::Secret::from("07".repeat(32));
    let bucket = opened_as("good", "snapshots", None).unwrap();
    let bucket = bucket.with_cipher(Cipher::find(&key).unwrap());
    let archive = made(&bucket);
    let volume = volume();
    let job = Job {
        snapshot: "a".parse().unwrap(),
        volume: None,
        cut_at: 0,
        notes: std::collections::BTreeMap::new(),
        runs: Runs::Allocated(volume.all()),
    };
    let carried = upload(&archive, &job, &volume).unwrap();
    verify(&archive, &carried.manifest).unwrap();
    let target = Volume::new(vec![b'x'; volume.content().len()]);
    restore(&archive, &carried.manifest, &target).unwrap();
    assert!(
        target.content() == volume.content(),
        "other bytes came back"
    );
}

#[test]
#[ignore = "needs an S3: make s3"]
fn an_object_is_made_once() {
    let bucket = opened_as("good", "snapshots", None).unwrap();
    assert_eq!(bucket.put("a/b", b"first".to_vec()).unwrap(), Put::Made);
    assert_eq!(
        bucket.put("a/b", b"second".to_vec()).unwrap(),
        Put::WasThere
    );
    assert_eq!(bucket.find("a/b").unwrap().unwrap(), b"first");
    bucket.remove("a/b").unwrap();
    bucket.remove("a/b").unwrap();
    assert_eq!(bucket.find("a/b").unwrap(), None);
}

#[test]
#[ignore = "needs an S3: make s3"]
fn a_list_is_whole_over_many_pages() {
    let bucket = opened_as("good", "snapshots", None).unwrap();
    for number in 0..1100 {
        bucket.put(&format!("many/{number}"), Vec::new()).unwrap();
    }
    assert_eq!(count(&bucket, "many"), 1100);
    assert_eq!(count(&bucket, "man"), 0, "a folder, not a beginning");
}

#[test]
#[ignore = "needs an S3: make s3"]
fn what_is_wrong_is_said_and_no_secret() {
    let of = |outcome: Result<Bucket, OpenError>| match outcome {
        Err(OpenError::Store(error)) => error,
        other => panic!("{other:?}"),
    };
    let denied = of(opened_as("wrong", "snapshots", None));
    assert!(matches!(denied, StoreError::Denied { .. }), "{denied:?}");
    assert!(!format!("{denied} {denied:?}").contains("hunter2"));
    let powerless = of(opened_as("powerless", "snapshots", None));
    assert!(
        matches!(powerless, StoreError::Denied { .. }),
        "{powerless:?}"
    );
    let missing = of(opened_as("good", "nosuchbucket", None));
    assert!(
        matches!(missing, StoreError::NoBucket { .. }),
        "{missing:?}"
    );
    // Port 9 of this machine serves nobody.
    let gone = of(opened_as("good", "snapshots", Some("http://127.0.0.1:9")));
    assert!(matches!(gone, StoreError::Unreachable { .. }), "{gone:?}");
    assert!(opened_as("nobody", "snapshots", None).is_err());
}
