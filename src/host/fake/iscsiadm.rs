//! iscsiadm and iscsid: records as files, logins and logouts with the exit codes of open-iscsi (`include/iscsi_err.h`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::san::PortalState;
use super::sessions::Login;
use super::state::State;
use super::tools::{Work, ended};
use super::tree::Node;
use crate::fabric::{Chap, ChapUser, Iqn, Portal};
use crate::host::Output;

const RECORDS: &str = "/etc/iscsi/nodes";
pub(super) const INTERFACES: &str = "/etc/iscsi/ifaces";

/// The exit codes that the fake gives.
mod code {
    pub(super) const NO_SESSION: i32 = 2;
    pub(super) const NO_INTERFACE: i32 = 3;
    pub(super) const TRANSPORT: i32 = 4;
    pub(super) const RECORDS_BUSY: i32 = 6;
    pub(super) const INVALID: i32 = 7;
    pub(super) const TIMED_OUT: i32 = 8;
    pub(super) const SESSION_EXISTS: i32 = 15;
    pub(super) const FATAL_LOGIN: i32 = 19;
    pub(super) const NOTHING_FOUND: i32 = 21;
    pub(super) const AUTHENTICATION: i32 = 24;
}

/// One call, its options read.
#[derive(Clone, Debug, Default)]
struct Request {
    mode: String,
    target: Option<Iqn>,
    portal: Option<(Portal, Option<u16>)>,
    iface: Option<String>,
    operation: Option<String>,
    sid: Option<u32>,
    login: bool,
    logout: bool,
    rescan: bool,
    settings: Vec<(String, String)>,
}

impl Request {
    fn parse(arguments: &[&str]) -> Option<Self> {
        let mut request = Self::default();
        let mut name = None;
        let mut words = arguments.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied();
            match word {
                "-m" | "--mode" => request.mode = value()?.to_owned(),
                "-T" | "--targetname" => request.target = Some(value()?.parse().ok()?),
                "-p" | "--portal" => request.portal = Some(parse_portal(value()?)?),
                "-I" | "--interface" => request.iface = Some(value()?.to_owned()),
                "-o" | "--op" => request.operation = Some(value()?.to_owned()),
                "-n" | "--name" => name = Some(value()?.to_owned()),
                "-v" | "--value" => request.settings.push((name.take()?, value()?.to_owned())),
                "-r" | "--sid" => request.sid = Some(value()?.parse().ok()?),
                "-l" | "--login" => request.login = true,
                "-u" | "--logout" => request.logout = true,
                "-R" | "--rescan" => request.rescan = true,
                _ => return None,
            }
        }
        Some(request)
    }
}

/// `ip:port[,tpgt]`.
fn parse_portal(text: &str) -> Option<(Portal, Option<u16>)> {
    let (portal, tpgt) = match text.split_once(',') {
        Some((portal, tpgt)) => (portal, Some(tpgt.parse().ok()?)),
        None => (text, None),
    };
    Some((portal.parse().ok()?, tpgt))
}

/// One node record: where it stands and what it says.
#[derive(Clone, Debug)]
pub(super) struct Record {
    path: PathBuf,
    iqn: Iqn,
    portal: Portal,
    tpgt: u16,
    iface: String,
    settings: Settings,
}

type Settings = BTreeMap<String, String>;

impl Record {
    /// With a copy of what the interface record says.
    fn fresh(iqn: &Iqn, portal: Portal, tpgt: u16, iface: &str, binding: Settings) -> Self {
        let address = format!("{},{},{tpgt}", portal.address(), portal.port());
        let settings = [
            ("node.name", iqn.to_string()),
            ("node.tpgt", tpgt.to_string()),
            ("node.startup", "manual".into()),
            ("iface.iscsi_ifacename", iface.into()),
            ("node.session.scan", "auto".into()),
            ("node.session.auth.authmethod", "None".into()),
            ("node.session.initial_login_retry_max", "8".into()),
            ("node.session.timeo.replacement_timeout", "120".into()),
            ("node.conn[0].address", portal.address().to_string()),
            ("node.conn[0].port", portal.port().to_string()),
            ("node.conn[0].timeo.login_timeout", "15".into()),
            ("node.conn[0].startup", "manual".into()),
        ];
        Self {
            path: PathBuf::from(RECORDS)
                .join(iqn.as_str())
                .join(address)
                .join(iface),
            iqn: iqn.clone(),
            portal,
            tpgt,
            iface: iface.to_owned(),
            settings: settings
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .chain(binding)
                .collect(),
        }
    }

