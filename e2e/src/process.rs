//! A server or a program of ours as a process that can be killed, stopped and continued.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

/// A running process with a log file. Killed, with whatever it has started, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    pid: Pid,
}

impl Process {
    /// Starts a command in a process group of its own; its output is added to `<folder>/<name>.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, folder: &Path, mut command: Command) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = open_log(&log)?;
        let err = out.try_clone().context("the log cannot be shared")?;
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("{name} cannot be started ({command:?})"))?;
        let pid = Pid::from_child(&child);
        reaper().note(&format!("process {pid}"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            child,
            pid,
        })
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("{} cannot be signalled", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended before: a scenario that kills it expects it alive.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "{} has ended by itself ({status}): {}",
                self.name,
                self.tail(5)
            );
        }
        self.signal(Signal::KILL)?;
        self.child.wait().context("waiting for a killed process")?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it has not ended within `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit).await
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::for_some(&what, limit, async || self.ended()).await
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("a process' state is unknown")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// The whole log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Largest resident memory so far, in KiB (`VmHWM`).
    ///
    /// # Errors
    /// When the process has ended.
    pub fn peak_memory_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            .context("the process has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kib.context("no VmHWM in /proc")
    }

    /// Processor time used so far, user and system, all threads.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.child.id())
    }
}

/// Processor time that a process has used so far, user and system, all threads.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // Fields 14 and 15, counted behind the program's name, which may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(
        ticks * 1000 / rustix::param::clock_ticks_per_second(),
    ))
}

/// `kill -9` of a process that another one has started.
///
/// # Errors
/// When there is none.
pub fn kill(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("no process has the id 0")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("process {pid} cannot be killed"))
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGKILL ends a stopped process too.
            let _ = kill_process_group(self.pid, Signal::KILL);
            let _ = self.child.wait();
        }
        let _ = reaper().note(&format!("gone {}", self.pid));
    }
}

/// The last lines of a file; empty if it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Has a folder removed when this process has ended, however it ends.
///
/// # Errors
/// When the reaper cannot be told.
pub fn remove_at_end(folder: &Path) -> Result<()> {
    reaper().note(&format!("folder {}", folder.display()))
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// A shell that outlives this process by a moment: when its input closes, for whatever reason, it kills what is left
/// and removes folders, with the processes that run below them: those that an operator has started. `Drop` alone would leave servers behind after a `kill -9` or an abort of the test.
struct Reaper {
    input: Mutex<Option<std::process::ChildStdin>>,
}

const REAPER: &str = r#"
pids= folders=
while read -r kind what; do
  case $kind in
    process) pids="$pids $what" ;;
    gone) rest=; for pid in $pids; do [ "$pid" = "$what" ] || rest="$rest $pid"; done; pids=$rest ;;
    folder) folders="$folders $what" ;;
  esac
done
for pid in $pids; do kill -KILL -- "-$pid" 2>/dev/null; done
[ -n "$pids" ] && sleep 0.2
for folder in $folders; do
  for process in /proc/[0-9]*; do
    case $(readlink "$process/cwd") in
      "$folder"/*) kill -KILL "${process#/proc/}" 2>/dev/null ;;
    esac
  done
  rm -rf "$folder"
done
"#;

fn reaper() -> &'static Reaper {
    static REAPER_PROCESS: OnceLock<Reaper> = OnceLock::new();
    REAPER_PROCESS.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", REAPER])
            .stdin(Stdio::piped())
            // Output of its own would keep pipes of the test's caller open.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Reaper {
            input: Mutex::new(shell.ok().and_then(|mut shell| shell.stdin.take())),
        }
    })
}

impl Reaper {
    fn note(&self, line: &str) -> Result<()> {
        let mut input = self
            .input
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let input = input
            .as_mut()
            .context("the shell that cleans up could not be started")?;
        writeln!(input, "{line}").context("the shell that cleans up is gone")
    }
}
