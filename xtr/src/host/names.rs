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
