//! The Identity service: who answers on this socket. The same from every role, and dependent on nothing.

use tonic::{Request, Response, Status};

use super::proto;
use super::proto::identity_server;
use super::proto::plugin_capability::Type as Kind;
use super::proto::plugin_capability::service::Type;
use super::proto::plugin_capability::volume_expansion::Type as Growth;
use super::topology::TopologyKeys;

/// CSI GetPluginInfo: at most this many characters.
const MAX_NAME: usize = 63;

/// Name and version of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
}

/// Why a text cannot be the driver's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a driver name: use at most {MAX_NAME} of a-z, A-Z, 0-9, . and -, with a letter at both ends"
)]
pub struct NameError(pub String);

impl Identity {
    /// The driver `name`, in the form of a domain name. Both ends are letters: csi-sanity is stricter here than the spec.
    ///
    /// # Errors
    /// [`NameError`] otherwise.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
        let letter = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphabetic);
        let bytes = name.as_bytes();
        let fits = (2..=MAX_NAME).contains(&bytes.len()) && bytes.iter().all(|b| inside(*b));
        if fits && letter(bytes.first()) && letter(bytes.last()) {
            Ok(Self {
                name: name.to_owned(),
            })
        } else {
            Err(NameError(name.to_owned()))
        }
    }

    /// The driver's topology keys.
    #[must_use]
    pub fn topology_keys(&self) -> TopologyKeys {
        TopologyKeys::new(&self.name)
    }
}

#[tonic::async_trait]
impl identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _: Request<proto::GetPluginInfoRequest>,
    ) -> Result<Response<proto::GetPluginInfoResponse>, Status> {
        Ok(Response::new(proto::GetPluginInfoResponse {
            name: self.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            manifest: [].into(),
        }))
    }

    /// What the deployment as a whole can do, so it does not matter which role is asked.
    async fn get_plugin_capabilities(
        &self,
        _: Request<proto::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<proto::GetPluginCapabilitiesResponse>, Status> {
        let service = |kind: Type| {
            Kind::Service(proto::plugin_capability::Service {
                r#type: kind.into(),
            })
        };
        let expansion = proto::plugin_capability::VolumeExpansion {
            r#type: Growth::Online.into(),
        };
        let capabilities = [
            service(Type::ControllerService),
            service(Type::VolumeAccessibilityConstraints),
            service(Type::GroupControllerService),
            service(Type::SnapshotMetadataService),
            Kind::VolumeExpansion(expansion),
        ];
        Ok(Response::new(proto::GetPluginCapabilitiesResponse {
            capabilities: capabilities
                .map(|kind| proto::PluginCapability { r#type: Some(kind) })
                .into(),
        }))
    }

    /// Whoever can answer is ready. A SAN that is down is no reason to restart the driver, so none is asked; it costs nothing.
    async fn probe(
        &self,
        _: Request<proto::ProbeRequest>,
    ) -> Result<Response<proto::ProbeResponse>, Status> {
        Ok(Response::new(proto::ProbeResponse { ready: Some(true) }))
    }
}

#[cfg(test)]
mod tests {
    use super::identity_server::Identity as _;
    use super::*;

    #[test]
    fn only_domain_names_are_taken() {
        Identity::new("csi.sanpath.dev").unwrap();
        let long = "a".repeat(64);
        for wrong in ["", "a", ".csi", "csi.1", "1.csi", "csi_x", "c si", &long] {
            assert!(Identity::new(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn it_says_who_it_is_and_that_it_is_ready() {
        let identity = Identity::new("csi.sanpath.dev").unwrap();
        let info = identity
            .get_plugin_info(Request::new(proto::GetPluginInfoRequest {}))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(info.name, "csi.sanpath.dev");
        assert!(!info.vendor_version.is_empty());
        let capabilities = identity
            .get_plugin_capabilities(Request::new(proto::GetPluginCapabilitiesRequest {}))
            .await
            .unwrap();
        assert_eq!(capabilities.into_inner().capabilities.len(), 5);
        let probe = identity.probe(Request::new(proto::ProbeRequest {})).await;
        assert_eq!(probe.unwrap().into_inner().ready, Some(true));
    }
}
