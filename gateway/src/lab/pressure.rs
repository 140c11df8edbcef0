//! Whether the machine had cores to spare while something was timed, and figures that are taken again if it had not.

use std::fs;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::report::{Acceptance, Checks};

/// How often a figure is taken at most.
pub(crate) const ATTEMPTS: usize = 3;
/// A machine of whose time tasks spent this share waiting for a core has none to spare: one part of so many.
const SCARCE: u32 = 5;
/// Pressure stall information of the kernel: what tasks waited for.
const PRESSURE: &str = "/proc/pressure/cpu";
/// How often a thread that does nothing else looks at the clock.
const BEAT: Duration = Duration::from_millis(2);
/// A machine that lets that thread wait for so much longer stood still: the host of a virtual machine may have given its cores to others,
/// of which [`PRESSURE`] knows nothing.
const STILL: Duration = Duration::from_millis(20);

/// Watches from its making on.
pub(crate) struct Pressure {
    begin: Instant,
    waited: Option<Duration>,
    heart: Option<(Sender<()>, JoinHandle<Duration>)>,
}

impl Pressure {
    pub(crate) fn begin() -> Self {
        let (stop, stopped) = mpsc::channel();
        let heart = thread::Builder::new().name("heart".into()).spawn(move || {
            let mut longest = Duration::ZERO;
            loop {
                let begin = Instant::now();
                match stopped.recv_timeout(BEAT) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return longest,
                }
                longest = longest.max(begin.elapsed().saturating_sub(BEAT));
            }
        });
        let heart = heart.ok().map(|thread| (stop, thread));
        Self { begin: Instant::now(), waited: waited(), heart }
    }

    /// Why figures taken meanwhile may be the machine's; `None` if it had cores to spare.
    pub(crate) fn end(self) -> Option<String> {
        let all = self.begin.elapsed();
        let still = self.heart.and_then(|(stop, heart)| {
            drop(stop);
            heart.join().ok()
        });
        let waited = waited().zip(self.waited).map(|(now, then)| now.saturating_sub(then));
        scarcity(all, waited, still.unwrap_or_default())
    }
}

/// Whether a machine is short of cores of which tasks `waited` for one, out of `all` the time, and which stood `still` for so long.
fn scarcity(all: Duration, waited: Option<Duration>, still: Duration) -> Option<String> {
    match waited {
        _ if still >= STILL => {
            Some(format!("the machine stood still for {} ms", still.as_millis()))
        }
        Some(waited) if waited * SCARCE >= all => Some(format!(
            "tasks waited for a core for {:.1} s of {:.1} s",
            waited.as_secs_f64(),
            all.as_secs_f64()
        )),
        Some(_) => None,
        None => Some("the kernel does not say whether cores were free".to_owned()),
    }
}

/// Acceptances that were not observed while the machine was short of cores: what each is about, and what was seen.
pub(crate) type Before = Vec<(String, String)>;

/// Takes what `observe` records as it is, unless something failed while the machine was short of cores: then it is observed anew, three times
/// in all, and what was seen before is said beside the last figure. No limit is changed by it.
pub(crate) fn patiently(
    checks: &mut Checks,
    mut observe: impl FnMut(&mut Checks) -> io::Result<()>,
) -> io::Result<()> {
    let mut before = Before::new();
    for attempt in 1..=ATTEMPTS {
        let pressure = Pressure::begin();
        let mut seen = checks.apart();
        observe(&mut seen)?;
        match pressure.end().filter(|_| seen.failed() > 0 && attempt < ATTEMPTS) {
            Some(why) => before.extend(failures(seen.acceptances, &why)),
            None => {
                record(checks, seen, before);
                break;
            }
        }
    }
    Ok(())
}

/// Those of `seen` that failed, each with `why` it may be the machine's fault.
pub(crate) fn failures(seen: Vec<Acceptance>, why: &str) -> Before {
    let failed = seen.into_iter().filter(|acceptance| !acceptance.passed);
    failed.map(|it| (it.text, format!("{}, while {why}", it.observed))).collect()
}

