//! A process that outlives the operator, and how it is found again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

use super::command::CommandLine;
use super::programs;

/// Variable by which a process is known as one of ours even if its start was not recorded.
const MARK: &str = "OFA_LOCAL_INSTANCE";

/// Variable with the template the process was started from.
const TEMPLATE: &str = "OFA_LOCAL_TEMPLATE";

/// What a program gets of the operator's own environment: what finds programs and their run-time, and
/// nothing that could be taken for a setting.
const INHERITED: [&str; 7] = [
    "HOME",
    "JAVA_HOME",
    "KAFKA_HOME",
    "LANG",
    "OFA_CACHE",
    "TMPDIR",
    "TZ",
];

/// A log is cut when it grows past this; the part before is kept once.
const LOG_LIMIT: u64 = 16 * 1024 * 1024;

/// Which process, for all time: a process id comes back after a while, but not with the same start time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pid: i32,
    /// Clock ticks from boot to the process's start.
    start: u64,
    /// The boot it belongs to.
    boot: String,
}

impl ProcessId {
    /// The number by which people know it.
    #[must_use]
    pub(super) fn number(&self) -> i32 {
        self.pid
    }

    fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self {
            pid,
            start: stat.start,
            boot: boot_id(),
        })
    }

    /// Whether it still runs. A zombie does not.
    #[must_use]
    pub(super) fn is_alive(&self) -> bool {
        self.boot == boot_id()
            && Stat::read(self.pid)
                .is_some_and(|stat| stat.start == self.start && stat.state != 'Z')
    }

    /// Asks it to end.
    pub(super) fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // It may have ended between the two calls, which is what was asked for.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills what is left of it and of what it started. Its id cannot belong to another group while
    /// one of its own group lives.
    pub(super) fn kill_group(&self) {
        let reused = Stat::read(self.pid).is_some_and(|stat| stat.start != self.start);
        if let (false, true, Some(pid)) = (reused, self.boot == boot_id(), Pid::from_raw(self.pid))
        {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Starts the instance `mark` as the leader of a process group of its own, so that neither Ctrl-C in the
/// operator's terminal nor the operator's end reaches it.
///
/// # Errors
/// With what to do about it, when files cannot be written or the program is missing.
pub(super) fn start(
    line: &CommandLine,
    mark: &str,
    template: &str,
    directory: &Path,
) -> Result<(ProcessId, Child), String> {
    prepare(line)
        .map_err(|error| format!("cannot write files below {}: {error}", directory.display()))?;
    let program = programs::find(&line.program).ok_or_else(|| missing(&line.program))?;
    let log = open_log(directory).map_err(|error| format!("cannot write the log: {error}"))?;
    let log_copy = log.try_clone().map_err(|error| error.to_string())?;
    let inherited = INHERITED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let child = Command::new(&program)
        .args(&line.args)
        .env_clear()
        .envs(inherited)
        .env("PATH", programs::search_path())
        // Logs go to a file.
        .env("NO_COLOR", "1")
        .envs(&line.env)
        .env(MARK, mark)
        .env(TEMPLATE, template)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_copy)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let number = i32::try_from(child.id()).unwrap_or(i32::MAX);
    match ProcessId::of(number) {
        Some(id) => Ok((id, child)),
        None => Err(format!("{} ended at once", program.display())),
    }
}

fn missing(program: &str) -> String {
    let setup = match program {
        "nats-server" => "; run `e2e/tools/setup nats`, or install it",
        "kafka-server" => "; run `e2e/tools/setup kafka`, or install it",
        "forwarder" | "serving" | "ofa" => "; build it with `cargo build --release`",
        _ => "; install it",
    };
    format!(
        "the program {program} is missing: it is neither on PATH nor beside the operator{setup}"
    )
}

fn prepare(line: &CommandLine) -> std::io::Result<()> {
    if let Some(scratch) = &line.scratch {
        let _ = fs::remove_dir_all(scratch);
    }
    for directory in &line.directories {
        fs::create_dir_all(directory)?;
    }
    for file in &line.files {
        if let Some(parent) = file.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if file.sensitive { 0o600 } else { 0o644 };
        super::store::write_file(&file.path, file.content.as_bytes(), mode)?;
    }
    Ok(())
}

fn open_log(directory: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
}

/// Cuts an instance's log when it has grown too large. Its process goes on appending.
pub(super) fn cut_log(directory: &Path) {
    let path = directory.join("log");
    if fs::metadata(&path).is_ok_and(|meta| meta.len() > LOG_LIMIT)
        && fs::copy(&path, directory.join("log.1")).is_ok()
        && let Ok(log) = OpenOptions::new().write(true).open(&path)
    {
        let _ = log.set_len(0);
    }
}

/// Size of an instance's log.
#[must_use]
pub(super) fn log_size(directory: &Path) -> u64 {
    fs::metadata(directory.join("log")).map_or(0, |meta| meta.len())
}

/// The last lines that an instance logged behind position `from`.
#[must_use]
pub(super) fn last_lines(directory: &Path, from: u64) -> String {
    /// What fits on a screen with everything else.
    const LINES: usize = 6;
    /// No six sensible lines are longer.
    const BYTES: u64 = 4096;
    let Ok(mut log) = File::open(directory.join("log")) else {
        return String::new();
    };
    let end = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let from = if from > end { 0 } else { from };
    let mut bytes = Vec::new();
    let _ = log.seek(SeekFrom::Start(from.max(end.saturating_sub(BYTES))));
    let _ = log.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// The process started for `mark` and the template it was started from, when its start was not recorded:
/// the operator may be killed between a start and its record.
#[must_use]
pub(super) fn find_started(mark: &str) -> Option<(ProcessId, String)> {
    let wanted = format!("{MARK}={mark}");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_leader =
            || Stat::read(pid).is_some_and(|stat| stat.group == pid && stat.state != 'Z');
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        let mut variables = environment.split(|&byte| byte == 0);
        if variables.any(|variable| variable == wanted.as_bytes()) && is_leader() {
            let template = environment
                .split(|&byte| byte == 0)
                .find_map(|variable| variable.strip_prefix(format!("{TEMPLATE}=").as_bytes()));
            let template = String::from_utf8_lossy(template.unwrap_or_default()).into_owned();
            return Some((ProcessId::of(pid)?, template));
        }
    }
    None
}

struct Stat {
    state: char,
    group: i32,
    start: u64,
}

impl Stat {
    /// The fields behind the command name, which is in parentheses and may hold any character.
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            group: fields.get(2)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
