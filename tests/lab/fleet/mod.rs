//! The list of what is proven with several guests, and of the steps that these cases have their guests do.

mod archives;
mod fencing;
mod links;
mod outage;
mod parts;
mod player;
mod reboots;

use crate::kit::case::Step;
use crate::kit::fleet::FleetCase;

/// What every run proves, in the order they run.
pub fn everyday() -> Vec<FleetCase> {
    [links::CASES, outage::CASES, player::CASES].concat()
}

/// What only the long run proves (`LAB_SCALE` above 1), and whoever asks for it by name.
pub fn long() -> Vec<FleetCase> {
    [reboots::CASES, fencing::CASES, archives::LONG, player::LONG].concat()
}

/// Every fleet case.
pub fn all() -> Vec<FleetCase> {
    [everyday(), long()].concat()
}

/// Every step that a fleet case asks a guest for by name.
pub fn steps() -> Vec<Step> {
    [
        links::STEPS,
        outage::STEPS,
        reboots::STEPS,
        fencing::STEPS,
        archives::STEPS,
        player::STEPS,
    ]
    .concat()
}
