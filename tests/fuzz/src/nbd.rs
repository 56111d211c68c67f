//! The server of NBD: options and requests that are malformed, cut, huge or mixed, and connections that end or stall at any
//! point. A client that behaves is served all the time, and its disk holds what it wrote.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use snaptree_core::chain::Chain;
use snaptree_core::disk::CreateOptions;
use snaptree_core::nbd::{Export, Server};
use snaptree_core::testing::{NbdClient, RamImage, Random, ReferenceDisk};
use snaptree_core::units::ByteCount;

use super::runner::Target;
use super::vhdx::edge;

const SIZE: u64 = 4 << 20;
/// The disk that only a client that behaves uses.
const QUIET: &str = "the quiet disk";

pub struct NbdTarget {
    _folder: tempfile::TempDir,
    server: Server,
    content: ReferenceDisk,
    /// Connections that stay, and never listen.
    stalled: Vec<UnixStream>,
}

impl NbdTarget {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let export = |name: &str, read_only| {
            let options = CreateOptions { block_size: Some(ByteCount::mib(1)), ..CreateOptions::dynamic(ByteCount(SIZE)) };
            let chain = Chain::from_images(vec![RamImage::create(name, &options)]).expect("a chain");
            Export { name: name.into(), description: "a disk".into(), device: Arc::new(chain), read_only }
        };
        let exports = vec![export("disk", false), export("other", true), export(QUIET, false)];
        let server = Server::start(&folder.path().join("s"), exports).expect("a server");
        Self { _folder: folder, server, content: ReferenceDisk::new(SIZE, 512), stalled: Vec::new() }
    }

    /// Reads and writes on the quiet disk.
    fn behave(&mut self, random: &mut Random) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("a client that behaves isn't served: {error}");
        let mut client = NbdClient::connect(self.server.socket()).map_err(failed)?;
        client.structured().map_err(failed)?;
        client.contexts(QUIET, &["base:allocation", "snaptree:depth"]).map_err(failed)?;
        client.go(QUIET).map_err(failed)?;
        for _ in 0..4 {
            let first = random.below(SIZE / 512);
            let length = 512 * (1 + random.below(64)).min(SIZE / 512 - first);
            let offset = first * 512;
            // Read, write, flush, trim, zeroes, stretches.
            let kind = [0, 1, 3, 4, 6, 7][random.below(6) as usize];
            let payload = if kind == 1 { random.bytes(length as usize) } else { vec![] };
            let (at, count) = if kind == 3 { (0, 0) } else { (offset, length as u32) };
            let answer = client.ask(kind, 0, at, count, &payload).map_err(failed)?;
            if answer.errno != 0 {
                return Err(format!("request {kind} of {length} bytes at {offset}: {}", answer.text));
            }
            match kind {
                0 if answer.data != self.content.read(offset, length) => return Err(format!("other data at {offset}")),
                1 => self.content.write(&payload, offset),
                4 | 6 => self.content.zero(offset, length),
                7 if answer.states.len() != 2 => return Err("stretches of two contexts were agreed on".into()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A name that is there, or isn't.
fn name(random: &mut Random) -> &'static str {
    ["", "disk", "other", "nobody"][random.below(4) as usize]
}

/// An option, whole and right in itself.
fn option(random: &mut Random) -> Vec<u8> {
    let kind = if random.chance(1, 8) { edge(random) as u32 } else { random.below(12) as u32 };
    let queries = ["base:", "base:allocation", "snaptree:", "snaptree:depth", "", ":"];
    let data = match kind {
        1 => name(random).as_bytes().to_vec(),
        6 | 7 => NbdClient::go_data(name(random)),
        9 | 10 => {
            let queries: Vec<&str> = (0..random.below(5)).map(|_| queries[random.below(6) as usize]).collect();
            NbdClient::context_data(name(random), &queries)
        }
        _ if random.chance(1, 8) => vec![0; random.below(100_000) as usize],
        _ => vec![],
    };
    NbdClient::option_bytes(kind, &data)
}

fn request(random: &mut Random) -> Vec<u8> {
    let kind = if random.chance(1, 8) { edge(random) as u16 } else { random.below(9) as u16 };
    let flags = if random.chance(1, 4) { random.below(32) as u16 } else { 0 };
    let offset = if random.chance(1, 4) { edge(random) } else { random.below(SIZE / 512) * 512 };
    let length = if random.chance(1, 8) { edge(random) as u32 } else { random.below(130) as u32 * 512 };
    let mut bytes = NbdClient::request_bytes(kind, flags, random.next_u64(), offset, length);
    if kind == 1 {
        bytes.resize(bytes.len() + (length as usize).min(1 << 20), 7);
    }
    bytes
}

/// What a client says from its first byte on, mostly not quite right.
fn talk(random: &mut Random) -> Vec<u8> {
    let flags = if random.chance(1, 16) { edge(random) as u32 } else { 3 };
    let mut bytes = flags.to_be_bytes().to_vec();
    for _ in 0..random.below(6) {
        bytes.extend(option(random));
    }
    if random.chance(3, 4) {
        if random.chance(1, 2) {
            bytes.extend(NbdClient::option_bytes(8, &[]));
            bytes.extend(NbdClient::option_bytes(10, &NbdClient::context_data("disk", &["base:allocation"])));
        }
        bytes.extend(NbdClient::option_bytes(7, &NbdClient::go_data("disk")));
        for _ in 0..random.below(20) {
            bytes.extend(request(random));
        }
    }
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] = random.next_u64() as u8;
    }
    if random.chance(1, 4) {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    bytes
}

impl Target for NbdTarget {
    fn case(&mut self, random: &mut Random) -> Result<(), String> {
        let mut streams = Vec::new();
        for _ in 0..=random.below(3) {
            let stream = UnixStream::connect(self.server.socket()).map_err(|error| format!("no connection: {error}"))?;
            for set in [UnixStream::set_write_timeout, UnixStream::set_read_timeout] {
                set(&stream, Some(Duration::from_millis(100))).map_err(|error| error.to_string())?;
            }
            streams.push((stream, talk(random), 0));
        }
        // They speak by turns.
        for _ in 0..8 {
            let which = random.below(streams.len() as u64) as usize;
            let (stream, talk, at) = &mut streams[which];
            let part = if random.chance(1, 2) { talk.len() - *at } else { random.below((talk.len() - *at) as u64 + 1) as usize };
            // A connection that was hung up on is as good as any other end.
            let _ = stream.write_all(&talk[*at..*at + part]);
            *at += part;
            if random.chance(1, 3) {
                let _ = stream.read(&mut vec![0; 1 << random.below(18)]);
            }
            if random.chance(1, 8) {
                let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
                let _ = stream.shutdown(how[random.below(3) as usize]);
            }
        }
        if random.chance(1, 16) && self.stalled.len() < 8 {
            self.stalled.extend(streams.pop().map(|(stream, ..)| stream));
        }
        if random.chance(1, 64) {
            self.stalled.clear();
        }
        drop(streams);
        self.behave(random)
    }
}
