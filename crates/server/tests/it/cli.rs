//! The command line from outside: what each command prints, and its exit code: 0 done, 1 failed, 2 wrong usage.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, Setup, admin, token_of};

/// The binary, with nothing of the caller's environment.
pub(crate) struct Tidings {
    command: Command,
    input: Vec<u8>,
}

/// What became of a command.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn tidings<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Tidings {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    for arg in args {
        command.arg(arg.as_ref());
    }
    command.env_clear();
    Tidings {
        command,
        input: Vec::new(),
    }
}

/// The same of one line of words.
pub(crate) fn line(words: &str) -> Tidings {
    tidings(words.split_ascii_whitespace())
}

impl Tidings {
    pub(crate) fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub(crate) fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// To a server, as somebody.
    pub(crate) fn at(self, server: &Server, token: &str) -> Self {
        self.arg("--url")
            .arg(server.url())
            .arg("--token")
            .arg(token)
    }

    pub(crate) fn spawn(mut self) -> Running {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let (mut stdin, input) = (child.stdin.take().unwrap(), self.input);
        std::thread::spawn(move || {
            // Who does not read is free not to.
            let _ = stdin.write_all(&input);
        });
        let (out, err) = (
            lines(child.stdout.take().unwrap()),
            lines(child.stderr.take().unwrap()),
        );
        Running { child, out, err }
    }

    pub(crate) fn run(self) -> Ran {
        let mut running = self.spawn();
        let code = running.wait();
        let all = |from: &Receiver<String>| from.iter().map(|line| line + "\n").collect();
        Ran {
            code,
            out: all(&running.out),
            err: all(&running.err),
        }
    }

    /// Runs it, and holds it to an exit code.
    #[track_caller]
    pub(crate) fn is(self, code: i32) -> Ran {
        let what = format!("{:?}", self.command.get_args().collect::<Vec<_>>());
        let ran = self.run();
        assert_eq!(ran.code, Some(code), "{what}: {}{}", ran.out, ran.err);
        assert!(!ran.err.contains("panicked"), "{what}: {}", ran.err);
        ran
    }
}

impl Ran {
    /// What it printed is one JSON text a line.
    pub(crate) fn json(&self) -> Vec<Value> {
        let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.out.lines().map(read).collect()
    }
}

/// A command that goes on until it is told to stop. Killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) out: Receiver<String>,
    pub(crate) err: Receiver<String>,
}

