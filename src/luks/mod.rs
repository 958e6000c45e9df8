//! LUKS2 on a block device, through cryptsetup: the header, the mapping on top of it, and its passphrases.
//!
//! Called by `node/`, with a multipath map whose identity was just proven. The invariants: a passphrase goes to cryptsetup by its standard
//! input alone; a header is known by the volume's own identity, never by its being LUKS; a mapping is known by its dm uuid and by what it lies
//! on, never by its name; while a passphrase is being changed there is at every moment one that opens the header.

mod error;
mod header;
mod keys;
mod mapping;
mod tool;

pub use error::LuksError;
pub use header::{Header, find_header};
pub use keys::{Keys, unlock};
pub use mapping::{Mapping, find_mapping};
pub use tool::{close, format, grow};

/// What blkid calls a device with a LUKS header.
pub const CONTENT: &str = "crypto_LUKS";

/// Where the encrypted data begins: the size of header and key area that cryptsetup gives a LUKS2 device unless told otherwise (16 MiB). We tell
/// it, so that the size of a mapping follows from that of its device.
const PAYLOAD: u64 = 16 << 20;

/// How many digits of a UUID of ours tell who made the disk: the type of the name (NAA) and the company's number.
const MAKER: usize = 7;

/// Who a volume is to LUKS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    uuid: String,
}

impl Identity {
    /// Of the volume with this WWID (`3` and 16 or 32 hexadecimal digits). The digits are the header's UUID, so that whoever reads a header
    /// can tell whose it is, and a header that was copied from another volume is seen to be that.
    #[must_use]
    pub fn of(wwid: &str) -> Self {
        let digits = format!("{:0<32}", wwid.get(1..).unwrap_or_default());
        let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
        let groups: Vec<&str> = groups
            .into_iter()
            .map(|range| digits.get(range).unwrap_or_default())
            .collect();
        Self {
            name: format!("sanpath-{wwid}"),
            uuid: groups.join("-"),
        }
    }

    /// Of a copy: its layer is its own, and its header is the one that the volume with the WWID `header` was given once.
    #[must_use]
    pub fn of_copy(wwid: &str, header: &str) -> Self {
        Self {
            uuid: Self::of(header).uuid,
            ..Self::of(wwid)
        }
    }

    /// The mapping's dm name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The header's UUID.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The mapping's dm uuid, as libcryptsetup makes it.
    #[must_use]
    pub fn dm_uuid(&self) -> String {
        format!("CRYPT-LUKS2-{}-{}", self.uuid.replace('-', ""), self.name)
    }

    /// Whether `uuid` may be that of a header of ours: it begins with the maker's digits, as this one does, and not as a random one does. For what must be
    /// told without knowing of which volume this one may be a copy.
    #[must_use]
    pub fn is_akin(&self, uuid: &str) -> bool {
        let maker = |uuid: &str| uuid.get(..MAKER).map(str::to_owned);
        maker(uuid).is_some() && maker(uuid) == maker(&self.uuid)
    }

    /// Whether a mapping with this dm uuid is the volume's layer, be it over its own header or, where the volume is a copy, over that of another one.
    #[must_use]
    pub fn may_be(&self, dm_uuid: &str) -> bool {
        let rest = dm_uuid.strip_prefix("CRYPT-LUKS2-");
        let parts = rest.and_then(|rest| rest.split_once('-'));
        parts.is_some_and(|(uuid, name)| name == self.name && self.is_akin(uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wwid_can_be_read_off_the_header_and_the_mapping() {
        let naa6 = Identity::of("360014050123456789abcdef012345678");
        assert_eq!(naa6.uuid(), "60014050-1234-5678-9abc-def012345678");
        assert_eq!(
            naa6.dm_uuid(),
            "CRYPT-LUKS2-60014050123456789abcdef012345678-sanpath-360014050123456789abcdef012345678"
        );
        let naa5 = Identity::of("35000c500a1b2c3d4");
        assert_eq!(naa5.uuid(), "5000c500-a1b2-c3d4-0000-000000000000");
        assert_eq!(naa5.name(), "sanpath-35000c500a1b2c3d4");
    }

    #[test]
    fn a_copy_has_a_name_of_its_own_over_its_origins_header() {
        let origin = "360014050123456789abcdef012345678";
        let own = Identity::of("36001405aaaaaaaaaaaaaaaaaaaaaaaaa");
        let copy = Identity::of_copy("36001405aaaaaaaaaaaaaaaaaaaaaaaaa", origin);
        assert_eq!(copy.uuid(), Identity::of(origin).uuid());
        assert_eq!(copy.name(), own.name());
        assert_ne!(copy.dm_uuid(), Identity::of(origin).dm_uuid());
        assert!(own.may_be(&copy.dm_uuid()) && own.may_be(&own.dm_uuid()));
        assert!(own.is_akin(copy.uuid()));
        let other = Identity::of("36001405bbbbbbbbbbbbbbbbbbbbbbbbb");
        let random = "CRYPT-LUKS2-11111111222233334444555555555555-";
        for foreign in [
            other.dm_uuid(),
            format!("{random}{}", own.name()),
            own.dm_uuid().replace("LUKS2", "LUKS1"),
            format!("mpath-{}", own.name()),
            "CRYPT-LUKS2-".to_owned(),
        ] {
            assert!(!own.may_be(&foreign), "{foreign}");
        }
        for foreign in ["11111111-2222-3333-4444-555555555555", "", "6001"] {
            assert!(!own.is_akin(foreign), "{foreign}");
        }
    }
}
