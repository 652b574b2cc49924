//! How tokens are checked and read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::tenant::Tenant;

/// How tokens are checked and read.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// The shared secret of HS256, HS384 and HS512 tokens.
    pub jwt_secret: Option<SecretString>,
    /// A file with the issuer's keys.
    pub jwks_file: Option<PathBuf>,
    /// An address of the issuer's keys.
    pub jwks_url: Option<String>,
    /// The issuer that a token must name. Without other keys, its own are found by OIDC discovery.
    pub issuer: Option<String>,
    /// The audiences of which a token must name one.
    pub audience: Vec<String>,
    /// The tenant of tokens that name none.
    pub default_tenant: Option<Tenant>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Where a token's facts stand.
    pub claims: Claims,
    /// Issuer to tenant, for tokens that name no tenant.
    pub issuer_tenants: BTreeMap<String, String>,
    /// Subject to roles, for tokens that name no role.
    pub directory: BTreeMap<String, Vec<String>>,
    /// Role to scopes, for tokens that name no scope.
    pub role_scopes: BTreeMap<String, Vec<String>>,
    /// How long fetched keys are used.
    pub jwks_refresh: Duration,
    /// The shortest time between two fetches.
    pub jwks_floor: Duration,
}

/// A setting that no token could be checked with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct AuthConfigError {
    /// The setting.
    pub key: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            jwt_secret: None,
            jwks_file: None,
            jwks_url: None,
            issuer: None,
            audience: Vec::new(),
            default_tenant: None,
            leeway: Duration::from_secs(30),
            claims: Claims::default(),
            issuer_tenants: BTreeMap::new(),
            directory: BTreeMap::new(),
            role_scopes: default_role_scopes(),
            jwks_refresh: Duration::from_secs(300),
            jwks_floor: Duration::from_secs(60),
        }
    }
}

/// Dotted paths into a token, the first that is there counts (all of them for roles); `<audience>` stands for each
/// configured audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Of the subject.
    pub subject: Vec<String>,
    /// Of the tenant.
    pub tenant: Vec<String>,
    /// Of the roles.
    pub roles: Vec<String>,
    /// Of the scopes.
    pub scopes: Vec<String>,
    /// Of the patients that the caller may see.
    pub patient_ids: Vec<String>,
}

impl Default for Claims {
    fn default() -> Self {
        let paths = |paths: &[&str]| paths.iter().map(|&p| p.to_owned()).collect();
        Self {
            subject: paths(&["sub"]),
            tenant: paths(&["tenant_id", "company_id"]),
            roles: paths(&[
                "roles",
                "role",
                "realm_access.roles",
                "resource_access.<audience>.roles",
            ]),
            scopes: paths(&["scope", "scopes"]),
            patient_ids: paths(&["patient_ids"]),
        }
    }
}

/// What the roles of a network operations centre are good for.
fn default_role_scopes() -> BTreeMap<String, Vec<String>> {
    const READ: &[&str] = &[
        "tmf642:alarm:read",
        "capacity:plan:read",
        "cx:intelligence:read",
        "topology:read",
        "metrics:read",
        "incident:read",
        "autonomous:read",
        "policy:read",
    ];
    const WRITE: &[&str] = &[
        "tmf642:alarm:write",
        "capacity:plan:write",
        "cx:intelligence:write",
        "metrics:write",
        "incident:write",
    ];
    let table: [(&str, &[&[&str]]); 7] = [
        ("operator", &[READ, WRITE]),
        ("shift_lead", &[READ, WRITE, &["incident:approve_sitrep"]]),
        ("engineer", &[READ, WRITE, &["incident:approve_action"]]),
        ("viewer", &[READ]),
        ("tenant_admin", &[READ, &["users:manage"]]),
        ("editor", &[&["events:read", "events:write"]]),
        (
            "admin",
            &[
                READ,
                WRITE,
                &[
                    "admin:all",
                    "events:read",
                    "events:write",
                    "connections:read",
                    "incident:approve_sitrep",
                    "incident:approve_action",
                    "incident:close",
                    "policy:write",
                    "topology:read_full",
                    "topology:revenue",
                    "topology:write",
                    "users:manage",
                ],
            ],
        ),
    ];
    let scopes = |lists: &[&[&str]]| {
        lists
            .iter()
            .flat_map(|list| list.iter().map(|s| (*s).to_owned()))
            .collect()
    };
    table
        .iter()
        .map(|(role, lists)| ((*role).to_owned(), scopes(lists)))
        .collect()
}
