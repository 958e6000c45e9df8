//! `sanpath san adopt`: what is on a SAN already becomes a managed volume, and the PersistentVolume to apply is printed.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tonic::transport::Channel;

use super::answer::print;
use super::called_san::{CalledSan, said};
use crate::controller::{context_of, notes_of_adopted};
use crate::fabric::Wwid;
use crate::linux_san_wire::linux_san_client::LinuxSanClient;
use crate::linux_san_wire::{AdoptVolumeRequest, Volume};
use crate::volume::{ENCRYPTION, Family, SanName, VolumeId};

/// Arguments of `sanpath san adopt`.
#[derive(Debug, Args)]
pub struct AdoptArguments {
    /// What volume and PersistentVolume are called: letters, digits, '-' and '.', in small letters. Repeated with the same words, it prints the same.
    #[arg(value_parser = object_name)]
    name: String,
    /// The partition of the config file whose volume it is to be; it must be of this SAN.
    #[arg(long)]
    partition: SanName,
    /// What is to become the volume: a file by its path in the pool, or a thin volume of the pool. Without it, a volume of that name is on the SAN already.
    #[arg(long)]
    object: Option<String>,
    /// The identity that the volume is to have, as `multipath -ll` prints it: 36001405 and 25 digits. Without it, a random one.
    #[arg(long)]
    wwid: Option<Wwid>,
    /// The file system that it holds. It is mounted as it is, and never made.
    #[arg(long, value_enum, default_value_t = Content::Ext4)]
    holds: Content,
    /// The StorageClass that the PersistentVolume names; one that allows expansion lets its claim grow.
    #[arg(long, default_value = "", value_parser = class_name)]
    storage_class: String,
    /// The driver's name, as its daemons were given it.
    #[arg(long, default_value = "csi.sanpath.dev")]
    driver_name: String,
    #[command(flatten)]
    san: CalledSan,
}

/// What travels with a volume.
type Context = BTreeMap<String, String>;

/// What a volume is to its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Content {
    Ext4,
    Xfs,
    Btrfs,
    /// Whatever it is: pods get the raw device.
    Block,
}

impl Content {
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::Ext4 => Some("ext4"),
            Self::Xfs => Some("xfs"),
            Self::Btrfs => Some("btrfs"),
            Self::Block => None,
        }
    }
}

/// A name that an object of Kubernetes can have (RFC 1123 subdomain).
fn object_name(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().last()];
        let ends = ends.into_iter().all(|end| end.is_some_and(inner));
        ends && label.bytes().all(|byte| inner(byte) || byte == b'-')
    };
    // The SAN's own limit is the longer one.
    if text.len() <= 253 && text.split('.').all(label) {
        Ok(text.to_owned())
    } else {
        Err(
            "use up to 253 of a-z, 0-9, '-' and '.', with a letter or digit at both ends"
                .to_owned(),
        )
    }
}

fn class_name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    object_name(text)
}

