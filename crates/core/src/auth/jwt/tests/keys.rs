//! Keys of an issuer: by address, by file, by discovery, as they rotate.

use super::*;

/// A tiny issuer: answers each path with what it holds, and counts.
struct Issuer {
    address: String,
    pages: Arc<parking_lot::Mutex<std::collections::HashMap<String, String>>>,
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

async fn issuer() -> Issuer {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let issuer = Issuer {
        address,
        pages: Arc::default(),
        asked: Arc::default(),
    };
    let (pages, asked) = (issuer.pages.clone(), issuer.asked.clone());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = vec![0; 8_192];
            let read = socket.read(&mut request).await.unwrap();
            asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let path = String::from_utf8_lossy(&request[..read])
                .split(' ')
                .nth(1)
                .unwrap_or_default()
                .to_owned();
            let page = pages.lock().get(&path).cloned();
            let (status, body) =
                page.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    issuer
}

fn only(names: &[&str]) -> String {
    let keys: Vec<Value> = jwks()["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|k| names.contains(&k["kid"].as_str().unwrap()))
        .cloned()
        .collect();
    json!({ "keys": keys }).to_string()
}

#[tokio::test]
async fn keys_rotate_behind_an_address_without_a_storm() {
    let issuer = issuer().await;
    issuer.pages.lock().insert("/keys".into(), only(&["rsa"]));
    let config = AuthConfig {
        jwks_url: Some(format!("{}/keys", issuer.address)),
        jwks_floor: Duration::from_millis(300),
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let asked = || issuer.asked.load(std::sync::atomic::Ordering::SeqCst);
    let (old, new) = (
        token(Algorithm::RS256, Some("rsa"), "rsa", &claims()),
        token(Algorithm::ES256, Some("p256"), "p256", &claims()),
    );
    assert!(verifier.verify(&old).await.is_ok());
    for _ in 0..20 {
        assert_eq!(
            verifier.verify(&new).await.unwrap_err(),
            Refusal::UnknownKey
        );
    }
    assert_eq!(asked(), 1, "an unknown kid asks again only after the floor");
    issuer.pages.lock().insert("/keys".into(), only(&["p256"]));
    tokio::time::timeout(Duration::from_secs(10), async {
        while verifier.verify(&new).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(asked(), 2);
    // The issuer goes away: what is known stays in use.
    issuer.pages.lock().clear();
    assert!(
        verifier
            .verify(&token(
                Algorithm::ES256,
                Some("p256"),
                "p256",
                &with(json!({ "sub": "2" }))
            ))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_slow_issuer_keeps_nobody_waiting_whose_key_is_known() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let (asked_again, mut is_asked_again) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let mut request = vec![0; 8_192];
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut request).await;
        let body = only(&["rsa"]);
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
        let answer = format!("{head} {}\r\n\r\n{body}", body.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        drop(socket);
        // From now on it takes calls and says nothing.
        let _silent = listener.accept().await.unwrap();
        asked_again.send_replace(true);
        std::future::pending::<()>().await;
    });
    let config = AuthConfig {
        jwks_url: Some(url),
        jwks_refresh: Duration::ZERO,
        jwks_floor: Duration::ZERO,
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let of = |subject: &str| {
        let claims = with(json!({ "sub": subject }));
        token(Algorithm::RS256, Some("rsa"), "rsa", &claims)
    };
    verifier.load_keys().await;
    let (first, second) = (verifier.clone(), of("1"));
    let waits = tokio::spawn(async move { first.verify(&second).await });
    is_asked_again.wait_for(|asked| *asked).await.unwrap();
    let third = of("2");
    let meanwhile = tokio::time::timeout(Duration::from_secs(2), verifier.verify(&third));
    assert!(meanwhile.await.unwrap().is_ok());
    assert!(!waits.is_finished());
    waits.abort();
}

#[tokio::test]
async fn keys_rotate_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let config = AuthConfig {
        jwks_file: Some(file.clone()),
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let of = |kid: &str, subject: &str| {
        let claims = with(json!({ "sub": subject }));
        match kid {
            "ed" => token(Algorithm::EdDSA, Some("ed"), "ed", &claims),
            _ => token(Algorithm::ES256, Some("p256"), "p256", &claims),
        }
    };
    let refused = verifier.verify(&of("ed", "1")).await.unwrap_err();
    assert_eq!(refused, Refusal::KeysUnavailable, "there is no file yet");
    let write = |text: String, age: u64| {
        std::fs::write(&file, text).unwrap();
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + age);
        let opened = std::fs::File::options().write(true).open(&file).unwrap();
        opened.set_modified(at).unwrap();
    };
    write(only(&["ed"]), 1);
    assert!(verifier.verify(&of("ed", "1")).await.is_ok());
    write(only(&["p256"]), 2);
    assert!(verifier.verify(&of("p256", "1")).await.is_ok());
    let refused = verifier.verify(&of("ed", "2")).await.unwrap_err();
    assert_eq!(refused, Refusal::UnknownKey, "its key has gone");
    write("half a docu".into(), 3);
    assert!(verifier.verify(&of("p256", "2")).await.is_ok());
}

#[tokio::test]
async fn a_name_may_stand_for_keys_of_several_kinds_and_none_does_what_it_is_not_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let mut set: Value = serde_json::from_str(&only(&["rsa", "p256", "ed"])).unwrap();
    for key in set["keys"].as_array_mut().unwrap() {
        if key["kid"] == "ed" {
            key["key_ops"] = json!(["sign"]);
        } else {
            key["kid"] = "one".into();
        }
    }
    std::fs::write(&file, set.to_string()).unwrap();
    let config = AuthConfig {
        jwks_file: Some(file),
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    for (algorithm, signer) in [(Algorithm::RS256, "rsa"), (Algorithm::ES256, "p256")] {
        let token = token(algorithm, Some("one"), signer, &claims());
        assert!(verifier.verify(&token).await.is_ok(), "{signer}");
    }
    let token = token(Algorithm::EdDSA, Some("ed"), "ed", &claims());
    assert_eq!(
        verifier.verify(&token).await.unwrap_err(),
        Refusal::Algorithm
    );
}

#[tokio::test]
async fn discovery_takes_only_the_issuer_that_was_asked() {
    let issuer = issuer().await;
    let document = |of: &str| {
        json!({ "issuer": of, "jwks_uri": format!("{}/keys", issuer.address) }).to_string()
    };
    issuer.pages.lock().insert("/keys".into(), only(&["ed"]));
    let config = AuthConfig {
        issuer: Some(issuer.address.clone()),
        jwks_floor: Duration::ZERO,
        ..AuthConfig::default()
    };
    let verifier = verifier(config);
    let token = token(
        Algorithm::EdDSA,
        Some("ed"),
        "ed",
        &with(json!({ "iss": issuer.address })),
    );
    assert_eq!(
        verifier.verify(&token).await.unwrap_err(),
        Refusal::KeysUnavailable,
        "nothing there"
    );
    issuer.pages.lock().insert(
        "/.well-known/openid-configuration".into(),
        document("https://evil"),
    );
    assert_eq!(
        verifier.verify(&token).await.unwrap_err(),
        Refusal::KeysUnavailable,
        "another issuer's document"
    );
    issuer.pages.lock().insert(
        "/.well-known/openid-configuration".into(),
        document(&issuer.address),
    );
    assert!(verifier.verify(&token).await.is_ok());
    issuer.pages.lock().insert(
        "/keys".into(),
        format!("{{\"keys\":[]}}{}", " ".repeat(1024 * 1024)),
    );
    assert!(
        verifier.verify(&token).await.is_ok(),
        "a document over the limit changes nothing"
    );
}
