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

/// The number of days from 1970-01-01 to a Gregorian date (Hinnant's `days_from_civil`).
fn day_of_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A number of exactly `digits` digits at the front of `text`, and the rest.
fn digits(text: &str, digits: usize) -> Option<(i64, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| Some((number.parse().ok()?, rest)))?
}

impl Wall {
    /// Reads ISO 8601 as far as Python's `datetime.fromisoformat` does, but for week dates: date,
    /// `T` or a space, time to any precision, offset; with or without separators. Without an
    /// offset it is UTC.
    pub fn parse(text: &str) -> Option<Wall> {
        let (year, rest) = digits(text, 4)?;
        let extended = rest.starts_with('-');
        let skip = |rest| if extended { str::strip_prefix(rest, '-') } else { Some(rest) };
        let (month, rest) = digits(skip(rest)?, 2)?;
        let (day, rest) = digits(skip(rest)?, 2)?;
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if year == 0 || !(1..=12).contains(&month) || !(1..=days).contains(&day) {
            return None;
        }
        let micros_of_day = match rest.chars().next() {
            None => 0,
            Some(separator) => parse_time(&rest[separator.len_utf8()..])?,
        };
        Some(Wall(day_of_date(year, month, day) * 86_400_000_000 + micros_of_day))
    }
}

/// Microseconds since midnight UTC of a time with an optional offset.
fn parse_time(text: &str) -> Option<i64> {
    let at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (time, offset) = text.split_at(at);
    let micros = parse_clock(time)?;
    let offset = match offset.as_bytes() {
        [] | [b'Z' | b'z'] => 0,
        [b'+', ..] => parse_clock(&offset[1..])?,
        [b'-', ..] => -parse_clock(&offset[1..])?,
        _ => return None,
    };
    Some(micros - offset)
}

/// `HH[:MM[:SS[.f…]]]` or without colons, in microseconds.
fn parse_clock(text: &str) -> Option<i64> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    let (hour, mut rest) = digits(whole, 2)?;
    let extended = rest.starts_with(':');
    let mut parts = [0, 0];
    let mut read = 0;
    for part in &mut parts {
        if rest.is_empty() {
            break;
        }
        let unit = if extended { rest.strip_prefix(':')? } else { rest };
        (*part, rest) = digits(unit, 2)?;
        read += 1;
    }
    let [minute, second] = parts;
    let in_range = hour < 24 && minute < 60 && second < 60;
    if !rest.is_empty() || !in_range || (!fraction.is_empty() && read < 2) {
        return None;
    }
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros: i64 = format!("{:0<6.6}", fraction).parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
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
    fn iso_8601_is_read_with_its_offset() {
        let good = [
            ("1970-01-01", 0),
            ("1970-01-01T00:00", 0),
            ("1970-01-01 00:00:01.5", 1_500_000),
            ("1970-01-01T01:00:00.0000019+01:00", 1),
            ("19691231T235959Z", -1_000_000),
            ("2000-02-29T12:34:56.000001+00:00", 951_827_696_000_001),
            ("1970-01-01T00:00:00-0130", 5_400_000_000),
        ];
        for (text, micros) in good {
            assert_eq!(Wall::parse(text), Some(Wall(micros)), "{text}");
        }
        for text in [
            "",
            "x",
            "2001-02-29",
            "1970-01-01T",
            "1970-01-01T24:00",
            "1970-01-01T0:00",
            "1970-1-1",
            "1970-01-01T00:00:00+",
            "1970-01-01T00.5",
            "+970-01-01",
            "1970-01-01T00:00:0é",
        ] {
            assert_eq!(Wall::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_far_future_does_not_overflow() {
        assert_eq!(Instant(5).after(Duration::MAX), Instant(u64::MAX));
        assert_eq!(Instant(5).since(Instant(7)), Duration::ZERO);
    }
}
