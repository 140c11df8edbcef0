//! The store that Map-Servers share, against real etcd: what one keeps the others learn, whatever dies.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use interop_tests::etcd::{self, EtcdCluster};
use mapping::config::{ClusterConfig, Secret};
use mapping::store::etcd::Etcd;
use mapping::store::{Batch, Store, StoreEvent};
use mapping::transmit::{SourcePort, Transmit};
use tokio::time::timeout;

/// For what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// An address of 127/8 that belongs to this test of this process.
fn loopback(test: u8, host: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let octet = |value: u8| value % 250 + 2;
    Ipv4Addr::new(127, octet(high ^ low.rotate_left(3)), octet(low), test * 10 + host).into()
}

fn cluster(test: u8, members: u8) -> Option<EtcdCluster> {
    if !etcd::installed() {
        return None;
    }
    let addresses: Vec<IpAddr> = (0..members).map(|host| loopback(test, host)).collect();
    Some(EtcdCluster::start(&addresses).expect("etcd starts"))
}

fn config(endpoints: Vec<String>) -> ClusterConfig {
    ClusterConfig { endpoints, prefix: "/isthmus/".to_owned(), user: None }
}

async fn connect(endpoints: Vec<String>) -> Etcd {
    timeout(PATIENCE, Etcd::connect(config(endpoints))).await.expect("in time").expect("connected")
}

fn loaded(store: &mut Etcd) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    store.load(&mut |key, value| entries.push((key.to_vec(), value.to_vec()))).unwrap();
    entries
}

/// A batch with one message that names it.
fn batch(name: u8, changes: &[(&[u8], Option<&[u8]>)]) -> Batch {
    let address = IpAddr::from([127, 0, 0, 1]);
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.changes.put(key, value),
            None => batch.changes.delete(key),
        }
    }
    batch.transmits.push(Transmit {
        source: address,
        destination: (address, 4342).into(),
        payload: vec![name],
        source_port: SourcePort::Control,
    });
    batch
}

async fn event(store: &mut Etcd) -> StoreEvent {
    timeout(PATIENCE, poll_fn(|context| store.poll_event(context))).await.expect("an event")
}

/// The names of the batches that are kept, until `name` is.
async fn kept(store: &mut Etcd, name: u8) {
    loop {
        match event(store).await {
            StoreEvent::Kept(messages) if messages[0].payload == [name] => return,
            StoreEvent::Degraded(reason) => panic!("degraded: {reason}"),
            other => println!("{other:?}"),
        }
    }
}

/// Waits until `key` is told to be `value`; nothing may be kept meanwhile.
async fn changed(store: &mut Etcd, key: &[u8], value: Option<&[u8]>) {
    loop {
        match event(store).await {
            StoreEvent::Changed { key: k, value: v } if k == key && v.as_deref() == value => return,
            StoreEvent::Kept(messages) => panic!("kept: {messages:?}"),
            other => println!("{other:?}"),
        }
    }
}

fn nonce(nonce: u64, rest: &[u8]) -> Vec<u8> {
    [&[1], &nonce.to_be_bytes()[..], rest].concat()
}

#[tokio::test]
async fn what_one_keeps_the_others_learn_and_a_newcomer_loads() {
    let Some(etcd) = cluster(1, 1) else { return };
    let (mut a, mut b) = (connect(etcd.endpoints()).await, connect(etcd.endpoints()).await);
    assert!(loaded(&mut a).is_empty() && a.is_shared());
    a.submit(batch(1, &[(b"r1", Some(b"one")), (b"r2", Some(b"two"))]));
    kept(&mut a, 1).await;
    changed(&mut b, b"r1", Some(b"one")).await;
    changed(&mut b, b"r2", Some(b"two")).await;
    b.submit(batch(2, &[(b"r1", None)]));
    kept(&mut b, 2).await;
    changed(&mut a, b"r1", None).await;
    // More than a page of a listing, in more than one transaction.
    let started = Instant::now();
    for number in 0..2_500_u16 {
        let key = [&b"s"[..], &number.to_be_bytes()].concat();
        b.submit(batch(3, &[(&key, Some(&[7; 100]))]));
    }
    b.submit(batch(9, &[]));
    kept(&mut b, 9).await;
    println!("2500 batches kept in {:?}", started.elapsed());
    let mut late = connect(etcd.endpoints()).await;
    let entries = loaded(&mut late);
    assert_eq!(entries.len(), 2_501);
    assert_eq!(entries[0], (b"r2".to_vec(), b"two".to_vec()));
}

