//! Volumes whose I/O waits otherwise than the host's multipath is set up for.

use super::*;
use crate::attach::ledger::file_stem;
use crate::fabric::NoPathRetry;

const DROP_IN: &str = "/etc/multipath/conf.d/sanpath.conf";
/// Of the administrator's, and read after ours.
const LATER: &str = "/etc/multipath/conf.d/zz.conf";

fn waiting(rig: &Rig, engine: &Engine, disk: DiskId, retry: NoPathRetry) -> Want {
    Want {
        no_path_retry: Some(retry),
        ..rig.want(engine, disk)
    }
}

fn entry(number: u16, retry: &str) -> String {
    format!(
        "multipaths {{\n    multipath {{\n        wwid \"{}\"\n        no_path_retry {retry}\n    }}\n}}\n",
        wwid(number)
    )
}

/// What multipathd says that it does with I/O to the map of this volume.
fn word(engine: &Engine, number: u16) -> String {
    let ask = |command: &str| engine.host.show_multipathd(command, PATIENCE).unwrap();
    let words = ask("show maps raw format %w|%Q");
    let words = words.lines().filter_map(|line| line.split_once('|'));
    let mut words = words.filter(|(of, _)| *of == wwid(number).as_str());
    words.next().map(|(_, word)| word.to_owned()).unwrap()
}

/// Tells multipathd, as an administrator does.
fn reconfigure(rig: &Rig, engine: &Engine) {
    let told = engine.host.tell_multipathd("reconfigure", PATIENCE);
    assert_eq!(told.unwrap(), "ok\n");
    rig.fake.settle();
}

fn drop_in(engine: &Engine) -> Option<String> {
    let text = engine.host.read(Path::new(DROP_IN)).ok()?;
    Some(String::from_utf8(text).unwrap())
}

#[test]
fn a_map_waits_as_its_volume_says_and_its_neighbour_as_the_host_does() {
    let ways = [
        (NoPathRetry::Fail, "off"),
        (NoPathRetry::Queue, "on"),
        (NoPathRetry::Checks(24), "24 chk"),
    ];
    for (retry, said) in ways {
        let rig = Rig::new();
        let engine = rig.engine();
        let (mine, neighbour) = (rig.volume(5), rig.volume(6));
        rig.ensure(&engine, neighbour).unwrap();
        let want = waiting(&rig, &engine, mine, retry);
        let (_, attached) = processes(&engine, |engine| engine.ensure(&want).unwrap());
        assert_eq!(attached.map.members.len(), 2);
        assert_eq!(word(&engine, 5), said);
        assert_eq!(word(&engine, 6), "12 chk");
        let steps = engine.host.counts().steps;
        assert!(!engine.ensure(&want).unwrap().changed);
        assert_eq!(engine.host.counts().steps, steps, "only looks");

        reconfigure(&rig, &engine);
        assert_eq!(word(&engine, 5), said, "configured anew");
        rig.fake.stop_multipathd();
        rig.fake.start_multipathd();
        assert_eq!(word(&engine, 5), said, "started anew");
        engine.heal(ROUND).unwrap();

        for portal in rig.portals {
            rig.fake.set_portal(portal, PortalState::Refusing);
        }
        rig.fake.sleep(Duration::from_secs(15));
        let mut map = engine.host.open_block(&attached.map.path).unwrap();
        let before = engine.host.now();
        if retry == NoPathRetry::Fail {
            map.read(0, 4096).unwrap_err();
            assert_eq!(engine.host.now(), before, "at once");
        }
        for portal in rig.portals {
            rig.fake.set_portal(portal, PortalState::Up);
        }
        drop(map);
        rig.fake.settle();
        rig.detach(&engine, mine).unwrap();
        assert_eq!(drop_in(&engine), None);
        rig.detach(&engine, neighbour).unwrap();
        rig.assert_clean();
    }
}

#[test]
fn each_volume_has_its_entry_and_takes_it_along() {
    let rig = Rig::new();
    let engine = rig.engine();
    let disks = [5, 6, 7].map(|number| rig.volume(number));
    std::thread::scope(|scope| {
        for disk in disks {
            let want = waiting(&rig, &engine, disk, NoPathRetry::Checks(7));
            let engine = engine.clone();
            scope.spawn(move || engine.ensure(&want).unwrap());
        }
    });
    assert_eq!([5, 6, 7].map(|number| word(&engine, number)), ["7 chk"; 3]);
    for (disk, number) in disks.into_iter().zip([5, 6, 7]) {
        let of = |number| drop_in(&engine).is_some_and(|text| text.contains(wwid(number).as_str()));
        assert!(of(number) && of(7));
        rig.detach(&engine, disk).unwrap();
        assert!(!of(number));
    }
    assert_eq!(drop_in(&engine), None);
    rig.assert_clean();
}

#[test]
fn a_map_that_was_there_before_takes_it_over() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.ensure(&engine, disk).unwrap();
    assert_eq!(word(&engine, 5), "12 chk");
    let want = waiting(&rig, &engine, disk, NoPathRetry::Queue);
    engine.ensure(&want).unwrap();
    assert_eq!(word(&engine, 5), "on");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn an_entry_of_the_administrators_is_told_and_nothing_is_attached() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.fake.write_file(Path::new(LATER), &entry(5, "fail"));
    let want = waiting(&rig, &engine, disk, NoPathRetry::Checks(24));
    let refused = engine.ensure(&want).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    let told = refused.to_string();
    for words in ["no_path_retry fail", "noPathRetry is 24", "sanpath.conf"] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(drop_in(&engine), None);
    assert_eq!(rig.fake.session_count(), 0, "before any path");
    engine.host.remove_file(Path::new(LATER)).unwrap();
    engine
        .ensure(&waiting(&rig, &engine, disk, NoPathRetry::Checks(24)))
        .unwrap();
    assert_eq!(word(&engine, 5), "24 chk");
    rig.detach(&engine, disk).unwrap();
    rig.assert_clean();
}

