//! The service behind certificates that its own commands made: roles, strangers, and an exchange of everything under calls.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::life::serve_bound;
use super::*;
use crate::fault::chain;
use crate::linux_san::options::{Management, SanOptions};
use crate::linux_san::tests::{MIB, SanBox};
use crate::linux_san::{Certificates, CertificatesError};
use crate::tls::{Bearer, Caller, Lifetime, Papers, Role, dial};
use pb::linux_san_client::LinuxSanClient;

const DAYS: Lifetime = Lifetime::days(90);

/// A SAN with certificates that answers on one address.
struct Guarded {
    san: SanBox,
    address: String,
    shutdown: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), ServeError>>,
}

fn certificates(san: &SanBox) -> Certificates {
    Certificates::new(&san.host, &san.path("state"))
}

fn options(san: &SanBox) -> SanOptions {
    SanOptions {
        management: Management::Certificates,
        ..san.options()
    }
}

impl Guarded {
    fn start() -> Self {
        let san = SanBox::new();
        certificates(&san).init(DAYS).unwrap();
        Self::start_in(san)
    }

    fn start_in(san: SanBox) -> Self {
        let home = "127.0.0.1:0".parse().unwrap();
        let listeners = listen::bind_all(&[home], Management::Certificates).unwrap();
        let address = listeners[0].local_addr().unwrap().to_string();
        let shutdown = CancellationToken::new();
        let serving = serve_bound(
            options(&san),
            san.host.clone(),
            listeners,
            shutdown.clone(),
            |_| {},
        );
        Self {
            san,
            address,
            shutdown,
            server: tokio::spawn(serving),
        }
    }

    fn issue(&self, role: Role, folder: &str) -> Papers {
        let caller = Caller {
            role,
            name: folder.to_owned(),
        };
        let out = self.san.path(folder);
        certificates(&self.san).issue(caller, &out, DAYS).unwrap();
        Papers::of_caller(&self.san.host, &out)
    }

    async fn client(&self, papers: &Papers) -> Result<LinuxSanClient<Channel>, String> {
        let told = |error: &crate::tls::DialError| chain(error);
        let soon = tokio::time::Instant::now() + Duration::from_secs(20);
        let dialled = dial(&self.address, Some(papers), soon).await;
        let channel = dialled
            .map_err(|error| told(&error))?
            .into_channel(&Endpoint::from_static("http://san"))
            .await;
        Ok(LinuxSanClient::new(channel.map_err(|error| told(&error))?))
    }

    async fn identify(&self, papers: &Papers) -> Result<String, String> {
        let mut client = self.client(papers).await?;
        let told = client.identify(pb::IdentifyRequest {}).await;
        told.map(|told| told.into_inner().san_uuid)
            .map_err(|status| chain(&status))
    }

    async fn stop(self) -> SanBox {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
        self.san
    }
}

fn new_volume(name: &str) -> pb::CreateVolumeRequest {
    pb::CreateVolumeRequest {
        name: name.to_owned(),
        size_bytes: MIB,
        ..pb::CreateVolumeRequest::default()
    }
}

