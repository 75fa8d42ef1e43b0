//! `verify_ca` for the driver's connections. The driver can verify a certificate with its host's name or not at all,
//! and the certificates that servers make for themselves name no host. So the driver speaks plain text to a private
//! unix socket, and here it is carried on over TLS of our own.
//!
//! The protocol begins in plain text: the server's greeting, then the client's wish for TLS (the first 32 bytes of its
//! login, which the server reads once only). The login itself waits here until TLS is up. From the wish on, until the
//! login is over, the packets' numbers differ by one on the two sides.

use std::{fs::Permissions, io, os::unix::fs::PermissionsExt, sync::Arc};

use mysql_async::{Conn, Error, Opts, OptsBuilder};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpStream, UnixListener},
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};

use super::tls;
use crate::config::SourceConfig;

/// `CLIENT_SSL`, the capability bit in its byte.
const SSL_BYTE: usize = 1;
const SSL_BIT: u8 = 0x08;
/// Bytes of a login before the user's name: the wish for TLS is these.
const WISH_BYTES: usize = 32;
const LOGIN_PACKET_MAX: usize = 1 << 20;

/// Connects the driver to a server whose certificate is verified by [`tls::client_config`].
pub(super) async fn open(options: Opts, config: &SourceConfig) -> Result<Conn, Error> {
    let client = match tls::client_config(config) {
        Ok(client) => client.ok_or_else(|| other("TLS is off"))?,
        Err(reason) => return Err(io::Error::other(tls::Finding(reason)).into()),
    };
    let folder = tempfile::Builder::new()
        .prefix("binlake-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()?;
    let path = folder.path().join("tls");
    let listener = UnixListener::bind(&path)?;
    let (host, port) = (options.ip_or_hostname().to_owned(), options.tcp_port());
    let carried = tokio::spawn(carry(listener, host, port, client, tls::no_tls_finding(config)));
    let socket = path.to_string_lossy().into_owned();
    let local = OptsBuilder::from_opts(options).socket(Some(socket)).ssl_opts(None);
    match Conn::new(local).await {
        Err(error @ Error::Server(_)) => Err(error),
        // The driver knows only that its socket was closed.
        Err(error) => match carried.await {
            Ok(Err(cause)) => Err(Error::Io(cause.into())),
            Ok(Ok(())) | Err(_) => Err(error),
        },
        connected => connected,
    }
}

/// Carries one connection, from the driver's first byte to the end.
async fn carry(
    listener: UnixListener,
    host: String,
    port: u16,
    client: Arc<ClientConfig>,
    no_tls: String,
) -> io::Result<()> {
    let mut server = TcpStream::connect((host.as_str(), port)).await?;
    server.set_nodelay(true)?;
    let (mut driver, _) = listener.accept().await?;
    drop(listener);
    let (mut greeting, number) = read_packet(&mut server).await?;
    let Some(at) = capabilities_at(&greeting) else {
        // An error, such as too many connections: the driver tells it.
        return write_packet(&mut driver, &greeting, number).await;
    };
    if greeting[at + SSL_BYTE] & SSL_BIT == 0 {
        return Err(io::Error::other(tls::Finding(no_tls)));
    }
    greeting[at + SSL_BYTE] &= !SSL_BIT;
    write_packet(&mut driver, &greeting, number).await?;
    let (mut login, number) = read_packet(&mut driver).await?;
    if login.len() < WISH_BYTES {
        return Err(other("the driver's login is too short"));
    }
    login[SSL_BYTE] |= SSL_BIT;
    write_packet(&mut server, &login[..WISH_BYTES], number).await?;
    let name = tls::server_name(&host).map_err(|reason| io::Error::other(tls::Finding(reason)))?;
    let mut server = TlsConnector::from(client).connect(name, server).await?;
    write_packet(&mut server, &login, number.wrapping_add(1)).await?;
    loop {
        let (packet, number) = read_packet(&mut server).await?;
        write_packet(&mut driver, &packet, number.wrapping_sub(1)).await?;
        match packet.first() {
            // The login is over; every command begins to count anew.
            Some(0x00 | 0xff) => break,
            // The plugin has succeeded: nothing is answered to that.
            Some(0x01) if packet.get(1) == Some(&3) => {}
            _ => {
                let (packet, number) = read_packet(&mut driver).await?;
                write_packet(&mut server, &packet, number.wrapping_add(1)).await?;
            }
        }
    }
    match copy_bidirectional(&mut driver, &mut server).await {
        // Servers close without the end that TLS has for it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        result => result.map(drop),
    }
}

/// Where the lower half of the capabilities stands in a greeting.
fn capabilities_at(greeting: &[u8]) -> Option<usize> {
    if greeting.first() != Some(&10) {
        return None;
    }
    // After the version and its 0: the connection's number (4), the first part of the nonce (8), a 0.
    let version_end = greeting.iter().position(|&byte| byte == 0)?;
    let at = version_end + 1 + 4 + 8 + 1;
    (greeting.len() > at + SSL_BYTE).then_some(at)
}

async fn read_packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, u8)> {
    let mut header = [0; 4];
    from.read_exact(&mut header).await?;
    let [a, b, c, number] = header;
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if length > LOGIN_PACKET_MAX {
        return Err(other("what answers does not speak MySQL's protocol"));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok((payload, number))
}

async fn write_packet(
    to: &mut (impl AsyncWrite + Unpin),
    payload: &[u8],
    number: u8,
) -> io::Result<()> {
    let mut packet = (payload.len() as u32).to_le_bytes().to_vec();
    packet[3] = number;
    packet.extend_from_slice(payload);
    to.write_all(&packet).await?;
    to.flush().await
}

fn other(reason: &str) -> io::Error {
    io::Error::other(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_of_any_length_is_looked_at_safely() {
        let mut greeting = b"\x0a9.7.4\0\x08\0\0\0abcdefgh\0".to_vec();
        let at = greeting.len();
        assert_eq!(capabilities_at(&greeting), None);
        greeting.extend_from_slice(&[0xff, 0xff]);
        assert_eq!(capabilities_at(&greeting), Some(at));
        assert_eq!(capabilities_at(b"\xff\x10\x04Too many connections"), None);
        assert_eq!(capabilities_at(b"\x0a9.7.4"), None);
        assert_eq!(capabilities_at(b""), None);
    }
}
