//! What initiators prove their logins with (CHAP), which ONTAP keeps for each initiator of an SVM.
//!
//! A password cannot be read back. So it is remembered here what was set for whom, as a hash under a key that this process alone has: a Secret
//! that was replaced is set at the next publication, one that is the same costs a look, and after a start each initiator is set once more. The look
//! itself finds what somebody else changed or took away, but for a password alone.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::super::Until;
use super::super::error::SanError;
use super::super::http::{Method, Request, encoded};
use super::super::logins::NodeLogins;
use super::wire::{Credentials, Igroup};
use super::{Ontap, codes};
use crate::fabric::{Chap, ChapUser, Iqn};
use crate::fault::Fault;

/// Another controller may set or remove the same at the same time: so often it is looked at again.
const TRIES: usize = 3;
const COLLECTION: &str = "protocols/san/iscsi/credentials";
const CALL: &str = "set CHAP of an initiator";

/// ONTAP would take it for the bytes that it spells, and the node for its letters.
#[derive(Debug, thiserror::Error)]
#[error(
    "the CHAP secret of {0} is 0x and hexadecimal digits, which ONTAP reads as a number; use another"
)]
struct Hexadecimal(String);

/// What is known of the nodes' logins.
pub(super) struct Logins {
    nodes: Option<NodeLogins>,
    key: RandomState,
    set: Mutex<BTreeMap<Iqn, u64>>,
}

impl Logins {
    /// Without `nodes` the array's administrator sees to logins, and nothing here is touched.
    pub(super) fn new(nodes: Option<NodeLogins>) -> Self {
        Self {
            nodes,
            key: RandomState::new(),
            set: Mutex::default(),
        }
    }

    /// What this initiator is to prove; `None` where that is not our affair.
    pub(super) fn of(&self, initiator: &Iqn) -> Result<Option<Chap>, SanError> {
        let Some(nodes) = &self.nodes else {
            return Ok(None);
        };
        let chap = nodes.read(initiator)?;
        let unfit = users(&chap).find(|user| is_hexadecimal(user.secret.expose()));
        if let Some(user) = unfit {
            let unfit = Hexadecimal(user.name.clone());
            return Err(SanError::Logins(unfit.into()));
        }
        Ok(Some(chap))
    }

    fn has_set(&self, initiator: &Iqn, chap: &Chap) -> bool {
        self.set().get(initiator) == Some(&self.hash(chap))
    }

    fn note(&self, initiator: &Iqn, chap: &Chap) {
        let hash = self.hash(chap);
        self.set().insert(initiator.clone(), hash);
    }

    fn hash(&self, chap: &Chap) -> u64 {
        let texts: Vec<(&str, &str)> = users(chap)
            .map(|user| (&*user.name, user.secret.expose()))
            .collect();
        self.key.hash_one(texts)
    }

    fn set(&self) -> MutexGuard<'_, BTreeMap<Iqn, u64>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ontap {
    /// The array asks the initiator for this at its next login, and proves itself with the other half. Sessions that are up go on.
    pub(super) async fn ensure_chap(
        &self,
        initiator: &Iqn,
        chap: &Chap,
        until: Until,
    ) -> Result<(), SanError> {
        for _ in 0..TRIES {
            let found = self.find_credentials(initiator, until).await?;
            let done = match found {
                None => self.post_chap(initiator, chap, until).await?,
                Some(found) if found.authentication_type == "deny" => {
                    return Err(self.denied(initiator));
                }
                Some(found) if found.fits(chap) && self.logins.has_set(initiator, chap) => {
                    return Ok(());
                }
                // How one half is taken away is not documented; the whole can be, and is made anew in the next round.
                Some(found) if found.is_mutual() && chap.target.is_none() => {
                    self.delete_credentials(&found, until).await?;
                    false
                }
                Some(found) => self.patch_chap(&found, chap, until).await?,
            };
            if done {
                self.logins.note(initiator, chap);
                return Ok(());
            }
        }
        Err(SanError::Refused {
            address: self.svm.clone(),
            call: CALL,
            fault: Fault::Busy,
            reason: format!("somebody else changes that of {initiator} at the same time"),
        })
    }

    /// An initiator that is in no igroup any more needs none. Once it is gone the array looks at its default, which is the administrator's.
    pub(super) async fn remove_chap(&self, initiator: &Iqn, until: Until) -> Result<(), SanError> {
        if self.logins.nodes.is_none() || self.is_in_an_igroup(initiator, until).await? {
            return Ok(());
        }
        let found = self.find_credentials(initiator, until).await?;
        let Some(found) = found.filter(|found| found.authentication_type == "chap") else {
            return Ok(());
        };
        self.delete_credentials(&found, until).await?;
        self.logins.set().remove(initiator);
        // Another controller may have let it in meanwhile, and have found them before they went.
        if self.is_in_an_igroup(initiator, until).await?
            && let Some(chap) = self.logins.of(initiator)?
        {
            self.ensure_chap(initiator, &chap, until).await?;
        }
        Ok(())
    }

    async fn find_credentials(
        &self,
        initiator: &Iqn,
        until: Until,
    ) -> Result<Option<Credentials>, SanError> {
        let fields = "authentication_type,chap,svm.uuid,initiator";
        let pairs = [("initiator", initiator.as_str()), ("fields", fields)];
        let target = self.target(COLLECTION, &pairs);
        let found: Vec<Credentials> = self.records("find CHAP", until, &target).await?;
        let mut found = found.into_iter();
        Ok(found.find(|it| it.initiator.eq_ignore_ascii_case(initiator.as_str())))
    }

