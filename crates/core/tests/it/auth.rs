//! Revocations and the server's own key, as the database keeps them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings_core::auth::{Principal, Revocation, Revocations, Sealer, Tickets};
use tidings_core::clock::Timestamp;
use tidings_core::db::Db;
use tidings_core::tenant::Tenant;

use crate::support::{Bed, on_each_backend, tenant};

fn revocation(id: &str, tenant: &Tenant, subject: Option<&str>, token: Option<&str>) -> Revocation {
    Revocation {
        id: id.into(),
        tenant: tenant.clone(),
        subject: subject.map(str::to_owned),
        token_id: token.map(str::to_owned),
        reason: Some("left \u{1F6AA}".into()),
        revoked_by: "admin".into(),
        revoked_at: Timestamp::from_micros(1_790_000_000_123_456),
    }
}

fn principal(tenant: &Tenant, subject: &str) -> Principal {
    Principal {
        tenant: tenant.clone(),
        subject: subject.into(),
        roles: BTreeSet::from(["r".to_owned()]),
        scopes: BTreeSet::new(),
        patient_ids: BTreeSet::from(["42".to_owned()]),
        expires_at: Timestamp::from_secs(1_790_003_600),
        issued_at: Some(Timestamp::from_secs(1_790_000_000)),
        token_id: None,
        digest: tidings_core::auth::RightsDigest::default(),
    }
}

on_each_backend! {
    async fn revocations_are_kept_listed_and_undone_by_tenant(bed: Bed) {
        let target = bed.target.clone();
        tokio::task::spawn_blocking(move || {
            let mut conn = Db::open(target.clone()).unwrap().connect().unwrap();
            let (a, b) = (tenant("a"), tenant("b"));
            let all: Vec<_> = (1..=3).map(|n| revocation(&format!("0{n}"), &a, Some("s"), None)).collect();
            for r in &all {
                Revocations::insert(&mut conn, r).unwrap();
            }
            let foreign = revocation("04", &b, None, Some("t"));
            Revocations::insert(&mut conn, &foreign).unwrap();
            assert!(Revocations::insert(&mut conn, &foreign).is_err(), "an id stands once");
            let mut list = |after, limit| Revocations::list(&mut conn, &a, after, limit).unwrap();
            assert_eq!(list(None, 2), [all[2].clone(), all[1].clone()]);
            assert_eq!(list(Some("02"), 2), [all[0].clone()]);
            assert_eq!(list(Some("01"), 2), []);
            // Another tenant's cannot be undone, nor what is not there.
            assert!(!Revocations::remove(&mut conn, &a, "04").unwrap());
            assert!(!Revocations::remove(&mut conn, &a, "05").unwrap());
            assert!(Revocations::remove(&mut conn, &a, "03").unwrap());
            // After a restart.
            let mut conn = Db::open(target).unwrap().connect().unwrap();
            let known = Revocations::load(&mut conn).unwrap();
            assert!(known.refuses(&principal(&a, "s")));
            assert!(!known.refuses(&principal(&b, "s")) && !known.refuses(&principal(&a, "t")));
            known.undo(&a, "01");
            assert!(known.refuses(&principal(&a, "s")), "one more stands");
            known.undo(&a, "02");
            assert!(!known.refuses(&principal(&a, "s")));
        })
        .await
        .unwrap();
    }
}

on_each_backend! {
    async fn a_ticket_and_its_cookie_open_again_after_a_restart(bed: Bed) {
        let (target, clock) = (bed.target.clone(), bed.clock.clone());
        tokio::task::spawn_blocking(move || {
            let shop = || {
                let mut conn = Db::open(target.clone()).unwrap().connect().unwrap();
                Tickets::new(clock.clone(), Sealer::load(&mut conn).unwrap())
            };
            let of = Arc::new(principal(&tenant("a"), "s"));
            let before = shop();
            let ticket = before.issue(&of, None).unwrap().ticket;
            let cookie = before.redeem(&ticket, None).unwrap().set_cookie.unwrap();
            let after = shop();
            assert!(after.redeem(&ticket, None).is_err(), "a used ticket alone");
            assert_eq!(after.redeem(&ticket, Some(&cookie)).unwrap().principal, of);
        })
        .await
        .unwrap();
    }
}
