//! The settings that multipathd really works by, from its own word: `show config` prints defaults, built-in tables, files and drop-ins as merged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::daemon::{self, DaemonError};
use super::no_path_retry::unquoted;
use crate::host::Host;

/// What of its configuration matters to us.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Settings {
    defaults: BTreeMap<String, String>,
    /// They count more than all others but those of a single map.
    overrides: BTreeMap<String, String>,
    /// Of several that match a disk, the last that says something counts.
    devices: Vec<BTreeMap<String, String>>,
    blacklist: Vec<Ban>,
    exceptions: Vec<Ban>,
}

/// A line of the blacklist, or of its exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ban {
    /// `devnode`, `wwid`, `protocol`, `property`, or `vendor` for a device section.
    kind: String,
    expression: String,
}

/// How the disks of a family of SANs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker {
    /// As INQUIRY has it, and device sections.
    pub vendor: &'static str,
    /// As device sections that are written for it have it.
    pub product: &'static str,
    /// How their WWIDs begin, by the maker's IEEE number behind the kind of the name.
    pub wwids: &'static str,
    /// What multipath is to say of them beside how long I/O waits, and does not say everywhere by itself.
    pub needs: &'static [(&'static str, &'static str)],
}

/// The makers whose disks we may meet; Linux' own target first.
pub const MAKERS: [Maker; 4] = [
    Maker {
        vendor: "LIO-ORG",
        product: ".*",
        wwids: "36001405",
        needs: &[],
    },
    Maker {
        vendor: "NETAPP",
        product: "LUN.*",
        wwids: "3600a098",
        needs: &[],
    },
    Maker {
        vendor: "DGC",
        product: ".*",
        wwids: "36006016",
        needs: &[],
    },
    Maker {
        vendor: "EQLOGIC",
        product: "100E-00",
        wwids: "36090a0",
        // All ways are alike, and multipath would use one at a time. Built in from multipath-tools 0.13 on.
        needs: &[("path_grouping_policy", "multibus")],
    },
];

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
        let mut within = Vec::new();
        for line in text.lines().map(str::trim) {
            let (word, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            if value == "{" {
                within.push(word);
                if within == ["devices", "device"] {
                    settings.devices.push(BTreeMap::new());
                }
            } else if word == "}" {
                within.pop();
            } else {
                settings.take(&within, word, unquoted(value));
            }
        }
        settings
    }

    fn take(&mut self, within: &[&str], word: &str, value: &str) {
        let put = |section: &mut BTreeMap<String, String>| {
            section.insert(word.to_owned(), value.to_owned());
        };
        let ban = || Ban {
            kind: word.to_owned(),
            expression: value.to_owned(),
        };
        match within {
            ["defaults"] => put(&mut self.defaults),
            ["overrides"] => put(&mut self.overrides),
            ["devices", "device"] => self.devices.last_mut().into_iter().for_each(put),
            ["blacklist"] => self.blacklist.push(ban()),
            ["blacklist_exceptions"] => self.exceptions.push(ban()),
            ["blacklist", "device"] if word == "vendor" => self.blacklist.push(ban()),
            ["blacklist_exceptions", "device"] if word == "vendor" => self.exceptions.push(ban()),
            _ => {}
        }
    }

    /// What counts for all disks, unless something more special does.
    #[must_use]
    pub fn default_of(&self, word: &str) -> Option<&str> {
        self.defaults.get(word).map(String::as_str)
    }

    /// From one look at a failed path to the next, where it says so.
    #[must_use]
    pub fn polling_interval(&self) -> Option<Duration> {
        let seconds = self.default_of("polling_interval")?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// Whether `overrides` settles it for every disk.
    #[must_use]
    pub fn is_overridden(&self, word: &str) -> bool {
        self.overrides.contains_key(word)
    }

    /// What counts for disks of a vendor. Vendors are expressions (`(LIO-ORG|SUSE)`, `.*`): one that holds the name is taken for a match.
    #[must_use]
    pub fn value_for(&self, vendor: &str, word: &str) -> Option<&str> {
        let mut devices = self.devices_of(vendor).rev();
        let device = || devices.find_map(|section| section.get(word));
        let said = self.overrides.get(word).or_else(device);
        said.or_else(|| self.defaults.get(word)).map(String::as_str)
    }

    /// Whether there is a device section for the vendor itself.
    #[must_use]
    pub fn knows(&self, vendor: &str) -> bool {
        let named = |section: &BTreeMap<String, String>| {
            section.get("vendor").is_some_and(|it| it.contains(vendor))
        };
        self.devices.iter().any(named)
    }

    fn devices_of(
        &self,
        vendor: &str,
    ) -> impl DoubleEndedIterator<Item = &BTreeMap<String, String>> {
        let is_for = move |section: &&BTreeMap<String, String>| {
            let expression = section.get("vendor");
            expression.is_some_and(|it| it.contains(vendor) || it == ".*")
        };
        self.devices.iter().filter(is_for)
    }

    /// How many checks I/O waits for disks of a vendor, or another word; multipath's own default is `fail`.
    #[must_use]
    pub fn retry_for(&self, vendor: &str) -> &str {
        self.value_for(vendor, "no_path_retry").unwrap_or("fail")
    }

    /// The lines of the blacklist that disks of a maker fall under, all or some, and that no exception of the same kind takes back: multipath looks at each kind
    /// by itself. An expression that begins with `!` means all others (multipath.conf(5)).
    #[must_use]
    pub fn bans_on(&self, maker: &Maker) -> Vec<String> {
        let is_spared = |kind: &str| {
            let mut exceptions = self.exceptions.iter().filter(|it| it.kind == kind);
            exceptions.any(|exception| exception.meets(maker))
        };
        let bans = self.blacklist.iter().filter(|ban| ban.meets(maker));
        let bans = bans.filter(|ban| !is_spared(&ban.kind));
        bans.map(|ban| format!("{} \"{}\"", ban.kind, ban.expression))
            .collect()
    }
}

