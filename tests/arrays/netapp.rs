//! The ONTAP simulator under NetApp's own client: what it says is what that expects, whoever asks and whether or not it says so by jobs.

use serde_json::{Value, json};

use crate::foreign::{run, told};
use crate::simulators::http::{Authority, Server};
use crate::simulators::ontap::{ACCOUNTS, Manner, Ontap, SVM_UUID, TARGET};

fn foreign(server: &Server<Ontap>, account: (&str, &str)) -> Vec<Value> {
    let address = server.addresses().remove(0);
    let (host, port) = address.split_once(':').unwrap();
    run(
        "SANPATH_NETAPP_ONTAP",
        "ontap.py",
        &[host, port, account.0, account.1],
    )
}

#[test]
fn netapps_own_client_finds_an_ontap() {
    for (account, by_jobs) in [(ACCOUNTS[0], false), (ACCOUNTS[1], true)] {
        let server = Server::clear(Ontap::default(), 1);
        server.array.set(Manner {
            by_jobs,
            page: by_jobs.then_some(1),
            ..Manner::default()
        });
        let all = foreign(&server, account);
        let of = |did| told(&all, did);
        assert_eq!(of("find an SVM")["uuid"], SVM_UUID);
        assert_eq!(of("create")["size"], 64 << 20);
        assert_eq!(of("list")["names"], json!(["/vol/pool_1/foreign"]));
        assert_eq!(of("find")["attributes"], json!([["colour", "red"]]));
        assert_eq!(of("find")["thin"], true);
        assert_eq!(of("expand")["size"], 128 << 20);
        assert_eq!(of("clone")["serial_differs"], true);
        assert_eq!(
            (&of("clone")["size"], &of("clone")["thin"]),
            (&json!(128 << 20), &json!(false))
        );
        assert_eq!(of("clone")["attributes"], json!(["colour"]));
        assert_eq!(of("change an attribute")["value"], "blue");
        assert_eq!(of("rename")["name"], "/vol/pool_1/renamed");
        let limit = of("limit");
        assert_eq!(
            (&limit["names"], &limit["under"]),
            (&json!(["gold"]), &json!("gold"))
        );
        assert_eq!(
            (&limit["copy_has"], &limit["freed"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(
            (&of("map")["number"], &of("map")["nodes"]),
            (&json!(0), &json!(["node1", "node2"]))
        );
        assert_eq!(of("find the iSCSI service")["target"], TARGET);
        assert_eq!(of("list portals")["portals"].as_array().unwrap().len(), 8);
        is_told_of_logins(&all);
        for left in ["remove a login", "unmap", "delete an igroup", "delete"] {
            assert_eq!(of(left)["left"], 0, "{left}");
        }
        is_told_of_flexvols(&all, account == ACCOUNTS[0]);
        if !by_jobs {
            is_refused_by_number(&all);
        }
        assert_eq!(server.array.luns(), ["nothing"; 0]);
    }
}

/// The account is the one that the certificate names; one that names none is refused.
#[test]
fn netapps_own_client_logs_in_by_certificate() {
    let authority = Authority::default();
    let server = Server::asking(Ontap::default(), 1, &authority);
    let address = server.addresses().remove(0);
    let (host, port) = address.split_once(':').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log_in = |name: &str| {
        let (certificate, key) = authority.issue(name);
        let files = [("tls.crt", certificate), ("tls.key", key)].map(|(file, text)| {
            let path = folder.path().join(file);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let words = [host, port, &files[0], &files[1]];
        run("SANPATH_NETAPP_ONTAP", "ontap_certificate.py", &words)
    };
    let all = log_in(ACCOUNTS[1].0);
    assert_eq!(told(&all, "find an SVM")["uuid"], SVM_UUID);
    assert_eq!(told(&all, "create")["size"], 64 << 20);
    assert_eq!(told(&all, "delete")["left"], 0);
    let seen = server.take_seen();
    assert!(seen.iter().all(|it| it.header("authorization").is_none()));
    assert_eq!(told(&log_in("nobody"), "refused")["status"], 401);
}

/// Passwords go in and never come out; the type is told in small letters.
fn is_told_of_logins(all: &[Value]) {
    let set = told(all, "set a login");
    assert_eq!(
        (&set["users"], &set["types"]),
        (&json!(["in"]), &json!(["chap"]))
    );
    let changed = told(all, "change a login");
    assert_eq!(changed["users"], json!(["in-2", "out"]));
    for shown in [set, changed] {
        assert_eq!(shown["shows"], false, "{shown}");
    }
}

/// A job says it in words instead.
fn is_refused_by_number(all: &[Value]) {
    let of = |did| told(all, did);
    let code = |did: &'static str| of(did)["code"].as_str().unwrap().to_owned();
    assert_eq!(code("make a FlexVol again"), "917526");
    assert_eq!(code("cut it again"), "1");
    let of_clone = of("delete what has a clone");
    assert_eq!(
        (&of_clone["snapshot"], &of_clone["flexvol"]),
        (&json!("1638555"), &json!("524615"))
    );
    assert_eq!(code("create again"), "5374242");
    assert_eq!(code("expand to the same"), "1254226");
    assert_eq!(code("shrink"), "5374892");
    assert_eq!(code("add an initiator twice"), "5374035");
    assert_eq!(code("map again"), "1254207");
    assert_eq!(code("delete while mapped"), "1254197");
    assert_eq!(code("delete an igroup while mapped"), "1254213");
    assert_eq!(code("delete again"), "5374875");
    assert_eq!(code("set a login again"), "5374142");
    assert_eq!(code("the same secret both ways"), "5374147");
    for gone in ["remove a login again", "change what is gone"] {
        assert_eq!(code(gone), "5374895", "{gone}");
    }
}

/// What the layout of a FlexVol for each volume is made of.
fn is_told_of_flexvols(all: &[Value], sees_aggregates: bool) {
    let of = |did| told(all, did);
    if sees_aggregates {
        let rooms = of("list aggregates")["rooms"].clone();
        assert_eq!(
            rooms,
            json!({"aggr_node1": 1_u64 << 40, "aggr_node3": 1_u64 << 40})
        );
    }
    assert_eq!(of("make a FlexVol")["size"], 64 << 20);
    let grown = of("expand a FlexVol");
    assert_eq!(
        (&grown["size"], &grown["comment"]),
        (&json!(128 << 20), &json!("larger"))
    );
    assert_eq!(of("cut a FlexVol")["of"], "foreign");
    let listed = of("list snapshots");
    assert_eq!(
        (&listed["names"], &listed["here"]),
        (&json!(["first"]), &json!(["first"]))
    );
    let clone = of("clone a FlexVol");
    assert_eq!(
        (&clone["lun"], &clone["serial_differs"]),
        (&json!("/vol/cloned/one"), &json!(true))
    );
    assert_eq!(
        (&clone["attributes"], &clone["children"]),
        (&json!(["red"]), &json!(["cloned"]))
    );
    assert_eq!(of("remove an attribute")["left"], 0);
    assert_eq!(of("split a clone")["children"], json!([]));
    let gone = of("delete FlexVols");
    assert_eq!((&gone["left"], &gone["luns"]), (&json!([]), &json!(0)));
}
