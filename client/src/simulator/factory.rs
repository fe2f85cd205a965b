//! All machines of a factory, and when each has something to say.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Machine, Recording, UnsPlace};

/// The next event: whose, and when, counted from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Time since the start.
    pub at: Duration,
    /// Index of the asset.
    pub asset: usize,
}

/// Assets and their schedule. A schedule is absolute: an event that was late does not delay the next.
#[derive(Debug)]
pub struct Factory {
    assets: Vec<Asset>,
    schedule: BinaryHeap<Reverse<(Duration, usize)>>,
}

#[derive(Debug)]
enum Asset {
    Simulated {
        machine: Box<Machine>,
        interval: Duration,
    },
    Replayed {
        recording: Arc<Recording>,
        uuid: String,
        place: UnsPlace,
        next: usize,
        /// Replayed time to recorded time.
        stretch: f64,
    },
}

impl Factory {
    /// `count` simulated machines that together say `rate` events a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 assets")]
    pub fn simulated(count: usize, rate: f64, seed: u64) -> Self {
        let interval = Duration::from_secs_f64(count as f64 / rate);
        let assets = (0..count).map(|index| Asset::Simulated {
            machine: Box::new(Machine::new(index, seed)),
            interval,
        });
        // Evenly spread starts make an even rate.
        Self::start(assets.collect(), |index| {
            interval.mul_f64(index as f64 / count as f64)
        })
    }

    /// `count` copies of a recorded machine, each beginning elsewhere in the recording. With a `rate` time is
    /// stretched so that all together say that many events a second on average; without, it is as recorded.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 assets")]
    pub fn replayed(
        recording: &Arc<Recording>,
        count: usize,
        rate: Option<f64>,
        seed: u64,
    ) -> Self {
        let natural = recording.rate() * count as f64;
        let stretch = rate.map_or(1.0, |rate| natural / rate);
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut starts = Vec::with_capacity(count);
        let assets = (0..count).map(|index| {
            // A point in time, not an event: most events lie close together, where few machines are at a time.
            let (next, until_ms) = recording.event_after(rng.random_range(0.0..1.0));
            starts.push(Duration::from_millis(until_ms).mul_f64(stretch));
            let uuid = recording.uuid(index);
            Asset::Replayed {
                place: UnsPlace::new(index, "Machining", &uuid),
                uuid,
                next,
                recording: Arc::clone(recording),
                stretch,
            }
        });
        let assets: Vec<Asset> = assets.collect();
        Self::start(assets, |index| starts[index])
    }

    fn start(assets: Vec<Asset>, mut first: impl FnMut(usize) -> Duration) -> Self {
        let schedule = (0..assets.len())
            .map(|index| Reverse((first(index), index)))
            .collect();
        Self { assets, schedule }
    }

    /// Number of assets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.assets.len()
    }

    /// Whether there are no assets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.assets.is_empty()
    }

    /// An asset's UUID.
    #[must_use]
    pub fn uuid(&self, asset: usize) -> &str {
        match &self.assets[asset] {
            Asset::Simulated { machine, .. } => machine.uuid(),
            Asset::Replayed { uuid, .. } => uuid,
        }
    }

    /// An asset's place.
    #[must_use]
    pub fn place(&self, asset: usize) -> &UnsPlace {
        match &self.assets[asset] {
            Asset::Simulated { machine, .. } => machine.place(),
            Asset::Replayed { place, .. } => place,
        }
    }

    /// MTConnect's sequence number of the event written last, where the asset speaks MTConnect.
    #[must_use]
    pub fn sequence(&self, asset: usize) -> Option<u64> {
        match &self.assets[asset] {
            Asset::Simulated { machine, .. } => machine.sequence(),
            Asset::Replayed { .. } => None,
        }
    }

    /// When the next event is due. `None` without assets.
    #[must_use]
    pub fn peek(&self) -> Option<Due> {
        let &Reverse((at, asset)) = self.schedule.peek()?;
        Some(Due { at, asset })
    }

    /// Writes the event that is due next, made at `timestamp`, and plans the asset's next one.
    pub fn write_next(&mut self, timestamp: &str, out: &mut Vec<u8>) {
        let Some(Reverse((at, index))) = self.schedule.pop() else {
            return;
        };
        let pause = match &mut self.assets[index] {
            Asset::Simulated { machine, interval } => {
                machine.observe(timestamp, out);
                *interval
            }
            Asset::Replayed {
                recording,
                next,
                stretch,
                ..
            } => {
                recording.write(*next, timestamp, out);
                let pause = Duration::from_millis(recording.pause_ms(*next)).mul_f64(*stretch);
                *next = (*next + 1) % recording.len();
                pause
            }
        };
        self.schedule.push(Reverse((at + pause, index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_even_and_no_asset_is_left_out() {
        let mut factory = Factory::simulated(50, 1000.0, 1);
        let mut counts = [0; 50];
        let (mut out, mut last) = (Vec::new(), Duration::ZERO);
        for index in 0..2000_u32 {
            let due = factory.peek().unwrap();
            assert!(due.at >= last);
            let ideal = Duration::from_millis(1) * index;
            assert!(
                due.at.abs_diff(ideal) < Duration::from_micros(10),
                "{:?} for {ideal:?}",
                due.at
            );
            last = due.at;
            counts[due.asset] += 1;
            factory.write_next("t", &mut out);
        }
        assert!(counts.iter().all(|&count| count == 40), "{counts:?}");
    }

    /// A recording in bursts: a hundred events in a moment, then nearly two minutes of nothing.
    #[test]
    fn a_replay_has_its_rate_from_the_beginning() {
        let file = std::env::temp_dir().join(format!("ofa-bursts-{}.jsonl", std::process::id()));
        let times = (0..100).chain([100_000]);
        let line = |t_ms| format!("{{\"t_ms\":{t_ms},\"key\":\"a\",\"value\":{{}}}}\n");
        std::fs::write(&file, times.map(line).collect::<String>()).unwrap();
        let recording = Arc::new(Recording::open(&file).unwrap());
        std::fs::remove_file(&file).unwrap();

        let mut factory = Factory::replayed(&recording, 500, Some(1000.0), 1);
        let (mut out, mut count) = (Vec::new(), 0);
        while factory.peek().unwrap().at < Duration::from_secs(10) {
            factory.write_next("t", &mut out);
            count += 1;
        }
        assert!((8_500..11_500).contains(&count), "{count} events in 10 s");
    }
}
