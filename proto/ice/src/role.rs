//! Who decides: the roles of the two sides, and the repair of conflicts about them (RFC 8445 §6.1.1, §7.3.1.1).

use keyferry_net::random::Random;

/// Changes of role in one negotiation. One is enough for honest peers.
const MAX_SWITCHES: u8 = 4;

/// Who decides on the pair (RFC 8445 §6.1.1). The caller of a negotiation controls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nominates.
    Controlling,
    /// Takes the pair that the peer nominates.
    Controlled,
}

impl Role {
    /// The role of the other side.
    pub fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }
}

/// The role of this side, as conflicts have left it.
#[derive(Debug)]
pub(super) struct OwnRole {
    role: Role,
    tie_breaker: u64,
    switches: u8,
}

impl OwnRole {
    pub(super) fn new(role: Role, random: &mut Random) -> Self {
        Self { role, tie_breaker: random.next_u64(), switches: 0 }
    }

    pub(super) fn get(&self) -> Role {
        self.role
    }

    /// What a check of this side says of it: the role, and the tie-breaker.
    pub(super) fn claim(&self) -> (Role, u64) {
        (self.role, self.tie_breaker)
    }

    /// Settles who keeps the role that both sides have; false if the peer has to change its own.
    pub(super) fn settle(&mut self, their_tie_breaker: u64) -> bool {
        let ours_is_greater = self.tie_breaker >= their_tie_breaker;
        let is_ours_to_keep = (self.role == Role::Controlling) == ours_is_greater;
        !is_ours_to_keep && self.switch()
    }

    /// Takes the other role, with a new tie-breaker, as the peer has demanded (RFC 8445 §7.2.5.1); false after too many changes.
    pub(super) fn give_way(&mut self, random: &mut Random) -> bool {
        let has_switched = self.switch();
        if has_switched {
            self.tie_breaker = random.next_u64();
        }
        has_switched
    }

    fn switch(&mut self) -> bool {
        if self.switches >= MAX_SWITCHES {
            return false;
        }
        self.switches += 1;
        self.role = self.role.other();
        true
    }
}
