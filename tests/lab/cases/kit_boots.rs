//! The guest is what the other cases believe it to be.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::daemons::Daemon;
use crate::kit::paths;
use crate::kit::services::Service;
use crate::kit::topology::{self, Link, SAN_NAMESPACE};

pub const CASES: &[Case] = &[
    Case {
        name: "kit_boots",
        deadline: MINUTE,
        run: kit_boots,
    },
    Case {
        name: "kit_cuts_paths",
        deadline: MINUTE,
        run: kit_cuts_paths,
    },
    Case {
        name: "kit_keeps_daemons",
        deadline: MINUTE,
        run: kit_keeps_daemons,
    },
];

const MINUTE: Duration = Duration::from_secs(60);

const MODULES: &[&str] = &[
    "iscsi_tcp",
    "dm_multipath",
    "dm_round_robin",
    "dm_service_time",
    "iscsi_target_mod",
    "target_core_file",
    "target_core_iblock",
    "scsi_dh_alua",
    "sd_mod",
    "sg",
];

fn kit_boots(lab: &mut Lab) -> Result<()> {
    for module in MODULES {
        ensure!(
            Path::new("/sys/module").join(module).exists(),
            "module {module} is not loaded"
        );
    }
    ensure!(
        Path::new("/sys/kernel/config/target/iscsi").is_dir() || make_iscsi_fabric(),
        "the kernel target does not answer"
    );
    // 21: iscsid answered, and there is no session.
    let sessions = lab.run(&["iscsiadm", "-m", "session"])?;
    ensure!(
        sessions.code == Some(21),
        "iscsid does not answer: {sessions:?}"
    );
    let daemon = lab.execute(&["multipathd", "show", "daemon"])?;
    ensure!(
        daemon.contains("idle") || daemon.contains("running"),
        "multipathd does not answer: {daemon}"
    );
    for link in topology::links() {
        lab.execute(&["ping", "-c", "1", "-W", "5", &link.san_address(1)])?;
    }
    let pool = lab.execute(&["xfs_info", "/pool"])?;
    ensure!(
        pool.contains("reflink=1"),
        "the pool has no reflink: {pool}"
    );
    let version = lab.run(&[SANPATH, "--version"])?;
    ensure!(
        version.code.is_some(),
        "the program under test does not start: {version:?}"
    );
    lab.story(format!(
        "kernel {}",
        nix::sys::utsname::uname()?.release().to_string_lossy()
    ));
    Ok(())
}

fn kit_cuts_paths(lab: &mut Lab) -> Result<()> {
    let (one, two) = (Link(1), Link(2));
    let reaches = |link: Link, seconds: &str| -> Result<bool> {
        let ping = ["ping", "-c", "1", "-W", seconds, &link.san_address(1)];
        Ok(lab.run(&ping)?.code == Some(0))
    };
    // A neighbour that was asked for in vain is given up for some seconds, and the first packets after that are lost.
    let comes_through = |link: Link| {
        lab.wait_for("an answer over the path", Duration::from_secs(20), || {
            Ok(reaches(link, "1")?.then_some(()))
        })
    };
    paths::cut(one)?;
    ensure!(!reaches(one, "1")?, "path 1 is not cut");
    comes_through(two).context("the cut is not on path 1 alone")?;
    paths::restore(one)?;
    paths::black_hole(two)?;
    ensure!(!reaches(two, "1")?, "path 2 is no black hole");
    comes_through(one).context("the black hole is not on path 2 alone")?;
    paths::clear(two)?;
    comes_through(two)?;
    paths::slow_down(two, Duration::from_millis(300))?;
    let started = Instant::now();
    ensure!(reaches(two, "5")?, "the slow path does not answer at all");
    ensure!(
        started.elapsed() > Duration::from_millis(300),
        "the slow path is fast"
    );
    paths::clear(two)?;
    comes_through(two)?;
    Ok(())
}

/// A daemon in the SAN's network, and the host's own multipathd: started, ended, started again.
fn kit_keeps_daemons(lab: &mut Lab) -> Result<()> {
    let address = format!("{}:8080", Link::MANAGEMENT.san_address(1));
    let script = "trap 'kill $!; wait $!; exit 0' TERM; busybox httpd -f -p $ADDRESS & wait";
    let daemon = Daemon::new("web", ["sh", "-c", script])
        .with_environment("ADDRESS", &address)
        .in_network(SAN_NAMESPACE);
    lab.daemons.start(daemon)?;
    lab.daemons.wait_for_port("web", &address, MINUTE / 2)?;
    let first = lab.daemons.process_id("web")?;
    lab.daemons.restart("web")?;
    lab.daemons.wait_for_port("web", &address, MINUTE / 2)?;
    ensure!(
        lab.daemons.process_id("web")? != first,
        "it was not started again"
    );
    lab.daemons.stop("web")?;
    let refused = lab
        .daemons
        .wait_for_socket("web", Path::new("/run/web.sock"), MINUTE / 60);
    ensure!(refused.is_err(), "a daemon that is gone was found");

    Service::Multipathd.hold_down("TERM")?;
    ensure!(
        lab.run(&["multipathd", "show", "daemon"])?.code != Some(0),
        "multipathd still answers"
    );
    Service::Multipathd.release()?;
    lab.execute(&["multipathd", "show", "daemon"])?;
    Ok(())
}

fn make_iscsi_fabric() -> bool {
    std::fs::create_dir("/sys/kernel/config/target/iscsi").is_ok()
}
