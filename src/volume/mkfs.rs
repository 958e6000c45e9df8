//! Options for making a file system, as a StorageClass may give them (`mkfsOptions`).
//!
//! A whitelist by shape: each option of each file system is listed with the form of its value. What is not listed is refused: the force flags,
//! which overwrite data; everything that names a device or a file; labels and ids, which must not repeat.

use super::FileSystemKind;

/// The StorageClass parameter, and the key in the volume context under which it reaches the node.
pub const MKFS_OPTIONS: &str = "mkfsOptions";

/// Enough for every sensible list; it travels with the volume for all its life.
const MAX_BYTES: usize = 256;

/// Options that passed, one word to an element: an option, its value, the next option, its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MkfsOptions(Vec<String>);

/// Why options are refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MkfsOptionError {
    /// More than is kept with a volume.
    #[error("it has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// Not in the list.
    #[error("{option:?} is not offered for {kind}; use {offered}")]
    Option {
        /// Which.
        option: String,
        /// For which file system.
        kind: &'static str,
        /// What is.
        offered: String,
    },
    /// The last option stands alone.
    #[error("{0} needs a value")]
    NoValue(String),
    /// Not of the form that the option has.
    #[error("{option} {value:?} is not offered: the value is {form}")]
    Value {
        /// Which.
        option: String,
        /// What it was given.
        value: String,
        /// What would do.
        form: String,
    },
}

/// The form of a value.
#[derive(Clone, Copy)]
enum Form {
    /// `4096`, `64k`, `0.5`.
    Number,
    /// `dup`.
    OneOf(&'static [&'static str]),
    /// `size=4096,version=2`, with keys of these.
    Keys(&'static [&'static str]),
    /// `^has_journal,bigalloc`, any but these.
    FeaturesBut(&'static [&'static str]),
}

/// mke2fs(8). `journal_dev` would make no file system at all.
const EXT4: &[(&str, Form)] = &[
    ("-b", Form::Number),
    ("-C", Form::Number),
    ("-E", Form::Keys(EXT4_EXTENDED)),
    ("-g", Form::Number),
    ("-G", Form::Number),
    ("-i", Form::Number),
    ("-I", Form::Number),
    ("-J", Form::Keys(&["size", "fast_commit_size"])),
    ("-m", Form::Number),
    ("-N", Form::Number),
    ("-O", Form::FeaturesBut(&["journal_dev"])),
    (
        "-T",
        Form::OneOf(&[
            "small",
            "floppy",
            "big",
            "huge",
            "news",
            "largefile",
            "largefile4",
        ]),
    ),
];

const EXT4_EXTENDED: &[&str] = &[
    "assume_storage_prezeroed",
    "lazy_itable_init",
    "lazy_journal_init",
    "num_backup_sb",
    "packed_meta_blocks",
    "resize",
    "stride",
    "stripe_width",
];

/// mkfs.xfs(8).
const XFS: &[(&str, Form)] = &[
    ("-b", Form::Keys(&["size"])),
    (
        "-d",
        Form::Keys(&["agcount", "agsize", "su", "sw", "sunit", "swidth"]),
    ),
    (
        "-i",
        Form::Keys(&["size", "maxpct", "sparse", "nrext64", "exchange"]),
    ),
    (
        "-l",
        Form::Keys(&["size", "su", "sunit", "version", "lazy-count"]),
    ),
    (
        "-m",
        Form::Keys(&[
            "crc",
            "finobt",
            "inobtcount",
            "bigtime",
            "rmapbt",
            "reflink",
        ]),
    ),
    ("-n", Form::Keys(&["size", "ftype", "parent"])),
    ("-s", Form::Keys(&["size"])),
];

/// mkfs.btrfs(8), the short options.
const BTRFS: &[(&str, Form)] = &[
    ("-d", Form::OneOf(&["single", "dup"])),
    ("-m", Form::OneOf(&["single", "dup"])),
    ("-n", Form::Number),
    ("-O", Form::FeaturesBut(&["zoned"])),
    ("-s", Form::Number),
    (
        "--csum",
        Form::OneOf(&["crc32c", "xxhash", "sha256", "blake2"]),
    ),
];

