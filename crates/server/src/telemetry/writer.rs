//! A thread that writes records, so that nobody who logs ever waits for a terminal, a pipe or a disk.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Records that may wait for the thread: some megabytes at most, seconds of a busy server's log.
const WAITING: usize = 8_192;
/// How long the end waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(2);

enum Message {
    Record(String),
    End,
}

/// Where records are left to be written. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Record(_) => "Record",
            Self::End => "End",
        })
    }
}

impl Queue {
    /// Leaves a line; one that does not fit is counted and dropped.
    pub(super) fn leave(&self, line: String) {
        if !self.try_leave(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            super::metrics::log_dropped();
        }
    }

    /// Leaves a line that says how many have not fitted, if any have not and this one does.
    pub(super) fn confess(&self, line: impl FnOnce(u64) -> String) {
        if self.dropped.load(Ordering::Relaxed) == 0 {
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 && !self.try_leave(line(dropped)) {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn try_leave(&self, line: String) -> bool {
        self.sender.try_send(Message::Record(line)).is_ok()
    }
}

/// The thread. Its drop writes what waits.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Queue,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(out: Box<dyn Write + Send>) -> std::io::Result<Self> {
        Self::with_capacity(out, WAITING)
    }

    pub(super) fn with_capacity(
        out: Box<dyn Write + Send>,
        waiting: usize,
    ) -> std::io::Result<Self> {
        let (sender, records) = sync_channel(waiting);
        let (finish, done) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                write_all(&records, out);
                // The other end may have given up waiting.
                let _ = finish.try_send(());
            })?;
        let queue = Queue {
            sender,
            dropped: Arc::default(),
        };
        Ok(Self {
            queue,
            done,
            thread: Some(thread),
        })
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }
}

/// Writes until the end, as much at a time as waits. An output that fails loses its records: there is nowhere to say so.
fn write_all(records: &Receiver<Message>, mut out: Box<dyn Write + Send>) {
    let mut bytes = Vec::with_capacity(64 * 1024);
    let mut is_open = true;
    while is_open {
        let Ok(first) = records.recv() else {
            return;
        };
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Record(line) => bytes.extend_from_slice(line.as_bytes()),
                Message::End => {
                    is_open = false;
                    break;
                }
            }
            next = if bytes.len() < 64 * 1024 {
                records.try_recv().ok()
            } else {
                None
            };
        }
        let _ = out.write_all(&bytes).and_then(|()| out.flush());
        bytes.clear();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut message = Message::End;
        // A full queue takes the end as soon as the thread has written a batch.
        for _ in 0..200 {
            match self.queue.sender.try_send(message) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => break,
                Err(TrySendError::Full(back)) => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        match self.done.recv_timeout(PATIENCE) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if let Some(thread) = self.thread.take() {
                    // A panic of the thread has been printed already.
                    let _ = thread.join();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
