//! `tidings serve --demo`: a server that is ready to be looked at.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidings_alarms::alarm::Request;
use tidings_alarms::ingest::{Context, native};
use tidings_core::event::{EventType, Json, NewEvent};
use tidings_core::log::Batch;
use tidings_core::retention::{Keep, TopicRule};
use tidings_core::tenant::Tenant;
use tidings_core::topic::{Pattern, Topic};

use super::simulate::traffic::{Simulated, Traffic, entities};
use super::{ConfigArgs, Failure, keygen, token};
use crate::app::{App, make_folder};
use crate::config::{self, Config, Loaded};

/// The tenant that the demo's traffic goes to.
const TENANT: &str = "demo";
/// Who looks at it.
const SUBJECT: &str = "you";
/// How long the sign-in link holds.
const LINK: Duration = Duration::from_secs(12 * 60 * 60);
/// The time between two events of the traffic, on average.
const PACE: Duration = Duration::from_millis(150);
/// Where the generated secret is kept, so that the link holds across restarts.
const SECRET_FILE: &str = "demo-secret";

/// Reads the configuration, with what a demo needs where nothing else is set.
pub(super) fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    let mut sources = args.sources()?;
    let mut presets = vec![
        ("data_dir", "tidings-demo".to_owned()),
        ("auth.query_token", "compat".to_owned()),
    ];
    sources.presets = Some(("serve --demo", presets.clone()));
    let loaded = config::load(&sources).map_err(Failure::usage)?;
    let auth = &loaded.config.auth.core;
    let has_keys = auth.jwt_secret.is_some()
        || auth.jwks_file.is_some()
        || auth.jwks_url.is_some()
        || auth.issuer.is_some();
    if !has_keys {
        presets.push(("auth.jwt_secret", secret(&loaded.config.data_dir)?));
    }
    if !has_keys || auth.jwt_secret.is_some() {
        presets.push(("auth.local_users", "true".to_owned()));
    }
    sources.presets = Some(("serve --demo", presets));
    let mut loaded = config::load(&sources).map_err(Failure::usage)?;
    if loaded.config.retention.topics.is_empty() {
        let pattern = Pattern::new("vitals/**").map_err(Failure::failed)?;
        loaded.config.retention.topics.push(TopicRule {
            pattern,
            keep: Keep::Ephemeral,
        });
    }
    Ok(loaded)
}

fn secret(folder: &Path) -> Result<String, Failure> {
    let file = folder.join(SECRET_FILE);
    if let Ok(secret) = std::fs::read_to_string(&file) {
        return Ok(secret.trim().to_owned());
    }
    let secret = keygen::secret()?;
    make_folder(folder).map_err(Failure::failed)?;
    std::fs::write(&file, format!("{secret}\n"))
        .map_err(|e| Failure::failed(format_args!("{}: {e}", file.display())))?;
    Ok(secret)
}

/// What a person who has started a demo wants to know.
pub(super) fn welcome(config: &Config, address: &str) -> Result<String, Failure> {
    let Ok(token) = token::for_demo(&config.auth.core, TENANT, SUBJECT, LINK) else {
        return Ok(format!(
            "\n  Open  {address}/  and sign in with a token of yours for tenant {TENANT}.\n"
        ));
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n  Open  {address}/#token={token}\n");
    let _ = writeln!(text, "  Publish and follow from another terminal:\n");
    let _ = writeln!(
        text,
        "    export TIDINGS_URL={address} TIDINGS_TOKEN={token}"
    );
    let _ = writeln!(
        text,
        "    curl -N \"$TIDINGS_URL/api/v1/stream?topic=hello\" -H \"Authorization: Bearer $TIDINGS_TOKEN\""
    );
    let _ = writeln!(
        text,
        "    curl \"$TIDINGS_URL/api/v1/events\" -H \"Authorization: Bearer $TIDINGS_TOKEN\" \\"
    );
    let _ = writeln!(
        text,
        "      -H 'Content-Type: application/json' -d '{{\"topic\":\"hello\",\"type\":\"greeting\",\"data\":\"hi\"}}'\n"
    );
    let _ = writeln!(text, "  Ctrl-C ends it.\n");
    Ok(text)
}

/// Traffic of all four kinds, for as long as the server runs.
pub(super) async fn traffic(app: App) {
    let Ok(tenant) = Tenant::new(TENANT) else {
        return;
    };
    if let Err(error) = app.alarms.put_entities(&tenant, entities()).await {
        tracing::warn!(%error, "the demo's network could not be stored");
    }
    let mut traffic = Traffic::new(app.clock.now().as_micros().unsigned_abs());
    loop {
        tokio::time::sleep(PACE.mul_f64(0.5 + fastrand::f64())).await;
        let simulated = traffic.next(app.clock.now());
        if simulated.topic == "alarms" {
            // What else there is of alarms, the server makes by itself.
            if let Some(alarm) = simulated.alarm()
                && let Err(error) = raise(&app, &tenant, alarm).await
            {
                tracing::warn!(%error, "an alarm of the demo's could not be taken in");
            }
            continue;
        }
        let Some(event) = event(&simulated) else {
            continue;
        };
        let batch = Batch {
            subject: "simulator".into(),
            events: vec![event],
            idempotency: None,
        };
        if let Err(error) = app.log.publish(&tenant, batch).await {
            tracing::warn!(%error, "the demo's traffic could not be published");
        }
    }
}

async fn raise(app: &App, tenant: &Tenant, alarm: Value) -> Result<(), tidings_alarms::Error> {
    let context = Context {
        config: app.alarms.config(),
        now: app.clock.now(),
    };
    let request = Request {
        occurrences: vec![native::one(alarm, context)?],
        trace: None,
    };
    app.alarms.ingest(tenant, request).await.map(drop)
}

fn event(simulated: &Simulated) -> Option<NewEvent> {
    let topic = Topic::new(&simulated.topic).ok()?;
    Some(NewEvent::new(
        topic,
        EventType::new(simulated.kind).ok()?,
        Json::encode(&simulated.data).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use tidings_core::clock::Timestamp;

    use super::*;

    #[test]
    fn all_of_the_traffic_can_be_published() {
        let mut traffic = Traffic::new(7);
        for n in 0..2_000 {
            let simulated = traffic.next(Timestamp::from_secs(n));
            assert!(event(&simulated).is_some(), "{simulated:?}");
        }
    }
}
