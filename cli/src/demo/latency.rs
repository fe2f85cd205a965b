//! How latencies are distributed.

use std::time::Duration;

/// Width of a bucket in microseconds.
const WIDTH_US: u128 = 100;

/// Buckets up to 20 s; what takes longer counts as 20 s.
const BUCKETS: usize = 200_000;

/// Counts by tenths of a millisecond.
#[derive(Debug)]
pub(crate) struct Latencies {
    buckets: Vec<u32>,
    count: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
        }
    }
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        let bucket = usize::try_from(latency.as_micros() / WIDTH_US).unwrap_or(BUCKETS);
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Milliseconds that a share of `per_mille` thousandths stays below; 0 without any.
    #[expect(clippy::cast_precision_loss, reason = "at most 200,000 buckets")]
    pub(crate) fn quantile_ms(&self, per_mille: u64) -> f64 {
        let wanted = (self.count * per_mille).div_ceil(1000);
        let mut seen = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if count > 0 && seen >= wanted {
                return (bucket + 1) as f64 / 10.0;
            }
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_bounds() {
        let mut latencies = Latencies::default();
        assert!(latencies.quantile_ms(990).abs() < 1e-9);
        for ms in 1..=100 {
            latencies.add(Duration::from_millis(ms) - Duration::from_micros(50));
        }
        latencies.add(Duration::from_secs(1000));
        assert!((latencies.quantile_ms(500) - 51.0).abs() < 1e-9);
        assert!((latencies.quantile_ms(990) - 100.0).abs() < 1e-9);
        assert!((latencies.quantile_ms(1000) - 20_000.0).abs() < 1e-9);
    }
}
