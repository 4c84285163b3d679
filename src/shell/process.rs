//! What a process knows of itself. Its figures are read from `/proc` (Linux); elsewhere all but the
//! start time are unknown, and the metrics leave them out.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{clock, stderr};
use crate::engine::Setup;
use crate::metrics::ProcessFigures;

/// Clock ticks in a second, as `/proc` counts them: USER_HZ, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// What an engine takes from this process and its system.
pub fn setup() -> Setup {
    Setup { seed: clock::seed(), pid: std::process::id(), terminal: stderr::is_terminal() }
}

/// Reads the figures. `started`: when the process began. Takes some 0.1 ms.
pub fn figures(started: SystemTime) -> ProcessFigures {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    ProcessFigures {
        cpu_seconds: cpu_seconds(&stat),
        resident_memory_bytes: resident_bytes(&read("/proc/self/status")),
        virtual_memory_bytes: stat_field(&stat, 23),
        open_fds: open_fds(),
        max_fds: max_fds(&read("/proc/self/limits")),
        start_time_seconds: started.duration_since(UNIX_EPOCH).ok().map(|age| age.as_secs_f64()),
    }
}

/// A numeric field of `/proc/self/stat`, numbered from 1 as in proc_pid_stat(5).
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    // The second field is the program's name in parentheses, which may hold spaces and more
    // parentheses; the third follows the last one.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// User and system time of all threads.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let ticks = stat_field(stat, 14)? + stat_field(stat, 15)?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// `VmRSS` of `/proc/self/status`: in kilobytes whatever the page size, which `statm` counts in.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1_024)
}

/// The soft limit, which is the one that counts. None where it is `unlimited`.
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<u64> {
    // From Linux 6.2 on, the directory's size is the number of descriptors.
    let directory = "/proc/self/fd";
    match fs::metadata(directory).ok()?.len() {
        // One entry is the directory that is being listed. Tens of thousands of descriptors take
        // some milliseconds to list.
        0 => Some((fs::read_dir(directory).ok()?.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "77 (a) b (c) S 1 77 77 0 -1 4194560 900 0 3 0 250 50 0 0 20 0 1 0 5000 \
                        123456789 400 18446744073709551615 1 1 0";

    #[test]
    fn fields_are_counted_behind_the_name() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(stat_field(STAT, 23), Some(123_456_789));
        assert_eq!(stat_field(STAT, 1), None);
        assert_eq!(stat_field(STAT, 99), None);
        assert_eq!(stat_field("", 23), None);
    }

    #[test]
    fn memory_and_limits_are_found_by_their_names() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\n"), Some(1_263_616));
        assert_eq!(resident_bytes("Name:\tVmRSS\n"), None);
        let limits = "Limit    Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1_024));
        assert_eq!(max_fds("Max open files   unlimited   unlimited   files"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_figures() {
        let now = SystemTime::now();
        let figures = figures(now);
        assert!(figures.cpu_seconds.is_some());
        assert!(figures.resident_memory_bytes > Some(100_000));
        assert!(figures.virtual_memory_bytes >= figures.resident_memory_bytes);
        assert!(figures.open_fds >= Some(3));
        assert!(figures.start_time_seconds > Some(1.6e9));
    }
}
