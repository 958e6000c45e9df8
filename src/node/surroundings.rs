//! What this machine makes of a path list: which interface a key means and whether it is there, and where a name leads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::subnets::{Advice, Seen, advise, setting_names};
use crate::config::InterfaceSource;
use crate::fabric::{HostName, Interfaces, LocalView, Netdev, PathAddress, PathList};
use crate::fault::chain;
use crate::flights::{Flights, Listener, Look};
use crate::host::Host;

const NETDEVS: &str = "/sys/class/net";
const SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// A resolver that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = io::Result<Vec<IpAddr>>;

/// This machine's side of path lists. Cheap to clone; clones share what they learned.
#[derive(Clone)]
pub struct Surroundings {
    host: Host,
    source: InterfaceSource,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// A resolver may hang: whoever asks for the same name again joins.
    lookups: Flights<Answer>,
    /// What names meant when they were last resolved.
    known: Mutex<BTreeMap<HostName, Vec<IpAddr>>>,
    /// The names that the log knows to lead nowhere.
    lost: Mutex<BTreeSet<HostName>>,
    /// What the log has been told to set.
    told: Mutex<Vec<Advice>>,
}

impl Surroundings {
    /// The surroundings of `host`, whose interfaces are called as `source` has it.
    #[must_use]
    pub fn new(host: Host, source: InterfaceSource) -> Self {
        Self {
            host,
            source,
            shared: Arc::default(),
        }
    }

    /// What the machine makes of `list` now. Blocks for as long as names take to resolve, a few seconds at most.
    #[must_use]
    pub fn view(&self, list: &PathList) -> LocalView {
        let mut view = LocalView {
            names: self.resolve(list),
            ..LocalView::default()
        };
        match self.source.read(&self.host) {
            Ok(interfaces) => view.interfaces = interfaces,
            Err(error) => view.unreadable = Some(chain(&error)),
        }
        let netdevs: BTreeSet<&Netdev> = view.interfaces.iter().map(|(_, it)| it).collect();
        let absent = netdevs.into_iter().filter(|netdev| self.is_absent(netdev));
        view.absent = absent.cloned().collect();
        self.tell(self.advise(&view.interfaces));
        view
    }

    /// What is to be set on this machine so that the interfaces of `STORAGE_INTERFACES` do not get in each other's way.
    #[must_use]
    pub fn advice(&self) -> Vec<Advice> {
        let interfaces = self.source.read(&self.host).unwrap_or_default();
        self.advise(&interfaces)
    }

    /// Tells the log what of [`Self::advice`] it has not been told.
    pub fn tell_advice(&self) {
        self.tell(self.advice());
    }

    fn advise(&self, interfaces: &Interfaces) -> Vec<Advice> {
        let netdevs: BTreeSet<&Netdev> = interfaces.iter().map(|(_, it)| it).collect();
        if netdevs.len() < 2 {
            return Vec::new();
        }
        let addresses = self.host.addresses().unwrap_or_default();
        let seen = netdevs.into_iter().map(|netdev| {
            let own = addresses.iter().filter(|it| it.netdev == *netdev);
            Seen {
                netdev: netdev.clone(),
                addresses: own.map(|it| (it.address, it.bits)).collect(),
                settings: self.settings_of(netdev),
            }
        });
        advise(&seen.collect::<Vec<_>>())
    }

