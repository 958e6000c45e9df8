//! The settings of a partition as properties, `PARTITION.storage.NAME`: how each is called, what it means, and what it is now. `sanpath properties`
//! asks here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Config, Partition};
use crate::volume::{SanName, SanNameError, Setting};

/// What stands between a partition and the name of its property.
const INFIX: &str = ".storage.";
const GIB: u64 = 1 << 30;

/// One setting of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// `blockstoragemanager`.
    BlockStorageManager,
    /// `sanhost`.
    SanHost,
    /// `tls`.
    Tls,
    /// `sanUuid`.
    SanUuid,
    /// `sanCredentials`.
    SanCredentials,
    /// `clipath`.
    CliPath,
    /// `svm`.
    Svm,
    /// `pools`.
    Pools,
    /// `flexvols`.
    FlexVols,
    /// `ncpaths`.
    NcPaths,
    /// `scpaths`.
    ScPaths,
    /// `minPaths`.
    MinPaths,
    /// `loginTimeoutSeconds`.
    LoginTimeout,
    /// `chapuser`.
    ChapUser,
    /// `credentials`.
    Credentials,
    /// `resourceprefix`.
    ResourcePrefix,
    /// `resourcesuffix`.
    ResourceSuffix,
    /// `maxvolumesizeingb`.
    MaxVolumeSize,
    /// `maxtotalvolumesizeingb`.
    MaxTotalVolumeSize,
}