#[test]
fn without_multipathd_the_caller_is_told_to_come_again() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    rig.fake.stop_multipathd();
    let begun = engine.host.now();
    let want = waiting(&rig, &engine, disk, NoPathRetry::Fail);
    let refused = engine.ensure(&want).unwrap_err();
    assert_eq!(refused.fault(), Fault::MaybeDone);
    assert!(engine.host.now().since(begun) <= Duration::from_secs(31));
    rig.fake.start_multipathd();
    rig.assert_clean();
}

#[test]
fn a_crash_after_any_step_leaves_what_the_next_process_makes_good() {
    for step in 1.. {
        let rig = Rig::new();
        let disk = rig.volume(5);
        let ended = rig.fake.crash_after(step, |host| {
            let engine = engine_on(host.clone());
            let want = waiting(&rig, &engine, disk, NoPathRetry::Fail);
            engine.ensure(&want).map(drop)
        });
        let engine = engine_on(rig.fake.new_process().host());
        engine.heal(ROUND).unwrap();
        let want = waiting(&rig, &engine, disk, NoPathRetry::Fail);
        engine.ensure(&want).unwrap();
        assert_eq!(word(&engine, 5), "off", "after step {step}");
        rig.detach(&engine, disk).unwrap();
        rig.assert_clean();
        if ended.is_some() {
            assert!(step > 5, "{step}");
            return;
        }
    }
}

#[test]
fn the_file_follows_the_ledger_again_by_itself() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    let want = waiting(&rig, &engine, disk, NoPathRetry::Fail);
    engine.ensure(&want).unwrap();
    let right = drop_in(&engine).unwrap();

    // Somebody takes the entry away, and multipathd reads that.
    engine.host.remove_file(Path::new(DROP_IN)).unwrap();
    reconfigure(&rig, &engine);
    assert_eq!(word(&engine, 5), "12 chk");
    engine.heal(ROUND).unwrap();
    rig.fake.settle();
    assert_eq!(drop_in(&engine).unwrap(), right);
    assert_eq!(word(&engine, 5), "off");

    // Somebody adds to the file.
    rig.fake
        .write_file(Path::new(DROP_IN), &format!("{right}{}", entry(9, "queue")));
    let steps = engine.host.counts().steps;
    engine.heal(ROUND).unwrap();
    assert_eq!(drop_in(&engine).unwrap(), right);
    assert_eq!(
        engine.host.counts().steps,
        steps + 1,
        "multipathd is not asked"
    );
    engine.heal(ROUND).unwrap();
    assert_eq!(engine.host.counts().steps, steps + 1);

    // The ledger is lost, and the volume leaves without it.
    let lost = engine.shared.dirs.ledger.join(file_stem(&want.key));
    engine
        .host
        .remove_file(&lost.with_extension("json"))
        .unwrap();
    let deadline = engine.host.deadline_in(PATIENCE);
    engine.detach_unrecorded(&wwid(5), deadline).unwrap();
    engine.heal(ROUND).unwrap();
    assert_eq!(drop_in(&engine), None);
    rig.assert_clean();
}

#[test]
fn a_file_that_cannot_be_written_stops_a_stage_and_no_detach() {
    let rig = Rig::new();
    let (engine, disk) = (rig.engine(), rig.volume(5));
    let full = || fake::Fault::Errno(nix::errno::Errno::ENOSPC);
    let want = waiting(&rig, &engine, disk, NoPathRetry::Fail);
    engine.ensure(&want).unwrap();
    rig.fake.fail_next("unlink", full());
    rig.detach(&engine, disk).unwrap();
    assert!(drop_in(&engine).is_some(), "it stays");
    engine.heal(ROUND).unwrap();
    assert_eq!(drop_in(&engine), None, "for a while");

    // A directory in its place.
    rig.fake.make_directory(&Path::new(DROP_IN).join("x"));
    let want = waiting(&rig, &engine, disk, NoPathRetry::Fail);
    let refused = crate::fault::chain(&engine.ensure(&want).unwrap_err());
    assert!(refused.contains(DROP_IN), "{refused}");
    engine
        .host
        .remove_directory(&Path::new(DROP_IN).join("x"))
        .unwrap();
    engine.host.remove_directory(Path::new(DROP_IN)).unwrap();
    rig.assert_clean();
}

#[test]
fn the_entry_of_a_record_that_cannot_be_read_stays() {
    let rig = Rig::new();
    let engine = rig.engine();
    let (theirs, mine) = (rig.volume(5), rig.volume(6));
    let want = waiting(&rig, &engine, theirs, NoPathRetry::Fail);
    engine.ensure(&want).unwrap();
    let path = engine.shared.dirs.ledger.join(file_stem(&want.key));
    let path = path.with_extension("json");
    let old = String::from_utf8(engine.host.read(&path).unwrap()).unwrap();
    let newer = old.replacen("\"version\": 1", "\"version\": 2", 1);
    rig.fake.write_file(&path, &newer);
    let other = waiting(&rig, &engine, mine, NoPathRetry::Queue);
    engine.ensure(&other).unwrap();
    assert_eq!([5, 6].map(|number| word(&engine, number)), ["off", "on"]);
    rig.detach(&engine, mine).unwrap();
    rig.fake.write_file(&path, &old);
    rig.detach(&engine, theirs).unwrap();
    rig.assert_clean();
}