fn offered(kind: FileSystemKind) -> &'static [(&'static str, Form)] {
    match kind {
        FileSystemKind::Ext4 => EXT4,
        FileSystemKind::Xfs => XFS,
        FileSystemKind::Btrfs => BTRFS,
    }
}

impl MkfsOptions {
    /// Reads options for `kind`, words between blanks. An empty text has none.
    ///
    /// # Errors
    /// See [`MkfsOptionError`].
    pub fn parse(kind: FileSystemKind, text: &str) -> Result<Self, MkfsOptionError> {
        if text.len() > MAX_BYTES {
            return Err(MkfsOptionError::TooLong(text.len()));
        }
        let mut parsed = Vec::new();
        let mut words = text.split_ascii_whitespace();
        while let Some(word) = words.next() {
            let form = form_of(kind, word)?;
            let value = words
                .next()
                .ok_or_else(|| MkfsOptionError::NoValue(word.to_owned()))?;
            if !form.takes(value) {
                return Err(MkfsOptionError::Value {
                    option: word.to_owned(),
                    value: value.to_owned(),
                    form: form.to_string(),
                });
            }
            parsed.extend([word.to_owned(), value.to_owned()]);
        }
        Ok(Self(parsed))
    }

    /// The words: an option, its value, the next option, its value.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Display for MkfsOptions {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0.join(" "))
    }
}

fn form_of(kind: FileSystemKind, option: &str) -> Result<Form, MkfsOptionError> {
    let known = offered(kind);
    let found = known.iter().find(|(name, _)| *name == option);
    found.map(|(_, form)| *form).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        MkfsOptionError::Option {
            option: option.to_owned(),
            kind: kind.as_str(),
            offered: names.join(" "),
        }
    })
}

impl Form {
    fn takes(self, value: &str) -> bool {
        match self {
            Self::Number => is_number(value),
            Self::OneOf(words) => words.contains(&value),
            Self::Keys(keys) => value.split(',').all(|item| match item.split_once('=') {
                Some((key, number)) => keys.contains(&key) && is_number(number),
                None => keys.contains(&item),
            }),
            Self::FeaturesBut(banned) => value.split(',').all(|item| {
                let feature = item.strip_prefix('^').unwrap_or(item);
                let known_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                !feature.is_empty()
                    && !feature.starts_with('-')
                    && feature.bytes().all(known_letter)
                    && !banned.contains(&feature)
            }),
        }
    }
}

impl std::fmt::Display for Form {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number => out.write_str("a number"),
            Self::OneOf(words) => write!(out, "one of {}", words.join(", ")),
            Self::Keys(keys) => write!(out, "a list of KEY=NUMBER with {}", keys.join(", ")),
            Self::FeaturesBut(banned) => {
                write!(out, "a list of features other than {}", banned.join(", "))
            }
        }
    }
}

