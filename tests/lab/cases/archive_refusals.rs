//! What an archive that is damaged, or a store that refuses, comes to: a clear word, nothing lost, and nothing made.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sanpath::csi::proto::Snapshot;

use crate::kit::case::{Case, Lab};
use crate::kit::csi::{Access, Orchestrator, Origin, Volume, again, patiently};
use crate::kit::dice::Dice;
use crate::kit::object_store::{BUCKET, ENDPOINT, ObjectStore, SECRET};
use crate::kit::san_calls::key_of;
use crate::kit::stack::{Plan, Stack};
use crate::kit::tls_front::TlsFront;

pub const CASES: &[Case] = &[Case {
    name: "archive_store_refuses",
    deadline: Duration::from_secs(420),
    run: archive_store_refuses,
}];

pub const LONG: &[Case] = &[Case {
    name: "archive_is_damaged",
    deadline: Duration::from_secs(600),
    run: archive_is_damaged,
}];

const SIZE: i64 = 16 << 20;
const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(90);
/// TLS before the store.
const TLS: &str = "127.0.0.1:9443";

fn archive_is_damaged(lab: &mut Lab) -> Result<()> {
    let store = ObjectStore::start(lab)?;
    let stack = Stack::start(
        lab,
        Plan::default().with_archives(lab, &[], &store.config(&[])),
    )?;
    stack.start_archiver(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let source = source(lab, &mut orchestrator)?;
    let to_away = [("archive", "away"), ("retainOnSan", "false")];
    let snapshot = again(|| orchestrator.cut_until_ready("cut", &source, &to_away))?;

    let (chunk, manifest) = ("chunks", "manifests");
    for (what, folder, damage) in [
        ("a flipped byte", chunk, flipped as fn(&[u8]) -> Vec<u8>),
        ("a missing chunk", chunk, |_| Vec::new()),
        ("a truncated manifest", manifest, halved),
    ] {
        let (file, name) = store.any_object(folder)?;
        let whole = fs::read(&file)?;
        match damage(&whole) {
            gone if gone.is_empty() => fs::remove_file(&file)?,
            damaged => fs::write(&file, damaged)?,
        }
        let before = in_pool(lab)?;
        let told = refusal(restore(&mut orchestrator, &snapshot), what)?;
        ensure!(
            told.starts_with("CreateVolume: FailedPrecondition") && told.contains(&name),
            "{what} in {name}: {told}"
        );
        ensure!(in_pool(lab)? == before, "{what}: {:?}", in_pool(lab)?);
        Stack::wait_for_no_work(lab)?;
        lab.story(format!("{what}: {told}"));
        fs::write(&file, whole)?;
    }

    let restored = restore(&mut orchestrator, &snapshot)?;
    ensure!(
        fs::read(image(lab, &restored)?)? == fs::read(image(lab, &source)?)?,
        "other bytes came back"
    );
    end(
        lab,
        (&stack, &store),
        &mut orchestrator,
        (&snapshot, &[&source, &restored]),
    )
}

/// All is wrong at first; one after the other is mended under the running daemons, and each time the same call comes further.
fn archive_store_refuses(lab: &mut Lab) -> Result<()> {
    let store = ObjectStore::start(lab)?;
    let front = TlsFront::start(TLS, ENDPOINT)?;
    let stranger = TlsFront::start("127.0.0.1:0", ENDPOINT)?;
    let ca = lab.work_folder().join("ca.crt");
    fs::write(&ca, &stranger.authority)?;
    store.tell_secret("not-the-secret-of-anybody")?;
    let more = format!("ca: {}", ca.display());
    let archive = store.config_with(&format!("https://{TLS}"), "nowhere", &[&more]);
    let stack = Stack::start(lab, Plan::default().with_archives(lab, &[], &archive))?;
    stack.start_archiver(lab)?;
    let mut orchestrator = stack.orchestrator()?;
    let source = source(lab, &mut orchestrator)?;

    expect_refusal(lab, &mut orchestrator, &source, "does not prove who it is")?;
    fs::write(&ca, &front.authority)?;
    expect_refusal(lab, &mut orchestrator, &source, "refuses us")?;
    store.tell_secret(SECRET)?;
    expect_refusal(lab, &mut orchestrator, &source, "does not exist")?;
    stack.mend_config("bucket: nowhere", &format!("bucket: {BUCKET}"))?;
    let to_away = [("archive", "away")];
    let snapshot = again(|| orchestrator.cut_until_ready("cut", &source, &to_away))?;
    ensure!(
        store.count("chunks")? == CHUNKS && store.count("manifests")? == 1,
        "not what it consists of"
    );
    end(
        lab,
        (&stack, &store),
        &mut orchestrator,
        (&snapshot, &[&source]),
    )
}

/// How many chunks the source has that are not all zeros.
const CHUNKS: usize = 4;

/// A volume with three MiB that do not pack, across four chunks. Written as the SAN sees it: no node is needed for that.
fn source(lab: &Lab, orchestrator: &mut Orchestrator) -> Result<Volume> {
    let in_a = [("partition", "cluster-a")];
    let volume = patiently("CreateVolume", || {
        orchestrator.create_with("source", SIZE, Access::Block, &in_a)
    })?;
    let bytes = Dice::new(1).bytes(3 * MIB);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(image(lab, &volume)?)?;
    file.write_all_at(&bytes, 5 * MIB as u64 + 4096)?;
    file.sync_all()?;
    Ok(volume)
}

fn image(lab: &Lab, volume: &Volume) -> Result<PathBuf> {
    let file = format!("volumes/{}.img", key_of(volume)?);
    Ok(lab.pool_folder().join(file))
}

/// All volumes and snapshots of the SAN.
fn in_pool(lab: &Lab) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for folder in ["volumes", "snapshots"] {
        for entry in fs::read_dir(lab.pool_folder().join(folder))? {
            all.insert(entry?.path());
        }
    }
    Ok(all)
}

