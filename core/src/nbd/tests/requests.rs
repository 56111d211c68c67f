//! Requests: what they do to the disk, and what is refused.

use std::collections::BTreeMap;
use std::io::Write;
use std::thread;

use super::*;
use crate::testing::{NbdAnswer, Random, ReferenceDisk};

/// What a chain shows, to be compared with later.
fn reference(chain: &Chain) -> ReferenceDisk {
    let mut content = ReferenceDisk::new(SIZE, chain.logical_sector_size());
    let mut bytes = vec![0; SIZE as usize];
    chain.read_at(&mut bytes, 0).unwrap();
    content.write(&bytes, 0);
    content
}

/// Random requests, several under way at a time, over two connections in turn.
fn random_requests(sector: u32, seed: u64) {
    let chain = chain(sector);
    let mut content = reference(&chain);
    let (_folder, server, first) = served(chain.clone());
    let mut clients = [first, client(&server)];
    let mut random = Random::new(seed);
    let sectors = SIZE / u64::from(sector);
    for round in 0..120 {
        let client = &mut clients[round % 2];
        let (mut expected, mut bytes) = (BTreeMap::new(), Vec::new());
        // Those of a round don't overlap: each has a part of the disk for itself.
        let parts = 1 + random.below(12);
        for part in 0..parts {
            let span = sectors / parts;
            let first = part * span + random.below(span);
            let most = if random.chance(1, 10) { span } else { 40 };
            let count = (1 + random.below(most)).min((part + 1) * span - first);
            let (offset, length) = (first * u64::from(sector), count * u64::from(sector));
            let fua = if random.chance(1, 8) { FUA } else { 0 };
            let (kind, flags, payload) = match random.below(6) {
                0 | 1 => (READ, if random.chance(1, 2) { DF } else { 0 }, vec![]),
                2 | 3 => (WRITE, fua, random.bytes(length as usize)),
                4 => (WRITE_ZEROES, fua | if random.chance(1, 2) { NO_HOLE } else { 0 }, vec![]),
                _ => (TRIM, fua, vec![]),
            };
            bytes.extend(NbdClient::request_bytes(kind, flags, part, offset, length as u32));
            bytes.extend(&payload);
            let data = if kind == READ { content.read(offset, length) } else { vec![] };
            expected.insert(part, data);
            match kind {
                READ => {}
                WRITE => content.write(&payload, offset),
                _ => content.zero(offset, length),
            }
        }
        // Who sends without end and never listens would wait for ever.
        let mut sending = client.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || sending.write_all(&bytes).unwrap());
            while !expected.is_empty() {
                let answer = client.answer().unwrap();
                let data = expected.remove(&answer.cookie).expect("an answer to each request, once");
                assert_eq!((answer.errno, &*answer.text), (0, ""), "seed {seed}, round {round}");
                assert!(answer.data == data, "seed {seed}, round {round}: other data");
            }
        });
    }
    drop(server);
    content.assert_same(&format!("seed {seed}"), |buf, offset| chain.read_at(buf, offset).unwrap());
}

#[test]
fn the_disk_holds_what_clients_wrote() {
    for seed in 0..4 {
        random_requests(512, seed);
        random_requests(4096, seed);
    }
}

#[test]
fn long_requests_are_whole() {
    let (_folder, _server, mut client) = served(chain(512));
    let bytes = Random::new(1).bytes(8 << 20);
    assert_eq!(client.ask(WRITE, 0, 512, 8 << 20, &bytes).unwrap().errno, 0);
    assert!(client.ask(READ, 0, 512, 8 << 20, &[]).unwrap().data == bytes);
}

