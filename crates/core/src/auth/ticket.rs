//! Tickets: a browser's EventSource can set no header, so it brings a string that is good for one connection.
//!
//! EventSource comes back with the same address. So the first use also gives a cookie, sealed by the server's own key and
//! bound to the ticket, that holds the principal: ticket and cookie together open the stream again, also after a restart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::principal::{Principal, Refusal, Stored};
use super::seal::{SealError, Sealer};
use crate::clock::{Clock, Timestamp};
use crate::topic::Pattern;

/// How long a ticket waits for its connection.
pub(super) const TICKET_TIME: Duration = Duration::from_secs(30);
/// Tickets that may wait at once; one more drops those that are past their time, then refuses.
const MAX_WAITING: usize = 100_000;

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

#[derive(Serialize, Deserialize)]
struct Cookie {
    principal: Stored,
    topics: Option<Vec<String>>,
}

struct Shared {
    clock: Clock,
    sealer: Sealer,
    waiting: Mutex<HashMap<String, Waiting>>,
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
            waiting: Mutex::default(),
        }))
    }

    /// Sells a ticket.
    pub fn issue(
        &self,
        principal: &Arc<Principal>,
        topics: Option<Vec<Pattern>>,
    ) -> Result<Ticket, SealError> {
        let mut bytes = [0u8; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError)?;
        let ticket = URL_SAFE_NO_PAD.encode(bytes);
        let now = self.0.clock.now();
        let mut waiting = self.0.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|_, w| w.until > now);
            if waiting.len() >= MAX_WAITING {
                return Err(SealError);
            }
        }
        waiting.insert(
            ticket.clone(),
            Waiting {
                principal: principal.clone(),
                topics,
                until: now.plus(TICKET_TIME),
            },
        );
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
        let first = self.0.waiting.lock().remove(ticket);
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

    use super::*;
    use crate::tenant::Tenant;

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
}
