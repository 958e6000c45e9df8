//! The command line of a simulated group, as far as drivers use it.

use super::state::{Access, GIB, Group, Snap, Volume, is_change};

const MIB: u64 = 1 << 20;
/// Sizes are rounded up to this.
pub(super) const PAGE: u64 = 15 * MIB;
/// Names of volumes and snapshots have so many characters.
const LONGEST_NAME: usize = 64;
/// How wide the columns with names are.
const NAME_COLUMN: usize = 15;
const INITIATOR_COLUMN: usize = 29;

type Answer = Result<String, String>;

fn no<T>(text: impl Into<String>) -> Result<T, String> {
    Err(text.into())
}

fn absent(what: &str, name: &str) -> String {
    format!("{what} {name} does not exist.")
}

/// Words, of which those between quotes may have blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut is_word) = (String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                is_word = true;
            }
            ' ' if !quoted => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
            }
            letter => {
                word.push(letter);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// The word behind `key`.
fn option<'w>(words: &'w [&str], key: &str) -> Option<&'w str> {
    let at = words.iter().position(|word| *word == key)?;
    words.get(at + 1).copied()
}

/// `5G`, `5GB`, `512MB`, or a number of MB.
fn size(text: &str) -> Result<u64, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| format!("{text} is no size"))?;
    let unit = match unit {
        "" | "M" | "MB" => MIB,
        "G" | "GB" => GIB,
        "T" | "TB" => GIB << 10,
        _ => return no(format!("{text} is no size")),
    };
    match number * unit {
        0 => no("the size is too small"),
        size if size > 15 * (GIB << 10) => no("the size exceeds the maximum volume size"),
        size => Ok(size),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let may_stand = |it: char| it.is_ascii_alphanumeric() || ".-:".contains(it);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(may_stand) {
        return no(format!("{name} is not a valid name"));
    }
    Ok(())
}

/// The text broken into the lines of a column.
fn broken(text: &str, width: usize) -> (String, Vec<String>) {
    let letters: Vec<char> = text.chars().collect();
    let mut parts = letters.chunks(width).map(|part| part.iter().collect());
    (parts.next().unwrap_or_default(), parts.collect())
}

impl Group {
    /// What it prints.
    pub fn run(&mut self, line: &str) -> String {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.note_used();
        let mut answer = self.answer(&words);
        if is_change(line) {
            answer = answer.and_then(|text| self.followed().map(|()| text));
        }
        match answer {
            Ok(text) => text,
            Err(error) => format!("% Error - {error}\n"),
        }
    }

    fn answer(&mut self, words: &[&str]) -> Answer {
        match words {
            [] | ["stty", ..] | ["logout"] => Ok(String::new()),
            ["cli-settings", "displayinMB", on] => {
                self.in_mb = *on == "on";
                Ok(String::new())
            }
            [
                "cli-settings",
                "confirmation" | "paging" | "events" | "formatoutput",
                _,
            ] => Ok(String::new()),
            ["whoami"] => Ok("grpadmin\n".to_owned()),
            ["grpparams", "show"] => Ok(format!(
                "________________________ Group Information _________________________\nName: {}\nGroup-Ipaddress: {}\nGroup-Ipv6address: \n",
                self.name, self.address
            )),
            ["pool", "select", pool, "show"] => self.show_pool(pool),
            ["volume", "show"] => Ok(self.list()),
            ["volume", "create", name, size, options @ ..] => self.create(name, size, options),
            ["volume", "delete", name] => self.delete(name),
            ["volume", "rename", from, to] => self.rename(from, to),
            ["volume", "select", name, ..] if !self.volumes.contains_key(*name) => {
                no(absent("Volume", name))
            }
            ["volume", "select", name, "snapshot", rest @ ..] => self.snapshot(name, rest),
            ["volume", "select", name, "access", rest @ ..] => self.access(name, rest),
            ["volume", "select", name, rest @ ..] => self.select(name, rest),
            [first, ..] => no(format!("Bad command: {first}")),
        }
    }

