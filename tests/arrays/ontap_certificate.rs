//! ONTAP by certificate: the array knows the account by the name in what it is shown, and files that were replaced count from the next request on.

use std::fs;

use sanpath::fault::{Fault as Class, Faulted, chain};
use sanpath::san::SanError;

use crate::conformance::{MIB, until};
use crate::ontap::{Rig, life};
use crate::simulators::http::{Authority, Request, Server};
use crate::simulators::ontap::{ACCOUNTS, Ontap};

const FILES: [&str; 2] = ["tls.crt", "tls.key"];

/// A SAN of ours that shows this certificate, or says this login.
fn rig(authority: &Authority, login: &[(&str, &str)]) -> Rig {
    Rig::by(
        Server::asking(Ontap::default(), 2, authority),
        login,
        (false, false),
    )
}

fn by_certificate(authority: &Authority, name: &str) -> Rig {
    let (certificate, key) = authority.issue(name);
    rig(authority, &[(FILES[0], &certificate), (FILES[1], &key)])
}

fn replace(rig: &Rig, (certificate, key): (String, String)) {
    for (file, text) in FILES.into_iter().zip([certificate, key]) {
        fs::write(rig.folder().join(file), text).unwrap();
    }
}

/// What a call comes to that changes something.
async fn attempt(rig: &Rig, name: &str) -> Result<(), SanError> {
    let subject = rig.subject();
    let wanted = subject.wanted(name, 8 * MIB, None);
    let made = subject.san.ensure_volume(&wanted, until()).await;
    made.map(drop)
}

fn changes(rig: &Rig) -> Vec<Request> {
    let seen = rig.server.take_seen().into_iter();
    seen.filter(Request::is_mutation).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_a_login_without_a_password() {
    let authority = Authority::default();
    let rig = by_certificate(&authority, ACCOUNTS[1].0);
    life(&rig.subject()).await.unwrap();
    let seen = rig.server.take_seen();
    assert!(seen.len() > 10, "{}", seen.len());
    for request in &seen {
        assert_eq!(request.shown.as_deref(), Some(ACCOUNTS[1].0));
        assert_eq!(request.header("authorization"), None);
    }
}

/// As the kubelet does it with a Secret, from one request to the next.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_replaced_count_at_once() {
    let authority = Authority::default();
    let rig = by_certificate(&authority, ACCOUNTS[1].0);
    attempt(&rig, "one").await.unwrap();
    replace(&rig, authority.issue(ACCOUNTS[0].0));
    rig.server.take_seen();
    attempt(&rig, "two").await.unwrap();
    let after = changes(&rig);
    let shows = |name: &str| after.iter().all(|it| it.shown.as_deref() == Some(name));
    assert!(!after.is_empty() && shows(ACCOUNTS[0].0));
    replace(&rig, authority.issue("nobody"));
    let refused = attempt(&rig, "three").await.unwrap_err();
    assert_eq!(refused.fault(), Class::Denied);
    assert!(chain(&refused).contains("sanCredentials"), "{refused}");
    // A password instead of it.
    for file in FILES {
        fs::remove_file(rig.folder().join(file)).unwrap();
    }
    for (file, text) in [("username", ACCOUNTS[1].0), ("password", ACCOUNTS[1].1)] {
        fs::write(rig.folder().join(file), text).unwrap();
    }
    rig.server.take_seen();
    attempt(&rig, "three").await.unwrap();
    assert!(changes(&rig).iter().all(|it| it.shown.is_none()));
}

/// The array hears a certificate that it cannot trust only after the client has gone on; it is a refusal all the same, told once and not tried everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_certificate_is_refused() {
    let (authority, other) = (Authority::default(), Authority::default());
    let rig = by_certificate(&authority, ACCOUNTS[1].0);
    // Whichever of the two is first: the request that goes out, or the refusal that comes in.
    for _ in 0..5 {
        replace(&rig, other.issue(ACCOUNTS[1].0));
        let refused = attempt(&rig, "v").await.unwrap_err();
        assert_eq!(refused.fault(), Class::Denied, "{}", chain(&refused));
        let told = chain(&refused);
        assert!(told.contains("does not accept the certificate"), "{told}");
    }
    assert!(changes(&rig).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_login_are_named() {
    let authority = Authority::default();
    let (certificate, key) = authority.issue(ACCOUNTS[1].0);
    let (_, another) = authority.issue(ACCOUNTS[1].0);
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[], "neither username and password nor tls.crt and tls.key"),
        (
            &[
                ("username", "vsadmin"),
                (FILES[0], &certificate),
                (FILES[1], &key),
            ],
            "holds username, tls.crt, tls.key",
        ),
        (&[(FILES[0], &certificate)], "tls.key cannot be read"),
        (
            &[(FILES[0], &certificate), (FILES[1], &another)],
            "tls.key is not that of",
        ),
        (
            &[(FILES[0], "half"), (FILES[1], &key)],
            "tls.crt holds no certificate in PEM form",
        ),
    ];
    for (files, expected) in cases {
        let rig = rig(&authority, files);
        let told = chain(&attempt(&rig, "v").await.unwrap_err());
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("PRIVATE KEY"), "{told}");
        assert!(rig.server.take_seen().is_empty(), "{expected}");
    }
    // In clear a certificate would prove nothing.
    let login = [(FILES[0], &*certificate), (FILES[1], &*key)];
    let rig = Rig::by(Server::clear(Ontap::default(), 1), &login, (false, false));
    let told = chain(&attempt(&rig, "v").await.unwrap_err());
    assert!(told.contains("set tls"), "{told}");
}