impl Running {
    /// The next line on standard output.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let said: Vec<String> = self.err.try_iter().collect();
            panic!("no line comes; it says: {said:?}")
        })
    }

    /// Waits until standard error says something.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> String {
        let mut said = Vec::new();
        while let Ok(line) = self.err.recv_timeout(PATIENCE) {
            if line.contains(text) {
                return line;
            }
            said.push(line);
        }
        panic!("it does not say {text:?} but {said:?}")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let signal = [format!("-{signal}"), self.child.id().to_string()];
        assert!(
            Command::new("kill")
                .args(signal)
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait(&mut self) -> Option<i32> {
        // Some commands measure for a second, on a machine that has other things to do.
        let until = Instant::now() + 3 * PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the command does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Each wrong command line is exit 2, before anything is done, and the text says what is wrong.
#[test]
fn what_is_wrong_with_a_command_line_is_exit_2() {
    let server = Setup::default().start();
    let folder = tempfile::tempdir().unwrap();
    let token = admin();
    let wrong = |command: Tidings, says: &str| {
        let ran = command.within(folder.path()).is(2);
        assert!(ran.err.contains(says), "{says}: {}", ran.err);
        assert_eq!(ran.out, "");
    };
    for (words, says) in [
        ("", "Usage"),
        ("nonsense", "unrecognized"),
        ("serve --nonsense", "--nonsense"),
        ("serve --listen nowhere", "listen"),
        ("serve --policies nowhere", "nowhere"),
        ("token --subject s", "--tenant"),
        ("token --tenant t --subject s", "auth.jwt_secret"),
        ("token --tenant t --subject s --ttl soon", "--ttl"),
        ("token --tenant t --subject s --key nowhere", "nowhere"),
        ("keygen --alg RS256", "--jwks"),
        ("keygen --jwks here --alg XY", "XY"),
        ("publish --topic a --type t", "--url"),
        (
            "publish --url http://127.0.0.1:1 --topic a --type t",
            "--token",
        ),
        ("tail --url http://127.0.0.1:1 --token t", "--topic"),
        ("simulate nonsense", "nonsense"),
        (
            "simulate --url http://127.0.0.1:1 --token t --rate 0",
            "--rate",
        ),
        ("bench", "MODE"),
        ("bench nonsense", "nonsense"),
        ("bench idle --token t", "--url"),
        ("bench idle --connections 0", "--connections"),
        (
            "bench idle --url http://192.0.2.1:1 --token t",
            "--allow-remote",
        ),
        (
            "bench idle --url https://127.0.0.1:1 --token t",
            "plain HTTP",
        ),
        ("export", "--url"),
        ("export --data-dir nowhere", "nowhere"),
        ("export --data-dir . --token t", "--token"),
        ("export --data-dir . --topic a//b", "a//b"),
        ("import nowhere --data-dir here", "nowhere"),
        ("config --json", "--explain"),
        ("config --config nowhere", "nowhere"),
        ("config --set stream.idle", "--set"),
        ("policy", "Usage"),
        ("policy check", "DIR"),
        ("dead-letter", "Usage"),
        ("dead-letter list", "--url"),
        ("migrate --set nonsense=1", "nonsense"),
        ("completions nonsense", "nonsense"),
    ] {
        wrong(line(words), says);
    }
    let at = |words: &str| line(words).at(&server, &token);
    for (words, says) in [
        ("publish --type t --topic a//b", "--topic"),
        ("publish --type t --topic a/*", "--topic"),
        ("publish --topic a --type heartbeat", "--type"),
        ("publish --topic a --type t!", "--type"),
        ("publish --topic a --type t --id ä", "--id"),
        (
            "publish --topic a --type t --idempotency-key ä",
            "--idempotency-key",
        ),
        ("publish --topic a --type t --data {", "--data"),
        ("publish --topic a --type t --data @nowhere", "nowhere"),
        ("publish --topic a --type t --ndjson --id 1", "--id"),
        ("tail --topic a/**/b", "a/**/b"),
        ("tail --topic a --since yesterday", "yesterday"),
        ("tail --topic a --transport pigeon", "pigeon"),
        ("export --topic a//b", "a//b"),
        ("export --out nowhere/file", "nowhere/file"),
        ("dead-letter retry ../status", "../status"),
    ] {
        wrong(at(words), says);
    }
    wrong(
        at("publish --topic a --type t --data -").input("{"),
        "--data",
    );
    wrong(
        at("publish --topic a --type t --ndjson --data -").input("1\n\n{\n"),
        "line 3",
    );
    wrong(
        at("publish --topic a --type t --ndjson --data -").input("\n"),
        "no line",
    );
    wrong(
        at("publish --topic a --type t --subject").arg("a\tb"),
        "--subject",
    );
    let many = (0..65).fold(at("tail"), |command, n| {
        command.arg("--topic").arg(format!("t{n}"))
    });
    wrong(many, "64");
    for url in ["ftp://127.0.0.1", "127.0.0.1:8080", "http://"] {
        wrong(
            line("publish --topic a --type t --token t --url").arg(url),
            "address",
        );
    }
    for broken in ["", " ", "a b", "ä", "a\nb"] {
        let command = tidings(["dead-letter", "list", "--url", &server.url(), "--token"]);
        wrong(command.arg(broken), "--token");
    }
    let made: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert!(made.is_empty(), "{made:?}");
}

/// A command that was right and failed: no server, no rights, refused.
#[test]
fn what_fails_is_exit_1() {
    let server = Setup::default().start();
    let folder = tempfile::tempdir().unwrap();
    let nobody = token_of("a", "nobody", &json!({}));
    let commands = [
        "publish --topic a --type t",
        "tail --topic a",
        "tail --topic a --transport ws",
        "tail --topic a --transport poll",
        "simulate --count 1",
        "bench ingest --seconds 1",
        "bench broadcast --connections 1 --seconds 1",
        "export --topic a",
        "import -- missing",
        "dead-letter list",
        "dead-letter retry 7",
    ];
    for words in commands {
        let run = |url: &str, token: &str, says: &str| {
            std::fs::write(folder.path().join("missing"), "{}\n").unwrap();
            let words = words.replace("-- missing", "missing");
            let command = line(&words).arg("--url").arg(url).arg("--token").arg(token);
            let ran = command.within(folder.path()).is(1);
            assert!(ran.err.contains(says), "{words}: {}", ran.err);
            assert_eq!(ran.out, "", "{words}");
        };
        run("http://127.0.0.1:1", "t", "refused");
        run(&server.url(), "nonsense", "401");
        run(&server.url(), &nobody, "403");
    }
    let refused = |words: &str, says: &str| {
        let ran = line(words).within(folder.path()).is(1);
        assert!(ran.err.contains(says), "{words}: {}", ran.err);
    };
    let data = text(server.folder.path());
    refused(
        &format!("import --data-dir {data} missing"),
        "another tidings process",
    );
    refused(
        &format!("serve --data-dir {data} --listen 127.0.0.1:0"),
        "another tidings process",
    );
    refused(
        &format!("serve --data-dir own --listen {}", server.address),
        "in use",
    );
    refused("serve --data-dir missing --listen 127.0.0.1:0", "missing");
    refused(
        "migrate --set database_url=postgres://127.0.0.1:1/x",
        "database",
    );
    refused("policy check nowhere", "nowhere");
    refused("import --data-dir own missing", "no line names its tenant");
    let unknown = line("dead-letter retry 7").at(&server, &admin()).is(1);
    assert!(
        unknown.err.contains("7: the server answered 404"),
        "{}",
        unknown.err
    );
}

#[test]
fn help_and_version_are_exit_0() {
    assert_eq!(
        line("--version").is(0).out.split(' ').next(),
        Some("tidings")
    );
    let help = line("help").is(0).out;
    for command in [
        "serve",
        "token",
        "keygen",
        "publish",
        "tail",
        "simulate",
        "bench",
        "export",
        "import",
        "openapi",
        "config",
        "policy",
        "dead-letter",
        "migrate",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let own = line(command).arg("--help").is(0).out;
        assert!(own.contains("Usage: tidings"), "{own}");
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = line("completions").arg(shell).is(0).out;
        assert!(
            script.contains("dead-letter") && script.contains("data-dir"),
            "{shell}"
        );
    }
}
