//! From CSI requests to our own nouns. Every INVALID_ARGUMENT of the CSI services is born here and names its field; the rest of the
//! crate never sees a request.
//!
//! The order is the one that callers rely on (csi-sanity asks for a missing capability with an id that was never issued): required fields,
//! then the form of every field, then the id, which is "not found" and never "invalid", then what only that volume's owner wrote.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::proto;
use super::proto::volume_capability::access_mode::Mode;
use super::proto::volume_capability::{AccessType as WireAccess, MountVolume};
use crate::fabric::{NoPathRetryError, WwidError};
use crate::fault::{Fault, Faulted};
use crate::volume::{
    AccessMode, AccessType, ByHandError, Capability, ContextError, EncryptionError, FileSystemKind,
    MkfsOptionError, PassphraseError, SizeError, VolumeId,
};

/// CSI §"Size limits": any string.
const MAX_STRING: usize = 128;
/// CSI §"Size limits": any map, and all mount flags together.
const MAX_MAP: usize = 4096;
/// The kernel's PATH_MAX, with its final NUL.
const MAX_PATH: usize = 4095;

/// Why a request is refused before anything is done.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// A required field is absent or empty.
    #[error("{0} is required")]
    Missing(&'static str),
    /// Longer than CSI permits.
    #[error("{field} has {bytes} bytes; at most {most} are allowed")]
    TooLong {
        /// Which.
        field: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// A path that is not absolute, or not plain.
    #[error("{field} must be an absolute path without . and .. in it, not {path:?}")]
    Path {
        /// Which.
        field: &'static str,
        /// What was sent.
        path: String,
    },
    /// A file system that we cannot make and mount.
    #[error("volume_capability.mount.fs_type: {0:?} is not offered; use ext4, xfs or btrfs")]
    FileSystem(String),
    /// A mount flag that cannot be one; it may be sensitive, so it is not repeated.
    #[error("volume_capability.mount.mount_flags[{0}] is empty or holds a control character")]
    MountFlag(usize),
    /// Asked for without the capability VOLUME_MOUNT_GROUP being offered.
    #[error("volume_capability.mount.volume_mount_group is not offered")]
    MountGroup,
    /// No mode, or one that this version does not know.
    #[error("volume_capability.access_mode: {0} is not an access mode")]
    AccessMode(i32),
    /// A use that we refuse for its danger.
    #[error("volume_capability.{0}")]
    Refused(&'static str),
    /// An id that this driver never issued.
    #[error("volume_id: there is no volume {0:?}")]
    UnknownVolume(String),
    /// Published before it was staged.
    #[error("staging_target_path is not set; a volume is staged before it is published")]
    NotStaged,
    /// A path at which no volume can be.
    #[error("volume_path: {volume} is not at {path:?}")]
    NotAt {
        /// Which.
        volume: VolumeId,
        /// What was sent.
        path: String,
    },
    /// The bounds make no sense.
    #[error("capacity_range")]
    CapacityRange(#[source] SizeError),
    /// Options for mkfs that are not offered for the file system.
    #[error("volume_context.mkfsOptions")]
    MkfsOptions(#[source] MkfsOptionError),
    /// An encryption that this version does not know.
    #[error("volume_context.encryption")]
    Encryption(#[source] EncryptionError),
    /// The name of a header that is none.
    #[error("volume_context.encryptionHeader")]
    EncryptionHeader(#[source] WwidError),
    /// A header in the clear.
    #[error(
        "volume_context.encryptionHeader is given, and volume_context.encryption is not; both must be as CreateVolume returned them"
    )]
    HeaderInTheClear,
    /// A wait for paths that there is not.
    #[error("volume_context.noPathRetry")]
    NoPathRetry(#[source] NoPathRetryError),
    /// An encrypted volume came without its passphrase.
    #[error(
        "secrets.passphrase is required: the volume is encrypted; name a Secret with it in the StorageClass, csi.storage.k8s.io/node-stage-secret-name and -namespace"
    )]
    NoPassphrase,
    /// A text that is no passphrase, and is not repeated.
    #[error("secrets.{key}")]
    Passphrase {
        /// Which.
        key: &'static str,
        #[source]
        source: PassphraseError,
    },
    /// What somebody wrote down by hand says not where the volume is.
    #[error(transparent)]
    ByHand(ByHandError),
    /// What the controller wrote came back changed.
    #[error("publish_context")]
    Context(#[source] ContextError),
}

impl Faulted for ParseError {
    fn fault(&self) -> Fault {
        match self {
            Self::UnknownVolume(_) | Self::NotAt { .. } => Fault::NotFound,
            Self::NotStaged => Fault::Precondition,
            Self::CapacityRange(error) => error.fault(),
            _ => Fault::Invalid,
        }
    }
}

// ---- fields that several services share -----------------------------------------------------------------------------------

/// Refuses an empty required text.
///
/// # Errors
/// [`ParseError::Missing`].
pub fn required<'t>(field: &'static str, text: &'t str) -> Result<&'t str, ParseError> {
    if text.is_empty() {
        Err(ParseError::Missing(field))
    } else {
        Ok(text)
    }
}

/// Refuses a text over CSI's general bound.
///
/// # Errors
/// [`ParseError::TooLong`].
pub fn bounded<'t>(field: &'static str, text: &'t str) -> Result<&'t str, ParseError> {
    within(field, text.len(), MAX_STRING).map(|()| text)
}

/// Refuses a map over CSI's bound.
///
/// # Errors
/// [`ParseError::TooLong`].
pub fn bounded_map(field: &'static str, map: &HashMap<String, String>) -> Result<(), ParseError> {
    let bytes = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    within(field, bytes, MAX_MAP)
}

fn within(field: &'static str, bytes: usize, most: usize) -> Result<(), ParseError> {
    if bytes > most {
        Err(ParseError::TooLong { field, bytes, most })
    } else {
        Ok(())
    }
}

/// Reads how a volume is to be used. Says nothing about whether that use is offered, see [`Capability::refusal`].
///
/// # Errors
/// What is missing or unknown, by field.
pub fn parse_capability(wire: &proto::VolumeCapability) -> Result<Capability, ParseError> {
    let access = match &wire.access_type {
        None => {
            return Err(ParseError::Missing(
                "volume_capability.access_type (block or mount)",
            ));
        }
        Some(WireAccess::Block(_)) => AccessType::Block,
        Some(WireAccess::Mount(mount)) => parse_mount(mount)?,
    };
    let mode = wire
        .access_mode
        .as_ref()
        .ok_or(ParseError::Missing("volume_capability.access_mode"))?
        .mode;
    Ok(Capability {
        access,
        mode: parse_mode(mode)?,
    })
}

fn parse_mount(mount: &MountVolume) -> Result<AccessType, ParseError> {
    bounded("volume_capability.mount.fs_type", &mount.fs_type)?;
    let kind = FileSystemKind::find(&mount.fs_type)
        .ok_or_else(|| ParseError::FileSystem(mount.fs_type.clone()))?;
    let flags = &mount.mount_flags;
    let bytes = flags.iter().map(String::len).sum();
    within("volume_capability.mount.mount_flags", bytes, MAX_MAP)?;
    let broken = |flag: &String| flag.is_empty() || flag.chars().any(char::is_control);
    if let Some(position) = flags.iter().position(broken) {
        return Err(ParseError::MountFlag(position));
    }
    if !mount.volume_mount_group.is_empty() {
        return Err(ParseError::MountGroup);
    }
    Ok(AccessType::Mount {
        kind,
        flags: flags.clone(),
    })
}

fn parse_mode(number: i32) -> Result<AccessMode, ParseError> {
    let unknown = || ParseError::AccessMode(number);
    match Mode::try_from(number).map_err(|_| unknown())? {
        Mode::Unknown => Err(unknown()),
        Mode::SingleNodeWriter => Ok(AccessMode::SingleNodeWriter),
        Mode::SingleNodeReaderOnly => Ok(AccessMode::SingleNodeReader),
        Mode::MultiNodeReaderOnly => Ok(AccessMode::MultiNodeReader),
        Mode::MultiNodeSingleWriter => Ok(AccessMode::MultiNodeSingleWriter),
        Mode::MultiNodeMultiWriter => Ok(AccessMode::MultiNodeMultiWriter),
        Mode::SingleNodeSingleWriter => Ok(AccessMode::SingleNodeSingleWriter),
        Mode::SingleNodeMultiWriter => Ok(AccessMode::SingleNodeMultiWriter),
    }
}

/// Reads a required capability and refuses the ones that are dangerous.
///
/// # Errors
/// As [`parse_capability`], and [`ParseError::Refused`].
pub fn accepted_capability(
    wire: Option<&proto::VolumeCapability>,
) -> Result<Capability, ParseError> {
    let wire = wire.ok_or(ParseError::Missing("volume_capability"))?;
    let capability = parse_capability(wire)?;
    match capability.refusal() {
        Some(reason) => Err(ParseError::Refused(reason)),
        None => Ok(capability),
    }
}

/// The volume that a text names.
///
/// # Errors
/// [`ParseError::UnknownVolume`] for every text that we did not issue.
pub fn known_volume(text: &str) -> Result<VolumeId, ParseError> {
    VolumeId::find(text).ok_or_else(|| {
        // The answer may be shown to people; an id over the bound is cut.
        let shown = text.chars().take(MAX_STRING).collect();
        ParseError::UnknownVolume(shown)
    })
}

/// Reads a path of the orchestrator's: absolute and plain. CSI sets no bound for paths; the kernel does.
///
/// # Errors
/// [`ParseError::TooLong`] or [`ParseError::Path`].
pub fn absolute_path(field: &'static str, text: &str) -> Result<PathBuf, ParseError> {
    within(field, text.len(), MAX_PATH)?;
    let path = Path::new(text);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    // `components` passes over a dot in the middle; such a path means what it says.
    if path.is_absolute() && plain && path.parent().is_some() && !text.contains('\0') {
        Ok(path.components().collect())
    } else {
        Err(ParseError::Path {
            field,
            path: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mounted(kind: &str, flags: &[&str]) -> proto::VolumeCapability {
        proto::VolumeCapability {
            access_type: Some(WireAccess::Mount(MountVolume {
                fs_type: kind.to_owned(),
                mount_flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
                volume_mount_group: String::new(),
            })),
            access_mode: Some(proto::volume_capability::AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        }
    }

    fn refused(wire: &proto::VolumeCapability) -> String {
        parse_capability(wire).unwrap_err().to_string()
    }

    #[test]
    fn a_capability_is_read() {
        let capability = parse_capability(&mounted("", &["noatime"])).unwrap();
        let AccessType::Mount { kind, flags } = capability.access else {
            panic!("a mount was asked for")
        };
        assert_eq!(
            (kind, flags.as_slice()),
            (FileSystemKind::Ext4, &["noatime".to_owned()][..])
        );
        assert_eq!(capability.mode, AccessMode::SingleNodeWriter);
    }

    #[test]
    fn what_is_wrong_with_a_capability_is_named() {
        let mut none = mounted("ext4", &[]);
        none.access_type = None;
        assert!(refused(&none).contains("access_type"));
        let mut modeless = mounted("ext4", &[]);
        modeless.access_mode = None;
        assert!(refused(&modeless).contains("access_mode"));
        for mode in [0, 8, -1] {
            modeless.access_mode = Some(proto::volume_capability::AccessMode { mode });
            assert!(refused(&modeless).contains("access_mode"));
        }
        assert!(refused(&mounted("ntfs", &[])).contains("fs_type: \"ntfs\""));
        assert!(refused(&mounted(&"x".repeat(129), &[])).contains("fs_type has 129 bytes"));
        assert!(refused(&mounted("xfs", &["a", "b\n"])).contains("mount_flags[1]"));
        let long = "s".repeat(4097);
        let told = refused(&mounted("xfs", &[&long]));
        assert!(told.contains("mount_flags has 4097 bytes") && !told.contains("sss"));
    }

    #[test]
    fn a_file_system_that_many_write_is_refused() {
        let mut shared = mounted("ext4", &[]);
        shared.access_mode = Some(proto::volume_capability::AccessMode {
            mode: Mode::MultiNodeMultiWriter.into(),
        });
        let refused = accepted_capability(Some(&shared)).unwrap_err();
        assert_eq!(refused.fault(), Fault::Invalid);
        shared.access_type = Some(WireAccess::Block(proto::volume_capability::BlockVolume {}));
        accepted_capability(Some(&shared)).unwrap();
    }

    #[test]
    fn an_id_never_issued_is_unknown_and_not_invalid() {
        let long = "v".repeat(5000);
        for id in ["fake-vol-id", long.as_str()] {
            let refused = known_volume(id).unwrap_err();
            assert_eq!(refused.fault(), Fault::NotFound);
            assert!(refused.to_string().len() < 200);
        }
    }

    #[test]
    fn only_plain_absolute_paths_are_taken() {
        let path = |text| absolute_path("target_path", text);
        assert_eq!(path("/a//b/").unwrap(), Path::new("/a/b"));
        let deep = format!("/{}", "d/".repeat(1000));
        assert!(path(&deep).is_ok(), "longer than 128 bytes");
        let long = format!("/{}", "d".repeat(4095));
        for wrong in ["some/path", "/", "/a/../b", "../a", "/a\0b", &long] {
            assert!(path(wrong).unwrap_err().to_string().contains("target_path"));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_path_parser_panic(text in "\\PC*") {
            if let Ok(path) = absolute_path("target_path", &text) {
                prop_assert!(path.is_absolute());
            }
        }
    }
}
