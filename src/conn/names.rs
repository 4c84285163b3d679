//! Addresses of host names: who wants them, who has asked, how long they are good for.
//!
//! The look-up itself is the shell's (`Output::Resolve`). There is one at a time for a name,
//! however many wait for it. Failures are told to those who wait and then forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use crate::limits::NAMES_MAX;
use crate::ports::{Output, Ports};
use crate::time::Instant;

/// At least one address, in the resolver's order of preference.
pub type Addresses = Rc<[IpAddr]>;

/// A cache of look-ups; `W` is what the user of it calls those who wait.
pub struct Names<W> {
    entries: BTreeMap<Rc<str>, Entry<W>>,
}

enum Entry<W> {
    /// The look-up is under way. All who waited may have given up meanwhile.
    Asked(BTreeSet<W>),
    Known {
        addresses: Addresses,
        until: Instant,
    },
}

impl<W> Default for Names<W> {
    fn default() -> Self {
        Names { entries: BTreeMap::new() }
    }
}

impl<W: Ord> Names<W> {
    /// The addresses of a host, if they are known: those of an address literal always are.
    /// Else `waiter` is one of those that `resolved` returns.
    pub fn ask(
        &mut self,
        now: Instant,
        host: &str,
        waiter: W,
        ports: &mut Ports,
    ) -> Option<Addresses> {
        match self.entries.get_mut(host) {
            Some(Entry::Known { addresses, until }) if now < *until => {
                return Some(addresses.clone());
            }
            Some(Entry::Asked(waiters)) => {
                waiters.insert(waiter);
                return None;
            }
            Some(Entry::Known { .. }) | None => {}
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Rc::new([address]));
        }
        let host: Rc<str> = host.into();
        ports.ask(Output::Resolve(host.clone()));
        self.entries.insert(host, Entry::Asked(BTreeSet::from([waiter])));
        self.trim();
        None
    }

    /// A look-up has ended: who waited for it, and the addresses or why there are none. They are
    /// remembered until `until`. Answers to nobody's question are ignored.
    pub fn resolved(
        &mut self,
        host: &str,
        result: Result<&[IpAddr], &str>,
        until: Instant,
    ) -> (BTreeSet<W>, Result<Addresses, String>) {
        let result = match result {
            Ok([]) => Err("the name has no address".to_owned()),
            Ok(addresses) => Ok(Rc::from(addresses)),
            Err(why) => Err(why.to_owned()),
        };
        let Some(Entry::Asked(waiters)) = self.entries.get_mut(host) else {
            return (BTreeSet::new(), result);
        };
        let waiters = std::mem::take(waiters);
        if let Ok(addresses) = &result {
            let known = Entry::Known { addresses: addresses.clone(), until };
            self.entries.insert(host.into(), known);
        } else {
            self.entries.remove(host);
        }
        (waiters, result)
    }

    /// One of those who wait for a host has given up.
    pub fn forget(&mut self, host: &str, waiter: &W) {
        if let Some(Entry::Asked(waiters)) = self.entries.get_mut(host) {
            waiters.remove(waiter);
        }
    }

    /// Whether `waiter` waits for this host.
    pub fn is_awaited(&self, host: &str, waiter: &W) -> bool {
        matches!(self.entries.get(host), Some(Entry::Asked(waiters)) if waiters.contains(waiter))
    }

    /// Forgets what is known where there is too much of it: configurations that replaced each
    /// other have left it.
    fn trim(&mut self) {
        if self.entries.len() > NAMES_MAX {
            self.entries.retain(|_, entry| matches!(entry, Entry::Asked(_)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn asked(ports: &mut Ports) -> Option<String> {
        ports.poll().map(|output| match output {
            Output::Resolve(host) => host.to_string(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn one_look_up_serves_all_and_lasts_its_time() {
        let (mut names, mut ports) = (Names::default(), Ports::default());
        assert_eq!(names.ask(Instant(0), "books", 2, &mut ports), None);
        assert_eq!(names.ask(Instant(0), "books", 1, &mut ports), None);
        assert_eq!(names.ask(Instant(0), "books", 3, &mut ports), None);
        names.forget("books", &3);
        assert_eq!(asked(&mut ports).as_deref(), Some("books"));
        assert_eq!(asked(&mut ports), None);
        let (waiters, result) = names.resolved("books", Ok(&[ADDRESS]), Instant(30));
        assert_eq!(waiters, BTreeSet::from([1, 2]));
        assert_eq!(result.as_deref(), Ok(&[ADDRESS][..]));
        assert_eq!(names.ask(Instant(29), "books", 4, &mut ports).as_deref(), Some(&[ADDRESS][..]));
        assert_eq!(names.ask(Instant(30), "books", 4, &mut ports), None);
        assert_eq!(asked(&mut ports).as_deref(), Some("books"));
    }

    #[test]
    fn failures_are_told_and_forgotten() {
        let (mut names, mut ports) = (Names::default(), Ports::default());
        for result in [Err("no such host"), Ok(&[][..])] {
            assert_eq!(names.ask(Instant(0), "books", 1, &mut ports), None);
            assert_eq!(asked(&mut ports).as_deref(), Some("books"));
            let (waiters, result) = names.resolved("books", result, Instant(30));
            assert!(waiters.contains(&1) && result.is_err());
        }
        let (waiters, _) = names.resolved("books", Ok(&[ADDRESS]), Instant(30));
        assert!(waiters.is_empty(), "nobody asked");
        assert!(names.entries.is_empty());
    }

    #[test]
    fn literals_are_never_asked() {
        let (mut names, mut ports) = (Names::default(), Ports::default());
        for host in ["10.0.0.1", "::1"] {
            let addresses = names.ask(Instant(0), host, 1, &mut ports).unwrap();
            assert_eq!(addresses[0].to_string(), host);
        }
        assert_eq!(asked(&mut ports), None);
        assert!(names.entries.is_empty());
    }

    #[test]
    fn what_is_known_is_bounded() {
        let (mut names, mut ports) = (Names::default(), Ports::default());
        for n in 0..3 * NAMES_MAX {
            let host = format!("host{n}");
            names.ask(Instant(0), &host, 1, &mut ports);
            let (_, result) = names.resolved(&host, Ok(&[ADDRESS]), Instant(30));
            assert!(result.is_ok());
            assert!(names.entries.len() <= NAMES_MAX + 1);
        }
    }
}
