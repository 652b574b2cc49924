//! `tidings token`: a token that the server of the same configuration accepts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tidings_core::auth::AuthConfig;
use tidings_core::clock::{Clock, Timestamp};
use tidings_core::tenant::Tenant;

use super::{ConfigArgs, Failure, print};
use crate::claims::Claims;
use crate::config::parse_duration;

/// `tidings token`. Prints only the token.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tenant that the token is for
    #[arg(long, value_name = "TENANT")]
    tenant: String,
    /// Who it is for: a user, a service, a device
    #[arg(long, value_name = "SUBJECT")]
    subject: String,
    /// A role; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope, such as events:write; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A patient that the subject may see; may be repeated
    #[arg(long = "patient-id", value_name = "PATIENT")]
    patient_ids: Vec<String>,
    /// How long the token holds, such as 30s, 15m, 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// Sign with this private key, as `tidings keygen --jwks` makes it, and not with `auth.jwt_secret`
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

fn ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(ttl) if ttl >= Duration::from_secs(1) => Ok(ttl),
        _ => Err("a time of at least 1s, such as 30s, 15m, 1h or 7d".to_owned()),
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let auth = args.config.load()?.config.auth.core;
    let token = sign(args, &auth, Clock::System.now())?;
    print(&format!("{token}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// An administrator's token, as the demo's sign-in link holds it.
pub(super) fn for_demo(
    auth: &AuthConfig,
    tenant: &str,
    subject: &str,
    ttl: Duration,
) -> Result<String, Failure> {
    let args = Args {
        tenant: tenant.to_owned(),
        subject: subject.to_owned(),
        roles: vec!["admin".to_owned()],
        scopes: Vec::new(),
        patient_ids: Vec::new(),
        ttl,
        key: None,
        config: ConfigArgs::default(),
    };
    sign(&args, auth, Clock::System.now())
}

fn sign(args: &Args, auth: &AuthConfig, now: Timestamp) -> Result<String, Failure> {
    let claims = claims(args, auth, now)?;
    let (header, key) = match (&args.key, &auth.jwt_secret) {
        (Some(path), _) => {
            let pem = std::fs::read(path)
                .map_err(|e| Failure::usage(format_args!("--key {}: {e}", path.display())))?;
            let (key, algorithm, kid) = super::keygen::read_pem(&pem)
                .map_err(|e| Failure::usage(format_args!("--key {}: {e}", path.display())))?;
            let mut header = Header::new(algorithm);
            header.kid = Some(kid);
            (header, key)
        }
        (None, Some(secret)) => (
            Header::new(Algorithm::HS256),
            EncodingKey::from_secret(secret.expose_secret().as_bytes()),
        ),
        (None, None) => {
            let text = "setting auth.jwt_secret is missing: it signs the token (TIDINGS_AUTH_JWT_SECRET; `tidings keygen` makes one)";
            return Err(Failure::usage(text));
        }
    };
    Ok(encode(&header, &claims, &key).context("cannot sign the token")?)
}

/// The claims, where this configuration looks for them.
fn claims(args: &Args, auth: &AuthConfig, now: Timestamp) -> Result<Value, Failure> {
    let tenant = Tenant::new(&args.tenant)
        .map_err(|e| Failure::usage(format_args!("--tenant {:?}: {e}", args.tenant)))?;
    if args.subject.is_empty() {
        return Err(Failure::usage("--subject is empty"));
    }
    let fields = &auth.claims;
    let mut claims = Claims::new(auth);
    claims.put(&fields.subject, "sub", json!(args.subject));
    // The specification's own name, wherever else the configuration looks.
    claims.put(&[], "sub", json!(args.subject));
    claims.put(&fields.tenant, "tenant_id", json!(tenant.as_str()));
    if !args.roles.is_empty() {
        claims.put(&fields.roles, "roles", json!(args.roles));
    }
    // One that holds several, as a `scope` claim does, is several.
    let scopes: Vec<&str> = args
        .scopes
        .iter()
        .flat_map(|s| s.split_whitespace())
        .collect();
    if !scopes.is_empty() {
        claims.put_scopes(&scopes);
    }
    if !args.patient_ids.is_empty() {
        claims.put(&fields.patient_ids, "patient_ids", json!(args.patient_ids));
    }
    Ok(claims.finish(now, args.ttl))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use jsonwebtoken::{DecodingKey, Validation, decode};
    use tidings_core::auth::Verifier;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("token").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.args)
    }

    fn auth() -> AuthConfig {
        AuthConfig {
            jwt_secret: Some("0123456789abcdef0123456789abcdef".into()),
            ..AuthConfig::default()
        }
    }

    fn read(token: &str, auth: &AuthConfig) -> Value {
        let secret = auth.jwt_secret.as_ref().unwrap().expose_secret();
        let key = DecodingKey::from_secret(secret.as_bytes());
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_aud = false;
        decode::<Value>(token, &key, &validation).unwrap().claims
    }

    #[test]
    fn a_token_says_who_and_until_when() {
        let args = parse("--tenant t --subject s --role nurse --role doctor --scope events:read --scope events:write --patient-id 7 --ttl 2h").unwrap();
        let now = Clock::System.now();
        let claims = read(&sign(&args, &auth(), now).unwrap(), &auth());
        assert_eq!(claims["sub"], "s");
        assert_eq!(claims["tenant_id"], "t");
        assert_eq!(claims["roles"], json!(["nurse", "doctor"]));
        assert_eq!(claims["scope"], "events:read events:write");
        assert_eq!(claims["patient_ids"], json!(["7"]));
        assert_eq!(claims["type"], "access");
        assert_eq!(claims["iat"], now.as_secs());
        assert_eq!(claims["exp"], now.as_secs() + 7_200);
        assert!(claims["jti"].as_str().is_some_and(|id| id.len() > 20));
        assert!(claims.get("aud").is_none() && claims.get("iss").is_none());
    }

    #[tokio::test]
    async fn the_server_of_the_same_configuration_accepts_it() {
        let mut auth = auth();
        auth.issuer = Some("https://id.example".into());
        auth.audience = vec!["app".into()];
        auth.claims.tenant = vec!["org.id".into()];
        let args =
            parse("--tenant t --subject s --role r --scope a --scope b --patient-id 7").unwrap();
        let token = sign(&args, &auth, Clock::System.now()).unwrap();
        let principal = Verifier::new(auth, Clock::System)
            .unwrap()
            .verify(&token)
            .await
            .unwrap();
        assert_eq!((principal.tenant.as_str(), &*principal.subject), ("t", "s"));
        assert!(principal.has_role("r") && principal.has_scope("a") && principal.has_scope("b"));
        assert!(principal.patient_ids.contains("7"));
    }

    #[test]
    fn claims_stand_where_the_configuration_looks() {
        let mut auth = auth();
        auth.issuer = Some("https://id.example".into());
        auth.audience = vec!["app".into()];
        auth.claims.roles = vec!["resource_access.<audience>.roles".into()];
        auth.claims.tenant = vec!["org.id".into()];
        auth.claims.scopes = vec!["scopes".into()];
        let args = parse("--tenant t --subject s --role r --scope x").unwrap();
        let claims = read(&sign(&args, &auth, Clock::System.now()).unwrap(), &auth);
        assert_eq!(claims["resource_access"]["app"]["roles"], json!(["r"]));
        assert_eq!(claims["org"]["id"], "t");
        assert_eq!(claims["scopes"], json!(["x"]));
        assert_eq!(claims["iss"], "https://id.example");
        assert_eq!(claims["aud"], "app");
    }

    #[test]
    fn what_is_wrong_is_wrong_usage() {
        assert!(parse("--tenant t --subject s --ttl soon").is_err());
        assert!(parse("--tenant t --subject s --ttl 0").is_err());
        assert!(parse("--subject s").is_err());
        let now = Clock::System.now();
        let args = parse("--tenant t --subject s").unwrap();
        let failure = sign(&args, &AuthConfig::default(), now).unwrap_err();
        assert!(failure.code == 2 && failure.message.contains("auth.jwt_secret"));
        let args = parse("--tenant t --subject s --key /nowhere.pem").unwrap();
        assert_eq!(sign(&args, &auth(), now).unwrap_err().code, 2);
    }
}