#[test]
fn a_client_without_structured_answers_is_served() {
    let (_folder, server) = serve(vec![export("disk", chain(512))]);
    let mut client = NbdClient::connect(server.socket()).unwrap();
    client.go("disk").unwrap();
    let plain = |errno| NbdAnswer { errno, ..NbdAnswer::default() };
    let mut ask = |kind, offset, length, payload: &[u8]| {
        let answer = client.ask(kind, 0, offset, length, payload).unwrap();
        NbdAnswer { cookie: 0, ..answer }
    };
    assert_eq!(ask(READ, 0, 512, &[]), NbdAnswer { data: vec![1; 512], ..plain(0) });
    assert_eq!(ask(READ, 1, 512, &[]), plain(EINVAL));
    assert_eq!(ask(WRITE, 0, 512, &[9; 512]), plain(0));
    assert_eq!(ask(READ, 0, 512, &[]), NbdAnswer { data: vec![9; 512], ..plain(0) });
    assert_eq!(ask(FLUSH, 0, 0, &[]), plain(0));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    for sector in [512, 4096] {
        let chain = chain(sector);
        let content = reference(&chain);
        let (_folder, _server, mut client) = served(chain.clone());
        let mut ask = |kind, flags, offset, length: u32| {
            let payload = if kind == WRITE { vec![7; length as usize] } else { vec![] };
            client.ask(kind, flags, offset, length, &payload).unwrap().errno
        };
        for kind in [READ, WRITE, TRIM, WRITE_ZEROES] {
            let beyond = if [WRITE, WRITE_ZEROES].contains(&kind) { ENOSPC } else { EINVAL };
            assert_eq!(ask(kind, 0, 0, 0), EINVAL, "{kind}: nothing");
            assert_eq!(ask(kind, 0, u64::from(sector) / 2, sector), EINVAL, "{kind}: half a sector further");
            assert_eq!(ask(kind, 0, 0, sector / 2), EINVAL, "{kind}: half a sector");
            assert_eq!(ask(kind, 0, SIZE, sector), beyond, "{kind}: behind the end");
            assert_eq!(ask(kind, 0, SIZE - u64::from(sector), 2 * sector), beyond, "{kind}: beyond the end");
            assert_eq!(ask(kind, 0, u64::MAX - u64::from(sector) + 1, sector), beyond, "{kind}: beyond all numbers");
            assert_eq!(ask(kind, 1 << 7, 0, sector), EINVAL, "{kind}: an unknown flag");
            assert_eq!(ask(kind, REQ_ONE, 0, sector), EINVAL, "{kind}: a flag of others");
        }
        assert_eq!(ask(READ, 0, 0, (32 << 20) + sector), EINVAL, "more than can be read at once");
        assert_eq!(ask(FLUSH, 0, u64::from(sector), 0), EINVAL);
        assert_eq!(ask(BLOCK_STATUS, 0, 0, sector), EINVAL, "no context");
        for kind in [5, 8, 99, u16::MAX] {
            assert_eq!(ask(kind, 0, 0, sector), EINVAL, "request {kind}");
        }
        assert_eq!(ask(READ, 0, 0, sector), 0, "it goes on");
        content.assert_same("unchanged", |buf, offset| chain.read_at(buf, offset).unwrap());
    }
}

#[test]
fn a_refused_write_is_skipped_whole() {
    let chain = chain(512);
    let (_folder, _server, mut client) = served(chain);
    for length in [512, 100 << 10, 4 << 20] {
        assert_eq!(client.ask(WRITE, 0, 1, length, &vec![7; length as usize]).unwrap().errno, EINVAL);
        assert_eq!(client.ask(READ, 0, 0, 512, &[]).unwrap().data, [1; 512], "after {length} bytes");
    }
}

#[test]
fn a_read_only_disk_is_read_only() {
    let chain = chain(512);
    let content = reference(&chain);
    let (_folder, server) = serve(vec![Export { read_only: true, ..export("disk", chain.clone()) }]);
    let mut client = client(&server);
    for (kind, payload) in [(WRITE, vec![7; 512]), (TRIM, vec![]), (WRITE_ZEROES, vec![])] {
        let answer = client.ask(kind, 0, 0, 512, &payload).unwrap();
        assert_eq!((answer.errno, &*answer.text), (EPERM, "the disk is read-only"));
    }
    assert_eq!(client.ask(FLUSH, 0, 0, 0, &[]).unwrap().errno, 0);
    content.assert_same("unchanged", |buf, offset| chain.read_at(buf, offset).unwrap());
}

