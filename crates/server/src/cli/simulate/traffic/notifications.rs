//! An office: messages, interviews, reminders in people's inboxes, and people who read them.

use fastrand::Rng;
use serde_json::json;
use tidings_core::clock::Timestamp;

use super::{Simulated, pick};

const USERS: usize = 8;
/// Type, title, message with `{}` for a name.
const TEXTS: [(&str, &str, &str); 7] = [
    ("new_message", "New message", "{} sent you a message"),
    (
        "interview",
        "Interview scheduled",
        "Interview with {} tomorrow at 10:00",
    ),
    (
        "application",
        "New application",
        "{} applied for Backend Engineer",
    ),
    ("reminder", "Reminder", "Feedback for {} is due today"),
    (
        "onboarding",
        "Onboarding",
        "{} has finished the first week's checklist",
    ),
    ("alert", "Please check", "{} has asked for your approval"),
    (
        "system",
        "Maintenance",
        "Planned maintenance tonight; {} is on call",
    ),
];
const NAMES: [&str; 10] = [
    "Aiko Mori",
    "Daniel Osei",
    "Eva Lindholm",
    "Farid Haddad",
    "Grace Chen",
    "Ivan Petrov",
    "Lucía Romero",
    "Noor Aziz",
    "Sam Walker",
    "Zoë Dubois",
];

#[derive(Debug, Default)]
pub(super) struct Office {
    last_id: u64,
    unread: [Vec<u64>; USERS],
}

impl Office {
    pub(super) fn next(&mut self, rng: &mut Rng, now: Timestamp) -> Simulated {
        let user = rng.usize(0..USERS);
        let topic = format!("notifications/users/{}", user + 1);
        let unread = &mut self.unread[user];
        if unread.len() > 20 || (!unread.is_empty() && rng.u32(0..4) == 0) {
            let read: Vec<_> = unread.drain(..rng.usize(1..=unread.len())).collect();
            let data =
                json!({"ids": read, "read_at": now.to_string(), "unread_count": unread.len()});
            return Simulated::new(topic, "notification_read", data);
        }
        self.last_id += 1;
        unread.push(self.last_id);
        let (kind, title, message) = pick(rng, &TEXTS);
        let data = json!({
            "id": self.last_id,
            "type": kind,
            "title": title,
            "message": message.replace("{}", pick(rng, &NAMES)),
            "payload": {"conversation_id": rng.u32(1..400)},
            "is_read": false,
            "read_at": null,
            "created_at": now.to_string(),
            "unread_count": unread.len(),
        });
        Simulated::new(topic, "notification", data)
    }
}
