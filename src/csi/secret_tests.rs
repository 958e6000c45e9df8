//! No secret of any call reaches a log at its most talkative, an answer or an error: every call of every service with every secret field filled,
//! through the sockets as an orchestrator calls, sound and spoilt in several ways.
//!
//! What is logged depends on no thread or task here: the calls are made by a process of their own, whose log of all crates at `trace` is read.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use prost_reflect::prost::Message as _;
use prost_reflect::prost::bytes::{Buf as _, BufMut as _};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, MethodDescriptor,
    Value,
};
use tokio_util::sync::CancellationToken;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::controller_tests::NODE;
use super::{Identity, NodeService, TopologyKeys, proto, serve_controller, serve_node};
use crate::controller::bench::Bench;
use crate::inflight::Inflight;
use crate::metrics::Calls;
use crate::node::rig::{PODS, Rig, STAGING, run_test_alone};
use crate::volume::PublishContext;

/// Part of each secret, and of nothing else.
const SECRET: &str = "hunter2";
const FLAGS: [&str; 2] = ["context=\"hunter2\"", "hunter2-flag"];
/// The test that is the process of its own.
const INSIDE: &str = "csi::secret_tests::inside_a_process_of_its_own";
/// In the order of a volume's life; whatever else there is comes between.
const LAST: [&str; 5] = [
    "NodeUnpublishVolume",
    "NodeUnstageVolume",
    "ControllerUnpublishVolume",
    "DeleteSnapshot",
    "DeleteVolume",
];

#[test]
fn no_secret_is_logged_or_answered_even_at_trace() {
    let (passed, log) = run_test_alone(INSIDE);
    assert!(passed, "{log}");
    for told in [
        "TRACE",
        "NodeStageVolume done",
        "call failed",
        NODE,
        STAGING,
    ] {
        assert!(log.contains(told), "the log does not hold {told:?}");
    }
    let leaks = log.lines().filter(|line| line.contains(SECRET));
    let leaks: Vec<_> = leaks.collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// What is wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoilt {
    Nothing,
    UnknownVolume,
    TooLargeSecret,
    UselessSecret,
    MountFlags,
    DeadSan,
}

#[tokio::test]
#[ignore = "run by the test above in a process of its own"]
async fn inside_a_process_of_its_own() {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&["cluster-a"]).await;
    let rig = Rig::new();
    let keys = TopologyKeys::new("csi.sanpath.dev");
    let node = NodeService::new(rig.started(), Inflight::default(), keys);
    let (stop, identity) = (
        CancellationToken::new(),
        Identity::new("csi.sanpath.dev").unwrap(),
    );
    let (listener, controller) = listen(folder.path(), "controller");
    tokio::spawn(serve_controller(
        listener,
        identity.clone(),
        bench.controller.clone(),
        Calls::default(),
        stop.clone(),
    ));
    let (listener, path) = listen(folder.path(), "node");
    tokio::spawn(serve_node(listener, identity, node, Calls::default(), stop));
    let mut caller = Caller {
        controller: connect(controller).await,
        node: connect(path).await,
        created: String::new(),
        volume: rig.volume().to_string(),
        context: PublishContext(rig.export.clone()).to_map(),
    };
    for spoilt in [
        Spoilt::TooLargeSecret,
        Spoilt::UselessSecret,
        Spoilt::MountFlags,
        Spoilt::UnknownVolume,
        Spoilt::Nothing,
    ] {
        caller.created = created(&bench).await;
        caller.call_everything(spoilt).await;
    }
    bench.sans.clear();
    caller.call_everything(Spoilt::DeadSan).await;
}

/// A volume that is there for the calls that look for one.
async fn created(bench: &Bench) -> String {
    use super::proto::controller_server::Controller as _;
    let keys = TopologyKeys::new("csi.sanpath.dev");
    let service = super::ControllerService::new(bench.controller.clone(), keys);
    let request = super::controller_tests::create();
    let made = service.create_volume(Request::new(request)).await.unwrap();
    made.into_inner().volume.unwrap().volume_id
}

fn listen(folder: &Path, role: &str) -> (UnixListener, PathBuf) {
    let path = folder.join(format!("{role}.sock"));
    (UnixListener::bind(&path).unwrap(), path)
}

