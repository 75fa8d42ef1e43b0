//! Authentication and TLS, of the replication connection and of the SQL connections alike.

use std::{path::PathBuf, process::Command};

use cdc_reader::{
    ReaderError, SourceConfig,
    binlog::{dump::DumpStart, event::kind},
    config::SslMode,
    mysql::{
        connect,
        rows::{Flow, RowConnection},
    },
};
use mysql_async::prelude::Queryable;
use schemas::position::BinlogPlace;
use tokio_util::sync::CancellationToken;

use super::{
    following::Following,
    server::{Running, block_on, shared, start, start_by},
};

fn from_the_start() -> DumpStart {
    DumpStart::Place(BinlogPlace::default())
}

/// Logs in and waits for the first event. The connection for rows logs in likewise.
async fn dumps(config: &SourceConfig) -> Result<(), ReaderError> {
    let (dump, rows) = (first_event(config).await, rows_cipher(config));
    match (&dump, &rows) {
        (Err(dump), Err(rows)) => {
            // Before the first colon stands the source, to which `Following` gives another name.
            let reason = |error: &ReaderError| {
                error.to_string().split_once(": ").map(|(_, reason)| reason.to_owned())
            };
            assert_eq!(reason(dump), reason(rows));
        }
        _ => assert!(dump.is_ok() && rows.is_ok(), "{dump:?} {rows:?}"),
    }
    dump
}

/// What the connection for rows is encrypted with.
fn rows_cipher(config: &SourceConfig) -> Result<String, ReaderError> {
    let mut connection = RowConnection::connect(config, CancellationToken::new())?;
    let mut cipher = None;
    connection.select("SHOW SESSION STATUS LIKE 'Ssl_cipher'", |row| {
        let values = row.values().expect("a row");
        cipher = values[1].bytes().map(|text| String::from_utf8_lossy(text).into_owned());
        Flow::Go
    })?;
    Ok(cipher.expect("a row"))
}

async fn first_event(config: &SourceConfig) -> Result<(), ReaderError> {
    let mut following = Following::start(config, from_the_start());
    match following.chunk().await {
        Some(events) => {
            assert_eq!(events[0].kind, kind::ROTATE);
            following.stop().await;
            Ok(())
        }
        None => following.until_end().await.1,
    }
}

async fn selects(config: &SourceConfig) -> Result<Option<String>, ReaderError> {
    let mut connection = connect::connect(config).await?;
    let cipher: Option<(String, String)> =
        connection.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.expect("answers");
    let _ = connection.disconnect().await;
    Ok(cipher.map(|(_, cipher)| cipher))
}

