//! `/api/v1/auth/...`: local users sign in, choose a tenant, stay signed in, change their password. All of it is 404 while
//! `auth.local_users` is off.

mod door;

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use tidings_alarms::reading;
use tidings_core::auth::users::{self, User};
use tidings_core::auth::{Identity, PASSWORD_NUMBER, Principal, RightsDigest, password};
use tidings_core::clock::Timestamp;
use tidings_core::db::DbError;
use tidings_core::tenant::Tenant;

pub(crate) use door::Door;

use super::alarms;
use super::streams::peer;
use crate::app::App;
use crate::claims::{Claims, sign};
use crate::http::body;
use crate::http::credential::bearer;
use crate::http::problem::{Kind, Problem};

/// How long a token holds.
const TOKEN_TIME: Duration = Duration::from_secs(30 * 60);
/// What a form is sent as.
const FORM: &str = "application/x-www-form-urlencoded";

/// A tenant as existing clients read it.
#[derive(Debug, Serialize)]
struct ShownTenant<'a> {
    id: &'a str,
    display_name: &'a str,
}

fn shown(user: &User) -> Vec<ShownTenant<'_>> {
    let tenants = user.tenants.iter().map(|of| ShownTenant {
        id: of.tenant.as_str(),
        display_name: &of.display_name,
    });
    tenants.collect()
}

/// `POST /api/v1/auth/token`: a name and a password for a token, of the tenant that was asked for, or of the only one.
pub(crate) async fn token(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    is_on(&app)?;
    let (parts, content) = request.into_parts();
    let form = form(&app, &parts, content).await?;
    let (username, given, tenant_id) = reading::object(form, |r| {
        let username = r.required("username", reading::text_up_to(users::MAX_NAME_BYTES));
        let given = r.required("password", reading::text_up_to(usize::MAX));
        let tenant_id = r.optional("tenant_id", |value| Ok(value.as_str().map(str::to_owned)));
        // What OAuth 2 clients send besides.
        r.rest();
        Some((username?, given?, tenant_id.flatten()))
    })?;
    let address = peer(&parts).remote.ip().to_string();
    let known = {
        let name = username.clone();
        let db = app.log.db();
        db.read(move |conn| users::by_name(conn, &name)).await?
    };
    let (hash, user) = known.map_or((None, None), |(user, hash)| (Some(hash), Some(user)));
    let now = app.clock.now();
    let is_right = app
        .door
        .try_password(&username, &address, given.into(), hash, now)
        .await?;
    let Some(user) = user.filter(|_| is_right) else {
        return Err(refused("Incorrect username or password"));
    };
    let tenant = match (
        tenant_id.filter(|id| !id.is_empty()),
        user.tenants.as_slice(),
    ) {
        (_, []) => {
            return Err(Problem::new(
                Kind::Forbidden,
                "this user may work in no tenant",
            ));
        }
        (Some(id), _) => Some(allowed(&user, &id)?),
        (None, [only]) => Some(only.tenant.clone()),
        (None, _) => None,
    };
    let scopes = scopes(&app, &user);
    tracing::info!(subject = user.id, "signed in");
    Ok(secret(json!({
        "access_token": issue(&app, &user, tenant.as_ref(), &scopes, now)?,
        "token_type": "bearer",
        "role": user.role,
        "scopes": scopes,
        "tenants": shown(&user),
        "tenant_id": tenant.as_ref().map(Tenant::as_str),
        "must_change_password": user.must_change_password,
    })))
}

/// `POST /api/v1/auth/refresh`: a fresh token for one that still holds, of the same tenant.
pub(crate) async fn refresh(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let (user, _, identity) = signed_in(&app, &parts).await?;
    let tenant = match &identity.tenant {
        Some(tenant) => Some(allowed(&user, tenant.as_str())?),
        None => None,
    };
    let scopes = scopes(&app, &user);
    let token = issue(&app, &user, tenant.as_ref(), &scopes, app.clock.now())?;
    Ok(secret(
        json!({ "access_token": token, "token_type": "bearer" }),
    ))
}

