//! `isthmus explain`: what a running daemon would do with a packet, without sending anything.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mapping::admin::{ExplainQuery, Query, Side};
use xtr::explain::view::{ExplainView, Outcome};

use super::again::Again;
use super::show::{self, RoleName};
use super::{FAILED, Failure, print, print_json};
use crate::admin::client;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// A packet.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus explain 192.0.2.80 203.0.113.1 --proto tcp --dport 443
  isthmus explain 2001:db8:ffff::80 2001:db8:e001::1 --length 1500
  isthmus explain 203.0.113.1 192.0.2.80 --from core --rloc 198.51.100.11

The packet takes the very path that packets take, with the policy, map-cache and path MTUs of the running daemon; nothing is sent,
counted or asked for.

Exit status: 0 it would be forwarded, or wait for its mapping; 1 it would be dropped, or no daemon could be asked.")]
pub(crate) struct ExplainArgs {
    /// Inner source address
    source: IpAddr,
    /// Inner destination address
    destination: IpAddr,
    /// Protocol: tcp, udp, icmp or a number
    #[arg(long, value_name = "PROTOCOL", default_value = "udp", value_parser = protocol)]
    proto: Protocol,
    /// TCP or UDP source port
    #[arg(long, value_name = "PORT", default_value_t = 49152)]
    sport: u16,
    /// TCP or UDP destination port
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    dport: u16,
    /// Octets of the packet with its IP header
    #[arg(long, value_name = "OCTETS", default_value_t = 100)]
    length: u16,
    /// Set the DF bit of an IPv4 packet
    #[arg(long)]
    df: bool,
    /// TTL or Hop Limit as it reaches the data plane, after the kernel took one off; outside too when it comes from the core
    #[arg(long, value_name = "HOPS", default_value_t = 64)]
    ttl: u8,
    /// TOS octet or Traffic Class: DSCP * 4 + ECN; outside too when it comes from the core
    #[arg(long, value_name = "OCTET", default_value_t = 0)]
    tos: u8,
    /// The side it comes from
    #[arg(long, value_enum, default_value = "native")]
    from: FromSide,
    /// From the core: the outer source address
    #[arg(long, value_name = "OUTER-SOURCE", required_if_eq("from", "core"))]
    rloc: Option<IpAddr>,
    /// From the core: the Instance ID of the LISP header
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..1 << 24))]
    instance_id: u32,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    again: Again,
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_parser = show::forwarding_role())]
    role: Option<RoleName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FromSide {
    /// From the site, or from the Internet
    Native,
    /// Encapsulated, from the underlay
    Core,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// ICMP of the family of the addresses.
    Icmp,
    Number(u8),
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "icmp" => Ok(Protocol::Icmp),
        "tcp" => Ok(Protocol::Number(TCP)),
        "udp" => Ok(Protocol::Number(UDP)),
        _ => match text.parse() {
            Ok(number) => Ok(Protocol::Number(number)),
            Err(_) => Err("not tcp, udp, icmp or a number from 0 to 255".to_owned()),
        },
    }
}

/// Asks the daemon, prints its answer; the exit status tells whether the packet would get through.
pub(crate) fn run(args: &ExplainArgs) -> Result<(), Failure> {
    let question = question(args)?;
    args.again.repeat(|| ask(args, question.clone()))
}

fn ask(args: &ExplainArgs, question: ExplainQuery) -> Result<(), Failure> {
    let socket = show::socket(args.socket.as_deref(), args.role)?;
    let view = client::ask(&socket, &Query::Explain(question))
        .map_err(|error| show::ask_failure(error, &socket))?;
    let explained: ExplainView = serde_json::from_value(view)
        .map_err(|error| Failure::Failed(format!("the answer is not understood: {error}")))?;
    match args.json {
        true => print_json(&explained)?,
        false => print(&text(&explained))?,
    }
    match explained.verdict {
        Outcome::Drop => Err(Failure::Silent(FAILED)),
        _ => Ok(()),
    }
}

fn question(args: &ExplainArgs) -> Result<ExplainQuery, Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    if args.source.is_ipv4() != args.destination.is_ipv4() {
        return usage("source and destination are of different address families");
    }
    let from = match args.from {
        FromSide::Core => Side::Core,
        FromSide::Native if args.rloc.is_some() || args.instance_id != 0 => {
            return usage("--rloc and --instance-id are for packets --from core");
        }
        FromSide::Native => Side::Native,
    };
    if args.df && args.source.is_ipv6() {
        return usage("--df is for IPv4: IPv6 has no such bit, and is never fragmented on the way");
    }
    let protocol = match args.proto {
        Protocol::Number(number) => number,
        Protocol::Icmp if args.source.is_ipv4() => ICMP,
        Protocol::Icmp => ICMPV6,
    };
    let header = if args.source.is_ipv4() { 20 } else { 40 };
    let transport = match protocol {
        TCP => 20,
        UDP | ICMP | ICMPV6 => 8,
        _ => 0,
    };
    if args.length < header + transport {
        let least = header + transport;
        return usage(&format!("such a packet has at least {least} octets: --length {least}"));
    }
    Ok(ExplainQuery {
        from,
        source: args.source,
        destination: args.destination,
        protocol,
        source_port: args.sport,
        destination_port: args.dport,
        length: args.length,
        dont_fragment: args.df,
        ttl: args.ttl,
        tos: args.tos,
        instance_id: args.instance_id,
        rloc: args.rloc,
    })
}

