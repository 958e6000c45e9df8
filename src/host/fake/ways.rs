//! What only those who look at a host ask: how long packets may be on their way, the clock, what multipathd's configuration says beside what it does.

use std::net::Ipv4Addr;

use super::FakeWorld;

impl FakeWorld {
    /// The way to an address takes packets of so many bytes at most.
    pub fn set_width(&self, address: Ipv4Addr, bytes: u16) {
        self.state().widths.insert(address, bytes);
    }

    /// Somebody keeps the clock right, or nobody does.
    pub fn set_clock_kept(&self, is_kept: bool) {
        self.state().clock_is_loose = !is_kept;
    }

    /// multipathd's configuration says this, too, in the form that it prints.
    pub fn set_multipath_words(&self, sections: &str) {
        sections.clone_into(&mut self.state().multipath_words);
    }
}
