//! What the built-in policies allow, and how a set of one's own is read.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::tenant::Tenant;

fn principal(subject: &str, roles: &[&str], scopes: &[&str], patients: &[&str]) -> Principal {
    let set = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
    Principal {
        tenant: Tenant::new("a").unwrap(),
        subject: subject.into(),
        roles: set(roles),
        scopes: set(scopes),
        patient_ids: set(patients),
        expires_at: Timestamp::from_secs(0),
        issued_at: None,
        token_id: None,
    }
}

fn allowed(policies: &Policies, of: &Principal, action: Action, asked: &str) -> bool {
    policies.may_allow(of, action, &Pattern::new(asked).unwrap())
}

#[test]
fn the_built_in_set() {
    let policies = Policies::builtin().unwrap();
    let admin = principal("1", &["admin"], &[], &[]);
    let writer = principal("2", &[], &["events:write"], &[]);
    let reader = principal("3", &[], &["events:read"], &[]);
    let carer = principal("4", &["caregiver"], &[], &["42"]);
    let nobody = principal("5", &[], &[], &[]);
    use Action::{Publish, Subscribe};
    for (of, action, asked, expected) in [
        (&admin, Publish, "audit/alarms", true),
        (&admin, Subscribe, "**", true),
        (&writer, Publish, "orders/1", true),
        (&writer, Publish, "alarms", false),
        (&writer, Publish, "signals/rotation", false),
        (&writer, Subscribe, "orders/1", false),
        (&reader, Subscribe, "orders/**", true),
        (&reader, Subscribe, "**", true),
        (&reader, Subscribe, "audit/**", false),
        (&reader, Subscribe, "*/alarms", true),
        (&reader, Publish, "orders/1", false),
        (&carer, Subscribe, "alerts/patients/42", true),
        (&carer, Subscribe, "alerts/patients/43", false),
        (&carer, Subscribe, "alerts/patients/*", true),
        (&carer, Subscribe, "alerts/**", true),
        (&carer, Subscribe, "vitals/patients/42/ecg", true),
        (&carer, Subscribe, "alarms", false),
        (&nobody, Subscribe, "alerts/patients/5", true),
        (&nobody, Subscribe, "notifications/users/5", true),
        (&nobody, Subscribe, "notifications/users/6", false),
        (&nobody, Subscribe, "orders/**", false),
        (&nobody, Subscribe, "alarms/**", false),
        (&nobody, Subscribe, "signals/*", true),
    ] {
        assert_eq!(
            allowed(&policies, of, action, asked),
            expected,
            "{} {action:?} {asked}",
            of.subject
        );
    }
}

#[test]
fn a_folder_replaces_the_set_and_errors_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Policies::load(folder.path()),
        Err(PolicyError::File { .. })
    ));
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "a.cedar",
        "permit (principal, action, resource)\nwhen { resource.prefix == \"x\" };\n",
    );
    write("ignored.txt", "nonsense");
    let policies = Policies::load(folder.path()).unwrap();
    let admin = principal("1", &["admin"], &[], &[]);
    assert!(allowed(&policies, &admin, Action::Publish, "x/1"));
    assert!(!allowed(&policies, &admin, Action::Publish, "y"));
    assert_eq!(
        policies.class(&admin),
        policies.class(&principal("2", &["admin"], &[], &[])),
        "nobody asks for the subject"
    );
    for (text, line) in [
        (
            "permit (principal, action, resource)\nwhen { resource.colour };\n",
            2,
        ),
        ("\n\npermit (", 3),
    ] {
        write("b.cedar", text);
        match Policies::load(folder.path()).unwrap_err() {
            PolicyError::Policy { file, line: at, .. } => {
                assert_eq!((file.ends_with("b.cedar"), at), (true, line));
            }
            other @ PolicyError::File { .. } => panic!("{other}"),
        }
    }
}

#[test]
fn a_bad_set_leaves_the_running_one_and_a_good_one_follows_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.cedar");
    std::fs::write(&file, "permit (principal, action, resource);").unwrap();
    let store = PolicyStore::open(Some(folder.path().into())).unwrap();
    let somebody = principal("1", &[], &[], &[]);
    std::fs::write(&file, "permit (").unwrap();
    assert!(store.reload().is_err());
    assert!(allowed(&store.current(), &somebody, Action::Publish, "x"));
    let _watching = store.watch().unwrap();
    let changes = store.changes();
    std::fs::write(&file, "forbid (principal, action, resource);").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut changes = changes;
        tokio::time::timeout(Duration::from_secs(10), changes.changed())
            .await
            .unwrap()
            .unwrap();
    });
    assert!(!allowed(&store.current(), &somebody, Action::Publish, "x"));
}

proptest! {
    /// What a pattern is refused for, no topic of it is allowed for.
    #[test]
    fn a_refused_pattern_leads_nowhere(
        scopes in prop::collection::btree_set("events:read|events:write|alarm:read|incident:read", 0..3),
        pattern in "(\\*|alarms|alerts|notifications|orders|signals)(/(\\*|patients|users|x)){0,2}(/\\*\\*)?",
        topic in "(alarms|alerts|notifications|orders|signals|q)(/(patients|users|x|7|8)){0,3}",
    ) {
        let policies = Policies::builtin().unwrap();
        let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
        let of = principal("7", &[], &scopes, &["8"]);
        let (pattern, topic) = (Pattern::new(&pattern).unwrap(), Topic::new(&topic).unwrap());
        if pattern.matches(topic.as_str()) && policies.allows(&of, Action::Subscribe, &topic) {
            prop_assert!(policies.may_allow(&of, Action::Subscribe, &pattern));
        }
    }
}