#[tokio::test]
async fn au_16_a_nonce_that_another_map_server_accepted_is_accepted_by_nobody_else() {
    let Some(etcd) = cluster(2, 1) else { return };
    let (mut a, mut b) = (connect(etcd.endpoints()).await, connect(etcd.endpoints()).await);
    let (five, six) = (nonce(5, b"mac5"), nonce(6, b"mac6"));
    a.submit(batch(1, &[(b"nX", Some(&six)), (b"r1", Some(b"new"))]));
    kept(&mut a, 1).await;
    // The other one judged before it heard of it, as it does when a captured message comes at once.
    b.submit(batch(2, &[(b"nX", Some(&five)), (b"r1", Some(b"old"))]));
    changed(&mut b, b"nX", Some(&six)).await;
    changed(&mut b, b"r1", Some(b"new")).await;
    let seven = nonce(7, b"mac7");
    b.submit(batch(3, &[(b"nX", Some(&seven)), (b"r1", Some(b"newer"))]));
    kept(&mut b, 3).await;
    changed(&mut a, b"nX", Some(&seven)).await;
    changed(&mut a, b"r1", Some(b"newer")).await;
}

#[tokio::test]
async fn one_of_three_members_may_die_and_two_may_come_back() {
    let Some(mut etcd) = cluster(3, 3) else { return };
    let mut a = connect(etcd.endpoints()).await;
    let mut b = connect(etcd.endpoints().into_iter().rev().collect()).await;
    let mut number = 0;
    for member in 0..3 {
        etcd.kill(member).unwrap();
        for _ in 0..5 {
            number += 1;
            let value = [number; 8];
            let started = Instant::now();
            a.submit(batch(number, &[(b"r1", Some(&value))]));
            kept(&mut a, number).await;
            changed(&mut b, b"r1", Some(&value)).await;
            println!("member {member} dead: kept and told in {:?}", started.elapsed());
        }
        etcd.restart(member).unwrap();
    }
    // Without a majority nothing is kept, and that is said; nothing that waited is lost.
    etcd.kill(0).unwrap();
    etcd.kill(1).unwrap();
    a.submit(batch(100, &[(b"r1", Some(b"waited"))]));
    loop {
        match event(&mut a).await {
            StoreEvent::Degraded(reason) => break println!("{reason}"),
            other => assert!(!matches!(other, StoreEvent::Kept(_))),
        }
    }
    assert!(a.notes()[0].starts_with("Cut off"), "{:?}", a.notes());
    etcd.restart(0).unwrap();
    etcd.restart(1).unwrap();
    let (mut is_kept, mut recovered) = (false, false);
    while !is_kept || !recovered {
        match event(&mut a).await {
            StoreEvent::Kept(_) => is_kept = true,
            StoreEvent::Recovered => recovered = true,
            other => println!("{other:?}"),
        }
    }
    changed(&mut b, b"r1", Some(b"waited")).await;
    assert!(a.notes()[0].starts_with("Cluster: "), "{:?}", a.notes());
}

#[tokio::test]
async fn a_member_that_hangs_is_left_for_another() {
    let Some(etcd) = cluster(7, 3) else { return };
    let mut a = connect(etcd.endpoints()).await;
    let mut b = connect(etcd.endpoints().into_iter().rev().collect()).await;
    a.submit(batch(1, &[(b"r1", Some(b"1"))]));
    kept(&mut a, 1).await;
    for member in 0..3 {
        etcd.hang(member, true).unwrap();
        let (name, value) = (member as u8 + 2, [member as u8]);
        let started = Instant::now();
        a.submit(batch(name, &[(b"r1", Some(&value))]));
        // It may be the leader: then it takes an election, and one that takes long is told.
        loop {
            match event(&mut a).await {
                StoreEvent::Kept(messages) if messages[0].payload == [name] => break,
                other => println!("{other:?}"),
            }
        }
        println!("member {member} hangs: kept after {:?}", started.elapsed());
        changed(&mut b, b"r1", Some(&value)).await;
        println!("member {member} hangs: told after {:?}", started.elapsed());
        etcd.hang(member, false).unwrap();
    }
}

