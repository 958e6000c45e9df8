//! Handshakes over loopback: who is let in, who is turned away and with which word, and papers that change under the connections.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, rustls};

use super::authority::Authority;
use super::listen::greet;
use super::papers::certificates;
use super::rig::{Rig, SAN, caller};
use super::*;
use crate::fault::chain;

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + std::time::Duration::from_secs(20)
}

/// What both sides come to: the SAN's and the caller's.
type Ends = (Result<Caller, String>, Result<Option<uuid::Uuid>, String>);

async fn meet(san: &Papers, ours: Option<&Papers>) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let caught = greet(stream, san.clone()).await;
        caught
            .map(|caught| caught.caller().clone())
            .map_err(|error| chain(&error))
    };
    let calling = async {
        let dialled = dial(&address, ours, soon()).await;
        dialled.map_err(|error| chain(&error))
    };
    // Kept open until the SAN has made up its mind: the caller is through with its part first.
    let (served, dialled) = tokio::join!(serving, calling);
    (served, dialled.map(|dialled| dialled.san()))
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let rig = Rig::new();
    let authority = rig.authority();
    for role in Role::ALL {
        let (theirs, ours) = meet(&rig.san(&authority), Some(&rig.caller(role, &authority))).await;
        assert_eq!(
            theirs.unwrap().to_string(),
            format!("{role} \"the-{role}\"")
        );
        assert_eq!(ours.unwrap(), Some(SAN));
    }
}

/// What comes of calling the bearer of `theirs` as an archiver.
async fn call_archiver(theirs: &Papers, ours: &Papers) -> Result<Caller, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        greet(stream, theirs.clone()).await
    };
    let calling = dial_archiver(&address, Some(ours), soon());
    let (served, dialled) = tokio::join!(serving, calling);
    dialled.map_err(|error| chain(&error))?;
    Ok(served.unwrap().caller().clone())
}

#[tokio::test]
async fn an_archiver_is_called_as_one_and_nobody_else_is() {
    let rig = Rig::new();
    let authority = rig.authority();
    let controller = rig.caller(Role::Controller, &authority);
    let archiver = rig.caller(Role::Archiver, &authority);
    let who = call_archiver(&archiver, &controller).await.unwrap();
    assert_eq!(who.role, Role::Controller);
    for other in [
        rig.san(&authority),
        rig.caller(Role::Operator, &authority),
        controller.clone(),
    ] {
        assert!(
            call_archiver(&other, &controller).await.is_err(),
            "{other:?}"
        );
    }
    let (_, as_san) = meet(&archiver, Some(&controller)).await;
    assert!(as_san.is_err(), "an archiver is no SAN");
}

#[tokio::test]
async fn who_comes_from_another_authority_is_turned_away_by_either_end() {
    let rig = Rig::new();
    let (ours, other) = (rig.authority(), rig.authority());
    let san = rig.san(&ours);
    // Signed by another one, and trusting the right one.
    let folder = rig.put("stranger", &caller(Role::Controller), &other, &[&ours]);
    let (theirs, _) = meet(&san, Some(&Papers::of_caller(&rig.host, &folder))).await;
    assert!(
        theirs
            .unwrap_err()
            .contains("signed by no authority of our ca.crt")
    );
    // And the other way round.
    let folder = rig.put("wary", &caller(Role::Controller), &ours, &[&other]);
    let (_, refused) = meet(&san, Some(&Papers::of_caller(&rig.host, &folder))).await;
    assert!(
        refused
            .unwrap_err()
            .contains("signed by no authority of our ca.crt")
    );
}

#[tokio::test]
async fn a_caller_is_no_san_and_a_san_no_caller() {
    let rig = Rig::new();
    let authority = rig.authority();
    let san = rig.san(&authority);
    let raw = |folder: &str| fs::read(san.folder().with_file_name(folder).join(CERTIFICATE_FILE));
    let bearer = caller(Role::Controller);
    rig.put("controller", &bearer, &authority, &[&authority]);
    assert!(raw("controller").is_ok());
    // Papers say so before anybody is asked …
    let wrong = Papers::of_san(&rig.host, &san.folder().with_file_name("controller"), SAN);
    let refused = chain(&wrong.check().unwrap_err());
    assert!(
        refused.contains("and must be that of SAN 6ba7b810"),
        "{refused}"
    );
    let wrong = Papers::of_caller(&rig.host, san.folder());
    let refused = chain(&wrong.check().unwrap_err());
    assert!(refused.contains("must be that of a caller"), "{refused}");
    // … and who shows them all the same is turned away.
    let refused = show(&san, san.folder()).await.unwrap_err();
    assert!(refused.contains("is for the other side"), "{refused}");
}

