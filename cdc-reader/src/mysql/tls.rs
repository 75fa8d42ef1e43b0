//! TLS to a server, with MySQL's own `ssl_mode`s: one meaning for the driver's connections and for our own.
//!
//! The certificates that a server makes for itself at its first start are signed by a CA of its own and name no host.
//! `verify_ca` takes them (the chain is verified, no name is); `verify_identity` does not.

use std::{io, path::Path, sync::Arc};

use mysql_async::{ClientIdentity, DriverError, Error, IoError, SslOpts};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use crate::config::{SourceConfig, SslMode};

/// What a connection of our own (`mysql::wire`) is made with; `None` without TLS. The reason says which file is wrong.
pub fn client_config(config: &SourceConfig) -> Result<Option<Arc<ClientConfig>>, String> {
    if config.ssl_mode == SslMode::Disabled {
        return Ok(None);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match config.ssl_mode {
        SslMode::Disabled | SslMode::Preferred | SslMode::Required => {
            Arc::new(Unverified(provider.clone()))
        }
        SslMode::VerifyCa => Arc::new(Chain { roots: roots(config)?, provider: provider.clone() }),
        SslMode::VerifyIdentity => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots(config)?), provider.clone())
                .build()
                .map_err(|error| format!("ssl_ca cannot be used: {error}"))?
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let made = match identity(config)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            format!("ssl_cert and ssl_key cannot be used: {error}; they must be of one pair")
        })?,
    };
    Ok(Some(Arc::new(made)))
}

/// The same for the driver's connections. With `verify_ca` these run through `tunnel` instead.
pub fn driver_options(config: &SourceConfig) -> Result<Option<SslOpts>, String> {
    // Reads every file, so that both kinds of connection say the same of a wrong one.
    if client_config(config)?.is_none() || config.ssl_mode == SslMode::VerifyCa {
        return Ok(None);
    }
    // The driver takes the process's provider; two are compiled in, so one has to be chosen.
    let _ = aws_lc_rs::default_provider().install_default();
    let mut options = SslOpts::default();
    if config.ssl_mode == SslMode::VerifyIdentity {
        let ca = config.ssl_ca.clone().unwrap_or_default();
        options = options.with_root_certs(vec![ca.into()]).with_disable_built_in_roots(true);
    } else {
        options = options.with_danger_accept_invalid_certs(true);
    }
    if let (Some(certificate), Some(key)) = (&config.ssl_cert, &config.ssl_key) {
        let identity = ClientIdentity::new(certificate.clone().into(), key.clone().into());
        options = options.with_client_identity(Some(identity));
    }
    Ok(Some(options))
}

/// The name that a certificate must be for.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("'{host}' is neither a host name nor an address"))
}

/// What is wrong with a server's certificate, if that is what an error of the driver says.
pub fn driver_finding(error: &Error, config: &SourceConfig) -> Option<String> {
    match error {
        Error::Driver(DriverError::NoClientSslFlagFromServer) => Some(no_tls_finding(config)),
        Error::Io(IoError::Io(error)) => finding(error, config),
        Error::Io(IoError::Tls(error)) => Some(format!("TLS failed: {error}")),
        Error::Driver(_) | Error::Server(_) | Error::Other(_) | Error::Url(_) => None,
    }
}

/// The server offers no TLS and the configuration wants it.
pub fn no_tls_finding(config: &SourceConfig) -> String {
    format!(
        "ssl_mode is \"{}\" and the server offers no TLS: give the server a certificate (ssl_cert, ssl_key in its \
         my.cnf), or set ssl_mode = \"preferred\"",
        config.ssl_mode
    )
}

/// A sentence of this module that has to travel as an error of the network.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Finding(pub(super) String);

/// What is wrong with TLS, if that is what an error of a connection says.
pub fn finding(error: &io::Error, config: &SourceConfig) -> Option<String> {
    let inner = error.get_ref()?;
    if let Some(Finding(sentence)) = inner.downcast_ref() {
        return Some(sentence.clone());
    }
    let error = inner.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(reason) = error else {
        return Some(match error {
            rustls::Error::AlertReceived(alert) => format!(
                "TLS failed: the server refused it ({alert:?}); check its TLS versions and, if it asks for a client \
                 certificate, ssl_cert and ssl_key"
            ),
            other => format!("TLS failed: {other}"),
        });
    };
    let ca = config.ssl_ca.as_deref().unwrap_or(Path::new("")).display();
    Some(match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the server's certificate is not signed by a CA in ssl_ca ({ca}): give the file with this server's CA (in \
             the server's data directory it is ca.pem)"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "{reason}: write the host in the url as the certificate's subjectAltName has it, or set \
                 ssl_mode = \"verify_ca\""
            )
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("the server's {reason}: renew it, or set this machine's clock")
        }
        other => format!("the server's certificate is refused: {other}"),
    })
}

fn roots(config: &SourceConfig) -> Result<RootCertStore, String> {
    let Some(file) = &config.ssl_ca else {
        return Err(format!(
            "ssl_mode = \"{}\" needs ssl_ca, the file with the CA that signed the server's certificate",
            config.ssl_mode
        ));
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ssl_ca", file)? {
        roots.add(certificate).map_err(|error| {
            format!("ssl_ca {} has a certificate that is no CA ({error})", file.display())
        })?;
    }
    Ok(roots)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(config: &SourceConfig) -> Result<Option<Identity>, String> {
    match (&config.ssl_cert, &config.ssl_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let chain = certificates("ssl_cert", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("ssl_key {} cannot be read ({error})", key.display()))?;
            Ok(Some((chain, key)))
        }
        (Some(_), None) => Err("ssl_cert needs ssl_key, the file with its private key".into()),
        (None, Some(_)) => Err("ssl_key needs ssl_cert, the file with its certificate".into()),
    }
}

fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: rustls::pki_types::pem::Error| {
        format!("{key} {} cannot be read ({error})", file.display())
    };
    let found = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(format!("{key} {} has no certificate in PEM form", file.display()));
    }
    Ok(found)
}

/// `preferred` and `required`: whoever answers may answer. A signature by an unknown key proves nothing, so none is
/// verified, and a certificate in a form that WebPKI does not know does no harm.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `verify_ca`: signed by the CA, whatever name it bears.
#[derive(Debug)]
struct Chain {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
