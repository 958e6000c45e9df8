//! The paths of the volumes as an operator asks for them: each beside the element of the list that it is there for.

use super::{Node, NodeError};
use crate::attach::PathTable;
use crate::fabric::{WantedPath, element_of};
use crate::volume::VolumeId;

/// The paths of one volume.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumePaths {
    /// Which.
    pub volume: VolumeId,
    /// How they stand.
    pub table: PathTable,
    /// For each row of the table the element of `ncpaths`; `None` without a list, and for a path that is listed no more.
    pub elements: Vec<Option<String>>,
}

pub fn paths(node: &Node, only: Option<&VolumeId>) -> Result<Vec<VolumePaths>, NodeError> {
    let mut found = Vec::new();
    for table in node.engine.path_tables()? {
        // A record that is not of the node's making is not shown.
        let Some(volume) = VolumeId::find(&table.record.key) else {
            continue;
        };
        if only.is_some_and(|only| *only != volume) {
            continue;
        }
        let settings = (node.paths_of)(&volume.san);
        let element = |path: &WantedPath| {
            let settings = settings.as_ref()?;
            let element = element_of(&settings.list, &settings.local, path)?;
            Some(element.to_string())
        };
        let elements = table.rows.iter().map(|row| element(&row.path));
        found.push(VolumePaths {
            elements: elements.collect(),
            volume,
            table,
        });
    }
    Ok(found)
}
