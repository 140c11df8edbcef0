//! The pure part against a model of etcd: Map-Servers with queues and replicas, any order of events, lost answers, late and repeated writes.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::proto::{
    EQUAL, KeyValue, MOD_REVISION, Operation, RangeResponse, ResponseHeader, ResponseOp, Target,
    TxnRequest, TxnResponse,
};
use super::queue::{Flight, Queue};
use super::replica::Replica;
use super::transaction::{self, Answer, Key, Outcome, Part, Reconsidered, Value};
use crate::store::{Batch, ChangeLog};
use crate::transmit::{SourcePort, Transmit};

const PREFIX: &[u8] = b"/test/";

/// What etcd does, as far as it is used.
#[derive(Default)]
struct Model {
    revision: i64,
    keys: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    log: Vec<(Key, Value, i64)>,
}

impl Model {
    fn txn(&mut self, request: &TxnRequest) -> TxnResponse {
        assert!(request.success.len() <= transaction::MAX_OPERATIONS);
        assert!(request.compare.len() <= transaction::MAX_OPERATIONS);
        let succeeded = request.compare.iter().all(|compare| {
            let found = self.keys.get(&compare.key);
            match compare.union.as_ref().unwrap() {
                Target::ModRevision(revision) => {
                    assert_eq!((compare.target, compare.result), (MOD_REVISION, EQUAL));
                    found.map_or(0, |(_, revision)| *revision) == *revision
                }
                Target::Value(bound) if compare.result == EQUAL => {
                    found.is_some_and(|(value, _)| value == bound)
                }
                Target::Value(bound) => found.is_some_and(|(value, _)| value < bound),
            }
        });
        let operations = if succeeded { &request.success } else { &request.failure };
        let mut written = std::collections::HashSet::new();
        let revision = self.revision + 1;
        let mut responses = Vec::new();
        for operation in operations {
            let mut response = ResponseOp::default();
            match operation.request.clone().unwrap() {
                Operation::Range(range) => {
                    let kvs = self.keys.get(&range.key).map(|(value, revision)| KeyValue {
                        key: range.key.clone(),
                        mod_revision: *revision,
                        value: value.clone(),
                    });
                    response.range = Some(RangeResponse {
                        kvs: kvs.into_iter().collect(),
                        ..Default::default()
                    });
                }
                Operation::Put(put) => {
                    assert!(written.insert(put.key.clone()), "a key twice in one transaction");
                    self.revision = revision;
                    self.keys.insert(put.key.clone(), (put.value.clone(), revision));
                    self.log.push((own(&put.key), Some(put.value), revision));
                }
                Operation::DeleteRange(delete) => {
                    assert!(written.insert(delete.key.clone()), "a key twice in one transaction");
                    if self.keys.remove(&delete.key).is_some() {
                        self.revision = revision;
                        self.log.push((own(&delete.key), None, revision));
                    }
                }
            }
            responses.push(response);
        }
        let header = Some(ResponseHeader { revision: self.revision });
        TxnResponse { header, succeeded, responses }
    }

    fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.keys.iter().map(|(key, (value, _))| (own(key).into(), value.clone())).collect()
    }
}

fn own(key: &[u8]) -> Key {
    key.strip_prefix(PREFIX).unwrap().into()
}

/// One Map-Server: its memory, and what stands between it and the model.
#[derive(Default)]
struct Server {
    memory: BTreeMap<Vec<u8>, Vec<u8>>,
    queue: Queue,
    replica: Replica,
    seen: u64,
    watched: usize,
    /// Told, but not taken yet.
    told: std::collections::VecDeque<(Key, Value)>,
    flights: Vec<Flight>,
    kept: Vec<u8>,
    numbers: u8,
}

fn message(number: u8) -> Transmit {
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    Transmit {
        source: address,
        destination: (address, 4342).into(),
        payload: vec![number],
        source_port: SourcePort::Control,
    }
}

fn nonce_value(nonce: u64, by: u8) -> Vec<u8> {
    [&[1][..], &nonce.to_be_bytes(), &[by]].concat()
}

fn nonce_of(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[1..9].try_into().unwrap())
}

impl Server {
    fn submit(&mut self, changes: &[(&[u8], Option<&[u8]>)]) -> u8 {
        let mut batch = Batch::default();
        self.numbers = self.numbers.wrapping_add(1);
        batch.transmits.push(message(self.numbers));
        for (key, value) in changes {
            match value {
                Some(value) => {
                    self.memory.insert(key.to_vec(), value.to_vec());
                    batch.changes.put(key, value);
                }
                None => {
                    self.memory.remove(*key);
                    batch.changes.delete(key);
                }
            }
        }
        self.queue.push(batch, self.seen, &mut self.replica);
        self.numbers
    }

