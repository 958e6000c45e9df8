//! A crash after each single step of each operation: the same call, repeated after the restart, ends where it would have ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::host::Command;

type Operation = fn(&Arc<Engine>, &Mutex<Option<VolumeView>>) -> Result<(), String>;

/// What survives of the process: nothing; or, after a reboot, not even the kernel's objects.
const RESTARTS: [bool; 2] = [false, true];

fn told<T>(outcome: Result<T, impl std::error::Error + 'static>) -> Result<T, String> {
    outcome.map_err(|error| crate::fault::chain(&error))
}

fn create(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let made = told(engine.create_volume(&wanted("pvc-1")))?;
    *volume.lock().unwrap() = Some(made);
    Ok(())
}

fn created(volume: &Mutex<Option<VolumeView>>) -> VolumeView {
    volume.lock().unwrap().clone().unwrap()
}

fn export(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    told(engine.ensure_export(&give(&created(volume), "n1"))).map(drop)
}

fn expand(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let volume = created(volume);
    told(engine.expand_volume(&volume.key, &volume.wwid, 2 * volume.size)).map(drop)
}

fn unexport(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    told(take(engine, &created(volume), "n1"))
}

fn delete(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let volume = created(volume);
    told(engine.delete_volume(&volume.key, &volume.wwid))
}

fn cut(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    told(engine.create_snapshots(&[super::snapshots::cut(&created(volume), "s")])).map(drop)
}

fn uncut(engine: &Arc<Engine>, _: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    match told(engine.find_snapshot_named("s"))? {
        Some(snapshot) => told(engine.delete_snapshot(&snapshot.key)),
        None => Ok(()),
    }
}

/// Makes a volume of the snapshot, which takes the place of the one that was cut.
fn copy(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let snapshot = told(engine.find_snapshot_named("s"))?.unwrap();
    let source = Source::Snapshot(snapshot.key);
    let made = told(engine.create_volume(&super::snapshots::copy(source, "copy", 8 * MIB)))?;
    *volume.lock().unwrap() = Some(made);
    Ok(())
}

/// A file that an operator put into the pool.
fn put(engine: &Arc<Engine>, _: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let path = engine.options.pool.join("db.img");
    std::fs::write(path, vec![7; 1 << 20]).map_err(|error| error.to_string())
}

/// The same on LVM.
fn put_thin(engine: &Arc<Engine>, _: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let ours = ["--config", "scan_lvs=0", "--devices", "/dev/vdb"];
    for (program, arguments) in [
        ("lvcreate", ["-V", "4194304b", "-n", "db.img"]),
        ("lvchange", ["-a", "n", "-y", "san-vg/db.img"]),
    ] {
        let arguments = [ours, arguments].concat();
        let command = Command::new(program, &arguments, Duration::from_secs(9));
        let output = engine.host.run(&command).unwrap();
        assert!(output.success(), "{output:?}");
    }
    Ok(())
}

fn adopt(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let made = told(engine.adopt(&super::adoption::adoption("db", "db.img")))?;
    *volume.lock().unwrap() = Some(made);
    Ok(())
}