    fn settings_of(&self, netdev: &Netdev) -> BTreeMap<&'static str, u32> {
        let value = |of: &str, name: &str| -> Option<u32> {
            let path = Path::new(SETTINGS).join(of).join(name);
            self.host.find_attribute(&path).ok()??.parse().ok()
        };
        let effective = |name: &'static str| {
            let own = value(netdev.as_str(), name)?;
            Some((name, own.max(value("all", name)?)))
        };
        setting_names().filter_map(effective).collect()
    }

    /// Tells the log what is new of it, and that it is well again.
    fn tell(&self, advice: Vec<Advice>) {
        let mut told = locked(&self.shared.told);
        for new in advice.iter().filter(|new| !told.contains(new)) {
            tracing::warn!(advice = new.text, "interfaces on one subnet");
        }
        if advice.is_empty() && !told.is_empty() {
            tracing::info!("interfaces on one subnet are set as they should");
        }
        *told = advice;
    }

    /// Not knowing is no absence: the login will tell.
    fn is_absent(&self, netdev: &Netdev) -> bool {
        let path = Path::new(NETDEVS).join(netdev.as_str());
        matches!(self.host.find_stat(&path), Ok(None))
    }

    fn resolve(&self, list: &PathList) -> BTreeMap<HostName, Vec<IpAddr>> {
        let name_of = |address: &PathAddress| match address {
            PathAddress::Name(name, _) => Some(name.clone()),
            PathAddress::Portal(_) => None,
        };
        let names: BTreeSet<HostName> = list
            .listed()
            .iter()
            .filter_map(|path| name_of(&path.address))
            .collect();
        let lookups: Vec<_> = names
            .into_iter()
            .map(|name| (self.look_up(&name), name))
            .collect();
        let deadline = self.host.deadline_in(PATIENCE);
        // One that was waited for in vain already is not waited for again: each volume asks.
        let lost = locked(&self.shared.lost).clone();
        let ended = |(lookup, name): &(Option<Listener<Answer>>, HostName)| {
            let flying = lookup.as_ref().is_some_and(Listener::is_flying);
            let hangs = lookup.as_ref().is_some_and(|it| it.joined) && lost.contains(name);
            !flying || hangs
        };
        let all = || {
            let all = lookups.iter().all(ended);
            Ok::<_, std::convert::Infallible>(all.then_some(()))
        };
        let Ok(_) = self.host.wait_for(deadline, all);
        let settled = lookups.into_iter();
        settled
            .map(|(lookup, name)| (name.clone(), self.settle(lookup, name)))
            .collect()
    }

    fn look_up(&self, name: &HostName) -> Option<Listener<Answer>> {
        let (host, asked) = (self.host.clone(), name.clone());
        let work = move || host.resolve(&asked);
        let joined = self.shared.lookups.join(name.as_str(), work, || {});
        joined.ok()
    }

    /// What the name means; what it meant before when nobody says.
    fn settle(&self, lookup: Option<Listener<Answer>>, name: HostName) -> Vec<IpAddr> {
        let mut known = locked(&self.shared.known);
        let mut lost = locked(&self.shared.lost);
        let why = match lookup.map(|lookup| lookup.look()) {
            Some(Look::Ended(answer)) => match &*answer {
                Ok(found) => {
                    if lost.remove(&name) {
                        tracing::info!(%name, ?found, "the name is resolved again");
                    }
                    known.insert(name, found.clone());
                    return found.clone();
                }
                Err(error) => error.to_string(),
            },
            _ => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        let before = known.get(&name).cloned().unwrap_or_default();
        if !lost.contains(&name) {
            tracing::warn!(%name, why, ?before, "the name is not resolved; what it meant before goes on");
            lost.insert(name);
        }
        before
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Surroundings")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeWorld;

    const LIST: &str = "iface0:10.1.0.1,iface1:san,iface2:san:3261,san2";

    fn view(fake: &FakeWorld, source: InterfaceSource) -> LocalView {
        let surroundings = Surroundings::new(fake.host(), source);
        surroundings.view(&LIST.parse().unwrap())
    }

    fn value(text: &str) -> InterfaceSource {
        InterfaceSource::Value(text.to_owned())
    }

    #[test]
    fn interfaces_are_told_and_missing_ones_too() {
        let fake = FakeWorld::new();
        let view = view(&fake, value("iface0=eth0,iface1=eth0.100,iface2=eth9"));
        assert_eq!(view.interfaces.iter().count(), 3);
        let absent: Vec<&str> = view.absent.iter().map(Netdev::as_str).collect();
        assert_eq!(absent, ["eth0.100", "eth9"]);
        assert_eq!(view.unreadable, None);
    }

    #[test]
    fn a_broken_line_is_told_and_makes_no_interface() {
        let fake = FakeWorld::new();
        let path = Path::new("/etc/eucalyptus.conf");
        let source = InterfaceSource::File(path.to_owned());
        let absent = view(&fake, source.clone()).unreadable;
        assert!(absent.is_some_and(|told| told.contains("cannot be read")));
        fake.write_file(path, "STORAGE_INTERFACES=\"iface0\"\n");
        let broken = view(&fake, source.clone());
        assert_eq!(broken.interfaces.iter().count(), 0);
        let told = broken.unreadable.unwrap();
        assert!(told.contains("eucalyptus.conf line 1: element 1"), "{told}");
        // Read anew at each use.
        fake.write_file(path, "STORAGE_INTERFACES=\"iface0=eth0\"\n");
        assert_eq!(view(&fake, source).interfaces.iter().count(), 1);
    }

    #[test]
    fn interfaces_on_one_subnet_are_advised_upon_until_they_are_set() {
        let fake = FakeWorld::new();
        let surroundings = Surroundings::new(fake.host(), value("iface0=eth0,iface1=eth1"));
        let conf = |netdev: &str, name: &str, value: &str| {
            let path = Path::new(SETTINGS).join(netdev).join(name);
            fake.write_file(&path, value);
        };
        for (netdev, last) in [("eth0", 10), ("eth1", 11)] {
            fake.add_address(netdev, [192, 168, 1, last].into(), 24);
            for name in ["arp_ignore", "arp_announce", "rp_filter"] {
                conf(netdev, name, "0\n");
            }
        }
        for (name, value) in [
            ("arp_ignore", "1"),
            ("arp_announce", "0"),
            ("rp_filter", "1"),
        ] {
            conf("all", name, value);
        }
        let advice = surroundings.advice();
        let expected = "sysctl -w net.ipv4.conf.eth0.arp_announce=2 net.ipv4.conf.eth0.rp_filter=2 net.ipv4.conf.eth1.arp_announce=2 net.ipv4.conf.eth1.rp_filter=2 (";
        assert!(advice[0].text.contains(expected), "{advice:?}");
        conf("all", "arp_announce", "2");
        for netdev in ["eth0", "eth1"] {
            conf(netdev, "rp_filter", "2");
        }
        assert_eq!(surroundings.advice(), []);
    }

    #[test]
    fn names_are_resolved_and_one_that_hangs_holds_nobody_up() {
        let fake = FakeWorld::new();
        let host = fake.host();
        let surroundings = Surroundings::new(host.clone(), InterfaceSource::Unset);
        let list: PathList = LIST.parse().unwrap();
        let of = |view: &LocalView, name: &str| view.names[&name.parse().unwrap()].clone();
        let address: IpAddr = "10.1.0.1".parse().unwrap();
        fake.set_name("san", Some(&[address]));
        let first = surroundings.view(&list);
        assert_eq!(of(&first, "san"), [address]);
        assert_eq!(of(&first, "san2"), [] as [IpAddr; 0]);
        fake.hang_name("san");
        let begun = host.now();
        let hanging = surroundings.view(&list);
        assert!(host.now().since(begun) < Duration::from_secs(7));
        assert_eq!(of(&hanging, "san"), [address], "what it meant before");
        let begun = host.now();
        let again = surroundings.view(&list);
        assert_eq!(of(&again, "san"), [address]);
        let took = host.now().since(begun);
        assert!(
            took < Duration::from_secs(1),
            "waited for once more: {took:?}"
        );
        assert_eq!(
            surroundings.shared.lookups.count(),
            1,
            "who comes again joins"
        );
    }
}