#[test]
fn zeroes_have_a_place_only_where_they_are_to() {
    let chain = chain(512);
    let (_folder, _server, mut client) = served(chain.clone());
    assert_eq!(client.ask(WRITE_ZEROES, 0, 0, 1 << 20, &[]).unwrap().errno, 0);
    assert!(chain.stretches(0, 1 << 20).unwrap().iter().all(|stretch| stretch.zero));
    assert_eq!(client.ask(WRITE_ZEROES, NO_HOLE, 0, 3 << 20, &[]).unwrap().errno, 0);
    let stretches = chain.stretches(0, 3 << 20).unwrap();
    assert!(stretches.iter().all(|stretch| !stretch.zero && stretch.owner == Some(2)), "{stretches:?}");
    assert_eq!(client.ask(TRIM, 0, 0, 3 << 20, &[]).unwrap().errno, 0);
    assert!(chain.stretches(0, 3 << 20).unwrap().iter().all(|stretch| stretch.zero));
}

/// What the chain itself says, joined as a context's answer is.
fn expected(chain: &Chain, offset: u64, length: u64, state: impl Fn(Option<u16>, bool) -> u32) -> Vec<(u32, u32)> {
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for stretch in chain.stretches(offset, length).unwrap() {
        let (length, state) = (stretch.length as u32, state(stretch.owner, stretch.zero));
        match joined.last_mut() {
            Some(last) if last.1 == state => last.0 += length,
            _ => joined.push((length, state)),
        }
    }
    joined
}

#[test]
fn stretches_are_told_as_they_are() {
    for contexts in [&["base:allocation", "snaptree:depth"][..], &["snaptree:depth"], &["base:allocation"]] {
        let chain = chain(512);
        let (_folder, server) = serve(vec![export("disk", chain.clone())]);
        let mut client = NbdClient::connect(server.socket()).unwrap();
        client.structured().unwrap();
        let agreed = client.contexts("disk", contexts).unwrap();
        assert_eq!(agreed.iter().map(|(_, name)| &**name).collect::<Vec<_>>(), contexts);
        client.go("disk").unwrap();
        for (offset, length) in [(0, SIZE), (512, 5 << 20), (3 << 20, 512), (SIZE - 512, 512)] {
            let answer = client.ask(BLOCK_STATUS, 0, offset, length as u32, &[]).unwrap();
            let one = client.ask(BLOCK_STATUS, REQ_ONE, offset, length as u32, &[]).unwrap();
            assert_eq!((answer.errno, answer.states.len()), (0, contexts.len()));
            for (id, name) in &agreed {
                let right = match &**name {
                    "base:allocation" => {
                        expected(&chain, offset, length, |owner, zero| if zero || owner.is_none() { 3 } else { 0 })
                    }
                    _ => expected(&chain, offset, length, |owner, _| owner.map_or(0, |owner| 3 - u32::from(owner))),
                };
                assert_eq!(answer.states[id], right, "{name} of {length} bytes at {offset}");
                assert_eq!(one.states[id], right[..1], "{name} of the first stretch at {offset}");
            }
        }
    }
}

#[test]
fn a_connection_that_is_out_of_step_ends() {
    let (_folder, server, mut client) = served(chain(512));
    client.stream.write_all(&[0x25; 28]).unwrap();
    assert!(client.answer().is_err());
    let mut client = super::client(&server);
    // The payload would never fit, so it isn't waited for.
    client.send(WRITE, 0, 0, (32 << 20) + 512, &[]).unwrap();
    assert!(client.answer().is_err());
    let mut client = super::client(&server);
    client.send(READ, 0, 0, 512, &[]).unwrap();
    client.send(2, 0, 0, 0, &[]).unwrap();
    assert_eq!(client.answer().unwrap().data, [1; 512], "what was asked before leaving is answered");
    assert!(client.answer().is_err());
}
