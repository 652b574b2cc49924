//! A ward: vital signs wander around their middle, now and then a patient gets worse; a sign that leaves its range raises
//! an alert, which escalates until somebody acknowledges it.

use fastrand::Rng;
use serde_json::{Value, json};
use tidings_core::clock::Timestamp;

use super::{Simulated, id, pick};

const PATIENTS: u32 = 12;
/// A sample in so many begins an episode.
const EPISODE_ONE_IN: u32 = 150;
/// Signs that have left their range at the beginning.
const ILL: usize = 4;

/// Name, unit, middle, spread of a step, and the ranges that are left at tier slight, moderate and critical.
#[derive(Debug)]
struct Sign {
    name: &'static str,
    unit: &'static str,
    middle: f64,
    step: f64,
    ranges: [(f64, f64); 3],
}

const SIGNS: [Sign; 4] = [
    Sign {
        name: "heart_rate",
        unit: "bpm",
        middle: 78.0,
        step: 2.5,
        ranges: [(55.0, 120.0), (50.0, 140.0), (40.0, 180.0)],
    },
    Sign {
        name: "spo2",
        unit: "%",
        middle: 97.0,
        step: 0.5,
        ranges: [(92.0, 101.0), (90.0, 101.0), (85.0, 101.0)],
    },
    Sign {
        name: "respiratory_rate",
        unit: "1/min",
        middle: 16.0,
        step: 0.8,
        ranges: [(10.0, 24.0), (8.0, 28.0), (6.0, 34.0)],
    },
    Sign {
        name: "temperature",
        unit: "°C",
        middle: 37.0,
        step: 0.1,
        ranges: [(35.5, 38.5), (35.0, 39.0), (34.0, 40.5)],
    },
];
const TIERS: [&str; 3] = ["slight", "moderate", "critical"];
const ROLES: [&str; 4] = ["nurse", "doctor", "caregiver", "patient"];

#[derive(Debug)]
pub(super) struct Ward {
    /// Per patient and sign: the last three samples, and where the middle has moved to in an episode.
    samples: Vec<[f64; 3]>,
    drift: Vec<f64>,
    open: Vec<Alert>,
}

#[derive(Debug, Clone)]
struct Alert {
    id: String,
    at: usize,
    tier: usize,
    window: [f64; 3],
    is_escalated: bool,
}

impl Ward {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let count = PATIENTS as usize * SIGNS.len();
        let samples = (0..count).map(|at| {
            let sign = &SIGNS[at % SIGNS.len()];
            [sign.middle + sign.step * (rng.f64() - 0.5); 3]
        });
        let mut ward = Self {
            samples: samples.collect(),
            drift: vec![0.0; count],
            open: Vec::new(),
        };
        // Some are ill already: who looks for a minute should see more than a quiet ward.
        for _ in 0..ILL {
            let at = rng.usize(0..count);
            ward.begin_episode(rng, at);
            ward.samples[at] = [SIGNS[at % SIGNS.len()].middle + ward.drift[at]; 3];
        }
        ward
    }

    pub(super) fn next(&mut self, rng: &mut Rng, now: Timestamp) -> Simulated {
        if !self.open.is_empty() && rng.u32(0..12) == 0 {
            let at = rng.usize(0..self.open.len());
            if rng.bool() || self.open[at].is_escalated {
                return self.open.swap_remove(at).acknowledged(rng, now);
            }
            self.open[at].is_escalated = true;
            return self.open[at].raised("alert_escalated", now);
        }
        let at = rng.usize(0..self.samples.len());
        let window = self.sample(rng, at);
        let tier = tier(&SIGNS[at % SIGNS.len()], &window);
        let is_new = |tier: &usize| !self.open.iter().any(|a| a.at == at && a.tier >= *tier);
        if let Some(tier) = tier.filter(is_new) {
            let alert = Alert {
                id: id(rng).replace('-', ""),
                at,
                tier,
                window,
                is_escalated: false,
            };
            self.open.push(alert.clone());
            return alert.raised("alert", now);
        }
        let sign = &SIGNS[at % SIGNS.len()];
        Simulated::new(
            format!("vitals/{}", patient(at)),
            "vital",
            json!({"type": sign.name, "value": window[2], "unit": sign.unit, "timestamp": now.to_string()}),
        )
    }

    /// The next sample: back to the middle by a fifth, and a step of chance.
    fn sample(&mut self, rng: &mut Rng, at: usize) -> [f64; 3] {
        if rng.u32(0..EPISODE_ONE_IN) == 0 {
            self.begin_episode(rng, at);
        } else {
            self.drift[at] *= 0.97;
        }
        let sign = &SIGNS[at % SIGNS.len()];
        let [_, b, c] = self.samples[at];
        let chance = (rng.f64() + rng.f64() + rng.f64() - 1.5) * 2.0 * sign.step;
        let next = c + (sign.middle + self.drift[at] - c) * 0.4 + chance;
        let next = if sign.unit == "%" {
            next.min(100.0)
        } else {
            next
        };
        self.samples[at] = [b, c, (next * 10.0).round() / 10.0];
        self.samples[at]
    }

    /// Moves a sign's middle beyond the edge of one of its ranges.
    fn begin_episode(&mut self, rng: &mut Rng, at: usize) {
        let sign = &SIGNS[at % SIGNS.len()];
        let (low, high) = pick(rng, &sign.ranges);
        // Nothing lies above a saturation of 100 %.
        let is_low = rng.bool() || sign.unit == "%";
        let edge = if is_low { low } else { high };
        self.drift[at] = (edge - sign.middle) * 1.1;
    }
}

/// The worst tier whose range all three samples have left.
fn tier(sign: &Sign, window: &[f64; 3]) -> Option<usize> {
    let is_outside = |(low, high): &(f64, f64)| window.iter().all(|v| v < low || v > high);
    sign.ranges.iter().rposition(is_outside)
}

fn patient(at: usize) -> usize {
    at / SIGNS.len() + 1
}

impl Alert {
    fn topic(&self) -> String {
        format!("alerts/patients/{}", patient(self.at))
    }

    fn raised(&self, kind: &'static str, now: Timestamp) -> Simulated {
        let sign = &SIGNS[self.at % SIGNS.len()];
        let (low, high) = sign.ranges[self.tier];
        let recipients: &[&str] = match (self.tier, kind) {
            (2, "alert_escalated") => &["patient", "caregiver", "dispatcher", "hospital"],
            (0, _) => &["patient"],
            _ => &["patient", "caregiver"],
        };
        let data: Value = json!({
            "event": kind,
            "alertId": self.id,
            "tier": TIERS[self.tier],
            "patientId": patient(self.at).to_string(),
            "vitalType": sign.name,
            "vitalsWindow": self.window,
            "threshold": {"min": low, "max": high},
            "reasons": [format!("{} outside {low}-{high} for 3 samples", sign.name)],
            "recipients": recipients,
            "timestamp": now.to_string(),
            "source": "simulator",
        });
        Simulated::new(self.topic(), kind, data)
    }

    fn acknowledged(self, rng: &mut Rng, now: Timestamp) -> Simulated {
        let data = json!({
            "event": "alert_acknowledged",
            "alertId": self.id,
            "patientId": patient(self.at).to_string(),
            "tier": TIERS[self.tier],
            "timestamp": now.to_string(),
            "acknowledgedBy": pick(rng, &ROLES),
            "status": "acknowledged",
            "note": null,
        });
        Simulated::new(self.topic(), "alert_acknowledged", data)
    }
}
