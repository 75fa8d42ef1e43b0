//! From a connected socket to a session: the server's greeting, TLS, and who we are.
//!
//! The greeting is read here and not by mysql_common, which computes with the server's bytes unchecked.

use std::sync::Arc;

use mysql_common::{
    constants::CapabilityFlags,
    packets::{AuthPlugin, HandshakeResponse, SslRequest},
    proto::MySerialize,
};
use rustls::ClientConfig;

use super::{auth, failure::WireFailure, packets::Wire, socket::Socket};
use crate::{
    binlog::byte_reader::{Malformed, take, take_array, take_le},
    config::{SourceConfig, SslMode},
    mysql::{flavor::Flavor, tls},
};

/// What the reader asks the server to speak.
const CAPABILITIES: CapabilityFlags = CapabilityFlags::CLIENT_LONG_PASSWORD
    .union(CapabilityFlags::CLIENT_LONG_FLAG)
    .union(CapabilityFlags::CLIENT_PROTOCOL_41)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA);
/// utf8mb4_general_ci, which every server knows.
const COLLATION: u8 = 45;
/// What most plugins hash with a password.
const NONCE_BYTES: usize = 20;
const PACKET_MAX: u32 = 1 << 30;
/// The server's version is read as that of any server since 2010.
const SERVER_VERSION: (u16, u16, u16) = (5, 5, 3);

/// Who logs in.
pub(crate) struct Account<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) host: &'a str,
    /// `None` for plain text.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// The server's first packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) flavor: Flavor,
    pub(crate) capabilities: CapabilityFlags,
    pub(crate) nonce: Vec<u8>,
    pub(crate) plugin: Vec<u8>,
}

/// Logs in; the answer is the wire (with TLS now, perhaps) and what the server is.
pub(crate) fn log_in(
    mut wire: Wire,
    account: &Account<'_>,
    config: &SourceConfig,
) -> Result<(Wire, Flavor), WireFailure> {
    let packet = wire.read_packet()?;
    if packet.first() == Some(&0xff) {
        return Err(server_error(&packet));
    }
    let greeting = parse_greeting(&packet).map_err(|_| {
        WireFailure::Login(
            "what answers does not speak MySQL's protocol: check the host and the port".into(),
        )
    })?;
    let mut capabilities = CAPABILITIES & greeting.capabilities;
    if let Some(client) = &account.tls
        && !wire.is_secure()
    {
        if greeting.capabilities.contains(CapabilityFlags::CLIENT_SSL) {
            capabilities |= CapabilityFlags::CLIENT_SSL;
            let mut request = Vec::new();
            SslRequest::new(capabilities, PACKET_MAX, COLLATION).serialize(&mut request);
            wire.write_packet(&request)?;
            let name = tls::server_name(account.host).map_err(WireFailure::Login)?;
            let client = client.clone();
            wire = wire.start_tls(|socket: Socket| socket.with_tls(client, name))?;
        } else if config.ssl_mode != SslMode::Preferred {
            return Err(WireFailure::Login(tls::no_tls_finding(config)));
        }
    }
    let mut plugin = auth::first(&greeting.plugin).to_vec();
    let mut nonce = greeting.nonce;
    let response = auth::respond(&plugin, &nonce, account.password, wire.is_secure())?;
    let mut packet = Vec::new();
    HandshakeResponse::new(
        Some(response),
        SERVER_VERSION,
        Some(account.user.as_bytes()),
        None::<&[u8]>,
        Some(AuthPlugin::from_bytes(&plugin)),
        capabilities,
        None,
        PACKET_MAX,
    )
    .serialize(&mut packet);
    wire.write_packet(&packet)?;
    // MariaDB asks for one plugin after the other; a server that asks for ever is none.
    for _ in 0..16 {
        let packet = wire.read_packet()?;
        match packet.as_slice() {
            [0x00, ..] => return Ok((wire, greeting.flavor)),
            [0xff, ..] => return Err(server_error(&packet)),
            [0xfe] => return Err(auth::unsupported(b"mysql_old_password")),
            [0xfe, switch @ ..] => {
                (plugin, nonce) = parse_switch(switch);
                let answer = auth::respond(&plugin, &nonce, account.password, wire.is_secure())?;
                wire.write_packet(&answer)?;
            }
            more => {
                // Plugins of MariaDB send their data without the mark.
                let more = more.strip_prefix(&[0x01]).unwrap_or(more);
                let secure = wire.is_secure();
                if let Some(answer) = auth::go_on(&plugin, &nonce, account.password, secure, more)?
                {
                    wire.write_packet(&answer)?;
                }
            }
        }
    }
    Err(WireFailure::Login("the server does not come to an end of the login".into()))
}

