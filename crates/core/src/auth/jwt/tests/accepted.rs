//! What is accepted, for how long, and that nothing else is.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn every_algorithm_that_is_promised() {
    let bed = bed(true, true, false);
    for (algorithm, kid) in [
        (Algorithm::HS256, "hs"),
        (Algorithm::HS384, "hs"),
        (Algorithm::HS512, "hs"),
        (Algorithm::RS256, "rsa"),
        (Algorithm::RS384, "rsa"),
        (Algorithm::RS512, "rsa"),
        (Algorithm::PS256, "rsa"),
        (Algorithm::ES256, "p256"),
        (Algorithm::ES384, "p384"),
        (Algorithm::EdDSA, "ed"),
    ] {
        let principal = bed
            .verifier
            .verify(&token(algorithm, Some(kid), kid, &claims()))
            .await;
        assert_eq!(
            principal.as_ref().map(|p| p.tenant.to_string()),
            Ok("t".to_owned()),
            "{algorithm:?}"
        );
    }
    // One key of a kind needs no name.
    assert!(
        bed.verifier
            .verify(&token(Algorithm::ES256, None, "p256", &claims()))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_remembered_token_still_ends() {
    let bed = bed(true, false, false);
    let token = token(Algorithm::HS256, None, "hs", &claims());
    assert!(bed.verifier.verify(&token).await.is_ok());
    bed.clock.advance(Duration::from_secs(89));
    assert!(
        bed.verifier.verify(&token).await.is_ok(),
        "within the leeway"
    );
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(
        bed.verifier.verify(&token).await.unwrap_err(),
        Refusal::Expired
    );
}

#[test]
fn a_short_secret_is_refused() {
    let config = AuthConfig {
        jwt_secret: Some(SecretString::from("short")),
        ..AuthConfig::default()
    };
    assert_eq!(
        Verifier::new(config, Clock::System).unwrap_err().key,
        "auth.jwt_secret"
    );
}

proptest! {
    #[test]
    fn no_text_is_a_token_and_none_panics(text in "\\PC{0,80}|[A-Za-z0-9_-]{0,30}(\\.[A-Za-z0-9_-]{0,30}){2}") {
        let bed = bed(true, false, false);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        prop_assert!(runtime.block_on(bed.verifier.verify(&text)).is_err());
    }

    /// Whatever a token says beside its tenant claim, it never gets another tenant.
    #[test]
    fn a_tenant_comes_from_its_claim_alone(name in "[a-z_]{1,12}", value in "[a-z]{1,8}") {
        prop_assume!(!["sub", "exp", "iat", "nbf", "iss", "aud", "type", "tenant_id"].contains(&name.as_str()));
        let bed = bed(true, false, false);
        let token = token(Algorithm::HS256, None, "hs", &with(json!({ name: value })));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let principal = runtime.block_on(bed.verifier.verify(&token)).unwrap();
        prop_assert_eq!(principal.tenant.as_str(), "t");
    }
}

#[tokio::test]
async fn a_token_of_ours_is_identified_without_a_tenant_but_nothing_else_is() {
    let bed = bed(true, true, false);
    let sign = |changes: Value| token(Algorithm::HS256, None, "hs", &with(changes));
    let none = sign(json!({ "tenant_id": "", "jti": "j" }));
    let identity = bed.verifier.identify(&none).await.unwrap();
    assert_eq!((&*identity.subject, identity.tenant), ("s", None));
    assert_eq!(identity.token_id.as_deref(), Some("j"));
    assert_eq!(identity.issued_at, Some(Timestamp::from_secs(NOW - 60)));
    // The same token is no principal, whatever default there is.
    assert_eq!(
        bed.verifier.verify(&none).await.unwrap_err(),
        Refusal::NoTenant
    );
    let whole = bed.verifier.identify(&sign(json!({}))).await.unwrap();
    assert_eq!(whole.tenant.unwrap().as_str(), "t");
    for (changes, refusal) in [
        (json!({ "exp": NOW - 60 }), Refusal::Expired),
        (json!({ "type": "refresh" }), Refusal::TokenType),
        (json!({ "sub": null }), Refusal::Subject),
        (json!({ "nbf": NOW + 60 }), Refusal::NotYet),
    ] {
        let refused = bed.verifier.identify(&sign(changes)).await;
        assert_eq!(refused.unwrap_err(), refusal);
    }
    let foreign = token(Algorithm::ES256, Some("p256"), "p256", &claims());
    assert!(bed.verifier.verify(&foreign).await.is_ok());
    assert_eq!(
        bed.verifier.identify(&foreign).await.unwrap_err(),
        Refusal::Algorithm
    );
}
