//! RFC 3339 timestamps in UTC, written fast.

/// Who set a Kafka record's timestamp, in upstream's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// The producer.
    Producer,
    /// The broker, when it appended the record.
    Broker,
    /// Nobody: the record has none.
    Unknown,
}

impl TimestampKind {
    /// The word in payloads.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Broker => "broker",
            Self::Unknown => "unknown",
        }
    }
}

/// Writes `2026-01-02T03:04:05.678Z`; remembers the last second, since records come in order of time.
#[derive(Debug)]
pub(super) struct Rfc3339 {
    second: i64,
    text: [u8; 24],
}

impl Default for Rfc3339 {
    fn default() -> Self {
        Self {
            second: 0,
            text: *b"1970-01-01T00:00:00.000Z",
        }
    }
}

/// Last millisecond of the year 9999: RFC 3339 has four digits for a year.
const MAX_MS: i64 = 253_402_300_799_999;

impl Rfc3339 {
    /// Formats milliseconds since the Unix epoch; what lies outside the years 1970 to 9999 is moved to the nearest end.
    pub(super) fn format(&mut self, ms: i64) -> &[u8; 24] {
        let ms = ms.clamp(0, MAX_MS);
        let second = ms / 1000;
        if second != self.second {
            self.set_second(second);
        }
        self.put(20, 3, ms % 1000);
        &self.text
    }

    fn set_second(&mut self, second: i64) {
        self.second = second;
        let (year, month, day) = civil_from_days(second / 86_400);
        let of_day = second % 86_400;
        self.put(0, 4, year);
        self.put(5, 2, month);
        self.put(8, 2, day);
        self.put(11, 2, of_day / 3600);
        self.put(14, 2, of_day / 60 % 60);
        self.put(17, 2, of_day % 60);
    }

    fn put(&mut self, at: usize, digits: usize, mut number: i64) {
        for digit in self.text[at..at + digits].iter_mut().rev() {
            *digit = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
            number /= 10;
        }
    }
}

/// Year, month and day of a day since 1970-01-01, after Howard Hinnant's "chrono-Compatible Low-Level
/// Date Algorithms", for days from 1970 on.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_date_library(ms in 0..MAX_MS, step in 0..100_000i64) {
            let mut writer = Rfc3339::default();
            for ms in [ms, (ms + step).min(MAX_MS)] {
                let library = jiff::Timestamp::from_millisecond(ms).unwrap();
                prop_assert_eq!(std::str::from_utf8(writer.format(ms)).unwrap(), format!("{library:.3}"));
            }
        }
    }

    #[test]
    fn what_cannot_be_written_is_moved_to_the_nearest_end() {
        assert_eq!(Rfc3339::default().format(-1), b"1970-01-01T00:00:00.000Z");
        assert_eq!(
            Rfc3339::default().format(i64::MAX),
            b"9999-12-31T23:59:59.999Z"
        );
    }
}
