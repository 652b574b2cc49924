//! Many occurrences in one transaction, by few statements: what stands is read in sets, the rules run in memory, and what
//! has changed is written in sets.

use std::collections::{HashMap, HashSet};

use tidings_core::clock::Timestamp;
use tidings_core::log::Tx;
use tidings_core::tenant::Tenant;

use super::event::Teller;
use super::rules::{self, Effect, Refresh};
use super::store::{self, Known, Moves, OccurrenceRow};
use super::{Alarm, Occurrence};
use crate::{Config, Error, Perceived, incident};

/// An occurrence with what can be known of it without the database.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) occurrence: Occurrence,
    pub(super) alarm_id: String,
    pub(super) key: String,
}

impl Prepared {
    pub(super) fn new(tenant: &Tenant, occurrence: Occurrence) -> Self {
        Self {
            alarm_id: occurrence.identity.alarm_id(tenant),
            key: occurrence.key(),
            occurrence,
        }
    }
}

/// What became of one occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The event that tells of it.
    pub event_id: String,
    /// The alarm.
    pub alarm_id: String,
    /// Whether it was known already.
    pub is_repeat: bool,
}

/// The state that a transaction's occurrences work on.
struct Work {
    /// Occurrences that stand, by their key and by the publisher's.
    keys: HashMap<String, Known>,
    sources: HashMap<String, Known>,
    alarms: HashMap<String, Alarm>,
    /// Where the changed ones stood.
    before: HashMap<String, Option<store::Place>>,
    rows: Vec<OccurrenceRow>,
    cleared: Vec<String>,
    /// Kept for their texts alone: nothing but the transaction's time and settings.
    now: Timestamp,
}

/// Takes the occurrences of several requests, each with its trace, in their order. A request whose publisher's key stands
/// for something else is refused alone, with its place; the others are taken.
pub(super) fn take(
    tx: &mut Tx<'_>,
    config: &Config,
    requests: &[(Option<String>, Vec<Prepared>)],
) -> Result<Vec<Result<Vec<Outcome>, Error>>, Error> {
    let mut work = Work::load(tx, requests)?;
    let mut answers = Vec::with_capacity(requests.len());
    for (trace, occurrences) in requests {
        let teller = Teller::new(trace.clone())?;
        if let Some(refused) = work.conflict(occurrences) {
            answers.push(Err(refused));
            continue;
        }
        let mut outcomes = Vec::with_capacity(occurrences.len());
        for occurrence in occurrences {
            outcomes.push(work.one(tx, &teller, occurrence)?);
        }
        answers.push(Ok(outcomes));
    }
    work.store(tx, config)?;
    Ok(answers)
}

/// Each text once, in order: neighbours stand on the same page.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let texts: HashSet<&str> = texts.collect();
    let mut texts: Vec<_> = texts.into_iter().collect();
    texts.sort_unstable();
    texts
}

impl Work {
    fn load(tx: &mut Tx<'_>, requests: &[(Option<String>, Vec<Prepared>)]) -> Result<Self, Error> {
        let all = || requests.iter().flat_map(|(_, occurrences)| occurrences);
        let keys = distinct(all().map(|p| p.key.as_str()));
        let sources = distinct(all().filter_map(|p| p.occurrence.source_key.as_deref()));
        let ids = distinct(all().map(|p| p.alarm_id.as_str()));
        let (tenant, now) = (tx.tenant_number(), tx.now());
        Ok(Self {
            keys: store::known(tx, tenant, &keys, false)?,
            sources: store::known(tx, tenant, &sources, true)?,
            alarms: store::many(tx, tenant, ids)?,
            before: HashMap::new(),
            rows: Vec::new(),
            cleared: Vec::new(),
            now,
        })
    }