impl Ban {
    fn meets(&self, maker: &Maker) -> bool {
        let bare = self.expression.trim_start_matches('^');
        let bare = bare.trim_end_matches('$').trim_start_matches('(');
        if matches!(bare, ".*" | ".+" | "*" | "." | "") {
            return true;
        }
        match self.kind.as_str() {
            "devnode" => bare.starts_with("sd"),
            "vendor" => bare.contains(maker.vendor),
            "protocol" => bare == "scsi" || bare.starts_with("scsi:iscsi") || bare == "scsi:.*",
            // That of a single disk is its administrator's affair.
            "wwid" => maker.wwids.starts_with(bare.trim_end_matches(".*")),
            _ => false,
        }
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
\tpolling_interval 7
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
    const LIO: Maker = MAKERS[0];

    #[test]
    fn the_daemons_own_word_is_read() {
        let settings = Settings::parse(PRINTED);
        assert_eq!(settings.retry_for("LIO-ORG"), "12");
        assert_eq!(settings.retry_for("DGC"), "queue");
        assert_eq!(settings.retry_for("NETAPP"), "fail");
        assert_eq!(settings.default_of("find_multipaths"), Some("strict"));
        assert_eq!(settings.polling_interval(), Some(Duration::from_secs(7)));
        assert!(settings.knows("DGC") && !settings.knows("EQLOGIC"));
        assert_eq!(settings.bans_on(&LIO), [""; 0]);
        let overridden = PRINTED.replace("overrides {", "overrides {\n\tno_path_retry queue");
        let overridden = Settings::parse(&overridden);
        assert_eq!(overridden.retry_for("LIO-ORG"), "queue");
        assert!(overridden.is_overridden("no_path_retry") && !settings.is_overridden("x"));
    }

    #[test]
    fn the_last_section_that_says_something_counts() {
        let later = "devices {\n\tdevice {\n\t\tvendor \".*\"\n\t\tno_path_retry 7\n\t}\n\tdevice {\n\t\tvendor \"LIO-ORG\"\n\t\tuid_attribute ID_WWN\n\t}\n}\n";
        let settings = Settings::parse(&format!("{PRINTED}{later}"));
        assert_eq!(settings.retry_for("LIO-ORG"), "7");
        assert_eq!(settings.retry_for("EQLOGIC"), "7");
        let uid = |vendor| settings.value_for(vendor, "uid_attribute");
        assert_eq!((uid("LIO-ORG"), uid("DGC")), (Some("ID_WWN"), None));
    }

    fn bans(text: &str) -> Vec<String> {
        Settings::parse(text).bans_on(&LIO)
    }

    #[test]
    fn bans_on_all_disks_are_seen() {
        for ban in ["^sd[a-z]", "sda", ".*", "*", "^(sd|hd)"] {
            let text = format!("blacklist {{\n\tdevnode \"{ban}\"\n}}\n");
            assert_eq!(bans(&text), [format!("devnode \"{ban}\"")]);
        }
        for other in [
            "^(ram|zram|raw|loop|fd|md|dm-|sr|scd|st|dcssblk)[0-9]",
            "!^sd",
            "^hd",
        ] {
            let text = format!("blacklist {{\n\tdevnode \"{other}\"\n}}\n");
            assert_eq!(bans(&text), [""; 0], "{other}");
        }
    }

    #[test]
    fn bans_of_each_kind_are_seen_and_exceptions_of_that_kind_take_them_back() {
        for (ban, exception) in [
            ("protocol \"scsi:iscsi\"", "protocol \"scsi\""),
            ("wwid \".*\"", "wwid \"^36001405.*\""),
            ("wwid \"3600.*\"", "wwid \"*\""),
        ] {
            let text = format!("blacklist {{\n\t{ban}\n}}\n");
            assert_eq!(bans(&text), [ban]);
            let spared = format!("{text}blacklist_exceptions {{\n\t{exception}\n}}\n");
            assert_eq!(bans(&spared), [""; 0], "{exception}");
            let other = format!("{text}blacklist_exceptions {{\n\tproperty \"ID_WWN\"\n}}\n");
            assert_eq!(bans(&other), [ban], "an exception of another kind");
        }
        let device =
            "blacklist {\n\tdevice {\n\t\tvendor \"LIO-ORG\"\n\t\tproduct \".*\"\n\t}\n}\n";
        assert_eq!(bans(device), ["vendor \"LIO-ORG\""]);
        for other in [
            "wwid \"360014050000000000000000000000001\"",
            "protocol \"scsi:ata\"",
            "property \"ID_X\"",
        ] {
            let text = format!("blacklist {{\n\t{other}\n}}\n");
            assert_eq!(bans(&text), [""; 0], "{other}");
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
