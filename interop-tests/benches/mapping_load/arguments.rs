//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use mapping::config::Algorithm;

const HELP: &str = "\
--registrations N     EID-prefixes registered [100000]
--sites N             sites they are spread over [1000]
--senders N           ETRs and ITRs, each an address of its own [1000]
--train N             messages in a row from one sender [16]
--seconds N           duration of each measurement [3]
--load PERCENT        of the most per second, at which latencies are measured [50]
--durable yes|no      whether our state survives [yes]
--control NANOSECONDS a server that sends every message back after so much work, to measure after ours
--oor PROGRAM         Open Overlay Router, to measure after ours
--peer ADDRESS        another Map-Server, with the same sites, to measure after ours
--peer-process ID     its process
--peer-key SECRET     the key of its sites, Key ID 1
--peer-algorithm N    Algorithm ID, 1 to 3 [1]";

/// What to measure.
pub(crate) struct Arguments {
    pub(crate) registrations: usize,
    pub(crate) sites: usize,
    pub(crate) senders: usize,
    pub(crate) train: usize,
    pub(crate) seconds: u64,
    /// Percent of the most per second, for the latencies.
    pub(crate) load: u8,
    pub(crate) durable: bool,
    /// How long the control works on each message.
    pub(crate) control: Option<Duration>,
    pub(crate) oor: Option<PathBuf>,
    pub(crate) peer: Option<Peer>,
}

/// Another Map-Server.
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) process: u32,
    pub(crate) key: String,
    pub(crate) algorithm: Algorithm,
}

impl Arguments {
    /// Reads `--name value` pairs; on error says what is possible.
    pub(crate) fn read(given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self {
            registrations: 100_000,
            sites: 1_000,
            senders: 1_000,
            train: 16,
            seconds: 3,
            load: 50,
            durable: true,
            control: None,
            oor: None,
            peer: None,
        };
        let mut peer = (None, None, None, Algorithm::HmacSha1);
        // Cargo adds --bench.
        let mut given = given.filter(|word| word != "--bench");
        while let Some(name) = given.next() {
            let value = given.next().ok_or_else(|| HELP.to_owned())?;
            match name.as_str() {
                "--registrations" => arguments.registrations = within(&value, 10_000_000)?,
                "--sites" => arguments.sites = within(&value, 60_000)?,
                "--senders" => arguments.senders = within(&value, 10_000)?,
                "--train" => arguments.train = within(&value, 32)?,
                "--seconds" => arguments.seconds = within(&value, 120)? as u64,
                "--load" => arguments.load = within(&value, 100)? as u8,
                "--durable" => arguments.durable = value == "yes",
                "--control" => {
                    arguments.control = Some(Duration::from_nanos(within(&value, 100_000)? as u64));
                }
                "--oor" => arguments.oor = Some(value.into()),
                "--peer" => peer.0 = Some(value.parse().map_err(|_| HELP)?),
                "--peer-process" => peer.1 = Some(value.parse().map_err(|_| HELP)?),
                "--peer-key" => peer.2 = Some(value),
                "--peer-algorithm" => {
                    peer.3 = match value.as_str() {
                        "1" => Algorithm::HmacSha1,
                        "2" => Algorithm::HmacSha256,
                        "3" => Algorithm::HmacSha256Hkdf,
                        _ => return Err(HELP.to_owned()),
                    }
                }
                _ => return Err(HELP.to_owned()),
            }
        }
        arguments.peer = match peer {
            (None, None, None, _) => None,
            (Some(address), Some(process), Some(key), algorithm) => {
                Some(Peer { address, process, key, algorithm })
            }
            _ => return Err(HELP.to_owned()),
        };
        Ok(arguments)
    }
}

fn within(value: &str, most: usize) -> Result<usize, String> {
    let number = value.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("{value}: a number from 1 to {most} is needed\n{HELP}"))
}
