//! The thread that brings into the database what the journal has made durable.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::super::store::{self, NewRow};
use crate::db::{Conn, Db, DbError};

/// Brings events in, some hundred at a time, while the committer goes on.
#[derive(Debug)]
pub(super) struct Storer {
    tasks: SyncSender<Vec<NewRow>>,
    done: Receiver<Done>,
    is_busy: bool,
}

/// The events that it was given, and whether they are in the database.
pub(super) struct Done {
    pub(super) rows: Vec<NewRow>,
    pub(super) result: Result<(), DbError>,
}

impl Storer {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(db: &Db) -> Result<Self, DbError> {
        let mut conn = db.connect()?;
        let (tasks, given) = sync_channel::<Vec<NewRow>>(1);
        let (tell, done) = sync_channel(1);
        thread::Builder::new()
            .name("storer".into())
            .spawn(move || {
                while let Ok(rows) = given.recv() {
                    let result = store_all(&mut conn, &rows);
                    if result.is_err() {
                        let _ = conn.command("ROLLBACK");
                    }
                    if tell.send(Done { rows, result }).is_err() {
                        break;
                    }
                }
            })
            .map_err(|e| DbError::Unavailable(format!("no thread: {e}")))?;
        Ok(Self {
            tasks,
            done,
            is_busy: false,
        })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Gives it events to bring in. It must not be busy; where its thread is gone they come back.
    pub(super) fn give(&mut self, rows: Vec<NewRow>) -> Result<(), Vec<NewRow>> {
        self.tasks.send(rows).map_err(|e| e.0)?;
        self.is_busy = true;
        Ok(())
    }

    /// What it has done since, if it is ready.
    pub(super) fn look(&mut self) -> Option<Done> {
        let done = self.done.try_recv().ok()?;
        self.is_busy = false;
        Some(done)
    }

    /// Waits until it is ready.
    pub(super) fn wait(&mut self) -> Option<Done> {
        if !self.is_busy {
            return None;
        }
        self.is_busy = false;
        self.done.recv().ok()
    }
}

fn store_all(conn: &mut Conn, rows: &[NewRow]) -> Result<(), DbError> {
    conn.command("BEGIN IMMEDIATE")?;
    store::insert(conn, rows)?;
    conn.command("COMMIT")
}
