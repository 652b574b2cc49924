//! Identity and authorization: who is calling, until when, and what they may do. Pure answers; no request types.
//!
//! - `principal`: who is calling
//! - `config`: how tokens are checked and read
//! - `jwt`: a token to a principal; `jwks`: the issuer's keys
//! - `ticket`: strings that are good for one connection; `seal`: the server's own key
//! - `revocation`: what is refused although its signature holds
//! - `policy`: Cedar policies, decided and cached

mod config;
mod jwks;
mod jwt;
mod policy;
mod principal;
mod revocation;
mod seal;
mod ticket;

pub use config::{AuthConfig, AuthConfigError, Claims};
pub use jwt::{MIN_SECRET_BYTES, Verifier};
pub use policy::{Action, BUILTIN, Class, Policies, PolicyError, PolicyStore, Watching};
pub use principal::{Principal, Refusal, RightsDigest};
pub use revocation::{Revocation, Revocations};
pub use seal::{SealError, Sealer};
pub use ticket::{Redeemed, Ticket, TicketError, Tickets};
