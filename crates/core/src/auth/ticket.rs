//! Tickets: a browser's EventSource can set no header, so it brings a string that is good for one connection.
//!
//! EventSource comes back with the same address. So the first use also gives a cookie, sealed by the server's own key and
//! bound to the ticket, that holds the principal: ticket and cookie together open the stream again, also after a restart.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::principal::{Principal, Refusal, Stored};
use super::seal::Sealer;
use crate::clock::{Clock, Timestamp};
use crate::tenant::Tenant;
use crate::topic::Pattern;

/// How long a ticket waits for its connection.
pub(super) const TICKET_TIME: Duration = Duration::from_secs(30);
/// Tickets that may wait at once; one more drops those that are past their time, then nobody gets one.
const MAX_WAITING: usize = 100_000;
/// How long a full shelf waits until it looks again for what is past its time: looking is work, and buyers hold it up.
const FULL_SWEEP: Duration = Duration::from_secs(1);
/// Tickets of one subject that may wait at once; one more takes the place of its oldest.
const MAX_WAITING_OF_SUBJECT: usize = 64;

/// Why no ticket was sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// As many wait as may; they make room within half a minute.
    #[error("too many tickets wait for their connections; try again")]
    Full,
    /// The system gave no random bytes.
    #[error("no ticket could be made: the system gave no random bytes")]
    Random,
}

/// A ticket that was bought.
#[derive(Clone)]
pub struct Ticket {
    /// The string.
    pub ticket: String,
    /// How long it waits.
    pub expires_in: Duration,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ticket")
    }
}

struct Waiting {
    principal: Arc<Principal>,
    topics: Option<Vec<Pattern>>,
    until: Timestamp,
}

/// What a ticket opens.
#[derive(Debug)]
pub struct Redeemed {
    /// For whom.
    pub principal: Arc<Principal>,
    /// On which topics; all that the policy allows where it says none.
    pub topics: Option<Vec<Pattern>>,
    /// At its first use: the value of the cookie with which it opens again.
    pub set_cookie: Option<String>,
}

#[derive(Default)]
struct Shelf {
    waiting: HashMap<String, Waiting>,
    /// The same by owner, the oldest first.
    owned: HashMap<(Tenant, Arc<str>), VecDeque<String>>,
    swept: Timestamp,
}

impl Shelf {
    fn take(&mut self, ticket: &str) -> Option<Waiting> {
        let taken = self.waiting.remove(ticket)?;
        let owner = (
            taken.principal.tenant.clone(),
            taken.principal.subject.clone(),
        );
        if let Some(owned) = self.owned.get_mut(&owner) {
            owned.retain(|t| t != ticket);
            if owned.is_empty() {
                self.owned.remove(&owner);
            }
        }
        Some(taken)
    }

    fn put(&mut self, ticket: String, waiting: Waiting) {
        let owner = (
            waiting.principal.tenant.clone(),
            waiting.principal.subject.clone(),
        );
        let owned = self.owned.entry(owner).or_default();
        if owned.len() >= MAX_WAITING_OF_SUBJECT
            && let Some(oldest) = owned.pop_front()
        {
            self.waiting.remove(&oldest);
        }
        owned.push_back(ticket.clone());
        self.waiting.insert(ticket, waiting);
    }

    /// Forgets what is past its time, and gives back what a burst has taken.
    fn sweep(&mut self, now: Timestamp) {
        self.swept = now;
        let Self { waiting, owned, .. } = self;
        waiting.retain(|_, w| w.until > now);
        owned.retain(|_, tickets| {
            tickets.retain(|t| waiting.contains_key(t));
            !tickets.is_empty()
        });
        waiting.shrink_to(waiting.len() * 2);
        owned.shrink_to(owned.len() * 2);
    }
}

#[derive(Serialize, Deserialize)]
struct Cookie {
    principal: Stored,
    topics: Option<Vec<String>>,
}

struct Shared {
    clock: Clock,
    sealer: Sealer,
    shelf: Mutex<Shelf>,
}

