//! The mapping of a volume, read from sysfs.

use std::io;
use std::path::Path;

use super::{Identity, LuksError};
use crate::host::Host;

const BLOCK: &str = "/sys/block";
/// sysfs gives sizes in these.
const SECTOR: u64 = 512;

/// A device-mapper device that bears a volume's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// `dm-3`. Means another device once this one is gone.
    pub dm: String,
    /// Its dm uuid, which tells of what kind it is and from which header it was made.
    pub dm_uuid: String,
    /// The devices that it lies on, by their names in `/sys/block`.
    pub under: Vec<String>,
    /// Its size in bytes; 0 until its table is in force.
    pub size: u64,
    /// It takes no writes.
    pub read_only: bool,
}

impl Mapping {
    /// Whether it was made by us from exactly that header.
    #[must_use]
    pub fn is_of(&self, identity: &Identity) -> bool {
        self.dm_uuid == identity.dm_uuid()
    }

    /// Whether it was made by us for that volume, whichever volume's header it is a copy of.
    #[must_use]
    pub fn may_be_of(&self, identity: &Identity) -> bool {
        identity.may_be(&self.dm_uuid)
    }

    /// Whether it is in force and lies on the device `name` (`dm-3`) and on nothing else.
    #[must_use]
    pub fn lies_on(&self, name: &str) -> bool {
        self.size > 0 && self.under == [name]
    }
}

/// The device that bears the volume's name, whatever it is.
///
/// # Errors
/// When sysfs cannot be read.
pub fn find_mapping(host: &Host, identity: &Identity) -> Result<Option<Mapping>, LuksError> {
    let found = find(host, identity.name());
    found.map_err(|source| LuksError::Look {
        name: identity.name().to_owned(),
        source,
    })
}

fn find(host: &Host, wanted: &str) -> io::Result<Option<Mapping>> {
    for name in host.list(Path::new(BLOCK))? {
        let Some(dm) = name.to_str().filter(|name| name.starts_with("dm-")) else {
            continue;
        };
        let device = Path::new(BLOCK).join(dm);
        let read = |attribute: &str| host.find_attribute(&device.join(attribute));
        if read("dm/name")?.as_deref() != Some(wanted) {
            continue;
        }
        let mapping = Mapping {
            dm: dm.to_owned(),
            dm_uuid: read("dm/uuid")?.unwrap_or_default(),
            under: names(host.list(&device.join("slaves"))?),
            size: bytes(read("size")?),
            read_only: read("ro")?.as_deref() == Some("1"),
        };
        // Between the reads the minor may have come to mean another device.
        if read("dm/name")?.as_deref() == Some(wanted) {
            return Ok(Some(mapping));
        }
    }
    Ok(None)
}

fn names(listed: Vec<std::ffi::OsString>) -> Vec<String> {
    let names = listed.into_iter();
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

fn bytes(sectors: Option<String>) -> u64 {
    let sectors = sectors.and_then(|text| text.parse::<u64>().ok());
    sectors.unwrap_or(0).saturating_mul(SECTOR)
}

/// The size in bytes of the device `name`.
pub(super) fn size_of(host: &Host, name: &str) -> io::Result<u64> {
    let attribute = Path::new(BLOCK).join(name).join("size");
    Ok(bytes(Some(host.read_attribute(&attribute)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_known_by_its_uuid_and_by_what_it_lies_on() {
        let identity = Identity::of("360014050123456789abcdef012345678");
        let mapping = Mapping {
            dm: "dm-4".to_owned(),
            dm_uuid: identity.dm_uuid(),
            under: vec!["dm-3".to_owned()],
            size: 1 << 20,
            read_only: false,
        };
        assert!(mapping.is_of(&identity) && mapping.lies_on("dm-3"));
        assert!(!mapping.lies_on("dm-30"));
        assert!(!mapping.is_of(&Identity::of("36001405fffffffffffffffffffffffff")));
        let two = vec!["dm-3".to_owned(), "sda".to_owned()];
        for other in [
            Mapping {
                under: two,
                ..mapping.clone()
            },
            Mapping {
                under: Vec::new(),
                ..mapping.clone()
            },
            Mapping { size: 0, ..mapping },
        ] {
            assert!(!other.lies_on("dm-3"), "{other:?}");
        }
    }
}
