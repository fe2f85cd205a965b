//! Images of our programs as they were built, made without a builder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools::{self, repository, run};

/// Our programs, in images of the names that the examples use.
const PROGRAMS: [&str; 4] = ["operator", "forwarder", "serving", "ofa"];

/// Version of NATS that a shard has unless it names another.
const NATS: &str = "nats:2.15.2";

/// Makes all images that a factory needs, except Kafka's, as archives in `folder`.
///
/// # Errors
/// When a program is not built.
pub(crate) fn make_all(folder: &Path) -> Result<Vec<PathBuf>> {
    let version = env!("CARGO_PKG_VERSION");
    let built = tools::build_folder()?;
    let ours = PROGRAMS.map(|program| {
        let name = format!("openfactory-fanout/{program}:{version}");
        (name, built.join(program))
    });
    let nats = tools::server("nats-server")?.get_program().to_owned();
    let all = ours
        .into_iter()
        .chain([(NATS.to_owned(), PathBuf::from(nats))]);
    all.map(|(name, program)| make(folder, &name, &program))
        .collect()
}

fn make(folder: &Path, name: &str, program: &Path) -> Result<PathBuf> {
    // Debug information is most of a program, and nobody debugs in there.
    let base = program.file_name().context("a program has a name")?;
    let stripped = folder.join(base);
    run(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
    let image = stripped.with_extension("tar");
    let make = repository().join("images/make-image");
    run(Command::new(make).arg(&image).arg(name).arg(&stripped))?;
    Ok(image)
}