impl Property {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 19] = [
        Self::BlockStorageManager,
        Self::SanHost,
        Self::Tls,
        Self::SanUuid,
        Self::SanCredentials,
        Self::CliPath,
        Self::Svm,
        Self::Pools,
        Self::FlexVols,
        Self::NcPaths,
        Self::ScPaths,
        Self::MinPaths,
        Self::LoginTimeout,
        Self::ChapUser,
        Self::Credentials,
        Self::ResourcePrefix,
        Self::ResourceSuffix,
        Self::MaxVolumeSize,
        Self::MaxTotalVolumeSize,
    ];

    /// Its name, which is its field's in the file too.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::BlockStorageManager => "blockstoragemanager",
            Self::SanHost => "sanhost",
            Self::Tls => "tls",
            Self::SanUuid => "sanUuid",
            Self::SanCredentials => "sanCredentials",
            Self::CliPath => "clipath",
            Self::Svm => "svm",
            Self::Pools => "pools",
            Self::FlexVols => "flexvols",
            Self::NcPaths => "ncpaths",
            Self::ScPaths => "scpaths",
            Self::MinPaths => "minPaths",
            Self::LoginTimeout => "loginTimeoutSeconds",
            Self::ChapUser => "chapuser",
            Self::Credentials => "credentials",
            Self::ResourcePrefix => "resourceprefix",
            Self::ResourceSuffix => "resourcesuffix",
            Self::MaxVolumeSize => "maxvolumesizeingb",
            Self::MaxTotalVolumeSize => "maxtotalvolumesizeingb",
        }
    }

    /// What it is, in a line.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::BlockStorageManager => "Kind of the SAN: linux, ontap, unity, vnx, equallogic.",
            Self::SanHost => {
                "Management addresses of the SAN, in the order in which they are tried."
            }
            Self::Tls => {
                "Directory with the controller's certificates for the SAN: ca.crt, tls.crt, tls.key; for an array ca.crt alone."
            }
            Self::SanUuid => "The one SAN that may answer. Default the first that does.",
            Self::SanCredentials => {
                "Directory with the login of an array's management: username, password; for a VNX the security file; for an EqualLogic username, ssh-privatekey, known_hosts. Arrays alone."
            }
            Self::CliPath => {
                "The naviseccli program. VNX alone. Default /opt/Navisphere/bin/naviseccli."
            }
            Self::Svm => "Storage virtual machine of the array. ONTAP alone.",
            Self::Pools => "Where on the array volumes are made, comma-separated. Arrays alone.",
            Self::FlexVols => {
                "In which FlexVols volumes are: shared, which are those in pools, or own, one for each volume on the aggregates in pools. ONTAP alone. Default shared."
            }
            Self::NcPaths => {
                "Data paths of the nodes: [IFACE:]ADDRESS[:PORT], comma-separated; nopath for all portals of the SAN."
            }
            Self::ScPaths => {
                "Data paths for carrying snapshots away: [IFACE:]ADDRESS[:PORT], comma-separated; nopath for all portals of the SAN."
            }
            Self::MinPaths => "Fewest verified paths with which a volume is staged. Default 1.",
            Self::LoginTimeout => "How many seconds staging waits for paths. Default 90.",
            Self::ChapUser => "CHAP user of the nodes; needs credentials.",
            Self::Credentials => {
                "Directory with the secrets of the nodes' logins; without it there is no CHAP."
            }
            Self::ResourcePrefix => "Put before the names of volumes on the SAN.",
            Self::ResourceSuffix => "Put after the names of volumes on the SAN.",
            Self::MaxVolumeSize => "Largest size of a volume in GiB. Default no limit.",
            Self::MaxTotalVolumeSize => {
                "Largest size of all volumes together in GiB. Default no limit."
            }
        }
    }

    /// As the reference tells it.
    #[must_use]
    pub fn setting(self) -> Setting {
        let (meaning, default) = match self.description().split_once(" Default ") {
            Some((meaning, default)) => (meaning, default.trim_end_matches('.')),
            None if self.is_required() => (self.description(), "required"),
            None => (self.description(), "not set"),
        };
        let unit = match self {
            Self::MinPaths => "paths",
            Self::LoginTimeout => "seconds",
            Self::MaxVolumeSize | Self::MaxTotalVolumeSize => "GiB",
            _ => "",
        };
        Setting::new(self.field(), default, meaning).counting(unit)
    }

    /// Whether a partition cannot be without it.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, Self::BlockStorageManager | Self::SanHost)
    }

    /// Whether the file has it as a number.
    pub(super) fn is_number(self) -> bool {
        matches!(
            self,
            Self::MinPaths | Self::LoginTimeout | Self::MaxVolumeSize | Self::MaxTotalVolumeSize
        )
    }

    /// What it is in `partition`; `None` when it is not set and has no word for that.
    #[must_use]
    pub fn of(self, partition: &Partition) -> Option<String> {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        match self {
            Self::BlockStorageManager => Some(partition.family.as_str().to_owned()),
            Self::SanHost => Some(partition.sanhost.join(",")),
            Self::Tls => partition.tls.as_ref().map(|it| it.display().to_string()),
            Self::SanUuid => partition.san_uuid.map(|uuid| uuid.to_string()),
            Self::SanCredentials => {
                let place = partition.san_credentials.as_ref();
                place.map(|place| place.display().to_string())
            }
            Self::CliPath => partition
                .clipath
                .as_ref()
                .map(|it| it.display().to_string()),
            Self::Svm => partition.svm.clone(),
            Self::Pools => text(&partition.pools.join(",")),
            Self::FlexVols => partition.own_flexvols.then(|| "own".to_owned()),
            Self::NcPaths => Some(partition.ncpaths.to_string()),
            Self::ScPaths => Some(partition.scpaths.to_string()),
            Self::MinPaths => Some(partition.min_paths.to_string()),
            Self::LoginTimeout => {
                let seconds = partition.login_timeout.as_ref().map(Duration::as_secs);
                seconds.map(|seconds| seconds.to_string())
            }
            Self::ChapUser => partition.chapuser.clone(),
            Self::Credentials => {
                let place = partition.credentials.as_ref();
                place.map(|place| place.display().to_string())
            }
            Self::ResourcePrefix => text(&partition.resource_prefix),
            Self::ResourceSuffix => text(&partition.resource_suffix),
            Self::MaxVolumeSize => gib(partition.max_volume_size),
            Self::MaxTotalVolumeSize => gib(partition.max_total_volume_size),
        }
    }
}

fn gib(bytes: Option<u64>) -> Option<String> {
    bytes.map(|bytes| (bytes / GIB).to_string())
}

/// A property of one partition: `PARTI00.storage.ncpaths`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PropertyName {
    /// Whose.
    pub partition: SanName,
    /// Which.
    pub property: Property,
}

/// Why a text does not name a property.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PropertyNameError {
    /// Not of the form.
    #[error(
        "{0:?} is not a property; write PARTITION.storage.NAME, such as PARTI00.storage.ncpaths"
    )]
    Form(String),
    /// Its first part.
    #[error("the partition of a property")]
    Partition(#[from] SanNameError),
    /// Its last part.
    #[error("there is no property {0:?}; the properties are {known}", known = all())]
    Unknown(String),
}

