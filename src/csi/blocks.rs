//! The SnapshotMetadata service: the blocks of a snapshot as a stream of messages, each no larger than the caller wants.
//!
//! The first message is made before the stream begins, so that what is wrong is told as the call's own status. A stream that ends without an error has told
//! everything; after an error the caller goes on from the end of the last block that it was told.

use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::controller::{ControllerService, Reply, refused};
use super::proto;
use super::proto::BlockMetadataType::VariableLength;
use super::proto::snapshot_metadata_server::SnapshotMetadata;
use super::snapshots as parse;
use crate::controller::{BlocksOf, Controller, ExtentPage};

/// So many blocks to a message unless the caller wants fewer: a message stays far below the 4 MiB that clients take.
pub(super) const MOST_BLOCKS: u32 = 10_000;
/// So many messages are made before the caller has taken the first.
const AHEAD: usize = 2;

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A walk over the blocks of a snapshot.
struct Walk {
    controller: Controller,
    wanted: BlocksOf,
    most: u32,
}

impl Walk {
    async fn page(&self, from: u64) -> Result<ExtentPage, Status> {
        let page = self.controller.blocks(&self.wanted, from, self.most);
        page.await.map_err(refused)
    }

    /// From `from` to the end, each part as `tell` puts it.
    async fn told<T: Send + 'static>(self, from: u64, tell: fn(ExtentPage) -> T) -> Reply<Told<T>> {
        let mut page = self.page(from).await?;
        let (told, heard) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            loop {
                let next = page.next;
                // A caller that is gone wants no more.
                if told.send(Ok(tell(page))).await.is_err() {
                    return;
                }
                let Some(next) = next else { return };
                page = match self.page(next).await {
                    Ok(page) => page,
                    Err(status) => {
                        let _ = told.send(Err(status)).await;
                        return;
                    }
                };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(heard))))
    }
}

fn blocks(page: &ExtentPage) -> (i64, Vec<proto::BlockMetadata>) {
    let block = |&(offset, length): &(u64, u64)| proto::BlockMetadata {
        byte_offset: signed(offset),
        size_bytes: signed(length),
    };
    (signed(page.size), page.extents.iter().map(block).collect())
}

/// CSI counts bytes in signed numbers; no volume comes near the bound.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl SnapshotMetadata for ControllerService {
    type GetMetadataAllocatedStream = Told<proto::GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Told<proto::GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<proto::GetMetadataAllocatedRequest>,
    ) -> Reply<Self::GetMetadataAllocatedStream> {
        let (wanted, from, most) = parse::allocated(request.get_ref()).map_err(refused)?;
        let walk = self.walk(wanted, most);
        walk.told(from, |page| {
            let (volume_capacity_bytes, block_metadata) = blocks(&page);
            proto::GetMetadataAllocatedResponse {
                block_metadata_type: VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            }
        })
        .await
    }

    async fn get_metadata_delta(
        &self,
        request: Request<proto::GetMetadataDeltaRequest>,
    ) -> Reply<Self::GetMetadataDeltaStream> {
        let (wanted, from, most) = parse::delta(request.get_ref()).map_err(refused)?;
        let walk = self.walk(wanted, most);
        walk.told(from, |page| {
            let (volume_capacity_bytes, block_metadata) = blocks(&page);
            proto::GetMetadataDeltaResponse {
                block_metadata_type: VariableLength.into(),
                volume_capacity_bytes,
                block_metadata,
            }
        })
        .await
    }
}

impl ControllerService {
    fn walk(&self, wanted: BlocksOf, most: u32) -> Walk {
        Walk {
            controller: self.controller().clone(),
            wanted,
            most,
        }
    }
}
