//! What theory says about a pair: a direct TCP path, or a relay and why.
//!
//! A direct path exists if somebody can be connected to: because everybody is let in, because a port is mapped for the asking, or
//! because the filter at one end can be opened for what the other end will be seen as. The last needs one end whose mapping can be
//! known before, and a filter at the other that does not ask for a port which nobody can know.
//!
//! What it is not: what was measured.

use serde::Serialize;

use super::scenario::{Cell, Site};

/// What should come of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A direct path.
    Direct,
    /// No direct path; the reason.
    Relay(&'static str),
}

/// The path of a pair, in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PathKind {
    /// One connection from host to host.
    Direct,
    /// By a third host.
    Relay,
}

impl Expected {
    /// Works out what should come of a pair.
    pub(crate) fn of(cell: Cell) -> Expected {
        match cell {
            // They see each other inside, whatever their router does.
            Cell::OneNat { .. } => Expected::Direct,
            Cell::Apart(a, b) => apart(a, b),
        }
    }

    /// The path alone.
    pub(crate) fn path(self) -> PathKind {
        match self {
            Expected::Direct => PathKind::Direct,
            Expected::Relay(_) => PathKind::Relay,
        }
    }
}

/// Whom a site lets in, at most, if its host does everything right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Admits {
    /// Nobody.
    Nobody,
    /// One address and port that must be known before.
    KnownPort,
    /// Any port of an address that must be known before.
    KnownAddress,
    /// Everybody.
    Everybody,
}

fn apart(a: Site, b: Site) -> Expected {
    if !(a.has_v4() && b.has_v4() || a.has_v6() && b.has_v6()) {
        return Expected::Relay("one has only IPv6, the other only IPv4");
    }
    for (closed, other) in [(a, b), (b, a)] {
        if closed == Site::Only443 && other != Site::Public443 {
            return Expected::Relay("a firewall lets only port 443 out, and the other does not listen there");
        }
    }
    let connects = |from: Site, to: Site| match admits(to) {
        Admits::Everybody | Admits::KnownAddress => true,
        Admits::KnownPort => has_known_port(from),
        Admits::Nobody => false,
    };
    if connects(a, b) || connects(b, a) {
        Expected::Direct
    } else if !has_known_port(a) && !has_known_port(b) {
        Expected::Relay("both NATs map by destination")
    } else {
        Expected::Relay("one NAT maps by destination, and the other's filter wants to know the port")
    }
}

fn admits(site: Site) -> Admits {
    match site {
        Site::Public | Site::Public443 | Site::EndpointIndependent | Site::PortMapping => Admits::Everybody,
        Site::AddressDependent => Admits::KnownAddress,
        Site::PortDependent | Site::PortDependentRst | Site::CarrierGrade | Site::CarrierGradeRst => Admits::KnownPort,
        Site::V6Drop | Site::V6Rst | Site::V6Prohibited => Admits::KnownPort,
        // The port that it would have to be connected at is not known either.
        Site::Symmetric | Site::SymmetricRst | Site::Only443 => Admits::Nobody,
    }
}

/// Whether what a connection will come from can be told before it is made.
fn has_known_port(site: Site) -> bool {
    !matches!(site, Site::Symmetric | Site::SymmetricRst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_matter_who_calls() {
        for a in Site::PAIRED {
            for b in Site::PAIRED {
                assert_eq!(apart(a, b).path(), apart(b, a).path(), "{a} {b}");
            }
        }
    }

    #[test]
    fn who_lets_everybody_in_is_reached_by_all_that_may_go_out() {
        for open in [Site::Public, Site::EndpointIndependent, Site::PortMapping] {
            for other in Site::PAIRED {
                let same_family = other.has_v4() || open.has_v6();
                let expected = same_family && other != Site::Only443;
                assert_eq!(apart(open, other) == Expected::Direct, expected, "{open} {other}");
            }
        }
    }

    #[test]
    fn only_filters_by_address_take_a_connection_from_an_unknown_port() {
        assert_eq!(apart(Site::Symmetric, Site::AddressDependent), Expected::Direct);
        for filter in [Site::PortDependent, Site::PortDependentRst, Site::CarrierGrade, Site::CarrierGradeRst] {
            assert!(matches!(apart(Site::SymmetricRst, filter), Expected::Relay(why) if why.contains("filter")));
        }
        let both = apart(Site::Symmetric, Site::SymmetricRst);
        assert_eq!(both, Expected::Relay("both NATs map by destination"));
    }

    #[test]
    fn routers_that_answer_do_not_change_what_is_possible() {
        for (drops, answers) in
            [(Site::PortDependent, Site::PortDependentRst), (Site::CarrierGrade, Site::CarrierGradeRst)]
        {
            for other in Site::PAIRED {
                assert_eq!(apart(drops, other), apart(answers, other), "{other}");
            }
        }
        assert_eq!(apart(Site::PortDependentRst, Site::CarrierGradeRst), Expected::Direct);
    }

    #[test]
    fn families_have_to_meet() {
        assert_eq!(apart(Site::V6Drop, Site::V6Prohibited), Expected::Direct);
        assert_eq!(apart(Site::V6Rst, Site::Public), Expected::Direct);
        assert!(matches!(apart(Site::V6Rst, Site::PortDependent), Expected::Relay(why) if why.contains("IPv6")));
    }

    #[test]
    fn behind_a_firewall_for_443_only_a_public_443_helps() {
        assert_eq!(apart(Site::Public443, Site::Only443), Expected::Direct);
        assert!(matches!(apart(Site::Only443, Site::Public), Expected::Relay(why) if why.contains("443")));
        assert!(matches!(apart(Site::Only443, Site::Only443), Expected::Relay(_)));
    }

    #[test]
    fn behind_one_nat_the_path_is_inside() {
        for hairpin in [true, false] {
            assert_eq!(Expected::of(Cell::OneNat { hairpin }), Expected::Direct);
        }
    }
}
