//! `--watch`: a verb that reads does so again and again.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::{Failure, print};

/// Whether, and how often, a verb repeats itself.
#[derive(Debug, Args)]
pub(crate) struct Again {
    /// Do it again every so many seconds (2 without a number), until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "write 0.1 to 86400 seconds".to_owned())
}

impl Again {
    /// Does it once, or until interrupted. A daemon that is restarted meanwhile ends nothing: what went wrong is said, and tried again.
    pub(crate) fn repeat(
        &self,
        mut once: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(every) = self.watch else { return once() };
        let screen = io::stdout().is_terminal();
        let command: Vec<String> = std::env::args().skip(1).collect();
        let mut first = true;
        loop {
            if screen {
                print(&format!("{CLEAR}isthmus {}\n\n", command.join(" ")))?;
            } else if !std::mem::take(&mut first) {
                print("\n")?;
            }
            match once() {
                Ok(()) => {}
                Err(failure @ (Failure::Failed(_) | Failure::Misfit(_))) => failure.print(),
                // What was asked for was said all the same.
                Err(Failure::Silent(status)) if status != 0 => {}
                Err(failure) => return Err(failure),
            }
            thread::sleep(every);
        }
    }
}

/// Empties a terminal (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_and_what_cannot_succeed_is_not() {
        let again = Again { watch: Some(Duration::from_millis(1)) };
        let mut rounds = 0;
        let end = again.repeat(|| {
            rounds += 1;
            match rounds {
                1 => Err(Failure::Failed("no daemon".to_owned())),
                2 => Err(Failure::Silent(1)),
                3 => Ok(()),
                _ => Err(Failure::Silent(0)),
            }
        });
        assert!(matches!(end, Err(Failure::Silent(0))) && rounds == 4, "{end:?} {rounds}");
        let once = Again { watch: None };
        assert!(once.repeat(|| Err(Failure::Silent(1))).is_err());
    }

    #[test]
    fn intervals_are_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "x", "nan", "1e9"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
