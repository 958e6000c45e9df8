//! The CHAP settings of a node record, and those that a session was logged in with.

use std::path::Path;

use super::database::Setting;
use super::session::SESSIONS;
use crate::fabric::{Chap, ChapUser, Secret};
use crate::host::Host;

/// What a record says for a login that is proven with `chap`.
pub(super) fn settings_of(chap: Option<&Chap>) -> [Setting<'_>; 5] {
    let (name, secret) = values_of(chap.map(|chap| &chap.initiator));
    let (name_in, secret_in) = values_of(chap.and_then(|chap| chap.target.as_ref()));
    let method = if chap.is_some() { "CHAP" } else { "None" };
    [
        ("node.session.auth.authmethod", Some(method)),
        ("node.session.auth.username", name),
        ("node.session.auth.password", secret),
        ("node.session.auth.username_in", name_in),
        ("node.session.auth.password_in", secret_in),
    ]
}

fn values_of(user: Option<&ChapUser>) -> (Option<&str>, Option<&str>) {
    let name = user.map(|user| user.name.as_str());
    (name, user.map(|user| user.secret.expose()))
}

/// Whether session `sid` was logged in with something else than `chap`. The kernel tells what iscsid gave it; false when it does not.
pub(super) fn holds_other(host: &Host, sid: u32, chap: Option<&Chap>) -> bool {
    let session = Path::new(SESSIONS).join(format!("session{sid}"));
    let held = |attribute: &str| {
        let text = host.find_attribute(&session.join(attribute)).ok()??;
        Some(Secret::from(text))
    };
    let differs = |attribute: &str, wanted: Option<&str>| {
        held(attribute).is_some_and(|held| {
            let held = Some(held.expose()).filter(|text| !is_nothing(text));
            held != wanted
        })
    };
    let (name, secret) = values_of(chap.map(|chap| &chap.initiator));
    let (name_in, secret_in) = values_of(chap.and_then(|chap| chap.target.as_ref()));
    differs("username", name)
        || differs("password", secret)
        || differs("username_in", name_in)
        || differs("password_in", secret_in)
}

/// The kernel prints what it was never told as `(null)` or `<NULL>`.
pub(super) fn is_nothing(text: &str) -> bool {
    text.is_empty() || text == "(null)" || text == "<NULL>"
}