#[tokio::test]
async fn what_was_compacted_away_meanwhile_is_read_from_a_listing() {
    let Some(mut etcd) = cluster(4, 3) else { return };
    let mut a = connect(etcd.endpoints()[..2].to_vec()).await;
    a.submit(batch(1, &[(b"r1", Some(b"1")), (b"r2", Some(b"2"))]));
    kept(&mut a, 1).await;
    let mut b = connect(etcd.endpoints()[2..].to_vec()).await;
    assert_eq!(loaded(&mut b).len(), 2);
    etcd.kill(2).unwrap();
    a.submit(batch(2, &[(b"r1", None), (b"r3", Some(b"3"))]));
    a.submit(batch(3, &[(b"r3", Some(b"4"))]));
    kept(&mut a, 3).await;
    let header = etcd.post(0, "/v3/kv/put", r#"{"key": "eA==", "value": "eA=="}"#).unwrap();
    let revision = header.split("\"revision\":\"").nth(1).unwrap().split('"').next().unwrap();
    etcd.post(0, "/v3/kv/compaction", &format!(r#"{{"revision": "{revision}"}}"#)).unwrap();
    etcd.restart(2).unwrap();
    changed(&mut b, b"r3", Some(b"4")).await;
    changed(&mut b, b"r1", None).await;
}

#[tokio::test]
async fn more_changes_than_may_wait_are_given_up_and_read_back() {
    let Some(mut etcd) = cluster(5, 1) else { return };
    let mut a = connect(etcd.endpoints()).await;
    a.submit(batch(1, &[(b"r0", Some(b"first"))]));
    kept(&mut a, 1).await;
    etcd.kill(0).unwrap();
    let large = vec![7; 100_000];
    for number in 0..400_u16 {
        let key = [&b"r"[..], &number.to_be_bytes()].concat();
        a.submit(batch(2, &[(&key, Some(&large))]));
    }
    // Given up: etcd has "first" for ever.
    a.submit(batch(3, &[(b"r0", Some(&large))]));
    let reason = loop {
        if let StoreEvent::Degraded(reason) = event(&mut a).await {
            break reason;
        }
    };
    println!("{reason}");
    etcd.restart(0).unwrap();
    let (mut is_kept, mut told, mut gone) = (0, false, 0);
    loop {
        match event(&mut a).await {
            StoreEvent::Kept(messages) => is_kept += usize::from(messages[0].payload == [2]),
            StoreEvent::Changed { key, value } if key == b"r0" => {
                assert_eq!(value.as_deref(), Some(&b"first"[..]));
                told = true;
            }
            StoreEvent::Changed { value, .. } => gone += usize::from(value.is_none()),
            StoreEvent::Recovered => break,
            StoreEvent::Degraded(reason) => println!("{reason}"),
        }
    }
    assert!(told && is_kept > 100 && gone > 10, "{told} {is_kept} {gone}");
    assert_eq!(is_kept + gone, 400);
}

#[tokio::test]
async fn a_password_is_turned_into_a_token() {
    let Some(etcd) = cluster(6, 1) else { return };
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name": "root", "password": "pass"}"#),
        ("/v3/auth/role/add", r#"{"name": "root"}"#),
        ("/v3/auth/user/grant", r#"{"user": "root", "role": "root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        etcd.post(0, path, body).unwrap();
    }
    let user = Some(("root".to_owned(), Secret::new(b"pass".to_vec())));
    let config = ClusterConfig { user, ..config(etcd.endpoints()) };
    let mut a = timeout(PATIENCE, Etcd::connect(config.clone())).await.unwrap().unwrap();
    let mut b = timeout(PATIENCE, Etcd::connect(config)).await.unwrap().unwrap();
    a.submit(batch(1, &[(b"r1", Some(b"1"))]));
    kept(&mut a, 1).await;
    changed(&mut b, b"r1", Some(b"1")).await;
}
