//! What multipathd reads in its configuration of single maps: `no_path_retry`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::multipathd::Multipathd;
use super::state::State;
use crate::fabric::{NoPathRetry, Wwid};

/// From one check of a path to the next, unless its configuration was made to say otherwise.
pub(super) const POLLING_INTERVAL: Duration = Duration::from_secs(5);

impl Multipathd {
    /// How long I/O to a map waits; `None` is for ever.
    pub(super) fn wait_of(&self, wwid: &Wwid) -> Option<Duration> {
        match self.retries.get(wwid) {
            None => self.no_path_retry,
            Some(NoPathRetry::Fail) => Some(Duration::ZERO),
            Some(NoPathRetry::Checks(checks)) => Some(POLLING_INTERVAL * *checks),
            Some(NoPathRetry::Queue) => None,
        }
    }
}

impl State {
    /// From one check of a path to the next, by its configuration.
    pub(super) fn polling_interval(&self) -> Duration {
        let mut lines = self.multipath_words.lines().map(str::trim);
        let said = lines.find_map(|line| line.strip_prefix("polling_interval ")?.parse().ok());
        said.map_or(POLLING_INTERVAL, Duration::from_secs)
    }

    /// The `multipath` entries in the files of its directory, of which the last one counts. Whatever it was told of a map is forgotten.
    pub(super) fn read_multipath_conf(&mut self) {
        let folder = Path::new("/etc/multipath/conf.d");
        let names = self.tree.list(folder).unwrap_or_default();
        let is_read = |path: &PathBuf| path.extension().is_some_and(|it| it == "conf");
        let mut retries = BTreeMap::new();
        for path in names.iter().map(|name| folder.join(name)).filter(is_read) {
            let text = self.tree.text(&path).unwrap_or_default();
            let mut wwid = None;
            for line in text.lines().map(str::trim) {
                match line.split_once(' ') {
                    Some(("multipath", "{")) => wwid = None,
                    Some(("wwid", word)) => wwid = word.trim_matches('"').parse::<Wwid>().ok(),
                    Some(("no_path_retry", word)) => {
                        retries.extend(wwid.clone().zip(word.parse().ok()));
                    }
                    _ => {}
                }
            }
        }
        self.multipathd.retries = retries;
        for map in self.maps.values_mut() {
            map.queueing = true;
        }
        self.event();
    }

    /// Tabs, and quotes around words (`libmultipath/print.c`, `snprint_mpentry`).
    pub(super) fn show_config(&self) -> String {
        let retry = match self.multipathd.no_path_retry {
            None => "\"queue\"".to_owned(),
            Some(Duration::ZERO) => "\"fail\"".to_owned(),
            Some(span) => (span.as_secs() / POLLING_INTERVAL.as_secs()).to_string(),
        };
        let mut text = format!("defaults {{\n\tno_path_retry {retry}\n}}\nblacklist {{\n");
        for ban in &self.multipathd.bans {
            text.push_str(&format!("\tdevnode \"{ban}\"\n"));
        }
        text.push_str("}\nmultipaths {\n");
        for (wwid, retry) in &self.multipathd.retries {
            let word = match retry {
                NoPathRetry::Checks(checks) => checks.to_string(),
                word => format!("\"{word}\""),
            };
            text.push_str(&format!(
                "\tmultipath {{\n\t\twwid \"{wwid}\"\n\t\tno_path_retry {word}\n\t}}\n"
            ));
        }
        let lio = "devices {\n\tdevice {\n\t\tvendor \"(LIO-ORG|SUSE)\"\n\t}\n}\n";
        text + "}\n" + lio + &self.multipath_words
    }
}
