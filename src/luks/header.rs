//! Whose LUKS header stands on a device. Looks only.

use std::path::Path;

use super::LuksError;
use crate::host::Host;

/// The first part of the header, which is all in one block.
const BLOCK: usize = 4096;
/// LUKS2 On-Disk Format Specification 1.1.1, §2.1; LUKS1 has version and UUID at the same places.
const MAGIC: &[u8] = b"LUKS\xba\xbe";
const UUID: std::ops::Range<usize> = 168..208;

/// What a header says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 1 or 2.
    pub version: u16,
    /// Its UUID as it stands there.
    pub uuid: String,
}

/// The header at the start of the block device at `path`, `None` when nothing there says that it is one.
///
/// # Errors
/// When it cannot be read.
pub fn find_header(host: &Host, path: &Path) -> Result<Option<Header>, LuksError> {
    let failed = |source| LuksError::Header {
        device: path.display().to_string(),
        source,
    };
    let mut block = host.open_block(path).map_err(failed)?;
    let bytes = block.read(0, BLOCK).map_err(failed)?;
    Ok(parse(&bytes))
}

fn parse(bytes: &[u8]) -> Option<Header> {
    let version = bytes.strip_prefix(MAGIC)?.get(..2)?;
    let uuid = bytes.get(UUID)?;
    let uuid = uuid.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Header {
        version: u16::from_be_bytes(version.try_into().ok()?),
        uuid: String::from_utf8_lossy(uuid).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_tells_its_version_and_uuid() {
        let mut bytes = vec![0; BLOCK];
        assert_eq!(parse(&bytes), None);
        bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        bytes[168..204].copy_from_slice(b"60014050-1234-5678-9abc-def012345678");
        let header = parse(&bytes).unwrap();
        assert_eq!(header.version, 2);
        assert_eq!(header.uuid, "60014050-1234-5678-9abc-def012345678");
        // The second copy of a header, which stands further in, has another magic.
        bytes[..6].copy_from_slice(b"SKUL\xba\xbe");
        assert_eq!(parse(&bytes), None);
        assert_eq!(parse(b"LUKS\xba\xbe\0\x02"), None, "cut short");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = parse(&[MAGIC, &bytes].concat());
        }
    }
}
