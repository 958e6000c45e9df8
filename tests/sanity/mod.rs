//! What csi-sanity, the conformance test of the CSI authors, found: its report read into names and held against the committed lists of what it skips. It runs in the
//! lab, whole, and on the host against the simulated arrays, by its tests of the controller alone.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

/// One name to a line; lines that start with `#` say why those below them are skipped.
pub const SKIPS: &str = include_str!("skips.txt");
/// The same where the SAN is an array with policies of performance.
pub const SKIPS_WITH_POLICIES: &str = include_str!("skips_with_policies.txt");

/// What csi-sanity found, by the names of its tests.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: Vec<String>,
    /// Name and what it said.
    pub failed: Vec<(String, String)>,
    pub skipped: Vec<String>,
}

impl Report {
    /// From Ginkgo's report in JUnit's form: suites of cases, set-up and report nodes among them in square brackets of their own.
    pub fn read(text: &str) -> Result<Self> {
        let document = roxmltree::Document::parse(text).context("reading csi-sanity's report")?;
        let mut report = Report::default();
        let cases = document.descendants();
        for case in cases.filter(|node| node.has_tag_name("testcase")) {
            let name = case.attribute("name").unwrap_or_default().to_owned();
            let child = |tag: &str| case.children().find(|child| child.has_tag_name(tag));
            if let Some(failure) = child("failure").or_else(|| child("error")) {
                let said = failure.attribute("message").or_else(|| failure.text());
                let said = said.unwrap_or_default();
                report.failed.push((name, said.to_owned()));
            } else if child("skipped").is_some() {
                report.skipped.push(name);
            } else if name.starts_with("[It]") {
                report.passed.push(name);
            }
        }
        Ok(report)
    }

    /// Nothing failed, and of the tests that `are_run` those were skipped that the list has, and no other.
    pub fn judge(&self, skips: &str, are_run: impl Fn(&str) -> bool) -> Result<()> {
        ensure!(self.failed.is_empty(), "csi-sanity: {:#?}", self.failed);
        let passed = self.passed.len();
        ensure!(passed > 30, "only {passed} tests of csi-sanity ran");
        let listed = skips
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let expected: BTreeSet<&str> = listed.filter(|test| are_run(test)).collect();
        let found = self.skipped.iter().map(String::as_str);
        let found: BTreeSet<&str> = found.filter(|test| are_run(test)).collect();
        if expected == found {
            return Ok(());
        }
        bail!(
            "the skips are not those of the list; skipped beyond it: {:#?}; in it but not skipped: {:#?}",
            found.difference(&expected).collect::<Vec<_>>(),
            expected.difference(&found).collect::<Vec<_>>()
        )
    }
}