    fn start(&mut self) {
        while let Some(flight) = self.queue.start(&self.replica) {
            self.flights.push(flight);
        }
    }

    /// Carries out one of the flights; its first answers may be lost, and the request come to etcd once more later.
    fn land(&mut self, model: &mut Model, at: usize, late: &mut Vec<TxnRequest>, losses: usize) {
        let flight = self.flights.remove(at);
        for _ in 0..losses {
            let request = transaction::request(PREFIX, &flight.parts);
            if late.len() < 4 {
                late.push(request.clone());
            }
            model.txn(&request);
        }
        let outcomes = fly(model, &flight);
        self.queue.finish(&flight, outcomes, &mut self.replica);
        self.pump();
    }

    fn watch(&mut self, model: &Model, upto: usize) {
        for (key, value, revision) in &model.log[self.watched..upto] {
            self.replica.observe(key.clone(), value.clone(), *revision);
            if model.log.get(upto).is_none_or(|(_, _, next)| next != revision) {
                self.replica.advance(*revision);
            }
        }
        self.watched = upto;
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(told) = self.replica.poll_told() {
            self.told.push_back(told);
        }
        while let Some(ended) = self.queue.pop(&self.replica) {
            assert_eq!(ended.messages, 1, "kept or refused, it waits no more");
            for transmit in ended.kept.into_iter().flatten() {
                self.kept.push(transmit.payload[0]);
            }
        }
    }

    fn take_told(&mut self) {
        if let Some((key, value)) = self.told.pop_front() {
            self.seen += 1;
            match value {
                Some(value) => self.memory.insert(key.into(), value),
                None => self.memory.remove(&*key),
            };
        }
    }

    fn settle(&mut self, model: &mut Model) {
        self.replica.seen(self.queue.oldest_seen().unwrap_or(self.seen));
        self.start();
        while !self.flights.is_empty() {
            self.land(model, 0, &mut Vec::new(), 0);
            self.start();
        }
        self.pump();
        assert_eq!(self.queue.len(), 0);
        self.watch(model, model.log.len());
        while !self.told.is_empty() {
            self.take_told();
        }
    }
}

fn fly(model: &mut Model, flight: &Flight) -> Vec<Outcome> {
    let once = |model: &mut Model, parts: &[Part]| {
        let response = model.txn(&transaction::request(PREFIX, parts));
        transaction::read(parts, response).unwrap()
    };
    match once(model, &flight.parts) {
        Answer::Kept(outcomes) => outcomes,
        Answer::Conflict(_) => {
            let alone = |part: &Part| {
                let mut part = part.clone();
                for _ in 0..5 {
                    match once(model, std::slice::from_ref(&part)) {
                        Answer::Kept(mut kept) => return kept.pop().unwrap(),
                        Answer::Conflict(current) => match part.reconsider(&current) {
                            Reconsidered::Ended(outcome) => return outcome,
                            Reconsidered::Again => {}
                        },
                    }
                }
                panic!("no end: {part:?}")
            };
            flight.parts.iter().map(alone).collect()
        }
    }
}

#[test]
fn any_order_of_events_leaves_every_map_server_with_the_state_of_etcd() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model = Model::default();
        let mut servers = [Server::default(), Server::default()];
        let mut late = Vec::new();
        for step in 0..200_u64 {
            let at = rng.random_range(0..2);
            let server = &mut servers[at];
            match rng.random_range(0..8) {
                0 | 1 => register(server, &mut rng, step, at as u8),
                2 => {
                    let key = [b'r', rng.random_range(0..3)];
                    server.submit(&[(&key, None)]);
                }
                3 => server.start(),
                4 if !server.flights.is_empty() => {
                    let flight = rng.random_range(0..server.flights.len());
                    let losses = usize::from(rng.random_bool(0.2));
                    server.land(&mut model, flight, &mut late, losses);
                }
                5 if rng.random_bool(0.3) => {
                    if let Some(request) = late.pop() {
                        model.txn(&request);
                    }
                }
                6 => {
                    let upto = rng.random_range(server.watched..=model.log.len());
                    server.watch(&model, upto);
                }
                _ => {
                    server.take_told();
                    server.replica.seen(server.queue.oldest_seen().unwrap_or(server.seen));
                }
            }
        }
        for _ in 0..3 {
            servers.iter_mut().for_each(|server| server.settle(&mut model));
        }
        for (at, server) in servers.iter().enumerate() {
            assert_eq!(server.memory, model.state(), "seed {seed}, server {at}");
            assert_eq!(server.replica.len(), model.state().len(), "seed {seed}, server {at}");
        }
        let mut last = BTreeMap::new();
        for (key, value, _) in model.log.iter().filter(|(key, ..)| key[0] == b'n') {
            let nonce = nonce_of(value.as_ref().unwrap());
            assert!(last.insert(key, nonce).is_none_or(|last| last < nonce), "seed {seed}");
        }
    }
}

