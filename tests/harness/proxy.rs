//! A network between a program and a server that can be cut, or stall without closing.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// Passes connections on to a local port.
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
}

/// What the connections share.
struct Network {
    /// Where the server is; `None` refuses whoever comes.
    to: Mutex<Option<u16>>,
    connections: Mutex<Vec<(Arc<TcpStream>, Arc<TcpStream>)>>,
    stalled: Mutex<bool>,
    went_on: Condvar,
    /// Bytes that may still pass until it stalls by itself.
    left: AtomicU64,
}

impl Proxy {
    /// Listens on a port of its own until the test process ends.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
        let own = listener.local_addr().expect("it has an address").port();
        let network = Arc::new(Network {
            to: Mutex::new(Some(port)),
            connections: Mutex::default(),
            stalled: Mutex::new(false),
            went_on: Condvar::new(),
            left: AtomicU64::new(u64::MAX),
        });
        let shared = network.clone();
        std::thread::spawn(move || {
            listener.incoming().flatten().for_each(|client| connect(&shared, client));
        });
        Proxy { port: own, network }
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection; new ones are taken.
    pub fn cut(&self) {
        for (client, server) in self.network.connections.lock().expect("no panic").drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Leads new connections to another server, and cuts those there are.
    pub fn lead_to(&self, port: u16) {
        *self.network.to.lock().expect("no panic") = Some(port);
        self.cut();
    }

    /// Passes nothing on any more and closes nothing.
    pub fn stall(&self) {
        *self.network.stalled.lock().expect("no panic") = true;
    }

    /// Stalls by itself when so many bytes more have gone through, both ways together.
    pub fn stall_after(&self, bytes: u64) {
        self.network.left.store(bytes, Ordering::Relaxed);
    }

    /// Passes on what waited.
    pub fn go_on(&self) {
        self.network.left.store(u64::MAX, Ordering::Relaxed);
        *self.network.stalled.lock().expect("no panic") = false;
        self.network.went_on.notify_all();
    }
}

fn connect(network: &Arc<Network>, client: TcpStream) {
    let to = *network.to.lock().expect("no panic");
    // A server that is down refuses its client here, by the end of the connection.
    let Some(server) = to.and_then(|port| TcpStream::connect(("127.0.0.1", port)).ok()) else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client, server) = (Arc::new(client), Arc::new(server));
    network.connections.lock().expect("no panic").push((client.clone(), server.clone()));
    for (from, to) in [(client.clone(), server.clone()), (server, client)] {
        let network = network.clone();
        std::thread::spawn(move || {
            pass(&network, &from, &to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            let mut connections = network.connections.lock().expect("no panic");
            connections
                .retain(|(one, other)| !(Arc::ptr_eq(one, &from) || Arc::ptr_eq(other, &from)));
        });
    }
}

fn pass(network: &Network, mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let stalled = network.stalled.lock().expect("no panic");
        drop(network.went_on.wait_while(stalled, |stalled| *stalled).expect("no panic"));
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
        let count = count as u64;
        let before = network.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(if left == u64::MAX { left } else { left.saturating_sub(count) })
        });
        if before.is_ok_and(|left| left <= count) {
            *network.stalled.lock().expect("no panic") = true;
        }
    }
}