/// `POST /api/v1/auth/select-tenant`: a token of one of the user's tenants.
pub(crate) async fn select_tenant(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let (user, _, identity) = signed_in(&app, &parts).await?;
    let asked = alarms::object(&app, &parts.headers, content).await?;
    let id = reading::object(asked, |r| r.text("tenant_id"))?;
    let tenant = allowed(&user, &id)?;
    is_not_revoked(&app, &identity, &tenant)?;
    let scopes = scopes(&app, &user);
    let name = user.tenant(&id).map(|of| of.display_name.as_str());
    Ok(secret(json!({
        "access_token": issue(&app, &user, Some(&tenant), &scopes, app.clock.now())?,
        "token_type": "bearer",
        "tenant_id": tenant.as_str(),
        "tenant_name": name,
        "role": user.role,
        "scopes": scopes,
    })))
}

/// `GET /api/v1/auth/tenants`: the user's tenants, as a bare list.
pub(crate) async fn tenants(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let (user, ..) = signed_in(&app, &parts).await?;
    Ok(Json(shown(&user)).into_response())
}

/// `POST /api/v1/auth/change-password`. Tokens of before are good for no refresh any more, but for the one that asked.
pub(crate) async fn change_password(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, content) = request.into_parts();
    let (user, hash, identity) = signed_in(&app, &parts).await?;
    let asked = alarms::object(&app, &parts.headers, content).await?;
    let (current, new) = reading::object(asked, |r| {
        let current = r.required("current_password", reading::text_up_to(usize::MAX));
        let new = r.required("new_password", reading::text_up_to(usize::MAX));
        Some((SecretString::from(current?), SecretString::from(new?)))
    })?;
    let now = app.clock.now();
    let is_same = door::is_same(&current, &new);
    let address = peer(&parts).remote.ip().to_string();
    let is_right = app
        .door
        .try_password(&user.id, &address, current, Some(hash), now)
        .await?;
    if !is_right {
        return Err(refused("Current password is incorrect"));
    }
    if is_same {
        let detail = "the new password is the current one";
        return Err(Problem::invalid("new_password", detail));
    }
    let hashed = app.door.hash(new).await?;
    let hash = hashed.map_err(|e| match e {
        password::PasswordError::Length => Problem::invalid("new_password", &e.to_string()),
        password::PasswordError::Failed => Problem::internal(&e.to_string()),
    })?;
    let id = user.id.clone();
    // A write belongs to a tenant; any of the user's will do.
    let tenant = identity.tenant.clone();
    let tenant = tenant.or_else(|| user.tenants.first().map(|of| of.tenant.clone()));
    let tenant = tenant.ok_or_else(|| refused("this user may work in no tenant"))?;
    let by = identity.token_id.clone();
    let changed = app.log.write::<_, DbError>(&tenant, move |tx| {
        users::set_password(tx, &id, &hash, by.as_deref(), false)
    });
    if !changed.await?.value {
        return Err(refused("this user is no more"));
    }
    tracing::info!(subject = user.id, "password changed");
    let message = "Password changed successfully";
    Ok(Json(json!({ "message": message })).into_response())
}

fn is_on(app: &App) -> Result<(), Problem> {
    if app.config.auth.local_users {
        return Ok(());
    }
    Err(Problem::not_found(
        "this server has no users of its own (auth.local_users)",
    ))
}

/// A credential that is not right.
fn refused(detail: &str) -> Problem {
    metrics::counter!("tidings_auth_failures_total", "reason" => "password").increment(1);
    Problem::new(Kind::Unauthenticated, detail)
}

