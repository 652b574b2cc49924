//! `tidings import`: reads events that `export` wrote.
//!
//! - `line`: what a line says, as far as is needed to send it on
//! - `server`, `folder`: the two places that it goes to
//! - `aside`: what could not be taken in

mod aside;
mod folder;
mod line;
mod server;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use self::aside::Count;
use self::folder::Folder;
use self::line::Line;
use self::server::Server;
use super::progress::Progress;
use super::{Failure, ServerArgs};

/// Lines of one request or transaction.
const BATCH: usize = 1_000;

/// `tidings import`: ids and times are kept, cursors are new, a second import adds nothing. A line that cannot be taken in
/// is kept aside as a dead letter, and the next ones go on; the exit code is 1 then.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The token is an administrator's; all events go to its tenant
    #[command(flatten)]
    server: ServerArgs,
    /// Data folder of a server that is not running, in place of --url and --token; made where it is missing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["url", "token", "ca"])]
    data_dir: Option<PathBuf>,
    /// File to read; without it, standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Where events go.
enum To {
    Server(Server),
    Folder(Folder),
}

impl To {
    async fn take(&mut self, lines: Vec<Line>, count: &mut Count) -> Result<(), Failure> {
        match self {
            Self::Server(server) => server.take(lines, count).await,
            Self::Folder(folder) => folder.take(lines, count).await,
        }
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let (mut input, length): (Box<dyn BufRead + Send>, _) = match &args.file {
        Some(path) => {
            let wrong = |e| Failure::usage(format_args!("{}: {e}", path.display()));
            let file = File::open(path).map_err(wrong)?;
            let about = file.metadata().map_err(wrong)?;
            let length = about.is_file().then_some(about.len());
            (Box::new(BufReader::new(file)), length)
        }
        None => (Box::new(BufReader::new(std::io::stdin())), None),
    };
    let mut to = match args.data_dir {
        Some(folder) => To::Folder(Folder::open(folder).await?),
        None => To::Server(Server::new(args.server.client()?)),
    };
    let (mut batch, mut count) = (Vec::new(), Count::default());
    let (mut number, mut bytes, mut position) = (0, Vec::new(), 0);
    let progress = Progress::new(length);
    loop {
        bytes.clear();
        let read = input.read_until(b'\n', &mut bytes);
        if read.map_err(|e| Failure::failed(format_args!("cannot read: {e}")))? == 0 {
            break;
        }
        number += 1;
        position += bytes.len() as u64;
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        progress.event();
        batch.push(Line::read(number, bytes.trim_ascii()));
        if batch.len() == BATCH {
            to.take(std::mem::take(&mut batch), &mut count).await?;
            progress.reach(position);
        }
    }
    if !batch.is_empty() {
        to.take(batch, &mut count).await?;
    }
    progress.finish();
    Ok(count.tell())
}