/// The answer for people: a line per step, then the verdict and what it means.
pub(crate) fn text(view: &ExplainView) -> String {
    let mut lines = vec![("packet".to_owned(), of_packet(&view.packet))];
    lines.extend(view.steps.iter().map(|step| (step.step.clone(), step.text.clone())));
    let mut verdict = view.verdict.name().to_uppercase();
    if let Some(reason) = &view.reason {
        verdict.extend([": ", reason]);
    }
    if let (Some(locator), None) = (&view.locator, &view.reason) {
        verdict += &format!(" to {}", locator.address);
    }
    lines.push(("verdict".to_owned(), verdict));
    lines.extend(view.help.clone().map(|help| (String::new(), help)));
    let width = lines.iter().map(|(step, _)| step.len()).max().unwrap_or_default();
    lines.iter().map(|(step, text)| format!("{step:width$}  {text}\n")).collect()
}

fn of_packet(packet: &ExplainQuery) -> String {
    let ExplainQuery { source, destination, source_port, destination_port, .. } = packet;
    let what = match packet.protocol {
        TCP => format!("TCP {source_port} -> {destination_port}"),
        UDP => format!("UDP {source_port} -> {destination_port}"),
        ICMP => "ICMP echo request".to_owned(),
        ICMPV6 => "ICMPv6 echo request".to_owned(),
        number => format!("protocol {number}"),
    };
    let df = if packet.dont_fragment && source.is_ipv4() { ", DF" } else { "" };
    let from = match packet.rloc {
        Some(rloc) => format!("from the core, outer source {rloc}"),
        None => format!("from the {} side", packet.from.name()),
    };
    format!(
        "{source} -> {destination}, {what}, {} octets, TTL {}{df}, {from}",
        packet.length, packet.ttl
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use xtr::explain::view::StepView;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn asked(line: &str) -> Result<ExplainQuery, String> {
        let words = std::iter::once("explain").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        question(&line.args).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn a_packet_is_described_by_words() {
        let packet = asked("192.0.2.80 203.0.113.1").expect("a packet");
        assert_eq!((packet.from, packet.protocol, packet.length), (Side::Native, UDP, 100));
        let packet = asked("192.0.2.80 203.0.113.1 --proto icmp --df --length 1500").expect("one");
        assert_eq!((packet.protocol, packet.dont_fragment, packet.length), (ICMP, true, 1500));
        let packet = asked("2001:db8::1 2001:db8::2 --proto icmp").expect("a packet");
        assert_eq!(packet.protocol, ICMPV6);
        let packet = asked("2001:db8::1 2001:db8::2 --proto 132 --sport 1 --dport 2").expect("one");
        assert_eq!((packet.protocol, packet.source_port, packet.destination_port), (132, 1, 2));
        let core = "192.0.2.1 192.0.2.2 --from core --rloc 198.51.100.1 --instance-id 7";
        let packet = asked(core).expect("a packet");
        assert_eq!((packet.from, packet.instance_id), (Side::Core, 7));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (line, words) in [
            ("192.0.2.80 2001:db8::1", "different address families"),
            ("192.0.2.80 203.0.113.1 --from core", "--rloc"),
            ("192.0.2.80 203.0.113.1 --rloc 198.51.100.1", "for packets --from core"),
            ("192.0.2.80 203.0.113.1 --proto gre", "not tcp, udp, icmp or a number"),
            ("192.0.2.80 203.0.113.1 --proto 256", "not tcp, udp, icmp or a number"),
            ("192.0.2.80 203.0.113.1 --instance-id 16777216", "16777216"),
            ("192.0.2.80", "<DESTINATION>"),
        ] {
            let refused = asked(line).expect_err(line);
            assert!(refused.contains(words), "{line}: {refused}");
        }
    }

    #[test]
    fn an_answer_reads_from_top_to_bottom() {
        let step = |step: &str, text: &str| StepView { step: step.into(), text: text.into() };
        let view = ExplainView {
            packet: asked("192.0.2.80 198.18.0.1 --proto tcp --df").expect("a packet"),
            verdict: Outcome::Drop,
            reason: Some("destination_not_aggregate".to_owned()),
            help: Some("The destination lies in no configured EID aggregate.".to_owned()),
            steps: vec![step("addresses", "not martian"), step("policy", "refused: why")],
            entry: None,
            locator: None,
            outer: None,
            size: None,
            delivered: None,
            icmp: None,
        };
        let expected = "\
packet     192.0.2.80 -> 198.18.0.1, TCP 49152 -> 443, 100 octets, TTL 64, DF, from the native side
addresses  not martian
policy     refused: why
verdict    DROP: destination_not_aggregate
           The destination lies in no configured EID aggregate.
";
        assert_eq!(text(&view), expected);
    }
}
