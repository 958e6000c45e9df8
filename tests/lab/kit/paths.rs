//! Cuts and restores the path between node and SAN inside one guest, the way real paths fail. Fleet cases cut theirs from
//! outside, on the `Fleet`.

use std::time::Duration;

use anyhow::Result;

use super::command;
use super::topology::{Link, SAN_NAMESPACE};

/// A clean cut, as when a cable is pulled: the SAN's end of the link goes down, the node sees its carrier go.
pub fn cut(link: Link) -> Result<()> {
    in_san(&["ip", "link", "set", &link.san_name(), "down"])
}

/// The link comes back. Whoever was asked for in vain meanwhile is asked for anew: a case is not to begin with what another left.
pub fn restore(link: Link) -> Result<()> {
    in_san(&["ip", "link", "set", &link.san_name(), "up"])?;
    execute(&["ip", "neigh", "flush", "dev", &link.name()])
}

/// A black hole, as behind a failed switch: the link stays up and every packet towards the node and back is lost.
pub fn black_hole(link: Link) -> Result<()> {
    let lose_all = |device: &str| netem(device, "add", &["loss", "100%"]);
    in_san(&lose_all(&link.san_name()))?;
    execute(&lose_all(&link.name()))
}

/// So many of a hundred packets are lost, each way.
pub fn lose(link: Link, percent: u8) -> Result<()> {
    let lose = |device: &str| netem(device, "add", &["loss", &format!("{percent}%")]);
    in_san(&lose(&link.san_name()))?;
    execute(&lose(&link.name()))
}

/// Ends what [`black_hole`], [`lose`] or [`slow_down`] began.
pub fn clear(link: Link) -> Result<()> {
    in_san(&["tc", "qdisc", "del", "dev", &link.san_name(), "root"])?;
    // A slowed link is slowed at the SAN's end only.
    let _ = execute(&["tc", "qdisc", "del", "dev", &link.name(), "root"]);
    Ok(())
}

/// Every packet from the SAN comes so much later.
pub fn slow_down(link: Link, delay: Duration) -> Result<()> {
    in_san(&netem(
        &link.san_name(),
        "add",
        &["delay", &format!("{}ms", delay.as_millis())],
    ))
}

fn netem(device: &str, verb: &str, how: &[&str]) -> Vec<String> {
    let start = ["tc", "qdisc", verb, "dev", device, "root", "netem"];
    start
        .iter()
        .chain(how)
        .map(|&word| word.to_owned())
        .collect()
}

fn in_san<S: AsRef<str>>(argv: &[S]) -> Result<()> {
    let enter = [
        "nsenter".to_owned(),
        format!("--net=/run/netns/{SAN_NAMESPACE}"),
    ];
    let argv: Vec<String> = enter
        .into_iter()
        .chain(argv.iter().map(|word| word.as_ref().to_owned()))
        .collect();
    execute(&argv)
}

fn execute<S: AsRef<str>>(argv: &[S]) -> Result<()> {
    let argv: Vec<&str> = argv.iter().map(AsRef::as_ref).collect();
    command::run(&argv, Duration::from_secs(30))?.success(&argv.join(" "))?;
    Ok(())
}
