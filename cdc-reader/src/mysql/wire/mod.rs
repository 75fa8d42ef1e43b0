//! A connection of our own to a server: a blocking socket, packets lent out of one read buffer, TLS, and the login.
//! The replication connection (`binlog::dump`) and the rows of snapshots (`mysql::rows`) run over it.
//!
//! ```text
//! socket (TCP, TLS, unix) -> packets (framing, one buffer) -> login -> a session
//! ```

mod auth;
pub(crate) mod failure;
pub(crate) mod login;
pub(crate) mod packets;
pub(crate) mod socket;

use tokio_util::sync::CancellationToken;

use self::{
    failure::WireFailure,
    login::{Account, log_in},
    packets::Wire,
    socket::Socket,
};
use super::{
    connect::{CONNECT_TIMEOUT, opts},
    flavor::Flavor,
    tls,
};
use crate::{config::SourceConfig, error::ReaderError};

/// Connects and logs in. Blocks; ends soon after `stop`.
pub(crate) fn connect(
    config: &SourceConfig,
    stop: &CancellationToken,
) -> Result<Session, ReaderError> {
    let options = opts(config)?;
    let account = Account {
        user: options.user().unwrap_or_default(),
        password: options.pass().unwrap_or_default(),
        host: options.ip_or_hostname(),
        tls: tls::client_config(config)
            .map_err(|reason| ReaderError::Config { source_name: config.name.clone(), reason })?,
    };
    let socket = match options.socket() {
        Some(path) => Socket::unix(path),
        None => Socket::tcp(account.host, options.tcp_port(), CONNECT_TIMEOUT),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return Err(WireFailure::from(error).connecting(config)),
    };
    let wire = Wire::new(socket, CONNECT_TIMEOUT, stop.clone());
    match log_in(wire, &account, config) {
        Ok((wire, flavor)) => Ok(Session::Open(wire, flavor)),
        Err(WireFailure::Stopped) => Ok(Session::Stopped),
        Err(failure) => Err(failure.connecting(config)),
    }
}

/// What became of connecting.
pub(crate) enum Session {
    /// Logged in to this server.
    Open(Wire, Flavor),
    /// Stopped before that.
    Stopped,
}
