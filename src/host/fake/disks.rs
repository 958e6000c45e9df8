//! SCSI disks as the kernel shows them, and where their I/O ends.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::san::{DiskId, PortalState};
use super::sessions::SessionState;
use super::state::State;
use super::tree::Node;
use crate::fabric::{Lun, Wwid};

#[derive(Clone, Debug)]
pub(super) struct Sd {
    pub(super) id: u64,
    pub(super) session: u32,
    pub(super) host: u32,
    pub(super) lun: Lun,
    /// The n-th name: `sda` is 0.
    index: u32,
    /// As the kernel learned it at the last scan or rescan.
    pub(super) wwid: Wwid,
    pub(super) size: u64,
    pub(super) state: String,
    /// The block device is there.
    pub(super) ready: bool,
    /// The noted names are not all that it has.
    pub(super) note_is_cut: bool,
}

impl Sd {
    pub(super) fn name(&self) -> String {
        let mut rest = self.index;
        let mut letters = Vec::new();
        loop {
            letters.push(char::from(
                b'a' + u8::try_from(rest % 26).expect("below 26"),
            ));
            rest /= 26;
            if rest == 0 {
                break;
            }
            rest -= 1;
        }
        format!("sd{}", letters.iter().rev().collect::<String>())
    }

    pub(super) fn numbers(&self) -> (u32, u32) {
        let group = self.index / 16;
        let major = if group == 0 { 8 } else { 64 + group };
        (major, self.index % 16 * 16)
    }

    pub(super) fn hctl(&self) -> String {
        format!("{}:0:0:{}", self.host, self.lun)
    }

    /// Without all of its names the kernel's ALUA handler refuses it, and with it the whole table.
    pub(super) fn can_be_a_path(&self) -> bool {
        self.size > 0 && !self.note_is_cut
    }

    /// Its directory in `/sys/devices`.
    pub(super) fn device(&self) -> PathBuf {
        let (host, session) = (self.host, self.session);
        let place = format!("/sys/devices/platform/host{host}/session{session}/target{host}:0:0");
        PathBuf::from(place).join(self.hctl())
    }

    fn block(&self) -> PathBuf {
        self.device().join("block").join(self.name())
    }
}

/// Why I/O to a device does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It does not end at all, for now.
    Held,
    /// It ends with this error.
    Failed(Errno),
}

impl State {
    pub(super) fn add_disk(&mut self, session: u32, lun: Lun, disk: DiskId) {
        let used: BTreeSet<u32> = self.sds.values().map(|sd| sd.index).collect();
        let index = (0..).find(|index| !used.contains(index)).expect("endless");
        let id = self.serial();
        let host = self.sessions[&session].host();
        let backing = self.san.disk(disk);
        let sd = Sd {
            id,
            session,
            host,
            lun,
            index,
            wwid: backing.wwid.clone(),
            size: backing.size,
            state: "running".into(),
            ready: false,
            note_is_cut: self.notes_are_cut,
        };
        self.show_scsi_device(&sd);
        self.sds.insert(id, sd);
        self.event();
        let pause = self.delays.disk;
        self.later(pause, move |state| state.block_device_appears(id));
    }

    fn show_scsi_device(&mut self, sd: &Sd) {
        let at = sd.device();
        let hctl = sd.hctl();
        let tree = &mut self.tree;
        for (name, value) in [
            ("state", "running"),
            ("vendor", "LIO-ORG "),
            ("model", "fake            "),
            ("rev", "4.0 "),
            ("type", "0"),
            ("queue_depth", "128"),
            ("timeout", "30"),
            ("ioerr_cnt", "0x1f"),
        ] {
            tree.put_text(at.join(name), format!("{value}\n"));
        }
        for name in ["delete", "rescan"] {
            tree.put_text(at.join(name), "");
        }
        for class in ["scsi_device", "scsi_disk"] {
            let place = at.join(class).join(&hctl);
            tree.put_link(place.join("device"), at.clone());
            tree.put_link(format!("/sys/class/{class}/{hctl}"), place);
        }
        tree.put_link(format!("/sys/bus/scsi/devices/{hctl}"), at);
        self.show_identity(sd);
    }

