//! Where the programs are that a scenario starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Variables that programs are given; everything else of the surrounding environment stays outside, so that a
/// `KAFKA_BROKER` of the developer's shell changes no scenario.
const KEPT_VARIABLES: [&str; 7] = [
    "PATH",
    "HOME",
    "JAVA_HOME",
    "KAFKA_HOME",
    "OFA_CACHE",
    "TMPDIR",
    "RUST_BACKTRACE",
];

/// A command that runs one of the servers (`nats-server`, `kafka-server`): from PATH, or as set up by
/// `e2e/tools/setup`.
///
/// # Errors
/// When it is in neither place.
pub fn server(program: &str) -> Result<Command> {
    let found = on_path(program).or_else(|| present(set_up_programs()?.join(program)));
    match found {
        Some(path) => Ok(clean_command(&path)),
        None => bail!(
            "{program} is not on PATH and not set up; run: e2e/tools/setup {}",
            program.split('-').next().unwrap_or(program)
        ),
    }
}

/// A command that runs one of our own programs (`forwarder`, `serving`, `operator`): the one built beside this test.
///
/// # Errors
/// When it was not built.
pub fn own(program: &str) -> Result<Command> {
    let folder = build_folder()?;
    match present(folder.join(program)) {
        Some(path) => Ok(clean_command(&path)),
        None => bail!(
            "{} is not built; run the tests by e2e/tools/test, or first: cargo build --workspace --bins",
            folder.join(program).display()
        ),
    }
}

/// The folder of this process' own build, where cargo puts programs: `target/debug` of `target/debug/deps/test`.
///
/// # Errors
/// When the process cannot tell where its program is.
pub fn build_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let folder = program.parent().context("this program has no folder")?;
    let is_deps = folder.file_name().is_some_and(|name| name == "deps");
    Ok(match folder.parent() {
        Some(parent) if is_deps => parent.to_owned(),
        _ => folder.to_owned(),
    })
}

/// The command's search path with our own programs and the servers in front, for programs that start others.
///
/// # Errors
/// When the process cannot tell where its program is.
pub fn search_path() -> Result<String> {
    let mut folders = vec![build_folder()?];
    folders.extend(set_up_programs());
    folders.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let joined = std::env::join_paths(folders).context("PATH cannot be put together")?;
    Ok(joined.to_string_lossy().into_owned())
}

/// The checkout.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command that must succeed; what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("{command:?} cannot be run"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs(
        KEPT_VARIABLES
            .iter()
            .filter_map(|&name| Some((name, std::env::var_os(name)?))),
    );
    command
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|folder| present(folder.join(program)))
}

fn set_up_programs() -> Option<PathBuf> {
    Some(cache()?.join("bin"))
}

/// Where servers and tools are installed.
pub(crate) fn cache() -> Option<PathBuf> {
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    named("OFA_CACHE").or_else(|| {
        let base = named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")));
        Some(base?.join("openfactory-fanout"))
    })
}

fn present(path: PathBuf) -> Option<PathBuf> {
    path.is_file().then_some(path)
}
