//! The replication connection with an encode thread played by the test, and a TCP proxy that damages what passes.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cdc_reader::{
    ReaderError, SourceConfig,
    binlog::{
        dump::{DumpStart, follow, give_back},
        event::{EventHeader, HEADER_LENGTH},
    },
    flow::{Input, SpentSender},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An event as the encode thread gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub kind: u8,
    pub next_offset: u32,
    pub body: Vec<u8>,
}

pub struct Following {
    received: mpsc::Receiver<Input>,
    spent: SpentSender,
    pub shutdown: CancellationToken,
    run: JoinHandle<Result<(), ReaderError>>,
    /// The longest chunk so far.
    pub longest: usize,
}

impl Following {
    pub fn start(config: &SourceConfig, start: DumpStart) -> Self {
        static SERVER_ID: AtomicU64 = AtomicU64::new(70_000);
        let server_id = SERVER_ID.fetch_add(1, Ordering::Relaxed) as u32;
        Self::start_as(config, start, server_id)
    }

    pub fn start_as(config: &SourceConfig, start: DumpStart, server_id: u32) -> Self {
        let (inbox, received) = mpsc::channel(16);
        let (spent, back) = mpsc::channel(18);
        let shutdown = CancellationToken::new();
        let (mut config, stop) = (config.clone(), shutdown.clone());
        // The replica's UUID comes from the name, and a server ends an older connection of the same UUID.
        config.name = format!("udon{server_id}");
        let run =
            tokio::spawn(async move { follow(&config, server_id, start, inbox, back, stop).await });
        Self { received, spent, shutdown, run, longest: 0 }
    }

    /// The events of the next chunk; `None` at the end.
    pub async fn chunk(&mut self) -> Option<Vec<Taken>> {
        let input = tokio::time::timeout(PATIENCE, self.received.recv()).await.expect("in time")?;
        let Input::Events(chunk) = input else { panic!("only events come") };
        self.longest = self.longest.max(chunk.len());
        let mut events = Vec::new();
        let mut rest = chunk.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (event, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            let header = EventHeader::parse(event).expect("a header");
            events.push(Taken {
                kind: header.kind,
                next_offset: header.next_offset,
                body: event[HEADER_LENGTH..].to_vec(),
            });
            rest = after;
        }
        give_back(&self.spent, chunk);
        Some(events)
    }

    /// Events up to the first that `last` knows.
    pub async fn until(&mut self, last: impl Fn(&Taken) -> bool) -> Vec<Taken> {
        let mut taken = Vec::new();
        loop {
            let Some(events) = self.chunk().await else {
                panic!("the stream ended: {:?}", (&mut self.run).await)
            };
            for event in events {
                let found = last(&event);
                taken.push(event);
                if found {
                    return taken;
                }
            }
        }
    }

    /// Events until the stream ends by itself, and why.
    pub async fn until_end(mut self) -> (Vec<Taken>, Result<(), ReaderError>) {
        let mut taken = Vec::new();
        while let Some(events) = self.chunk().await {
            taken.extend(events);
        }
        let ended = tokio::time::timeout(PATIENCE, self.run).await.expect("in time");
        (taken, ended.expect("no panic"))
    }

    /// Events until the stream ends by itself, and why, or until the first that `last` knows.
    pub async fn until_end_or(
        mut self,
        last: impl Fn(&Taken) -> bool,
    ) -> (Vec<Taken>, Option<ReaderError>) {
        let mut taken = Vec::new();
        while let Some(events) = self.chunk().await {
            let found = events.iter().any(&last);
            taken.extend(events);
            if found {
                self.stop().await;
                return (taken, None);
            }
        }
        let ended = tokio::time::timeout(PATIENCE, self.run).await.expect("in time");
        (taken, ended.expect("no panic").err())
    }

    /// Stops it and waits for the end.
    pub async fn stop(self) {
        self.shutdown.cancel();
        // The server's other tables may be busy: nobody takes the chunks that are still to come.
        drop(self.received);
        let ended = tokio::time::timeout(PATIENCE, self.run).await.expect("in time");
        ended.expect("no panic").expect("ends in order");
    }
}

/// What a proxy does to the bytes that come from the server.
#[derive(Clone, Copy)]
pub enum Damage {
    /// Cuts every connection after this many bytes.
    CutAfter(u64),
    /// Flips a bit of this byte.
    FlipAt(u64),
    /// Passes this many bytes and then nothing more, without closing.
    StallAfter(u64),
}

/// Starts a proxy to a local port; the answer is its own port.
pub fn proxy(to: u16, damage: Damage) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).expect("the server listens");
            let (client, server) = (Arc::new(client), Arc::new(server));
            let (c, s) = (client.clone(), server.clone());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &*c, &mut &*s);
                let _ = s.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                damaged(&server, &client, damage);
                let _ = client.shutdown(Shutdown::Both);
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

fn damaged(mut from: &TcpStream, mut to: &TcpStream, damage: Damage) {
    let (mut passed, mut buffer) = (0u64, vec![0; 64 * 1024]);
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer) else { return };
        let mut bytes = &mut buffer[..count];
        match damage {
            Damage::CutAfter(at) if passed + count as u64 > at => {
                bytes = &mut bytes[..(at - passed) as usize];
                let _ = to.write_all(bytes);
                return;
            }
            Damage::StallAfter(at) if passed + count as u64 > at => {
                bytes = &mut bytes[..at.saturating_sub(passed) as usize];
                if to.write_all(bytes).is_err() {
                    return;
                }
                passed = at;
                continue;
            }
            Damage::FlipAt(at) if (passed..passed + count as u64).contains(&at) => {
                bytes[(at - passed) as usize] ^= 0x10;
            }
            _ => {}
        }
        if to.write_all(bytes).is_err() {
            return;
        }
        passed += count as u64;
    }
}
