//! The certificates of a SAN in the lab, made by the commands that its operator has.

use std::path::Path;

use anyhow::Result;

use super::case::{Lab, SANPATH};

/// Makes the SAN's own in its state directory, unless it has them.
pub fn ensure_of_san(lab: &Lab, state: &Path) -> Result<()> {
    if state.join("tls/tls.crt").exists() {
        return Ok(());
    }
    let state = state.display().to_string();
    lab.execute(&[SANPATH, "san", "init", "--state-dir", &state])?;
    Ok(())
}

/// Makes those of a caller in `out`, unless they are there.
pub fn ensure_of_caller(lab: &Lab, state: &Path, role: &str, out: &Path) -> Result<()> {
    if !out.join("tls.crt").exists() {
        issue(lab, state, role, out)?;
    }
    Ok(())
}

/// Makes those of a caller in `out`; what the command tells.
pub fn issue(lab: &Lab, state: &Path, role: &str, out: &Path) -> Result<String> {
    let (state, out) = (state.display().to_string(), out.display().to_string());
    let name = format!("the-{role}");
    let mut argv = vec![SANPATH, "san", "issue", "--state-dir", &state];
    argv.extend(["--role", role, "--name", &name, "--out", &out]);
    lab.execute(&argv)
}