/// Sells and redeems tickets. Cheap to clone.
#[derive(Clone)]
pub struct Tickets(Arc<Shared>);

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// No tickets yet.
    #[must_use]
    pub fn new(clock: Clock, sealer: Sealer) -> Self {
        Self(Arc::new(Shared {
            clock,
            sealer,
            shelf: Mutex::default(),
        }))
    }

    /// Sells a ticket.
    ///
    /// # Errors
    ///
    /// While as many wait as may, and where the system gives no random bytes.
    pub fn issue(
        &self,
        principal: &Arc<Principal>,
        topics: Option<Vec<Pattern>>,
    ) -> Result<Ticket, TicketError> {
        let mut bytes = [0u8; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TicketError::Random)?;
        let ticket = URL_SAFE_NO_PAD.encode(bytes);
        let now = self.0.clock.now();
        let mut shelf = self.0.shelf.lock();
        let is_full = |shelf: &Shelf| shelf.waiting.len() >= MAX_WAITING;
        let rest = if is_full(&shelf) {
            FULL_SWEEP
        } else {
            TICKET_TIME
        };
        if now.since(shelf.swept) >= rest {
            shelf.sweep(now);
        }
        if is_full(&shelf) {
            return Err(TicketError::Full);
        }
        let waiting = Waiting {
            principal: principal.clone(),
            topics,
            until: now.plus(TICKET_TIME),
        };
        shelf.put(ticket.clone(), waiting);
        drop(shelf);
        Ok(Ticket {
            ticket,
            expires_in: TICKET_TIME,
        })
    }

    /// The name of a ticket's cookie: of a digest, so that the cookie does not tell the ticket.
    #[must_use]
    pub fn cookie_name(ticket: &str) -> String {
        let hash = digest::digest(&digest::SHA256, ticket.as_bytes());
        format!("tidings_{}", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]))
    }

    /// Opens with a ticket: for the first time alone, then with its cookie.
    pub fn redeem(&self, ticket: &str, cookie: Option<&str>) -> Result<Redeemed, Refusal> {
        let first = self.0.shelf.lock().take(ticket);
        if let Some(first) = first.filter(|w| w.until > self.0.clock.now()) {
            let topics = first
                .topics
                .as_ref()
                .map(|all| all.iter().map(ToString::to_string).collect());
            let cookie = Cookie {
                principal: Stored::from(first.principal.as_ref()),
                topics,
            };
            let content = serde_json::to_vec(&cookie).map_err(|_| Refusal::Ticket)?;
            let sealed = self
                .0
                .sealer
                .seal(&content, &about(ticket))
                .map_err(|_| Refusal::Ticket)?;
            return Ok(Redeemed {
                principal: first.principal,
                topics: first.topics,
                set_cookie: Some(sealed),
            });
        }
        let content = self
            .0
            .sealer
            .open(cookie.ok_or(Refusal::Ticket)?, &about(ticket))
            .ok_or(Refusal::Ticket)?;
        let cookie: Cookie = serde_json::from_slice(&content).map_err(|_| Refusal::Ticket)?;
        let principal = cookie.principal.principal().ok_or(Refusal::Ticket)?;
        let topics = match cookie.topics {
            None => None,
            Some(all) => Some(
                all.iter()
                    .map(|t| Pattern::new(t))
                    .collect::<Result<_, _>>()
                    .map_err(|_| Refusal::Ticket)?,
            ),
        };
        Ok(Redeemed {
            principal: Arc::new(principal),
            topics,
            set_cookie: None,
        })
    }
}

