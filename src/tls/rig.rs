//! Authorities and papers in a temporary folder, for tests of both ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::{
    Authority, Bearer, CA_FILE, CERTIFICATE_FILE, Caller, KEY_FILE, Lifetime, Papers, Role,
};
use crate::host::Host;

const DAY: Duration = Duration::from_hours(24);

/// The SAN of most tests.
pub(crate) const SAN: Uuid = Uuid::from_u128(0x6ba7_b810_9dad_41d1_80b4_00c0_4fd4_30c8);

/// A folder with papers.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
    pub(crate) host: Host,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            host: Host::real(Path::new("/")),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.host.wall_clock()
    }

    /// An authority, as old as some papers of the tests.
    pub(crate) fn authority(&self) -> Authority {
        Authority::make(self.now() - 20 * DAY).unwrap()
    }

    /// Papers for `bearer` from `authority`, in the folder `name`, trusting all of `trusted`.
    pub(crate) fn put(
        &self,
        name: &str,
        bearer: &Bearer,
        authority: &Authority,
        trusted: &[&Authority],
    ) -> PathBuf {
        let made = authority
            .certify(bearer, self.now(), Lifetime::days(90))
            .unwrap();
        let trusted: String = trusted
            .iter()
            .map(|authority| authority.pem.as_str())
            .collect();
        self.put_files(name, [&trusted, &made.certificate, &made.key])
    }

    /// Papers that ended five days ago.
    pub(crate) fn put_ended(&self, name: &str, bearer: &Bearer, authority: &Authority) -> PathBuf {
        let then = self.now() - 10 * DAY;
        let made = authority.certify(bearer, then, Lifetime::days(5)).unwrap();
        self.put_files(name, [&authority.pem, &made.certificate, &made.key])
    }

    pub(crate) fn put_files(&self, name: &str, [trusted, certificate, key]: [&str; 3]) -> PathBuf {
        let folder = self.dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in [
            (CA_FILE, trusted),
            (KEY_FILE, key),
            (CERTIFICATE_FILE, certificate),
        ] {
            std::fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    /// Papers of the SAN, trusting its own authority.
    pub(crate) fn san(&self, authority: &Authority) -> Papers {
        let folder = self.put("san", &Bearer::San(SAN), authority, &[authority]);
        Papers::of_san(&self.host, &folder, SAN)
    }

    /// Papers of a caller, trusting its own authority.
    pub(crate) fn caller(&self, role: Role, authority: &Authority) -> Papers {
        let folder = self.put(role.as_str(), &caller(role), authority, &[authority]);
        Papers::of_caller(&self.host, &folder)
    }
}

/// Somebody of this role.
pub(crate) fn caller(role: Role) -> Bearer {
    Bearer::Caller(Caller {
        role,
        name: format!("the-{role}"),
    })
}
