//! Options, right and wrong.

use std::io::{ErrorKind, Read, Write};

use super::*;

const ACK: u32 = 1;
const UNSUP: u32 = (1 << 31) + 1;
const INVALID: u32 = (1 << 31) + 3;
const UNKNOWN: u32 = (1 << 31) + 6;
const TOO_BIG: u32 = (1 << 31) + 9;

fn two() -> (TempDir, Server) {
    let read_only = Export { read_only: true, ..export("second", chain(4096)) };
    serve(vec![export("first", chain(512)), read_only])
}

fn connect(server: &Server) -> NbdClient {
    NbdClient::connect(server.socket()).unwrap()
}

/// Whether the server has hung up, without another byte.
fn is_hung_up_on(client: &mut NbdClient) -> bool {
    match client.stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn exports_are_listed_and_described() {
    let (_folder, server) = two();
    let mut client = connect(&server);
    let listed = client.option(3, &[]).unwrap();
    let entry = |name: &str| [&(name.len() as u32).to_be_bytes()[..], format!("{name}the disk {name}").as_bytes()].concat();
    assert_eq!(listed, [(2, entry("first")), (2, entry("second")), (ACK, vec![])]);
    assert_eq!(client.outcome(3, b"x").unwrap(), INVALID);

    // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN; or READ_ONLY in place of what changes the disk.
    let first = client.facts(6, "first").unwrap();
    assert_eq!((first.size, first.flags, first.sizes), (SIZE, 0b1_0110_1101, [512, 4096, 32 << 20]));
    let second = client.facts(6, "second").unwrap();
    assert_eq!((second.size, second.flags, second.sizes), (SIZE, 0b1_0000_1111, [4096, 4096, 32 << 20]));
    client.structured().unwrap();
    assert_eq!(client.facts(6, "first").unwrap().flags, 0b1_1110_1101, "answers can be in one part from then on");

    let asked = [&5_u32.to_be_bytes()[..], b"first", &[0, 3, 0, 1, 0, 2, 0, 9]].concat();
    let told: Vec<Vec<u8>> = client.option(6, &asked).unwrap().into_iter().map(|(_, data)| data).collect();
    assert!(told.contains(&b"\0\x01first".to_vec()) && told.contains(&b"\0\x02the disk first".to_vec()), "{told:?}");

    assert_eq!(client.facts(6, "").unwrap().size, SIZE, "the empty name is the first's");
    assert_eq!(client.outcome(6, &NbdClient::go_data("third")).unwrap(), UNKNOWN);
    assert_eq!(client.go("second").unwrap().sizes[0], 4096);
    assert_eq!(client.ask(READ, 0, 0, 4096, &[]).unwrap().data, [1; 4096]);
}

#[test]
fn what_is_wrong_is_refused_and_the_talk_goes_on() {
    let (_folder, server) = two();
    let mut client = connect(&server);
    for unknown in [0, 4, 5, 11, 99, u32::MAX] {
        assert_eq!(client.outcome(unknown, b"data").unwrap(), UNSUP, "{unknown}");
    }
    let name = NbdClient::go_data("first");
    for cut in 0..name.len() {
        assert_eq!(client.outcome(7, &name[..cut]).unwrap(), INVALID, "{cut} bytes");
    }
    assert_eq!(client.outcome(7, &[&name[..], &[0]].concat()).unwrap(), INVALID, "a byte too many");
    assert_eq!(client.outcome(7, &[0, 0, 0, 1, 0xff, 0, 0]).unwrap(), INVALID, "not UTF-8");
    assert_eq!(client.outcome(7, &[0xff; 8]).unwrap(), INVALID, "a length beyond the data");
    assert_eq!(client.outcome(99, &vec![0; 100_000]).unwrap(), TOO_BIG);
    let contexts = NbdClient::context_data("first", &["base:allocation"]);
    assert_eq!(client.outcome(10, &contexts).unwrap(), INVALID, "structured answers come first");
    assert_eq!(client.outcome(8, b"x").unwrap(), INVALID);
    client.structured().unwrap();
    assert_eq!(client.outcome(8, &[]).unwrap(), INVALID, "agreed already");
    for cut in 0..contexts.len() {
        assert_eq!(client.outcome(10, &contexts[..cut]).unwrap(), INVALID, "{cut} bytes");
    }
    assert_eq!(client.outcome(10, &NbdClient::context_data("third", &[])).unwrap(), UNKNOWN);
    assert_eq!(client.go("first").unwrap().size, SIZE);
}

#[test]
fn contexts_are_listed_and_agreed_on() {
    let (_folder, server) = two();
    let mut client = connect(&server);
    client.structured().unwrap();
    let mut list = |queries: &[&str]| -> Vec<String> {
        let mut replies = client.option(9, &NbdClient::context_data("first", queries)).unwrap();
        assert_eq!(replies.pop(), Some((ACK, vec![])));
        replies.into_iter().map(|(_, data)| String::from_utf8(data[4..].to_vec()).unwrap()).collect()
    };
    assert_eq!(list(&[]), ["base:allocation", "snaptree:depth"]);
    assert_eq!(list(&["base:"]), ["base:allocation"]);
    assert_eq!(list(&["snaptree:", "base:allocation"]), ["base:allocation", "snaptree:depth"]);
    assert_eq!(list(&["qemu:allocation-depth", "base:alloc", "base"]), [""; 0]);

    let names = |found: Vec<(u32, String)>| found.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
    assert_eq!(names(client.contexts("first", &["base:", "base:other"]).unwrap()), [""; 0], "a namespace is no context");
    assert_eq!(names(client.contexts("first", &["x:y", "snaptree:depth"]).unwrap()), ["snaptree:depth"]);
    // Of another export, so they don't hold for this one.
    client.go("second").unwrap();
    assert_eq!(client.ask(BLOCK_STATUS, 0, 0, 4096, &[]).unwrap().errno, EINVAL);
}

#[test]
fn an_old_client_chooses_by_name_alone() {
    let (_folder, server) = two();
    for (flags, zeroes) in [(0, 124), (1, 124), (3, 0)] {
        let mut client = NbdClient::connect_as(server.socket(), flags).unwrap();
        client.stream.write_all(&NbdClient::option_bytes(1, b"second")).unwrap();
        let mut facts = vec![0; 10 + zeroes];
        client.stream.read_exact(&mut facts).unwrap();
        assert_eq!(facts[..10], [&SIZE.to_be_bytes()[..], &[1, 0b0000_1111]].concat(), "flags {flags}");
        assert_eq!(client.ask(READ, 0, 0, 4096, &[]).unwrap().data, [1; 4096]);
    }
}

#[test]
fn who_does_not_keep_to_the_protocol_is_hung_up_on() {
    let (_folder, server) = two();
    let refused: [(&str, u32, Vec<u8>); 5] = [
        ("unknown flags", 7, vec![]),
        ("another option than a name, from an old client", 2, NbdClient::option_bytes(3, &[])),
        ("a name that isn't there", 3, NbdClient::option_bytes(1, b"third")),
        ("no magic number", 3, b"IHAVEOPX\0\0\0\x03\0\0\0\0".to_vec()),
        ("an option without end", 3, [&b"IHAVEOPT\0\0\0\x03"[..], &[0xff; 4]].concat()),
    ];
    for (what, flags, bytes) in refused {
        let mut client = NbdClient::connect_as(server.socket(), flags).unwrap();
        // It may have hung up before these are written.
        let _ = client.stream.write_all(&bytes);
        assert!(is_hung_up_on(&mut client), "{what}");
    }
    let mut leaving = connect(&server);
    assert_eq!(leaving.outcome(2, &[]).unwrap(), ACK);
    assert!(is_hung_up_on(&mut leaving));
    assert_eq!(connect(&server).go("first").unwrap().size, SIZE, "others are served");
}
