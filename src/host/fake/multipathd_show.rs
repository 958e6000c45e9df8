//! What multipathd is asked and shows: raw formats with its wildcards, and JSON as `libmultipath/print.c` writes it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::disks::Sd;
use super::multipath_conf::POLLING_INTERVAL;
use super::multipathd::{DM, Map};
use super::state::State;

impl State {
    /// By hand: it stays so until it is taken back.
    pub(super) fn tell_fail(&mut self, disk: &str, failed: bool) -> String {
        let Some(id) = self.sds.values().find(|sd| sd.name() == disk) else {
            return "fail\ndevice not found\n".into();
        };
        let id = id.id;
        if failed {
            self.multipathd.failed.insert(id);
        } else {
            self.multipathd.failed.remove(&id);
        }
        self.maps_changed();
        self.event();
        "ok\n".into()
    }

    pub(super) fn show(&mut self, words: &[&str]) -> String {
        match words {
            ["daemon"] => "pid 4711 idle\n".into(),
            ["config"] => self.show_config(),
            ["status"] => "path checker states:\n".into(),
            ["paths", "raw", "format", format] => self.show_paths(format),
            ["maps" | "multipaths", "raw", "format", format] => self.show_maps(format),
            ["maps" | "multipaths", "json"] => {
                let maps: Vec<String> = self.maps.values().map(|map| self.json(map)).collect();
                format!(
                    "{{\n\"major_version\": 0,\n\"minor_version\": 1,\n\"maps\": [{}]\n}}\n",
                    maps.join(",")
                )
            }
            ["map" | "multipath", name, "json"] => match self.map_named(name) {
                Some(id) => format!(
                    "{{\n\"major_version\": 0,\n\"minor_version\": 1,\n\"map\": {}\n}}\n",
                    self.json(&self.maps[&id])
                ),
                None => "fail\ndevice not found\n".into(),
            },
            _ => "fail\n".into(),
        }
    }

    fn show_paths(&self, format: &str) -> String {
        let mut lines = String::new();
        for (id, wwid) in self.known_paths() {
            let Some(sd) = self.sds.get(&id) else {
                continue;
            };
            let map = self.maps.values().find(|map| map.paths.contains(&id));
            let works = self.path_works(id);
            let (major, minor) = sd.numbers();
            let values = BTreeMap::from([
                ('d', sd.name()),
                ('D', format!("{major}:{minor}")),
                ('w', wwid.to_string()),
                ('i', sd.hctl()),
                ('m', map.map_or("[orphan]".into(), |map| map.name.clone())),
                ('t', dm_state(map.is_some(), works).into()),
                ('T', check_state(works).into()),
                ('o', device_state(sd).into()),
                ('S', readable_size(sd.size)),
                ('I', "ok".into()),
                ('z', wwid.as_str()[1..].into()),
                ('p', "50".into()),
                ('n', self.target_of(sd)),
                ('s', "LIO-ORG,fake".into()),
            ]);
            lines.push_str(&fill(format, &values));
            lines.push('\n');
        }
        lines
    }

    fn show_maps(&self, format: &str) -> String {
        let mut lines = String::new();
        for map in self.maps.values() {
            let values = BTreeMap::from([
                ('n', map.name.clone()),
                ('w', map.wwid.to_string()),
                ('d', format!("dm-{}", map.minor)),
                ('D', format!("{DM}:{}", map.minor)),
                ('S', readable_size(map.size)),
                ('N', map.paths.len().to_string()),
                ('Q', self.queueing_word(map)),
                ('t', "active".into()),
            ]);
            lines.push_str(&fill(format, &values));
            lines.push('\n');
        }
        lines
    }

