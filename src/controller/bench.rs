//! A controller over SANs in memory, for tests here and in `csi/`.

use std::time::Duration;

use super::Controller;
pub(crate) use crate::san::Mishap;
use crate::san::{Double, Fleet, Line, Rules, Settings};
use crate::volume::{Family, SanName};

/// A controller and the SANs of its partitions.
pub(crate) struct Bench {
    pub(crate) controller: Controller,
    pub(crate) sans: Vec<(Double, Line)>,
}

impl Bench {
    /// With one SAN for each of these partitions.
    pub(crate) async fn new(partitions: &[&str]) -> Self {
        Self::under(partitions, &Rules::default()).await
    }

    /// With one SAN for each of these partitions, which all have these rules.
    pub(crate) async fn under(partitions: &[&str], rules: &Rules) -> Self {
        let mut sans = Vec::new();
        let mut settings = std::collections::BTreeMap::new();
        for partition in partitions {
            let double = Double::new(partition);
            let line = double.line().await;
            let name: SanName = partition.parse().unwrap();
            let sanhost = vec![line.address().to_owned()];
            let family = Family::Linux;
            let rules = rules.clone();
            let all = Settings {
                family,
                sanhost,
                papers: None,
                array: None,
                san_uuid: None,
                rules,
            };
            settings.insert(name, all);
            sans.push((double, line));
        }
        let fleet = Fleet::new(settings);
        Self {
            controller: Controller::new(fleet, Duration::from_secs(5)),
            sans,
        }
    }

    /// Lets the first SAN refuse the next call of this name.
    pub(crate) fn refuse(&self, call: &'static str, code: tonic::Code) {
        self.san().suffer(Mishap::Refuses(call, code));
    }

    /// The first SAN.
    pub(crate) fn san(&self) -> &Double {
        &self.sans[0].0
    }
}
