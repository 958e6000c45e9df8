//! What a snapshot holds, and what changed since an earlier one, part by part: as the SAN tells it.

use super::{Controller, ControllerError};
use crate::san::ExtentPage;
use crate::volume::SnapshotId;

/// Which blocks are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksOf {
    /// The snapshot.
    pub target: SnapshotId,
    /// An earlier one of the same volume: only what differs from it; else all that may be other than zero. Which of the two is the earlier makes no difference to
    /// what differs, and the SAN's clock may have been set back between them: so it is not judged.
    pub base: Option<SnapshotId>,
}

impl Controller {
    /// The blocks from the offset `from` on, at most `most` of them. Whatever is not told is the same, or zero, for certain.
    ///
    /// # Errors
    /// [`ControllerError::NoSnapshot`], [`ControllerError::OtherBase`], [`ControllerError::Offset`], and as the SAN or the way to it failed.
    pub async fn blocks(
        &self,
        wanted: &BlocksOf,
        from: u64,
        most: u32,
    ) -> Result<ExtentPage, ControllerError> {
        let target = self.get_snapshot(&wanted.target).await?;
        if let Some(base) = &wanted.base {
            let earlier = self.get_snapshot(base).await?;
            if earlier.source != target.source {
                return Err(ControllerError::OtherBase {
                    base: base.clone(),
                    target: wanted.target.clone(),
                });
            }
        }
        if from > target.size {
            return Err(ControllerError::Offset {
                from,
                size: target.size,
            });
        }
        let san = self.san_of_snapshot(&wanted.target)?;
        let base = wanted.base.as_ref().map(|base| base.key.as_str());
        let page = san.list_extents((&wanted.target.key, base), from, most, self.until());
        page.await.map_err(ControllerError::san(&wanted.target.san))
    }
}
