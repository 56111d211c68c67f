//! A client of NBD, written from the protocol's text apart from the server: it says what it is told to, right or wrong,
//! and takes what is answered apart.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection.
#[derive(Debug)]
pub struct NbdClient {
    /// The socket itself.
    pub stream: UnixStream,
    structured: bool,
    next: u64,
    /// Parts of answers that aren't whole yet.
    parts: BTreeMap<u64, NbdAnswer>,
}

/// One answer to an option: its kind and its data.
pub type OptionReply = (u32, Vec<u8>);

/// What a server says of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NbdFacts {
    /// Size in bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Least, preferred and most bytes of a request; zeros where nothing was said.
    pub sizes: [u32; 3],
}

/// The whole answer to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NbdAnswer {
    /// Of the request.
    pub cookie: u64,
    /// 0 is success.
    pub errno: u32,
    /// What was read.
    pub data: Vec<u8>,
    /// By context, lengths and states.
    pub states: BTreeMap<u32, Vec<(u32, u32)>>,
    /// The error in words.
    pub text: String,
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl NbdClient {
    /// Connects and answers the greeting as a client of fixed newstyle.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Self::connect_as(socket, 3)
    }

    /// The same with these client flags.
    pub fn connect_as(socket: &Path, flags: u32) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, structured: false, next: 1, parts: BTreeMap::new() };
        if client.bytes::<18>()? != *b"NBDMAGICIHAVEOPT\0\x03" {
            return Err(wrong("not the greeting of fixed newstyle"));
        }
        client.stream.write_all(&flags.to_be_bytes())?;
        Ok(client)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.bytes().map(u64::from_be_bytes)
    }

    /// As many bytes as a length that came says, if that can be.
    fn counted(&mut self, length: u32) -> io::Result<Vec<u8>> {
        if length > 64 << 20 {
            return Err(wrong(format!("a part of {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of an option.
    pub fn option_bytes(kind: u32, data: &[u8]) -> Vec<u8> {
        [b"IHAVEOPT", &kind.to_be_bytes()[..], &(data.len() as u32).to_be_bytes(), data].concat()
    }

    /// Sends an option; all that is answered, the last being its end.
    pub fn option(&mut self, kind: u32, data: &[u8]) -> io::Result<Vec<OptionReply>> {
        self.stream.write_all(&Self::option_bytes(kind, data))?;
        let mut replies = Vec::new();
        loop {
            if self.u64()? != 0x0003_e889_0455_65a9 || self.u32()? != kind {
                return Err(wrong("not an answer to this option"));
            }
            let (reply, length) = (self.u32()?, self.u32()?);
            replies.push((reply, self.counted(length)?));
            if reply == 1 || reply >> 31 == 1 {
                return Ok(replies);
            }
        }
    }

    /// The kind of an option's last answer: 1, or an error.
    pub fn outcome(&mut self, kind: u32, data: &[u8]) -> io::Result<u32> {
        Ok(self.option(kind, data)?.last().map_or(0, |(reply, _)| *reply))
    }

    /// Has answers structured from now on.
    pub fn structured(&mut self) -> io::Result<()> {
        self.structured = self.outcome(8, &[])? == 1;
        if self.structured { Ok(()) } else { Err(wrong("no structured answers")) }
    }

    /// The data of an option about contexts.
    pub fn context_data(export: &str, queries: &[&str]) -> Vec<u8> {
        let mut data = (export.len() as u32).to_be_bytes().to_vec();
        data.extend(export.as_bytes());
        data.extend((queries.len() as u32).to_be_bytes());
        for query in queries {
            data.extend((query.len() as u32).to_be_bytes());
            data.extend(query.as_bytes());
        }
        data
    }

    /// Agrees on contexts: their numbers and names.
    pub fn contexts(&mut self, export: &str, queries: &[&str]) -> io::Result<Vec<(u32, String)>> {
        let mut replies = self.option(10, &Self::context_data(export, queries))?;
        match replies.pop() {
            Some((1, _)) => {}
            other => return Err(wrong(format!("contexts: {other:?}"))),
        }
        let context = |(_, data): OptionReply| {
            let (id, name) = data.split_first_chunk().ok_or_else(|| wrong("a context without a number"))?;
            Ok((u32::from_be_bytes(*id), String::from_utf8_lossy(name).into_owned()))
        };
        replies.into_iter().map(context).collect()
    }

    /// The data of INFO and GO, asking for the sizes of blocks.
    pub fn go_data(export: &str) -> Vec<u8> {
        let length = (export.len() as u32).to_be_bytes();
        [&length[..], export.as_bytes(), &1_u16.to_be_bytes(), &3_u16.to_be_bytes()].concat()
    }

    /// What INFO (6) or GO (7) say of an export; with GO the transmission begins.
    pub fn facts(&mut self, kind: u32, export: &str) -> io::Result<NbdFacts> {
        let mut replies = self.option(kind, &Self::go_data(export))?;
        match replies.pop() {
            Some((1, _)) => {}
            other => return Err(wrong(format!("{export}: {other:?}"))),
        }
        let mut facts = NbdFacts::default();
        for (_, data) in replies {
            match &data[..] {
                [0, 0, rest @ ..] if rest.len() == 10 => {
                    facts.size = u64::from_be_bytes(rest[..8].try_into().map_err(|_| wrong("a size"))?);
                    facts.flags = u16::from_be_bytes([rest[8], rest[9]]);
                }
                [0, 3, rest @ ..] if rest.len() == 12 => {
                    let size = |at: usize| u32::from_be_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
                    facts.sizes = [size(0), size(4), size(8)];
                }
                other => return Err(wrong(format!("unasked or odd facts: {other:?}"))),
            }
        }
        Ok(facts)
    }

    /// Begins the transmission.
    pub fn go(&mut self, export: &str) -> io::Result<NbdFacts> {
        self.facts(7, export)
    }

    /// The bytes of a request, without payload.
    pub fn request_bytes(kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
        let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
        bytes.extend([flags, kind].map(u16::to_be_bytes).concat());
        bytes.extend([cookie, offset].map(u64::to_be_bytes).concat());
        bytes.extend(length.to_be_bytes());
        bytes
    }

    /// Sends a request; its cookie.
    pub fn send(&mut self, kind: u16, flags: u16, offset: u64, length: u32, payload: &[u8]) -> io::Result<u64> {
        let cookie = self.next;
        self.next += 1;
        let mut bytes = Self::request_bytes(kind, flags, cookie, offset, length);
        bytes.extend(payload);
        self.stream.write_all(&bytes)?;
        Ok(cookie)
    }

    /// The next answer that is whole.
    pub fn answer(&mut self) -> io::Result<NbdAnswer> {
        loop {
            match self.u32()? {
                0x6744_6698 => {
                    let errno = self.u32()?;
                    return Ok(NbdAnswer { cookie: self.u64()?, errno, ..NbdAnswer::default() });
                }
                0x668e_33ef if self.structured => {
                    let (flags, kind) = (self.u16()?, self.u16()?);
                    let (cookie, length) = (self.u64()?, self.u32()?);
                    let mut content = self.counted(length)?;
                    let part = self.parts.entry(cookie).or_insert_with(|| NbdAnswer { cookie, ..NbdAnswer::default() });
                    let word = |at: usize| {
                        let bytes = content.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                        bytes.map(u32::from_be_bytes).ok_or_else(|| wrong("a part that is too short"))
                    };
                    match kind {
                        0 => {}
                        1 if part.data.is_empty() => {
                            word(4)?;
                            part.data = content.split_off(8);
                        }
                        5 => {
                            let context = word(0)?;
                            let states = (4..content.len()).step_by(8).map(|at| Ok((word(at)?, word(at + 4)?)));
                            part.states.insert(context, states.collect::<io::Result<_>>()?);
                        }
                        0x8001 => {
                            part.errno = word(0)?;
                            part.text = String::from_utf8_lossy(content.get(6..).unwrap_or_default()).into_owned();
                        }
                        other => return Err(wrong(format!("a part of kind {other:#x}"))),
                    }
                    if flags & 1 == 1 {
                        return Ok(self.parts.remove(&cookie).unwrap_or_default());
                    }
                }
                other => return Err(wrong(format!("an answer begins with {other:#x}"))),
            }
        }
    }

    /// The answer to the only request under way. Without structured answers, what was read follows an answer that is success.
    pub fn ask(&mut self, kind: u16, flags: u16, offset: u64, length: u32, payload: &[u8]) -> io::Result<NbdAnswer> {
        let cookie = self.send(kind, flags, offset, length, payload)?;
        let mut answer = self.answer()?;
        if answer.cookie != cookie {
            return Err(wrong("an answer to another request"));
        }
        if kind == 0 && !self.structured && answer.errno == 0 {
            answer.data = self.counted(length)?;
        }
        Ok(answer)
    }
}
