//! LVM's tools that behave, for tests: one group with one thin pool, its volumes, and the device mapper's view of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::{Command, Output};

pub(super) const GROUP: &str = "san-vg";
pub(super) const POOL: &str = "thin";

/// One logical volume.
#[derive(Clone, Default)]
pub(super) struct FakeVolume {
    pub(super) size: u64,
    tags: BTreeSet<String>,
    pub(super) is_active: bool,
    /// The size of the plain device on top of it, if it has one.
    pub(super) top: Option<u64>,
    /// What the device on top will be when it is resumed.
    loaded: Option<u64>,
    pub(super) is_suspended: bool,
    /// What was written to it, one after the other.
    pub(super) writes: Vec<u64>,
}

/// The group.
pub(super) struct FakeLvm {
    pub(super) volumes: BTreeMap<String, FakeVolume>,
    pool_tags: BTreeSet<String>,
    pub(super) when_full: &'static str,
    pub(super) zero: &'static str,
    pub(super) extent: u64,
    pub(super) data_percent: &'static str,
    pub(super) metadata_percent: &'static str,
    /// The disks of the group are not there.
    pub(super) is_missing: bool,
    /// The cut with this number fails, counted from the next.
    pub(super) fail_cut: Option<u32>,
}

impl Default for FakeLvm {
    fn default() -> Self {
        Self {
            volumes: BTreeMap::new(),
            pool_tags: BTreeSet::new(),
            when_full: "queue",
            zero: "zero",
            extent: 1 << 20,
            data_percent: "0.00",
            metadata_percent: "10.00",
            is_missing: false,
            fail_cut: None,
        }
    }
}

fn ok(stdout: String) -> Output {
    Output {
        code: Some(0),
        stdout,
        stderr: String::new(),
    }
}

fn refused(why: &str) -> Output {
    Output {
        code: Some(5),
        stdout: String::new(),
        stderr: format!("  {why}\n"),
    }
}

/// The arguments of a command, as pairs where a value follows.
struct Asked(Vec<String>);

impl Asked {
    fn has(&self, flag: &str) -> bool {
        self.0.iter().any(|argument| argument == flag)
    }

    fn all(&self, option: &str) -> Vec<String> {
        let pairs = self.0.windows(2).filter(|pair| pair[0] == option);
        pairs.map(|pair| pair[1].clone()).collect()
    }

    fn one(&self, option: &str) -> String {
        self.all(option).remove(0)
    }

    fn bytes(&self, option: &str) -> u64 {
        self.one(option).trim_end_matches('b').parse().unwrap()
    }

    /// The volume that the last argument names.
    fn volume(&self) -> String {
        let last = self.0.last().unwrap();
        last.strip_prefix(&format!("{GROUP}/")).unwrap().to_owned()
    }
}

impl FakeLvm {
    /// What a reboot leaves: no device.
    pub(super) fn reboot(&mut self) {
        for volume in self.volumes.values_mut() {
            (volume.is_active, volume.top, volume.loaded) = (false, None, None);
            volume.is_suspended = false;
        }
    }

    pub(super) fn run(&mut self, command: &Command) -> Output {
        let asked = Asked(command.arguments.clone());
        if command.program == "dmsetup" {
            return self.dmsetup(&asked);
        }
        assert!(asked.one("--config").contains("scan_lvs=0"), "{command}");
        if self.is_missing {
            return refused("Volume group \"san-vg\" not found");
        }
        if command.program == "vgs" {
            return ok("  /dev/vdb\n  [unknown]\n".to_owned());
        }
        assert_eq!(asked.one("--devices"), "/dev/vdb", "{command}");
        match command.program {
            "lvs" => self.lvs(),
            "lvcreate" => self.lvcreate(&asked),
            "lvextend" => self.with(&asked.volume(), |volume| {
                assert!(
                    asked.bytes("-L") > volume.size,
                    "LVM would refuse or shrink"
                );
                volume.size = asked.bytes("-L");
            }),
            "lvremove" => match self.volumes.remove(&asked.volume()) {
                Some(volume) => {
                    assert_eq!(volume.top, None, "it is in use");
                    ok(String::new())
                }
                None => refused("Failed to find logical volume"),
            },
            "lvchange" => self.lvchange(&asked),
            "lvrename" => self.lvrename(&asked),
            other => panic!("no such tool: {other}"),
        }
    }

    fn with(&mut self, name: &str, change: impl FnOnce(&mut FakeVolume)) -> Output {
        match self.volumes.get_mut(name) {
            Some(volume) => {
                change(volume);
                ok(String::new())
            }
            None => refused("Failed to find logical volume"),
        }
    }