/// The state file without what is random: every key is the name of what it belongs to.
fn shape(san: &SanBox) -> String {
    let mut text = std::fs::read_to_string(san.path("state/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    for kind in ["volumes", "snapshots"] {
        for (key, record) in state[kind].as_object().into_iter().flatten() {
            text = text.replace(key, record["name"].as_str().unwrap());
        }
    }
    // Read again, it is in the order of the names.
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    let text = serde_json::to_string_pretty(&state).unwrap();
    let random = ["serial", "san_uuid", "pool_id", "target", "created_at_ms"];
    let kept = |line: &&str| {
        let named = random
            .iter()
            .any(|name| line.contains(&format!("{name:?}:")));
        let value = line.rsplit('"').nth(1).unwrap_or_default();
        let gone = value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        !named && !gone && !line.contains("iqn.2026-11.dev.sanpath")
    };
    let lines: Vec<_> = text.lines().filter(kept).collect();
    let lvm = san.lio.lvm.lock().unwrap();
    let suspended = lvm.volumes.values().filter(|one| one.is_suspended).count();
    assert_eq!(suspended, 0, "its writer waits for ever");
    format!(
        "{} {} {} {} {}",
        lines.join("\n"),
        san.pool_files().len(),
        san.cut_files().len(),
        lvm.volumes
            .keys()
            .filter(|name| name.starts_with("sanpath_"))
            .count(),
        san.lio.tree().len()
    )
}

/// Runs `before`, then `operation` with a crash after its `step`th mutation. `None` when it has fewer steps.
fn crash_at(
    adjust: fn(&mut SanOptions),
    (step, reboot): (u64, bool),
    before: &[Operation],
    operation: Operation,
) -> Option<String> {
    let san = SanBox::with(adjust);
    let volume = Mutex::new(None);
    {
        let engine = san.start();
        for earlier in before {
            earlier(&engine, &volume).unwrap();
        }
    }
    let done = Arc::new(AtomicU64::new(0));
    let armed = Arc::new(AtomicU64::new(u64::MAX));
    let (count, limit) = (Arc::clone(&done), Arc::clone(&armed));
    let dying = san.host.with_hook(Arc::new(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(number < limit.load(Ordering::SeqCst), "crash");
    }));
    let engine = Engine::open(&dying, san.options()).unwrap();
    engine.restore().unwrap();
    armed.store(done.load(Ordering::SeqCst) + step, Ordering::SeqCst);
    let run = catch_unwind(AssertUnwindSafe(|| operation(&engine, &volume)));
    drop(engine);
    if matches!(run, Ok(Ok(()))) {
        return None;
    }
    if reboot {
        san.lio.reboot();
    }
    let engine = san.start();
    operation(&engine, &volume).unwrap_or_else(|why| panic!("step {step}: {why}"));
    // The start has taken up what was cut off; what it makes of idle targets may come after the answer.
    let patience = san.host.deadline_in(Duration::from_secs(20));
    let quiet = || Ok::<_, ()>(engine.drains.is_quiet().then_some(()));
    san.host.wait_for(patience, quiet).unwrap().unwrap();
    let steps = san.host.counts().steps;
    operation(&engine, &volume).unwrap();
    assert_eq!(san.host.counts().steps, steps, "step {step}: repeated work");
    Some(shape(&san))
}

fn crash_everywhere(before: &[Operation], operation: Operation) {
    crash_everywhere_with(|_| {}, before, operation);
}

fn crash_everywhere_with(adjust: fn(&mut SanOptions), before: &[Operation], operation: Operation) {
    let expected = {
        let san = SanBox::with(adjust);
        let volume = Mutex::new(None);
        let engine = san.start();
        for run in before.iter().chain([&operation]) {
            run(&engine, &volume).unwrap();
        }
        shape(&san)
    };
    for reboot in RESTARTS {
        let mut step = 1;
        while let Some(found) = crash_at(adjust, (step, reboot), before, operation) {
            assert_eq!(
                found, expected,
                "after a crash at step {step}, reboot {reboot}"
            );
            step += 1;
        }
        assert!(step > 2, "the operation did something");
    }
}

#[test]
fn a_create_converges() {
    crash_everywhere(&[], create);
}

#[test]
fn an_export_converges() {
    crash_everywhere(&[create], export);
}

#[test]
fn an_expansion_converges() {
    crash_everywhere(&[create], expand);
    crash_everywhere(&[create, export], expand);
}

#[test]
fn an_export_after_a_cut_off_expansion_has_the_new_size() {
    crash_everywhere(&[create], |engine, volume| {
        expand(engine, volume)?;
        export(engine, volume)
    });
}

#[test]
fn an_unexport_converges() {
    crash_everywhere(&[create, export], unexport);
}

