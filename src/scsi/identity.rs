//! What a disk says it is: vital product data pages 0x83 and 0x80 (SPC-4 §7.8).
//!
//! The pages come from a device, so every length in them is somebody's claim and is checked.

use std::io;
use std::time::Duration;

use super::Disk;
use crate::fabric::Wwid;
use crate::fault::{Fault, Faulted};
use crate::host::Host;

const DEVICE_IDENTIFICATION: u8 = 0x83;
const UNIT_SERIAL: u8 = 0x80;
const PAGE_HEADER: usize = 4;
const DESIGNATOR_HEADER: usize = 4;
/// Association 0: the designator names the logical unit, not the port or the target.
const LOGICAL_UNIT: u8 = 0;

/// One name of a logical unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Designator {
    /// Type 3, with the NAA format digit that it starts with.
    Naa {
        /// 2, 3, 5 or 6.
        format: u8,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Type 2: 8, 12 or 16 bytes.
    Eui64(Vec<u8>),
    /// Type 1: vendor, then the vendor's own.
    T10(Vec<u8>),
    /// Type 8: a SCSI name string.
    NameString(Vec<u8>),
    /// Any other type.
    Other(u8),
}

/// What a disk answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The names of the logical unit, in the order of the page.
    pub designators: Vec<Designator>,
    /// Where they stand, beside the names of port and target.
    page: Vec<u8>,
}

impl Identity {
    /// What page 0x83 says.
    ///
    /// # Errors
    /// When it is another page, is cut short, or no disk is connected.
    pub fn parse(page: Vec<u8>) -> Result<Self, IdentityError> {
        Ok(Self {
            designators: parse_designators(&page)?,
            page,
        })
    }

    /// The identity that dm-multipath and udev give the disk: NAA-6 before NAA-5 before NAA-2. A locally assigned NAA-3 proves nothing; neither
    /// do names that are not NAA.
    #[must_use]
    pub fn wwid(&self) -> Option<Wwid> {
        let of_format = |wanted: u8| {
            self.designators
                .iter()
                .find_map(|designator| match designator {
                    Designator::Naa { format, bytes } if *format == wanted => {
                        Wwid::from_naa(bytes).ok()
                    }
                    _ => None,
                })
        };
        [6, 5, 2].into_iter().find_map(of_format)
    }