    fn show_pool(&self, pool: &str) -> Answer {
        let (total, free, promised) = self.space(pool).ok_or_else(|| absent("Pool", pool))?;
        let volumes = self.volumes.values().filter(|it| it.pool == pool).count();
        Ok(format!(
            "Name: {pool}\nTotalVolumes: {volumes}\nTotalCapacity: {}\nFreeSpace: {}\nVolumeReportedSpace: {}\n",
            self.printed(total),
            self.printed(free),
            self.printed(promised)
        ))
    }

    fn list(&self) -> String {
        let mut text = format!(
            "{:<15} {:<10} {:<9} {:<7} {:<10} {:<11} {}\n--------------- ---------- --------- ------- ---------- ----------- -\n",
            "Name", "Size", "Snapshots", "Status", "Permission", "Connections", "T"
        );
        for (name, volume) in &self.volumes {
            let (first, rest) = broken(name, NAME_COLUMN);
            text += &format!(
                "{first:<15} {:<10} {:<9} {:<7} {:<10} {:<11} {}\n",
                self.printed(volume.size),
                volume.snapshots.len(),
                if volume.is_online {
                    "online"
                } else {
                    "offline"
                },
                "read-write",
                volume.connections,
                if volume.is_thin { "Y" } else { "N" }
            );
            for part in rest {
                text += &format!("  {part}\n");
            }
        }
        text
    }

    fn create(&mut self, name: &str, wanted: &str, options: &[&str]) -> Answer {
        check_name(name)?;
        if self.volumes.contains_key(name) {
            return no(format!("Volume {name} already exists."));
        }
        let size = size(wanted)?;
        let pool = option(options, "pool").unwrap_or("default");
        let is_thin = options.contains(&"thin-provision");
        let (_, free, _) = self.space(pool).ok_or_else(|| absent("Pool", pool))?;
        if !is_thin && size > free {
            return no("Not enough free space in the pool.");
        }
        let description = option(options, "description").unwrap_or_default();
        let target = self.target(name);
        let mut volume = Volume::new(target.clone(), pool, size);
        volume.is_thin = is_thin;
        volume.description = self.described(description);
        self.volumes.insert(name.to_owned(), volume);
        Ok(format!(
            "Volume creation succeeded.\niSCSI target name is {target}.\n"
        ))
    }

    fn delete(&mut self, name: &str) -> Answer {
        let volume = self
            .volumes
            .get(name)
            .ok_or_else(|| absent("Volume", name))?;
        if volume.is_online {
            return no(format!("Volume {name} is online; set it offline first."));
        }
        self.volumes.remove(name);
        Ok("Volume deletion succeeded.\n".to_owned())
    }

    fn rename(&mut self, from: &str, to: &str) -> Answer {
        check_name(to)?;
        if self.volumes.contains_key(to) {
            return no(format!("Volume {to} already exists."));
        }
        let volume = self
            .volumes
            .remove(from)
            .ok_or_else(|| absent("Volume", from))?;
        self.volumes.insert(to.to_owned(), volume);
        Ok("Volume rename succeeded.\n".to_owned())
    }

    fn select(&mut self, name: &str, rest: &[&str]) -> Answer {
        let done = Ok(String::new());
        match rest {
            ["show"] => return Ok(self.show(name)),
            ["clone", to, options @ ..] => {
                let volume = &self.volumes[name];
                let origin = (volume.target.clone(), volume.size, volume.used);
                return self.clone_of(origin, name, to, options);
            }
            _ => {}
        }
        let text = rest.get(1).map(|text| self.described(text));
        let volume = self
            .volumes
            .get_mut(name)
            .ok_or_else(|| absent("Volume", name))?;
        match rest {
            ["description", _] => volume.description = text.unwrap_or_default(),
            ["multihost-access", "enable"] => volume.is_shared = true,
            ["online"] => volume.is_online = true,
            ["offline"] => {
                volume.is_online = false;
                volume.connections = 0;
            }
            ["size", wanted, ..] => {
                let wanted = size(wanted)?;
                if wanted < volume.size {
                    return no("a volume that is online cannot shrink");
                }
                volume.size = wanted;
            }
            _ => return no(format!("Bad command: {}", rest.join(" "))),
        }
        done
    }

