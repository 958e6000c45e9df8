//! The host's tools, as far as sanpath starts them: what they do to the fake host, their exit codes and their words.

use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::devices::Device;
use super::disks::Trouble;
use super::filesystems::{Super, probe};
use super::state::{Fault, State};
use crate::host::{Command, Output};

/// How a tool goes on after its start.
pub(super) enum Work {
    Done(Output),
    /// It takes `span` and then does this.
    Busy {
        span: Duration,
        then: Box<dyn FnOnce(&mut State) -> Output + Send>,
    },
    /// There is no such program.
    Missing,
}

pub(super) fn ended(code: i32, stdout: &str, stderr: &str) -> Output {
    Output {
        code: Some(code),
        stdout: stdout.to_owned(),
        stderr: stderr.to_owned(),
    }
}

impl State {
    /// Starts a tool for `process`.
    pub(super) fn start_tool(&mut self, command: &Command, process: u64) -> Work {
        match self.take_fault(command.program) {
            Some(Fault::Exit(code, words)) => return Work::Done(ended(code, "", words)),
            Some(Fault::Errno(errno)) => return Work::Done(ended(1, "", errno.desc())),
            Some(Fault::Overdue) => {
                let command = command.clone();
                return Work::Busy {
                    span: command.timeout + Duration::from_secs(1),
                    then: Box::new(move |state| match state.tool(&command, process, false) {
                        Work::Done(output) => output,
                        Work::Busy { then, .. } => then(state),
                        Work::Missing => Output::default(),
                    }),
                };
            }
            Some(Fault::CrashHalfway) => return self.tool(command, process, true),
            Some(Fault::Reply(words)) => return Work::Done(ended(0, words, "")),
            None => {}
        }
        self.tool(command, process, false)
    }

    fn tool(&mut self, command: &Command, process: u64, torn: bool) -> Work {
        let arguments: Vec<&str> = command.arguments.iter().map(String::as_str).collect();
        let last = Path::new(arguments.last().copied().unwrap_or_default());
        Work::Done(match command.program {
            "iscsiadm" => return self.iscsiadm(&arguments),
            "multipath" => self.multipath(&arguments),
            "blkid" => self.blkid(&arguments, last),
            "cryptsetup" => {
                let output = self.cryptsetup(command, torn);
                if torn {
                    self.dead.insert(process);
                }
                output
            }
            "mkfs.ext4" | "mkfs.xfs" | "mkfs.btrfs" => {
                let output = self.mkfs(command, last, torn);
                if torn {
                    self.dead.insert(process);
                }
                output
            }
            "e2fsck" | "fsck.ext4" | "fsck" | "fsck.xfs" | "fsck.btrfs" => self.fsck(last),
            "xfs_repair" | "dumpe2fs" | "tune2fs" => ended(0, "", ""),
            "resize2fs" => {
                let device = arguments.iter().find(|argument| argument.starts_with('/'));
                self.grow(Path::new(device.copied().unwrap_or_default()))
            }
            "xfs_growfs" | "btrfs" => self.grow_mounted(last),
            "fstrim" if self.mounts.at(last).is_some() => {
                let text = format!("{}: 4 KiB (4096 bytes) trimmed\n", last.display());
                ended(0, &text, "")
            }
            "fstrim" => ended(1, "", "not a mount point"),
            "udevadm" if arguments.contains(&"settle") => {
                self.violation(format!("{command}"));
                ended(0, "", "")
            }
            "udevadm" | "true" | "sync" => ended(0, "", ""),
            "dmsetup" | "kpartx" | "mount" | "umount" | "multipathd" => {
                self.violation(format!("{command}"));
                ended(1, "", "not for us")
            }
            _ => return Work::Missing,
        })
    }

    fn multipath(&mut self, arguments: &[&str]) -> Output {
        match arguments {
            ["-a", wwid] if self.is_blacklisted(wwid) => ended(1, "", ""),
            ["-v3", "-a", wwid] if self.is_blacklisted(wwid) => {
                ended(1, "", &format!("9.1 | {wwid}: wwid {wwid} blacklisted\n"))
            }
            ["-a", wwid] | ["-v3", "-a", wwid] => {
                self.claim(wwid);
                ended(0, &format!("wwid '{wwid}' added\n"), "")
            }
            ["-w", wwid] => {
                let path = "/etc/multipath/wwids";
                let text = self.tree.text(path.as_ref()).unwrap_or_default();
                let line = format!("/{wwid}/");
                let kept: Vec<&str> = text.lines().filter(|kept| **kept != line).collect();
                self.tree.put_text(path, kept.join("\n") + "\n");
                ended(0, &format!("wwid '{wwid}' removed\n"), "")
            }
            _ => {
                self.violation(format!("multipath {}", arguments.join(" ")));
                ended(1, "", "")
            }
        }
    }

    fn is_blacklisted(&self, wwid: &str) -> bool {
        let blacklist = &self.multipathd.blacklist;
        blacklist.iter().any(|listed| listed.as_str() == wwid)
    }

