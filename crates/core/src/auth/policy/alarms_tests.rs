//! What the roles and scopes of a network operations centre open: every role against every action of the alarms module.

use std::collections::BTreeSet;

use super::tests::principal;
use super::*;
use crate::auth::AuthConfig;

/// Every action, with the topic that tells of it and the scopes of which one opens it.
const ACTIONS: [(&str, &str, &[&str]); 14] = [
    ("alarm_read", "alarms", &["tmf642:alarm:read", "alarm:read"]),
    (
        "alarm_write",
        "alarms",
        &["tmf642:alarm:write", "alarm:write"],
    ),
    (
        "topology_read",
        "alarms",
        &["topology:read", "topology:read_full"],
    ),
    ("topology_write", "alarms", &["topology:write"]),
    ("metrics_read", "alarms", &["metrics:read"]),
    ("metrics_write", "alarms", &["metrics:write"]),
    ("incident_read", "incidents", &["incident:read"]),
    ("incident_write", "incidents", &["incident:write"]),
    (
        "incident_approve_sitrep",
        "incidents",
        &["incident:approve_sitrep"],
    ),
    (
        "incident_approve_action",
        "incidents",
        &["incident:approve_action"],
    ),
    ("incident_close", "incidents", &["incident:close"]),
    ("care_read", "audit/alarms", &["cx:intelligence:read"]),
    ("care_write", "audit/alarms", &["cx:intelligence:write"]),
    ("scorecard_read", "incidents", &["autonomous:read"]),
];

/// The actions that somebody may do.
fn may(policies: &Policies, of: &Principal) -> BTreeSet<&'static str> {
    let may = ACTIONS.iter().filter(|(action, topic, _)| {
        policies.allows(of, Action::Module(action), &Topic::new(topic).unwrap())
    });
    may.map(|(action, ..)| *action).collect()
}

#[test]
fn each_scope_opens_its_action_and_no_other() {
    let policies = Policies::builtin().unwrap();
    for (action, _, scopes) in ACTIONS {
        for scope in scopes {
            let of = principal("1", &[], &[scope], &[]);
            assert_eq!(may(&policies, &of), BTreeSet::from([action]), "{scope}");
        }
    }
    let nobody = principal("1", &[], &["events:read", "events:write"], &["42"]);
    assert_eq!(may(&policies, &nobody), BTreeSet::new());
    for all in [
        principal("1", &[], &["admin:all"], &[]),
        principal("1", &["admin"], &[], &[]),
    ] {
        assert_eq!(may(&policies, &all).len(), ACTIONS.len());
    }
}

#[test]
fn each_role_may_what_the_operations_centre_gave_it() {
    let policies = Policies::builtin().unwrap();
    let reads = [
        "alarm_read",
        "topology_read",
        "metrics_read",
        "incident_read",
        "care_read",
        "scorecard_read",
    ];
    let writes = [
        "alarm_write",
        "metrics_write",
        "incident_write",
        "care_write",
    ];
    let work = [&reads[..], &writes[..]].concat();
    let every: Vec<_> = ACTIONS.iter().map(|(action, ..)| *action).collect();
    let with = |more: &'static str| [&work[..], &[more]].concat();
    for (role, expected) in [
        ("viewer", reads.to_vec()),
        ("tenant_admin", reads.to_vec()),
        ("operator", work.clone()),
        ("shift_lead", with("incident_approve_sitrep")),
        ("engineer", with("incident_approve_action")),
        ("admin", every),
        ("editor", Vec::new()),
        ("nobody", Vec::new()),
    ] {
        // By what the table gives the role, as a token without scopes has it.
        let table = AuthConfig::default().role_scopes;
        let scopes = table.get(role).cloned().unwrap_or_default();
        let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
        let of = principal("1", &[], &scopes, &[]);
        assert_eq!(
            may(&policies, &of),
            expected.into_iter().collect(),
            "{role}"
        );
    }
}

#[test]
fn the_table_of_roles_has_the_scopes_that_existing_clients_ask_for() {
    let table = AuthConfig::default().role_scopes;
    let has = |role: &str, scope: &str| table[role].iter().any(|s| s == scope);
    for only_admin in [
        "incident:close",
        "policy:write",
        "admin:all",
        "topology:write",
    ] {
        let who: Vec<_> = table.keys().filter(|role| has(role, only_admin)).collect();
        assert_eq!(who, ["admin"], "{only_admin}");
    }
    let managers: Vec<_> = table.keys().filter(|r| has(r, "users:manage")).collect();
    assert_eq!(managers, ["admin", "tenant_admin"]);
    for role in ["operator", "shift_lead", "engineer"] {
        for scope in ["capacity:plan:write", "autonomous:read", "policy:read"] {
            assert!(has(role, scope), "{role} {scope}");
        }
    }
    let is_read_only = |role: &str| table[role].iter().all(|s| !s.ends_with(":write"));
    assert!(is_read_only("viewer") && is_read_only("tenant_admin"));
}

#[test]
fn the_topics_of_the_module_are_open_to_who_may_read_them() {
    let policies = Policies::builtin().unwrap();
    for (scope, topic, expected) in [
        ("tmf642:alarm:read", "alarms", true),
        ("alarm:read", "alarms", true),
        ("alarm:write", "alarms", false),
        ("admin:all", "alarms", true),
        ("incident:read", "incidents", true),
        ("admin:all", "incidents", true),
        ("incident:read", "audit/alarms", false),
        ("admin:all", "audit/alarms", true),
    ] {
        let of = principal("1", &[], &[scope], &[]);
        let topic = Topic::new(topic).unwrap();
        let may = policies.allows(&of, Action::Subscribe, &topic);
        assert_eq!(may, expected, "{scope} {topic}");
        // What the module tells, nobody else may say.
        assert!(!policies.allows(&of, Action::Publish, &topic), "{scope}");
    }
}