/// `4096`, `64k`, `0.5`.
fn is_number(text: &str) -> bool {
    let digits = text.trim_end_matches(|letter: char| "kKmMgGtT".contains(letter));
    text.len() - digits.len() <= 1
        && digits.starts_with(|letter: char| letter.is_ascii_digit())
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && digits.matches('.').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use FileSystemKind::{Btrfs, Ext4, Xfs};
    use proptest::prelude::*;

    const KINDS: [FileSystemKind; 3] = [Ext4, Xfs, Btrfs];

    #[test]
    fn sensible_options_pass() {
        for (kind, text) in [
            (Ext4, ""),
            (Ext4, "-i 8192 -I 512 -m 0.5"),
            (Ext4, "-O bigalloc,^has_journal  -C 64k"),
            (
                Ext4,
                "-E stride=16,stripe_width=64,lazy_itable_init=0 -J size=128",
            ),
            (
                Xfs,
                "-m reflink=0,rmapbt=1 -d su=64k,sw=4 -i size=512,maxpct=25",
            ),
            (Xfs, "-s size=4096 -l size=128m"),
            (Btrfs, "-n 16k -m dup -O ^free-space-tree --csum xxhash"),
        ] {
            let options = MkfsOptions::parse(kind, text).unwrap();
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(options.to_string(), words.join(" "));
            assert_eq!(options.words(), words);
        }
    }

    #[test]
    fn what_could_do_harm_is_refused() {
        for (kind, text) in [
            (Ext4, "-F"),
            (Ext4, "-F -F"),
            (Xfs, "-f"),
            (Btrfs, "-f"),
            (Btrfs, "--force -n 16k"),
            (Ext4, "-b 4096 /dev/sda"),
            (Ext4, "/dev/sda"),
            (Ext4, "-b /dev/sda"),
            (Ext4, "-J device=/dev/sda"),
            (Ext4, "-J size=8,device=LABEL=x"),
            (Ext4, "-O journal_dev"),
            (Ext4, "-O ^journal_dev"),
            (Ext4, "-O bigalloc,/dev/sda"),
            (Ext4, "-E discard"),
            (Ext4, "-E offset=0"),
            (Ext4, "-U 00000000-0000-0000-0000-000000000000"),
            (Ext4, "-L data"),
            (Ext4, "-d /etc"),
            (Ext4, "-n"),
            (Ext4, "-S"),
            (Xfs, "-d name=/dev/sda"),
            (Xfs, "-d file,name=/tmp/x,size=1g"),
            (Xfs, "-d size=1g"),
            (Xfs, "-l logdev=/dev/sda"),
            (Xfs, "-r rtdev=/dev/sda"),
            (Xfs, "-m uuid=00000000-0000-0000-0000-000000000000"),
            (Xfs, "-p /etc/proto"),
            (Btrfs, "-r /etc"),
            (Btrfs, "-d raid1"),
            (Btrfs, "-U x"),
        ] {
            let refused = MkfsOptions::parse(kind, text).unwrap_err().to_string();
            assert!(refused.contains("not offered"), "{text}: {refused}");
        }
        let alone = MkfsOptions::parse(Ext4, "-i").unwrap_err();
        assert_eq!(alone.to_string(), "-i needs a value");
        let long = "-i 8192 ".repeat(40);
        assert!(MkfsOptions::parse(Ext4, &long).is_err());
    }

    #[test]
    fn the_operators_page_names_every_option() {
        let page = include_str!("../../docs/filesystems.md");
        for kind in KINDS {
            let start = format!("| {} | `-", kind.as_str());
            let row = page.lines().find(|line| line.starts_with(&start)).unwrap();
            for (option, form) in offered(kind) {
                assert!(row.contains(option), "{kind:?} {option}");
                if let Form::Keys(keys) = form {
                    assert!(keys.iter().all(|key| row.contains(key)), "{option}");
                }
            }
        }
    }

    #[test]
    fn what_is_offered_is_told() {
        let told = MkfsOptions::parse(Xfs, "-F 1").unwrap_err().to_string();
        assert!(told.contains("for xfs; use -b -d -i"), "{told}");
        let told = MkfsOptions::parse(Ext4, "-i many").unwrap_err().to_string();
        assert!(told.contains("a number"), "{told}");
    }

    proptest! {
        #[test]
        fn nothing_that_passes_names_a_file_or_forces(text in "(-[a-zA-Z] [ -~]{0,12} ?){0,4}") {
            for kind in KINDS {
                let Ok(options) = MkfsOptions::parse(kind, &text) else { continue };
                for pair in options.words().chunks(2) {
                    prop_assert!(pair[0] != "-f" && pair[0] != "-F");
                    prop_assert!(!pair[1].contains('/') && !pair[1].starts_with('-'), "{:?}", pair);
                }
            }
        }
    }
}
