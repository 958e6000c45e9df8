//! Logins that must be proven: what goes into the access lists, when, and where it never goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::fabric::{Chap, ChapUser};
use crate::fault::{Fault, Faulted, chain};

/// Every secret here has this in it, and nothing else has.
const MARK: &str = "hunter2";
const FIRST: &str = "hunter2-number-1";
const SECOND: &str = "hunter2-number-2";
const OF_THE_SAN: &str = "hunter2-the-other";

fn user(name: &str, secret: &str) -> ChapUser {
    ChapUser::new(name.to_owned(), secret.to_owned().into()).unwrap()
}

fn chap(secret: &str, both_ways: bool) -> Chap {
    Chap {
        initiator: user("nodes", secret),
        target: both_ways.then(|| user("san", OF_THE_SAN)),
    }
}

/// The same for everybody, both ways.
pub(super) fn mutual() -> Secrets {
    Secrets::new(|_| Ok(chap(FIRST, true)))
}

/// What an operator may change.
type Files = Arc<Mutex<Result<Chap, String>>>;

/// A SAN whose secrets are in `files`; n9 has none.
fn start(san: &SanBox, files: &Files) -> Arc<Engine> {
    start_on(&san.host, san, files)
}

fn start_on(host: &Host, san: &SanBox, files: &Files) -> Arc<Engine> {
    let files = Arc::clone(files);
    let options = SanOptions {
        secrets: Some(Secrets::new(move |asked| {
            if *asked == initiator("n9") {
                return Err("no file for it".into());
            }
            Ok(files.lock().unwrap().clone()?)
        })),
        ..san.options()
    };
    let engine = Engine::open(host, options).unwrap();
    engine.restore().unwrap();
    engine
}

/// The values of n1's entry: name, secret, the target's name and secret, and whether they are asked for.
fn in_force(root: &Path, target: &Iqn) -> [String; 5] {
    let group = root.join("iscsi").join(target.as_str()).join("tpgt_1");
    let auth = group
        .join("acls")
        .join(initiator("n1").as_str())
        .join("auth");
    [
        auth.join("userid"),
        auth.join("password"),
        auth.join("userid_mutual"),
        auth.join("password_mutual"),
        group.join("attrib/authentication"),
    ]
    .map(|path| std::fs::read_to_string(path).unwrap().trim().to_owned())
}

fn target_of_n1(engine: &Engine) -> Iqn {
    let of_n1 = |state: &state::State| state.nodes[&initiator("n1")].target.clone();
    engine.state.read(of_n1)
}

#[test]
fn secrets_are_in_the_access_list_before_anybody_is_let_in_and_in_nothing_that_is_told() {
    let san = SanBox::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let watched = san.host.with_hook(Arc::new(move |step| {
        seen.lock()
            .unwrap()
            .push(format!("{} {}", step.what, step.on));
    }));
    let options = SanOptions {
        secrets: Some(mutual()),
        ..san.options()
    };
    assert!(!format!("{options:?}").contains(MARK));
    let engine = Engine::open(&watched, options).unwrap();
    engine.restore().unwrap();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    let found = in_force(&san.path("target"), &target_of_n1(&engine));
    assert_eq!(found, ["nodes", FIRST, "san", OF_THE_SAN, "1"]);
    let told = told.lock().unwrap();
    let at = |end: &str| told.iter().position(|step| step.ends_with(end)).unwrap();
    assert!(at("auth/password_mutual") < at("tpgt_1/enable"));
    assert!(!told.iter().any(|step| step.contains(MARK)), "{told:#?}");
    let state = std::fs::read_to_string(san.path("state/state.json")).unwrap();
    assert!(!state.contains(MARK), "{state}");
}