/// The local user of a request's bearer token, with the hash of the password.
async fn signed_in(app: &App, parts: &Parts) -> Result<(User, String, Identity), Problem> {
    is_on(app)?;
    let token = bearer(&parts.headers)?;
    let identity = app.verifier.identify(&token).await?;
    if let Some(tenant) = &identity.tenant {
        is_not_revoked(app, &identity, tenant)?;
    }
    let id = identity.subject.clone();
    let known = app.log.db().read(move |conn| users::by_id(conn, &id));
    let Some((user, hash)) = known.await? else {
        return Err(refused("the token is of no user of this server"));
    };
    if user.outdates(identity.password_number, identity.token_id.as_deref()) {
        return Err(refused("the password has been changed since"));
    }
    Ok((user, hash, identity))
}

fn is_not_revoked(app: &App, identity: &Identity, tenant: &Tenant) -> Result<(), Problem> {
    let principal = Principal {
        tenant: tenant.clone(),
        subject: identity.subject.as_str().into(),
        roles: std::collections::BTreeSet::new(),
        scopes: std::collections::BTreeSet::new(),
        patient_ids: std::collections::BTreeSet::new(),
        expires_at: Timestamp::from_secs(0),
        issued_at: identity.issued_at,
        token_id: identity.token_id.clone(),
        digest: RightsDigest::default(),
    };
    if app.revocations.refuses(&principal) {
        return Err(tidings_core::auth::Refusal::Revoked.into());
    }
    Ok(())
}

/// The tenant of a name, where the user may work in it. One that is not there is no different.
fn allowed(user: &User, id: &str) -> Result<Tenant, Problem> {
    let found = user.tenant(id).map(|of| of.tenant.clone());
    found.ok_or_else(|| Problem::forbidden("tenant_id", "this user may not work in this tenant"))
}

/// What the user's tokens are good for.
fn scopes(app: &App, user: &User) -> Vec<String> {
    let of_role = || app.config.auth.core.role_scopes.get(&user.role).cloned();
    user.scopes.clone().or_else(of_role).unwrap_or_default()
}

/// Signs a token, with the claims that existing clients and this server's configuration look for.
fn issue(
    app: &App,
    user: &User,
    tenant: Option<&Tenant>,
    scopes: &[String],
    now: Timestamp,
) -> Result<String, Problem> {
    let auth = &app.config.auth.core;
    let fields = &auth.claims;
    let mut claims = Claims::new(auth);
    for name in ["sub", "user_id"] {
        claims.put(&[], name, json!(user.id));
    }
    claims.put(&fields.subject, "sub", json!(user.id));
    claims.put(&[], "username", json!(user.username));
    claims.put(&[], "role", json!(user.role));
    if !fields.roles.iter().any(|path| path == "role") {
        claims.put(&fields.roles, "roles", json!([user.role]));
    }
    claims.put(&[], PASSWORD_NUMBER, json!(user.password_number));
    claims.put(&[], "scopes", json!(scopes));
    if !fields.scopes.iter().any(|path| path == "scopes") {
        let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
        claims.put_scopes(&scopes);
    }
    // An empty one is none, and no default stands in for it.
    let tenant = tenant.map_or("", Tenant::as_str);
    claims.put(&fields.tenant, "tenant_id", json!(tenant));
    let claims = claims.finish(now, TOKEN_TIME);
    sign(auth, &claims).ok_or_else(|| Problem::internal("auth.jwt_secret cannot sign"))
}

/// An answer that nobody may keep.
fn secret(answer: Value) -> Response {
    let mut response = Json(answer).into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A form as an object of texts.
async fn form(app: &App, parts: &Parts, content: axum::body::Body) -> Result<Value, Problem> {
    match body::media_type(&parts.headers)?.as_deref() {
        Some(FORM) => {}
        other => return Err(body::unsupported(other, FORM)),
    }
    let bytes = body::read(&parts.headers, content, app.config.limits.body_other).await?;
    let pairs = form_urlencoded::parse(&bytes);
    let members = pairs.map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())));
    Ok(Value::Object(members.collect()))
}