#[test]
fn a_snapshot_converges() {
    crash_everywhere(&[create], cut);
    crash_everywhere(&[create, export, cut], uncut);
}

#[test]
fn a_clone_converges() {
    crash_everywhere(&[create, cut], copy);
    crash_everywhere(&[create, cut, delete], copy);
}

#[test]
fn a_snapshot_of_a_volume_whose_expansion_was_cut_off_has_the_new_size() {
    crash_everywhere(&[create], |engine, volume| {
        expand(engine, volume)?;
        cut(engine, volume)
    });
}

#[test]
fn an_adoption_converges() {
    crash_everywhere(&[put], adopt);
    crash_everywhere(&[put, adopt], expand);
    crash_everywhere(&[put, adopt, export, unexport], delete);
    crash_everywhere_with(super::lvm::on_lvm, &[put_thin], adopt);
}

#[test]
fn a_delete_converges() {
    crash_everywhere(&[create, export, unexport], delete);
}

#[test]
fn exports_with_chap_converge() {
    let mutual: fn(&mut SanOptions) = |options| options.secrets = Some(chap::mutual());
    crash_everywhere_with(mutual, &[create], export);
    crash_everywhere_with(mutual, &[create, export], unexport);
}

#[test]
fn exports_on_two_groups_of_portals_converge() {
    crash_everywhere_with(access::two_groups, &[create], export);
    crash_everywhere_with(access::two_groups, &[create, export], unexport);
    crash_everywhere_with(access::two_groups, &[create, export], |engine, _| {
        told(engine.set_access(2, Access::NonOptimized))
    });
}

#[test]
fn exports_at_a_shared_target_converge() {
    let shared: fn(&mut SanOptions) = |options| options.layout = Layout::Shared;
    crash_everywhere_with(shared, &[create], export);
    crash_everywhere_with(shared, &[create, export], unexport);
}

#[test]
fn exports_at_a_volumes_own_target_converge() {
    let own: fn(&mut SanOptions) = |options| options.layout = Layout::Volume;
    crash_everywhere_with(own, &[create], export);
    crash_everywhere_with(own, &[create, export], unexport);
}

#[test]
fn a_first_start_converges() {
    for step in 1.. {
        let san = SanBox::new();
        let done = AtomicU64::new(0);
        let dying = san.host.with_hook(Arc::new(move |_| {
            assert!(done.fetch_add(1, Ordering::SeqCst) + 1 < step, "crash");
        }));
        let first = catch_unwind(AssertUnwindSafe(|| {
            Engine::open(&dying, san.options())
                .unwrap()
                .restore()
                .unwrap()
        }));
        let engine = san.start();
        engine.create_volume(&wanted("pvc-1")).unwrap();
        assert_eq!(san.pool_files().len(), 2);
        if first.is_ok() {
            assert!(step > 3);
            return;
        }
    }
}

/// Two more volumes, cut together with the first.
fn cut_together(engine: &Arc<Engine>, volume: &Mutex<Option<VolumeView>>) -> Result<(), String> {
    let mut volumes = vec![created(volume)];
    for name in ["pvc-2", "pvc-3"] {
        volumes.push(told(engine.create_volume(&wanted(name)))?);
    }
    let one = |one: &VolumeView| super::snapshots::cut(one, &format!("g/{}", one.name));
    let group: Vec<_> = volumes.iter().map(one).collect();
    told(engine.create_snapshots(&group)).map(drop)
}

#[test]
fn everything_on_lvm_converges() {
    let lvm = super::lvm::on_lvm;
    crash_everywhere_with(lvm, &[], create);
    crash_everywhere_with(lvm, &[create, export], expand);
    crash_everywhere_with(lvm, &[create], cut);
    crash_everywhere_with(lvm, &[create, cut], copy);
    crash_everywhere_with(lvm, &[create, export], cut_together);
    crash_everywhere_with(lvm, &[create, cut], uncut);
    crash_everywhere_with(lvm, &[create, export, unexport], delete);
}