    /// Whether it was done; else somebody else was first.
    async fn post_chap(
        &self,
        initiator: &Iqn,
        chap: &Chap,
        until: Until,
    ) -> Result<bool, SanError> {
        let request = || {
            let mut body = body_of(chap);
            body["svm"] = json!({"name": self.svm});
            body["initiator"] = json!(initiator.as_str());
            Request::new(Method::POST, format!("/api/{COLLECTION}")).with_body(body)
        };
        let made = self.change(CALL, until, request).await?;
        let made = made.but(&[codes::CHAP_EXISTS]);
        Ok(made.map_err(|error| without(chap, error))?.is_some())
    }

    /// Whether it was done; else it is gone.
    async fn patch_chap(
        &self,
        found: &Credentials,
        chap: &Chap,
        until: Until,
    ) -> Result<bool, SanError> {
        let request = || Request::new(Method::PATCH, target_of(found)).with_body(body_of(chap));
        let changed = self.change(CALL, until, request).await?;
        let changed = changed.but(&[codes::NO_CHAP, 4]);
        Ok(changed.map_err(|error| without(chap, error))?.is_some())
    }

    async fn delete_credentials(&self, found: &Credentials, until: Until) -> Result<(), SanError> {
        let request = || Request::new(Method::DELETE, target_of(found));
        let removed = self.change("remove CHAP", until, request).await?;
        removed.but(&[codes::NO_CHAP, 4]).map(drop)
    }

    /// One of anybody's.
    async fn is_in_an_igroup(&self, initiator: &Iqn, until: Until) -> Result<bool, SanError> {
        let pairs = [
            ("initiators.name", initiator.as_str()),
            ("fields", "uuid,name"),
        ];
        let target = self.target("protocols/san/igroups", &pairs);
        let found: Vec<Igroup> = self.records("find igroups", until, &target).await?;
        Ok(!found.is_empty())
    }

    /// The administrator's word against this initiator stands.
    fn denied(&self, initiator: &Iqn) -> SanError {
        SanError::Refused {
            address: self.svm.clone(),
            call: CALL,
            fault: Fault::Precondition,
            reason: format!(
                "the SVM denies {initiator} every login; take that back with vserver iscsi security delete if the node is to have the volume"
            ),
        }
    }
}

fn target_of(found: &Credentials) -> String {
    let (svm, initiator) = (encoded(&found.svm.uuid), encoded(&found.initiator));
    format!("/api/{COLLECTION}/{svm}/{initiator}")
}

fn body_of(chap: &Chap) -> Value {
    let side = |user: &ChapUser| json!({"user": user.name, "password": user.secret.expose()});
    let mut body = json!({
        "authentication_type": "chap",
        "chap": {"inbound": side(&chap.initiator)},
    });
    if let Some(target) = &chap.target {
        body["chap"]["outbound"] = side(target);
    }
    body
}

fn users(chap: &Chap) -> impl Iterator<Item = &ChapUser> {
    [&chap.initiator].into_iter().chain(&chap.target)
}

fn is_hexadecimal(secret: &str) -> bool {
    let digits = secret
        .strip_prefix("0x")
        .or_else(|| secret.strip_prefix("0X"));
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The array's words, should they repeat what was sent.
fn without(chap: &Chap, error: SanError) -> SanError {
    match error {
        SanError::Refused {
            address,
            call,
            fault,
            mut reason,
        } => {
            for user in users(chap) {
                reason = reason.replace(user.secret.expose(), "[redacted]");
            }
            SanError::Refused {
                address,
                call,
                fault,
                reason,
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chap(secret: &str, target: Option<&str>) -> Chap {
        let user = |name: &str, secret: &str| {
            ChapUser::new(name.to_owned(), secret.to_owned().into()).unwrap()
        };
        Chap {
            initiator: user("nodes", secret),
            target: target.map(|secret| user("array", secret)),
        }
    }

    #[test]
    fn what_was_set_is_known_by_name_and_secret_of_both_sides() {
        let logins = Logins::new(None);
        let iqn: Iqn = "iqn.2026-11.dev.sanpath:node1".parse().unwrap();
        let (one, both) = (
            "hunter2-hunter2",
            chap("hunter2-hunter2", Some("hunter2-array")),
        );
        logins.note(&iqn, &both);
        assert!(logins.has_set(&iqn, &both));
        for other in [chap(one, None), chap("hunter2-array", Some(one))] {
            assert!(!logins.has_set(&iqn, &other));
        }
        let other: Iqn = "iqn.2026-11.dev.sanpath:node2".parse().unwrap();
        assert!(!logins.has_set(&other, &both));
    }

    #[test]
    fn a_secret_that_ontap_reads_as_a_number_is_told_apart() {
        for number in ["0x0123456789ab", "0Xabcdef012345"] {
            assert!(is_hexadecimal(number), "{number}");
        }
        for text in ["0123456789ab", "0x0123456789ag", "x0123456789ab"] {
            assert!(!is_hexadecimal(text), "{text}");
        }
    }

    #[test]
    fn an_array_that_repeats_a_secret_is_not_quoted() {
        let both = chap("hunter2-hunter2", Some("hunter2-array"));
        let told = without(
            &both,
            SanError::Refused {
                address: "a".to_owned(),
                call: CALL,
                fault: Fault::Precondition,
                reason: "neither hunter2-hunter2 nor hunter2-array will do".to_owned(),
            },
        );
        let told = format!("{told} {told:?}");
        assert!(told.contains("neither [redacted] nor [redacted]"), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