    fn show(&self, name: &str) -> String {
        let volume = &self.volumes[name];
        let status = if volume.is_online {
            "online"
        } else {
            "offline"
        };
        let depletion = if volume.loses_snapshots {
            "delete-oldest"
        } else {
            "volume-offline"
        };
        let reserve = volume.size.next_multiple_of(PAGE);
        format!(
            "_______________________________ Volume Information ________________________________\n\
             Name: {name}\nSize: {}\nVolReserve: {}\nVolReserveInUse: {}\nReplReserveInUse: 0MB\niSCSI Alias: {name}\niSCSI Name: {}\n\
             ActualMembers: 1\nSnap-Warn: 10%\nSnap-Depletion: {depletion}\nDescription: {}\nSnap-Reserve: 100%\nSnap-Reserve-Avail: 100% ({})\n\
             Permission: read-write\nDesiredStatus: {status}\nStatus: {status}\nConnections: {}\nSnapshots: {}\nBind: \nType: not-replicated\n\
             ReplicationReserveSpace: 0MB\nPool: {}\n",
            self.printed(volume.size),
            self.printed(reserve),
            self.printed(volume.used),
            volume.target,
            volume.description,
            self.printed(reserve),
            volume.connections,
            volume.snapshots.len(),
            volume.pool,
        )
    }

    fn clone_of(
        &mut self,
        (made_of, size, used): (String, u64, u64),
        of: &str,
        to: &str,
        options: &[&str],
    ) -> Answer {
        check_name(to)?;
        if self.volumes.contains_key(to) {
            return no(format!("Volume {to} already exists."));
        }
        let target = self.target(to);
        let origin = &self.volumes[of];
        let mut volume = Volume::new(target.clone(), &origin.pool, size);
        volume.made_of = Some(made_of);
        volume.is_thin = origin.is_thin;
        volume.used = used;
        let description = option(options, "description").unwrap_or(&origin.description);
        volume.description = self.described(description);
        self.volumes.insert(to.to_owned(), volume);
        Ok(format!(
            "Volume creation succeeded.\niSCSI target name is {target}.\n"
        ))
    }

    fn access(&mut self, name: &str, rest: &[&str]) -> Answer {
        let volume = self
            .volumes
            .get_mut(name)
            .ok_or_else(|| absent("Volume", name))?;
        match rest {
            ["show"] => {
                // A headline is what a public driver's reading of this table, by pairs of lines, counts on.
                let mut text = format!(
                    "________________________________ Access Records ________________________________\n{:<3} {:<29} {:<13} {:<10} {:<10} {}\n--- ----------------------------- ------------- ---------- ---------- --------\n",
                    "ID", "Initiator", "Ipaddress", "AuthMethod", "UserName", "Apply-To"
                );
                for (id, it) in &volume.access {
                    let (first, rest) = broken(&it.initiator, INITIATOR_COLUMN);
                    let method = if it.user.is_empty() { "none" } else { "chap" };
                    text += &format!(
                        "{id:<3} {first:<29} {:<13} {method:<10} {:<10} both\n",
                        it.address, it.user
                    );
                    for part in rest {
                        text += &format!("       {part}\n");
                    }
                }
                Ok(text)
            }
            ["create", options @ ..] => {
                let word = |key| option(options, key);
                let record = Access {
                    initiator: word("initiator").unwrap_or("*").to_owned(),
                    address: word("ipaddress").unwrap_or("*.*.*.*").to_owned(),
                    user: word("username").unwrap_or_default().to_owned(),
                };
                if volume.access.values().any(|it| *it == record) {
                    return no("an identical access control record already exists");
                }
                let free = (1..).find(|id| !volume.access.contains_key(id));
                let id = free.unwrap_or(u32::MAX);
                volume.access.insert(id, record);
                Ok(format!(
                    "Access control record creation succeeded.\nAccess control record ID is {id}.\n"
                ))
            }
            ["delete", id] => {
                let known: Option<u32> =
                    id.parse().ok().filter(|id| volume.access.contains_key(id));
                let id = known.ok_or_else(|| absent("Access record", id))?;
                volume.access.remove(&id);
                Ok("Access control record deletion succeeded.\n".to_owned())
            }
            _ => no(format!("Bad command: {}", rest.join(" "))),
        }
    }

