//! One simulated machine: a state machine with drifting measurements.

use std::collections::VecDeque;
use std::fmt::Write as _;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::uns::UnsPlace;

/// What a machine is; decides its name, its place and how its connector writes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mill,
    Lathe,
    Robot,
    Press,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Mill, Self::Lathe, Self::Robot, Self::Press];

    /// Lathes have a dot in their UUID, as many real machines do.
    fn uuid(self, index: usize) -> String {
        match self {
            Self::Mill => format!("MILL-{index:04}"),
            Self::Lathe => format!("LATHE.{index:04}"),
            Self::Robot => format!("ROBOT-{index:04}"),
            Self::Press => format!("PRESS-{index:04}"),
        }
    }

    const fn area(self) -> &'static str {
        match self {
            Self::Mill | Self::Lathe => "Machining",
            Self::Robot => "Assembly",
            Self::Press => "Forming",
        }
    }

    /// MTConnect's connector writes lower-case members and headers, OpenFactory's core upper-case ones.
    const fn speaks_mtconnect(self) -> bool {
        matches!(self, Self::Mill | Self::Lathe)
    }
}

/// What the machine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Setup,
    Running,
    Fault,
}

/// A value before it is written: text is quoted, numbers have a fixed number of decimals.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Number(f64, usize),
}

#[derive(Debug, Clone, PartialEq)]
struct Observation {
    id: &'static str,
    value: Value,
    tag: &'static str,
    kind: &'static str,
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    kind: Kind,
    uuid: String,
    place: UnsPlace,
    rng: SmallRng,
    phase: Phase,
    /// Observations until the phase ends.
    left: u32,
    pending: VecDeque<Observation>,
    sequence: u64,
    program: u32,
    parts: u64,
    temperature: f64,
    load: f64,
    position: f64,
}

/// Temperature of the hall, and of a machine at rest, in degrees Celsius.
const AMBIENT: f64 = 21.0;

impl Machine {
    /// The machine `index` of a factory; the same seed makes the same machine.
    #[must_use]
    pub fn new(index: usize, seed: u64) -> Self {
        // Spreads neighbouring indices over the seeds (the odd constant is 2^64 divided by the golden ratio).
        let seed = seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let kind = Kind::ALL[index % Kind::ALL.len()];
        let uuid = kind.uuid(index);
        let place = UnsPlace::new(index, kind.area(), &uuid);
        let mut machine = Self {
            kind,
            place,
            uuid,
            rng: SmallRng::seed_from_u64(seed),
            phase: Phase::Idle,
            left: 0,
            pending: VecDeque::new(),
            sequence: 0,
            program: 1000,
            parts: 0,
            temperature: AMBIENT,
            load: 0.0,
            position: 0.0,
        };
        machine.switch_on();
        machine
    }

    /// The asset's UUID.
    #[must_use]
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Where it stands.
    #[must_use]
    pub fn place(&self) -> &UnsPlace {
        &self.place
    }