#[tokio::test]
async fn a_certificate_that_ended_is_refused_at_home_and_abroad() {
    let rig = Rig::new();
    let authority = rig.authority();
    let folder = rig.put_ended("late", &caller(Role::Controller), &authority);
    let papers = Papers::of_caller(&rig.host, &folder);
    let refused = chain(&papers.check().unwrap_err());
    assert!(refused.contains("tls.crt ended on 20"), "{refused}");
    let refused = show(&rig.san(&authority), &folder).await.unwrap_err();
    assert!(refused.contains("its certificate has ended"), "{refused}");
}

#[tokio::test]
async fn a_certificate_without_a_role_or_with_an_unknown_one_is_nobodys() {
    let rig = Rig::new();
    let authority = rig.authority();
    let san = rig.san(&authority);
    for (uris, reason) in [
        (&[][..], "neither a SAN nor a role"),
        (&["sanpath:role/root"][..], "the role \"root\""),
        (
            &["sanpath:role/operator", "sanpath:role/controller"][..],
            "more than one",
        ),
    ] {
        let folder = foreign(&rig, &authority, uris);
        let refused = show(&san, &folder).await.unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
}

/// A client certificate as another program may make it.
fn foreign(rig: &Rig, authority: &Authority, uris: &[&str]) -> std::path::PathBuf {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["box.example".to_owned()]).unwrap();
    for uri in uris {
        let uri = rcgen::SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names.push(uri);
    }
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let made = authority.sign(&params, &key);
    rig.put_files("foreign", [&authority.pem, &made, &key.serialize_pem()])
}

/// What the SAN says to who shows the certificate in `folder` without looking at it first.
async fn show(san: &Papers, folder: &Path) -> Result<Caller, String> {
    let chain_of = |name| certificates(folder, &fs::read(folder.join(name)).unwrap()).unwrap();
    let key = fs::read(folder.join(KEY_FILE)).unwrap();
    use rustls::pki_types::pem::PemObject as _;
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    for authority in chain_of(CA_FILE) {
        roots.add(authority).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain_of(CERTIFICATE_FILE), key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(super::names::san_name(SAN)).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let caught = greet(stream, san.clone()).await;
        caught
            .map(|caught| caught.caller().clone())
            .map_err(|error| chain(&error))
    };
    let (told, called) = tokio::join!(serving, calling);
    // The name in the SAN's certificate is one that any TLS client can check.
    assert!(called.is_ok(), "{called:?}");
    told
}

#[tokio::test]
async fn clear_text_is_turned_away_and_none_is_spoken() {
    let rig = Rig::new();
    let authority = rig.authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let (taken, _) = listener.accept().await.unwrap();
    let refused = greet(taken, rig.san(&authority)).await.err().unwrap();
    assert!(chain(&refused).ends_with("it does not speak TLS"));
    // A SAN that answers in clear.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let papers = rig.caller(Role::Controller, &authority);
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"\0\0\x06\x04\0\0\0\0\0").await.unwrap();
        stream
    };
    let (_open, dialled) = tokio::join!(serving, dial(&address, Some(&papers), soon()));
    let refused = dialled.err().unwrap();
    assert!(matches!(refused, DialError::Handshake(Handshake::Clear)));
}

#[tokio::test]
async fn two_authorities_overlap_and_either_side_may_change_first() {
    let rig = Rig::new();
    let (old, new) = (rig.authority(), rig.authority());
    let (san, controller) = (rig.san(&old), rig.caller(Role::Controller, &old));
    let works = async || {
        let (theirs, ours) = meet(&san, Some(&controller)).await;
        theirs.is_ok() && ours.is_ok()
    };
    assert!(works().await);
    let of_san = Bearer::San(SAN);
    let of_controller = caller(Role::Controller);
    rig.put("san", &of_san, &old, &[&old, &new]);
    assert!(works().await);
    rig.put("controller", &of_controller, &new, &[&old, &new]);
    assert!(works().await);
    rig.put("san", &of_san, &new, &[&old, &new]);
    assert!(works().await);
    rig.put("san", &of_san, &new, &[&new]);
    assert!(works().await);
    // The old authority is out.
    let folder = rig.put("left-behind", &of_controller, &old, &[&old, &new]);
    let (theirs, _) = meet(&san, Some(&Papers::of_caller(&rig.host, &folder))).await;
    assert!(
        theirs
            .unwrap_err()
            .contains("signed by no authority of our ca.crt")
    );
}

