//! Numbers and layouts of the protocol. All of them are big-endian.

use std::io;

use crate::disk::{DiskError, DiskErrorKind};

/// The greeting's first eight bytes.
pub(super) const GREETING: [u8; 8] = *b"NBDMAGIC";
/// The greeting's next eight, and the first ones of every option.
pub(super) const OPTION_MAGIC: [u8; 8] = *b"IHAVEOPT";
/// The first eight bytes of the answer to an option.
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

/// Most bytes that one read or write may have: what a client assumes that isn't told.
pub(super) const PAYLOAD_MAX: u32 = 32 << 20;

/// What both sides say of the handshake (`NBD_FLAG_FIXED_NEWSTYLE`, `NBD_FLAG_NO_ZEROES`).
pub(super) mod handshake {
    pub const FIXED_NEWSTYLE: u32 = 1;
    pub const NO_ZEROES: u32 = 1 << 1;
}

/// Options (`NBD_OPT_*`).
pub(super) mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Answers to options (`NBD_REP_*`).
pub(super) mod reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
    pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;
}

/// Facts about an export (`NBD_INFO_*`).
pub(super) mod info {
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// What an export can do (`NBD_FLAG_*`).
pub(super) mod can {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const FLUSH: u16 = 1 << 2;
    pub const FUA: u16 = 1 << 3;
    pub const TRIM: u16 = 1 << 5;
    pub const WRITE_ZEROES: u16 = 1 << 6;
    pub const DF: u16 = 1 << 7;
    pub const MULTI_CONN: u16 = 1 << 8;
}

/// Requests (`NBD_CMD_*`).
pub(super) mod command {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// What a request asks for besides (`NBD_CMD_FLAG_*`).
pub(super) mod flag {
    pub const FUA: u16 = 1;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
}

/// Parts of structured answers (`NBD_REPLY_TYPE_*`), and the mark of the last one.
pub(super) mod chunk {
    pub const DONE: u16 = 1;
    pub const OFFSET_DATA: u16 = 1;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = (1 << 15) + 1;
}

/// What `base:allocation` says of a stretch (`NBD_STATE_*`).
pub(super) mod state {
    pub const HOLE: u32 = 1;
    pub const ZERO: u32 = 1 << 1;
}

/// The protocol's own numbers of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Errno {
    /// A change of what is read-only.
    Perm = 1,
    /// The disk failed.
    Io = 5,
    /// A request that can't be.
    Inval = 22,
    /// No room, or a change past the end.
    NoSpc = 28,
}

/// Why a request isn't done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub errno: Errno,
    pub text: String,
}

impl Problem {
    pub fn new(errno: Errno, text: impl Into<String>) -> Self {
        Self { errno, text: text.into() }
    }

    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Errno::Inval, text)
    }
}

impl From<DiskError> for Problem {
    fn from(error: DiskError) -> Self {
        let errno = match &*error.kind {
            _ if error.is_full() => Errno::NoSpc,
            DiskErrorKind::Refused(_) => Errno::Inval,
            _ => Errno::Io,
        };
        Self::new(errno, error.to_string())
    }
}

/// What the other side mustn't send: the connection ends.
pub(super) fn broken(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Takes numbers and strings from the front of bytes.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A length (u32), and as many bytes of UTF-8.
    pub fn string(&mut self) -> Option<&'a str> {
        let length = self.u32()?;
        std::str::from_utf8(self.take(length as usize)?).ok()
    }
}

/// One request, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub flags: u16,
    pub kind: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

impl Request {
    /// Bytes of a request.
    pub const SIZE: usize = 28;

    /// Of its bytes; `None` where they don't begin as a request does.
    pub fn parse(bytes: [u8; Self::SIZE]) -> Option<Self> {
        let mut fields = Fields(&bytes);
        (fields.u32()? == REQUEST_MAGIC).then_some(())?;
        let (flags, kind) = (fields.u16()?, fields.u16()?);
        let (cookie, offset) = (fields.array().map(u64::from_be_bytes)?, fields.array().map(u64::from_be_bytes)?);
        Some(Self { flags, kind, cookie, offset, length: fields.u32()? })
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Bytes that follow it.
    pub fn payload(&self) -> u32 {
        if self.kind == command::WRITE { self.length } else { 0 }
    }
}

/// Answers that are to be sent together. The bytes stay initialised, so that reads go straight into them.
#[derive(Debug, Default)]
pub(super) struct Answers {
    bytes: Vec<u8>,
    length: usize,
}

/// More than this isn't kept for later answers.
const KEPT: usize = 1 << 20;

impl Answers {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// Drops what stands behind this length.
    pub fn truncate(&mut self, length: usize) {
        self.length = length;
        if length == 0 && self.bytes.len() > KEPT {
            self.bytes = Vec::new();
        }
    }

    /// Room for so many bytes more; what it holds is undefined.
    pub fn extend(&mut self, length: usize) -> &mut [u8] {
        let from = self.length;
        self.length += length;
        if self.bytes.len() < self.length {
            self.bytes.resize(self.length.next_power_of_two(), 0);
        }
        &mut self.bytes[from..self.length]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend(bytes.len()).copy_from_slice(bytes);
    }

    /// The plain answer, without data.
    pub fn simple(&mut self, cookie: u64, errno: u32) {
        self.put(&SIMPLE_MAGIC.to_be_bytes());
        self.put(&errno.to_be_bytes());
        self.put(&cookie.to_be_bytes());
    }

    /// The beginning of a part of a structured answer; `length` bytes are to follow.
    pub fn chunk(&mut self, cookie: u64, flags: u16, kind: u16, length: u32) {
        self.put(&STRUCTURED_MAGIC.to_be_bytes());
        self.put(&flags.to_be_bytes());
        self.put(&kind.to_be_bytes());
        self.put(&cookie.to_be_bytes());
        self.put(&length.to_be_bytes());
    }

    /// The data of a read, at its offset, to be filled in.
    pub fn data(&mut self, request: &Request) -> &mut [u8] {
        self.chunk(request.cookie, chunk::DONE, chunk::OFFSET_DATA, request.length + 8);
        self.put(&request.offset.to_be_bytes());
        self.extend(request.length as usize)
    }

    /// What a context says of stretches: their lengths and states.
    pub fn states(&mut self, cookie: u64, is_last: bool, context: u32, states: &[(u32, u32)]) {
        let flags = if is_last { chunk::DONE } else { 0 };
        self.chunk(cookie, flags, chunk::BLOCK_STATUS, 4 + 8 * states.len() as u32);
        self.put(&context.to_be_bytes());
        for (length, state) in states {
            self.put(&length.to_be_bytes());
            self.put(&state.to_be_bytes());
        }
    }

    /// An error, in words too where the client takes structured answers.
    pub fn error(&mut self, cookie: u64, structured: bool, problem: &Problem) {
        let errno = problem.errno as u32;
        if !structured {
            return self.simple(cookie, errno);
        }
        let text = &problem.text.as_bytes()[..problem.text.floor_char_boundary(1000)];
        self.chunk(cookie, chunk::DONE, chunk::ERROR, 6 + text.len() as u32);
        self.put(&errno.to_be_bytes());
        self.put(&(text.len() as u16).to_be_bytes());
        self.put(text);
    }
}
