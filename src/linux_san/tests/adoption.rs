//! Files and thin volumes that were in the pool before the SAN knew them.

use super::fake_lvm::{GROUP, POOL};
use super::*;
use crate::fault::{Fault, Faulted, chain};

pub(super) fn adoption(name: &str, object: &str) -> Adoption {
    Adoption {
        name: name.to_owned(),
        object: Some(object.to_owned()),
        metadata: BTreeMap::from([("pvc".to_owned(), name.to_owned())]),
        wwid: None,
    }
}

const WORDS: &[u8] = b"what was there before";

/// A file of 4 MiB with something in it.
fn put(san: &SanBox, name: &str) -> PathBuf {
    let path = san.path("pool").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(4 * MIB).unwrap();
    drop(file);
    write_over(&path, WORDS);
    path
}

fn refused(outcome: Result<VolumeView, AdoptError>) -> (Fault, String) {
    let error = outcome.unwrap_err();
    (error.fault(), chain(&error))
}

#[test]
fn a_file_of_the_pool_becomes_a_volume_with_what_it_holds() {
    let san = SanBox::new();
    let engine = san.start();
    let file = put(&san, "images/db.img");
    let wanted = adoption("db", "images/db.img");
    let volume = engine.adopt(&wanted).unwrap();
    assert_eq!((volume.size, &*volume.name), (4 * MIB, "db"));
    assert!(!file.exists(), "it has one name");
    assert!(
        std::fs::read(san.image(&volume))
            .unwrap()
            .starts_with(WORDS)
    );
    // The same when repeated, by whatever way the file is named.
    assert_eq!(engine.adopt(&wanted).unwrap(), volume);
    let whole = file.to_string_lossy().into_owned();
    assert_eq!(engine.adopt(&adoption("db", &whole)).unwrap(), volume);
    assert_eq!(
        engine.list_volumes(None, None).unwrap().volumes,
        std::slice::from_ref(&volume)
    );
    // It lives like any other, over a restart too.
    drop(engine);
    let engine = san.start();
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert!(!export.blank);
    let grown = engine
        .expand_volume(&volume.key, &volume.wwid, 8 * MIB)
        .unwrap();
    assert_eq!(grown.size, 8 * MIB);
    let cut = super::snapshots::cut(&volume, "s");
    let cut = engine.create_snapshots(&[cut]).unwrap().remove(0);
    assert!(
        std::fs::read(san.cut_image(&cut))
            .unwrap()
            .starts_with(WORDS)
    );
    take_patiently(&san, &engine, &volume);
    engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    assert!(san.pool_files().is_empty());
    assert!(!file.exists());
}

/// However few of its bytes are allocated: whoever put it there meant something by it.
#[test]
fn an_adopted_volume_is_never_called_blank() {
    let san = SanBox::new();
    let engine = san.start();
    let file = std::fs::File::create(san.path("pool/db.img")).unwrap();
    file.set_len(4 * MIB).unwrap();
    drop(file);
    let volume = engine.adopt(&adoption("db", "db.img")).unwrap();
    assert_eq!(volume.allocated, 0);
    assert!(!engine.ensure_export(&give(&volume, "n1")).unwrap().blank);
    let made = engine.create_volume(&wanted("new")).unwrap();
    assert!(engine.ensure_export(&give(&made, "n1")).unwrap().blank);
}

