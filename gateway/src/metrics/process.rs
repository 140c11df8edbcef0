//! What the kernel says of this process.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::{SysconfVar, sysconf};

/// Figures of a process, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Processor time, user and system, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, octets.
    pub resident_bytes: f64,
    /// Virtual memory, octets.
    pub virtual_bytes: f64,
    /// Descriptors that are open.
    pub open_descriptors: f64,
    /// Descriptors that may be open.
    pub most_descriptors: f64,
    /// Threads.
    pub threads: f64,
    /// When it started, seconds since 1970.
    pub started: f64,
}

impl Process {
    /// Of this process, now.
    ///
    /// # Errors
    /// `/proc` is not there or not understood.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let uptime = fs::read_to_string("/proc/uptime")?;
        let limits = fs::read_to_string("/proc/self/limits")?;
        let open = fs::read_dir("/proc/self/fd")?.count();
        let conf = |what| -> io::Result<f64> { Ok(sysconf(what)?.unwrap_or_default() as f64) };
        let units = Units {
            ticks: conf(SysconfVar::CLK_TCK)?,
            page: conf(SysconfVar::PAGE_SIZE)?,
            now: time_of_day(),
        };
        let figures = Self::parse(&stat, &uptime, &limits, &units);
        let figures = figures.ok_or_else(|| io::Error::other("/proc/self is not understood"))?;
        Ok(Self { open_descriptors: open as f64, ..figures })
    }

    fn parse(stat: &str, uptime: &str, limits: &str, units: &Units) -> Option<Self> {
        // The second field is the name in parentheses, which may hold anything.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // proc(5) counts from 1; the first of these is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let booted = units.now - uptime.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let limit = limit.split_ascii_whitespace().next()?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / units.ticks,
            threads: field(20)?,
            started: booted + field(22)? / units.ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * units.page,
            open_descriptors: 0.0,
            most_descriptors: limit.parse().unwrap_or(f64::INFINITY),
        })
    }
}

/// What the kernel counts in.
struct Units {
    ticks: f64,
    page: f64,
    now: f64,
}

#[expect(clippy::disallowed_methods, reason = "the start of the process is told as a time of day")]
fn time_of_day() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_figures() {
        let process = Process::read().expect("figures");
        assert!(process.resident_bytes > 1e5 && process.virtual_bytes > process.resident_bytes);
        assert!(process.threads >= 1.0 && process.open_descriptors >= 3.0);
        assert!(process.started > 1.5e9 && process.started < time_of_day() + 1.0);
    }

    #[test]
    fn fields_are_found_behind_any_name() {
        let mut stat = String::from("7 (a ) b) S");
        for number in 4..=52 {
            stat.push_str(&format!(" {number}"));
        }
        let units = Units { ticks: 100.0, page: 4096.0, now: 1000.0 };
        let limits = "Limit  Soft Limit\nMax open files   1024   4096   files\n";
        let process = Process::parse(&stat, "900.5 3.0\n", limits, &units).expect("figures");
        assert_eq!(process.cpu_seconds, 0.29);
        assert_eq!((process.threads, process.virtual_bytes), (20.0, 23.0));
        assert_eq!(process.resident_bytes, 24.0 * 4096.0);
        assert!((process.started - 99.72).abs() < 1e-9);
        assert_eq!(process.most_descriptors, 1024.0);
        assert_eq!(Process::parse("7 (x) S 1", "1", limits, &units), None);
    }
}