    fn queueing_word(&self, map: &Map) -> String {
        let works = map.paths.iter().any(|&path| self.path_works(path));
        match (map.queueing, self.multipathd.wait_of(&map.wwid)) {
            (false, _) | (true, Some(Duration::ZERO)) => "off".into(),
            (true, None) => "on".into(),
            (true, Some(span)) if works => {
                format!("{} chk", span.as_secs() / POLLING_INTERVAL.as_secs())
            }
            (true, Some(span)) => format!("{} sec", span.as_secs()),
        }
    }

    fn target_of(&self, sd: &Sd) -> String {
        let session = self.sessions.get(&sd.session);
        session.map_or_else(|| "[undef]".into(), |session| session.iqn.to_string())
    }

    fn json(&self, map: &Map) -> String {
        let present = map.paths.iter().filter_map(|id| self.sds.get(id));
        let paths: Vec<String> = present.map(|sd| self.path_json(sd)).collect();
        let group = if paths.is_empty() {
            String::new()
        } else {
            format!(
                "{{\"selector\": \"service-time 0\", \"pri\": 50, \"dm_st\": \"active\", \
                 \"marginal_st\": \"normal\", \"group\": 1, \"paths\": [{}]}}",
                paths.join(",")
            )
        };
        format!(
            "{{\"name\": \"{}\", \"uuid\": \"{}\", \"sysfs\": \"dm-{}\", \"failback\": \"immediate\", \
             \"queueing\": \"{}\", \"paths\": {}, \"write_prot\": \"rw\", \"dm_st\": \"active\", \
             \"features\": \"0\", \"hwhandler\": \"1 alua\", \"action\": \"\", \"path_faults\": 0, \
             \"vend\": \"LIO-ORG \", \"prod\": \"fake\", \"rev\": \"4.0 \", \"switch_grp\": 0, \
             \"map_loads\": 1, \"total_q_time\": 0, \"q_timeouts\": 0, \"path_groups\": [{group}]}}",
            map.name,
            map.wwid,
            map.minor,
            self.queueing_word(map),
            map.paths.len(),
        )
    }

    fn path_json(&self, sd: &Sd) -> String {
        let works = self.path_works(sd.id);
        let (major, minor) = sd.numbers();
        format!(
            "{{\"dev\": \"{}\", \"dev_t\": \"{major}:{minor}\", \"dm_st\": \"{}\", \"dev_st\": \"{}\", \
             \"chk_st\": \"{}\", \"checker\": \"tur\", \"pri\": 50, \"host_wwnn\": \"[undef]\", \
             \"target_wwnn\": \"{}\", \"host_wwpn\": \"[undef]\", \"target_wwpn\": \"[undef]\", \
             \"host_adapter\": \"[undef]\", \"lun_hex\": \"0x{:016x}\", \"marginal_st\": \"normal\"}}",
            sd.name(),
            dm_state(true, works),
            device_state(sd),
            check_state(works),
            self.target_of(sd),
            u64::from(sd.lun.0) << 48,
        )
    }
}

fn dm_state(in_map: bool, works: bool) -> &'static str {
    match (in_map, works) {
        (false, _) => "undef",
        (true, true) => "active",
        (true, false) => "failed",
    }
}

fn check_state(works: bool) -> &'static str {
    if works { "ready" } else { "faulty" }
}

fn device_state(sd: &Sd) -> &'static str {
    match sd.state.as_str() {
        "running" => "running",
        "blocked" => "blocked",
        _ => "offline",
    }
}

/// As multipathd prints sizes: rounded, with a unit.
fn readable_size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{}K", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{}M", bytes >> 20),
        _ => format!("{}.0G", bytes >> 30),
    }
}

/// Puts values in the place of their wildcards.
fn fill(format: &str, values: &BTreeMap<char, String>) -> String {
    let mut line = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            line.push(letter);
            continue;
        }
        let wildcard = letters.next();
        match wildcard.and_then(|wildcard| values.get(&wildcard)) {
            Some(value) => line.push_str(value),
            None => line.extend(wildcard),
        }
    }
    line
}

/// Words of a command; an argument with blanks stands in double quotes.
pub(super) fn split_words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}