    fn lvs(&self) -> Output {
        let row = |name: &str, size: u64, tags: &BTreeSet<String>, active: bool, more: &str| {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            format!(
                r#"{{"lv_name":"{name}","lv_size":"{size}","lv_tags":"{}","lv_active":"{}","vg_missing_pv_count":"0","vg_extent_size":"{}",{more}}}"#,
                tags.join(","),
                if active { "active" } else { "" },
                self.extent,
            )
        };
        let pool = format!(
            r#""segtype":"thin-pool","zero":"{}","lv_when_full":"{}","data_percent":"{}","metadata_percent":"{}""#,
            self.zero, self.when_full, self.data_percent, self.metadata_percent
        );
        let thin = r#""segtype":"thin","pool_lv":"thin","zero":"","lv_when_full":"","data_percent":"","metadata_percent":"""#;
        let mut rows = vec![row(POOL, 1 << 30, &self.pool_tags, true, &pool)];
        let volumes = self.volumes.iter();
        rows.extend(volumes.map(|(name, one)| row(name, one.size, &one.tags, one.is_active, thin)));
        let rows = rows.join(",");
        ok(format!(r#"{{"report":[{{"lv":[{rows}]}}]}}"#))
    }

    fn lvcreate(&mut self, asked: &Asked) -> Output {
        let name = asked.one("-n");
        if self.volumes.contains_key(&name) {
            return refused("already exists in volume group");
        }
        let mut made = if asked.has("-s") {
            if let Some(left) = &mut self.fail_cut {
                if *left == 0 {
                    return refused("free space in thin pool reached threshold");
                }
                *left -= 1;
            }
            let Some(origin) = self.volumes.get(&asked.volume()) else {
                return refused("Failed to find logical volume");
            };
            FakeVolume {
                size: origin.size,
                writes: origin.writes.clone(),
                ..FakeVolume::default()
            }
        } else {
            FakeVolume {
                size: asked.bytes("-V"),
                is_active: true,
                ..FakeVolume::default()
            }
        };
        made.tags = asked.all("--addtag").into_iter().collect();
        self.volumes.insert(name, made);
        ok(String::new())
    }

    fn lvrename(&mut self, asked: &Asked) -> Output {
        let new = asked.volume();
        let old = asked.0[asked.0.len() - 2].clone();
        let old = old.strip_prefix(&format!("{GROUP}/")).unwrap();
        if self.volumes.contains_key(&new) {
            return refused("already exists in volume group");
        }
        match self.volumes.remove(old) {
            Some(volume) => {
                assert_eq!(volume.top, None, "it is in use");
                self.volumes.insert(new, volume);
                ok(String::new())
            }
            None => refused("Failed to find logical volume"),
        }
    }

    /// A thin volume that somebody made by hand.
    pub(super) fn add_by_hand(&mut self, name: &str, size: u64, is_active: bool) {
        let made = FakeVolume {
            size,
            is_active,
            writes: vec![1],
            ..FakeVolume::default()
        };
        self.volumes.insert(name.to_owned(), made);
    }

    fn lvchange(&mut self, asked: &Asked) -> Output {
        let name = asked.volume();
        if name == POOL {
            self.pool_tags.extend(asked.all("--addtag"));
            if asked.has("--errorwhenfull") {
                self.when_full = "error";
            }
            return ok(String::new());
        }
        self.with(&name, |volume| {
            if asked.has("-a") {
                volume.is_active = asked.one("-a") == "y";
            }
            for tag in asked.all("--deltag") {
                volume.tags.remove(&tag);
            }
            volume.tags.extend(asked.all("--addtag"));
        })
    }

    fn dmsetup(&mut self, asked: &Asked) -> Output {
        let prefix = format!("{}-", GROUP.replace('-', "--"));
        let active = self.volumes.iter().filter(|(_, one)| one.is_active);
        match asked.0[0].as_str() {
            "status" => {
                let line = |(name, one): (&String, &FakeVolume)| {
                    let mapped = one.writes.len() * 128;
                    format!("{prefix}{name}: 0 {} thin {mapped} 127\n", one.size / 512)
                };
                let other = "other: 0 2048 thin 128 127\n".to_owned();
                ok(active.map(line).chain([other]).collect())
            }
            "table" => {
                let line = |(name, one): (&String, &FakeVolume)| {
                    let sectors = one.top? / 512;
                    Some(format!(
                        "sanpath-{prefix}{name}: 0 {sectors} linear 254:3 0\n"
                    ))
                };
                let other = "other: 0 2048 linear 8:0 2048\n".to_owned();
                ok(self
                    .volumes
                    .iter()
                    .filter_map(line)
                    .chain([other])
                    .collect())
            }
            "info" => {
                let tops = self.volumes.iter().filter(|(_, one)| one.top.is_some());
                let line = |(name, one): (&String, &FakeVolume)| {
                    let state = if one.is_suspended {
                        "Suspended"
                    } else {
                        "Active"
                    };
                    format!("sanpath-{prefix}{name} {state}\n")
                };
                ok(tops.map(line).collect())
            }
            verb => {
                let prefix = format!("sanpath-{prefix}");
                let device = asked.0.iter().find_map(|one| one.strip_prefix(&prefix));
                let volume = self.volumes.get_mut(device.unwrap());
                match volume.filter(|one| verb == "create" || one.top.is_some()) {
                    Some(volume) => top(volume, verb, &asked.all("--table")),
                    None => refused("Device sanpath-x not found"),
                }
            }
        }
    }
}

/// What `dmsetup` does with the device on top of a volume.
fn top(volume: &mut FakeVolume, verb: &str, table: &[String]) -> Output {
    let sectors = table.first().map(|table| {
        let sectors = table.strip_prefix("0 ").unwrap().split_once(' ').unwrap().0;
        sectors.parse::<u64>().unwrap() * 512
    });
    assert!(sectors.is_none_or(|size| size <= volume.size && volume.is_active));
    match verb {
        "create" => volume.top = sectors,
        "reload" => volume.loaded = sectors,
        "remove" => volume.top = None,
        "suspend" => volume.is_suspended = true,
        "resume" => {
            volume.is_suspended = false;
            volume.top = volume.loaded.take().or(volume.top);
        }
        other => panic!("dmsetup {other}"),
    }
    ok(String::new())
}