    /// Whether the kernel has noted the same page of the disk, when it appeared or was rescanned. Its drivers go by that: without the port groups of a LUN that was
    /// being made just then, its ALUA handler and with it dm-multipath refuse the disk.
    ///
    /// # Errors
    /// When sysfs cannot be read.
    pub fn is_noted(&self, host: &Host, disk: &Disk) -> io::Result<bool> {
        match host.read(&disk.attribute("device/vpd_pg83")) {
            Ok(noted) => {
                let body = |page| body_of(page, DEVICE_IDENTIFICATION).ok();
                Ok(body(&noted) == body(&self.page))
            }
            // It could not read the page when the disk appeared, and then never shows it. Its name for the disk tells whether it could later.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(disk.noted_wwid(host)?.is_some())
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Why a disk has no identity for us.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It did not answer.
    #[error("{disk} does not answer INQUIRY")]
    Inquiry {
        /// Which.
        disk: String,
        #[source]
        source: io::Error,
    },
    /// The answer contradicts itself.
    #[error("page {page:#04x} of the disk is malformed: {what}")]
    Malformed {
        /// Which page.
        page: u8,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Nothing is connected under this LUN, or it is no disk.
    #[error("no disk is connected there: peripheral qualifier {qualifier}, type {kind:#04x}")]
    NotConnected {
        /// 0 would be connected.
        qualifier: u8,
        /// 0 would be a disk.
        kind: u8,
    },
}

impl Faulted for IdentityError {
    fn fault(&self) -> Fault {
        Fault::MaybeDone
    }
}

/// Asks the disk itself, now.
///
/// # Errors
/// See [`IdentityError`].
pub fn read_identity(
    host: &Host,
    disk: &Disk,
    timeout: Duration,
) -> Result<Identity, IdentityError> {
    let page = host
        .open_block(&disk.node())
        .and_then(|mut block| block.inquiry(DEVICE_IDENTIFICATION, timeout))
        .map_err(|source| IdentityError::Inquiry {
            disk: disk.name.clone(),
            source,
        })?;
    Identity::parse(page)
}

/// The logical unit's designators in page 0x83.
fn parse_designators(page: &[u8]) -> Result<Vec<Designator>, IdentityError> {
    let malformed = |what| IdentityError::Malformed {
        page: DEVICE_IDENTIFICATION,
        what,
    };
    let mut rest = body_of(page, DEVICE_IDENTIFICATION)?;
    let mut designators = Vec::new();
    while !rest.is_empty() {
        let Some((header, tail)) = rest.split_at_checked(DESIGNATOR_HEADER) else {
            return Err(malformed("a designator's header is cut short"));
        };
        let Some((value, tail)) = tail.split_at_checked(usize::from(header[3])) else {
            return Err(malformed("a designator is cut short"));
        };
        if (header[1] >> 4) & 0b11 == LOGICAL_UNIT {
            designators.push(designator(header[1] & 0x0f, value));
        }
        rest = tail;
    }
    Ok(designators)
}

fn designator(kind: u8, value: &[u8]) -> Designator {
    match (kind, value.first()) {
        (1, _) => Designator::T10(value.to_vec()),
        (2, _) => Designator::Eui64(value.to_vec()),
        (3, Some(first)) => Designator::Naa {
            format: first >> 4,
            bytes: value.to_vec(),
        },
        (8, _) => Designator::NameString(value.to_vec()),
        (other, _) => Designator::Other(other),
    }
}

/// The unit serial number in page 0x80, without the blanks around it.
///
/// # Errors
/// When it is another page, is cut short, or no disk is connected.
pub fn parse_serial(page: &[u8]) -> Result<String, IdentityError> {
    let serial = String::from_utf8_lossy(body_of(page, UNIT_SERIAL)?);
    Ok(serial
        .trim_matches(|letter: char| letter.is_whitespace() || letter == '\0')
        .to_owned())
}

/// What follows the header of a page, as long as the header says.
fn body_of(page: &[u8], expected: u8) -> Result<&[u8], IdentityError> {
    let malformed = |what| IdentityError::Malformed {
        page: expected,
        what,
    };
    let Some((header, body)) = page.split_at_checked(PAGE_HEADER) else {
        return Err(malformed("its header is cut short"));
    };
    let (qualifier, kind) = (header[0] >> 5, header[0] & 0x1f);
    if (qualifier, kind) != (0, 0) {
        return Err(IdentityError::NotConnected { qualifier, kind });
    }
    if header[1] != expected {
        return Err(malformed("it is another page"));
    }
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    body.get(..length)
        .ok_or_else(|| malformed("it is shorter than it says"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(designators: Vec<Designator>) -> Identity {
        let page = Vec::new();
        Identity { designators, page }
    }

    const NAA_6: [u8; 16] = [
        0x60, 0x01, 0x40, 0x50, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34, 0x56,
        0x78,
    ];
    const NAA_5: [u8; 8] = [0x50, 0x01, 0x40, 0x50, 0x12, 0x34, 0x56, 0x78];
    const NAA_3: [u8; 8] = [0x30, 1, 2, 3, 4, 5, 6, 7];

    /// A designator as SPC-4 table 459 lays it out.
    fn laid_out(code_set: u8, association: u8, kind: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        let header = [code_set, association << 4 | kind, 0, length];
        [&header[..], value].concat()
    }

    fn page(number: u8, body: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[0, number, high, low][..], body].concat()
    }

    /// As LIO answers: NAA, T10, then names of the port, its groups and the target.
    fn page_of_lio() -> Vec<u8> {
        let body = [
            laid_out(1, 0, 3, &NAA_6),
            laid_out(2, 0, 1, b"LIO-ORG disk:0123456789abcdef"),
            laid_out(1, 1, 4, &[0, 0, 0, 1]),
            laid_out(1, 1, 5, &[0, 0, 0, 0]),
            laid_out(3, 2, 8, b"iqn.2026-11.dev.sanpath:a\0\0\0"),
            laid_out(1, 1, 3, &NAA_5),
        ]
        .concat();
        page(DEVICE_IDENTIFICATION, &body)
    }

    #[test]
    fn only_names_of_the_logical_unit_count() {
        let designators = parse_designators(&page_of_lio()).unwrap();
        assert_eq!(designators.len(), 2, "{designators:?}");
        let wwid = named(designators).wwid().unwrap();
        assert_eq!(wwid.as_str(), "360014050123456789abcdef012345678");
    }

    #[test]
    fn the_best_naa_wins_wherever_it_stands() {
        let body = [
            laid_out(2, 0, 1, b"VENDOR  x"),
            laid_out(1, 0, 2, &[1; 8]),
            laid_out(1, 0, 3, &NAA_3),
            laid_out(1, 0, 3, &NAA_5),
            laid_out(1, 0, 3, &NAA_6),
        ]
        .concat();
        let designators = parse_designators(&page(DEVICE_IDENTIFICATION, &body)).unwrap();
        assert_eq!(named(designators).wwid(), Wwid::from_naa(&NAA_6).ok());
    }

    #[test]
    fn without_a_naa_there_is_no_wwid() {
        let body = [
            laid_out(2, 0, 1, b"VENDOR  x"),
            laid_out(1, 0, 2, &[1; 8]),
            laid_out(1, 0, 3, &NAA_3),
            laid_out(3, 0, 8, b"naa.60014050123456789abcdef012345678"),
            laid_out(1, 0, 3, &[]),
        ]
        .concat();
        let designators = parse_designators(&page(DEVICE_IDENTIFICATION, &body)).unwrap();
        assert_eq!(designators[1], Designator::Eui64(vec![1; 8]));
        assert_eq!(designators[4], Designator::Other(3), "a NAA without a byte");
        assert_eq!(named(designators).wwid(), None);
    }

    #[test]
    fn a_lun_without_a_disk_is_told_from_a_broken_page() {
        for first in [0x20, 0x3f, 0x7f, 0x05] {
            let mut answer = page_of_lio();
            answer[0] = first;
            let refused = parse_designators(&answer).unwrap_err();
            assert!(
                matches!(refused, IdentityError::NotConnected { .. }),
                "{refused}"
            );
        }
        let whole = page_of_lio();
        for cut in [0, 3, 5, whole.len() - 1] {
            let refused = parse_designators(&whole[..cut]).unwrap_err();
            assert!(
                matches!(refused, IdentityError::Malformed { .. }),
                "{cut}: {refused}"
            );
        }
        assert!(parse_designators(&page(UNIT_SERIAL, b"x")).is_err());
    }

    #[test]
    fn a_serial_is_read_without_its_blanks() {
        assert_eq!(
            parse_serial(&page(UNIT_SERIAL, b"  0123-ab \0")).unwrap(),
            "0123-ab"
        );
        assert!(parse_serial(&page_of_lio()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_designators(&bytes);
            let _ = parse_serial(&bytes);
        }

        #[test]
        fn a_page_cut_anywhere_never_gives_another_identity(cut in 0_usize..140) {
            let whole = page_of_lio();
            if let Ok(designators) = parse_designators(&whole[..cut.min(whole.len())]) {
                prop_assert_eq!(named(designators).wwid(), Wwid::from_naa(&NAA_6).ok());
            }
        }

        #[test]
        fn a_spoilt_page_is_read_or_refused(edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
            let mut page = page_of_lio();
            for (at, byte) in edits {
                let at = at.index(page.len());
                page[at] = byte;
            }
            if let Ok(designators) = parse_designators(&page) {
                let _ = named(designators).wwid();
            }
        }
    }
}
