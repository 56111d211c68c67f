//! What a client sends, buffered: many small requests come with one call to the kernel.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};

use super::protocol::{Request, broken};

/// What is buffered at most; longer payloads are read past the buffer.
const BUFFER: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Receiver {
    stream: Arc<UnixStream>,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Receiver {
    pub fn new(stream: Arc<UnixStream>) -> Self {
        Self { stream, buffer: vec![0; BUFFER].into(), from: 0, to: 0 }
    }

    fn held(&self) -> usize {
        self.to - self.from
    }

    /// The request that is here as a whole, with its payload, or as much of it as the buffer can hold.
    fn next_is_here(&self) -> bool {
        let Some(request) = self.peek() else { return self.held() >= Request::SIZE };
        self.held() >= Request::SIZE + (request.payload() as usize).min(BUFFER / 2)
    }

    fn peek(&self) -> Option<Request> {
        Request::parse(*self.buffer[self.from..self.to].first_chunk()?)
    }

    /// Whether the next request can be taken without waiting for the client.
    pub fn has_next(&self) -> bool {
        self.next_is_here()
    }

    /// Whether something more has come, without waiting.
    pub fn look(&mut self) -> io::Result<bool> {
        if self.held() == 0 && self.to < self.buffer.len() {
            match recv(&*self.stream, &mut self.buffer[self.to..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => self.to += length,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.held() > 0)
    }

    /// Waits until so many bytes are buffered; `false` where the client has ended before the first.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.held() == 0 {
            (self.from, self.to) = (0, 0);
        }
        if self.from + wanted > self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.held());
        }
        while self.held() < wanted {
            match (&*self.stream).read(&mut self.buffer[self.to..]) {
                Ok(0) if self.held() == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.to += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next request, without its payload; `None` where the client has ended.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        if !self.fill(Request::SIZE)? {
            return Ok(None);
        }
        let request = self.peek().ok_or_else(|| broken("a request doesn't begin with its magic number"))?;
        self.from += Request::SIZE;
        Ok(Some(request))
    }

    /// A payload, if the buffer can hold it.
    pub fn short(&mut self, length: usize) -> io::Result<Option<&[u8]>> {
        if length > BUFFER / 2 {
            return Ok(None);
        }
        if length > 0 && !self.fill(length)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.from += length;
        Ok(Some(&self.buffer[self.from - length..self.from]))
    }

    /// A payload of any length.
    pub fn payload(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        let front = length.min(self.held());
        bytes.extend_from_slice(&self.buffer[self.from..self.from + front]);
        self.from += front;
        (&*self.stream).take((length - front) as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }
}