#[test]
fn what_cannot_be_taken_is_named_and_left_as_it_is() {
    let san = SanBox::new();
    let engine = san.start();
    let other = engine.create_volume(&wanted("other")).unwrap();
    let outside = san.path("outside.img");
    std::fs::write(&outside, vec![1; 1 << 20]).unwrap();
    std::os::unix::fs::symlink(&outside, san.path("pool/link.img")).unwrap();
    std::os::unix::fs::symlink(san.path("pool"), san.path("pool/here")).unwrap();
    put(&san, "whole.img");
    put(&san, "twice.img");
    std::fs::hard_link(san.path("pool/twice.img"), san.path("pool/again.img")).unwrap();
    for (name, size) in [
        ("odd.img", 4 * MIB - 512),
        ("empty.img", 0),
        ("tiny.img", 100),
    ] {
        let file = std::fs::File::create(san.path("pool").join(name)).unwrap();
        file.set_len(size).unwrap();
    }
    let managed = format!("volumes/{}.img", other.key);
    let before = san.host.counts().steps;
    let outside = outside.to_string_lossy().into_owned();
    for (object, words) in [
        (&*outside, "not inside the pool"),
        ("../outside.img", "not inside the pool"),
        ("whole.img/../../outside.img", "not inside the pool"),
        ("link.img", "symbolic link"),
        ("here/whole.img", "symbolic link"),
        ("volumes", "managed already"),
        (&managed, "managed already"),
        ("pool.json", "the pool's own"),
        ("lock", "the pool's own"),
        (".", "name the file"),
        ("absent.img", "nothing of this name"),
        ("odd.img", "--size=4194304"),
        ("empty.img", "--size=1048576"),
        ("tiny.img", "--size=1048576"),
    ] {
        let (fault, told) = refused(engine.adopt(&adoption("db", object)));
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains("object: ") && told.contains(words), "{told}");
    }
    assert_eq!(san.host.counts().steps, before, "nothing was tried");
    // These show only when they are taken; then they are given back.
    let open = std::fs::File::open(san.path("pool/whole.img")).unwrap();
    for (object, words) in [
        ("whole.img", "open in some program"),
        ("twice.img", "hard link"),
    ] {
        let (fault, told) = refused(engine.adopt(&adoption("db", object)));
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains(words), "{told}");
        assert!(san.path("pool").join(object).exists());
    }
    drop(open);
    assert_eq!(engine.list_volumes(None, None).unwrap().volumes.len(), 1);
    assert_eq!(san.pool_files().len(), 2);
    engine.adopt(&adoption("db", "whole.img")).unwrap();
}

#[test]
fn a_name_or_an_identity_is_one_volumes() {
    let san = SanBox::new();
    let engine = san.start();
    let other = engine.create_volume(&wanted("other")).unwrap();
    put(&san, "db.img");
    let with = |name: &str, wwid: &str| Adoption {
        wwid: Some(wwid.parse().unwrap()),
        ..adoption(name, "db.img")
    };
    let (fault, told) = refused(engine.adopt(&adoption("other", "db.img")));
    assert_eq!(fault, Fault::Conflict, "{told}");
    let (fault, told) = refused(engine.adopt(&with("db", other.wwid.as_str())));
    assert_eq!(fault, Fault::Conflict, "{told}");
    assert!(told.contains(&other.key.to_string()), "{told}");
    let (fault, told) = refused(engine.adopt(&with("db", "3600a098000aabbccddeeff0011223344")));
    assert_eq!(fault, Fault::Invalid, "{told}");
    assert!(told.contains("36001405"), "{told}");
    let (fault, _) = refused(engine.adopt(&adoption("", "db.img")));
    assert_eq!(fault, Fault::Invalid);
    let kept = "360014050123456789abcdef012345678";
    let volume = engine.adopt(&with("db", kept)).unwrap();
    assert_eq!(volume.wwid.as_str(), kept);
    let export = engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!(export.wwid.as_str(), kept);
    assert_eq!(engine.adopt(&with("db", kept)).unwrap().key, volume.key);
    let (fault, _) = refused(engine.adopt(&with("db", other.wwid.as_str())));
    assert_eq!(fault, Fault::Conflict);
    // Another file under the name of an adopted one, and a volume made under it.
    put(&san, "second.img");
    let (fault, _) = refused(engine.adopt(&adoption("db", "second.img")));
    assert_eq!(fault, Fault::Conflict);
}

