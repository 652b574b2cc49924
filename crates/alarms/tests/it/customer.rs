//! Customers on a database: consent, proactive care, erasure.

use serde_json::{Value, json};
use tidings_alarms::customer::{Care, NewCare, Place};
use tidings_alarms::incident::{Actor, Incident, NewIncident};
use tidings_alarms::{Alarms, Config, Error};
use tidings_core::hub::Rights;
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Patterns};

use crate::support::{Bed, events, on_each_backend, tenant};

fn ann() -> Actor {
    Actor::caller("ann", None)
}

async fn put(alarms: &Alarms, of: &Tenant, id: &str, consents: bool, entities: &[&str]) {
    let body = json!({
        "name": format!("Name of {id}"), "entity_ids": entities, "churn_risk": 0.9,
        "consents": {"consent_proactive_comms": consents},
    });
    alarms.put_customer(of, id, body).await.unwrap();
}

async fn care(alarms: &Alarms, of: &Tenant, body: Value) -> Care {
    alarms
        .care(of, NewCare::read(body).unwrap(), ann())
        .await
        .unwrap()
}

fn sent(care: &Care) -> Vec<&str> {
    care.sent.iter().map(|r| r.customer_id.as_str()).collect()
}

fn blocked(care: &Care) -> Vec<(&str, &str)> {
    care.blocked
        .iter()
        .map(|b| (b.customer_id.as_str(), b.reason))
        .collect()
}

async fn open(alarms: &Alarms, of: &Tenant, entity: &str) -> Incident {
    let new =
        NewIncident::read(json!({"title": "t", "severity": "major", "entity_id": entity})).unwrap();
    alarms.open_incident(of, new, ann()).await.unwrap().0
}

on_each_backend! {
    async fn customers_are_kept_listed_and_each_tenants_own(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let (a, b) = (tenant("a"), tenant("b"));
        for id in ["c1", "c2", "c3"] {
            put(&alarms, &a, id, false, &["x", "y", "x"]).await;
            bed.clock.advance(std::time::Duration::from_secs(1));
        }
        let (again, is_new) = alarms.put_customer(&a, "c1", json!({"name": "Other"})).await.unwrap();
        assert!(!is_new && again.entity_ids.is_empty() && again.churn_risk.is_none());
        assert_eq!(alarms.customer(&a, "c2").await.unwrap().entity_ids, ["x", "y"]);
        let page = alarms.customers(&a, None, 2).await.unwrap();
        let last = page.last().unwrap();
        assert_eq!((page[0].id.as_str(), last.id.as_str()), ("c3", "c2"));
        let place = Place::parse(&Place(last.created_at, last.id.clone()).to_string());
        let rest = alarms.customers(&a, place, 2).await.unwrap();
        assert_eq!(rest.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["c1"]);
        assert!(matches!(alarms.customer(&b, "c1").await, Err(Error::NotFound { .. })));
        assert!(matches!(alarms.erase_customer(&b, "c1", ann()).await, Err(Error::NotFound { .. })));
        assert!(alarms.customers(&b, None, 2).await.unwrap().is_empty());
        for id in ["", "a/b", "a b", "*"] {
            assert!(matches!(alarms.put_customer(&a, id, json!({})).await, Err(Error::Invalid(_))), "{id}");
        }
    }
}

on_each_backend! {
    async fn only_those_who_consent_are_told_and_withdrawal_holds_at_once(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let (a, b) = (tenant("a"), tenant("b"));
        put(&alarms, &a, "yes", true, &[]).await;
        put(&alarms, &a, "no", false, &[]).await;
        put(&alarms, &b, "theirs", true, &[]).await;
        let ask = json!({"customer_ids": ["yes", "no", "theirs", "yes", "no such"], "message": "we know"});
        let first = care(&alarms, &a, ask.clone()).await;
        assert_eq!(sent(&first), ["yes"]);
        assert_eq!(blocked(&first), [("no", "no_consent"), ("theirs", "not_found"), ("no such", "not_found")]);
        assert_eq!((&first.json()["sent_count"], &first.json()["blocked_count"]), (&json!(1), &json!(3)));
        let told = events(&alarms, &a, "notifications/users/yes").await;
        assert_eq!((told.len(), &told[0].1["message"], &told[0].1["tenant_id"]), (1, &json!("we know"), &json!("a")));
        assert!(events(&alarms, &b, "**").await.is_empty());
        let audited = events(&alarms, &a, "audit/alarms").await;
        let reasons: Vec<_> = audited.iter().map(|(_, data)| (data["customer_id"].as_str().unwrap(), data["reason"].as_str().unwrap(), data["actor"].as_str().unwrap())).collect();
        assert_eq!(reasons, [("no", "no_consent", "ann"), ("theirs", "not_found", "ann"), ("no such", "not_found", "ann")]);
        put(&alarms, &a, "yes", false, &[]).await;
        let second = care(&alarms, &a, ask).await;
        assert!(second.sent.is_empty());
        assert_eq!(events(&alarms, &a, "notifications/users/yes").await.len(), 1);
    }
}

