//! The one Kafka broker that all tests of this binary share. It stops when this process ends, however it ends: the
//! script watches its standard input.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

struct Broker {
    bootstrap_servers: String,
    _child: Child,
}

/// Where the broker listens; `None`, and a loud line, when it can't be had. In CI that is a failure.
pub fn bootstrap_servers() -> Option<String> {
    static BROKER: OnceLock<Result<Broker, String>> = OnceLock::new();
    match BROKER.get_or_init(start) {
        Ok(broker) => Some(broker.bootstrap_servers.clone()),
        Err(reason) if env::var_os("CI").is_some() => panic!("Kafka can't be tested: {reason}"),
        Err(reason) => {
            eprintln!("NOT TESTED: Kafka can't be had here: {reason}");
            None
        }
    }
}

fn start() -> Result<Broker, String> {
    let name = format!("kafka-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let port = free_port().map_err(|error| error.to_string())?;
    let child = serve(&folder, port, Afterwards::Remove)?;
    Ok(Broker { bootstrap_servers: format!("127.0.0.1:{port}"), _child: child })
}

/// What becomes of the broker's folder when it stops.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    Keep,
    Remove,
}

/// Starts a broker that stops when the child's input is closed.
pub fn serve(folder: &Path, port: u16, afterwards: Afterwards) -> Result<Child, String> {
    serve_with(folder, port, afterwards, &[])
}

/// The same with more properties.
pub fn serve_with(
    folder: &Path,
    port: u16,
    afterwards: Afterwards,
    properties: &[String],
) -> Result<Child, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/kafka.sh");
    let errors = folder.join("kafka.sh.stderr");
    let told = |error: std::io::Error| format!("{}: {error}", script.display());
    fs::create_dir_all(folder).map_err(told)?;
    let remove = if afterwards == Afterwards::Remove { "1" } else { "0" };
    let mut child = Command::new(&script)
        .arg("serve")
        .arg(folder)
        .arg(port.to_string())
        .args(properties)
        .env("BINLAKE_SERVE_REMOVE", remove)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&errors).map_err(told)?)
        .spawn()
        .map_err(told)?;
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    output.read_line(&mut line).map_err(told)?;
    if line.trim() != "ready" {
        let mut reason = String::new();
        let _ = fs::File::open(&errors).and_then(|mut file| file.read_to_string(&mut reason));
        let _ = child.kill().and_then(|()| child.wait());
        let _ = fs::remove_dir_all(folder);
        return Err(format!("{} said {line:?}: {reason}", script.display()));
    }
    Ok(child)
}

/// A free port whose successor is free too. Below the range that systems take clients' ports from: else, while a broker
/// is down, the port that it had may become a client's, or a client may even reach itself there.
pub fn free_port() -> std::io::Result<u16> {
    loop {
        let port = fastrand::u16(20_000..32_000);
        if let (Ok(_), Ok(_)) = (bind(port), bind(port + 1)) {
            return Ok(port);
        }
    }
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port))
}