fn about(ticket: &str) -> String {
    format!("ticket {ticket}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn principal() -> Arc<Principal> {
        Arc::new(Principal {
            tenant: Tenant::new("a").unwrap(),
            subject: "s".into(),
            roles: BTreeSet::from(["r".to_owned()]),
            scopes: BTreeSet::new(),
            patient_ids: BTreeSet::new(),
            expires_at: Timestamp::from_secs(1_000),
            issued_at: Some(Timestamp::from_secs(1)),
            token_id: Some("j".into()),
            digest: crate::auth::RightsDigest::default(),
        })
    }

    fn tickets(clock: &Clock) -> Tickets {
        Tickets::new(clock.clone(), Sealer::new(&[7; 32]).unwrap())
    }

    #[test]
    fn a_ticket_opens_once_and_again_only_with_its_cookie() {
        let clock = Clock::manual(Timestamp::from_secs(10));
        let shop = tickets(&clock);
        let topics = Some(vec![Pattern::new("a/*").unwrap()]);
        let (one, two) = (
            shop.issue(&principal(), topics.clone()).unwrap(),
            shop.issue(&principal(), None).unwrap(),
        );
        let first = shop.redeem(&one.ticket, None).unwrap();
        assert_eq!((&first.principal, &first.topics), (&principal(), &topics));
        assert_eq!(shop.redeem(&one.ticket, None).unwrap_err(), Refusal::Ticket);
        let cookie = first.set_cookie.unwrap();
        // After a restart, with the same key.
        let again = tickets(&clock).redeem(&one.ticket, Some(&cookie)).unwrap();
        assert_eq!(
            (again.principal, again.topics, again.set_cookie),
            (principal(), topics, None)
        );
        assert_eq!(
            tickets(&clock)
                .redeem(&two.ticket, Some(&cookie))
                .unwrap_err(),
            Refusal::Ticket,
            "another's cookie"
        );
        let other = Tickets::new(clock.clone(), Sealer::new(&[8; 32]).unwrap());
        assert_eq!(
            other.redeem(&one.ticket, Some(&cookie)).unwrap_err(),
            Refusal::Ticket,
            "another key"
        );
        let mut changed = cookie.into_bytes();
        changed[20] ^= 1;
        assert!(
            shop.redeem(&one.ticket, std::str::from_utf8(&changed).ok())
                .is_err()
        );
        clock.advance(TICKET_TIME);
        assert_eq!(
            shop.redeem(&two.ticket, None).unwrap_err(),
            Refusal::Ticket,
            "past its time"
        );
    }

    #[test]
    fn one_subject_does_not_take_all_the_room_and_room_is_given_back() {
        let clock = Clock::manual(Timestamp::from_secs(10));
        let shop = tickets(&clock);
        let mut other = principal().as_ref().clone();
        other.subject = "other".into();
        let others = shop.issue(&Arc::new(other), None).unwrap();
        let mine: Vec<_> = (0..=MAX_WAITING_OF_SUBJECT)
            .map(|_| shop.issue(&principal(), None).unwrap().ticket)
            .collect();
        assert!(shop.redeem(&mine[0], None).is_err(), "the oldest has gone");
        assert!(shop.redeem(&mine[1], None).is_ok());
        assert!(shop.redeem(&others.ticket, None).is_ok());
        clock.advance(TICKET_TIME);
        let last = shop.issue(&principal(), None).unwrap().ticket;
        let held = |shop: &Tickets| {
            let shelf = shop.0.shelf.lock();
            (shelf.waiting.len(), shelf.owned.len())
        };
        assert_eq!(held(&shop), (1, 1));
        assert!(shop.redeem(&last, None).is_ok());
        assert_eq!(held(&shop), (0, 0));
    }

    #[test]
    fn a_full_shelf_says_so_and_has_room_again() {
        let clock = Clock::manual(Timestamp::from_secs(10));
        let shop = tickets(&clock);
        let of = |n: usize| {
            let mut p = principal().as_ref().clone();
            p.subject = n.to_string().into();
            Arc::new(p)
        };
        let first = shop.issue(&of(0), None).unwrap().ticket;
        for n in 1..MAX_WAITING {
            shop.issue(&of(n), None).unwrap();
        }
        let refused = |shop: &Tickets| shop.issue(&of(MAX_WAITING), None).map(|_| ());
        assert_eq!(refused(&shop), Err(TicketError::Full));
        shop.redeem(&first, None).unwrap();
        let last = shop.issue(&of(0), None).unwrap().ticket;
        assert_eq!(refused(&shop), Err(TicketError::Full));
        clock.advance(TICKET_TIME);
        assert_eq!(refused(&shop), Ok(()), "the others are past their time");
        assert!(shop.redeem(&last, None).is_err());
    }

    proptest! {
        /// Whatever cookies stand beside a ticket, it opens for its own buyer or not at all.
        #[test]
        fn no_ticket_opens_another_tenant(
            buyers in prop::collection::vec(("[abc]", "[st]"), 2..6),
            uses in prop::collection::vec((0usize..6, 0usize..6), 1..20),
        ) {
            let clock = Clock::manual(Timestamp::from_secs(10));
            let shop = tickets(&clock);
            let mut bought = Vec::new();
            for (tenant, subject) in &buyers {
                let mut p = principal().as_ref().clone();
                (p.tenant, p.subject) = (Tenant::new(tenant).unwrap(), subject.as_str().into());
                let ticket = shop.issue(&Arc::new(p.clone()), None).unwrap().ticket;
                bought.push((p, ticket, None::<String>));
            }
            for (of, with) in uses {
                let (of, with) = (of % bought.len(), with % bought.len());
                let cookie = bought[with].2.clone();
                if let Ok(opened) = shop.redeem(&bought[of].1, cookie.as_deref()) {
                    prop_assert_eq!(opened.principal.as_ref(), &bought[of].0);
                    // Once without a cookie, then with its own alone.
                    prop_assert_eq!(opened.set_cookie.is_some(), bought[of].2.is_none());
                    prop_assert!(bought[of].2.is_none() || of == with);
                    if opened.set_cookie.is_some() {
                        bought[of].2 = opened.set_cookie;
                    }
                } else {
                    prop_assert!(bought[of].2.is_some() && of != with);
                }
            }
        }
    }
}
