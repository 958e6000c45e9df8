//! What of a simulated EqualLogic group is on the data path, before a kernel serves it in the lab and open-iscsi logs in.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::simulators::equallogic::{ADDRESS, Group, Member, NAME, Redirector};

const NODE: &str = "iqn.2026-11.dev.sanpath:node";

/// Of a target as it was recorded of a real group.
#[test]
fn a_disk_is_named_by_its_target() {
    let target = "iqn.2001-05.com.equallogic:0-8a0906-ba580060c-fcc002c3743528a8-data";
    let mut group = Group::new(NAME, ADDRESS);
    group.run("volume create data 1G");
    group.volumes.get_mut("data").unwrap().target = target.to_owned();
    let disk = &group.objects()[0];
    assert_eq!(disk.wwid, "36090a0c8600058baa8283574c302c0fc");
    assert_eq!(disk.target.as_deref(), Some(target));
}

/// Records let in whom they name, to what is online; a clone begins with the bytes of what it is made of.
#[test]
fn a_group_tells_what_is_on_the_data_path() {
    let mut group = Group::new(NAME, ADDRESS);
    let lets_in = |volume: &str| format!("volume select {volume} access create initiator {NODE}");
    for command in [
        "volume create data 1G thin-provision",
        &lets_in("data"),
        "volume select data access create ipaddress 10.0.0.9",
        "volume select data snapshot create-now",
        "volume select data clone offline",
        &lets_in("offline"),
        "volume select offline offline",
    ] {
        let said = group.run(command);
        assert!(!said.contains("Error"), "{command}: {said}");
    }
    let objects = group.objects();
    let [data, cut, copy] = &objects[..] else {
        panic!("{objects:?}");
    };
    assert_eq!(data.copy_of, None);
    for made in [cut, copy] {
        assert_eq!(made.copy_of.as_ref(), Some(&data.id));
        assert!(made.shown_to.is_empty() && made.target != data.target);
    }
    assert_eq!(data.shown_to, [(NODE.to_owned(), 0)].into());
    let knows =
        |of: &crate::simulators::backing::Object| group.knows(of.target.as_deref().unwrap());
    assert!(knows(data) && !knows(copy) && !knows(cut));
    for disk in &mut group.volumes.values_mut() {
        for cut in disk.snapshots.values_mut() {
            cut.is_online = true;
        }
    }
    // A snapshot that is online is a target like any other, for whoever has the volume.
    assert!(group.knows(cut.target.as_deref().unwrap()));
    assert_eq!(group.objects()[1].shown_to, data.shown_to);
}

/// A login's answer: status, what is bound to the request, and its text. The form is that of RFC 7143, 11.12 and 11.13.
fn log_in(at: SocketAddr, text: &str) -> ([u8; 2], [u8; 12], String) {
    let mut request = vec![0; 48];
    request[0] = 0x43;
    request[1] = 0x87;
    request[7] = u8::try_from(text.len()).unwrap();
    request[8..20].copy_from_slice(b"session-task");
    request.extend(text.as_bytes());
    request.resize(request.len().next_multiple_of(4), 0);
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(&request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let (header, text) = answer.split_at(48);
    assert_eq!((header[0], header[1]), (0x23, 0x04));
    let length = usize::from(header[7]);
    assert_eq!(text.len(), length.next_multiple_of(4));
    let text = String::from_utf8(text[..length].to_vec()).unwrap();
    let status = header[36..38].try_into().unwrap();
    (status, header[8..20].try_into().unwrap(), text)
}

/// Members that serve take turns, one that is lost gets nobody, and what the group does not know is refused.
#[test]
fn logins_are_sent_on_to_members_that_serve() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let member = |tag: u16| Member {
        portal: format!("10.0.0.{tag}:3260"),
        tag,
    };
    let members = vec![member(1), member(2)];
    let group = Redirector::listen(listener, members, |target| target == "iqn.a:there");
    let asks = |target: &str| {
        let keys = [
            &format!("InitiatorName={NODE}"),
            "SessionType=Normal",
            target,
        ];
        let (status, bound, text) = log_in(at, &(keys.join("\0") + "\0"));
        assert_eq!(&bound, b"session-task");
        (status, text)
    };
    let there = "TargetName=iqn.a:there";
    let sent_to = |tag: u16| ([1, 1], format!("TargetAddress=10.0.0.{tag}:3260,{tag}\0"));
    for tag in [1, 2, 1] {
        assert_eq!(asks(there), sent_to(tag));
    }
    group.set_serving(2, false);
    assert_eq!(asks(there), sent_to(1));
    group.set_serving(1, false);
    assert_eq!(asks(there), ([3, 1], String::new()));
    group.set_serving(2, true);
    assert_eq!(asks(there), sent_to(2));
    assert_eq!(asks("TargetName=iqn.a:elsewhere").0, [2, 3]);
    assert_eq!(asks("SessionType=Discovery").0, [2, 9]);
    assert_eq!(asks("TargetAlias=x").0, [2, 0]);
    // Whoever says nothing, or no login, is not sent on, and holds nobody up.
    drop(TcpStream::connect(at).unwrap());
    let mut silent = TcpStream::connect(at).unwrap();
    silent.write_all(&[0; 48]).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let sent = group.sent();
    assert_eq!(sent.len(), 5);
    assert!(
        sent.iter()
            .all(|it| it.initiator == NODE && it.target == "iqn.a:there")
    );
}