    pub(super) fn is_at(&self, iqn: &Iqn, portal: Portal) -> bool {
        self.iqn == *iqn && self.portal == portal
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::from("# BEGIN RECORD 2.1.11\n");
        for (name, value) in &self.settings {
            text.push_str(&format!("{name} = {value}\n"));
        }
        text + "# END RECORD\n"
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        let value = self.settings.get(name);
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or(default)
    }

    pub(super) fn is_automatic(&self) -> bool {
        self.settings
            .get("node.startup")
            .is_some_and(|value| value == "automatic")
    }

    pub(super) fn name(&self) -> String {
        format!("{} at {} by {}", self.iqn, self.portal, self.iface)
    }

    pub(super) fn login(&self) -> Login {
        let setting = |name: &str| self.settings.get(name).cloned();
        let user = |suffix: &str| {
            Some(ChapUser {
                name: setting(&format!("node.session.auth.username{suffix}"))?,
                secret: setting(&format!("node.session.auth.password{suffix}"))?.into(),
            })
        };
        let chap = setting("node.session.auth.authmethod").is_some_and(|value| value == "CHAP");
        let seconds = self.number("node.session.timeo.replacement_timeout", 120);
        Login {
            iqn: self.iqn.clone(),
            portal: self.portal,
            tpgt: self.tpgt,
            iface: setting("iface.iscsi_ifacename").unwrap_or_else(|| self.iface.clone()),
            netdev: setting("iface.net_ifacename"),
            initiator: setting("iface.initiatorname"),
            recovery: Duration::from_secs(seconds),
            scan_all: setting("node.session.scan").is_none_or(|value| value != "manual"),
            chap: user("").filter(|_| chap).map(|initiator| Chap {
                initiator,
                target: user("_in"),
            }),
        }
    }

    /// How long iscsid tries a portal that does not answer.
    fn patience(&self) -> Duration {
        let each = self.number("node.conn[0].timeo.login_timeout", 15);
        let times = self.number("node.session.initial_login_retry_max", 8);
        Duration::from_secs(each * times.max(1))
    }
}

/// How a call ends that did not get the lock.
pub(super) fn lock_not_taken() -> Output {
    ended(code::RECORDS_BUSY, "", "iscsiadm: Could not lock")
}

impl State {
    /// Every record in the database.
    pub(super) fn records(&self) -> Vec<Record> {
        let paths = self.tree.below(RECORDS.as_ref());
        let paths = paths.into_iter();
        paths.filter_map(|path| self.read_record(path)).collect()
    }

    fn read_record(&self, path: PathBuf) -> Option<Record> {
        let Node::File(_) = self.tree.find(&path)? else {
            return None;
        };
        let inner = path.strip_prefix(RECORDS).ok()?;
        let parts: Vec<&str> = inner.iter().filter_map(|part| part.to_str()).collect();
        let [iqn, place, iface] = parts.as_slice() else {
            return None;
        };
        let place: Vec<&str> = place.rsplitn(3, ',').collect();
        let [tpgt, port, address] = place.as_slice() else {
            return None;
        };
        let portal = Portal::new(address.parse().ok()?, port.parse().ok()?);
        let settings = self.read_settings(&path)?;
        Some(Record {
            iqn: iqn.parse().ok()?,
            portal,
            tpgt: tpgt.parse().ok()?,
            iface: (*iface).to_owned(),
            settings,
            path,
        })
    }

