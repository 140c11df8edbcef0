//! What is read before and after a measurement: clocks, counters and processor time.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use super::contender::Contender;
use crate::lab::namespace::Namespace;

/// The kernel reports processor time of the machine in hundredths of a second (`USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// Processor time used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Instant,
    /// Of the processes of gateway 1 and gateway 2, in nanoseconds.
    gateways: Option<[u64; 2]>,
    /// Of all cores, in nanoseconds.
    machine: u64,
}

/// Processor time used between two moments, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// How long it was, in seconds.
    pub(crate) seconds: f64,
    /// By the processes of gateway 1 and gateway 2.
    pub(crate) gateways: Option<[f64; 2]>,
    /// By everything on the machine.
    pub(crate) machine: f64,
}

impl Reading {
    /// Reads the clocks.
    pub(crate) fn take(contender: &Contender) -> io::Result<Self> {
        let gateways = match contender.groups {
            Some([near, far]) => Some([of_group(near)?, of_group(far)?]),
            None => None,
        };
        let stat = fs::read_to_string("/proc/stat")?;
        let machine =
            busy_ticks(&stat).ok_or_else(|| io::Error::other("/proc/stat is not read"))?;
        Ok(Self { at: Instant::now(), gateways, machine: machine * TICK_NS })
    }

    /// What was used between an earlier reading and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let gateways = self.gateways.zip(earlier.gateways).map(|(now, then)| {
            [0, 1].map(|gateway: usize| now[gateway].saturating_sub(then[gateway]) as f64)
        });
        Used {
            seconds: (self.at - earlier.at).as_secs_f64(),
            gateways,
            machine: self.machine.saturating_sub(earlier.machine) as f64,
        }
    }
}

/// Processor time of all threads of a process group. It includes the work of the network stack that they set off.
fn of_group(group: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in tasks(group)? {
        // A thread may have ended since it was found.
        if let Ok(text) = fs::read_to_string(task.join("schedstat")) {
            total += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(total)
}

/// The directories of all threads of a process group.
pub(crate) fn tasks(group: u32) -> io::Result<Vec<PathBuf>> {
    let mut tasks = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        if group_in(&stat) == Some(group) {
            let threads = fs::read_dir(process.path().join("task")).into_iter().flatten().flatten();
            tasks.extend(threads.map(|thread| thread.path()));
        }
    }
    if tasks.is_empty() {
        return Err(io::Error::other(format!("the process group {group} of a gateway has ended")));
    }
    Ok(tasks)
}

/// The process group in /proc/PID/stat: the third field after the program's name, which may hold anything.
fn group_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// The sum of user, nice, system, irq and softirq time of all cores.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    Some([0, 1, 2, 5, 6].iter().filter_map(|&field| fields.get(field)).sum())
}

/// What an interface has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets that arrived.
    pub(crate) received: u64,
    /// Packets that were sent.
    pub(crate) sent: u64,
}

/// Reads the counters of a link.
pub(crate) fn counted(namespace: &Namespace, link: &'static str) -> io::Result<Counted> {
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    counted_in(&text, link).ok_or_else(|| io::Error::other(format!("no counters of link {link}")))
}

fn counted_in(text: &str, link: &str) -> Option<Counted> {
    let fields = text.lines().find_map(|line| {
        let (name, fields) = line.split_once(':')?;
        (name.trim() == link).then_some(fields)
    })?;
    let mut fields = fields.split_whitespace().map_while(|field| field.parse().ok());
    Some(Counted { received: fields.nth(1)?, sent: fields.nth(7)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_busy_time_leaves_out_idle_and_stolen_time() {
        let stat = "cpu  100 2 30 9999 7 4 5 888 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(141));
        assert_eq!(busy_ticks("intr 5\n"), None);
    }

    #[test]
    fn an_interface_s_packets_are_read() {
        let text = "Inter-|   Receive        |  Transmit\n face |bytes packets errs\n  \
                    lan0: 10 3 0 0 0 0 0 0 20 5 0 0 0 0 0 0\n";
        assert_eq!(counted_in(text, "lan0"), Some(Counted { received: 3, sent: 5 }));
        assert_eq!(counted_in(text, "lan"), None);
    }

    #[test]
    fn this_process_group_has_used_processor_time() {
        let own = nix::unistd::getpgrp().as_raw() as u32;
        assert!(of_group(own).unwrap() > 0);
        assert!(of_group(u32::MAX).is_err());
        assert_eq!(group_in("12 (a) b (c) R 1 34 5"), Some(34));
    }
}