    /// A publisher's key that stands for another occurrence.
    fn conflict(&self, occurrences: &[Prepared]) -> Option<Error> {
        let mut own: HashMap<&str, &str> = HashMap::new();
        occurrences.iter().find_map(|p| {
            let source = p.occurrence.source_key.as_deref()?;
            let stands = self.sources.get(source).map(|known| known.key.as_str());
            let stands = stands.or_else(|| own.insert(source, &p.key));
            (stands? != p.key).then(|| Error::Illegal {
                from: "the event of this source and id".into(),
                to: "another alarm".into(),
                legal: Vec::new(),
            })
        })
    }

    fn one(
        &mut self,
        tx: &mut Tx<'_>,
        teller: &Teller,
        prepared: &Prepared,
    ) -> Result<Outcome, Error> {
        let Prepared {
            occurrence,
            alarm_id,
            key,
        } = prepared;
        if let Some(known) = self.keys.get(key) {
            let repeat = Outcome {
                event_id: known.event_id.clone(),
                alarm_id: known.alarm_id.clone(),
                is_repeat: true,
            };
            self.refresh(tx, teller, prepared)?;
            return Ok(repeat);
        }
        let was = self.alarms.remove(alarm_id);
        self.before
            .entry(alarm_id.clone())
            .or_insert_with(|| was.as_ref().map(store::place));
        let (alarm, effect) = rules::apply(alarm_id, was, occurrence, self.now);
        let event_id = teller.occurrence(tx, &alarm, occurrence)?.to_string();
        if effect == Effect::Cleared {
            self.cleared.push(alarm_id.clone());
        }
        let known = Known {
            key: key.clone(),
            event_id: event_id.clone(),
            alarm_id: alarm_id.clone(),
        };
        if let Some(source) = &occurrence.source_key {
            self.sources.insert(source.clone(), known.clone());
        }
        self.keys.insert(key.clone(), known);
        self.rows.push(OccurrenceRow {
            key: key.clone(),
            event_id: event_id.clone(),
            alarm_id: alarm_id.clone(),
            is_raise: occurrence.is_raise(),
            severity: match occurrence.perceived {
                Perceived::Raised(severity) => severity,
                Perceived::Cleared => alarm.severity,
            },
            raised_at: occurrence.at,
            arrived_at: self.now,
            source_key: occurrence.source_key.clone(),
        });
        self.alarms.insert(alarm_id.clone(), alarm);
        Ok(Outcome {
            event_id,
            alarm_id: alarm_id.clone(),
            is_repeat: false,
        })
    }

    /// The same raise once more: it may end later than it said before.
    fn refresh(
        &mut self,
        tx: &mut Tx<'_>,
        teller: &Teller,
        prepared: &Prepared,
    ) -> Result<(), Error> {
        let Some(alarm) = self.alarms.get_mut(&prepared.alarm_id) else {
            return Ok(());
        };
        let was = store::place(alarm);
        let refresh = rules::refresh(alarm, &prepared.occurrence, self.now);
        if refresh == Refresh::Nothing {
            return Ok(());
        }
        self.before
            .entry(prepared.alarm_id.clone())
            .or_insert(Some(was));
        if refresh == Refresh::Returned {
            teller.occurrence(tx, alarm, &prepared.occurrence)?;
        }
        Ok(())
    }

    fn store(self, tx: &mut Tx<'_>, config: &Config) -> Result<(), Error> {
        let tenant = tx.tenant_number();
        let mut moves = Moves::default();
        let mut changed: Vec<&Alarm> = Vec::with_capacity(self.before.len());
        for (id, was) in &self.before {
            if let Some(alarm) = self.alarms.get(id) {
                moves.note(*was, store::place(alarm));
                changed.push(alarm);
            }
        }
        // In the order of the keys: neighbours go to the same page.
        changed.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        store::put(tx, tenant, &changed)?;
        moves.store(tx, tenant)?;
        store::insert_occurrences(tx, tenant, &self.rows)?;
        let cleared = distinct(self.cleared.iter().map(String::as_str));
        Ok(incident::on_alarms_cleared(tx, config, &cleared)?)
    }
}