async fn run(running: &Running, sql: &str) {
    let mut connection = connect::connect(&running.config("root", &[])).await.expect("connects");
    for statement in sql.split(";\n") {
        connection.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

fn with_mode(config: &SourceConfig, mode: SslMode, ca: Option<PathBuf>) -> SourceConfig {
    SourceConfig { ssl_mode: mode, ssl_ca: ca, ..config.clone() }
}

#[test]
fn every_plugin_logs_in_with_and_without_tls() {
    block_on(async {
        let running = shared();
        run(
            running,
            "CREATE USER IF NOT EXISTS sha2 IDENTIFIED WITH caching_sha2_password BY 'p@ß''\"';\n\
             CREATE USER IF NOT EXISTS sha256 IDENTIFIED WITH sha256_password BY 'secret';\n\
             CREATE USER IF NOT EXISTS empty256 IDENTIFIED WITH sha256_password BY '';\n\
             CREATE USER IF NOT EXISTS empty2 IDENTIFIED WITH caching_sha2_password BY '';\n\
             GRANT REPLICATION SLAVE ON *.* TO sha2, sha256, empty2, empty256",
        )
        .await;
        for mode in [SslMode::Disabled, SslMode::Preferred] {
            for user in ["sha2:p%40%C3%9F'%22", "sha256:secret", "empty2", "empty256", "root"] {
                let config = with_mode(&running.config(user, &[]), mode, None);
                // The server forgets the digests that it knows: the next login is a full one, as after a restart.
                run(running, "FLUSH PRIVILEGES").await;
                dumps(&config).await.unwrap_or_else(|error| panic!("{user} {mode}: {error}"));
                run(running, "FLUSH PRIVILEGES").await;
                rows_cipher(&config).unwrap_or_else(|error| panic!("{user} {mode}: {error}"));
                // And with the digest in the server's memory.
                dumps(&config).await.unwrap_or_else(|error| panic!("{user} {mode}: {error}"));
            }
            let wrong = with_mode(&running.config("sha2:wrong", &[]), mode, None);
            let error = dumps(&wrong).await.expect_err("a wrong password");
            assert!(matches!(error, ReaderError::Connect { .. }), "{error:?}");
            assert!(error.to_string().contains("Access denied"), "{error}");
        }
    });
}

#[test]
fn unix_socket_is_secure_by_itself() {
    block_on(async {
        let running = shared();
        run(
            running,
            "CREATE USER IF NOT EXISTS local IDENTIFIED WITH caching_sha2_password BY 'secret';\n\
             GRANT REPLICATION SLAVE ON *.* TO local",
        )
        .await;
        let mut config = with_mode(&running.config("root", &[]), SslMode::Required, None);
        let socket = running.folder.join("data/mysql.sock");
        config.url = format!("mysql://local:secret@localhost/?socket={}", socket.display());
        dumps(&config).await.expect("the full login over a unix socket");
        assert_eq!(selects(&config).await.expect("and SQL").as_deref(), Some(""));
    });
}

#[test]
fn mariadb_logs_in_and_sends_its_binlog() {
    block_on(async {
        let running = start_by("mariadb.sh", &[]);
        run(
            &running,
            "CREATE USER native IDENTIFIED VIA mysql_native_password USING PASSWORD('secret');\n\
             GRANT REPLICATION SLAVE ON *.* TO native",
        )
        .await;
        for mode in [SslMode::Disabled, SslMode::Preferred] {
            let config = with_mode(&running.config("native:secret", &[]), mode, None);
            dumps(&config).await.expect("native");
        }
        let config = running.config("native:secret", &[]);
        let mut following = Following::start(&config, DumpStart::MariaDbGtid(String::new()));
        // MariaDB's GTID event, of the statements above.
        following.until(|event| event.kind == 162).await;
        following.stop().await;
    });
}

#[test]
fn modes_of_tls_mean_what_they_mean_to_mysql() {
    block_on(async {
        let running = shared();
        let config = running.config("root", &[]);
        let ca = running.folder.join("data/ca.pem");
        let folder = tempfile::tempdir().expect("a folder");
        let other_ca = folder.path().join("ca.pem");
        make_certificate(
            folder.path(),
            &["-subj", "/CN=other", "-addext", "basicConstraints=critical,CA:TRUE"],
        );
        for (mode, encrypted) in
            [(SslMode::Disabled, false), (SslMode::Preferred, true), (SslMode::Required, true)]
        {
            let config = with_mode(&config, mode, None);
            dumps(&config).await.expect("logs in");
            let cipher = selects(&config).await.expect("logs in").expect("a row");
            assert_eq!(!cipher.is_empty(), encrypted, "{mode}: {cipher}");
            assert_eq!(!rows_cipher(&config).expect("logs in").is_empty(), encrypted, "{mode}");
        }
        // The server's own certificate is signed by its own CA and names no host.
        let right = with_mode(&config, SslMode::VerifyCa, Some(ca.clone()));
        dumps(&right).await.expect("the chain is right");
        let cipher = selects(&right).await.expect("the chain is right").expect("a row");
        assert!(!cipher.is_empty());
        let refused = [
            (SslMode::VerifyCa, Some(other_ca), "not signed by a CA in ssl_ca"),
            (SslMode::VerifyIdentity, Some(ca), "not valid for"),
            (SslMode::VerifyCa, None, "needs ssl_ca"),
            (SslMode::VerifyCa, Some("/nowhere/ca.pem".into()), "/nowhere/ca.pem cannot be read"),
        ];
        for (mode, ca, reason) in refused {
            let config = with_mode(&config, mode, ca);
            for error in [
                dumps(&config).await.expect_err("refused by the dump"),
                selects(&config).await.expect_err("refused by SQL"),
            ] {
                assert!(error.to_string().contains(reason), "{mode}: {error}");
                assert_eq!(error.action(), cdc_reader::error::Action::StopService, "{error}");
            }
        }
    });
}

#[test]
fn identity_is_verified_and_client_certificates_are_shown() {
    block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        make_certificate(
            folder.path(),
            &["-subj", "/CN=our ca", "-addext", "basicConstraints=critical,CA:TRUE"],
        );
        sign(folder.path(), "server", "subjectAltName=DNS:localhost");
        sign(folder.path(), "client", "extendedKeyUsage=clientAuth");
        let running = start(&[
            &format!("--ssl-ca={}", path("ca.pem").display()),
            &format!("--ssl-cert={}", path("server.pem").display()),
            &format!("--ssl-key={}", path("server.key").display()),
            "--require-secure-transport=ON",
        ]);
        run(&running, "CREATE USER shown REQUIRE X509;\nGRANT REPLICATION SLAVE ON *.* TO shown")
            .await;
        let mut config = running.config("root", &[]);
        config.ssl_ca = Some(path("ca.pem"));
        config.ssl_mode = SslMode::VerifyIdentity;
        // 127.0.0.1 is not what the certificate is for.
        for error in
            [dumps(&config).await.expect_err("dump"), selects(&config).await.expect_err("SQL")]
        {
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
        }
        config.url = config.url.replace("127.0.0.1", "localhost");
        dumps(&config).await.expect("is localhost");
        selects(&config).await.expect("is localhost");
        config.ssl_mode = SslMode::Disabled;
        let error = dumps(&config).await.expect_err("plain text").to_string();
        assert!(error.contains("set ssl_mode = \"required\""), "{error}");
        config.ssl_mode = SslMode::VerifyCa;
        config.url = running.config("shown", &[]).url;
        dumps(&config).await.expect_err("no certificate is shown");
        config.ssl_cert = Some(path("client.pem"));
        config.ssl_key = Some(path("client.key"));
        dumps(&config).await.expect("the certificate is shown");
        selects(&config).await.expect("the certificate is shown");
    });
}

