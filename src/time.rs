//! Time as the core sees it: plain numbers handed in by the shell.
//!
//! Nothing here reads a clock. `std::time::Instant` has no zero, does not print and cannot be
//! replayed; these do.

use std::fmt;
use std::time::Duration;

/// Monotonic time in microseconds since an arbitrary zero (the start of the process).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    pub const ZERO: Instant = Instant(0);

    /// This moment plus `delay`; the far future where that overflows.
    pub fn after(self, delay: Duration) -> Instant {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(micros))
    }

    /// The time from `earlier` to this moment; zero where `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Wall(pub i64);

/// The one reading of both clocks that a turn of the loop works with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    pub mono: Instant,
    pub wall: Wall,
}

/// The earlier of two optional deadlines; `None` means "never", unlike in `Option`'s own order.
pub fn soonest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The Gregorian date of a number of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn date_of_day(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// ISO 8601 in UTC with microseconds, as Python's `isoformat()` writes it:
/// `2026-01-31T23:59:59.000001+00:00`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000);
        let micros = self.0.rem_euclid(1_000_000);
        let (year, month, day) = date_of_day(seconds.div_euclid(86_400));
        let of_day = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soonest_treats_none_as_never() {
        let at = |n| Some(Instant(n));
        assert_eq!(soonest(None, at(5)), at(5));
        assert_eq!(soonest(at(5), None), at(5));
        assert_eq!(soonest(at(5), at(3)), at(3));
        assert_eq!(soonest(None, None), None);
    }

    #[test]
    fn wall_time_prints_as_iso_8601() {
        let printed = |micros| Wall(micros).to_string();
        assert_eq!(printed(0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(printed(951_827_696_000_001), "2000-02-29T12:34:56.000001+00:00");
        assert_eq!(printed(-1), "1969-12-31T23:59:59.999999+00:00");
        assert_eq!(printed(4_107_542_400_000_000), "2100-03-01T00:00:00.000000+00:00");
    }

    #[test]
    fn the_far_future_does_not_overflow() {
        assert_eq!(Instant(5).after(Duration::MAX), Instant(u64::MAX));
        assert_eq!(Instant(5).since(Instant(7)), Duration::ZERO);
    }
}
