//! docs/quick-start.md, followed to the letter: every line that it marks as shell, in one shell, on a machine that has what its first chapter asks for.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::command;
use crate::kit::leftovers;

pub const LONG: &[Case] = &[Case {
    name: "quick_start_to_the_letter",
    deadline: Duration::from_secs(540),
    run: quick_start,
}];

const PAGE: &str = include_str!("../../../docs/quick-start.md");
const PATIENCE: Duration = Duration::from_secs(480);

fn quick_start(lab: &mut Lab) -> Result<()> {
    let before = leftovers::count();
    let script = lines_of_shell(PAGE);
    ensure!(script.contains("sanpath try mount"), "{script}");
    // Where the reader has the program.
    let here = SANPATH.trim_end_matches("/sanpath");
    let told = command::run(&["bash", "-ec", &format!("cd {here}\n{script}")], PATIENCE)?;
    let told = told.success("docs/quick-start.md")?;
    lab.story(&told);
    for wanted in [
        "mounted    /mnt/first",
        "127.0.0.1:3260",
        "127.0.0.2:3260",
        "size=256M",
        "127.0.0.1:7420",
        "deleted    its space is back in the pool",
    ] {
        ensure!(told.contains(wanted), "{wanted:?} is not told");
    }
    let left = leftovers::since(&before);
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// What stands in the page between ```sh and ```.
fn lines_of_shell(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    blocks.collect()
}
