//! A real Prometheus and a real Alertmanager that point at tidings, each with the token of a tenant of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::alarms_ingest::operator;
use crate::support::{Server, Setup, eventually, free_address};

/// A program that the environment names; none where it may be missing.
fn program(variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    assert!(
        found.is_some() || std::env::var("CI").is_err(),
        "{variable} must name the program in CI: see ./x test"
    );
    if found.is_none() {
        eprintln!("not run: {variable} is not set (./x test sets it)");
    }
    found
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn start(program: &str, folder: &Path, args: &[&str]) -> Self {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }

    fn reload(&self) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rules(folder: &Path, expression: &str) {
    let text = format!(
        "groups:\n- name: g\n  interval: 1s\n  rules:\n  - alert: LinkDown\n    expr: {expression}\n    \
         labels: {{severity: critical, instance: 'n1:9100', zone: b}}\n    annotations: {{summary: n1 is down}}\n"
    );
    std::fs::write(folder.join("rules.yml"), text).unwrap();
}

fn alertmanager(program: &str, server: &Server, token: &str) -> (Running, TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "route:\n  receiver: tidings\n  group_wait: 0s\n  group_interval: 1s\n  repeat_interval: 1h\nreceivers:\n- name: tidings\n  \
         webhook_configs:\n  - url: {}/api/v1/alarms/ingest/alertmanager\n    send_resolved: true\n    http_config:\n      \
         authorization: {{credentials: {token}}}\n",
        server.url()
    );
    std::fs::write(folder.path().join("config.yml"), config).unwrap();
    let address = free_address();
    let args = [
        "--config.file=config.yml",
        "--storage.path=data",
        "--cluster.listen-address=",
        &format!("--web.listen-address={address}"),
    ];
    let running = Running::start(program, folder.path(), &args);
    (running, folder, address)
}

fn prometheus(program: &str, targets: &[(&str, &str)]) -> (Running, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    rules(folder.path(), "vector(1)");
    let managers: String = targets
        .iter()
        .map(|(address, token)| {
            format!(
                "  - api_version: v2\n    authorization: {{credentials: {token}}}\n    static_configs: [{{targets: ['{address}']}}]\n"
            )
        })
        .collect();
    let config = format!(
        "global: {{evaluation_interval: 1s}}\nrule_files: [rules.yml]\nalerting:\n  alertmanagers:\n{managers}"
    );
    std::fs::write(folder.path().join("config.yml"), config).unwrap();
    let args = [
        "--config.file=config.yml",
        "--storage.tsdb.path=data",
        // Its first notice is lost: it looks for who is to be told only every five seconds.
        "--rules.alert.resend-delay=5s",
        &format!("--web.listen-address={}", free_address()),
    ];
    let running = Running::start(program, folder.path(), &args);
    (running, folder)
}

/// The one alarm of a tenant.
fn alarm(server: &Server, token: &str) -> Value {
    server.get("/api/v1/alarms", Some(token)).json()["alarms"][0].clone()
}

#[test]
fn an_alert_of_theirs_is_an_alarm_of_ours_until_it_is_resolved() {
    let (Some(prometheus_program), Some(alertmanager_program)) = (
        program("TIDINGS_TEST_PROMETHEUS"),
        program("TIDINGS_TEST_ALERTMANAGER"),
    ) else {
        return;
    };
    let server = Setup::default().start();
    let (direct, by_webhook) = (operator("a"), operator("b"));
    let (_manager, _manager_folder, manager) =
        alertmanager(&alertmanager_program, &server, &by_webhook);
    let targets = [
        (server.address.as_str(), direct.as_str()),
        (&manager, "none"),
    ];
    let (watcher, folder) = prometheus(&prometheus_program, &targets);
    let ways = [("prometheus", &direct), ("alertmanager", &by_webhook)];
    for (source, token) in ways {
        eventually("it is raised", || {
            alarm(&server, token)["condition"] == "raised"
        });
        let shown = alarm(&server, token);
        assert_eq!(shown["source_system"], source);
        assert_eq!(shown["entity_id"], "n1:9100");
        assert_eq!(shown["alarm_type"], "LinkDown");
        assert_eq!(shown["specific_problem"], "zone=b");
        assert_eq!(shown["severity"], "critical");
        assert_eq!(shown["attributes"]["annotations"]["summary"], "n1 is down");
    }
    // The fault is gone.
    rules(folder.path(), "vector(1) > 2");
    watcher.reload();
    for (_, token) in ways {
        eventually("it is cleared", || {
            alarm(&server, token)["condition"] == "cleared"
        });
        assert_eq!(alarm(&server, token)["raise_count"], 1);
    }
}
