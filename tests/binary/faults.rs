//! The list of fault cases names tests that exist, and no case twice: a renamed test cannot go on proving something.

#[path = "../lab/faults/list.rs"]
mod list;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use list::{Place, Proof};

use crate::source::{self, SourceFile};

#[test]
fn every_case_is_listed_once_and_in_order() {
    let cases = list::parse(list::TEXT).unwrap();
    let numbers: Vec<u32> = cases.iter().map(|case| case.number).collect();
    let count = u32::try_from(cases.len()).unwrap();
    assert!(count >= 94, "a case is lost");
    assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    for case in &cases {
        assert!(!case.group.is_empty() && !case.injection.is_empty());
        assert!(
            !case.proofs.is_empty() || !case.missing.is_empty(),
            "case {} has neither a test nor a reason",
            case.number
        );
        assert!(
            !format!("{}{}", case.injection, case.missing).contains('|'),
            "case {} would break its table",
            case.number
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let (lab, files) = (lab_cases(), source::all());
    let exists = |proof: &Proof| match proof.place {
        Place::Lab => lab.contains(&proof.test),
        Place::Fake => files.iter().any(|file| has_test(file, &proof.test)),
    };
    let cases = list::parse(list::TEXT).unwrap();
    let named = cases.iter().flat_map(|case| &case.proofs);
    let lost: Vec<&Proof> = named.filter(|proof| !exists(proof)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let invented = "attach::tests::no_such_test";
    assert!(!files.iter().any(|file| has_test(file, invented)));
}

/// Names as the lab's cases declare them: `name: "…"`, in files and in folders of files.
fn lab_cases() -> BTreeSet<String> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab");
    let mut folders = vec![lab.join("cases"), lab.join("fleet")];
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                names.extend(declared_in(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    names
}

fn declared_in(text: &str) -> Vec<String> {
    let name_in = |line: &str| {
        let name = line.trim().strip_prefix("name: \"")?;
        Some(name.strip_suffix("\",")?.to_owned())
    };
    text.lines().filter_map(name_in).collect()
}

/// Whether the file declares this test: its module begins the path, its function ends it.
fn has_test(file: &SourceFile, path: &str) -> bool {
    let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
    let name = parts.pop().unwrap_or_default();
    let module = file.module();
    let inside = parts.strip_prefix(module.as_slice());
    let fits = inside.is_some_and(|inside| inside.is_empty() || inside == ["tests"]);
    let declares = |pair: &[source::Token]| pair[0].text == "fn" && pair[1].text == name;
    // To read a file into tokens takes its time.
    fits && file.tokens().windows(2).any(declares)
}