/// Files that cannot be used, each with what is told of it.
fn spoilt(
    rig: &Rig,
    authority: &Authority,
    good: &[String; 3],
) -> Vec<(&'static str, String, &'static str)> {
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let made = |bearer| {
        authority
            .certify(&bearer, rig.now(), Lifetime::days(9))
            .unwrap()
    };
    let (other, foreign) = (
        made(Bearer::San(SAN)),
        made(Bearer::San(uuid::Uuid::new_v4())),
    );
    vec![
        (
            CA_FILE,
            half(&good[0]),
            "ca.crt holds no certificate in PEM form",
        ),
        (
            CERTIFICATE_FILE,
            half(&good[1]),
            "tls.crt holds no certificate",
        ),
        (KEY_FILE, half(&good[2]), "tls.key holds no private key"),
        (KEY_FILE, String::new(), "tls.key holds no private key"),
        (KEY_FILE, other.key, "is not that of"),
        (CERTIFICATE_FILE, other.certificate, "is not that of"),
        (
            CERTIFICATE_FILE,
            foreign.certificate,
            "must be that of SAN 6ba7b810",
        ),
    ]
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_last_good_papers_in_force() {
    let rig = Rig::new();
    let authority = rig.authority();
    let (san, controller) = (
        rig.san(&authority),
        rig.caller(Role::Controller, &authority),
    );
    let works = async || {
        let (theirs, ours) = meet(&san, Some(&controller)).await;
        theirs.is_ok() && ours.is_ok()
    };
    assert!(works().await);
    let folder = san.folder().to_owned();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let good = [read(CA_FILE), read(CERTIFICATE_FILE), read(KEY_FILE)];
    for (name, text, reason) in spoilt(&rig, &authority, &good) {
        fs::write(folder.join(name), &text).unwrap();
        assert!(works().await, "{name}: {reason}");
        // Who starts now has nothing to go on with, and says why, without a word of a key.
        let fresh = Papers::of_san(&rig.host, &folder, SAN);
        let refused = chain(&fresh.check().unwrap_err());
        assert!(refused.contains(reason), "{refused}");
        let secret: Vec<&str> = good[2].lines().filter(|line| line.len() > 40).collect();
        assert!(
            secret.iter().all(|line| !refused.contains(line)),
            "{refused}"
        );
        let [trusted, certificate, key] = &good;
        rig.put_files("san", [trusted, certificate, key]);
    }
    fs::remove_file(folder.join(KEY_FILE)).unwrap();
    assert!(works().await);
    assert!(!format!("{san:?}").contains("KEY"));
}

/// As the kubelet replaces a Secret: all files at once.
#[tokio::test]
async fn a_mounted_secret_is_followed() {
    let rig = Rig::new();
    let (old, new) = (rig.authority(), rig.authority());
    let san = rig.san(&old);
    let of_controller = caller(Role::Controller);
    let first = rig.put("mount/..1", &of_controller, &old, &[&old]);
    let second = rig.put("mount/..2", &of_controller, &new, &[&old, &new]);
    let mount = first.parent().unwrap();
    let data = mount.join("..data");
    std::os::unix::fs::symlink("..1", &data).unwrap();
    let papers = Papers::of_caller(&rig.host, mount);
    assert!(meet(&san, Some(&papers)).await.0.is_ok());
    rig.put("san", &Bearer::San(SAN), &old, &[&new]);
    fs::remove_file(&data).unwrap();
    std::os::unix::fs::symlink("..2", &data).unwrap();
    fs::remove_dir_all(first).unwrap();
    assert!(second.exists());
    let (theirs, ours) = meet(&san, Some(&papers)).await;
    assert_eq!((theirs.is_ok(), ours.is_ok()), (true, true));
}

/// The other end sees a broken connection and no end of one that might still bring something.
#[tokio::test]
async fn a_connection_that_is_given_up_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let near = dial(&address, None, soon()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    drop(near);
    let mut read = Vec::new();
    let broken = far.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
}
