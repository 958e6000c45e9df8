//! The settings that multipathd really works by, from its own word: `show config` prints defaults, built-in tables, files and drop-ins as merged.

use super::daemon::{self, DaemonError};
use super::no_path_retry::unquoted;
use crate::host::Host;

/// What of its configuration matters to us.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    /// `no_path_retry` of `overrides`, which counts more than all others but that of a single map.
    pub overriding_retry: Option<String>,
    /// `no_path_retry` of `defaults`.
    pub default_retry: Option<String>,
    /// `no_path_retry` of device sections by their vendor, in their order. Of several that match the last counts.
    pub device_retries: Vec<(String, String)>,
    /// The expressions of `blacklist` for names of devices and for WWIDs.
    pub blacklisted: Vec<String>,
}

/// Asks the daemon.
///
/// # Errors
/// When it does not answer.
pub fn read_settings(host: &Host) -> Result<Settings, DaemonError> {
    daemon::show_config(host).map(|text| Settings::parse(&text))
}

impl Settings {
    /// Reads the form that multipathd prints: `section {`, `name value`, `}`, one to a line. What it does not know it passes over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        let (mut within, mut vendor) = (Vec::new(), String::new());
        for line in text.lines().map(str::trim) {
            let (word, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            if value == "{" {
                within.push(word);
                vendor.clear();
            } else if word == "}" {
                within.pop();
            } else {
                settings.take(&within, &mut vendor, word, unquoted(value));
            }
        }
        settings
    }

    fn take(&mut self, within: &[&str], vendor: &mut String, word: &str, value: &str) {
        match (within, word) {
            (["defaults"], "no_path_retry") => self.default_retry = Some(value.to_owned()),
            (["overrides"], "no_path_retry") => self.overriding_retry = Some(value.to_owned()),
            (["devices", "device"], "vendor") => value.clone_into(vendor),
            (["devices", "device"], "no_path_retry") => {
                self.device_retries.push((vendor.clone(), value.to_owned()));
            }
            (["blacklist"], "devnode" | "wwid") => self.blacklisted.push(value.to_owned()),
            _ => {}
        }
    }

    /// What counts for disks of a vendor; multipath's own default is `fail`. Vendors are expressions (`(LIO-ORG|SUSE)`, `.*`): one that holds the name is taken for a match.
    #[must_use]
    pub fn retry_for(&self, vendor: &str) -> &str {
        let is_for = |(name, _): &&(String, String)| name.contains(vendor) || name == ".*";
        let device = self.device_retries.iter().rev().find(is_for);
        let device = device.map(|(_, word)| word.as_str());
        let said = self.overriding_retry.as_deref().or(device);
        said.or(self.default_retry.as_deref()).unwrap_or("fail")
    }

    /// The expressions of the blacklist that SCSI disks fall under, all or some. An expression that begins with `!` means all others (multipath.conf(5)).
    #[must_use]
    pub fn bans_on_disks(&self) -> Vec<&str> {
        let bans = self.blacklisted.iter().map(String::as_str);
        let is_ban = |ban: &&str| {
            let bare = ban.trim_start_matches('^').trim_end_matches('$');
            let bare = bare.trim_start_matches('(');
            matches!(bare, ".*" | ".+" | "*" | "." | "") || bare.starts_with("sd")
        };
        bans.filter(is_ban).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Abridged from what 0.9.4 and 0.11.1 print.
    const PRINTED: &str = "\
defaults {
\tverbosity 2
\tno_path_retry \"fail\"
\tfind_multipaths \"strict\"
}
blacklist {
\tdevnode \"!^(sd[a-z]|dasd[a-z]|nvme[0-9])\"
\tdevice {
\t\tvendor \"SGI\"
\t\tproduct \"Universal Xport\"
\t}
}
devices {
\tdevice {
\t\tvendor \"LIO-ORG\"
\t\tproduct \".*\"
\t\tno_path_retry 12
\t}
\tdevice {
\t\tvendor \"DGC\"
\t\tno_path_retry \"queue\"
\t}
}
overrides {
}
";

    #[test]
    fn the_daemons_own_word_is_read() {
        let settings = Settings::parse(PRINTED);
        assert_eq!(settings.retry_for("LIO-ORG"), "12");
        assert_eq!(settings.retry_for("DGC"), "queue");
        assert_eq!(settings.retry_for("NETAPP"), "fail");
        assert_eq!(settings.bans_on_disks(), [""; 0]);
        let overridden = PRINTED.replace("overrides {", "overrides {\n\tno_path_retry queue");
        assert_eq!(Settings::parse(&overridden).retry_for("LIO-ORG"), "queue");
    }

    #[test]
    fn bans_on_all_disks_are_seen() {
        for ban in ["^sd[a-z]", "sda", ".*", "*", "^(sd|hd)"] {
            let text = format!("blacklist {{\n\tdevnode \"{ban}\"\n}}\n");
            assert_eq!(Settings::parse(&text).bans_on_disks(), [ban]);
        }
        for other in [
            "^(ram|zram|raw|loop|fd|md|dm-|sr|scd|st|dcssblk)[0-9]",
            "!^sd",
            "^hd",
        ] {
            let text = format!("blacklist {{\n\tdevnode \"{other}\"\n}}\n");
            assert_eq!(Settings::parse(&text).bans_on_disks(), [""; 0], "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_passed_over(text in "(?s)(defaults|devices|device|\\{|\\}|no_path_retry| |\"|\n|.){0,40}") {
            let settings = Settings::parse(&text);
            prop_assert!(settings.retry_for("LIO-ORG").len() <= text.len().max(4));
        }
    }
}