async fn connect(path: PathBuf) -> Channel {
    let address = format!("unix://{}", path.display());
    Endpoint::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

struct Caller {
    controller: Channel,
    node: Channel,
    /// The controller's volume.
    created: String,
    /// The node's.
    volume: String,
    context: HashMap<String, String>,
}

impl Caller {
    async fn call_everything(&self, spoilt: Spoilt) {
        let methods = methods();
        let secrets = methods.iter().filter(|it| has_secrets(&it.input()));
        assert_eq!(secrets.count(), 22, "calls with secrets");
        for method in &methods {
            self.call(method, spoilt).await;
        }
    }

    async fn call(&self, method: &MethodDescriptor, spoilt: Spoilt) {
        let is_of_node = method.parent_service().name() == "Node";
        let message = self.message(&method.input(), method.name(), (is_of_node, spoilt));
        let channel = if is_of_node {
            &self.node
        } else {
            &self.controller
        };
        let service = method.parent_service().full_name().to_owned();
        let path: PathAndQuery = format!("/{service}/{}", method.name()).parse().unwrap();
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let request = Request::new(message.encode_to_vec());
        // Printed to where the other test looks for secrets.
        match client.server_streaming(request, path, Raw).await {
            Err(status) => {
                println!("{} {spoilt:?}: {status:?}", method.name());
                if spoilt == Spoilt::TooLargeSecret
                    && has_secrets(&method.input())
                    && status.code() != Code::Unimplemented
                {
                    let told = (status.code(), status.message().starts_with("secrets has "));
                    assert_eq!(told, (Code::InvalidArgument, true), "{}", method.name());
                }
            }
            Ok(_) if spoilt == Spoilt::TooLargeSecret && has_secrets(&method.input()) => {
                panic!("{} takes more than CSI allows", method.name());
            }
            Ok(answer) => {
                let told = answer.into_inner().message().await;
                let mut told = told.map(|it| String::from_utf8_lossy(&it.unwrap()).into_owned());
                if let ("ValidateVolumeCapabilities", Ok(echo)) = (method.name(), &mut told) {
                    // What was understood is to be told again, the flags with it.
                    *echo = FLAGS
                        .iter()
                        .fold(echo.clone(), |it, flag| it.replace(flag, ""));
                }
                println!("{} {spoilt:?}: {told:?}", method.name());
            }
        }
    }

    fn message(
        &self,
        descriptor: &MessageDescriptor,
        call: &str,
        (is_of_node, spoilt): (bool, Spoilt),
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            let value = if is_secret(&field) {
                Some(secret(spoilt))
            } else {
                self.value(&field, call, (is_of_node, spoilt))
            };
            if let Some(value) = value {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn value(
        &self,
        field: &FieldDescriptor,
        call: &str,
        (is_of_node, spoilt): (bool, Spoilt),
    ) -> Option<Value> {
        let text = |text: &str| Some(Value::String(text.to_owned()));
        match field.name() {
            "name" => text(&format!("{call} {spoilt:?}")),
            "volume_id" | "source_volume_id" if spoilt == Spoilt::UnknownVolume => {
                text("fake-vol-id")
            }
            "volume_id" if is_of_node => text(&self.volume),
            "volume_id" | "source_volume_id" => text(&self.created),
            "source_volume_ids" => Some(Value::List(vec![Value::String(self.created.clone())])),
            "node_id" => text(NODE),
            "snapshot_id" if call == "ListSnapshots" => None,
            "snapshot_id" | "base_snapshot_id" | "target_snapshot_id" | "group_snapshot_id" => {
                text("fake-snapshot-id")
            }
            "snapshot_ids" => Some(Value::List(vec![Value::String("fake".to_owned())])),
            "staging_target_path" => text(STAGING),
            "target_path" => text(&format!("{PODS}/p1")),
            "volume_path" | "volume_publish_path" => text(STAGING),
            "publish_context" => Some(map(&self.context)),
            "volume_context" if is_of_node => {
                Some(map(&HashMap::from([("encryption".into(), "luks2".into())])))
            }
            "volume_capability" => Some(Value::Message(capability(field, spoilt))),
            "volume_capabilities" => {
                Some(Value::List(vec![Value::Message(capability(field, spoilt))]))
            }
            "capacity_range" => {
                let range = proto::CapacityRange {
                    required_bytes: 1 << 30,
                    limit_bytes: 0,
                };
                // The node's volume stays as it is.
                (!is_of_node).then(|| Value::Message(transcoded(field, &range)))
            }
            _ => None,
        }
    }
}

/// Every call, those that end something last.
fn methods() -> Vec<MethodDescriptor> {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let pool = DescriptorPool::decode(&bytes[..]).unwrap();
    let of_csi = pool.services().filter(|it| it.package_name() == "csi.v1");
    let mut methods: Vec<_> = of_csi
        .flat_map(|it| it.methods().collect::<Vec<_>>())
        .collect();
    methods.sort_by_key(|it| {
        LAST.iter()
            .position(|last| *last == it.name())
            .map_or(0, |at| at + 1)
    });
    methods
}

fn has_secrets(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| is_secret(&field))
}

fn is_secret(field: &FieldDescriptor) -> bool {
    let pool = field.parent_pool();
    let option = pool.get_extension_by_name("csi.v1.csi_secret").unwrap();
    field.options().get_extension(&option).as_bool() == Some(true)
}

fn secret(spoilt: Spoilt) -> Value {
    let passphrase = match spoilt {
        Spoilt::TooLargeSecret => SECRET.repeat(1000),
        Spoilt::UselessSecret => format!("{SECRET}\n"),
        _ => format!("{SECRET}-passphrase"),
    };
    map(&HashMap::from([
        ("passphrase".to_owned(), passphrase),
        (format!("{SECRET}-key"), format!("{SECRET}-value")),
    ]))
}

fn map(entries: &HashMap<String, String>) -> Value {
    let entry = |(key, value): (&String, &String)| {
        (MapKey::String(key.clone()), Value::String(value.clone()))
    };
    Value::Map(entries.iter().map(entry).collect())
}

fn capability(field: &FieldDescriptor, spoilt: Spoilt) -> DynamicMessage {
    use proto::volume_capability::access_mode::Mode;
    use proto::volume_capability::{AccessMode, AccessType, MountVolume};
    let mount_flags = if spoilt == Spoilt::MountFlags {
        FLAGS.map(str::to_owned).into()
    } else {
        Vec::new()
    };
    let capability = proto::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume {
            mount_flags,
            ..Default::default()
        })),
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
    };
    transcoded(field, &capability)
}

/// A message of ours as the descriptor has it.
fn transcoded(field: &FieldDescriptor, message: &impl prost::Message) -> DynamicMessage {
    let kind = field.kind();
    let descriptor = kind.as_message().unwrap().clone();
    DynamicMessage::decode(descriptor, &message.encode_to_vec()[..]).unwrap()
}

/// Messages as bytes.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
