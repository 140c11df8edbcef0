//! `isthmus tap`: packets as a running daemon forwards them, with what became of each.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mapping::admin::{Direction, Query, TapAnswer, TapPacket, TapQuery, TapVerdict};
use xtr::tap::{Filter, FilterError, LONGEST};

use super::show::{self, RoleName};
use super::{Failure, complain, print};
use crate::admin::NOT_ADMINISTRATOR;
use crate::admin::client::{self, AskError};
use crate::config::parse_duration;

mod pcapng;

use pcapng::Writer;

/// Between two questions while little happens.
const PAUSE: Duration = Duration::from_millis(50);

/// Which packets, and where to put them.
#[derive(Debug, Args)]
#[command(after_help = "Filter: terms joined by `and`
  src ADDRESS[/LENGTH], dst .., host ..   the inner packet's addresses; host: either
  proto tcp|udp|icmp|NUMBER, port N       its protocol, either port
  rloc ADDRESS                            the other end of the tunnel
  native, core                            the side it came from
  drop, drop=REASON                       it is dropped; for this reason of `isthmus show drops`

Examples:
  isthmus tap drop
  isthmus tap host 203.0.113.1 and proto tcp and port 443 --count 20
  isthmus tap --out /tmp/rloc.pcapng rloc 198.51.100.11 --for 1m
  isthmus tap --out - drop=packet_too_big | wireshark -k -i -

A line is a packet where it came in. A capture shows each packet where it came in and where it left, the first 256 octets of it, with the
verdict as a comment; of a super-packet's segments, the first. A packet that the kernel refuses to send afterwards is in `show drops` only.
Forwarding never waits for a tap: what finds no room is lost to the tap, and counted.

Exit status: 0 done, 1 no daemon could be asked, 2 a filter that is not understood, 77 not permitted: packets are shown to root and to
the daemon's user and group only.")]
pub(crate) struct TapArgs {
    /// Which packets; all without it
    filter: Vec<String>,
    /// Write a pcapng file for Wireshark instead of lines; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    out: Option<PathBuf>,
    /// Take one of so many packets that match
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Stop after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this time, an hour at most
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = length)]
    length: Duration,
    /// Print a JSON object per packet
    #[arg(long)]
    json: bool,
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_parser = show::forwarding_role())]
    role: Option<RoleName>,
}

fn length(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Some(length) if length > LONGEST => Err("an hour is the longest".to_owned()),
        Some(length) if !length.is_zero() => Ok(length),
        _ => Err("write a number with ms, s, m or h, such as 10s".to_owned()),
    }
}

/// Where packets go.
enum Sink {
    Lines,
    Json,
    Capture(Writer<Box<dyn Write>>),
}

/// Taps until it is over, or until interrupted; the daemon notices and stops by itself.
pub(crate) fn run(args: &TapArgs) -> Result<(), Failure> {
    let query = question(args).map_err(|error| Failure::Usage(error.to_string()))?;
    let socket = show::socket(args.socket.as_deref(), args.role)?;
    let ask = |query: &Query| {
        client::ask(&socket, query).map_err(|error| match error {
            AskError::Refused(text) if text == NOT_ADMINISTRATOR => Failure::NoPrivilege(text),
            error => show::ask_failure(error, &socket),
        })
    };
    let misread = |error| Failure::Failed(format!("the answer is not understood: {error}"));
    let session: u64 = serde_json::from_value(ask(&Query::Tap(query))?).map_err(misread)?;
    let mut sink = Sink::open(args)?;
    let (mut seen, mut lost) = (0_u64, 0);
    loop {
        let answer = ask(&Query::TapNext { session, stop: false })?;
        let answer: TapAnswer = serde_json::from_value(answer).map_err(misread)?;
        if let Err(failure) = sink.take(&answer) {
            // Nobody reads on: the daemon need not wait to find out.
            let _ = ask(&Query::TapNext { session, stop: true });
            return Err(failure);
        }
        let came = |packet: &&TapPacket| packet.direction == Direction::In;
        seen += answer.packets.iter().filter(came).count() as u64;
        lost += answer.lost;
        if answer.done {
            break;
        }
        if !answer.more {
            std::thread::sleep(PAUSE);
        }
    }
    complain(format_args!("isthmus: {seen} packets, {lost} lost to the tap"));
    Ok(())
}

fn question(args: &TapArgs) -> Result<TapQuery, FilterError> {
    let filter = args.filter.join(" ");
    filter.parse::<Filter>()?;
    Ok(TapQuery {
        filter,
        sample: args.sample,
        count: args.count,
        milliseconds: u64::try_from(args.length.as_millis()).unwrap_or(u64::MAX),
        outputs: args.out.is_some(),
    })
}

impl Sink {
    fn open(args: &TapArgs) -> Result<Self, Failure> {
        let Some(path) = &args.out else {
            return Ok(if args.json { Self::Json } else { Self::Lines });
        };
        let out: Box<dyn Write> = match path.as_os_str() == "-" {
            true => Box::new(BufWriter::new(io::stdout())),
            false => Box::new(BufWriter::new(
                File::create(path)
                    .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?,
            )),
        };
        Ok(Self::Capture(Writer::new(out)?))
    }

    fn take(&mut self, answer: &TapAnswer) -> Result<(), Failure> {
        match self {
            Self::Lines => print(&text(answer)),
            Self::Json => {
                let lines: Result<Vec<String>, _> =
                    answer.packets.iter().map(serde_json::to_string).collect();
                let lines = lines.map_err(|error| Failure::Failed(error.to_string()))?;
                print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            }
            Self::Capture(writer) => {
                for packet in &answer.packets {
                    writer.packet(packet, &octets(&packet.octets), &verdict(packet))?;
                }
                Ok(writer.flush()?)
            }
        }
    }
}