/// What a Map-Server does with a Map-Register: refuse a replay, else remember the nonce and the registration.
fn register(server: &mut Server, rng: &mut StdRng, step: u64, by: u8) {
    let peer = [b'n', rng.random_range(0..2)];
    let nonce = (step / 8) * 8 + rng.random_range(0..8);
    if server.memory.get(&peer[..]).is_some_and(|last| nonce_of(last) >= nonce) {
        return;
    }
    let value = nonce_value(nonce, by);
    let key = [b'r', rng.random_range(0..3)];
    server.submit(&[(&peer, Some(&value)), (&key, Some(&value))]);
}

#[test]
fn au_16_a_replay_to_another_map_server_is_refused_and_what_counts_is_told() {
    let mut model = Model::default();
    let (mut first, mut second) = (Server::default(), Server::default());
    let old = nonce_value(5, 0);
    first.submit(&[(b"nA", Some(&old)), (b"rA", Some(b"old"))]);
    first.settle(&mut model);
    second.settle(&mut model);
    let new = nonce_value(7, 0);
    first.submit(&[(b"nA", Some(&new)), (b"rA", Some(b"new"))]);
    first.settle(&mut model);
    assert_eq!(first.kept, [1, 2]);

    // The second one has not heard of nonce 7 when it is given nonce 6.
    let replayed = nonce_value(6, 0);
    second.submit(&[(b"nA", Some(&replayed)), (b"rA", Some(b"replayed"))]);
    // And the same again: a retransmission that changes nothing.
    second.submit(&[]);
    second.start();
    second.land(&mut model, 0, &mut Vec::new(), 0);
    second.submit(&[]);
    second.settle(&mut model);
    assert!(second.kept.is_empty(), "nothing of it is acknowledged");
    assert_eq!(second.memory, model.state());
    assert_eq!(second.memory[&b"rA"[..]], b"new");
    second.submit(&[]);
    second.settle(&mut model);
    assert_eq!(second.kept, [4], "once it knows what counts");
}

#[test]
fn a_lower_nonce_of_before_gives_way_however_late_it_is_seen() {
    let mut model = Model::default();
    let (mut first, mut second) = (Server::default(), Server::default());
    let (five, six) = (nonce_value(5, 0), nonce_value(6, 1));
    first.submit(&[(b"nA", Some(&five)), (b"rA", Some(b"at the first"))]);
    first.settle(&mut model);
    // The second one does not even know that there is such a key.
    second.submit(&[(b"nA", Some(&six)), (b"rB", Some(b"at the second"))]);
    second.settle(&mut model);
    first.settle(&mut model);
    assert_eq!((first.kept.as_slice(), second.kept.as_slice()), (&[1][..], &[1][..]));
    assert_eq!((&first.memory, &second.memory), (&model.state(), &model.state()));
}

#[test]
fn an_expiry_gives_way_to_a_refresh_elsewhere() {
    let mut model = Model::default();
    let (mut first, mut second) = (Server::default(), Server::default());
    first.submit(&[(b"rA", Some(b"1")), (b"rB", Some(b"1"))]);
    first.settle(&mut model);
    second.settle(&mut model);
    first.submit(&[(b"rA", Some(b"2"))]);
    first.settle(&mut model);
    second.submit(&[(b"rA", None), (b"rB", None)]);
    second.settle(&mut model);
    first.settle(&mut model);
    assert_eq!(model.state(), BTreeMap::from([(b"rA".to_vec(), b"2".to_vec())]));
    assert_eq!((&first.memory, &second.memory), (&model.state(), &model.state()));
}

