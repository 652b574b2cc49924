//! Local users: who may sign in here with a password, where no other system does that.

use crate::db::{Conn, DbError, RowRef};
use crate::tenant::Tenant;

/// The longest name of a user or a role, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// A tenant that a user may work in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTenant {
    /// The tenant.
    pub tenant: Tenant,
    /// What people call it.
    pub display_name: String,
}

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The subject of their tokens. It is not the name: a token of another issuer could have that.
    pub id: String,
    /// The name that they sign in with.
    pub username: String,
    /// What they are, in all of their tenants.
    pub role: String,
    /// What their tokens are good for; without it, what the role is good for.
    pub scopes: Option<Vec<String>>,
    /// Where they may work, by name.
    pub tenants: Vec<UserTenant>,
    /// Whether somebody else chose the password.
    pub must_change_password: bool,
    /// How many passwords there were before this one.
    pub password_number: i64,
    /// The id of the token with which it was chosen, where it was with one.
    pub changed_by: Option<String>,
}

impl User {
    /// Whether a token was signed under another password than this one, and is not the one that chose this one.
    #[must_use]
    pub fn outdates(&self, password_number: Option<i64>, token_id: Option<&str>) -> bool {
        let is_older = password_number != Some(self.password_number);
        is_older && (token_id.is_none() || token_id != self.changed_by.as_deref())
    }

    /// The tenant of this name, where the user may work in it.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&UserTenant> {
        self.tenants.iter().find(|t| t.tenant.as_str() == name)
    }
}

const COLUMNS: &str = "SELECT id, username, role, scopes, must_change_password, password_number, changed_by, password FROM users";

/// Stores a user with the hash of a password. False where the name is taken.
pub fn insert(conn: &mut Conn, user: &User, password: &str) -> Result<bool, DbError> {
    let scopes = user.scopes.as_ref().map(|scopes| scopes.join(" "));
    let inserted = conn.execute(
        "INSERT INTO users (id, username, password, role, scopes, must_change_password, password_number)
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (username) DO NOTHING",
        &[
            (&user.id).into(),
            (&user.username).into(),
            password.into(),
            (&user.role).into(),
            scopes.as_deref().into(),
            i64::from(user.must_change_password).into(),
            user.password_number.into(),
        ],
    )?;
    if inserted == 0 {
        return Ok(false);
    }
    for of in &user.tenants {
        conn.execute(
            "INSERT INTO user_tenants (user_id, tenant, display_name) VALUES ($1, $2, $3)",
            &[
                (&user.id).into(),
                of.tenant.as_str().into(),
                (&of.display_name).into(),
            ],
        )?;
    }
    Ok(true)
}

/// Every user, by name.
pub fn list(conn: &mut Conn) -> Result<Vec<User>, DbError> {
    let mut users = conn.rows(&format!("{COLUMNS} ORDER BY username"), &[], |row| {
        read(row).map(|(user, _)| user)
    })?;
    let sql = "SELECT tenant, display_name, user_id FROM user_tenants ORDER BY user_id, tenant";
    let all = conn.rows(sql, &[], |row| {
        Ok((row.text(2)?.to_owned(), read_tenant(row)?))
    })?;
    for (id, tenant) in all {
        let user = users.iter_mut().find(|user| user.id == id);
        user.into_iter()
            .for_each(|user| user.tenants.push(tenant.clone()));
    }
    Ok(users)
}

/// The user of a name, and the hash of the password.
pub fn by_name(conn: &mut Conn, username: &str) -> Result<Option<(User, String)>, DbError> {
    one(conn, "username", username)
}

/// The user of an id, and the hash of the password.
pub fn by_id(conn: &mut Conn, id: &str) -> Result<Option<(User, String)>, DbError> {
    one(conn, "id", id)
}

/// Replaces a password. `by` is the id of the token with which its owner did; without it, the owner is to choose another.
/// False where the user has gone.
pub fn set_password(
    conn: &mut Conn,
    id: &str,
    password: &str,
    by: Option<&str>,
    must_change: bool,
) -> Result<bool, DbError> {
    let changed = conn.execute(
        "UPDATE users SET password = $2, changed_by = $3, must_change_password = $4, password_number = password_number + 1
         WHERE id = $1",
        &[
            id.into(),
            password.into(),
            by.into(),
            i64::from(must_change).into(),
        ],
    )?;
    Ok(changed > 0)
}

/// Removes a user. False where there is none of the name.
pub fn remove(conn: &mut Conn, username: &str) -> Result<bool, DbError> {
    let sql = "DELETE FROM users WHERE username = $1";
    Ok(conn.execute(sql, &[username.into()])? > 0)
}

fn one(conn: &mut Conn, column: &str, value: &str) -> Result<Option<(User, String)>, DbError> {
    let sql = format!("{COLUMNS} WHERE {column} = $1");
    let Some((mut user, password)) = conn.row(&sql, &[value.into()], read)? else {
        return Ok(None);
    };
    let sql = "SELECT tenant, display_name FROM user_tenants WHERE user_id = $1 ORDER BY tenant";
    user.tenants = conn.rows(sql, &[(&user.id).into()], read_tenant)?;
    Ok(Some((user, password)))
}

fn read(row: RowRef<'_>) -> Result<(User, String), DbError> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let user = User {
        id: row.text(0)?.to_owned(),
        username: row.text(1)?.to_owned(),
        role: row.text(2)?.to_owned(),
        scopes: row.opt_text(3)?.map(words),
        tenants: Vec::new(),
        must_change_password: row.int(4)? != 0,
        password_number: row.int(5)?,
        changed_by: row.opt_text(6)?.map(str::to_owned),
    };
    Ok((user, row.text(7)?.to_owned()))
}

fn read_tenant(row: RowRef<'_>) -> Result<UserTenant, DbError> {
    let tenant = Tenant::new(row.text(0)?).map_err(|e| DbError::Fault(e.to_string()))?;
    Ok(UserTenant {
        tenant,
        display_name: row.text(1)?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_outdates_all_tokens_but_the_one_that_chose_it() {
        let user = User {
            id: "7".into(),
            username: "ann".into(),
            role: "viewer".into(),
            scopes: None,
            tenants: Vec::new(),
            must_change_password: false,
            password_number: 2,
            changed_by: Some("token".into()),
        };
        for (number, token_id, expected) in [
            (Some(1), None, true),
            (Some(1), Some("other"), true),
            (Some(1), Some("token"), false),
            (Some(2), None, false),
            (Some(2), Some("other"), false),
            (None, None, true),
        ] {
            let outdated = user.outdates(number, token_id);
            assert_eq!(outdated, expected, "{number:?} {token_id:?}");
        }
    }
}
