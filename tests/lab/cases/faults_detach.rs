//! Group E of the fault cases: what happens while a volume leaves its node.

use std::time::Duration;

use anyhow::Result;

use super::attach::Rig;
use crate::kit::case::{Case, Lab};

pub const CASES: &[Case] = &[Case {
    name: "detach_after_the_san_unmapped",
    deadline: Duration::from_secs(240),
    run: detach_after_the_san_unmapped,
}];

/// The array shows the LUN no longer when the node begins to detach: every path fails, and nothing may hang.
fn detach_after_the_san_unmapped(lab: &mut Lab) -> Result<()> {
    let mut rig = Rig::new(lab)?;
    let volume = rig.volume(9)?;
    rig.ensure("fresh", &volume)?;
    rig.unmap(&volume)?;
    rig.detach("detach a LUN that is gone", &volume)?;
    rig.remove()
}
