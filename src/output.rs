//! What a command prints. When nobody reads it any more (`| head`), the program ends without complaint.

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stdout},
};

/// Prints one line, or several.
pub fn print_line(text: impl Display) {
    let mut out = stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: cannot write the output: {error}");
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "nobody reads the rest: there is nothing to drain"
        )]
        std::process::exit(1);
    }
}
