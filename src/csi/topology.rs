//! Topology on the wire: a key for each partition, `DRIVER/partition.NAME`, with the value `true` (CSI §"Topology"). A node may be in several
//! partitions, so the name is in the key and not the value.

use super::parse::{ParseError, bounded_map};
use super::proto;
use crate::controller::{Accessibility, Partitions};
use crate::volume::SanName;

/// Before the partition's name.
const KIND: &str = "partition.";
const YES: &str = "true";

/// The keys of one driver.
#[derive(Clone, Debug)]
pub struct TopologyKeys {
    prefix: String,
}

impl TopologyKeys {
    /// The keys of the driver of this name. Keys compare without case, and Kubernetes wants their prefix in small letters.
    #[must_use]
    pub fn new(driver: &str) -> Self {
        let driver = driver.to_ascii_lowercase();
        Self {
            prefix: format!("{driver}/{KIND}"),
        }
    }

    /// These partitions on the wire.
    pub(super) fn on_wire<'p>(
        &self,
        partitions: impl IntoIterator<Item = &'p SanName>,
    ) -> proto::Topology {
        let segment = |name: &SanName| (format!("{}{name}", self.prefix), YES.to_owned());
        proto::Topology {
            segments: partitions.into_iter().map(segment).collect(),
        }
    }

    /// The partitions that a topology names. What is not ours says nothing of partitions.
    pub(super) fn read(
        &self,
        field: &'static str,
        wire: &proto::Topology,
    ) -> Result<Partitions, ParseError> {
        bounded_map(field, &wire.segments)?;
        let name = |(key, value): (&String, &String)| {
            let (prefix, name) = key.split_at_checked(self.prefix.len())?;
            let is_ours = prefix.eq_ignore_ascii_case(&self.prefix) && value == YES;
            is_ours.then(|| name.parse().ok()).flatten()
        };
        Ok(wire.segments.iter().filter_map(name).collect())
    }

    /// The whole of a requirement; open when there is none.
    pub(super) fn requirement(
        &self,
        wire: Option<&proto::TopologyRequirement>,
    ) -> Result<Accessibility, ParseError> {
        let Some(wire) = wire else {
            return Ok(Accessibility::default());
        };
        let all = |field, list: &[proto::Topology]| {
            let each = list.iter().map(|it| self.read(field, it));
            each.collect::<Result<_, _>>()
        };
        Ok(Accessibility {
            requisite: all("accessibility_requirements.requisite", &wire.requisite)?,
            preferred: all("accessibility_requirements.preferred", &wire.preferred)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_for_each_partition_comes_back() {
        let keys = TopologyKeys::new("CSI.sanpath.dev");
        let names: Partitions = ["cluster-a", "b"].map(|it| it.parse().unwrap()).into();
        let wire = keys.on_wire(&names);
        let expected = [
            "csi.sanpath.dev/partition.b",
            "csi.sanpath.dev/partition.cluster-a",
        ];
        let mut found: Vec<&String> = wire.segments.keys().collect();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(keys.read("f", &wire).unwrap(), names);
        let long = proto::Topology {
            segments: [("k".to_owned(), "v".repeat(4096))].into(),
        };
        let refused = keys.read("f", &long).unwrap_err().to_string();
        assert!(refused.starts_with("f has 4097 bytes"), "{refused}");
    }

    #[test]
    fn what_is_not_ours_names_no_partition() {
        let keys = TopologyKeys::new("csi.sanpath.dev");
        let segments = [
            ("topology.kubernetes.io/zone", "true"),
            ("csi.sanpath.dev/partition.a", "false"),
            ("csi.sanpath.dev/partition.A_b", "true"),
            ("csi.sanpath.dev/p", "true"),
            ("CSI.sanpath.dev/partition.PARTI00", "true"),
        ];
        let segments = segments.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let wire = proto::Topology {
            segments: segments.into(),
        };
        let names: Partitions = ["PARTI00"].map(|it| it.parse().unwrap()).into();
        assert_eq!(keys.read("f", &wire).unwrap(), names);
    }

    #[tokio::test]
    async fn a_volume_and_the_room_for_it_are_where_their_partition_is() {
        use super::super::controller::ControllerService;
        use super::super::proto::controller_server::Controller as _;
        use crate::controller::bench::Bench;
        use tonic::Request;

        let bench = Bench::new(&["a", "b"]).await;
        let keys = TopologyKeys::new("csi.sanpath.dev");
        let service = ControllerService::new(bench.controller.clone(), keys.clone());
        let b: SanName = "b".parse().unwrap();
        let node = keys.on_wire([&b]);
        let request = proto::CreateVolumeRequest {
            name: "v".to_owned(),
            volume_capabilities: vec![super::super::controller_tests::block()],
            accessibility_requirements: Some(proto::TopologyRequirement {
                requisite: vec![node.clone()],
                preferred: vec![node.clone()],
            }),
            ..Default::default()
        };
        let made = service.create_volume(Request::new(request)).await.unwrap();
        let volume = made.into_inner().volume.unwrap();
        assert_eq!(volume.accessible_topology, std::slice::from_ref(&node));
        assert!(
            volume.volume_id.starts_with("sp1:linux:b:"),
            "{}",
            volume.volume_id
        );
        let request = proto::GetCapacityRequest {
            accessible_topology: Some(node),
            ..Default::default()
        };
        let room = service.get_capacity(Request::new(request)).await.unwrap();
        assert_eq!(room.into_inner().available_capacity, 60 << 30);
    }
}
