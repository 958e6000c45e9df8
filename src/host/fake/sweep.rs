//! How thoroughly what is generated is gone through: by `make test` all of it, by a plain `cargo test` a part, for the minute that the inner loop may take.

/// `make test` sets it; in a plain `cargo test` it is absent.
const VARIABLE: &str = "SANPATH_SWEEP";
/// One of so many is a part.
const PART: u32 = 5;

/// Whether it is all.
pub(crate) fn is_whole() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|it| it == "whole")
}

/// The numbers of the steps after which something is cut off: the first, and each that follows, or every fifth.
pub(crate) fn steps() -> impl Iterator<Item = u64> {
    let stride = u64::from(if is_whole() { 1 } else { PART });
    (0..).map(move |it| 1 + it * stride)
}

/// Of so many rounds, those that are run.
pub(crate) fn rounds(whole: u32) -> u32 {
    if is_whole() {
        whole
    } else {
        whole.div_ceil(PART)
    }
}

/// As [`rounds`], for the cases of a property: with `PROPTEST_CASES` or without.
pub(crate) fn cases(whole: u32) -> proptest::test_runner::Config {
    proptest::test_runner::Config::with_cases(rounds(whole))
}
