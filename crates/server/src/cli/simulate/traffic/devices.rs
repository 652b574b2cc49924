//! A fleet: devices boot, join the network, report, complain; now and then a credential is rotated.

use fastrand::Rng;
use serde_json::json;
use tidings_core::clock::Timestamp;

use super::{Simulated, pick};

const ROOMS: [&str; 10] = [
    "living_room",
    "kitchen",
    "cellar",
    "attic",
    "office",
    "garage",
    "greenhouse",
    "hall",
    "workshop",
    "server_room",
];
const SORTS: [&str; 3] = ["climate", "light", "pump"];
/// An event of this source in so many is a rotation.
const ROTATION_ONE_IN: u32 = 40;
/// A report in so many is a restart.
const RESTART_ONE_IN: u32 = 60;

const BOOT: [(&str, &str); 6] = [
    ("INFO", "boot: reset reason SW_CPU_RESET, firmware 2.4.1"),
    ("INFO", "nvs: configuration loaded, 14 keys"),
    ("INFO", "wifi: connected to iot-{n}, rssi -{n} dBm"),
    ("INFO", "ntp: clock set, offset {n} ms"),
    ("INFO", "mqtt: connected, session present"),
    ("INFO", "ota: up to date"),
];
const REPORTS: [(&str, &str); 7] = [
    ("INFO", "sensor: temperature 21.{n} °C, humidity 4{n} %"),
    ("INFO", "heap: {n} kB free, largest block {n} kB"),
    ("DEBUG", "mqtt: ping {n} ms"),
    ("DEBUG", "sensor: raw adc {n}"),
    ("WARNING", "wifi: weak signal, rssi -8{n} dBm"),
    ("WARNING", "sensor: reading took {n} ms"),
    ("ERROR", "sensor: no answer on i2c address 0x{n}, retrying"),
];

#[derive(Debug)]
pub(super) struct Fleet {
    /// Each device's entity id, and how far it has booted.
    devices: Vec<(String, usize)>,
}

impl Fleet {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let device = |(number, room): (usize, &&str)| {
            (
                format!("{}.{room}", SORTS[number % SORTS.len()]),
                rng.usize(0..=BOOT.len()),
            )
        };
        Self {
            devices: ROOMS.iter().enumerate().map(device).collect(),
        }
    }

    pub(super) fn next(&mut self, rng: &mut Rng, now: Timestamp) -> Simulated {
        if rng.u32(0..ROTATION_ONE_IN) == 0 {
            return Simulated::new("signals/rotation", "rotation-updated", json!({}));
        }
        let at = rng.usize(0..self.devices.len());
        let (entity, booted) = &mut self.devices[at];
        let logs: Vec<_> = (0..rng.u32(1..=3))
            .map(|_| {
                let (level, text) = match BOOT.get(*booted) {
                    Some(line) => *line,
                    None => pick(rng, &REPORTS),
                };
                *booted = if rng.u32(0..RESTART_ONE_IN) == 0 { 0 } else { (*booted + 1).min(BOOT.len()) };
                let message = text.replace("{n}", &rng.u32(1..90).to_string());
                json!({"message": message, "level": level, "@timestamp": now.to_string(), "entity_id": entity})
            })
            .collect();
        let data = json!({"device_entity_id": entity, "logs": logs});
        Simulated::new(format!("devices/{}/logs", at + 1), "device-logs", data)
    }
}