/// Sends a statement or a command that is answered by OK.
pub(crate) fn execute(wire: &mut Wire, command: &[u8]) -> Result<(), WireFailure> {
    wire.write_command(command)?;
    let packet = wire.read_packet()?;
    match packet.first() {
        Some(0x00) => Ok(()),
        Some(0xff) => Err(server_error(&packet)),
        _ => Err(Malformed("the server's answer is neither OK nor an error").into()),
    }
}

/// Reads an ERR packet; before the login it has no state.
pub(crate) fn server_error(packet: &[u8]) -> WireFailure {
    let mut rest = packet.get(1..).unwrap_or_default();
    let code = take_le(&mut rest, 2).unwrap_or_default() as u16;
    let mut state = "HY000".into();
    if rest.len() >= 6 && rest[0] == b'#' {
        state = String::from_utf8_lossy(&rest[1..6]).into_owned();
        rest = &rest[6..];
    }
    WireFailure::Server { code, state, message: String::from_utf8_lossy(rest).into_owned() }
}

/// Reads the greeting (manual: "Protocol::HandshakeV10").
pub(crate) fn parse_greeting(mut packet: &[u8]) -> Result<Greeting, Malformed> {
    let input = &mut packet;
    if take_array::<1>(input)? != [10] {
        return Err(Malformed("the server speaks another version of the protocol"));
    }
    let version = take_text(input);
    take(input, 4)?;
    let mut nonce = take(input, 8)?.to_vec();
    take(input, 1)?;
    let low = take_le(input, 2)?;
    take(input, 3)?;
    let high = take_le(input, 2)?;
    let bits = (high << 16 | low) as u32;
    let capabilities = CapabilityFlags::from_bits_truncate(bits);
    if !capabilities.contains(CapabilityFlags::CLIENT_PROTOCOL_41) {
        return Err(Malformed("the server speaks a protocol from before MySQL 4.1"));
    }
    let [nonce_length] = take_array::<1>(input)?;
    take(input, 10)?;
    if capabilities.contains(CapabilityFlags::CLIENT_SECURE_CONNECTION) {
        let length = usize::from(nonce_length).saturating_sub(8).max(13).min(input.len());
        nonce.extend_from_slice(take(input, length)?);
        trim_end(&mut nonce);
    }
    let plugin = if capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH) {
        take_text(input).to_vec()
    } else {
        b"mysql_native_password".to_vec()
    };
    let flavor = Flavor::parse(&String::from_utf8_lossy(version));
    Ok(Greeting { flavor, capabilities, nonce, plugin })
}

/// A plugin's name and its nonce.
fn parse_switch(mut packet: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let plugin = take_text(&mut packet).to_vec();
    let mut nonce = packet.to_vec();
    trim_end(&mut nonce);
    (plugin, nonce)
}

/// The bytes before the next 0, or all.
fn take_text<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let length = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
    let (text, rest) = input.split_at(length);
    *input = rest.get(1..).unwrap_or_default();
    text
}

/// A nonce of 20 bytes ends with a 0 that is not part of it; those of other lengths (MariaDB's ed25519 and parsec: 32)
/// end with any byte.
fn trim_end(nonce: &mut Vec<u8>) {
    if nonce.len() == NONCE_BYTES + 1 && nonce.last() == Some(&0) {
        nonce.pop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greeting_is_read() {
        let mut packet =
            b"\x0a9.7.4-2\0\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15".to_vec();
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"ijklmnopqrst\0caching_sha2_password\0");
        let greeting = parse_greeting(&packet).expect("reads");
        assert_eq!(greeting.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(greeting.plugin, b"caching_sha2_password");
        assert_eq!(greeting.flavor, Flavor::parse("9.7.4-2"));
        assert!(greeting.capabilities.contains(CapabilityFlags::CLIENT_SSL));
    }

    #[test]
    fn only_a_nonce_of_20_bytes_has_a_0_behind_it() {
        assert_eq!(parse_switch(b"caching_sha2_password\0abcdefghijklmnopqrst\0").1.len(), 20);
        let mut switch = b"client_ed25519\0".to_vec();
        switch.extend_from_slice(&[7; 31]);
        switch.push(0);
        assert_eq!(parse_switch(&switch).1.len(), 32);
    }

    #[test]
    fn errors_are_read_with_and_without_a_state() {
        let told = |packet: &[u8]| server_error(packet).to_string();
        assert_eq!(told(b"\xff\x10\x04Too many connections"), "error 1040: Too many connections");
        assert_eq!(told(b"\xff\x15\x04#28000Access denied"), "error 1045: Access denied");
        assert_eq!(told(b"\xff"), "error 0: ");
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_without_a_panic(mut packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_greeting(&packet);
            let _ = server_error(&packet);
            let (plugin, nonce) = parse_switch(&packet);
            let _ = auth::respond(&plugin, &nonce, "secret", true);
            if !packet.is_empty() {
                packet[0] = 10;
                let _ = parse_greeting(&packet);
            }
        }
    }
}