#[tokio::test]
async fn a_role_may_what_its_row_says_and_no_more() {
    let san = Guarded::start();
    let controller = san.issue(Role::Controller, "ctl-1");
    let made = san
        .client(&controller)
        .await
        .unwrap()
        .create_volume(new_volume("v"))
        .await;
    let volume = made.unwrap().into_inner();
    let find = || pb::FindVolumeRequest {
        by: Some(pb::find_volume_request::By::Key(volume.key.clone())),
    };
    for (role, folder, lists) in [
        (Role::Archiver, "arc-1", false),
        (Role::Operator, "ops-1", true),
    ] {
        let papers = san.issue(role, folder);
        let mut client = san.client(&papers).await.unwrap();
        client.identify(pb::IdentifyRequest {}).await.unwrap();
        client.find_volume(find()).await.unwrap();
        let listed = client.list_volumes(pb::ListVolumesRequest::default()).await;
        assert_eq!(listed.is_ok(), lists, "{role}");
        let request = pb::DeleteVolumeRequest {
            key: volume.key.clone(),
            wwid: volume.wwid.clone(),
        };
        let refused = client.delete_volume(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let told = format!("{role} \"{folder}\" may not call DeleteVolume: that is for controller");
        assert_eq!(refused.message(), told);
        let refused = client.create_volume(new_volume("w")).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let mut client = san.client(&controller).await.unwrap();
    let listed = client.list_volumes(pb::ListVolumesRequest::default());
    assert_eq!(listed.await.unwrap().into_inner().volumes.len(), 1);
    san.stop().await;
}

#[tokio::test]
async fn the_san_is_who_its_certificate_said_before_the_first_start() {
    let san = SanBox::new();
    let made = certificates(&san).init(DAYS).unwrap();
    let Bearer::San(uuid) = made.bearer else {
        panic!("{made:?}")
    };
    let guarded = Guarded::start_in(san);
    let papers = guarded.issue(Role::Operator, "ops");
    assert_eq!(guarded.identify(&papers).await.unwrap(), uuid.to_string());
    let san = guarded.stop().await;
    assert_eq!(certificates(&san).san_uuid().unwrap(), uuid);
    // Without certificates it stays what it is, and its volumes are served; nobody can manage it, until they are there again.
    std::fs::rename(san.path("state/tls"), san.path("away")).unwrap();
    let guarded = Guarded::start_in(san);
    assert!(guarded.identify(&papers).await.is_err());
    std::fs::rename(guarded.san.path("away"), guarded.san.path("state/tls")).unwrap();
    assert_eq!(guarded.identify(&papers).await.unwrap(), uuid.to_string());
    guarded.stop().await;
}

#[tokio::test]
async fn a_first_start_without_certificates_is_refused_with_the_mend() {
    let san = SanBox::new();
    let home = "127.0.0.1:0".parse().unwrap();
    let started = serve(
        options(&san),
        san.host.clone(),
        vec![home],
        CancellationToken::new(),
        |_| {},
    );
    let text = chain(&started.await.unwrap_err());
    assert!(text.contains("make one with sanpath san init"), "{text}");
    assert!(text.contains("tls/tls.crt cannot be read"), "{text}");
}

#[tokio::test]
async fn clear_text_and_strangers_get_no_answer() {
    let san = Guarded::start();
    let url = format!("http://{}", san.address);
    let answered = match LinuxSanClient::connect(url).await {
        Ok(mut client) => client.identify(pb::IdentifyRequest {}).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered);
    // A controller of another SAN, that trusts ours.
    let other = Guarded::start();
    let papers = other.issue(Role::Controller, "theirs");
    let ours = san.san.path("state/tls/ca.crt");
    std::fs::copy(ours, papers.folder().join("ca.crt")).unwrap();
    let refused = san.identify(&papers).await.unwrap_err();
    assert!(refused.contains("UnknownCA"), "{refused}");
    let papers = san.issue(Role::Controller, "ours");
    san.identify(&papers).await.unwrap();
    san.stop().await;
    other.stop().await;
}

/// Copies over what is there, file by file, as an operator does who thinks of nothing.
fn replace(folder: &Path, new: &Path) {
    for name in ["ca.crt", "tls.key", "tls.crt"] {
        std::fs::copy(new.join(name), folder.join(name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_exchanged_under_calls_and_none_fails() {
    let san = Arc::new(Guarded::start());
    let office = certificates(&san.san);
    let papers = san.issue(Role::Controller, "ctl");
    let (done, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let calls = {
        let (san, papers) = (Arc::clone(&san), papers.clone());
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                san.identify(&papers).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        })
    };
    let some_calls = async || {
        let before = done.load(Ordering::Relaxed);
        while done.load(Ordering::Relaxed) < before + 3 && !calls.is_finished() {
            tokio::task::yield_now().await;
        }
    };
    some_calls().await;
    office.rotate().unwrap();
    some_calls().await;
    assert!(matches!(
        office.rotate(),
        Err(CertificatesError::Rotating(2))
    ));
    assert!(matches!(office.retire(), Err(CertificatesError::StillOld)));
    let new = san.issue(Role::Controller, "ctl-new");
    replace(papers.folder(), new.folder());
    some_calls().await;
    office.renew(DAYS).unwrap();
    some_calls().await;
    let left_behind = san.san.path("state/tls/ca.crt");
    assert_eq!(
        std::fs::read_to_string(&left_behind)
            .unwrap()
            .matches("BEGIN")
            .count(),
        2
    );
    assert_eq!(office.retire().unwrap(), 2);
    some_calls().await;
    stop.store(true, Ordering::Relaxed);
    calls.await.unwrap().unwrap();
    assert!(matches!(
        office.retire(),
        Err(CertificatesError::NothingOld)
    ));
}

#[test]
fn nothing_is_overwritten_and_bad_names_are_refused() {
    let san = SanBox::new();
    let office = certificates(&san);
    let ask = |name: &str| Caller {
        role: Role::Operator,
        name: name.to_owned(),
    };
    let early = office.issue(ask("a"), &san.path("a"), DAYS);
    assert!(
        early
            .unwrap_err()
            .to_string()
            .contains("run sanpath san init first")
    );
    office.init(DAYS).unwrap();
    assert!(matches!(office.init(DAYS), Err(CertificatesError::Made(_))));
    office.issue(ask("a"), &san.path("a"), DAYS).unwrap();
    let again = office.issue(ask("a"), &san.path("a"), DAYS);
    assert!(matches!(again, Err(CertificatesError::Exists(_))));
    for name in ["", "a b", "a/b", &"x".repeat(65)] {
        let refused = office.issue(ask(name), &san.path("b"), DAYS);
        assert!(matches!(refused, Err(CertificatesError::Name(_))), "{name}");
        assert!(!san.path("b").exists());
    }
}

#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let san = SanBox::new();
    let office = certificates(&san);
    office.init(DAYS).unwrap();
    let caller = Caller {
        role: Role::Controller,
        name: "c".to_owned(),
    };
    office.issue(caller, &san.path("out"), DAYS).unwrap();
    let mode = |name: &str| {
        let found = std::fs::metadata(san.path(name)).unwrap();
        found.permissions().mode() & 0o7777
    };
    for folder in ["state", "state/ca", "state/tls", "out"] {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in ["state/ca/ca.pem", "state/tls/tls.key", "out/tls.key"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

/// A command of the operator that may be cut off.
type Command = fn(&Certificates) -> Result<(), CertificatesError>;

/// Each command after those that must have been done before it.
const COMMANDS: [(&str, &[Command]); 4] = [
    ("init", &[INIT]),
    ("renew", &[INIT, RENEW]),
    ("rotate", &[INIT, ROTATE]),
    ("retire", &[INIT, ROTATE, RENEW, RETIRE]),
];
const INIT: Command = |it| it.init(DAYS).map(drop);
const RENEW: Command = |it| it.renew(DAYS).map(drop);
const ROTATE: Command = |it| it.rotate().map(drop);
const RETIRE: Command = |it| it.retire().map(drop);

/// Whether a command that was repeated has done what it is for, now or before it was cut off.
fn is_done(outcome: &Result<(), CertificatesError>) -> bool {
    use CertificatesError::{Made, NothingOld, Rotating};
    matches!(outcome, Ok(()) | Err(Made(_) | Rotating(2) | NothingOld))
}

#[test]
fn a_command_that_is_cut_off_at_any_step_is_repeated() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    for (name, commands) in COMMANDS {
        let mut cut_off = 0;
        for step in 0.. {
            let san = SanBox::new();
            let (last, before) = commands.split_last().unwrap();
            for command in before {
                command(&certificates(&san)).unwrap();
            }
            let count = AtomicU64::new(0);
            let crashing = san.host.with_hook(Arc::new(move |_| {
                assert!(count.fetch_add(1, Ordering::SeqCst) != step, "cut off");
            }));
            let office = Certificates::new(&crashing, &san.path("state"));
            let cut = catch_unwind(AssertUnwindSafe(|| last(&office)));
            // Whatever the moment: what the daemon has is whole.
            if let Ok(uuid) = certificates(&san).san_uuid() {
                let papers = Papers::of_san(&san.host, &san.path("state/tls"), uuid);
                papers.check().unwrap();
            }
            if cut.is_ok() {
                break;
            }
            cut_off += 1;
            let again = last(&certificates(&san));
            assert!(is_done(&again), "{name} after step {step}: {again:?}");
            let trusted = std::fs::read_to_string(san.path("state/tls/ca.crt")).unwrap();
            let count = trusted.matches("BEGIN").count();
            let wanted = if name == "rotate" { 2 } else { 1 };
            assert_eq!(count, wanted, "{name} after step {step}");
        }
        assert!(cut_off >= 1, "{name}");
    }
}