#[test]
fn a_refresh_that_was_told_but_not_taken_yet_beats_an_expiry_too() {
    let mut model = Model::default();
    let (mut first, mut second) = (Server::default(), Server::default());
    first.submit(&[(b"rA", Some(b"1"))]);
    first.settle(&mut model);
    second.settle(&mut model);
    first.submit(&[(b"rA", Some(b"2"))]);
    first.settle(&mut model);
    second.watch(&model, model.log.len());
    assert_eq!(second.told.len(), 1);
    second.submit(&[(b"rA", None)]);
    second.settle(&mut model);
    assert_eq!(second.memory[&b"rA"[..]], b"2");
}

#[test]
fn batches_come_back_in_order_and_share_transactions() {
    let (mut queue, mut replica, mut model) =
        (Queue::default(), Replica::default(), Model::default());
    let one = |number: u8| {
        let mut changes = ChangeLog::default();
        changes.put(&[b's', number], b"x");
        Batch { changes, transmits: vec![message(number)] }
    };
    for number in 0..200 {
        queue.push(one(number), 0, &mut replica);
    }
    let first = queue.start(&replica).unwrap();
    let second = queue.start(&replica).unwrap();
    assert_eq!((first.parts.len(), second.parts.len()), (transaction::MAX_OPERATIONS, 72));
    // A key that is under way waits; so does what comes after it.
    queue.push(one(3), 0, &mut replica);
    queue.push(one(201), 0, &mut replica);
    assert!(queue.start(&replica).is_none());
    let outcomes = fly(&mut model, &second);
    queue.finish(&second, outcomes, &mut replica);
    assert!(queue.pop(&replica).is_none(), "the oldest is under way still");
    let outcomes = fly(&mut model, &first);
    queue.finish(&first, outcomes, &mut replica);
    let third = queue.start(&replica).unwrap();
    let outcomes = fly(&mut model, &third);
    queue.finish(&third, outcomes, &mut replica);
    let mut order = Vec::new();
    while let Some(ended) = queue.pop(&replica) {
        order.extend(ended.kept.unwrap().iter().map(|transmit| transmit.payload[0]));
    }
    assert_eq!(order, (0..200).chain([3, 201]).collect::<Vec<u8>>());
}

#[test]
fn a_registration_of_many_prefixes_is_kept_whole_or_refused_whole() {
    let mut model = Model::default();
    let (mut first, mut second) = (Server::default(), Server::default());
    let keys: Vec<[u8; 3]> = (0..300_u16).map(|n| [b'r', (n >> 8) as u8, n as u8]).collect();
    let message = |nonce: &'static [u8], value: &'static [u8]| {
        let mut changes: Vec<(&[u8], Option<&[u8]>)> = vec![(b"nA", Some(nonce))];
        changes.extend(keys.iter().map(|key| (&key[..], Some(value))));
        changes
    };
    first.submit(&message(&[1, 0, 0, 0, 0, 0, 0, 0, 9], b"first"));
    first.settle(&mut model);
    second.submit(&message(&[1, 0, 0, 0, 0, 0, 0, 0, 8], b"second"));
    second.settle(&mut model);
    assert_eq!((first.kept.len(), second.kept.len()), (1, 0));
    assert!(keys.iter().all(|key| second.memory[&key[..]] == b"first"));
    assert_eq!(second.memory, model.state());
}

#[test]
fn what_was_given_up_is_read_back_from_a_listing() {
    let mut replica = Replica::default();
    replica.load((*b"rA").into(), 4);
    replica.load((*b"rB").into(), 5);
    replica.load((*b"rC").into(), 6);
    replica.advance(6);
    replica.lost((*b"rA").into());
    replica.lost((*b"rX").into());
    assert!(replica.is_stale());
    // rB went, rC is another, rD is new.
    let listed = [(b"rA", 4), (b"rC", 8), (b"rD", 9)];
    for (key, revision) in listed {
        replica.list((*key).into(), vec![revision as u8], revision);
    }
    replica.listed(&listed.iter().map(|(key, _)| (**key).into()).collect(), 10);
    let mut told = Vec::new();
    while let Some((key, value)) = replica.poll_told() {
        told.push((key.to_vec(), value.map(|value| value[0])));
    }
    let expected =
        [(b"rA", Some(4)), (b"rC", Some(8)), (b"rD", Some(9)), (b"rB", None), (b"rX", None)];
    assert_eq!(told, expected.map(|(key, value)| (key.to_vec(), value)));
    assert!(!replica.is_stale());
    assert_eq!(replica.len(), 3);
}
