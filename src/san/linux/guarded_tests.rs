//! The client over TLS against the double: which SAN it speaks to, and what becomes of a call when that is another one.

use std::time::Duration;

use uuid::Uuid;

use super::super::double::Double;
use super::super::{San, SanError, Until};
use super::{LinuxSan, Way};
use crate::fault::{Fault, Faulted, chain};
use crate::tls::rig::{Rig, SAN, caller};
use crate::tls::{Bearer, Papers, Role};
use crate::volume::Family;

const OTHER: Uuid = Uuid::from_u128(7);

fn soon() -> Until {
    Until::now() + Duration::from_secs(20)
}

fn san(addresses: &[&str], papers: Papers, expected: Option<Uuid>) -> San {
    let addresses: Vec<String> = addresses.iter().map(|&text| text.to_owned()).collect();
    let way = Way {
        papers: Some(papers),
        expected,
    };
    San::new(Family::Linux, LinuxSan::new(&addresses, way))
}

fn double(uuid: Uuid) -> Double {
    Double::new(&uuid.to_string())
}

#[tokio::test]
async fn a_call_goes_to_the_san_that_has_proven_itself() {
    let rig = Rig::new();
    let authority = rig.authority();
    let line = double(SAN).guarded_line(rig.san(&authority)).await;
    let papers = rig.caller(Role::Controller, &authority);
    for expected in [None, Some(SAN)] {
        let san = san(&[line.address()], papers.clone(), expected);
        san.capacity(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn another_san_of_the_same_authority_is_refused_by_name_before_anything_is_sent() {
    let rig = Rig::new();
    let authority = rig.authority();
    let (ours, other) = (double(SAN), double(OTHER));
    let line = ours.guarded_line(rig.san(&authority)).await;
    let folder = rig.put("other", &Bearer::San(OTHER), &authority, &[&authority]);
    let strange = Papers::of_san(&rig.host, &folder, OTHER);
    let strange = other.guarded_line(strange).await;
    let papers = rig.caller(Role::Controller, &authority);
    // Told by the config file.
    let told = san(&[strange.address()], papers.clone(), Some(SAN));
    let error = told.capacity(soon()).await.unwrap_err();
    assert!(matches!(error, SanError::Unreachable { .. }), "{error}");
    let text = chain(&error);
    assert!(
        text.contains(&format!(
            "this is SAN {OTHER}, and sanUuid of the partition is {SAN}"
        )),
        "{text}"
    );
    // Found out when both are asked who they are.
    let mixed = san(&[line.address(), strange.address()], papers, None);
    let error = mixed.capacity(soon()).await.unwrap_err();
    assert!(matches!(error, SanError::TwoSans { .. }), "{error}");
    assert!(ours.calls().is_empty());
    assert!(other.calls().is_empty());
}

#[tokio::test]
async fn who_says_another_name_than_its_certificate_is_not_spoken_to() {
    let rig = Rig::new();
    let authority = rig.authority();
    let liar = double(OTHER);
    let line = liar.guarded_line(rig.san(&authority)).await;
    let san = san(
        &[line.address()],
        rig.caller(Role::Controller, &authority),
        None,
    );
    let text = chain(&san.capacity(soon()).await.unwrap_err());
    assert!(
        text.contains(&format!("it says that it is SAN {OTHER}")),
        "{text}"
    );
    assert!(liar.calls().is_empty());
}

#[tokio::test]
async fn a_handshake_that_fails_is_an_address_that_was_not_reached() {
    let rig = Rig::new();
    let (authority, foreign) = (rig.authority(), rig.authority());
    let wanted = double(SAN);
    let line = wanted.guarded_line(rig.san(&authority)).await;
    let plain = wanted.line().await;
    // A stranger before the right one costs nothing but its attempt.
    let folder = rig.put("impostor", &Bearer::San(SAN), &foreign, &[&authority]);
    let impostor = Papers::of_san(&rig.host, &folder, SAN);
    let impostor = wanted.guarded_line(impostor).await;
    let papers = rig.caller(Role::Controller, &authority);
    let addresses = [plain.address(), impostor.address(), line.address()];
    san(&addresses, papers.clone(), None)
        .capacity(soon())
        .await
        .unwrap();
    assert_eq!(wanted.calls(), ["GetCapacity"]);
    let error = san(&addresses[..2], papers, None)
        .capacity(soon())
        .await
        .unwrap_err();
    assert!(matches!(error, SanError::Unreachable { .. }), "{error}");
    let text = chain(&error);
    assert!(text.contains("does not speak TLS"), "{text}");
    assert!(
        text.contains("signed by no authority of our ca.crt"),
        "{text}"
    );
    // And one whose certificate the SAN does not take.
    let folder = rig.put(
        "stranger",
        &caller(Role::Controller),
        &foreign,
        &[&authority],
    );
    let stranger = Papers::of_caller(&rig.host, &folder);
    let error = san(&[line.address()], stranger, None)
        .capacity(soon())
        .await
        .unwrap_err();
    assert!(matches!(error, SanError::Unreachable { .. }), "{error}");
    assert_eq!(wanted.calls().len(), 1);
    assert_eq!(error.fault(), Fault::MaybeDone);
}

#[tokio::test]
async fn papers_that_cannot_be_used_are_told_with_the_file() {
    let rig = Rig::new();
    let authority = rig.authority();
    let line = double(SAN).guarded_line(rig.san(&authority)).await;
    let papers = Papers::of_caller(&rig.host, std::path::Path::new("/nowhere"));
    let error = san(&[line.address()], papers, None)
        .capacity(soon())
        .await
        .unwrap_err();
    let text = chain(&error);
    assert!(text.contains("/nowhere/ca.crt cannot be read"), "{text}");
}
