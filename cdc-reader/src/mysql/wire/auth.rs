//! The answers to the server's ways of asking for a password.

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use mysql_common::{
    packets::parse_parsec_salt,
    scramble::{
        create_response_for_ed25519, create_response_for_parsec, scramble_native, scramble_sha256,
    },
};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use super::failure::WireFailure;

const NATIVE: &[u8] = b"mysql_native_password";
const CACHING_SHA2: &[u8] = b"caching_sha2_password";
const SHA256: &[u8] = b"sha256_password";
const CLEAR: &[u8] = b"mysql_clear_password";
const ED25519: &[u8] = b"client_ed25519";
const PARSEC: &[u8] = b"parsec";

/// The plugin to begin with: the server's default if it is a scramble. The account's own plugin is asked for then.
pub(crate) fn first(default: &[u8]) -> &[u8] {
    if default == NATIVE { NATIVE } else { CACHING_SHA2 }
}

/// The first answer to a plugin.
pub(crate) fn respond(
    plugin: &[u8],
    nonce: &[u8],
    password: &str,
    secure: bool,
) -> Result<Vec<u8>, WireFailure> {
    let secret = password.as_bytes();
    match plugin {
        NATIVE => Ok(scramble_native(nonce, secret).map(Vec::from).unwrap_or_default()),
        CACHING_SHA2 => Ok(scramble_sha256(nonce, secret).map(Vec::from).unwrap_or_default()),
        SHA256 if password.is_empty() => Ok(vec![0]),
        SHA256 if secure => Ok(terminated(password)),
        // Asks for the server's public key.
        SHA256 => Ok(vec![1]),
        CLEAR if secure => Ok(terminated(password)),
        CLEAR => Err(WireFailure::Login(
            "the user logs in with 'mysql_clear_password', which would send the password as it is: set \
             ssl_mode = \"required\" and give the server a certificate"
                .into(),
        )),
        ED25519 => Ok(create_response_for_ed25519(secret, nonce).to_vec()),
        // Asks for the account's salt.
        PARSEC => Ok(Vec::new()),
        other => Err(unsupported(other)),
    }
}

/// The answer to more data from a plugin; `None` when none is wanted.
pub(crate) fn go_on(
    plugin: &[u8],
    nonce: &[u8],
    password: &str,
    secure: bool,
    data: &[u8],
) -> Result<Option<Vec<u8>>, WireFailure> {
    match (plugin, data) {
        // The server knows the password's digest already.
        (CACHING_SHA2, [3]) => Ok(None),
        (CACHING_SHA2, [4]) if secure => Ok(Some(terminated(password))),
        (CACHING_SHA2, [4]) => Ok(Some(vec![2])),
        (CACHING_SHA2 | SHA256, key) if !secure => Ok(Some(encrypted(password, nonce, key)?)),
        (PARSEC, salt) => {
            let (Some((iterations, salt)), Ok(nonce)) =
                (parse_parsec_salt(salt), <&[u8; 32]>::try_from(nonce))
            else {
                return Err(unexpected(plugin));
            };
            let response = create_response_for_parsec(password.as_bytes(), nonce, iterations, salt);
            Ok(Some(response.to_vec()))
        }
        _ => Err(unexpected(plugin)),
    }
}

/// A plugin that the reader has no answer for.
pub(crate) fn unsupported(plugin: &[u8]) -> WireFailure {
    WireFailure::Login(format!(
        "the user logs in with '{}', which is not supported: ALTER USER ... IDENTIFIED WITH caching_sha2_password BY \
         '...'",
        String::from_utf8_lossy(plugin)
    ))
}

fn unexpected(plugin: &[u8]) -> WireFailure {
    WireFailure::Login(format!(
        "the server's part of '{}' cannot be understood; is a proxy in between?",
        String::from_utf8_lossy(plugin)
    ))
}

fn terminated(password: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(password.len() + 1);
    bytes.extend_from_slice(password.as_bytes());
    bytes.push(0);
    bytes
}

/// The password under the server's RSA key, mixed with the nonce so that it cannot be sent again.
fn encrypted(password: &str, nonce: &[u8], key: &[u8]) -> Result<Vec<u8>, WireFailure> {
    let refused = |reason: &str| {
        WireFailure::Login(format!(
            "the password cannot be encrypted for the server ({reason}): set ssl_mode = \"required\""
        ))
    };
    if nonce.is_empty() {
        return Err(refused("the server sent no nonce"));
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(key)
        .map_err(|_| refused("its public key is not in PEM form"))?;
    let key = PublicEncryptingKey::from_der(&der)
        .ok()
        .and_then(|key| OaepPublicEncryptingKey::new(key).ok())
        .ok_or_else(|| refused("its public key is not an RSA key of 2048 bits or more"))?;
    let mut mixed = terminated(password);
    for (byte, nonce) in mixed.iter_mut().zip(nonce.iter().cycle()) {
        *byte ^= nonce;
    }
    if mixed.len() > key.max_plaintext_size(&OAEP_SHA1_MGF1SHA1) {
        return Err(refused("it is longer than the key allows"));
    }
    let mut space = vec![0; key.ciphertext_size()];
    let cipher = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &mixed, &mut space, None)
        .map_err(|_| refused("encrypting failed"))?;
    Ok(cipher.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clear_passwords_need_an_encrypted_connection() {
        assert_eq!(respond(CLEAR, b"", "s", true).expect("secure"), b"s\0");
        let error = respond(CLEAR, b"", "s", false).expect_err("plain").to_string();
        assert!(error.contains("ssl_mode = \"required\""), "{error}");
        assert_eq!(respond(SHA256, b"n", "s", false).expect("asks for the key"), [1]);
        assert_eq!(go_on(CACHING_SHA2, b"n", "s", false, &[4]).expect("asks"), Some(vec![2]));
        assert_eq!(
            go_on(CACHING_SHA2, b"n", "s", true, &[4]).expect("sends"),
            Some(b"s\0".to_vec())
        );
    }

    #[test]
    fn empty_passwords_are_empty_answers() {
        for (plugin, answer) in [(NATIVE, &b""[..]), (CACHING_SHA2, b""), (SHA256, b"\0")] {
            assert_eq!(respond(plugin, b"nonce", "", false).expect("answers"), answer);
        }
    }

    #[test]
    fn unknown_plugins_are_named() {
        let error =
            respond(b"authentication_kerberos_client", b"", "s", true).expect_err("unknown");
        assert!(error.to_string().contains("'authentication_kerberos_client'"), "{error}");
    }

    proptest! {
        #[test]
        fn foreign_data_is_refused_without_a_panic(
            which in 0usize..4,
            nonce in proptest::collection::vec(any::<u8>(), 0..40),
            data in proptest::collection::vec(any::<u8>(), 0..64),
            secure: bool,
        ) {
            let plugin = [NATIVE, CACHING_SHA2, SHA256, PARSEC][which];
            let _ = go_on(plugin, &nonce, "secret", secure, &data);
        }
    }
}