/// The last attempt at a whole scenario, with what failed `before` it.
pub(crate) fn after(seen: Checks, before: Before) -> Checks {
    let mut checks = seen.apart();
    checks.seconds = seen.seconds;
    record(&mut checks, seen, before);
    checks
}

/// Records the last attempt, with what failed `before` it: beside the same acceptance, or else beside the last one.
fn record(checks: &mut Checks, seen: Checks, mut before: Before) {
    let last = seen.acceptances.len().saturating_sub(1);
    for (at, acceptance) in seen.acceptances.into_iter().enumerate() {
        let mut earlier = Vec::new();
        before.retain(|(text, said)| {
            let is_same = *text == acceptance.text;
            if is_same {
                earlier.push(said.clone());
            }
            !is_same
        });
        if at == last {
            earlier.extend(before.drain(..).map(|(text, said)| format!("{text}: {said}")));
        }
        let observed = match earlier.is_empty() {
            true => acceptance.observed,
            false => format!("{} (before: {})", acceptance.observed, earlier.join("; ")),
        };
        checks.that(acceptance.text, acceptance.expected, observed, acceptance.passed);
    }
}

fn waited() -> Option<Duration> {
    total(&fs::read_to_string(PRESSURE).ok()?)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS`.
fn total(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = line.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_tasks_waited_is_read() {
        let text = "some avg10=57.00 avg60=66.32 avg300=62.26 total=19391235538\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(total(text), Some(Duration::from_micros(19_391_235_538)));
        assert_eq!(total("full total=0\n"), None);
        assert_eq!(total(""), None);
    }

    #[test]
    fn a_machine_is_short_of_cores_when_tasks_wait_or_nothing_runs() {
        let second = Duration::from_secs(1);
        let say = |waited: Option<u64>, still| {
            scarcity(second, waited.map(Duration::from_millis), Duration::from_millis(still))
        };
        assert_eq!(say(Some(199), 19), None);
        assert!(say(Some(200), 0).is_some_and(|why| why.contains("0.2 s of 1.0 s")));
        assert!(say(Some(0), 20).is_some_and(|why| why.contains("still for 20 ms")));
        assert!(say(None, 0).is_some());
    }

    #[test]
    fn what_failed_before_is_said_wherever_it_belongs() {
        let mut checks = Checks::begin("t", "", false);
        let mut seen = checks.apart();
        seen.equal("outage", 1, 1);
        seen.equal("session", 1, 1);
        let before = [("outage", "9"), ("move to DC1", "never")];
        let before = before.map(|(text, said)| (text.to_owned(), said.to_owned()));
        record(&mut checks, seen, before.to_vec());
        let observed: Vec<&str> =
            checks.acceptances.iter().map(|acceptance| acceptance.observed.as_str()).collect();
        assert_eq!(observed, ["1 (before: 9)", "1 (before: move to DC1: never)"]);
    }

    #[test]
    fn what_is_right_at_once_is_observed_once() {
        let mut checks = Checks::begin("t", "", false);
        let mut times = 0;
        let outcome = patiently(&mut checks, |seen| {
            times += 1;
            seen.equal("outage", 1, 1);
            Ok(())
        });
        assert!(outcome.is_ok());
        assert_eq!((times, checks.acceptances.len(), checks.failed()), (1, 1, 0));
        assert_eq!(checks.acceptances[0].observed, "1");
    }

    #[test]
    fn what_never_is_right_fails_and_no_attempt_is_hidden() {
        let mut checks = Checks::begin("t", "", false);
        let mut times = 0;
        let outcome = patiently(&mut checks, |seen| {
            times += 1;
            seen.equal("outage", 1, 10 + times);
            Ok(())
        });
        assert!(outcome.is_ok());
        assert_eq!((checks.acceptances.len(), checks.failed()), (1, 1));
        let observed = &checks.acceptances[0].observed;
        assert!((1..=3).contains(&times) && observed.starts_with(&(10 + times).to_string()));
        assert_eq!(observed.contains("before: 11, while "), times > 1);
    }
}
