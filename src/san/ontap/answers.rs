//! All readers of this family over one body.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::ask::Outcome;
use super::find;
use super::names::Kind;
use super::wire::{
    Aggregate, Credentials, Cut, FlexVol, Home, Igroup, Interface, Job, Lun, LunMap, Service,
    created_at, read,
};
use crate::san::http::{Reply, StatusCode};

const CALL: &str = "any";

/// Whether anything is made of it.
pub(in super::super) fn reads(bytes: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    let refused = Reply {
        status: StatusCode::BAD_REQUEST,
        headers: HeaderMap::new(),
        body: body.clone(),
    };
    let refused = Outcome::new(CALL, String::new(), refused);
    assert!(refused.done().is_err(), "whatever it says");
    let is_job = read::<Job>(CALL, "job", body.clone()).is_ok();
    let records = &body["records"];
    let found = luns(records) + others(records);
    is_job || found > 0
}

fn many<T: serde::de::DeserializeOwned>(records: &Value) -> Vec<T> {
    read(CALL, "records", records.clone()).unwrap_or_default()
}

fn luns(records: &Value) -> usize {
    let luns: Vec<Lun> = many(records);
    let igroups: Vec<Igroup> = many(records);
    for lun in &luns {
        for kind in [Kind::Volume, Kind::Snapshot] {
            if let Some(notes) = lun.notes(kind) {
                let _ = (notes.source(), notes.cut());
                let _ = find::volume(lun, notes, &igroups);
            }
        }
        let _ = (lun.wwid(), lun.created_at(), find::snapshot(lun));
    }
    luns.len()
}

fn others(records: &Value) -> usize {
    let igroups: Vec<Igroup> = many(records);
    for igroup in &igroups {
        let _ = find::nodes_of(igroup);
    }
    let cuts: Vec<Cut> = many(records);
    for cut in &cuts {
        let _ = created_at(CALL, &cut.create_time);
    }
    let credentials: Vec<Credentials> = many(records);
    for it in &credentials {
        let _ = it.is_mutual();
    }
    let mut found = igroups.len() + cuts.len() + credentials.len();
    found += many::<Home>(records).len() + many::<FlexVol>(records).len();
    found += many::<Aggregate>(records).len() + many::<LunMap>(records).len();
    found + many::<Service>(records).len() + many::<Interface>(records).len()
}
