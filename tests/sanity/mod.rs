//! What csi-sanity, the conformance test of the CSI authors, found: its report read into names and held against the committed lists of what it skips. It runs in the
//! lab, whole, and on the host against the simulated arrays, by its tests of the controller alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// One name to a line; lines that start with `#` say why those below them are skipped.
pub const SKIPS: &str = include_str!("skips.txt");
/// The same where the SAN is an array with policies of performance.
pub const SKIPS_WITH_POLICIES: &str = include_str!("skips_with_policies.txt");

/// In the folder of a trial.
const REPORT: &str = "csi-sanity.xml";

/// What csi-sanity is told of those whom it judges.
pub struct Trial<'t> {
    /// Its socket.
    pub node: &'t Path,
    /// Its socket.
    pub controller: &'t Path,
    /// For mounts and the report.
    pub folder: &'t Path,
    /// Of the volumes that are made, in bytes.
    pub size: u64,
    /// `mount` or `block`.
    pub access_type: &'t str,
    /// The policy that volumes are put under by a VolumeAttributesClass, where the SAN has such.
    pub policy: Option<&'t str>,
}

impl Trial<'_> {
    /// As the program takes them.
    pub fn arguments(&self) -> Result<Vec<String>> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let socket = |path: &Path| format!("unix://{}", path.display());
        let mut told = vec![
            ("endpoint", socket(self.node)),
            ("controllerendpoint", socket(self.controller)),
            ("mountdir", at("mount")),
            ("stagingdir", at("staging")),
            ("testvolumesize", self.size.to_string()),
            ("testvolumeaccesstype", self.access_type.to_owned()),
        ];
        if let Some(policy) = self.policy {
            let file = at("mutable.yaml");
            fs::write(&file, format!("qosPolicy: {policy}\n"))?;
            told.push(("testvolumemutableparameters", file));
        }
        let told = told.into_iter();
        let mut arguments: Vec<String> = told
            .map(|(name, value)| format!("--csi.{name}={value}"))
            .collect();
        arguments.push("--ginkgo.no-color".to_owned());
        arguments.push(format!("--ginkgo.junit-report={}", at(REPORT)));
        Ok(arguments)
    }

    /// What it found, once it ended well or not with these words.
    pub fn report(&self, ended_well: bool, said: &str) -> Result<Report> {
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join(" | ");
        let text = fs::read_to_string(self.folder.join(REPORT));
        let text = text.with_context(|| format!("csi-sanity wrote no report: {last}"))?;
        let report = Report::read(&text)?;
        let is_told = ended_well || !report.failed.is_empty();
        ensure!(is_told, "csi-sanity failed outside its tests: {last}");
        Ok(report)
    }
}

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
    fn read(text: &str) -> Result<Self> {
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
