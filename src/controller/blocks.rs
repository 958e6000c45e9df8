//! What a snapshot holds, and what changed since an earlier one, part by part: as the SAN tells it.

use super::place::Place;
use super::{Controller, ControllerError};
use crate::san::{ExtentPage, Until};
use crate::volume::AnySnapshotId;

/// Which blocks are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlocksOf {
    /// The snapshot.
    pub target: AnySnapshotId,
    /// An earlier one of the same volume: only what differs from it; else all that may be other than zero. Which of the two is the earlier makes no difference to
    /// what differs, and the SAN's clock may have been set back between them: so it is not judged.
    pub base: Option<AnySnapshotId>,
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
        let until = self.until();
        let ((partition, san), key) = self.key_on_san(&wanted.target, until).await?;
        let base = match &wanted.base {
            Some(base) => Some(self.key_on_san(base, until).await?.1),
            None => None,
        };
        let page = san.list_extents((&key, base.as_deref()), from, most, until);
        page.await.map_err(ControllerError::san(&partition))
    }

    /// The SAN's own cut; what is in an archive alone has none.
    async fn key_on_san(
        &self,
        id: &AnySnapshotId,
        until: Until,
    ) -> Result<(Place, String), ControllerError> {
        match id {
            AnySnapshotId::OnSan(id) => {
                let place = (id.san.clone(), self.san_of_snapshot(id)?);
                Ok((place, id.key.clone()))
            }
            AnySnapshotId::Archived(archived) => {
                let cut = self.find_cut(archived, until).await?;
                let cut = cut.ok_or_else(|| ControllerError::NoSnapshot(id.clone()))?;
                Ok((cut.place, cut.found.key))
            }
        }
    }
}
