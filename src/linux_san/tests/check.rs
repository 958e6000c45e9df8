//! What is told of volumes that are not as they should be.

use super::*;
use crate::linux_san::check::{Grade, Trouble};

fn troubles(engine: &Arc<Engine>, volume: &VolumeView) -> Vec<(Grade, &'static str)> {
    let told = |trouble: &Trouble| {
        assert!(!trouble.message.is_empty());
        (trouble.grade, trouble.reason)
    };
    let one = engine.check_one(&volume.key).unwrap();
    let all = engine.check_volumes(None, None).unwrap();
    let of = all.volumes.iter().find(|it| it.volume.key == volume.key);
    assert_eq!(of, one.volumes.first());
    one.volumes[0].troubles.iter().map(told).collect()
}

#[test]
fn a_volume_is_well_before_while_and_after_a_node_has_it() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("v")).unwrap();
    let steps = san.host.counts().steps;
    assert_eq!(troubles(&engine, &volume), []);
    assert_eq!(san.host.counts().steps, steps, "a look changes nothing");
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!(troubles(&engine, &volume), []);
    san.lio.reboot();
    let engine = {
        drop(engine);
        san.start()
    };
    assert_eq!(troubles(&engine, &volume), []);
    take_patiently(&san, &engine, &volume);
    assert_eq!(troubles(&engine, &volume), []);
}

#[test]
fn an_image_that_is_not_right_is_told() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("v")).unwrap();
    let (image, away) = (san.image(&volume), san.path("away"));
    std::fs::rename(&image, &away).unwrap();
    let missing = [(Grade::Inaccessible, "ImageMissing")];
    assert_eq!(troubles(&engine, &volume), missing);
    std::fs::rename(&away, &image).unwrap();
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.set_len(MIB).unwrap();
    let cut = [(Grade::Inaccessible, "ImageOfOtherSize")];
    assert_eq!(troubles(&engine, &volume), cut);
    file.set_len(volume.size).unwrap();
    assert_eq!(troubles(&engine, &volume), []);
    let sidecar = image.with_extension("json");
    let right = std::fs::read_to_string(&sidecar).unwrap();
    let other = right.replace("\"generation\": 1", "\"generation\": 7");
    assert_ne!(right, other);
    std::fs::write(&sidecar, other).unwrap();
    let foreign = [(Grade::Inaccessible, "ImageNotItsOwn")];
    assert_eq!(troubles(&engine, &volume), foreign);
    std::fs::write(&sidecar, right).unwrap();
    let marker = san.path("pool/pool.json");
    std::fs::rename(&marker, &away).unwrap();
    let unmounted = [(Grade::Inaccessible, "PoolNotMounted")];
    assert_eq!(troubles(&engine, &volume), unmounted);
}

#[test]
fn what_the_kernel_does_not_serve_is_told() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("v")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    let portals: Vec<PathBuf> = san
        .lio
        .tree()
        .iter()
        .filter(|path| path.contains("/np/") && path.ends_with('/'))
        .filter(|path| !path.ends_with("/np/"))
        .map(|path| san.path("target").join(path.trim_end_matches('/')))
        .collect();
    assert_eq!(portals.len(), 2, "{portals:?}");
    san.host.remove_directory(&portals[0]).unwrap();
    let told = [(Grade::Degraded, "PortalDown")];
    assert_eq!(troubles(&engine, &volume), told);
    san.host.remove_directory(&portals[1]).unwrap();
    let told = [(Grade::Inaccessible, "NoPortal")];
    assert_eq!(troubles(&engine, &volume), told);
    // As a box that came up again without anybody restoring it.
    san.lio.reboot();
    let told = [
        (Grade::Inaccessible, "NotServed"),
        (Grade::Inaccessible, "NoPortal"),
    ];
    assert_eq!(troubles(&engine, &volume), told);
    engine.restore().unwrap();
    assert_eq!(troubles(&engine, &volume), []);
}

#[test]
fn pages_of_looks_are_pages_of_volumes() {
    let san = SanBox::new();
    let engine = san.start();
    let mut keys: Vec<_> = ["a", "b", "c"]
        .map(|name| engine.create_volume(&wanted(name)).unwrap().key)
        .into();
    keys.sort();
    let first = engine.check_volumes(None, Some(2)).unwrap();
    let seen = |page: &CheckedPage| -> Vec<_> {
        let volumes = page.volumes.iter();
        volumes.map(|it| it.volume.key.clone()).collect()
    };
    assert_eq!((seen(&first), first.more), (keys[..2].to_vec(), true));
    let rest = engine.check_volumes(Some(&keys[1]), Some(2)).unwrap();
    assert_eq!((seen(&rest), rest.more), (keys[2..].to_vec(), false));
    let none = engine.check_one(&super::super::names::VolumeKey::random());
    assert_eq!(none.unwrap(), CheckedPage::default());
}
