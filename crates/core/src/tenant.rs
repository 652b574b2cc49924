//! The isolation boundary. Every event, row, connection and metric belongs to exactly one tenant.

use std::fmt;
use std::sync::Arc;

/// A tenant's name as its credential states it. Only authentication (and the operator's own command line) makes one;
/// no body, query or header of a request ever does.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// The longest tenant name, in bytes: it stands in every index key.
pub const MAX_TENANT_BYTES: usize = 128;

/// The name is empty, longer than [`MAX_TENANT_BYTES`], or has a control character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is 1 to {MAX_TENANT_BYTES} bytes without control characters")]
pub struct InvalidTenant;

impl Tenant {
    /// Checks and takes a tenant name.
    pub fn new(name: &str) -> Result<Self, InvalidTenant> {
        if name.is_empty() || name.len() > MAX_TENANT_BYTES || name.chars().any(char::is_control) {
            return Err(InvalidTenant);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