/// Adopts and prints.
///
/// # Errors
/// When the SAN cannot be reached, refuses, or gives no answer in time.
pub(super) fn run(asked: &AdoptArguments) -> anyhow::Result<ExitCode> {
    let volume = asked.san.call(async |san| ask(asked, san).await)?;
    print(&persistent_volume(asked, volume)?)?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(asked: &AdoptArguments, mut san: LinuxSanClient<Channel>) -> anyhow::Result<Volume> {
    let wwid = asked.wwid.as_ref().map(ToString::to_string);
    let adopted = san.adopt_volume(AdoptVolumeRequest {
        name: asked.name.clone(),
        object: asked.object.clone().unwrap_or_default(),
        metadata: notes_of_adopted(&asked.name, &asked.partition)
            .into_iter()
            .collect(),
        wwid: wwid.unwrap_or_default(),
    });
    Ok(adopted.await.map_err(said)?.into_inner())
}

/// What is to be applied for the volume.
fn persistent_volume(asked: &AdoptArguments, volume: Volume) -> anyhow::Result<String> {
    let notes = volume.metadata.into_iter().collect();
    let context = context_of(&notes, &asked.partition);
    let context = context.with_context(|| {
        format!(
            "the volume {:?} of the SAN is not of partition {} by what is noted with it; name its own partition with --partition",
            volume.name, asked.partition
        )
    })?;
    let id = VolumeId {
        family: Family::Linux,
        san: asked.partition.clone(),
        key: volume.key,
        wwid: volume.wwid.parse()?,
    };
    Ok(manifest(asked, &id, volume.size_bytes, &context))
}

/// A word that could be more than a word to YAML, whose quotes JSON's are.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn manifest(asked: &AdoptArguments, id: &VolumeId, size: u64, context: &Context) -> String {
    let mode = match asked.holds {
        Content::Block => "Block",
        _ => "Filesystem",
    };
    let topology = format!(
        "{}/partition.{}",
        asked.driver_name.to_ascii_lowercase(),
        asked.partition
    );
    format!(
        "apiVersion: v1
kind: PersistentVolume
metadata:
  name: {name}
  annotations:
    pv.kubernetes.io/provisioned-by: {driver}
spec:
  capacity:
    storage: {size}
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  # Delete would delete the volume on the SAN with its claim.
  persistentVolumeReclaimPolicy: Retain
  storageClassName: {class}
  csi:
    driver: {driver}
    volumeHandle: {handle}
{attributes}  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - key: {topology}
              operator: In
              values: [\"true\"]",
        name = quoted(&asked.name),
        driver = quoted(&asked.driver_name),
        size = quoted(&size.to_string()),
        class = quoted(&asked.storage_class),
        handle = quoted(&id.to_string()),
        attributes = attributes(asked.holds, context),
        topology = quoted(&topology),
    )
}

/// What the node is told of the volume.
fn attributes(holds: Content, context: &Context) -> String {
    let kind = holds.kind().map(|kind| format!("    fsType: {kind}"));
    let told = context.iter();
    let told = told.map(|(key, text)| format!("      {}: {}", quoted(key), quoted(text)));
    let secret = context.contains_key(ENCRYPTION).then_some([
        "    # It is encrypted: name the Secret with its passphrase.",
        "    nodeStageSecretRef: {name: \"\", namespace: \"\"}",
    ]);
    let lines = kind
        .into_iter()
        .chain(["    volumeAttributes:".to_owned()])
        .chain(told)
        .chain(secret.into_iter().flatten().map(str::to_owned));
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command, SanCommand};
    use super::*;

    fn parsed(words: &str) -> Option<AdoptArguments> {
        let line = format!("sanpath san adopt {words}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).ok()?;
        match arguments.role.into_command() {
            Ok(Command::San(SanCommand::Adopt(asked))) => Some(asked),
            _ => None,
        }
    }

    const SAN: &str = "--partition cluster-a --address 10.0.0.1:7420";

    fn adopted(asked: &AdoptArguments) -> Volume {
        Volume {
            key: "0f1e2d3c4b5a69788796a5b4c3d2e1f0".to_owned(),
            name: asked.name.clone(),
            wwid: "360014050123456789abcdef012345678".to_owned(),
            size_bytes: 64 << 20,
            metadata: notes_of_adopted(&asked.name, &asked.partition)
                .into_iter()
                .collect(),
            ..Volume::default()
        }
    }

    #[test]
    fn what_is_adopted_is_named() {
        let asked = parsed(&format!("db.1 --object images/db.img {SAN} --tls /root/op")).unwrap();
        assert_eq!(asked.object.as_deref(), Some("images/db.img"));
        assert_eq!((asked.wwid, asked.holds), (None, Content::Ext4));
        let wwid = "360014050123456789abcdef012345678";
        let asked = parsed(&format!("db --wwid {wwid} --holds block {SAN}")).unwrap();
        assert_eq!(asked.wwid.unwrap().as_str(), wwid);
        for wrong in ["", "DB", "db-", "-db", "d_b", ".db", "db..1"] {
            assert!(parsed(&format!("{wrong} {SAN}")).is_none(), "{wrong}");
        }
        for wrong in ["--wwid 123", "--holds ntfs", "--storage-class A"] {
            assert!(parsed(&format!("db {wrong} {SAN}")).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_manifest_is_what_create_volume_would_have_led_to() {
        let asked = parsed(&format!("db --object db.img {SAN} --storage-class fast")).unwrap();
        let text = persistent_volume(&asked, adopted(&asked)).unwrap();
        let expected = r#"apiVersion: v1
kind: PersistentVolume
metadata:
  name: "db"
  annotations:
    pv.kubernetes.io/provisioned-by: "csi.sanpath.dev"
spec:
  capacity:
    storage: "67108864"
  volumeMode: Filesystem
  accessModes: [ReadWriteOnce]
  # Delete would delete the volume on the SAN with its claim.
  persistentVolumeReclaimPolicy: Retain
  storageClassName: "fast"
  csi:
    driver: "csi.sanpath.dev"
    volumeHandle: "sp1:linux:cluster-a:0f1e2d3c4b5a69788796a5b4c3d2e1f0:360014050123456789abcdef012345678"
    fsType: ext4
    volumeAttributes:
      "partition": "cluster-a"
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions:
            - key: "csi.sanpath.dev/partition.cluster-a"
              operator: In
              values: ["true"]"#;
        assert_eq!(text, expected);
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["spec"]["csi"]["fsType"], "ext4");
        let raw = parsed(&format!("db --holds block {SAN}")).unwrap();
        let text = persistent_volume(&raw, adopted(&raw)).unwrap();
        assert!(text.contains("volumeMode: Block") && !text.contains("fsType"));
    }

    #[test]
    fn a_volume_of_another_partition_gets_no_manifest_and_an_encrypted_one_asks_for_its_secret() {
        let asked = parsed(&format!("db {SAN}")).unwrap();
        let mut volume = adopted(&asked);
        let sealed = r#"{"encryption":"luks2"}"#.to_owned();
        volume.metadata.insert("csi/parameters".to_owned(), sealed);
        let text = persistent_volume(&asked, volume.clone()).unwrap();
        assert!(text.contains("nodeStageSecretRef") && text.contains("\"luks2\""));
        let other = "cluster-b".to_owned();
        volume
            .metadata
            .insert("sanpath/partition".to_owned(), other);
        let told = persistent_volume(&asked, volume).unwrap_err().to_string();
        assert!(told.contains("--partition"), "{told}");
    }
}