    fn snapshot(&mut self, name: &str, rest: &[&str]) -> Answer {
        let there = |group: &Self, cut: &str| {
            let known = group.volumes[name].snapshots.get(cut).cloned();
            known.ok_or_else(|| absent("Snapshot", cut))
        };
        match rest {
            ["show"] => Ok(self.list_snapshots(name)),
            ["create-now", options @ ..] => Ok(self.cut(name, options)),
            ["rename", from, to] => {
                check_name(to)?;
                let cut = there(self, from)?;
                if there(self, to).is_ok() {
                    return no(format!("Snapshot {to} already exists."));
                }
                let of = self
                    .volumes
                    .get_mut(name)
                    .ok_or_else(|| absent("Volume", name))?;
                of.snapshots.remove(*from);
                of.snapshots.insert((*to).to_owned(), cut);
                Ok("Snapshot rename succeeded.\n".to_owned())
            }
            ["select", cut, "show"] => {
                let it = there(self, cut)?;
                let status = if it.is_online { "online" } else { "offline" };
                Ok(format!(
                    "______________________________ Snapshot Information _______________________________\n\
                     Name: {cut}\nSize: {}\niSCSI Name: {}\nDescription: {}\nPermission: read-write\nStatus: {status}\nConnections: 0\n",
                    self.printed(it.size),
                    it.target,
                    it.description
                ))
            }
            ["select", cut, "clone", to, options @ ..] => {
                let it = there(self, cut)?;
                let used = self.volumes[name].used;
                self.clone_of((it.target, it.size, used), name, to, options)
            }
            ["delete", cut] => {
                if there(self, cut)?.is_online {
                    return no(format!("Snapshot {cut} is online; set it offline first."));
                }
                let of = self
                    .volumes
                    .get_mut(name)
                    .ok_or_else(|| absent("Volume", name))?;
                of.snapshots.remove(*cut);
                Ok("Snapshot deletion succeeded.\n".to_owned())
            }
            _ => no(format!("Bad command: {}", rest.join(" "))),
        }
    }

    fn list_snapshots(&self, name: &str) -> String {
        let mut text = format!(
            "{:<29} {:<10} {:<8} {}\n----------------------------- ---------- -------- -----------\n",
            "Name", "Permission", "Status", "Connections"
        );
        for (cut, it) in &self.volumes[name].snapshots {
            let (first, rest) = broken(cut, INITIATOR_COLUMN);
            let status = if it.is_online { "online" } else { "offline" };
            text += &format!("{first:<29} {:<10} {status:<8} 0\n", "read-write");
            for part in rest {
                text += &format!("  {part}\n");
            }
        }
        text
    }

    fn cut(&mut self, name: &str, options: &[&str]) -> String {
        let number = self.next();
        let cut = format!(
            "{name}-2026-11-26-10:{:02}:{:02}.{number}",
            number / 60 % 60,
            number % 60
        );
        let cut: String = cut.chars().take(LONGEST_NAME).collect();
        let target = self.target(&cut);
        let given = option(options, "description").filter(|_| !self.forgets_descriptions);
        let description = self.described(given.unwrap_or_default());
        if let Some(volume) = self.volumes.get_mut(name) {
            let size = volume.size;
            volume.snapshots.insert(
                cut.clone(),
                Snap {
                    target,
                    size,
                    description,
                    is_online: false,
                },
            );
        }
        format!("Snapshot creation succeeded.\nSnapshot name is {cut}\n")
    }
}
