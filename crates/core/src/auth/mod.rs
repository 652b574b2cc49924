//! Identity and authorization: who is calling, until when, and what they may do. Pure answers; no request types.
//!
//! - `principal`: who is calling
//! - `config`: how tokens are checked and read
//! - `jwt`: a token to a principal; `jwks`: the issuer's keys
//! - `ticket`: strings that are good for one connection; `seal`: the server's own key
//! - `revocation`: what is refused although its signature holds
//! - `users`, `password`, `guesses`: who signs in here, and how guessing is slowed down
//! - `policy`: Cedar policies, decided and cached

mod config;
mod guesses;
mod jwks;
mod jwt;
pub mod password;
mod policy;
mod principal;
mod revocation;
mod seal;
mod ticket;
pub mod users;

pub use config::{AuthConfig, AuthConfigError, Claims};
pub use guesses::Guesses;
pub use jwt::{Identity, MIN_SECRET_BYTES, PASSWORD_NUMBER, Verifier};
pub use policy::{Action, BUILTIN, Class, Policies, PolicyError, PolicyStore, Watching};
pub use principal::{Principal, Refusal, RightsDigest};
pub use revocation::{Revocation, Revocations};
pub use seal::{SealError, Sealer};
pub use ticket::{Redeemed, Ticket, TicketError, Tickets};