#[test]
fn who_has_no_secret_gets_nothing_and_is_told_why() {
    let san = SanBox::new();
    let files: Files = Arc::new(Mutex::new(Ok(chap(FIRST, false))));
    let engine = start(&san, &files);
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    let refused = engine.ensure_export(&give(&volume, "n9")).unwrap_err();
    assert_eq!(refused.fault(), Fault::Precondition);
    assert!(chain(&refused).contains("no file for it"));
    assert!(!san.lio.tree().iter().any(|line| line.contains("/np/")));
    take(&engine, &volume, "n9").unwrap();
    for bad in ["NULL-and-twelve-more", "NULLNULLNULL"] {
        *files.lock().unwrap() = Ok(chap(bad, false));
        let refused = engine.ensure_export(&give(&volume, "n1")).unwrap_err();
        let text = chain(&refused);
        assert!(
            text.contains("begins with NULL") && !text.contains(bad),
            "{text}"
        );
        take(&engine, &volume, "n1").unwrap();
    }
    assert!(is_empty(&san.lio), "{:#?}", san.lio.tree());
}

#[test]
fn changed_secrets_are_taken_over_and_bad_ones_are_not() {
    let san = SanBox::new();
    let files: Files = Arc::new(Mutex::new(Ok(chap(FIRST, true))));
    let engine = start(&san, &files);
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    let target = target_of_n1(&engine);
    let root = san.path("target");
    let now = || in_force(&root, &target);
    assert_eq!(now(), ["nodes", FIRST, "san", OF_THE_SAN, "1"]);
    let steps = san.host.counts().steps;
    engine.sweep();
    assert_eq!(san.host.counts().steps, steps, "nothing has changed");

    *files.lock().unwrap() = Ok(chap(SECOND, true));
    engine.sweep();
    assert_eq!(now(), ["nodes", SECOND, "san", OF_THE_SAN, "1"]);
    *files.lock().unwrap() = Err("half written".to_owned());
    engine.sweep();
    assert_eq!(now(), ["nodes", SECOND, "san", OF_THE_SAN, "1"]);
    *files.lock().unwrap() = Ok(chap(SECOND, false));
    engine.sweep();
    assert_eq!(now(), ["nodes", SECOND, "NULL", "NULL", "1"]);

    // The operator asks for nothing any more.
    drop(engine);
    let engine = san.start();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!(now(), ["NULL", "NULL", "NULL", "NULL", "0"]);
}

#[test]
fn a_rotation_that_is_cut_off_is_done_at_the_next_start() {
    for step in 1.. {
        let san = SanBox::new();
        let files: Files = Arc::new(Mutex::new(Ok(chap(FIRST, true))));
        let armed = Arc::new(AtomicU64::new(u64::MAX));
        let left = Arc::clone(&armed);
        let dying = san.host.with_hook(Arc::new(move |_| {
            assert!(left.fetch_sub(1, Ordering::SeqCst) > 1, "crash");
        }));
        let engine = start_on(&dying, &san, &files);
        let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
        engine.ensure_export(&give(&volume, "n1")).unwrap();
        let target = target_of_n1(&engine);
        *files.lock().unwrap() = Ok(Chap {
            initiator: user("others", SECOND),
            target: Some(user("box", "hunter2-yet-another")),
        });
        armed.store(step, Ordering::SeqCst);
        let swept = catch_unwind(AssertUnwindSafe(|| engine.sweep()));
        armed.store(u64::MAX, Ordering::SeqCst);
        drop(engine);
        start(&san, &files);
        let found = in_force(&san.path("target"), &target);
        assert_eq!(found, ["others", SECOND, "box", "hunter2-yet-another", "1"]);
        if swept.is_ok() {
            assert_eq!(step, 5, "four values were changed");
            return;
        }
    }
}

#[test]
fn after_a_reboot_nobody_is_let_in_unproven() {
    let san = SanBox::new();
    let files: Files = Arc::new(Mutex::new(Ok(chap(FIRST, false))));
    let engine = start(&san, &files);
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    drop(engine);
    let before = san.lio.tree();
    *files.lock().unwrap() = Err("damaged".to_owned());
    // A restart leaves what is served as it is.
    drop(start(&san, &files));
    assert_eq!(san.lio.tree(), before);
    san.lio.reboot();
    let engine = start(&san, &files);
    assert!(!san.lio.tree().iter().any(|line| line.contains("/np/")));
    *files.lock().unwrap() = Ok(chap(FIRST, false));
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    assert_eq!(san.lio.tree(), before);
}
