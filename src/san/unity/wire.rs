//! What a Unity answers, as it sends it (Unisphere Management REST API, OE 4.x and 5.x).
//!
//! An answer is a list (`entries[].content`, with links to the next page), one thing (`content`), an `error`, or nothing at all. Only what we use is named; all
//! else is passed over. What a kind of thing may lack in a recorded answer is optional here, and whoever needs it refuses the answer then.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::error::Cause;

/// A thing by its id alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) id: String,
}

/// A LUN, the ordinary ones and the thin clones. In what changes it, it is called a storage resource of the same id.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Lun {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) wwn: String,
    /// In bytes.
    pub(super) size_total: u64,
    /// In bytes; of a thin one only what was written.
    pub(super) size_allocated: u64,
    #[serde(default)]
    pub(super) is_thin_enabled: bool,
    #[serde(default)]
    pub(super) is_thin_clone: bool,
    #[serde(default)]
    pub(super) host_access: Vec<HostAccess>,
    pub(super) health: Health,
}

/// A policy that limits I/O.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IoLimitPolicy {
    pub(super) id: String,
    pub(super) name: String,
}

/// What a host may do with a LUN.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostAccess {
    pub(super) host: Reference,
    /// 0 nothing, 1 the LUN, 2 its snapshots, 3 both, 0xffff mixed.
    pub(super) access_mask: u32,
}

/// How well something is: 5 well, 7 well but, 10 degraded, 15 minor, 20 major, 25 critical, 30 beyond repair; 0 not known.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    pub(super) value: u32,
    #[serde(default)]
    pub(super) description_ids: Vec<String>,
    #[serde(default)]
    pub(super) descriptions: Vec<String>,
}

/// A snapshot, of a LUN or of something else.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snap {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    /// 2 ready, 3 faulted, 6 offline, 7 invalid, 8 becoming, 9 going.
    pub(super) state: u32,
    pub(super) creation_time: String,
    /// In bytes.
    pub(super) size: Option<u64>,
    pub(super) lun: Option<Reference>,
}

/// A host: a node as the array knows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Host {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) iscsi_host_initiators: Vec<NamedInitiator>,
}

/// An initiator as its host shows it; its name only where it was asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamedInitiator {
    pub(super) initiator_id: Option<String>,
}

/// An initiator.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostInitiator {
    pub(super) id: String,
    pub(super) initiator_id: String,
    pub(super) parent_host: Option<Reference>,
}

/// A LUN as a host sees it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct HostLun {
    /// 1 the LUN itself, 2 a snapshot of it.
    #[serde(rename = "type")]
    pub(super) kind: u32,
    pub(super) hlu: u16,
    pub(super) host: Reference,
    pub(super) lun: Option<Reference>,
}

/// An address where a port listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IscsiPortal {
    pub(super) ip_address: String,
    pub(super) iscsi_node: IscsiNode,
    pub(super) ethernet_port: Reference,
}

/// The target of one port; its name only where it was asked for.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct IscsiNode {
    pub(super) name: Option<String>,
}

/// A pool.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pool {
    pub(super) id: String,
    pub(super) name: String,
    /// In bytes.
    pub(super) size_free: u64,
}

/// The array.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct System {
    pub(super) serial_number: String,
}

/// A bound of the array's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SystemLimit {
    pub(super) limit_value: u64,
}

/// What was made, where the answer names it in place.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Made {
    pub(super) id: String,
}

/// What was made, where the answer names it as a storage resource.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MadeResource {
    pub(super) storage_resource: Reference,
}

/// What goes on behind an answer 202.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Job {
    pub(super) id: String,
    /// 1 queued, 2 running, 3 suspended, 4 completed, 5 failed, 6 rolling back, 7 completed with errors.
    pub(super) state: u32,
}

/// No, and why.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusal {
    pub(super) error_code: u64,
    pub(super) http_status_code: u16,
    #[serde(default)]
    messages: Vec<Map<String, Value>>,
}

impl Refusal {
    /// The array's own words, in English if it has any.
    pub(super) fn text(&self) -> String {
        let english = |message: &Map<String, Value>| {
            let text = message.get("en-US").or_else(|| message.values().next())?;
            text.as_str().map(str::to_owned)
        };
        let texts: Vec<String> = self.messages.iter().filter_map(english).collect();
        if texts.is_empty() {
            format!("error {:#x}", self.error_code)
        } else {
            texts.join("; ")
        }
    }
}