    fn blkid(&mut self, arguments: &[&str], device: &Path) -> Output {
        let low_level = arguments.iter().any(|argument| argument.starts_with("-p"));
        if !low_level {
            self.violation("blkid without -p answers from its cache");
        }
        let Ok(found) = self.device_at(device) else {
            return ended(2, "", "");
        };
        let Ok(disk) = self.disk_under(found) else {
            return ended(2, "", "");
        };
        let Ok(signatures) = self.seen_through(found, disk, probe) else {
            return ended(2, "", "");
        };
        match signatures.as_slice() {
            [] => ended(2, "", ""),
            [(key, value)] => {
                let usage = if *key == "TYPE" {
                    "USAGE=filesystem\n"
                } else {
                    ""
                };
                let name = device.display();
                ended(0, &format!("DEVNAME={name}\n{key}={value}\n{usage}"), "")
            }
            _ => ended(8, "", "blkid: ambivalent result detected\n"),
        }
    }

    fn mkfs(&mut self, command: &Command, device: &Path, torn: bool) -> Output {
        let kind = command.program.trim_start_matches("mkfs.");
        let kind = ["ext4", "xfs", "btrfs"]
            .into_iter()
            .find(|known| *known == kind)
            .expect("dispatched by name");
        let no_device = || ended(1, "", "the device is not there");
        let Ok(found) = self.device_at(device) else {
            return no_device();
        };
        let (Ok(disk), Some(size)) = (self.disk_under(found), self.size_of(found)) else {
            return no_device();
        };
        if self.mounts.of_device(found).next().is_some() {
            return ended(1, "", "is mounted; will not make a filesystem here!");
        }
        self.check_use(found, "mkfs");
        let wwid = self.san.disk(disk).wwid.clone();
        let holds_data = self.seen_through(found, disk, |backing| {
            !backing.is_blank() && !backing.torn && !backing.fresh
        });
        if holds_data {
            self.violation(format!(
                "{} on {wwid}, which holds something",
                command.program
            ));
        }
        let mut uuid = [0; 16];
        uuid[8..].copy_from_slice(&self.serial().to_be_bytes());
        uuid[0] = 0xfa;
        self.change_through(found, disk, |disk| {
            disk.wipe();
            // Tables and journal first, the superblock last.
            disk.write(1 << 20, b"tables");
            disk.torn = torn;
            disk.fresh = !torn;
            if torn {
                return ended(1, "", "cut off");
            }
            Super { kind, size, uuid }.write(disk);
            ended(0, "", "")
        })
    }

    fn fsck(&mut self, device: &Path) -> Output {
        let Ok(found) = self.device_at(device) else {
            return ended(8, "", "no such device");
        };
        self.check_use(found, "fsck");
        if self.mounts.of_device(found).any(|mount| !mount.is_node) {
            self.violation(format!("fsck of {} while it is mounted", device.display()));
        }
        match self.disk_under(found) {
            Ok(_) => ended(0, "clean\n", ""),
            Err(_) => ended(8, "", "Input/output error"),
        }
    }

    fn grow(&mut self, device: &Path) -> Output {
        let Ok(found) = self.device_at(device) else {
            return ended(1, "", "no such device");
        };
        self.grow_device(found)
    }

    fn grow_mounted(&mut self, at: &Path) -> Output {
        let mount = self.tree.resolve(at, true).ok();
        let device = mount.and_then(|at| self.mounts.at(&at)?.device);
        match device {
            Some(device) => self.grow_device(device),
            None => ended(1, "", "is not a mounted filesystem"),
        }
    }

    fn grow_device(&mut self, device: Device) -> Output {
        self.check_use(device, "grow");
        let (Ok(disk), Some(size)) = (self.disk_under(device), self.size_of(device)) else {
            return ended(1, "", "Input/output error");
        };
        let Ok(Some(found)) = self.seen_through(device, disk, Super::read) else {
            return ended(1, "", "Bad magic number in super-block");
        };
        let grown = Super {
            size: size.max(found.size),
            ..found
        };
        self.change_through(device, disk, |disk| grown.write(disk));
        ended(0, "", "")
    }

    /// The map that a device is or lies on.
    pub(super) fn map_under(&self, device: Device) -> Option<u64> {
        match device {
            Device::Map(id) => Some(id),
            Device::Sd(_) => None,
            Device::Crypt(id) => self.map_under(self.crypts.get(&id)?.under),
        }
    }

    /// Writes out a map's dirty pages.
    pub(super) fn flush(&mut self, path: &Path) -> Result<(), Trouble> {
        let device = self.device_at(path).map_err(super::mounts::failed)?;
        let Some(id) = self.map_under(device) else {
            return Ok(());
        };
        let dirty = self.maps.get(&id).is_some_and(|map| map.dirty);
        if !dirty {
            return Ok(());
        }
        self.disk_behind_map(id)?;
        if let Some(map) = self.maps.get_mut(&id) {
            map.dirty = false;
        }
        Ok(())
    }
}

/// The trouble as an error of a call that ended.
pub(super) fn ends(trouble: Trouble) -> Option<Errno> {
    match trouble {
        Trouble::Held => None,
        Trouble::Failed(errno) => Some(errno),
    }
}
