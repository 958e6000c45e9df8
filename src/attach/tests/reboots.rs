//! A machine that loses its power and comes back to a SAN that has gone on without it.

use super::*;

/// The power goes after any step of a detach. Meanwhile the SAN takes that volume and another one away, and shows a third under the number that is free.
/// Nothing of them is logged in to or scanned; what is still ours comes back.
#[test]
fn power_lost_at_any_step_of_a_detach_and_the_lun_given_to_another_volume() {
    for step in 1.. {
        let rig = Rig::new();
        let (leaving, kept, given) = (rig.volume(5), rig.volume(6), rig.volume(7));
        let before = rig.engine();
        for disk in [leaving, kept, given] {
            rig.ensure(&before, disk).unwrap();
        }
        let key = |number| format!("volume {}", wwid(number));
        let patience = |engine: &Engine| engine.host.deadline_in(PATIENCE);
        let ended = rig.fake.crash_after(step, |host| {
            let engine = engine_on(host.clone());
            engine.detach(&key(5), patience(&engine))
        });
        rig.fake.reboot();
        rig.fake.unmap_lun(&rig.iqn, Lun(5));
        rig.fake.unmap_lun(&rig.iqn, Lun(7));
        let heir = rig.fake.add_disk(&wwid(8), GIB);
        rig.fake.map_lun(&rig.iqn, Lun(5), heir);

        let engine = engine_on(rig.fake.new_process().host());
        engine.heal(ROUND).unwrap();
        engine.reap_idle(Duration::ZERO).unwrap();
        assert_eq!(rig.fake.session_count(), 0, "after step {step}");
        rig.ensure(&engine, kept).unwrap();
        engine.heal(ROUND).unwrap();
        for number in [5, 7] {
            engine.detach(&key(number), patience(&engine)).unwrap();
        }
        rig.fake.settle();
        let here = rig.fake.leftovers();
        assert_eq!(rig.fake.paths_of(&wwid(6)), Some(2), "after step {step}");
        assert_eq!(
            (here.maps.len(), here.disks.len(), here.wwids.len()),
            (1, 2, 1),
            "after step {step} more is here than what is ours: {here:?}"
        );
        rig.ensure(&engine, heir).unwrap();
        assert_eq!(rig.fake.paths_of(&wwid(8)), Some(2), "after step {step}");
        rig.detach(&engine, heir).unwrap();
        rig.detach(&engine, kept).unwrap();
        rig.assert_clean();
        if ended.is_some() {
            assert!(step > 4, "a detach of {step} steps proves nothing");
            return;
        }
    }
}
