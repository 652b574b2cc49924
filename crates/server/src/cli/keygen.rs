//! `tidings keygen`: a shared secret, or a key pair and its JWKS.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{Failure, print};

/// Bytes of a fresh secret: as many as HS512 can use.
const SECRET_BYTES: usize = 64;
/// The private key's file.
const PRIVATE: &str = "private.pem";
/// The public keys' file.
const JWKS: &str = "jwks.json";

/// `tidings keygen`. Without a flag: a fresh shared secret for `auth.jwt_secret`, on standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write a key pair to this folder: private.pem, and jwks.json for `auth.jwks_file`
    #[arg(long, value_name = "DIR")]
    jwks: Option<PathBuf>,
    /// Algorithm of the key pair
    #[arg(long, value_enum, default_value_t = Alg::Es256, requires = "jwks")]
    alg: Alg,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Alg {
    /// ECDSA on P-256
    #[value(name = "ES256", alias = "es256")]
    Es256,
    /// Ed25519
    #[value(name = "EdDSA", alias = "eddsa")]
    EdDsa,
    /// RSA with 2,048 bits
    #[value(name = "RS256", alias = "rs256")]
    Rs256,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    match &args.jwks {
        None => print(&format!("{}\n", secret()?))?,
        Some(dir) => {
            let kid = write_pair(dir, args.alg)?;
            print(&format!(
                "{}\n{}\nkid {kid}\n",
                dir.join(PRIVATE).display(),
                dir.join(JWKS).display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A fresh secret of 64 random bytes, as text.
pub(crate) fn secret() -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Writes a new pair and adds its public half to the folder's JWKS. Says the key's id.
fn write_pair(dir: &Path, alg: Alg) -> anyhow::Result<String> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (pem, jwk) = generate(alg)?;
    let kid = jwk.common.key_id.clone().unwrap_or_default();
    let jwks_path = dir.join(JWKS);
    let jwks = with_key(&jwks_path, &jwk)?;
    let path = dir.join(PRIVATE);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).with_context(|| {
        format!(
            "cannot write {} (a key that is there is never overwritten: move it away first)",
            path.display()
        )
    })?;
    file.write_all(pem.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    // Beside it and renamed, so that a server that watches the file never reads half of it.
    let fresh = dir.join("jwks.json.new");
    fs::write(&fresh, jwks)
        .and_then(|()| fs::rename(&fresh, &jwks_path))
        .with_context(|| format!("cannot write {}", jwks_path.display()))?;
    Ok(kid)
}

/// The JWKS of a file, if there is one, and the new key.
fn with_key(path: &Path, jwk: &Jwk) -> anyhow::Result<String> {
    let mut keys = match fs::read_to_string(path) {
        Ok(text) => {
            let set: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            let keys = set.get("keys").and_then(Value::as_array);
            keys.cloned()
                .with_context(|| format!("{} is no JWKS", path.display()))?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    keys.push(serde_json::to_value(jwk)?);
    let mut text = serde_json::to_string_pretty(&json!({"keys": keys}))?;
    text.push('\n');
    Ok(text)
}

/// A private key as PKCS #8 in PEM, and its public half.
fn generate(alg: Alg) -> anyhow::Result<(String, Jwk)> {
    let random = SystemRandom::new();
    let failed = |what: &str| anyhow!("cannot make {what} key");
    let (der, algorithm) = match alg {
        Alg::Es256 => {
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
                .map_err(|_| failed("an EC"))?;
            (der.as_ref().to_vec(), Algorithm::ES256)
        }
        Alg::EdDsa => {
            let der =
                Ed25519KeyPair::generate_pkcs8v1(&random).map_err(|_| failed("an Ed25519"))?;
            (der.as_ref().to_vec(), Algorithm::EdDSA)
        }
        Alg::Rs256 => {
            let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048)
                .map_err(|_| failed("an RSA"))?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed("an RSA"))?;
            (der.as_ref().to_vec(), Algorithm::RS256)
        }
    };
    let pem = to_pem(&der);
    let key = signing_key(pem.as_bytes(), algorithm)?;
    let mut jwk = Jwk::from_encoding_key(&key, algorithm)?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((pem, jwk))
}

fn signing_key(pem: &[u8], algorithm: Algorithm) -> anyhow::Result<EncodingKey> {
    Ok(match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem)?,
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem)?,
        _ => EncodingKey::from_rsa_pem(pem)?,
    })
}

fn to_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

/// The key of a private PEM file, its algorithm, and its id: the thumbprint that `keygen` put into the JWKS.
pub(super) fn read_pem(pem: &[u8]) -> anyhow::Result<(EncodingKey, Algorithm, String)> {
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256] {
        if let Ok(key) = signing_key(pem, algorithm)
            && let Ok(jwk) = Jwk::from_encoding_key(&key, algorithm)
        {
            let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
            return Ok((key, algorithm, kid));
        }
    }
    Err(anyhow!("it holds no private key for ES256, EdDSA or RS256"))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Header, Validation, decode, encode};

    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, two) = (secret().unwrap(), secret().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 86);
    }

    #[test]
    fn what_a_private_key_signs_its_jwks_verifies() {
        for alg in [Alg::Es256, Alg::EdDsa, Alg::Rs256] {
            let dir = tempfile::tempdir().unwrap();
            let kid = write_pair(dir.path(), alg).unwrap();
            let pem = fs::read(dir.path().join(PRIVATE)).unwrap();
            let (key, algorithm, named) = read_pem(&pem).unwrap();
            assert_eq!(named, kid, "{alg:?}");
            let token = encode(
                &Header::new(algorithm),
                &json!({"sub": "a", "exp": 9_999_999_999_u64}),
                &key,
            );
            let set: JwkSet =
                serde_json::from_slice(&fs::read(dir.path().join(JWKS)).unwrap()).unwrap();
            let jwk = set.find(&kid).unwrap();
            assert!(!serde_json::to_string(jwk).unwrap().contains("\"d\""));
            let verifying = DecodingKey::from_jwk(jwk).unwrap();
            decode::<Value>(&token.unwrap(), &verifying, &Validation::new(algorithm)).unwrap();
        }
    }

    #[test]
    fn a_key_is_never_overwritten_and_public_keys_add_up() {
        let dir = tempfile::tempdir().unwrap();
        write_pair(dir.path(), Alg::Es256).unwrap();
        let refused = write_pair(dir.path(), Alg::Es256).unwrap_err();
        assert!(
            refused.to_string().contains("never overwritten"),
            "{refused}"
        );
        fs::rename(dir.path().join(PRIVATE), dir.path().join("old.pem")).unwrap();
        write_pair(dir.path(), Alg::EdDsa).unwrap();
        let set: JwkSet =
            serde_json::from_slice(&fs::read(dir.path().join(JWKS)).unwrap()).unwrap();
        assert_eq!(set.keys.len(), 2);
    }
}
