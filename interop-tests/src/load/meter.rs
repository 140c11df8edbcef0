//! What a process costs, from /proc; percentiles.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time that every thread of process `id` used so far.
pub fn cpu_time(id: u32) -> io::Result<Duration> {
    schedstat(id, 0)
}

/// How long the threads of process `id` were ready to run and got no core.
pub fn waiting_time(id: u32) -> io::Result<Duration> {
    schedstat(id, 1)
}

/// As [`waiting_time`], of the first thread alone.
pub fn first_waiting_time(id: u32) -> io::Result<Duration> {
    column_of(&fs::read_to_string(format!("/proc/{id}/schedstat"))?, 1)
}

fn schedstat(id: u32, column: usize) -> io::Result<Duration> {
    let mut time = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        time += column_of(&fs::read_to_string(task?.path().join("schedstat"))?, column)?;
    }
    Ok(time)
}

fn column_of(schedstat: &str, column: usize) -> io::Result<Duration> {
    let value = schedstat.split_ascii_whitespace().nth(column).and_then(|n| n.parse().ok());
    value.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Resident memory of process `id`, octets.
pub fn resident(id: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_ascii_whitespace().next()).and_then(|n| n.parse().ok());
    kib.map(|kib: u64| kib * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The value below which `share` (0 to 1) of `sorted` lie; zero of nothing.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
