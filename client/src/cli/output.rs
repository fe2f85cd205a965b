//! Standard output. A reader that ends early, `head` say, ends the command quietly.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

/// Prints a line.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints a line of JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Says something to whoever watches, beside the results.
#[allow(clippy::print_stderr, reason = "this is where commands talk to people")]
pub(super) fn note(text: impl Display) {
    eprintln!("{text}");
}

/// A closed pipe is no failure.
pub(super) fn unless_reader_is_gone(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
