//! What is seen of a SAN from beside its daemon.

use super::*;
use crate::linux_san::pool::PoolError;

#[test]
fn the_pool_is_seen_whether_the_daemon_runs_or_not_and_nothing_is_made() {
    let san = SanBox::new();
    let look = || Engine::look_at_pool(&san.host, &san.options());
    // In memory, where blocks cannot be shared.
    assert!(matches!(
        look(),
        Err(SightError::Pool(PoolError::NoReflink { .. }))
    ));
    assert!(san.host.list(&san.path("pool")).unwrap().is_empty());
    let engine = san.start();
    let sight = look().unwrap();
    assert!(!sight.is_new && sight.space.total > 0);
    drop(engine);
    let before = san.host.counts().steps;
    assert!(look().is_ok());
    assert_eq!(san.host.counts().steps, before, "it only looks");
    let marker = san.path("pool/pool.json");
    let right = std::fs::read(&marker).unwrap();
    std::fs::remove_file(&marker).unwrap();
    assert!(matches!(
        look(),
        Err(SightError::Pool(PoolError::NotMounted(_)))
    ));
    let mut other: serde_json::Value = serde_json::from_slice(&right).unwrap();
    other["pool_id"] = "another".into();
    std::fs::write(&marker, other.to_string()).unwrap();
    assert!(matches!(
        look(),
        Err(SightError::Pool(PoolError::OtherPool { .. }))
    ));
}

#[test]
fn targets_of_others_are_told_from_ours() {
    let san = SanBox::new();
    let engine = san.start();
    let volume = engine.create_volume(&wanted("pvc-1")).unwrap();
    engine.ensure_export(&give(&volume, "n1")).unwrap();
    let foreign = || Engine::foreign_targets(&san.host, &san.options());
    assert_eq!(foreign(), [""; 0]);
    std::fs::create_dir_all(san.path("target/iscsi/iqn.2003-01.org.linux-iscsi.box:x")).unwrap();
    assert_eq!(foreign(), ["iqn.2003-01.org.linux-iscsi.box:x"]);
}