/// A part of a list.
#[derive(Clone, Debug)]
pub(super) struct Listed<T> {
    pub(super) things: Vec<T>,
    /// The number of the next page, if there is one.
    pub(super) next: Option<u32>,
}

#[derive(Deserialize)]
struct Entries<T> {
    entries: Vec<Content<T>>,
    #[serde(default)]
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Content<T> {
    content: T,
}

#[derive(Deserialize)]
struct Link {
    rel: String,
    href: String,
}

#[derive(Deserialize)]
struct Refused {
    error: Refusal,
}

/// The answer is of another shape than was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Shape {
    /// It says no, though its status says yes.
    #[error("it carries an error: {}", .0.text())]
    Refusal(Refusal),
    /// It says no in a way that we cannot read.
    #[error("it carries an error that cannot be read")]
    Garbled,
    /// The link to the next page has no number.
    #[error("the link to the next page, {0:?}, has no page=NUMBER")]
    Link(String),
}

/// The refusal that `body` carries, if it does.
pub(super) fn refusal(body: &Value) -> Option<Refusal> {
    let refused = Refused::deserialize(body).ok();
    refused.map(|refused| refused.error)
}

/// The one thing that the answer shows.
pub(super) fn thing<T: DeserializeOwned>(body: &Value) -> Result<T, Cause> {
    let content: Content<T> = read(body)?;
    Ok(content.content)
}

/// The part of a list that the answer shows.
pub(super) fn list<T: DeserializeOwned>(body: &Value) -> Result<Listed<T>, Cause> {
    let read: Entries<T> = read(body)?;
    let next = read.links.iter().find(|link| link.rel == "next");
    Ok(Listed {
        things: read.entries.into_iter().map(|it| it.content).collect(),
        next: next.map(page_number).transpose()?,
    })
}

/// What goes on behind the answer.
pub(super) fn job(body: &Value) -> Result<Job, Cause> {
    read(body)
}

/// A refusal is never read as anything else, whatever stands beside it.
fn read<T: DeserializeOwned>(body: &Value) -> Result<T, Cause> {
    if let Some(refusal) = refusal(body) {
        return Err(Shape::Refusal(refusal).into());
    }
    if body.get("error").is_some() {
        return Err(Shape::Garbled.into());
    }
    Ok(T::deserialize(body)?)
}

fn page_number(link: &Link) -> Result<u32, Cause> {
    let mut pairs = link.href.split(['?', '&']);
    let number = pairs.find_map(|pair| pair.strip_prefix("page="));
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| Shape::Link(link.href.clone()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_leads_to_its_next_page() {
        let pool = json!({"content": {"id": "pool_1", "name": "p", "sizeFree": 7}});
        let links =
            |next: &str| json!([{"rel": "self", "href": "&page=1"}, {"rel": "next", "href": next}]);
        let next = |href: &str| list::<Pool>(&json!({"links": links(href), "entries": [pool]}));
        let listed = next("&page=2").unwrap();
        assert_eq!((listed.next, listed.things[0].size_free), (Some(2), 7));
        assert_eq!(next("?page=3&per_page=2").unwrap().next, Some(3));
        assert!(next("/").is_err());
        let last: Listed<Pool> = list(&json!({"entries": []})).unwrap();
        assert_eq!((last.next, last.things.len()), (None, 0));
    }

    #[test]
    fn a_refusal_is_never_a_thing() {
        let mut both = json!({
            "error": {"errorCode": 131_149_829, "httpStatusCode": 404, "messages": [{"en-US": "Gone."}]},
            "content": {"id": "pool_1", "name": "p", "sizeFree": 7},
            "entries": [],
        });
        let refused = thing::<Pool>(&both).unwrap_err().to_string();
        assert_eq!(refused, "it carries an error: Gone.");
        assert!(list::<Pool>(&both).is_err());
        assert_eq!(refusal(&both).unwrap().error_code, 0x7d1_3005);
        both["error"] = Value::Null;
        assert!(thing::<Pool>(&both).is_err());
        assert!(thing::<Pool>(&json!({"content": {}})).is_err());
        assert!(thing::<Pool>(&Value::Null).is_err());
    }
}
