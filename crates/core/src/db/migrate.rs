//! Brings the schema up to date. Each migration has one name and a text per backend; the two folders hold the same names.

use aws_lc_rs::digest;

use super::{Conn, DbError};

struct Migration {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        [$(Migration {
            name: $name,
            sqlite: include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            postgres: include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        }),*]
    };
}

const MIGRATIONS: &[Migration] = &migrations![
    "0001_core_log",
    "0002_core_auth",
    "0101_alarms_network",
    "0102_alarms_alarm",
    "0103_alarms_clusters",
    "0104_alarms_incidents",
    "0105_users",
    "0106_alarms_merged",
];

/// Runs what has not run yet, in one transaction. A migration that changed after it ran is refused.
pub(super) fn run(conn: &mut Conn) -> Result<(), DbError> {
    match conn {
        // The lock number is the first eight bytes of "tidings" in ASCII: any fixed number of ours.
        Conn::Postgres(_) => {
            conn.batch("BEGIN; SELECT pg_advisory_xact_lock(8388344923427435379);")?;
        }
        Conn::Sqlite(_) => conn.batch("BEGIN IMMEDIATE")?,
    }
    let result = apply(conn);
    conn.batch(if result.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    result
}

fn apply(conn: &mut Conn) -> Result<(), DbError> {
    conn.batch(
        "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, checksum TEXT NOT NULL)",
    )?;
    let done = conn.rows("SELECT name, checksum FROM migrations", &[], |row| {
        Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))
    })?;
    if let Some((name, _)) = done
        .iter()
        .find(|(name, _)| MIGRATIONS.iter().all(|m| m.name != name))
    {
        return Err(DbError::Fault(format!(
            "the database has migration {name} of a newer version of tidings"
        )));
    }
    for migration in MIGRATIONS {
        let sql = if matches!(conn, Conn::Postgres(_)) {
            migration.postgres
        } else {
            migration.sqlite
        };
        let hash = digest::digest(&digest::SHA256, sql.as_bytes());
        let checksum: String = hash.as_ref()[..16]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        match done.iter().find(|(name, _)| name == migration.name) {
            Some((_, stands)) if *stands == checksum => {}
            Some(_) => {
                return Err(DbError::Fault(format!(
                    "migration {} is not the one that ran on this database",
                    migration.name
                )));
            }
            None => {
                conn.batch(sql)?;
                conn.execute(
                    "INSERT INTO migrations (name, checksum) VALUES ($1, $2)",
                    &[migration.name.into(), checksum.as_str().into()],
                )?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    #[test]
    fn both_folders_hold_the_same_names_and_all_of_them_run() {
        let names = |backend: &str| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("migrations")
                .join(backend);
            let mut names: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|f| f.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let run: Vec<_> = MIGRATIONS
            .iter()
            .map(|m| format!("{}.sql", m.name))
            .collect();
        assert_eq!(names("sqlite"), run);
        assert_eq!(names("postgres"), run);
    }
}
