//! The list of what is proven inside one guest.

mod adoption;
mod archive_beside;
mod archive_crashes;
mod archive_increments;
mod archive_refusals;
mod archive_scpaths;
mod archive_store;
mod archive_unseen;
mod archives;
mod array_equallogic;
mod array_logins;
mod arrays;
mod attach;
mod changed_blocks;
mod chaos;
mod config_lost;
mod conformance;
mod crash_loop;
mod csi_health;
mod csi_sanity;
mod demo;
mod detach_attach_races;
mod doctor;
mod doctor_breaks;
mod doctor_table;
mod expand;
mod faults_chap;
mod faults_detach;
mod faults_filesystem;
mod faults_identity;
mod faults_life;
mod faults_multipath;
mod faults_sessions;
mod faults_strangers;
mod fencing;
mod heal;
mod interfaces;
mod kit_boots;
mod linux_san;
mod lio_two_paths;
mod luks;
mod many_volumes;
mod metrics;
mod node_calls;
mod node_faults;
mod node_stats;
mod pile_up;
mod process_budget;
mod quick_start;
mod recovery;
mod san_alua;
mod san_chap;
mod san_crashes;
mod san_layouts;
mod san_lvm;
mod san_mtls;
mod san_pool_full;
mod san_power_cut;
mod san_snapshots;
mod san_stands_still;
mod sanhost;
mod snapshots;
mod static_volumes;
mod trace;
mod trim;
mod upgrades;

use crate::kit::case::Case;

/// What every run proves, in the order they run.
pub fn everyday() -> Vec<Case> {
    [
        kit_boots::CASES,
        lio_two_paths::CASES,
        linux_san::CASES,
        san_stands_still::CASES,
        conformance::CASES,
        fencing::CASES,
        san_chap::CASES,
        san_mtls::CASES,
        san_snapshots::CASES,
        snapshots::CASES,
        archives::CASES,
        archive_beside::CASES,
        archive_unseen::CASES,
        archive_store::CASES,
        archive_refusals::CASES,
        arrays::CASES,
        array_equallogic::CASES,
        attach::CASES,
        detach_attach_races::CASES,
        demo::CASES,
        node_calls::CASES,
        process_budget::CASES,
        node_faults::CASES,
        crash_loop::CASES,
        chaos::CASES,
        faults_sessions::CASES,
        faults_chap::CASES,
        faults_strangers::CASES,
        faults_identity::CASES,
        &faults_multipath::everyday(),
        faults_filesystem::CASES,
        faults_detach::CASES,
        heal::CASES,
        recovery::CASES,
        interfaces::CASES,
        expand::CASES,
        luks::CASES,
        node_stats::CASES,
        csi_health::CASES,
        static_volumes::CASES,
        adoption::CASES,
        changed_blocks::CASES,
        doctor_table::CASES,
        csi_sanity::CASES,
        many_volumes::CASES,
    ]
    .concat()
}

/// What only the long run proves (`LAB_SCALE` above 1), and whoever asks for it by name.
pub fn long() -> Vec<Case> {
    [
        archive_scpaths::LONG,
        archive_crashes::LONG,
        archive_refusals::LONG,
        archive_increments::LONG,
        csi_sanity::LONG,
        faults_sessions::LONG,
        faults_chap::LONG,
        faults_strangers::LONG,
        faults_identity::LONG,
        faults_life::LONG,
        &faults_multipath::long(),
        faults_filesystem::LONG,
        expand::LONG,
        heal::LONG,
        luks::LONG,
        recovery::LONG,
        san_layouts::LONG,
        san_alua::LONG,
        config_lost::LONG,
        trim::CASES,
        crash_loop::LONG,
        detach_attach_races::LONG,
        many_volumes::LONG,
        doctor::LONG,
        doctor_table::LONG,
        trace::LONG,
        metrics::LONG,
        pile_up::LONG,
        quick_start::LONG,
        upgrades::LONG,
        sanhost::LONG,
        conformance::LONG,
        san_lvm::LONG,
        snapshots::LONG,
        changed_blocks::LONG,
        san_pool_full::LONG,
        san_crashes::LONG,
        san_power_cut::LONG,
    ]
    .concat()
}

/// Whether a case runs with nothing beside it, since it measures time against a bound that is not ours. On a small machine another guest halves what it has.
pub fn is_alone(case: &Case) -> bool {
    let mut alone = many_volumes::CASES.iter().chain(many_volumes::LONG);
    alone.any(|other| other.name == case.name)
}

/// Every case.
pub fn all() -> Vec<Case> {
    [everyday(), long()].concat()
}
