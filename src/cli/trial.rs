//! `sanpath try`: makes a volume and mounts it here, and the reverse, by the calls that an orchestrator makes. For a machine that has none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::answer::print;
use super::duration;
use crate::csi::proto as csi;
use crate::csi::proto::controller_client::ControllerClient;
use crate::csi::proto::node_client::NodeClient;
use crate::host::Host;
use crate::volume::SanName;

/// Between two attempts at a call that may be repeated.
const PAUSE: Duration = Duration::from_secs(1);
const MIB: i64 = 1 << 20;

/// Arguments of `sanpath try`.
#[derive(Debug, Args)]
pub struct TrialArguments {
    #[command(subcommand)]
    what: Trial,
    /// Where the controller daemon serves CSI.
    #[arg(
        long,
        global = true,
        default_value = "/run/sanpath/csi-controller.sock"
    )]
    controller: PathBuf,
    /// Where the node daemon serves CSI.
    #[arg(long, global = true, default_value = "/run/sanpath/csi-node.sock")]
    node: PathBuf,
    /// Where the volume is mounted for the whole machine, beside the place that is asked for; one for each volume. It is made.
    #[arg(long, global = true, default_value = "/var/lib/sanpath/try")]
    staging: PathBuf,
    /// How long to go on, for example `5m`.
    #[arg(long, global = true, default_value = "5m", value_parser = duration)]
    patience: Duration,
}

#[derive(Debug, Subcommand)]
enum Trial {
    /// Make a volume of this name, unless it is there, and mount it. May be repeated.
    Mount(Wanted),
    /// Unmount a volume and take it from this machine; with --delete, also from the SAN. May be repeated.
    Unmount(Given),
}

#[derive(Debug, Args)]
struct Wanted {
    /// The volume's name.
    name: String,
    /// Where to mount it. It is made; the folder around it must be there.
    place: PathBuf,
    /// Its size in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(i64).range(1..=1 << 30))]
    mib: i64,
    /// Its file system.
    #[arg(long, default_value = "ext4", value_parser = ["ext4", "xfs", "btrfs"])]
    file_system: String,
    /// Its partition, where the config file has several.
    #[arg(long)]
    partition: Option<SanName>,
}

#[derive(Debug, Args)]
struct Given {
    /// The volume's id, as `mount` printed it.
    volume: String,
    /// Where it is mounted.
    place: PathBuf,
    /// Delete the volume, with all that is in it.
    #[arg(long)]
    delete: bool,
}

/// Calls, and prints what came of it.
///
/// # Errors
/// The first call that is refused, or does not succeed in time. What was done stays; the command may be repeated, or its reverse given.
pub(super) fn run(asked: &TrialArguments) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        let caller = Caller::of(asked)?;
        match &asked.what {
            Trial::Mount(wanted) => {
                let host = Host::real(Path::new("/"));
                let made = host.ensure_directory(&asked.staging);
                made.with_context(|| format!("making {}", asked.staging.display()))?;
                caller.mount(wanted).await
            }
            Trial::Unmount(wanted) => caller.unmount(wanted).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

impl Wanted {
    fn request(&self) -> csi::CreateVolumeRequest {
        let partition = self.partition.iter();
        csi::CreateVolumeRequest {
            name: self.name.clone(),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: self.mib.saturating_mul(MIB),
                ..csi::CapacityRange::default()
            }),
            volume_capabilities: vec![self.capability()],
            parameters: partition
                .map(|it| ("partition".to_owned(), it.to_string()))
                .collect(),
            ..csi::CreateVolumeRequest::default()
        }
    }

    fn capability(&self) -> csi::VolumeCapability {
        use csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
        csi::VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: self.file_system.clone(),
                ..MountVolume::default()
            })),
        }
    }
}

/// Both daemons, and how long to go on calling them.
struct Caller {
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    staging: String,
    until: Instant,
}

impl Caller {
    fn of(asked: &TrialArguments) -> anyhow::Result<Self> {
        Ok(Self {
            controller: ControllerClient::new(channel(&asked.controller)?),
            node: NodeClient::new(channel(&asked.node)?),
            staging: asked.staging.display().to_string(),
            until: Instant::now() + asked.patience,
        })
    }

