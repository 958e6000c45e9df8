//! The reconciler goes its rounds while calls are made, and both would do the same.

use super::rig::{Rig, content, wanted};

#[tokio::test]
async fn a_round_beside_a_call_leaves_its_work_to_it() {
    let rig = Rig::new(1).await;
    let source = rig.volume("v", &content(7)).await;
    let snapshot = rig.archived("s", &source.id, false).await;
    let names = ["w", "x", "y", "z"];
    for name in names {
        let wanted = wanted(name, "b", Some(&snapshot));
        let rounds = async {
            loop {
                rig.controller.reconcile().await;
            }
        };
        // A final code on the way fails it.
        let restored = tokio::select! {
            restored = rig.restored(&wanted) => restored,
            () = rounds => unreachable!(),
        };
        assert_eq!(rig.seats.content(restored.id.wwid.as_str()), content(7));
        assert_eq!(rig.restored(&wanted).await.id, restored.id);
    }
    rig.assert_at_rest(&["v", "w", "x", "y", "z"], &[]).await;
}
