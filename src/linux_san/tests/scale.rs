//! Many volumes and many calls at once. What takes long only measures: `make bench`.

use super::*;
use crate::deadline::Moment;

/// So many volumes go to one node; a node has 255 numbers.
const FOR_A_NODE: usize = 125;
const PAGE: usize = 100;

fn node_of(index: usize) -> String {
    format!("n{}", index / FOR_A_NODE)
}

#[test]
fn a_hundred_calls_at_once_end_as_one_after_the_other_would() {
    let san = SanBox::new();
    let engine = san.start();
    let writings = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let old: Vec<_> = (0..100)
        .map(|n| engine.create_volume(&wanted(&format!("old-{n}"))).unwrap())
        .collect();
    drop(engine);
    let count = Arc::clone(&writings);
    let host = san.host.with_hook(Arc::new(move |step| {
        let is_state = step.on.ends_with("/state.json");
        count.fetch_add(is_state.into(), std::sync::atomic::Ordering::SeqCst);
    }));
    let engine = Engine::open(&host, san.options()).unwrap();
    engine.restore().unwrap();
    std::thread::scope(|scope| {
        for (n, volume) in old.iter().enumerate() {
            let engine = &engine;
            scope.spawn(move || engine.create_volume(&wanted(&format!("new-{n}"))).unwrap());
            scope.spawn(move || engine.delete_volume(&volume.key, &volume.wwid).unwrap());
        }
    });
    let left = engine.list_volumes(None, None).unwrap().volumes;
    assert_eq!(left.len(), 100);
    assert!(left.iter().all(|volume| volume.name.starts_with("new-")));
    assert_eq!(
        san.pool_files().len(),
        200,
        "an image and a sidecar for each"
    );
    let writings = writings.load(std::sync::atomic::Ordering::SeqCst);
    assert!(writings < 400, "{writings} writings for 400 changes");
    drop(engine);
    let again = san.start().list_volumes(None, None).unwrap().volumes;
    assert_eq!(again, left);
}

/// What one volume costs in each phase, in microseconds, and the memory of the process after all, in KiB.
struct Cost {
    create: u128,
    list: u128,
    export: u128,
    restart: u128,
    delete: u128,
    memory: u64,
}

fn measure(count: usize) -> Cost {
    let san = SanBox::new();
    let engine = san.start();
    let each = |since: Moment| san.host.now().since(since).as_micros() / count as u128;
    let begun = san.host.now();
    let volumes: Vec<_> = (0..count)
        .map(|n| engine.create_volume(&wanted(&format!("pvc-{n}"))).unwrap())
        .collect();
    let create = each(begun);
    let begun = san.host.now();
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|volume: &VolumeView| volume.key.clone());
        let page = engine.list_volumes(after.as_ref(), Some(PAGE)).unwrap();
        listed.extend(page.volumes);
        if !page.more {
            break;
        }
    }
    let list = each(begun);
    assert_eq!(listed.len(), count);
    let begun = san.host.now();
    for (n, volume) in volumes.iter().enumerate() {
        engine.ensure_export(&give(volume, &node_of(n))).unwrap();
    }
    let export = each(begun);
    drop(engine);
    let begun = san.host.now();
    let engine = san.start();
    let restart = each(begun);
    let memory = memory();
    let begun = san.host.now();
    for (n, volume) in volumes.iter().enumerate() {
        take(&engine, volume, &node_of(n)).unwrap();
        engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    }
    let delete = each(begun);
    assert!(is_empty(&san.lio) && san.pool_files().is_empty());
    Cost {
        create,
        list,
        export,
        restart,
        delete,
        memory,
    }
}

/// Of this process, now.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse().unwrap()
}

#[test]
#[ignore = "measures, for a minute or more: make bench"]
fn a_thousand_volumes() {
    println!(
        "volumes  create    list  export  restart  delete   memory   (µs for each volume; KiB)"
    );
    let costs: Vec<Cost> = [250, 500, 1000]
        .into_iter()
        .map(|count| {
            let cost = measure(count);
            println!(
                "{count:7} {:7} {:7} {:7} {:8} {:7} {:8}",
                cost.create, cost.list, cost.export, cost.restart, cost.delete, cost.memory
            );
            cost
        })
        .collect();
    let (few, many) = (&costs[0], &costs[2]);
    for (phase, few, many) in [
        ("create", few.create, many.create),
        ("list", few.list, many.list),
        ("export", few.export, many.export),
        ("restart", few.restart, many.restart),
        ("delete", few.delete, many.delete),
    ] {
        // Four times the volumes; each may cost a little more, not four times as much.
        assert!(
            many <= 3 * few + 500,
            "{phase}: {few} µs each of 250, {many} µs each of 1000"
        );
    }
}
