//! Who may call what: one table, and the gate before the service that asks it. A call without a row is nobody's. The gate also keeps out what comes too late.

use std::convert::Infallible;
use std::future::ready;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

use super::Clock;
use crate::fault::{Fault, Faulted, status};
use crate::linux_san::Management;
use crate::linux_san_wire::refuse_late;
use crate::tls::{Caller, Role};

/// Everybody with a certificate.
const ALL: &[Role] = &Role::ALL;
/// Who looks at the whole SAN.
const LOOKS: &[Role] = &[Role::Controller, Role::Operator];
/// Who changes it.
const RULES: &[Role] = &[Role::Controller];

/// Who reads what is to be carried away.
const READS: &[Role] = &[Role::Controller, Role::Archiver];

/// Every call of `linux_san.proto`, and whose it is. An archiver is given its exports by the controller and only finds what it is to read.
const CALLS: [(&str, &[Role]); 19] = [
    ("Identify", ALL),
    ("GetCapacity", LOOKS),
    ("ListPortals", LOOKS),
    ("SetPortalGroup", &[Role::Operator]),
    ("CreateVolume", RULES),
    ("AdoptVolume", &[Role::Operator]),
    ("FindVolume", ALL),
    ("ListVolumes", LOOKS),
    ("CheckVolumes", LOOKS),
    ("ExpandVolume", RULES),
    ("DeleteVolume", RULES),
    ("CreateSnapshot", RULES),
    ("CreateGroupSnapshot", RULES),
    ("FindSnapshot", ALL),
    ("ListSnapshots", LOOKS),
    ("DeleteSnapshot", RULES),
    ("ListExtents", READS),
    ("ExportVolume", RULES),
    ("UnexportVolume", RULES),
];

/// A caller asked for what is not its own.
#[derive(Debug, thiserror::Error)]
#[error("{caller} may not call {call}: that is for {}", told(.roles))]
struct WrongRole {
    caller: Caller,
    call: String,
    roles: &'static [Role],
}

impl Faulted for WrongRole {
    fn fault(&self) -> Fault {
        Fault::Denied
    }
}

/// The connection says nothing of a caller.
#[derive(Debug, thiserror::Error)]
#[error("the caller has shown no certificate")]
struct Nobody;

impl Faulted for Nobody {
    fn fault(&self) -> Fault {
        Fault::Denied
    }
}

fn told(roles: &[Role]) -> String {
    if roles.is_empty() {
        return "nobody".to_owned();
    }
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    words.join(" or ")
}

fn roles(call: &str) -> &'static [Role] {
    let row = CALLS.iter().find(|(name, _)| *name == call);
    row.map_or(&[], |(_, roles)| *roles)
}

type Answer = BoxFuture<Response<Body>, Infallible>;

/// Lets a call pass to the service when its caller has the role for it and has not given it up.
#[derive(Clone)]
pub(super) struct Gate<S> {
    inner: S,
    management: Management,
    clock: Clock,
}

impl<S> Gate<S> {
    pub(super) fn new(inner: S, management: Management, clock: Clock) -> Self {
        Self {
            inner,
            management,
            clock,
        }
    }

    fn admit(&self, request: &Request<Body>) -> Result<(), Status> {
        self.check_role(request)?;
        let call = request.uri().path();
        refuse_late(request.headers(), self.clock.now_ms()).inspect_err(|refused| {
            tracing::warn!(call, reason = refused.message(), "a call is refused");
        })
    }

    fn check_role(&self, request: &Request<Body>) -> Result<(), Status> {
        if self.management == Management::Plaintext {
            return Ok(());
        }
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| status(&Nobody))?;
        let call = request.uri().path().rsplit('/').next().unwrap_or_default();
        let roles = roles(call);
        if roles.contains(&caller.role) {
            return Ok(());
        }
        let refused = WrongRole {
            caller: caller.clone(),
            call: call.to_owned(),
            roles,
        };
        tracing::warn!(caller = %caller, call, "a call is refused: the role is not for it");
        Err(status(&refused))
    }
}

impl<S: NamedService> NamedService for Gate<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Ok(()) => self.inner.call(request),
            Err(refused) => Box::pin(ready(Ok(refused.into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: &str = include_str!("../../../proto/linux_san.proto");

    fn calls_of_the_proto() -> Vec<&'static str> {
        let lines = PROTO
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "));
        lines.filter_map(|line| line.split('(').next()).collect()
    }

    #[test]
    fn every_call_has_its_row_and_every_row_is_a_call() {
        let calls = calls_of_the_proto();
        assert!(calls.len() >= CALLS.len());
        for call in &calls {
            let rows = CALLS.iter().filter(|(name, _)| name == call).count();
            assert_eq!(
                rows, 1,
                "{call} must have one row in CALLS: say who may call it"
            );
        }
        for (name, roles) in CALLS {
            assert!(calls.contains(&name), "{name} is no call");
            // What is announced to hosts before a link is worked on is for whoever works on it, and what is in the pool belongs to him.
            let is_the_operators = ["SetPortalGroup", "AdoptVolume"].contains(&name);
            assert_eq!(
                roles.contains(&Role::Controller),
                !is_the_operators,
                "{name}"
            );
        }
    }

    #[test]
    fn only_a_controller_changes_anything() {
        let changes = ["Create", "Expand", "Delete", "Export", "Unexport"];
        for call in calls_of_the_proto() {
            if changes.iter().any(|verb| call.starts_with(verb)) {
                assert_eq!(roles(call), [Role::Controller], "{call}");
            }
        }
        assert_eq!(roles("NotYetMade"), []);
    }
}