on_each_backend! {
    async fn an_incidents_customers_are_those_of_all_that_hangs_on_it(bed: Bed) {
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        let chain: Vec<String> = (0..10).map(|n| format!("e{n}")).collect();
        for pair in chain.windows(2) {
            alarms.put_entity(&a, &pair[1], json!({"depends_on": [pair[0]]})).await.unwrap();
        }
        put(&alarms, &a, "near", true, &["e0"]).await;
        put(&alarms, &a, "far", true, &["e9", "e8"]).await;
        put(&alarms, &a, "shy", false, &["e3"]).await;
        put(&alarms, &a, "beside", true, &["z"]).await;
        let incident = open(&alarms, &a, "e0").await;
        let care = care(&alarms, &a, json!({"incident_id": incident.id, "message": "m"})).await;
        assert_eq!((sent(&care), blocked(&care)), (vec!["far", "near"], vec![("shy", "no_consent")]));
        assert_eq!(care.sent[0].json()["incident_id"], incident.id.as_str());
        let entries = alarms.incident_entries(&a, &incident.id).await.unwrap();
        assert_eq!(entries.last().unwrap().details, "Told 2 customers; 1 blocked.");
        let at_risk = alarms.care_at_risk(&a, &incident.id, ann()).await.unwrap().unwrap();
        assert_eq!(sent(&at_risk), ["near"], "within five steps");
        let none = NewCare::read(json!({"incident_id": "none", "message": "m"})).unwrap();
        assert!(matches!(alarms.care(&a, none, ann()).await, Err(Error::NotFound { .. })));
        for refused in [
            json!({"message": "m"}), json!({"customer_ids": [], "message": "m"}), json!({"customer_ids": ["c"]}),
            json!({"customer_ids": ["c"], "incident_id": "i", "message": "m"}), json!({"customer_ids": "c", "message": "m"}),
            json!({"customer_ids": ["c"], "message": ""}), json!({"customer_ids": [1], "message": "m"}),
        ] {
            assert!(NewCare::read(refused.clone()).is_err(), "{refused}");
        }
    }
}

on_each_backend! {
    async fn an_erasure_leaves_that_it_happened_and_nothing_of_whom(bed: Bed) {
        const SECRET: &str = "your line in Harbour Street";
        let alarms = bed.open(Config::default()).await;
        let a = tenant("a");
        put(&alarms, &a, "gone", true, &["e"]).await;
        put(&alarms, &a, "stays", true, &["e"]).await;
        care(&alarms, &a, json!({"customer_ids": ["gone"], "message": SECRET})).await;
        put(&alarms, &a, "gone", false, &["e"]).await;
        care(&alarms, &a, json!({"customer_ids": ["gone", "stays"], "message": "other"})).await;
        let log = alarms.log().tenant(&a).await.unwrap();
        let all = Patterns::new(vec![Pattern::new("**").unwrap()]);
        let read = async || alarms.log().read(&log, 0, &all, &Rights::All, 100).await.unwrap().events;
        let before = read().await;
        let erased = alarms.erase_customer(&a, "gone", ann()).await.unwrap();
        assert_eq!((erased.records, erased.events), (1, 2));
        let after = read().await;
        assert_eq!(after.len(), before.len() + 1);
        for (was, is) in before.iter().zip(&after) {
            assert_eq!((was.seq, &was.topic, &was.kind), (is.seq, &is.topic, &is.kind));
            assert_eq!(was.json[..was.data_at], is.json[..is.data_at], "id, time and source stay");
            let data: Value = serde_json::from_str(&is.json[is.data_at..is.json.len() - 1]).unwrap();
            let is_theirs = was.json.contains("\"customer_id\":\"gone\"");
            assert_eq!(is_theirs, data["redacted"] == true, "{}", is.json);
        }
        let told = events(&alarms, &a, "audit/alarms").await;
        let (kind, data) = told.last().unwrap();
        assert_eq!((kind.as_str(), &data["erasure_id"], &data["actor"]), ("customer_erased", &json!(erased.id), &json!("ann")));
        assert!(!data.to_string().contains("gone"));
        let rows = alarms.log().db().read(|conn| {
            let sql = "SELECT COUNT(*) FROM care_records WHERE customer_id = 'gone' OR message_content LIKE '%Harbour%'";
            let theirs = conn.row(sql, &[], |row| row.int(0))?;
            let kept = conn.row("SELECT COUNT(*) FROM care_records", &[], |row| row.int(0))?;
            Ok((theirs, kept))
        });
        assert_eq!(rows.await.unwrap(), (Some(0), Some(2)));
        for found in [alarms.customer(&a, "gone").await.err(), alarms.erase_customer(&a, "gone", ann()).await.err()] {
            assert!(matches!(found, Some(Error::NotFound { .. })));
        }
        assert_eq!(care(&alarms, &a, json!({"customer_ids": ["gone"], "message": "m"})).await.blocked[0].reason, "not_found");
        // On the disk of the embedded database, too.
        drop(alarms);
        for file in bed.files() {
            for text in [SECRET, "Name of gone"] {
                assert!(!file.windows(text.len()).any(|w| w == text.as_bytes()), "{text}");
            }
        }
    }
}
