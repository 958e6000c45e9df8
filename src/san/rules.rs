//! What a partition's operator rules for its volumes, whatever the SAN would take.

/// The rules of one partition. Without any, the SAN alone decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `resourceprefix`: before the name of each volume on the SAN.
    pub prefix: String,
    /// `resourcesuffix`: after it.
    pub suffix: String,
    /// `maxvolumesizeingb`, in bytes: no volume is made or grown larger.
    pub max_volume: Option<u64>,
    /// `maxtotalvolumesizeingb`, in bytes: all volumes of the partition together.
    pub max_total: Option<u64>,
}

impl Rules {
    /// What a volume is called on the SAN.
    #[must_use]
    pub fn name_on_san(&self, name: &str) -> String {
        format!("{}{name}{}", self.prefix, self.suffix)
    }
}
