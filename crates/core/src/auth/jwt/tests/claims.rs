//! What is read from a token: subject, tenant, roles, scopes, wherever an issuer puts them.

use super::*;
use crate::auth::Claims;

#[tokio::test]
async fn claims_are_read_from_where_issuers_put_them() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from(SECRET)),
        audience: vec!["app.example".into()],
        default_tenant: Tenant::new("default").ok(),
        issuer_tenants: [("https://i".to_owned(), "of-issuer".to_owned())].into(),
        directory: [("42".to_owned(), vec!["nurse".to_owned()])].into(),
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let read = async |claims: Value| {
        let mut all = json!({ "aud": "app.example", "exp": NOW + 60 });
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        let p = verifier
            .verify(&token(Algorithm::HS256, None, "hs", &all))
            .await
            .unwrap();
        (
            p.tenant.to_string(),
            p.subject.to_string(),
            p.roles.iter().cloned().collect::<Vec<_>>().join(" "),
            p.scopes.len(),
        )
    };
    let expected = |tenant: &str, subject: &str, roles: &str, scopes| {
        (
            tenant.to_owned(),
            subject.to_owned(),
            roles.to_owned(),
            scopes,
        )
    };
    assert_eq!(
        read(json!({ "sub": 7, "company_id": 3, "roles": ["a", "b"] })).await,
        expected("3", "7", "a b", 0)
    );
    assert_eq!(
        read(json!({ "sub": "x", "tenant_id": "t", "company_id": 3, "role": "viewer" })).await,
        expected("t", "x", "viewer", 8)
    );
    assert_eq!(
        read(json!({ "sub": "x", "iss": "https://i", "scope": "a b" })).await,
        expected("of-issuer", "x", "", 2)
    );
    let nested = json!({ "sub": "x", "realm_access": { "roles": ["r"] }, "resource_access": { "app.example": { "roles": ["q"] } }, "scopes": ["s"] });
    assert_eq!(read(nested).await, expected("default", "x", "q r", 1));
    assert_eq!(
        read(json!({ "sub": "42" })).await,
        expected("default", "42", "nurse", 0)
    );
}

/// A default, another claim, or a table is for what a token does not say, never for what it says wrongly.
#[tokio::test]
async fn what_a_token_says_wrongly_has_no_stand_in() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from(SECRET)),
        default_tenant: Tenant::new("default").ok(),
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let read = async |changes: Value| {
        verifier
            .verify(&token(Algorithm::HS256, None, "hs", &with(changes)))
            .await
    };
    for wrong in [json!(""), json!(["t"]), json!({ "id": "t" }), json!(true)] {
        let refused = read(json!({ "tenant_id": wrong, "company_id": "c" })).await;
        assert_eq!(refused.unwrap_err(), Refusal::NoTenant, "{wrong}");
    }
    let p = read(json!({ "tenant_id": null, "company_id": "c" })).await;
    assert_eq!(p.unwrap().tenant.as_str(), "c");
    let p = read(json!({ "tenant_id": null })).await;
    assert_eq!(p.unwrap().tenant.as_str(), "default");
    for nothing in [
        json!({ "role": "operator", "scopes": [] }),
        json!({ "role": "operator", "scope": "" }),
    ] {
        let p = read(nothing.clone()).await.unwrap();
        assert!(p.scopes.is_empty(), "{nothing}: {:?}", p.scopes);
    }
    let nulls: Value = serde_json::from_str(&format!(
        r#"{{"sub":"s","tenant_id":"t","exp":{},"type":null,"nbf":null,"scope":null,"role":"viewer","jti":7}}"#,
        NOW + 60
    ))
    .unwrap();
    let p = verifier
        .verify(&token(Algorithm::HS256, None, "hs", &nulls))
        .await
        .unwrap();
    assert!(p.has_scope("incident:read"), "null is as good as absent");
    assert_eq!(p.token_id.as_deref(), Some("7"), "so it can be revoked");
}

#[tokio::test]
async fn claims_may_have_addresses_for_names() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from(SECRET)),
        claims: Claims {
            tenant: vec!["https://a.example/tenant".into()],
            roles: vec!["https://a.example/app.roles".into()],
            ..Claims::default()
        },
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let claims = json!({
        "sub": "s", "exp": NOW + 60, "https://a.example/tenant": "t", "tenant_id": "other",
        "https://a.example/app": { "roles": ["r"] },
    });
    let p = verifier
        .verify(&token(Algorithm::HS256, None, "hs", &claims))
        .await
        .unwrap();
    assert_eq!((p.tenant.as_str(), p.has_role("r")), ("t", true));
}
