//! DNS names of peers: resolved by A and AAAA, followed as their TTL says, never in anybody's way.
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// First wait after a failure; doubles.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Shortest and longest wait between two look-ups of a good answer: a TTL of 0 is no licence to hammer, and a resolver's cache answers
/// within a long one.
const FOLLOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// What a name resolves to now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name as configured.
    pub name: String,
    /// Its addresses; empty = it could not be resolved.
    pub addresses: Vec<IpAddr>,
}

/// The tasks that follow names; dropping it ends them.
#[derive(Debug)]
pub struct Names {
    receiver: mpsc::Receiver<Resolved>,
    _followers: JoinSet<()>,
}

impl Names {
    /// Follows these names with the resolvers of the system's resolv.conf, which is read anew after each failure.
    pub fn follow(names: &BTreeSet<String>) -> Self {
        Self::follow_with(names, system_resolver)
    }

    /// As [`Self::follow`], with resolvers made by `make`; `None` counts as a failure.
    pub fn follow_with<F>(names: &BTreeSet<String>, make: F) -> Self
    where
        F: Fn() -> Option<TokioResolver> + Clone + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(16);
        let mut followers = JoinSet::new();
        for name in names {
            followers.spawn(follow(name.clone(), make.clone(), sender.clone()));
        }
        Self { receiver, _followers: followers }
    }

    /// The next answer; pending for ever without names. Cancel-safe.
    pub async fn next(&mut self) -> Resolved {
        match self.receiver.recv().await {
            Some(resolved) => resolved,
            None => std::future::pending().await,
        }
    }
}

async fn follow<F>(name: String, make: F, answers: mpsc::Sender<Resolved>)
where
    F: Fn() -> Option<TokioResolver> + Send,
{
    let mut resolver = None;
    let mut retry = RETRY_FIRST;
    loop {
        resolver = resolver.or_else(&make);
        let (addresses, wait) = match look_up(resolver.as_ref(), &name).await {
            Some((addresses, lifetime)) => {
                retry = RETRY_FIRST;
                (addresses, lifetime.clamp(FOLLOW.0, FOLLOW.1))
            }
            None => {
                resolver = None;
                let wait = retry;
                retry = (retry * 2).min(RETRY_MAX);
                (Vec::new(), wait)
            }
        };
        if answers.send(Resolved { name: name.clone(), addresses }).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// The addresses of a name, and for how long they are good.
async fn look_up(resolver: Option<&TokioResolver>, name: &str) -> Option<(Vec<IpAddr>, Duration)> {
    let answer = resolver?.lookup_ip(name).await.ok()?;
    let addresses: Vec<IpAddr> = answer.iter().collect();
    let lifetime = answer.valid_until().saturating_duration_since(std::time::Instant::now());
    (!addresses.is_empty()).then_some((addresses, lifetime))
}

fn system_resolver() -> Option<TokioResolver> {
    let mut builder = TokioResolver::builder_tokio().ok()?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::{
        ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts,
    };
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use std::net::{Ipv4Addr, SocketAddr};
    use tokio::net::UdpSocket;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A name server that answers A with a new address each time, TTL 1, and AAAA with nothing.
    async fn serve(socket: UdpSocket) {
        let mut buffer = [0; 512];
        let mut last = 0;
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { return };
            let is_a = length > 16 && buffer[12..length].windows(5).any(|w| w == [0, 0, 1, 0, 1]);
            // Header: the question's ID, response, one question. Additional records of the question are not repeated.
            let end = 12 + buffer[12..length].iter().position(|octet| *octet == 0).unwrap_or(0) + 5;
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                last += 1;
                answer
                    .extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, last]);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    }

    fn resolver(server: SocketAddr) -> Option<TokioResolver> {
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let servers = vec![NameServerConfig::new(server.ip(), true, vec![connection])];
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut options = ResolverOpts::default();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .ok()
    }

    #[tokio::test]
    async fn a_name_is_followed_as_its_ttl_says() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let server = socket.local_addr().expect("address");
        let serving = tokio::spawn(serve(socket));
        let names = BTreeSet::from(["ms.example.net.".to_owned()]);
        let mut following = Names::follow_with(&names, move || resolver(server));
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            let next = tokio::time::timeout(PATIENCE, following.next()).await.expect("in time");
            assert_eq!(next.name, "ms.example.net.");
            seen.extend(next.addresses);
        }
        assert!(seen.iter().all(IpAddr::is_ipv4));
        serving.abort();
    }

    #[tokio::test]
    async fn a_failure_is_told_and_tried_again() {
        let names = BTreeSet::from(["ms.example.net".to_owned()]);
        let mut following = Names::follow_with(&names, || None);
        for _ in 0..2 {
            let next = tokio::time::timeout(PATIENCE, following.next()).await.expect("in time");
            assert!(next.addresses.is_empty());
        }
    }
}
