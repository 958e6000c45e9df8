//! The fuzz targets without the fuzzer: every one still builds, reads its seeds, and stands spoilt copies of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../fuzz/targets.rs"]
mod targets;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(fuzz().join("seeds").join(target)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .collect()
}

fn stems(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz().join(folder)).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

#[test]
fn every_target_has_its_program_and_its_seeds() {
    let names: BTreeSet<String> = targets::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("seeds"), names);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in &names {
        let program = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(
            program.contains(&format!("targets::{name}(bytes)")),
            "{name}"
        );
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

#[test]
fn what_must_stay_readable_is_a_seed() {
    let golden = [
        ("ledger", "src/attach/golden/ledger-1.json"),
        ("config", "tests/binary/fixtures/config-v1.yaml"),
        ("config", "tests/binary/fixtures/config-v1-all.yaml"),
        ("config", "tests/binary/fixtures/config-v1-archives.yaml"),
        ("manifest", "src/archive/golden/manifest-v1"),
    ];
    for (target, file) in golden {
        let file = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(
            seeds(target).iter().any(|(_, seed)| *seed == file),
            "{target}"
        );
    }
}

#[test]
fn every_seed_is_read() {
    for (name, target) in targets::TARGETS {
        for (seed, bytes) in seeds(name) {
            assert!(target(&bytes), "{name} does not read its seed {seed}");
        }
    }
}

#[test]
fn spoilt_seeds_are_read_or_refused() {
    for (name, target) in targets::TARGETS {
        for (_, seed) in seeds(name) {
            let edit = (any::<prop::sample::Index>(), any::<u8>());
            let edits = proptest::collection::vec(edit, 0..6);
            let cut = any::<prop::sample::Index>();
            let mut runner = TestRunner::new(Config::with_cases(256));
            let spoil = |(edits, cut): (Vec<(prop::sample::Index, u8)>, prop::sample::Index)| {
                let mut bytes = seed.clone();
                for (at, byte) in edits {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                target(&bytes);
                target(&bytes[..cut.index(bytes.len())]);
                Ok(())
            };
            runner.run(&(edits, cut), spoil).unwrap();
        }
    }
}