#[test]
fn server_without_tls_is_plain_text_only_if_that_is_allowed() {
    block_on(async {
        let running = start(&["--tls-version=", "--auto-generate-certs=OFF"]);
        let config = running.config("root", &[]);
        dumps(&config).await.expect("preferred");
        selects(&config).await.expect("preferred");
        let config = with_mode(&config, SslMode::Required, None);
        for error in
            [dumps(&config).await.expect_err("dump"), selects(&config).await.expect_err("SQL")]
        {
            assert!(error.to_string().contains("the server offers no TLS"), "{error}");
        }
    });
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `ca.pem` and `ca.key`.
fn make_certificate(folder: &std::path::Path, more: &[&str]) {
    let path = |name: &str| folder.join(name).display().to_string();
    let (key, certificate) = (path("ca.key"), path("ca.pem"));
    let mut arguments = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"];
    arguments.extend(["-keyout", &key, "-out", &certificate]);
    arguments.extend(more);
    openssl(&arguments);
}

/// `NAME.pem` and `NAME.key`, signed by `ca.pem`.
fn sign(folder: &std::path::Path, name: &str, extension: &str) {
    let path = |name: &str| folder.join(name).display().to_string();
    let (key, request) = (path(&format!("{name}.key")), path("request.pem"));
    let (certificate, extensions) = (path(&format!("{name}.pem")), path("extensions"));
    std::fs::write(&extensions, extension).expect("written");
    let subject = format!("/CN={name}");
    openssl(&[
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj",
        &subject,
    ]);
    openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &path("ca.pem"),
        "-CAkey",
        &path("ca.key"),
        "-days",
        "30",
        "-out",
        &certificate,
        "-extfile",
        &extensions,
    ]);
}