fn all() -> String {
    Property::ALL.map(Property::field).join(", ")
}

impl FromStr for PropertyName {
    type Err = PropertyNameError;

    /// The property's own name may be in capitals or not.
    fn from_str(text: &str) -> Result<Self, PropertyNameError> {
        let parts = text.split_once(INFIX);
        let (partition, name) = parts.ok_or_else(|| PropertyNameError::Form(text.to_owned()))?;
        let partition = partition.parse()?;
        let mut all = Property::ALL.into_iter();
        let property = all.find(|property| property.field().eq_ignore_ascii_case(name));
        let property = property.ok_or_else(|| PropertyNameError::Unknown(name.to_owned()))?;
        Ok(Self {
            partition,
            property,
        })
    }
}

impl fmt::Display for PropertyName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{INFIX}{}", self.partition, self.property.field())
    }
}

/// All properties of all partitions, with what they are.
#[must_use]
pub fn properties(config: &Config) -> Vec<(PropertyName, Option<String>)> {
    let of = |name: &SanName, partition: &Partition| {
        Property::ALL.map(|property| {
            let name = PropertyName {
                partition: name.clone(),
                property,
            };
            (name, property.of(partition))
        })
    };
    let partitions = config.partitions.iter();
    partitions
        .flat_map(|(name, partition)| of(name, partition))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const ALL: &str = include_str!("../../tests/binary/fixtures/config-v1-all.yaml");
    const ONTAP: &str = include_str!("../../tests/binary/fixtures/config-v1-ontap.yaml");
    const VNX: &str = include_str!("../../tests/binary/fixtures/config-v1-vnx.yaml");

    #[test]
    fn every_field_of_the_file_is_a_property_and_the_other_way_round() {
        let config = parse(ALL).unwrap();
        let fields = ALL
            .lines()
            .skip_while(|line| !line.contains("PARTI00"))
            .skip(1)
            .take_while(|line| !line.contains("PARTI01"));
        let mut fields: Vec<&str> = fields
            .filter_map(|line| line.trim().split(':').next())
            .collect();
        let of_array = ONTAP
            .lines()
            .filter_map(|line| line.trim().split(':').next());
        fields.extend(of_array.filter(|field| ["sanCredentials", "svm", "pools"].contains(field)));
        assert!(VNX.contains("    clipath: "));
        fields.extend(["clipath", "flexvols"]);
        let mut names = Property::ALL.map(Property::field).to_vec();
        fields.sort_unstable();
        names.sort_unstable();
        assert_eq!(fields, names);
        let set = properties(&config);
        let of = |name: &str| {
            let name: PropertyName = name.parse().unwrap();
            let found = set.iter().find(|(known, _)| *known == name);
            found.unwrap().1.clone()
        };
        assert_eq!(
            of("PARTI00.storage.ncpaths").as_deref(),
            Some("iface0:192.168.1.100,iface1:192.168.1.101")
        );
        assert_eq!(
            of("PARTI00.storage.MAXVOLUMESIZEINGB").as_deref(),
            Some("100")
        );
        assert_eq!(of("PARTI01.storage.ncpaths").as_deref(), Some("nopath"));
        assert_eq!(of("PARTI01.storage.minpaths").as_deref(), Some("1"));
        assert_eq!(of("PARTI01.storage.chapuser"), None);
    }

    #[test]
    fn a_name_is_read_as_it_was_printed() {
        for property in Property::ALL {
            let name = PropertyName {
                partition: "PARTI00".parse().unwrap(),
                property,
            };
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for (wrong, why) in [
            ("ncpaths", "is not a property; write PARTITION.storage.NAME"),
            (
                "a.storage.ncpath",
                "the properties are blockstoragemanager, sanhost, tls, sanUuid, sanCredentials, clipath, svm, pools, flexvols, ncpaths",
            ),
            ("a b.storage.ncpaths", "\"a b\" is not a name"),
        ] {
            let error = wrong.parse::<PropertyName>().unwrap_err();
            let error = crate::fault::chain(&error);
            assert!(error.contains(why), "{error}");
        }
    }
}