#[test]
fn a_volume_that_has_no_notes_gets_them_once() {
    let san = SanBox::new();
    let engine = san.start();
    let bare = NewVolume {
        metadata: BTreeMap::new(),
        ..wanted("by-hand")
    };
    let made = engine.create_volume(&bare).unwrap();
    let noted = |name: &str, note: &str| Adoption {
        object: None,
        metadata: BTreeMap::from([("pvc".to_owned(), note.to_owned())]),
        ..adoption(name, "")
    };
    let volume = engine.adopt(&noted("by-hand", "one")).unwrap();
    assert_eq!((&volume.key, &*volume.metadata["pvc"]), (&made.key, "one"));
    // Whoever noted something first is told so.
    assert_eq!(engine.adopt(&noted("by-hand", "two")).unwrap(), volume);
    drop(engine);
    let engine = san.start();
    assert_eq!(engine.find_volume(&made.key).unwrap().unwrap(), volume);
    let (fault, told) = refused(engine.adopt(&noted("absent", "one")));
    assert_eq!(fault, Fault::NotFound, "{told}");
    let other = Adoption {
        wwid: Some("360014050123456789abcdef012345678".parse().unwrap()),
        ..noted("by-hand", "one")
    };
    assert_eq!(refused(engine.adopt(&other)).0, Fault::Conflict);
}

/// A file that came to stand where the taken one was is nobody's to replace.
#[test]
fn what_is_given_back_replaces_nothing() {
    let san = SanBox::new();
    let file = put(&san, "db.img");
    let engine = san.start();
    drop(engine);
    // As a crash between the move and the note leaves it.
    let key = "00112233445566778899aabbccddeeff";
    let image = san.path("pool/volumes").join(format!("{key}.img"));
    let state = san.path("state/state.json");
    let text = std::fs::read_to_string(&state).unwrap();
    let mut text: serde_json::Value = serde_json::from_str(&text).unwrap();
    text["volumes"][key] = serde_json::json!({
        "name": "db", "serial": "0123456789abcdef0123456789abcdef", "size": 4 * MIB,
        "generation": 1, "phase": "making", "metadata": {}, "adopted": "db.img",
    });
    std::fs::write(&state, text.to_string()).unwrap();
    std::fs::rename(&file, &image).unwrap();
    std::fs::write(&file, b"another").unwrap();
    let engine = san.start();
    assert_eq!(std::fs::read(&file).unwrap(), b"another");
    assert!(std::fs::read(&image).unwrap().starts_with(WORDS));
    drop(engine);
    std::fs::remove_file(&file).unwrap();
    let engine = san.start();
    assert!(std::fs::read(&file).unwrap().starts_with(WORDS));
    assert!(!image.exists());
    engine.adopt(&adoption("db", "db.img")).unwrap();
}

#[test]
fn a_thin_volume_of_lvm_is_taken_and_left_alike() {
    let san = SanBox::with(super::lvm::on_lvm);
    let engine = san.start();
    {
        let mut lvm = san.lio.lvm.lock().unwrap();
        lvm.add_by_hand("db", 4 * MIB, false);
        lvm.add_by_hand("busy", 4 * MIB, true);
    }
    for (object, words) in [
        ("busy", "lvchange -an"),
        ("absent", "nothing of this name"),
        (POOL, "managed already"),
        ("sanpath_v_1", "managed already"),
        ("a/b", "name a thin volume"),
    ] {
        let (fault, told) = refused(engine.adopt(&adoption("db", object)));
        assert_eq!(fault, Fault::Precondition, "{told}");
        assert!(told.contains(words), "{told}");
    }
    let volume = engine
        .adopt(&adoption("db", &format!("/dev/{GROUP}/db")))
        .unwrap();
    assert_eq!(engine.adopt(&adoption("db", "db")).unwrap(), volume);
    assert!(!engine.ensure_export(&give(&volume, "n1")).unwrap().blank);
    take_patiently(&san, &engine, &volume);
    engine.delete_volume(&volume.key, &volume.wwid).unwrap();
    let lvm = san.lio.lvm.lock().unwrap();
    let left: Vec<_> = lvm.volumes.keys().cloned().collect();
    assert_eq!(left, ["busy"]);
}
