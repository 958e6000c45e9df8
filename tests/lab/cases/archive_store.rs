//! Archives in an object store that goes away in the middle of everything.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kit::case::{Case, Lab, SANPATH};
use crate::kit::daemons::Daemon;
use crate::kit::dice::Dice;
use crate::kit::object_store::ObjectStore;

pub const CASES: &[Case] = &[Case {
    name: "archive_store_goes_away",
    deadline: Duration::from_secs(420),
    run: archive_store_goes_away,
}];

const MIB: usize = 1 << 20;
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A config file `name` with the store as an archive with `key`, and one more setting.
fn write_config(
    lab: &Lab,
    store: &ObjectStore,
    (name, key, more): (&str, &str, &str),
) -> Result<[String; 2]> {
    let folder = lab.work_folder();
    let path = folder.join(format!("{name}.key"));
    fs::write(&path, key)?;
    let told = format!("encryptionKey: {}", path.display());
    let partition = "version: 1\npartitions:\n  cluster-a:\n    blockstoragemanager: linux\n    sanhost: 10.100.1.1\n";
    let config = folder.join(format!("{name}.yaml"));
    let archive = store.config(&[&told, more]);
    fs::write(&config, format!("{partition}{archive}"))?;
    Ok(["--config".to_owned(), config.display().to_string()])
}

/// Eight chunks that do not pack and differ.
fn image() -> Vec<u8> {
    Dice::new(1).bytes(8 * MIB)
}

/// An image goes to the store at 1 MiB/s; the store is killed in the middle and is away for some seconds. The transfer waits and ends well, every byte comes back, and
/// who asks meanwhile is told. Another key opens nothing.
fn archive_store_goes_away(lab: &mut Lab) -> Result<()> {
    let store = ObjectStore::start(lab)?;
    let slow = write_config(lab, &store, ("slow", KEY, "maxMebibytesPerSecond: 1"))?;
    let fast = write_config(lab, &store, ("fast", KEY, "maxConcurrentTransfers: 2"))?;
    let folder = lab.work_folder();
    let (source, back) = (folder.join("source.img"), folder.join("back.img"));
    let bytes = image();
    fs::write(&source, &bytes)?;
    let archives = |config: &[String; 2], words: &[&str]| {
        let words = [&[SANPATH, "archives"], words, &[&config[0], &config[1]]].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |lab: &Lab, words: &[&str]| {
        let argv = archives(&fast, words);
        lab.run(&argv.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let import = archives(&slow, &["import", &source.display().to_string(), "monday"]);
    lab.daemons.start(Daemon::new("import", import))?;
    lab.wait_for("a few chunks to arrive", Duration::from_secs(60), || {
        Ok((store.count("chunks")? >= 2).then_some(()))
    })?;
    store.down(lab)?;
    let arrived = store.count("chunks")?;
    ensure!(arrived < 8, "it was over before the store went away");
    let refused = run(lab, &["list"])?;
    ensure!(
        refused.code != Some(0) && refused.stderr.contains("does not serve"),
        "without its store list says: {}{}",
        refused.stdout,
        refused.stderr
    );
    std::thread::sleep(Duration::from_secs(3));
    ensure!(
        lab.daemons.is_running("import"),
        "the transfer gave up when its store went away"
    );
    store.up(lab)?;
    lab.wait_for("the transfer to end", Duration::from_secs(180), || {
        let is_over = store.count("manifests")? == 1 && store.count("intents")? == 0;
        Ok(is_over.then_some(()))
    })?;
    ensure!(store.count("chunks")? == 8, "not what it consists of");
    lab.story(format!(
        "{arrived} of 8 chunks had arrived when the store went away"
    ));

    let exported = run(lab, &["export", "monday", &back.display().to_string()])?;
    exported.success("export")?;
    ensure!(fs::read(&back)? == bytes, "other bytes came back");
    refuse_another_key(lab, &store)?;
    store.down(lab).context("ending the store")
}

fn refuse_another_key(lab: &Lab, store: &ObjectStore) -> Result<()> {
    let key = KEY.replace("00", "ff");
    let config = ("other", key.as_str(), "maxConcurrentTransfers: 2");
    let [flag, config] = write_config(lab, store, config)?;
    let refused = lab.run(&[SANPATH, "archives", "list", &flag, &config])?;
    ensure!(
        refused.code != Some(0) && refused.stderr.contains("encrypted with another key"),
        "with another key list says: {}{}",
        refused.stdout,
        refused.stderr
    );
    Ok(())
}