/// A line per packet.
pub(crate) fn text(answer: &TapAnswer) -> String {
    answer.packets.iter().map(|packet| format!("{}\n", line(packet))).collect()
}

fn line(packet: &TapPacket) -> String {
    let seconds = packet.nanoseconds / 1_000_000_000 % 86_400;
    let micros = packet.nanoseconds / 1_000 % 1_000_000;
    let mut text = format!(
        "{:02}:{:02}:{:02}.{micros:06} {:6}  ",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        packet.side.name(),
    );
    match (packet.source, packet.destination) {
        (Some(source), Some(destination)) => {
            let end = |address, port: Option<u16>| match port {
                Some(port) => std::net::SocketAddr::new(address, port).to_string(),
                None => address.to_string(),
            };
            let ports = packet.ports;
            let from = end(source, ports.map(|(from, _)| from));
            let to = end(destination, ports.map(|(_, to)| to));
            let length = packet.inner_length.unwrap_or_default();
            // Writing to a String cannot fail.
            let _ = write!(text, "{from} > {to} {} {length}", protocol(packet.protocol));
        }
        _ => {
            let _ = write!(text, "no packet, {} octets", packet.length);
        }
    }
    if let (Some(rloc), mapping::admin::Side::Core) = (packet.rloc, packet.side) {
        let _ = write!(text, " from RLOC {rloc}");
        if let Some(marks) = &packet.marks {
            let _ = write!(text, " ({marks})");
        }
    }
    text + ": " + &verdict(packet)
}

fn protocol(number: Option<u8>) -> String {
    match number {
        Some(1) => "ICMP".to_owned(),
        Some(6) => "TCP".to_owned(),
        Some(17) => "UDP".to_owned(),
        Some(58) => "ICMPv6".to_owned(),
        Some(number) => format!("protocol {number}"),
        None => String::new(),
    }
}

/// What became of a packet, in a few words.
fn verdict(packet: &TapPacket) -> String {
    let mut text = packet.verdict.name().to_owned();
    match packet.verdict {
        TapVerdict::Encapsulated => text.extend(packet.rloc.map(|rloc| format!(" to {rloc}"))),
        TapVerdict::Dropped => text.extend(packet.reason.as_ref().map(|name| format!(" {name}"))),
        TapVerdict::Reencapsulated
        | TapVerdict::Delivered
        | TapVerdict::Punted
        | TapVerdict::ForwardedNatively
        | TapVerdict::Held => {}
    }
    if packet.waited {
        text += ", after it waited";
    }
    if packet.pieces > 1 {
        let _ = write!(text, ", as {} packets", packet.pieces);
    }
    text
}

/// What the hexadecimal digits say; ends before the first that is none.
fn octets(digits: &str) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.map_while(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use mapping::admin::Side;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: TapArgs,
    }

    fn args(line: &str) -> Result<TapArgs, String> {
        let words = std::iter::once("tap").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn packet() -> TapPacket {
        TapPacket {
            nanoseconds: 86_400_000_000_000 + 3_723_000_004_000,
            side: Side::Native,
            direction: Direction::In,
            verdict: TapVerdict::Encapsulated,
            reason: None,
            waited: false,
            source: "192.0.2.80".parse().ok(),
            destination: "203.0.113.1".parse().ok(),
            protocol: Some(17),
            ports: Some((5000, 7000)),
            inner_length: Some(60),
            rloc: "198.51.100.11".parse().ok(),
            instance_id: None,
            marks: None,
            pieces: 1,
            length: 60,
            octets: "45ff0g".to_owned(),
        }
    }

    #[test]
    fn a_tap_is_described_by_words() {
        let query = question(&args("drop and native --for 90s --count 3").expect("words"));
        let query = query.expect("a filter");
        assert_eq!((query.filter.as_str(), query.milliseconds), ("drop and native", 90_000));
        assert_eq!((query.count, query.sample, query.outputs), (Some(3), 1, false));
        let query = question(&args("--out a.pcapng --sample 10").expect("words")).expect("none");
        assert_eq!((query.sample, query.outputs, query.milliseconds), (10, true, 10_000));
        for (line, words) in [
            ("--for 2h", "an hour is the longest"),
            ("--for 10", "such as 10s"),
            ("--for 0s", "such as 10s"),
            ("--sample 0", "0"),
            ("--json --out a.pcapng", "cannot be used with"),
        ] {
            let error = args(line).expect_err(line);
            assert!(error.contains(words), "{line}: {error}");
        }
        let error = question(&args("sry 192.0.2.1").expect("words")).expect_err("no filter");
        assert!(error.to_string().contains("`sry` is not known"), "{error}");
    }

    #[test]
    fn a_line_says_what_became_of_a_packet() {
        assert_eq!(
            line(&packet()),
            "01:02:03.000004 native  192.0.2.80:5000 > 203.0.113.1:7000 UDP 60: encapsulated to 198.51.100.11"
        );
        let dropped = TapPacket {
            side: Side::Core,
            verdict: TapVerdict::Dropped,
            reason: Some("inner_malformed".to_owned()),
            source: None,
            length: 48,
            ..packet()
        };
        assert_eq!(
            line(&dropped),
            "01:02:03.000004 core    no packet, 48 octets from RLOC 198.51.100.11: dropped inner_malformed"
        );
        let many =
            TapPacket { pieces: 44, waited: true, ports: None, protocol: Some(47), ..packet() };
        let text = line(&many);
        assert!(text.ends_with("to 198.51.100.11, after it waited, as 44 packets"), "{text}");
        assert!(text.contains("192.0.2.80 > 203.0.113.1 protocol 47 60"), "{text}");
        assert_eq!(octets("45ff0g"), [0x45, 0xff]);
    }
}
