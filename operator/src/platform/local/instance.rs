//! One instance: its record, which outlives the operator, and its live parts, which do not.

use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::process::ProcessId;
use crate::platform::Phase;
use crate::platform::plan::At;
use crate::platform::probe::Prober;

/// Pause before the first restart of a program that ended unasked; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause: someone who has repaired something should not wait long to see it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A program that ran this long was all right: its next end is a first one again.
const GOOD_RUN: Duration = Duration::from_secs(30);

/// Ends in a row after which somebody must help.
const STUCK_AFTER: u32 = 3;

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// What is kept of an instance on disk. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) process: Option<ProcessId>,
    pub(super) started_at: u64,
    /// What the process was started from.
    pub(super) template: String,
    pub(super) ready: bool,
    /// Somebody asked for a restart.
    pub(super) restart: bool,
    pub(super) stopping: Option<Stopping>,
    /// Ends in a row that nobody asked for.
    pub(super) failures: u32,
    /// Restarts after an end that nobody asked for, ever.
    pub(super) restarts: u32,
    /// It could not even be started.
    pub(super) cannot_start: bool,
    pub(super) retry_at: u64,
    pub(super) message: Option<String>,
    /// Size of the log at the start.
    pub(super) log_from: u64,
}

/// On its way out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Stopping {
    pub(super) kill_at: u64,
    /// It is stopped because it does not live, which counts as an end of its own.
    pub(super) failing: bool,
}

impl Record {
    pub(super) fn at(&self, template: &str, now: u64) -> At {
        match (&self.process, self.stopping) {
            (Some(_), Some(_)) => At::Stopping,
            (Some(_), None) => At::Running {
                ready: self.ready,
                current: self.template == template,
                restart: self.restart,
            },
            (None, _) if now < self.retry_at => At::Waiting,
            (None, _) => At::Idle,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match (&self.process, self.stopping) {
            (Some(_), Some(_)) => Phase::Stopping,
            (Some(_), None) => Phase::Running,
            (None, _) if self.failures > 0 => Phase::BackOff,
            (None, _) => Phase::Pending,
        }
    }

    /// Whether somebody must help.
    pub(super) fn is_stuck(&self) -> bool {
        self.cannot_start || self.failures >= STUCK_AFTER
    }

    pub(super) fn has_started(&mut self, process: ProcessId, template: &str, log_from: u64) {
        *self = Self {
            process: Some(process),
            started_at: now_ms(),
            template: template.to_owned(),
            failures: self.failures,
            restarts: self.restarts + u32::from(self.failures > 0 && !self.cannot_start),
            message: self.message.take(),
            log_from,
            ..Self::default()
        };
    }

    pub(super) fn could_not_start(&mut self, why: String) {
        self.cannot_start = true;
        self.failures += 1;
        self.retry_at = now_ms() + millis(pause(self.failures));
        self.message = Some(why);
    }

    /// The process ended as it was asked to.
    pub(super) fn has_stopped(&mut self) {
        *self = Self {
            restarts: self.restarts,
            ..Self::default()
        };
    }

    /// The process ended unasked.
    pub(super) fn has_failed(&mut self, what: &str, log: &str) {
        let ran = Duration::from_millis(now_ms().saturating_sub(self.started_at));
        let failures = if ran >= GOOD_RUN {
            1
        } else {
            self.failures + 1
        };
        let pause = pause(failures);
        self.process = None;
        self.ready = false;
        self.stopping = None;
        self.restart = false;
        self.failures = failures;
        self.retry_at = now_ms() + millis(pause);
        self.message = Some(failure_message(what, ran, failures, pause, log));
    }

    /// A run long enough to be called good ends the row of failures.
    pub(super) fn note_good_run(&mut self) -> bool {
        let good = self.failures > 0
            && self.process.is_some()
            && self.ready
            && now_ms().saturating_sub(self.started_at) >= millis(GOOD_RUN);
        if good {
            self.failures = 0;
            self.message = None;
        }
        good
    }

    /// A changed description deserves a fresh try.
    pub(super) fn forget_failures(&mut self) {
        if self.process.is_none() {
            self.failures = 0;
            self.cannot_start = false;
            self.retry_at = 0;
        }
    }
}

/// The live parts of an instance.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Held when this operator started the process, for its exit status.
    pub(super) child: Option<Child>,
    pub(super) prober: Option<Prober>,
}

fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn failure_message(what: &str, ran: Duration, failures: u32, pause: Duration, log: &str) -> String {
    let times = if failures > 1 {
        format!(", {failures} times in a row")
    } else {
        String::new()
    };
    let hint = hint(log).map(|hint| format!(" {hint}")).unwrap_or_default();
    let said = if log.is_empty() {
        String::new()
    } else {
        format!(" Its last lines:\n{log}")
    };
    format!(
        "{what} after {:.1} s{times}; next try in {:.1} s.{hint}{said}",
        ran.as_secs_f64(),
        pause.as_secs_f64()
    )
}

/// What to do about the most common reason.
fn hint(log: &str) -> Option<&'static str> {
    let log = log.to_ascii_lowercase();
    let port_in_use =
        log.contains("address already in use") || (log.contains("port") && log.contains("in use"));
    port_in_use.then_some(
        "Another program listens on a port it needs: stop that program, or change the port.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        assert_eq!(pause(1), Duration::from_millis(500));
        assert_eq!(pause(3), Duration::from_secs(2));
        assert_eq!(pause(100), LONGEST_PAUSE);
    }

    #[test]
    fn a_failure_says_what_to_do() {
        let log = "listen tcp 127.0.0.1:8002: bind: address already in use";
        let message = failure_message(
            "exit status: 1",
            Duration::from_millis(100),
            2,
            pause(2),
            log,
        );
        assert_eq!(
            message,
            "exit status: 1 after 0.1 s, 2 times in a row; next try in 1.0 s. Another program listens on a \
             port it needs: stop that program, or change the port. Its last lines:\n\
             listen tcp 127.0.0.1:8002: bind: address already in use"
        );
    }
}
