//! docs/reference.md is what the code says.

use std::path::Path;

const PAGE: &str = include_str!("../../docs/reference.md");

#[test]
fn the_reference_is_not_stale() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    let now = sanpath::cli::reference();
    let differs = now.lines().zip(PAGE.lines()).find(|(now, was)| now != was);
    assert!(
        now == PAGE,
        "{} is stale: run `make reference`. The first line that differs: {differs:?}",
        page.display()
    );
}
