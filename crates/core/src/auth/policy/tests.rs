//! What the built-in policies allow, and how a set of one's own is read.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::tenant::Tenant;

pub(super) fn principal(
    subject: &str,
    roles: &[&str],
    scopes: &[&str],
    patients: &[&str],
) -> Principal {
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
        digest: crate::auth::RightsDigest::default(),
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

fn set_of(text: &str) -> Policies {
    Policies::parse(&[("t.cedar".into(), text.to_owned())]).unwrap()
}

#[test]
fn what_a_pattern_may_lead_to() {
    let of = principal("me", &["ward-7"], &["s"], &["no topic", "1", "2"]);
    let when = |condition: &str| {
        set_of(&format!(
            "permit (principal, action, resource) when {{ {condition}\n }};"
        ))
    };
    for (condition, pattern, expected) in [
        // Names count where the attribute stands, not where a path of them would.
        (r#"resource.item == "public""#, "a/b/*", true),
        (r#"resource.item == "public""#, "a/b/*/c", true),
        (r#"resource.item == "public""#, "a/*", false),
        (r#"resource.item == "public""#, "public/**", true),
        (r#"resource.item == "public""#, "a/b/c/*", false),
        (r#"resource.item == """#, "a/*", true),
        (r#"resource.item == """#, "a/*/b", false),
        // However deep.
        (r#"resource in Tidings::Topic::"a/b/c/d/e/f/g""#, "**", true),
        (
            r#"resource in Tidings::Topic::"a/b/c/d/e/f/g""#,
            "a/*/c/**",
            true,
        ),
        (
            r#"resource in Tidings::Topic::"a/b/c/d/e/f/g""#,
            "a/*/x/**",
            false,
        ),
        (r#"resource == Tidings::Topic::"a/b""#, "a/*/**", false),
        (r#"["x/y", "z"].contains(resource.path)"#, "*/y", true),
        (r#"["x/y", "z"].contains(resource.path)"#, "*/z", false),
        // What the principal is.
        ("principal.subject == resource.prefix", "*/x", true),
        ("principal.subject == resource.prefix", "you/*", false),
        ("principal.tenant == resource.prefix", "*", true),
        ("principal.roles.contains(resource.item)", "a/b/*", true),
        ("principal.scopes.contains(resource.path)", "*", true),
        ("principal.scopes.contains(resource.path)", "*/*", false),
        (
            "principal.patient_ids.contains(resource.item)",
            "a/b/*",
            true,
        ),
        (
            r#"principal.patient_ids.contains(resource.item) && resource.item != "1""#,
            "a/b/*",
            true,
        ),
        (
            r#"[principal.subject, "x"].contains(resource.item)"#,
            "a/b/*",
            true,
        ),
        // A name that looks like none.
        (r#"resource.prefix != "~""#, "*", true),
        // What only a look at every topic could tell counts as possible.
        (r#"resource.path like "x*""#, "a/**", true),
        ("resource.path\nlike\n\"x*\"", "a/**", true),
        ("resource.prefix == resource.item", "a/**", true),
        (r#"["q"].containsAll([resource.item])"#, "a/**", true),
        // A comment is none of it, a text that looks like one is.
        ("false // like \"", "a/**", false),
        (
            r#"resource.path == "http://x" || resource.path == "a/b""#,
            "a/*",
            true,
        ),
    ] {
        let may = allowed(&when(condition), &of, Action::Read, pattern);
        assert_eq!(may, expected, "{condition}: {pattern}");
    }
    let many: Vec<String> = (0..5_000).map(|n| format!("p{n}")).collect();
    let carer = principal(
        "me",
        &[],
        &[],
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let builtin = Policies::builtin().unwrap();
    assert!(allowed(&builtin, &carer, Action::Read, "alerts/patients/*"));
    assert!(!allowed(&builtin, &carer, Action::Read, "alerts/rooms/*"));
    assert!(!allowed(
        &builtin,
        &carer,
        Action::Read,
        "notifications/*/p1"
    ));
}

#[test]
fn whoever_a_policy_tells_apart_is_of_another_class() {
    let (one, two) = (principal("1", &[], &[], &[]), principal("2", &[], &[], &[]));
    for condition in [
        r#"resource.path == "http://x" || principal.subject == "1""#,
        r#"resource.path == "x" || principal["sub\u{6a}ect"] == "1""#,
        r#"(if resource.path == "x" then principal else principal).subject == "1""#,
        r#"principal.subject like "1*""#,
    ] {
        let policies = set_of(&format!(
            "permit (principal, action, resource) when {{ {condition} }};"
        ));
        assert_ne!(policies.class(&one), policies.class(&two), "{condition}");
        assert!(allowed(&policies, &one, Action::Read, "a"), "{condition}");
        assert!(!allowed(&policies, &two, Action::Read, "a"), "{condition}");
    }
}

#[test]
fn a_template_is_refused_and_not_forgotten() {
    let text = "\nforbid (principal == ?principal, action, resource);";
    match Policies::parse(&[("t.cedar".into(), text.to_owned())]).unwrap_err() {
        PolicyError::Policy { line, .. } => assert_eq!(line, 2),
        other @ PolicyError::File { .. } => panic!("{other}"),
    }
}

/// Conditions in every way that policies are likely to be written.
fn condition() -> impl Strategy<Value = String> {
    let part = || prop::sample::select(vec!["resource.path", "resource.prefix", "resource.item"]);
    let text = || {
        prop::sample::select(vec![
            "\"a\"",
            "\"b\"",
            "\"c\"",
            "\"a/b\"",
            "\"a/b/c\"",
            "\"b/a/b/a\"",
            "\"\"",
            "\"7\"",
            "\"~\"",
            "principal.subject",
            "principal.tenant",
        ])
    };
    let path = || prop::sample::select(vec!["a", "b", "a/b", "b/b", "a/b/c", "b/a/b/a", "a/7"]);
    let own = || prop::sample::select(vec!["roles", "scopes", "patient_ids"]);
    let leaf = prop_oneof![
        (part(), text()).prop_map(|(p, t)| format!("{p} == {t}")),
        (part(), text()).prop_map(|(p, t)| format!("{t} != {p}")),
        (part(), text(), text()).prop_map(|(p, t, u)| format!("[{t}, {u}].contains({p})")),
        (own(), part()).prop_map(|(o, p)| format!("principal.{o}.contains({p})")),
        (own(), text()).prop_map(|(o, t)| format!("principal.{o}.contains({t})")),
        path().prop_map(|p| format!("resource in Tidings::Topic::\"{p}\"")),
        path().prop_map(|p| format!("resource == Tidings::Topic::\"{p}\"")),
        part().prop_map(|p| format!("{p} like \"a*\"")),
        Just("resource.prefix == resource.item".to_owned()),
        Just("resource.tenant == principal.tenant".to_owned()),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

fn segments() -> impl Strategy<Value = BTreeSet<String>> {
    prop::collection::btree_set("[abc78~]|a/b", 0..4)
}

proptest! {
    /// Whatever the policies say: what a pattern is refused for, no topic of it is allowed for.
    #[test]
    fn no_pattern_is_refused_that_leads_somewhere(
        permit in condition(), forbid in condition(), roles in segments(), patients in segments(),
        subject in "[ab79]",
        pattern in "(\\*|a|b)(/(\\*|a|b|7)){0,3}(/\\*\\*)?|\\*\\*",
        topics in prop::collection::vec("[abcq789~](/[abcq789~]){0,4}", 1..40),
    ) {
        let policies = set_of(&format!(
            "permit (principal, action, resource) when {{ {permit} }};\n\
             forbid (principal, action, resource) when {{ {forbid} }};"
        ));
        let mut of = principal(&subject, &[], &["b"], &[]);
        (of.roles, of.patient_ids) = (roles, patients);
        let pattern = Pattern::new(&pattern).unwrap();
        for topic in topics {
            let topic = Topic::new(&topic).unwrap();
            if pattern.matches(topic.as_str()) && policies.allows(&of, Action::Read, &topic) {
                prop_assert!(policies.may_allow(&of, Action::Read, &pattern), "{topic}");
            }
        }
    }

    /// A policy that forbids nothing still opens no other tenant: decisions are about the caller's own, and two callers
    /// that differ in nothing but the tenant share neither class nor kept decisions.
    #[test]
    fn no_decision_crosses_tenants(first in "[a-c]", second in "[a-c]", topic in "[xy](/[xy]){0,2}") {
        let policies = set_of(&format!(
            "permit (principal, action, resource) when {{ resource.tenant == \"{first}\" }};"
        ));
        let topic = Topic::new(&topic).unwrap();
        let mut of = principal("s", &["admin"], &["admin:all"], &[]);
        for tenant in [&first, &second, &first] {
            of.tenant = Tenant::new(tenant).unwrap();
            prop_assert_eq!(policies.allows(&of, Action::Publish, &topic), *tenant == first);
            let foreign = set_of(&format!(
                "permit (principal, action, resource) when {{ resource.tenant != \"{tenant}\" }};"
            ));
            prop_assert!(!foreign.allows(&of, Action::Publish, &topic));
            prop_assert!(!foreign.may_allow(&of, Action::Publish, &Pattern::new("**").unwrap()));
        }
    }

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
