//! The socket of a connection of our own: TCP, TCP with TLS, or a unix socket, blocking with a time-out.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};

use crate::mysql::connect::KEEPALIVE;

/// How long a read waits before the reader looks whether it should stop.
const TICK: Duration = Duration::from_millis(500);
/// A server that takes no byte for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Connects to the first address of `host` that answers.
    pub(crate) fn tcp(host: &str, port: u16, timeout: Duration) -> io::Result<Self> {
        let mut last = io::Error::new(
            io::ErrorKind::NotFound,
            format!("failed to lookup address information: '{host}' has no address"),
        );
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let keepalive =
                        TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
                    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                    stream.set_read_timeout(Some(TICK))?;
                    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
                    return Ok(Self::Tcp(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to a unix socket.
    pub(crate) fn unix(path: &str) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self::Unix(stream))
    }

    /// Puts TLS on a TCP socket; [`Self::shake_hands`] comes next.
    pub(crate) fn with_tls(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => {
                let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
                Ok(Self::Tls(Box::new(StreamOwned::new(connection, stream))))
            }
            other => Ok(other),
        }
    }

    /// Goes on with TLS's handshake until it is done. After an error of a read that waited too long it may be called again.
    pub(crate) fn shake_hands(&mut self) -> io::Result<()> {
        let Self::Tls(stream) = self else { return Ok(()) };
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(())
    }

    /// Whether a password may cross it as it is.
    pub(crate) fn is_secure(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    /// Whether reads wait (for a tick) or say at once that there is nothing.
    pub(crate) fn set_waiting(&self, waiting: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(!waiting),
            Self::Unix(stream) => stream.set_nonblocking(!waiting),
            Self::Tls(stream) => stream.sock.set_nonblocking(!waiting),
        }
    }
}

/// A second handle to a socket, which can end it.
pub(crate) enum SocketEnd {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl SocketEnd {
    /// Ends the connection; whoever reads from it finds that out at once.
    pub(crate) fn shut(&self) {
        // One that is ended already says so.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    /// Ends the connection from the side that reads from it, and throws away what has come and was not read: while that
    /// fills the receive buffer, the server waits for room there, and does not notice that nobody reads any more.
    pub(crate) fn close(&self) {
        self.shut();
        let mut rest = [0; 16 << 10];
        // After the shutdown no read waits: at the end of what is there it answers 0.
        while self.read(&mut rest).is_ok_and(|length| length > 0) {}
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => { stream }.read(buffer),
            Self::Unix(stream) => { stream }.read(buffer),
        }
    }
}

impl Socket {
    /// A handle that ends the connection.
    pub(crate) fn end(&self) -> io::Result<SocketEnd> {
        Ok(match self {
            Self::Tcp(stream) => SocketEnd::Tcp(stream.try_clone()?),
            Self::Unix(stream) => SocketEnd::Unix(stream.try_clone()?),
            Self::Tls(stream) => SocketEnd::Tcp(stream.sock.try_clone()?),
        })
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn server_that_waits_for_room_notices_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        server.set_nonblocking(true).expect("is open");
        // Until neither side's buffer takes any more; the kernel goes on moving bytes for a moment.
        let fill = |server: &mut TcpStream| {
            let mut accepted = Instant::now();
            while accepted.elapsed() < Duration::from_secs(1) {
                match server.write(&[7; 64 << 10]) {
                    Ok(length) => {
                        assert!(length > 0, "accepts bytes");
                        accepted = Instant::now();
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        std::thread::yield_now();
                    }
                }
            }
        };
        fill(&mut server);
        // In the middle of what the server has to say.
        (&stream).read_exact(&mut vec![0; 1 << 20]).expect("is there");
        fill(&mut server);
        // The socket itself stays.
        let socket = Socket::Tcp(stream);
        socket.end().expect("a handle").close();
        let began = Instant::now();
        loop {
            match server.write_all(&[7]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => assert!(began.elapsed().as_secs() < 60, "the server does not notice"),
            }
        }
    }
}