    fn read_settings(&self, path: &Path) -> Option<Settings> {
        let text = self.tree.text(path)?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let settings = lines.filter_map(|line| line.split_once(" = "));
        Some(
            settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// What an interface record says; nothing for the one that need not be there.
    fn interface(&self, name: &str) -> Option<Settings> {
        if name == "default" {
            return Some(Settings::new());
        }
        self.read_settings(&Path::new(INTERFACES).join(name))
    }

    fn matching(&self, request: &Request) -> Vec<Record> {
        let fits = |record: &Record| {
            let portal = request.portal.is_none_or(|(portal, tpgt)| {
                record.portal == portal && tpgt.is_none_or(|tpgt| record.tpgt == tpgt)
            });
            let iface = request
                .iface
                .as_ref()
                .is_none_or(|iface| *iface == record.iface);
            request.target.as_ref().is_none_or(|iqn| *iqn == record.iqn) && portal && iface
        };
        self.records().into_iter().filter(fits).collect()
    }

    /// The link's presence is the lock, whoever made it.
    pub(super) fn iscsi_is_locked(&self) -> bool {
        let lock = "/run/lock/iscsi/lock.write";
        self.tree.find(lock.as_ref()).is_some()
    }

    pub(super) fn iscsiadm(&mut self, arguments: &[&str]) -> Work {
        if arguments == ["--version"] {
            return Work::Done(ended(0, "iscsiadm version 2.1.11\n", ""));
        }
        let Some(request) = Request::parse(arguments) else {
            return Work::Done(ended(code::INVALID, "", "iscsiadm: invalid option"));
        };
        let sid = request.sid.and_then(|sid| self.sessions.get(&sid));
        let iface = request.iface.as_ref().or(sid.map(|session| &session.iface));
        if iface.is_some_and(|iface| self.interface(iface).is_none()) {
            let text = "iscsiadm: Could not read iface info";
            return Work::Done(ended(code::NO_INTERFACE, "", text));
        }
        match request.mode.as_str() {
            "node" if request.login => self.login(&request),
            "node" if request.logout => Work::Done(self.logout_node(&request)),
            "node" => Work::Done(self.node_operation(&request)),
            "session" => Work::Done(self.session_operation(&request)),
            _ => Work::Done(ended(code::INVALID, "", "iscsiadm: mode not known here")),
        }
    }

    fn node_operation(&mut self, request: &Request) -> Output {
        match request.operation.as_deref() {
            Some("new") => self.new_record(request),
            Some("update") => self.update_records(request),
            Some("delete") => self.delete_records(request),
            Some("show") | None => {
                let records = self.matching(request);
                if records.is_empty() {
                    return ended(code::NOTHING_FOUND, "", "iscsiadm: No records found");
                }
                let texts: Vec<String> = records.iter().map(Record::text).collect();
                ended(0, &texts.join(""), "")
            }
            Some(_) => ended(code::INVALID, "", "iscsiadm: unknown operation"),
        }
    }

    fn new_record(&mut self, request: &Request) -> Output {
        let (Some(iqn), Some((portal, tpgt))) = (&request.target, request.portal) else {
            return ended(code::INVALID, "", "iscsiadm: needs target and portal");
        };
        if tpgt.is_none() {
            self.violation("iscsiadm -o new without a tpgt makes an old-style record");
        }
        let iface = request.iface.as_deref().unwrap_or("default");
        let binding = self.interface(iface).unwrap_or_default();
        let record = Record::fresh(iqn, portal, tpgt.unwrap_or(1), iface, binding);
        self.tree.put_text(&record.path, record.text());
        ended(0, &format!("New iSCSI node {portal} {iqn} added\n"), "")
    }

    fn update_records(&mut self, request: &Request) -> Output {
        let records = self.matching(request);
        if records.is_empty() {
            return ended(code::NOTHING_FOUND, "", "iscsiadm: No records found");
        }
        let scans_always = self.iscsi_scans_always;
        let known = |name: &String| {
            let newer = scans_always && name == "node.session.scan";
            name.starts_with("node.") && !name.contains(' ') && !newer
        };
        if request.settings.is_empty() || !request.settings.iter().all(|(name, _)| known(name)) {
            return ended(code::INVALID, "", "iscsiadm: Invalid parameter");
        }
        if request
            .settings
            .iter()
            .any(|(name, _)| name.contains("password"))
        {
            self.violation("a CHAP secret was passed as an argument");
        }
        for mut record in records {
            record.settings.extend(request.settings.iter().cloned());
            self.tree.put_text(&record.path, record.text());
        }
        ended(0, "", "")
    }

    fn delete_records(&mut self, request: &Request) -> Output {
        let records = self.matching(request);
        if records.is_empty() {
            return ended(code::NOTHING_FOUND, "", "iscsiadm: No records found");
        }
        let mut result = 0;
        for record in records {
            if self.find_session(&record.login()).is_some() {
                result = code::SESSION_EXISTS;
                continue;
            }
            self.tree.clear(&record.path);
            for above in record.path.ancestors().skip(1).take(2) {
                // Stays while another record is in it.
                let _ = self.tree.remove_directory(above);
            }
        }
        ended(result, "", "")
    }

    // ---- sessions ----------------------------------------------------------------------------------------------------------------

    fn login(&mut self, request: &Request) -> Work {
        let records = self.matching(request);
        if records.is_empty() {
            return Work::Done(ended(code::NOTHING_FOUND, "", "iscsiadm: No records found"));
        }
        let silent = records.iter().filter(|record| {
            self.find_session(&record.login()).is_none()
                && matches!(
                    self.answer(record.portal, record.login().netdev.as_deref()),
                    PortalState::BlackHoled | PortalState::Mute | PortalState::Stalled
                )
        });
        let span = silent.map(Record::patience).max();
        let run = move |state: &mut State| {
            let codes: Vec<i32> = records.iter().map(|r| state.log_in(&r.login())).collect();
            let first = codes.into_iter().find(|&code| code != 0).unwrap_or(0);
            ended(
                first,
                "",
                if first == 0 {
                    ""
                } else {
                    "iscsiadm: Could not log into all portals"
                },
            )
        };
        match span {
            None => Work::Done(run(self)),
            Some(span) => Work::Busy {
                span,
                then: Box::new(run),
            },
        }
    }

    /// One login; its exit code.
    pub(super) fn log_in(&mut self, login: &Login) -> i32 {
        if self.find_session(login).is_some() {
            return code::SESSION_EXISTS;
        }
        match self.answer(login.portal, login.netdev.as_deref()) {
            PortalState::Refusing => return code::TRANSPORT,
            PortalState::BlackHoled | PortalState::Mute | PortalState::Stalled => {
                return code::TIMED_OUT;
            }
            PortalState::Up => {}
        }
        let Some(target) = self.san.targets.get_mut(&login.iqn) else {
            return code::FATAL_LOGIN;
        };
        if !target.portals.contains(&login.portal) {
            return code::FATAL_LOGIN;
        }
        let admitted = target.admits(login.portal, login.chap.as_ref());
        if admitted != (true, true) {
            *target.refused.entry(login.portal).or_default() += 1;
            let by_target = !admitted.0;
            return if by_target {
                code::AUTHENTICATION
            } else {
                code::FATAL_LOGIN
            };
        }
        self.open_session(login);
        0
    }

    fn logout_node(&mut self, request: &Request) -> Output {
        let records = self.matching(request);
        let sessions: Vec<u32> = records
            .iter()
            .filter_map(|r| self.find_session(&r.login()))
            .collect();
        if sessions.is_empty() {
            return ended(
                code::NOTHING_FOUND,
                "",
                "iscsiadm: No matching sessions found",
            );
        }
        for session in sessions {
            self.close_session(session);
        }
        ended(0, "", "")
    }

    fn session_operation(&mut self, request: &Request) -> Output {
        if let Some(sid) = request.sid {
            if !self.sessions.contains_key(&sid) {
                return ended(code::NO_SESSION, "", "iscsiadm: session not found");
            }
            if request.logout {
                self.close_session(sid);
            }
        }
        if request.rescan {
            self.violation("iscsiadm --rescan scans every LUN");
            let all: Vec<u32> = self.sessions.keys().copied().collect();
            for session in all
                .into_iter()
                .filter(|id| request.sid.is_none_or(|sid| sid == *id))
            {
                self.scan_all(session);
            }
        }
        if request.sid.is_some() || request.rescan {
            return ended(0, "", "");
        }
        if self.sessions.is_empty() {
            return ended(code::NOTHING_FOUND, "", "iscsiadm: No active sessions.");
        }
        let line = |s: &super::sessions::Session| {
            format!(
                "tcp: [{}] {},{} {} (non-flash)\n",
                s.id, s.portal, s.tpgt, s.iqn
            )
        };
        let lines: String = self.sessions.values().map(line).collect();
        ended(0, &lines, "")
    }
}
