//! Another configuration of multipathd for a while.

use std::fs;

use anyhow::Result;

use super::guest_setup::{MULTIPATH_CONF, multipath_conf};
use super::services::Service;

const FILE: &str = "/etc/multipath.conf";

/// While it lives multipathd runs with other settings; the usual ones come back with its end, however the case ends.
pub struct Configured(());

impl Configured {
    /// Starts multipathd anew with these two of its defaults and with `sections` of its configuration beside them.
    pub fn with(find_multipaths: &str, friendly_names: &str, sections: &str) -> Result<Self> {
        let usual = multipath_conf(find_multipaths, friendly_names);
        let configured = Configured(());
        restart_with(&format!("{usual}{sections}"))?;
        Ok(configured)
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        if let Err(error) = restart_with(MULTIPATH_CONF) {
            eprintln!("multipathd has kept the settings of a case: {error:#}");
        }
    }
}

// `reconfigure` answers before it is done; a daemon that was started anew has the settings.
fn restart_with(text: &str) -> Result<()> {
    if !Service::Multipathd.is_held_down() {
        Service::Multipathd.hold_down("TERM")?;
    }
    fs::write(FILE, text)?;
    Service::Multipathd.release()
}
