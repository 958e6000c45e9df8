//! Policies of performance, from CreateVolume and ControllerModifyVolume to what the array shows: the names in a VolumeAttributesClass are those of policies that
//! the array's administrator has made.

use std::collections::BTreeMap;
use std::time::Duration;

use sanpath::controller::{Controller, ControllerError, Wanted};
use sanpath::fault::{Fault as Class, Faulted};
use sanpath::san::Fleet;
use sanpath::volume::{SizeRange, VolumeId};
use serde_json::json;

use crate::ontap::Rig as OntapRig;
use crate::simulators::http::{Fault, Trap};
use crate::simulators::ontap::SVM;
use crate::unity::Rig as UnityRig;

fn qos(name: &str) -> BTreeMap<String, String> {
    [("qosPolicy".to_owned(), name.to_owned())].into()
}

fn controller(fleet: &Fleet) -> Controller {
    Controller::new(fleet.clone(), Duration::from_secs(30))
}

fn wanted(name: &str, attributes: BTreeMap<String, String>) -> Wanted {
    Wanted {
        name: name.to_owned(),
        range: SizeRange::new(8 << 20, 0).unwrap(),
        parameters: BTreeMap::new(),
        attributes,
        kinds: Vec::new(),
        accessibility: Default::default(),
        origin: None,
    }
}

/// It is refused as a wish that cannot be met.
async fn refuses(controller: &Controller, id: &VolumeId, name: &str) -> ControllerError {
    let refused = controller.modify(id, &qos(name)).await.unwrap_err();
    assert_eq!(refused.fault(), Class::Invalid, "{refused}");
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ontap_volume_is_under_the_policy_that_its_class_names() {
    let rig = OntapRig::new();
    for name in ["silver", "gold"] {
        let fixed = json!({"max_throughput_iops": 1000});
        rig.server.array.state().put_policy(SVM, name, &fixed);
    }
    let under = || rig.server.array.all("luns")[0]["qos_policy"]["name"].clone();
    let controller = controller(&rig.fleet);
    assert!(controller.can_modify());
    let unknown = controller.create(&wanted("v", qos("lead"))).await;
    let unknown = unknown.unwrap_err();
    assert!(
        matches!(unknown, ControllerError::UnknownPolicy { .. }),
        "{unknown}"
    );
    assert_eq!(
        rig.server.array.luns(),
        ["nothing"; 0],
        "before anything is made"
    );
    // The policy that is set once the volume is there, and never its answer.
    rig.server.set(Trap::mutation(1, Fault::CutsReply));
    let made = controller
        .create(&wanted("v", qos("silver")))
        .await
        .unwrap();
    assert!(rig.server.clear_traps());
    assert_eq!(under(), "silver");
    for _ in 0..2 {
        controller.modify(&made.id, &qos("gold")).await.unwrap();
        assert_eq!(under(), "gold");
    }
    refuses(&controller, &made.id, "lead").await;
    refuses(&controller, &made.id, "").await;
    assert_eq!(under(), "gold", "nothing was changed");
    let copy = controller.create(&wanted("v", qos("gold"))).await.unwrap();
    assert_eq!(copy, made, "the same volume");
    controller.modify(&made.id, &qos("none")).await.unwrap();
    assert_eq!(under(), json!(null));
    controller.delete(&made.id).await.unwrap();
    let gone = controller.modify(&made.id, &qos("gold")).await.unwrap_err();
    assert_eq!(gone.fault(), Class::NotFound, "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unity_volume_is_under_the_limit_that_its_class_names() {
    let rig = UnityRig::new();
    for (id, name) in [("qp_1", "silver"), ("qp_2", "gold")] {
        let policy = json!({"id": id, "name": name, "type": 1, "isShared": false, "state": 2});
        let mut state = rig.server.array.state();
        state.policies.insert(id.to_owned(), policy);
    }
    let under = || {
        let state = rig.server.array.state();
        state.luns.values().next().unwrap().policy.clone()
    };
    let controller = controller(&rig.fleet);
    let made = controller
        .create(&wanted("v", qos("silver")))
        .await
        .unwrap();
    assert_eq!(under().as_deref(), Some("qp_1"));
    for _ in 0..2 {
        controller.modify(&made.id, &qos("gold")).await.unwrap();
        assert_eq!(under().as_deref(), Some("qp_2"));
    }
    refuses(&controller, &made.id, "lead").await;
    let told = refuses(&controller, &made.id, "none").await.to_string();
    assert!(told.contains("none"), "{told}");
    assert_eq!(under().as_deref(), Some("qp_2"), "nothing was changed");
    controller.delete(&made.id).await.unwrap();
    rig.is_empty();
}