    /// Number of the observation written last, for MTConnect's headers; `None` for other connectors.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.kind.speaks_mtconnect().then_some(self.sequence)
    }

    /// Writes the next observation as the machine's connector does, made at `timestamp` (RFC 3339).
    pub fn observe(&mut self, timestamp: &str, out: &mut Vec<u8>) {
        let observation = self.next_observation();
        self.sequence += 1;
        out.clear();
        out.extend_from_slice(self.json(&observation, timestamp).as_bytes());
    }

    fn json(&self, it: &Observation, timestamp: &str) -> String {
        let [id, value, tag, kind] = if self.kind.speaks_mtconnect() {
            ["id", "value", "tag", "type"]
        } else {
            ["ID", "VALUE", "TAG", "TYPE"]
        };
        let mut json = String::with_capacity(192);
        // Writing to a String cannot fail, and none of our texts needs escaping.
        let _ = match &it.value {
            Value::Text(text) => write!(json, r#"{{"{id}":"{}","{value}":"{text}""#, it.id),
            Value::Number(number, decimals) => {
                write!(
                    json,
                    r#"{{"{id}":"{}","{value}":{number:.decimals$}"#,
                    it.id
                )
            }
        };
        let _ = write!(
            json,
            r#","{tag}":"{}","{kind}":"{}","attributes":{{"timestamp":"{timestamp}"}}}}"#,
            it.tag, it.kind
        );
        json
    }

    fn next_observation(&mut self) -> Observation {
        loop {
            if let Some(observation) = self.pending.pop_front() {
                return observation;
            }
            if self.left == 0 {
                self.change_phase();
                continue;
            }
            self.left -= 1;
            self.drift();
            return self.measure();
        }
    }

    fn switch_on(&mut self) {
        self.event("avail", "Availability", "AVAILABLE");
        let levels = self.place.levels.clone();
        for (id, value) in levels {
            self.pending.push_back(Observation {
                id,
                value: Value::Text(value),
                tag: "UNSLevel",
                kind: "OpenFactory",
            });
        }
        self.event("mode", "ControllerMode", "AUTOMATIC");
        self.condition("NORMAL");
    }

    fn change_phase(&mut self) {
        let fault = self.rng.random_ratio(1, 40);
        self.phase = match self.phase {
            Phase::Idle => Phase::Setup,
            Phase::Setup => Phase::Running,
            Phase::Running if fault => Phase::Fault,
            Phase::Running => self.finish_part(),
            Phase::Fault => Phase::Idle,
        };
        self.left = match self.phase {
            Phase::Idle => self.rng.random_range(5..20),
            Phase::Setup => self.rng.random_range(3..10),
            Phase::Running => self.rng.random_range(40..200),
            Phase::Fault => self.rng.random_range(5..30),
        };
        match self.phase {
            Phase::Idle => {
                self.condition("NORMAL");
                self.event("execution", "Execution", "READY");
            }
            Phase::Setup => {
                self.program = 1000 + self.rng.random_range(0..40);
                let program = format!("O{}", self.program);
                self.event("program", "Program", &program);
                let tool = self.rng.random_range(1..24).to_string();
                self.event("tool", "ToolNumber", &tool);
            }
            Phase::Running => self.event("execution", "Execution", "ACTIVE"),
            Phase::Fault => {
                self.condition("FAULT");
                self.event("execution", "Execution", "INTERRUPTED");
            }
        }
    }

    /// Every part is followed by the next one, now and then by another program.
    fn finish_part(&mut self) -> Phase {
        self.parts += 1;
        let parts = self.parts.to_string();
        self.event("part_count", "PartCount", &parts);
        if self.rng.random_ratio(1, 10) {
            Phase::Idle
        } else {
            Phase::Running
        }
    }

    /// Temperature follows the load slowly, the load follows the phase with noise.
    fn drift(&mut self) {
        let wanted = match self.phase {
            Phase::Running => 60.0,
            Phase::Setup => 10.0,
            Phase::Idle | Phase::Fault => 0.0,
        };
        let noise = self.rng.random_range(-4.0..4.0);
        self.load = (self.load + (wanted - self.load) * 0.3 + noise).clamp(0.0, 120.0);
        let equilibrium = AMBIENT + self.load * 0.6;
        self.temperature +=
            (equilibrium - self.temperature) * 0.02 + self.rng.random_range(-0.1..0.1);
        self.position = (self.position + self.load * 0.7) % 500.0;
    }

    fn measure(&mut self) -> Observation {
        let (id, tag, value) = match self.rng.random_range(0..7) {
            0 => (
                "temp_spindle",
                "Temperature",
                Value::Number(self.temperature, 2),
            ),
            1 => (
                "temp_coolant",
                "Temperature",
                Value::Number(self.temperature * 0.7 + 6.0, 2),
            ),
            2 => ("load", "Load", Value::Number(self.load, 1)),
            3 => (
                "speed",
                "RotaryVelocity",
                Value::Number(self.load * 120.0, 0),
            ),
            4 => ("Xpos", "Position", Value::Number(self.position, 4)),
            5 => (
                "Zpos",
                "Position",
                Value::Number(250.0 - self.position / 2.0, 4),
            ),
            _ => (
                "power",
                "Wattage",
                Value::Number(400.0 + self.load * 90.0, 0),
            ),
        };
        Observation {
            id,
            value,
            tag,
            kind: "Samples",
        }
    }

    fn event(&mut self, id: &'static str, tag: &'static str, value: &str) {
        self.pending.push_back(Observation {
            id,
            value: Value::Text(value.to_owned()),
            tag,
            kind: "Events",
        });
    }

    fn condition(&mut self, value: &str) {
        self.pending.push_back(Observation {
            id: "system",
            value: Value::Text(value.to_owned()),
            tag: "SystemCondition",
            kind: "Condition",
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ofa_crds::wire::Event;

    use super::*;

    const AT: &str = "2026-01-02T03:04:05.678Z";

    fn observations(index: usize, seed: u64, count: usize) -> Vec<Vec<u8>> {
        let mut machine = Machine::new(index, seed);
        let mut out = Vec::new();
        let one = |_| {
            machine.observe(AT, &mut out);
            out.clone()
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(observations(3, 7, 500), observations(3, 7, 500));
        assert_ne!(observations(3, 7, 500), observations(3, 8, 500));
    }

    #[test]
    fn every_observation_is_an_event_and_all_phases_come_by() {
        let mut seen = HashSet::new();
        for index in 0..4 {
            for json in observations(index, 1, 20_000) {
                let event = Event::from_json(&json).unwrap();
                assert_eq!(event.timestamp(), Some(AT));
                let (id, kind) = (event.id.unwrap(), event.kind.unwrap());
                if id == "execution" || id == "system" {
                    seen.insert(event.value.to_string());
                }
                assert!(["Samples", "Events", "Condition", "OpenFactory"].contains(&kind.as_str()));
                if id.starts_with("temp") {
                    let celsius = event.value.as_f64().unwrap();
                    assert!((10.0..120.0).contains(&celsius), "{celsius}");
                }
            }
        }
        for state in ["ACTIVE", "READY", "INTERRUPTED", "NORMAL", "FAULT"] {
            assert!(seen.contains(&format!("\"{state}\"")), "{state} never seen");
        }
    }

    #[test]
    fn both_casings_are_in_use() {
        let first = |index| String::from_utf8(observations(index, 1, 1).remove(0)).unwrap();
        assert!(first(0).starts_with(r#"{"id":"#), "{}", first(0));
        assert!(first(2).starts_with(r#"{"ID":"#), "{}", first(2));
    }
}