    fn show_identity(&mut self, sd: &Sd) {
        // Of every second disk that comes too early nothing is noted at all.
        if sd.note_is_cut && sd.index.is_multiple_of(2) {
            return;
        }
        let at = sd.device();
        self.tree
            .put_text(at.join("wwid"), format!("naa.{}\n", &sd.wwid.as_str()[1..]));
        let noted = if sd.note_is_cut {
            vec![0, 0x83, 0, 0]
        } else {
            page_83(&sd.wwid)
        };
        let pages = [("vpd_pg80", page_80(&sd.wwid)), ("vpd_pg83", noted)];
        for (name, page) in pages {
            self.tree.put(at.join(name), Node::File(page));
        }
    }

    fn block_device_appears(&mut self, id: u64) {
        if !self.sds.contains_key(&id) {
            return;
        }
        // The probe reads the capacity first; while I/O is held or fails there is no disk.
        if self.disk_behind(id).is_err() {
            let pause = Duration::from_secs(1);
            return self.later(pause, move |state| state.block_device_appears(id));
        }
        let sd = self.sds.get_mut(&id).expect("looked for above");
        sd.ready = true;
        let sd = sd.clone();
        let (name, at, (major, minor)) = (sd.name(), sd.block(), sd.numbers());
        let tree = &mut self.tree;
        tree.put_link(at.join("device"), sd.device());
        for directory in ["holders", "slaves"] {
            tree.put(at.join(directory), Node::Directory);
        }
        for (attribute, value) in [
            ("dev", format!("{major}:{minor}")),
            ("size", (sd.size / 512).to_string()),
            ("ro", "0".into()),
            ("removable", "0".into()),
            ("diskseq", id.to_string()),
            ("queue/logical_block_size", "512".into()),
        ] {
            tree.put_text(at.join(attribute), format!("{value}\n"));
        }
        tree.put_link(at.join("subsystem"), "/sys/class/block");
        tree.put_link(format!("/sys/block/{name}"), at.clone());
        tree.put_link(format!("/sys/class/block/{name}"), at.clone());
        tree.put_link(format!("/sys/dev/block/{major}:{minor}"), at);
        tree.put(format!("/dev/{name}"), Node::Device(major, minor));
        self.event();
        self.udev(move |state| state.udev_done(id));
    }

    fn udev_done(&mut self, id: u64) {
        let Some(sd) = self.sds.get(&id) else {
            return;
        };
        let (major, minor) = sd.numbers();
        let serial = sd.wwid.clone();
        let claimed = if self.would_claim(&serial) {
            "E:DM_MULTIPATH_DEVICE_PATH=1\n"
        } else {
            ""
        };
        self.tree.put_text(
            format!("/run/udev/data/b{major}:{minor}"),
            format!("I:1\nE:ID_SERIAL={serial}\nE:ID_BUS=scsi\n{claimed}G:systemd\n"),
        );
        self.event();
        let pause = self.delays.multipathd;
        self.later(pause, move |state| state.multipathd_sees(id));
    }

    /// Takes a disk from the host, whatever uses it.
    pub(super) fn remove_disk(&mut self, id: u64) {
        let Some(sd) = self.sds.remove(&id) else {
            return;
        };
        let (name, (major, minor)) = (sd.name(), sd.numbers());
        let hctl = sd.hctl();
        for gone in [
            format!("/sys/block/{name}"),
            format!("/sys/class/block/{name}"),
            format!("/sys/dev/block/{major}:{minor}"),
            format!("/dev/{name}"),
            format!("/run/udev/data/b{major}:{minor}"),
            format!("/sys/class/scsi_device/{hctl}"),
            format!("/sys/class/scsi_disk/{hctl}"),
            format!("/sys/bus/scsi/devices/{hctl}"),
        ] {
            self.tree.clear(gone);
        }
        self.tree.clear(sd.device());
        self.maps_changed();
        self.event();
        let pause = self.delays.multipathd;
        self.later(pause, move |state| state.multipathd_loses(id));
    }

