//! The lab: boots real kernels with iSCSI, a kernel target and dm-multipath, and proves things in them. The same static binary is
//! the runner on the host (`cargo test --test lab -- …`) and everything the lab runs inside a guest.
#![expect(
    clippy::disallowed_methods,
    reason = "the lab is outside the program's seam: it starts programs, mounts and keeps time itself"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program talks on its terminal"
)]

mod cases;
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "it is the suite of tests/arrays as well, and its failures are a case's"
)]
#[path = "../conformance/mod.rs"]
mod conformance;
mod faults;
mod fleet;
mod kit;
#[path = "../sanity/mod.rs"]
mod sanity;
mod selftest;
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "arrays use their faults and their looks from tests/arrays"
)]
#[path = "../simulators/mod.rs"]
mod simulators;

use std::process::ExitCode;

use clap::Parser;
use kit::{agent, job, runner};

const SETTINGS: &str = "\
Environment:
  LAB_SCALE    rounds of the long cases are multiplied by it; above 1 the cases of the long run are added (1)
  LAB_SEED     what random cases begin with, to repeat one (another in every run)
  LAB_LANES    how many cases run side by side (the processors, up to 4)
  LAB_ACCEL    kvm or tcg, without a trial
  LAB_RELEASE  the Debian release of the guests (trixie)
  LAB_CACHE    where images and csi-sanity are kept (target/lab/cache)";

/// Boots guests and runs the lab's cases in them.
#[derive(Debug, Parser)]
#[command(name = "lab", after_help = SETTINGS)]
struct Arguments {
    /// Run the cases whose name contains one of these; all without any.
    names: Vec<String>,
    /// Only list what would run.
    #[arg(long)]
    list: bool,
    /// After the first failure, open a root shell in the failed guest.
    #[arg(long)]
    keep: bool,
    /// Open a root shell in a fresh guest, no case.
    #[arg(long)]
    shell: bool,
    /// Run the demo case and print its story as it happens.
    #[arg(long)]
    demo: bool,
    /// Only make what is made once: tools, guest image, csi-sanity.
    #[arg(long)]
    prepare: bool,
    /// Only make csi-sanity, and print where it is.
    #[arg(long)]
    csi_sanity: bool,
    /// Prove the lab itself: leftovers are found, wedged guests condemned, evidence kept.
    #[arg(long)]
    self_test: bool,
    /// Only write the table of fault cases into tests/README.md, from the last run's results or these files of results.
    #[arg(long)]
    fault_table: bool,
    /// Write to this file until SIGTERM, every block on disk before the next.
    #[arg(long, hide = true, requires = "status")]
    write: Option<std::path::PathBuf>,
    /// Where `--write` notes how many blocks are on disk.
    #[arg(long, hide = true)]
    status: Option<std::path::PathBuf>,
    /// After how many blocks `--write` starts over.
    #[arg(long, hide = true, default_value_t = 1024)]
    round: u64,
    /// The guest's first process.
    #[arg(long, hide = true)]
    guest: bool,
    /// The guest's agent.
    #[arg(long, hide = true)]
    agent: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--job", rest)) = words
        .split_first()
        .map(|(first, rest)| (first.as_str(), rest))
    {
        return job::main(rest);
    }
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.guest {
        return agent::run_as_first_process().map(|()| false);
    }
    if arguments.agent {
        return agent::run().map(|()| false);
    }
    if let (Some(path), Some(status)) = (&arguments.write, &arguments.status) {
        return kit::writer::write_until_signalled(path, arguments.round, status).map(|()| true);
    }
    if arguments.list {
        return runner::list(&arguments.names).map(|()| true);
    }
    if arguments.fault_table {
        return faults::rewrite(&arguments.names);
    }
    if arguments.shell {
        return runner::open_shell();
    }
    if arguments.demo {
        return runner::demo();
    }
    if arguments.prepare {
        return runner::prepare_only();
    }
    if arguments.csi_sanity {
        let program = kit::sanity::ensure()?;
        println!("{}", std::path::absolute(program)?.display());
        return Ok(true);
    }
    if arguments.self_test {
        return selftest::run();
    }
    runner::run(&arguments.names, arguments.keep)
}
