//! `tidings user`: who may sign in with a password, where `auth.local_users` is on. Works on the database itself, beside a
//! server that runs or without one.

use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;

use secrecy::SecretString;
use serde_json::json;
use tidings_core::auth::password;
use tidings_core::auth::users::{self, MAX_NAME_BYTES, User, UserTenant};
use tidings_core::db::{Conn, Db, DbError};
use tidings_core::tenant::Tenant;
use uuid::Uuid;

use super::{ConfigArgs, Failure, print, warn};
use crate::app::make_folder;
use crate::config::Config;

/// `tidings user`. Passwords are asked for on a terminal, else read from the first line of standard input.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Add a user.
    Add {
        /// Name to sign in with
        #[arg(value_name = "NAME")]
        name: String,
        /// Tenant that the user may work in, and what people call it; may be repeated
        #[arg(long = "tenant", value_name = "TENANT[=DISPLAY NAME]", required = true)]
        tenants: Vec<String>,
        /// Role, as operator, `shift_lead`, engineer, viewer, `tenant_admin` or admin
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Scope; may be repeated. Without any, those of the role
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Let the user choose another password after the first sign-in
        #[arg(long)]
        must_change_password: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print all users, one JSON object a line.
    List {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Remove a user. Tokens that were signed before hold until they end, half an hour at most.
    Remove {
        /// Name of the user
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Give a user another password, which they then have to change.
    Password {
        /// Name of the user
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Add {
            name,
            tenants,
            role,
            scopes,
            must_change_password,
            config,
        } => {
            let config = config.load()?.config;
            let user = User {
                id: Uuid::new_v4().to_string(),
                username: checked("the name", name)?,
                role: checked("--role", role)?,
                scopes: (!scopes.is_empty()).then_some(scopes),
                tenants: tenants
                    .iter()
                    .map(|t| tenant(t))
                    .collect::<Result<_, _>>()?,
                must_change_password,
                password_number: 0,
                changed_by: None,
            };
            add(&config, &user)
        }
        Command::List { config } => {
            let mut conn = open(&config.load()?.config)?;
            for user in users::list(&mut conn).map_err(Failure::failed)? {
                print(&format!("{}\n", shown(&user)))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Remove { name, config } => {
            let mut conn = open(&config.load()?.config)?;
            let removed = users::remove(&mut conn, &name).map_err(Failure::failed)?;
            found(removed, &name)
        }
        Command::Password { name, config } => {
            let mut conn = open(&config.load()?.config)?;
            let known = users::by_name(&mut conn, &name).map_err(Failure::failed)?;
            let Some((user, _)) = known else {
                return found(false, &name);
            };
            let hash = ask()?;
            let changed = users::set_password(&mut conn, &user.id, &hash, None, true);
            found(changed.map_err(Failure::failed)?, &name)
        }
    }
}

fn add(config: &Config, user: &User) -> Result<ExitCode, Failure> {
    if user.scopes.is_none() && !config.auth.core.role_scopes.contains_key(&user.role) {
        let role = &user.role;
        warn(&format!(
            "the role {role} is good for no scope: see auth.role_scopes"
        ));
    }
    if !config.auth.local_users {
        warn("nobody can sign in before auth.local_users is on");
    }
    let mut conn = open(config)?;
    let hash = ask()?;
    let insert = |conn: &mut Conn| users::insert(conn, user, &hash);
    if !in_transaction(&mut conn, insert).map_err(Failure::failed)? {
        let name = &user.username;
        return Err(Failure::failed(format_args!(
            "there is a user {name} already"
        )));
    }
    print(&format!("{}\n", shown(user)))?;
    Ok(ExitCode::SUCCESS)
}

fn in_transaction<T>(
    conn: &mut Conn,
    write: impl FnOnce(&mut Conn) -> Result<T, DbError>,
) -> Result<T, DbError> {
    conn.command("BEGIN")?;
    let result = write(conn);
    conn.command(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn open(config: &Config) -> Result<Conn, Failure> {
    if config.database_url.is_none() {
        make_folder(&config.data_dir).map_err(Failure::failed)?;
    }
    let db = Db::open(config.database()).map_err(Failure::failed)?;
    db.connect().map_err(Failure::failed)
}

fn shown(user: &User) -> serde_json::Value {
    let tenants = user
        .tenants
        .iter()
        .map(|of| json!({ "id": of.tenant.as_str(), "display_name": of.display_name }));
    json!({
        "username": user.username,
        "subject": user.id,
        "role": user.role,
        "scopes": user.scopes,
        "tenants": tenants.collect::<Vec<_>>(),
        "must_change_password": user.must_change_password,
    })
}

fn found(is_found: bool, name: &str) -> Result<ExitCode, Failure> {
    if is_found {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::failed(format_args!("there is no user {name}")))
    }
}

fn checked(what: &str, name: String) -> Result<String, Failure> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Failure::usage(format_args!(
            "{what} is 1 to {MAX_NAME_BYTES} bytes without control characters"
        )));
    }
    Ok(name)
}

/// `acme=Acme Networks`, or `acme`.
fn tenant(text: &str) -> Result<UserTenant, Failure> {
    let (name, display_name) = text.split_once('=').unwrap_or((text, text));
    let tenant =
        Tenant::new(name).map_err(|e| Failure::usage(format_args!("--tenant {name:?}: {e}")))?;
    Ok(UserTenant {
        tenant,
        display_name: checked("a tenant's display name", display_name.to_owned())?,
    })
}

/// Asks for a password, and gives its hash.
fn ask() -> Result<String, Failure> {
    let password = if std::io::stdin().is_terminal() {
        let asked = rpassword::prompt_password("Password: ");
        let again = rpassword::prompt_password("Again: ");
        match (asked, again) {
            (Ok(password), Ok(again)) if password == again => password,
            (Ok(_), Ok(_)) => return Err(Failure::usage("the two passwords are not the same")),
            (Err(e), _) | (_, Err(e)) => {
                return Err(Failure::failed(format_args!(
                    "cannot ask for the password: {e}"
                )));
            }
        }
    } else {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|e| Failure::failed(format_args!("cannot read the password: {e}")))?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    password::hash(&SecretString::from(password)).map_err(|e| match e {
        password::PasswordError::Length => Failure::usage(e),
        password::PasswordError::Failed => Failure::failed(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_may_have_a_name_for_people() {
        let read = tenant("acme=Acme = Networks").unwrap();
        assert_eq!(read.tenant.as_str(), "acme");
        assert_eq!(read.display_name, "Acme = Networks");
        assert_eq!(tenant("acme").unwrap().display_name, "acme");
        assert!(tenant("=x").is_err() && tenant("a=").is_err());
    }
}
