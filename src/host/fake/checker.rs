//! What multipathd's checker knows of paths: that one serves again it sees at its next look, and I/O goes over it from then on.

use super::multipathd::Multipathd;
use super::state::State;

impl Multipathd {
    /// Whether it keeps a path out of use that the kernel may well have.
    pub(super) fn shuns(&self, path: u64) -> bool {
        self.failed.contains(&path) || self.unseen.contains(&path)
    }
}

impl State {
    pub(super) fn path_works(&self, path: u64) -> bool {
        !self.multipathd.shuns(path) && self.disk_behind(path).is_ok()
    }

    /// The session is about to be back. A disk that was given up by then is a failed path until the checker looks again; one that only waited never was.
    pub(super) fn await_checker(&mut self, session: u32) {
        let lost = |sd: &u64| self.sds[sd].state == "transport-offline";
        let lost: Vec<u64> = self.disks_of(session).into_iter().filter(lost).collect();
        self.multipathd.unseen.extend(&lost);
        self.later(self.polling_interval(), move |state| {
            let unseen = &mut state.multipathd.unseen;
            lost.iter().for_each(|path| _ = unseen.remove(path));
            state.maps_changed();
            state.event();
        });
    }
}