    async fn mount(&self, wanted: &Wanted) -> anyhow::Result<()> {
        let call = async |it| self.controller.clone().create_volume(it).await;
        let created = self
            .repeated("CreateVolume", wanted.request(), call)
            .await?;
        let volume = created.volume.context("CreateVolume has no volume")?;
        print(&format!("made       {}", volume.volume_id))?;
        let publish_context = self.publish(wanted, &volume).await?;
        let request = csi::NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: self.staging.clone(),
            volume_capability: Some(wanted.capability()),
            volume_context: volume.volume_context.clone(),
            ..csi::NodeStageVolumeRequest::default()
        };
        let call = async |it| self.node.clone().node_stage_volume(it).await;
        self.repeated("NodeStageVolume", request, call).await?;
        print(&format!("staged     {}", self.staging))?;
        let request = csi::NodePublishVolumeRequest {
            volume_id: volume.volume_id,
            publish_context,
            staging_target_path: self.staging.clone(),
            target_path: wanted.place.display().to_string(),
            volume_capability: Some(wanted.capability()),
            volume_context: volume.volume_context,
            ..csi::NodePublishVolumeRequest::default()
        };
        let call = async |it| self.node.clone().node_publish_volume(it).await;
        self.repeated("NodePublishVolume", request, call).await?;
        Ok(print(&format!("mounted    {}", wanted.place.display()))?)
    }

    /// Has the SAN show the volume to this node; what the node is told of it.
    async fn publish(
        &self,
        wanted: &Wanted,
        volume: &csi::Volume,
    ) -> anyhow::Result<HashMap<String, String>> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: self.node_id().await?,
            volume_capability: Some(wanted.capability()),
            volume_context: volume.volume_context.clone(),
            ..csi::ControllerPublishVolumeRequest::default()
        };
        let call = async |it| self.controller.clone().controller_publish_volume(it).await;
        let published = self.repeated("ControllerPublishVolume", request, call);
        let context = published.await?.publish_context;
        let wwid = context.get("wwid").map_or("", String::as_str);
        print(&format!("published  WWID {wwid}"))?;
        Ok(context)
    }

    async fn unmount(&self, given: &Given) -> anyhow::Result<()> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: given.volume.clone(),
            target_path: given.place.display().to_string(),
        };
        let call = async |it| self.node.clone().node_unpublish_volume(it).await;
        self.repeated("NodeUnpublishVolume", request, call).await?;
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: given.volume.clone(),
            staging_target_path: self.staging.clone(),
        };
        let call = async |it| self.node.clone().node_unstage_volume(it).await;
        self.repeated("NodeUnstageVolume", request, call).await?;
        print("unmounted  nothing of it is on this machine")?;
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: given.volume.clone(),
            node_id: self.node_id().await?,
            ..csi::ControllerUnpublishVolumeRequest::default()
        };
        let call = async |it| {
            let mut controller = self.controller.clone();
            controller.controller_unpublish_volume(it).await
        };
        let taken = self.repeated("ControllerUnpublishVolume", request, call);
        taken.await?;
        print("taken      the SAN no longer shows it here")?;
        if given.delete {
            let request = csi::DeleteVolumeRequest {
                volume_id: given.volume.clone(),
                ..csi::DeleteVolumeRequest::default()
            };
            let call = async |it| self.controller.clone().delete_volume(it).await;
            self.repeated("DeleteVolume", request, call).await?;
            print("deleted    its space is back in the pool")?;
        }
        Ok(())
    }

    async fn node_id(&self) -> anyhow::Result<String> {
        let call = async |it| self.node.clone().node_get_info(it).await;
        let asked = self.repeated("NodeGetInfo", csi::NodeGetInfoRequest {}, call);
        Ok(asked.await?.node_id)
    }

    /// The call, until it is answered for good: as an orchestrator repeats what may have been done.
    async fn repeated<R: Clone, T>(
        &self,
        name: &str,
        request: R,
        call: impl AsyncFn(R) -> Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        loop {
            let Ok(answered) = timeout_at(self.until, call(request.clone())).await else {
                bail!("{name} did not end in time");
            };
            let status = match answered {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let maybe_done = [Code::Unavailable, Code::Aborted, Code::DeadlineExceeded];
            let in_time = Instant::now() + PAUSE < self.until;
            if !maybe_done.contains(&status.code()) || !in_time {
                bail!("{name} says {:?}: {}", status.code(), status.message());
            }
            sleep(PAUSE).await;
        }
    }
}

fn channel(socket: &Path) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
    let endpoint = endpoint.with_context(|| format!("{} is no socket", socket.display()))?;
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use clap::Parser;

    use super::super::{Arguments, Command};
    use super::*;

    fn parsed(words: &str) -> Option<TrialArguments> {
        let line = format!("sanpath try {words}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).ok()?;
        match arguments.role.into_command() {
            Ok(Command::Trial(asked)) => Some(asked),
            _ => None,
        }
    }

    #[test]
    fn a_volume_is_mounted_or_unmounted() {
        let Trial::Mount(wanted) = parsed("mount a /mnt/a").unwrap().what else {
            panic!("the other command")
        };
        let range = wanted.request().capacity_range.unwrap();
        assert_eq!(range.required_bytes, 1 << 30);
        let Trial::Unmount(given) = parsed("unmount sp1:x /mnt/a").unwrap().what else {
            panic!("the other command")
        };
        assert!(!given.delete);
        for wrong in [
            "",
            "mount a",
            "mount a /mnt/a --mib 0",
            "mount a /mnt/a --file-system zfs",
            "unmount /mnt/a",
        ] {
            assert!(parsed(wrong).is_none(), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_done_is_asked_again_and_a_refusal_is_told() {
        let mut caller = Caller::of(&parsed("mount a /mnt/a").unwrap()).unwrap();
        caller.until = Instant::now() + Duration::from_secs(10);
        let asked = Cell::new(0);
        let answers = async |codes: Vec<Code>| {
            asked.set(0);
            let call = async |()| {
                let index = asked.replace(asked.get() + 1);
                match codes.get(index).unwrap_or(&Code::Unavailable) {
                    Code::Ok => Ok(Response::new(())),
                    code => Err(Status::new(*code, "why")),
                }
            };
            caller.repeated("It", (), call).await
        };
        let late = answers(vec![Code::Unavailable, Code::Aborted, Code::Ok]).await;
        late.unwrap();
        assert_eq!(asked.get(), 3);
        let refused = answers(vec![Code::Aborted, Code::OutOfRange]).await;
        assert_eq!(refused.unwrap_err().to_string(), "It says OutOfRange: why");
        let given_up = answers(Vec::new()).await;
        assert_eq!(
            given_up.unwrap_err().to_string(),
            "It says Unavailable: why"
        );
        assert!(asked.get() > 5, "{}", asked.get());
    }
}