    /// A write to `…/device/delete` by sanpath.
    pub(super) fn delete_disk(&mut self, id: u64) {
        let Some(sd) = self.sds.get(&id) else {
            return;
        };
        let name = sd.name();
        let foreign = self.sessions.get(&sd.session).is_some_and(|s| s.foreign);
        let map = self.maps.values().find(|map| map.paths.contains(&id));
        if let Some(map) = map {
            let map = map.name.clone();
            self.violation(format!("{name} deleted while it is a path of map {map}"));
        }
        if foreign {
            self.violation(format!("{name} of a foreign session deleted"));
        }
        self.remove_disk(id);
    }

    /// A write to `…/device/rescan`: the kernel asks for the identity and the size again.
    pub(super) fn rescan_disk(&mut self, id: u64) -> io::Result<()> {
        let Some(sd) = self.sds.get(&id) else {
            return Err(Errno::ENODEV.into());
        };
        if sd.state != "running" {
            return Err(Errno::EWOULDBLOCK.into());
        }
        let Ok(disk) = self.disk_behind(id) else {
            return Ok(());
        };
        let (wwid, size) = (self.san.disk(disk).wwid.clone(), self.san.disk(disk).size);
        let sd = self.sds.get_mut(&id).expect("found above");
        sd.wwid = wwid;
        sd.size = size;
        sd.note_is_cut = false;
        let sd = sd.clone();
        self.show_identity(&sd);
        let text = (size / 512).to_string();
        self.set_attribute(&format!("/sys/block/{}/size", sd.name()), &text);
        self.event();
        Ok(())
    }

    pub(super) fn set_disk_state(&mut self, id: u64, value: &str) {
        let Some(sd) = self.sds.get_mut(&id) else {
            return;
        };
        value.clone_into(&mut sd.state);
        let path = sd.device().join("state");
        self.tree.put_text(path, format!("{value}\n"));
    }

    /// Which disk of the SAN answers behind a path now; not which one answered when it was found.
    pub(super) fn disk_behind(&self, id: u64) -> Result<DiskId, Trouble> {
        let gone = Trouble::Failed(Errno::ENXIO);
        let sd = self.sds.get(&id).ok_or(gone)?;
        let session = self.sessions.get(&sd.session).ok_or(gone)?;
        if sd.state == "blocked" {
            return Err(Trouble::Held);
        }
        let answer = self.san.portal(session.portal);
        if answer == PortalState::Stalled && session.state == SessionState::LoggedIn {
            return Err(Trouble::Held);
        }
        let serves = answer == PortalState::Up;
        if sd.state != "running" || session.state != SessionState::LoggedIn || !serves {
            return Err(Trouble::Failed(Errno::EIO));
        }
        let mapped = self.san.lun(&session.iqn, sd.lun);
        mapped.ok_or(Trouble::Failed(Errno::EIO))
    }
}

/// VPD page 0x83 with one NAA designator of the LUN (SPC-4 §7.8.6).
pub(super) fn page_83(wwid: &Wwid) -> Vec<u8> {
    let digits = &wwid.as_str()[1..];
    let naa: Vec<u8> = (0..digits.len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect();
    let length = u8::try_from(naa.len()).expect("8 or 16");
    let mut page = vec![0, 0x83, 0, length + 4, 0x01, 0x03, 0, length];
    page.extend(naa);
    page
}

/// VPD page 0x80: the unit serial, here the WWID's digits.
pub(super) fn page_80(wwid: &Wwid) -> Vec<u8> {
    let serial = &wwid.as_str().as_bytes()[1..];
    let length = u8::try_from(serial.len()).expect("16 or 32");
    let mut page = vec![0, 0x80, 0, length];
    page.extend(serial);
    page
}
