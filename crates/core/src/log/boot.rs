//! Notices a database that is not the one that was here before: restored from a copy, or replaced.
//!
//! Each start writes a random mark into the database and into a small file beside it. Where the two do not agree, the
//! database has gone back in time: cursors that clients hold may name places that it never had, so every epoch changes.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::cursor::Epoch;
use crate::db::{Conn, DbError};

/// Compares the marks, renews the epochs where they differ, and sets new marks.
pub(super) fn mark(conn: &mut Conn, file: Option<&Path>) -> Result<(), DbError> {
    let stands = conn.row("SELECT value FROM facts WHERE name = 'boot'", &[], |row| {
        Ok(row.text(0)?.to_owned())
    })?;
    let Some(file) = file else { return Ok(()) };
    let beside = fs::read_to_string(file).ok();
    let known: Vec<&str> = beside.as_deref().unwrap_or_default().lines().collect();
    if let (Some(stands), false) = (&stands, known.is_empty())
        && !known.contains(&stands.as_str())
    {
        tracing::warn!("the database is not the one that was here before: every cursor is reset");
        renew_epochs(conn)?;
    }
    let new = Epoch::random().map_err(|e| DbError::Fault(e.to_string()))?;
    // Both marks count until the database has the new one: a crash in between changes nothing.
    write(file, &[stands.as_deref().unwrap_or_default(), new.as_str()])?;
    conn.execute(
        "INSERT INTO facts (name, value) VALUES ('boot', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[new.as_str().into()],
    )?;
    write(file, &[new.as_str()])
}

/// Gives every tenant's log a new epoch.
pub(super) fn renew_epochs(conn: &mut Conn) -> Result<(), DbError> {
    for number in conn.rows("SELECT number FROM tenants", &[], |row| row.int(0))? {
        let epoch = Epoch::random().map_err(|e| DbError::Fault(e.to_string()))?;
        conn.execute(
            "UPDATE tenants SET epoch = $1 WHERE number = $2",
            &[epoch.as_str().into(), number.into()],
        )?;
    }
    Ok(())
}

fn write(file: &Path, marks: &[&str]) -> Result<(), DbError> {
    let failed = |e: std::io::Error| DbError::Unavailable(format!("{}: {e}", file.display()));
    let beside = file.with_extension("new");
    let mut out = fs::File::create(&beside).map_err(failed)?;
    for mark in marks.iter().filter(|m| !m.is_empty()) {
        writeln!(out, "{mark}").map_err(failed)?;
    }
    out.sync_all().map_err(failed)?;
    fs::rename(&beside, file).map_err(failed)?;
    sync_folder_of(file).map_err(failed)
}

/// A name is on the disk once its folder is: a database with the new mark beside a file with the old one would look
/// restored.
fn sync_folder_of(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(folder) if cfg!(unix) => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
