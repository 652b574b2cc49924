//! The parts of a token, and values in its claims.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use crate::auth::principal::Refusal;
use crate::clock::Timestamp;

/// Follows a dotted path. Names may have dots themselves, as audiences and claims that are addresses do.
pub(super) fn walk<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = given(claims, path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(at, _)| {
        let inner = claims.get(&path[..at]).filter(|v| v.is_object())?;
        walk(inner, &path[at + 1..])
    })
}

pub(super) fn given<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

pub(super) fn header(token: &str) -> Result<Map<String, Value>, Refusal> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::Malformed);
    };
    let header = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)
}

pub(super) fn algorithm(name: &str) -> Result<Algorithm, Refusal> {
    Ok(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return Err(Refusal::Algorithm),
    })
}

/// The claims of a token whose signature holds. The library only verifies: its reading of claims gives up on members of
/// another type than it expects, before we can say which one is wrong.
pub(super) fn signed(
    token: &str,
    key: &DecodingKey,
    algorithm: Algorithm,
) -> Result<Value, Refusal> {
    let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let holds = jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, algorithm);
    let holds = holds.map_err(|e| match e.kind() {
        jsonwebtoken::errors::ErrorKind::Base64(_) => Refusal::Malformed,
        jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => Refusal::Algorithm,
        _ => Refusal::Signature,
    })?;
    if !holds {
        return Err(Refusal::Signature);
    }
    let (_, claims) = message.split_once('.').ok_or(Refusal::Malformed)?;
    let claims = URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| Refusal::Malformed)?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&claims).map_err(|_| Refusal::Malformed)?;
    Ok(Value::Object(claims))
}

/// A `NumericDate`: seconds since the epoch, perhaps with a fraction.
pub(super) fn time(value: Option<&Value>) -> Option<Timestamp> {
    let number = value?.as_number()?;
    if let Some(secs) = number.as_i64() {
        return Some(Timestamp::from_secs(secs));
    }
    let secs = number
        .as_f64()
        .filter(|s| s.is_finite() && s.abs() < 1e12)?;
    let fraction = Duration::try_from_secs_f64(secs.abs()).ok()?;
    let zero = Timestamp::from_secs(0);
    Some(if secs < 0.0 {
        zero.minus(fraction)
    } else {
        zero.plus(fraction)
    })
}

/// A text, or a whole number as one. Other numbers are read inexactly: two of them could become one text.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(all)) => all.iter().filter_map(text).collect(),
        Some(one) => text(one).into_iter().collect(),
        None => Vec::new(),
    }
}
