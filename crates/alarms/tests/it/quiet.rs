//! tidings advises and never acts on the network: the module has nothing to act with.

use std::path::Path;

/// What the module may stand on. None of it reaches beyond this process but the core, whose log and database it is given.
const ALLOWED: [&str; 12] = [
    "aws-lc-rs",
    "fastrand",
    "foldhash",
    "metrics",
    "parking_lot",
    "serde",
    "serde_json",
    "thiserror",
    "tidings-core",
    "tokio",
    "tracing",
    "uuid",
];

/// Words that a source file would need to reach out.
const REACHING_OUT: [&str; 12] = [
    "std::net",
    "tokio::net",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "reqwest",
    "hyper",
    "std::process",
    "tokio::process",
    "Command::new",
    "ssh",
    "snmp",
];

#[test]
fn no_dependency_reaches_the_network() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let dependencies = manifest
        .split("\n[")
        .find(|part| part.starts_with("dependencies]"));
    let names = dependencies
        .unwrap()
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty());
    let names: Vec<&str> = names
        .map(|line| line.split(['.', ' ', '=']).next().unwrap())
        .collect();
    assert!(names.contains(&"tidings-core"));
    for name in names {
        assert!(
            ALLOWED.contains(&name),
            "{name}: does it act on the network? see docs/adr/0004"
        );
    }
}

#[test]
fn no_source_reaches_the_network() {
    fn walk(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    assert!(files.len() > 20);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for word in REACHING_OUT {
            let is_there = text.match_indices(word).any(|(at, _)| {
                let before = text[..at].chars().next_back();
                !before.is_some_and(char::is_alphanumeric)
            });
            assert!(!is_there, "{word} in {}", file.display());
        }
    }
}