fn flipped(whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes
}

fn halved(whole: &[u8]) -> Vec<u8> {
    whole[..whole.len() / 2].to_vec()
}

/// A volume of it in the other partition.
fn restore(orchestrator: &mut Orchestrator, snapshot: &Snapshot) -> Result<Volume> {
    let wanted = (Access::Block, &[("partition", "cluster-b")][..]);
    again(|| {
        patiently("CreateVolume", || {
            orchestrator.copy_with("restored", SIZE, wanted, Origin::Snapshot(snapshot))
        })
    })
}

fn refusal<T>(answer: Result<T>, what: &str) -> Result<String> {
    let error = answer
        .err()
        .with_context(|| format!("with {what} it went well"))?;
    Ok(error.to_string())
}

/// CreateSnapshot says this, names the archive and tells no secret; and the SAN has the cut.
fn expect_refusal(
    lab: &Lab,
    orchestrator: &mut Orchestrator,
    source: &Volume,
    cause: &str,
) -> Result<()> {
    let to_away = [("archive", "away")];
    let told = lab.wait_for(cause, PATIENCE, || {
        match orchestrator.cut_once("cut", source, &to_away) {
            Ok(cut) => bail!("it went well: {cut:?}"),
            Err(told) => Ok(told.message().contains(cause).then_some(told)),
        }
    })?;
    ensure!(
        told.code() == tonic::Code::Unavailable && told.message().contains("archive away"),
        "{told:?}"
    );
    ensure!(!told.message().contains("secret-of"), "{told:?}");
    let cuts = fs::read_dir(lab.pool_folder().join("snapshots"))?.flatten();
    let cuts = cuts.filter(|entry| entry.path().extension().is_some_and(|it| it == "img"));
    ensure!(cuts.count() == 1, "the SAN's cut is lost");
    lab.story(told.message());
    Ok(())
}

fn end(
    lab: &mut Lab,
    (stack, store): (&Stack, &ObjectStore),
    orchestrator: &mut Orchestrator,
    (snapshot, volumes): (&Snapshot, &[&Volume]),
) -> Result<()> {
    patiently("DeleteSnapshot", || orchestrator.delete_snapshot(snapshot))?;
    for volume in volumes {
        patiently("DeleteVolume", || orchestrator.delete(volume))?;
    }
    lab.wait_for("the pool to be empty", PATIENCE, || {
        Ok(in_pool(lab)?.is_empty().then_some(()))
    })?;
    Stack::wait_for_no_work(lab)?;
    // The node was never at this target, so that it would not end them.
    Stack::wait_for_no_session(lab)?;
    lab.daemons.stop("archiver")?;
    store.down(lab)?;
    stack.stop(lab)
}
