//! The list of what is proven with several guests, and of the steps that these cases have their guests do.

mod links;
mod outage;

use crate::kit::case::Step;
use crate::kit::fleet::FleetCase;

/// Every fleet case, in the order they run.
pub fn all() -> Vec<FleetCase> {
    [links::CASES, outage::CASES].concat()
}

/// Every step that a fleet case asks a guest for by name.
pub fn steps() -> Vec<Step> {
    [links::STEPS, outage::STEPS].concat()
}
