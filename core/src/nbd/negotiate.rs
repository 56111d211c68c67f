//! The handshake: fixed newstyle, options until one of them begins the transmission.

use std::io::{self, Read, Write};

use super::Export;
use super::protocol::{
    Fields, GREETING, OPTION_MAGIC, OPTION_REPLY_MAGIC, PAYLOAD_MAX, broken, can, handshake, info, option, reply,
};

/// Most bytes that an option may have.
const OPTION_MAX: u32 = 64 << 10;
/// Longest name, in bytes (the protocol's limit for strings).
const STRING_MAX: usize = 4096;
/// The preferred size of requests.
const PREFERRED: u32 = 4096;

/// What a client can be told of each stretch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contexts {
    /// [`ALLOCATION`].
    pub allocation: bool,
    /// [`DEPTH`].
    pub depth: bool,
}

/// The standard context: holes and zeros. What reads as zeros without a place is both.
pub(super) const ALLOCATION: (u32, &str) = (1, "base:allocation");
/// Our own: which image of the chain holds it. 1 is the leaf, 2 its parent and so on; 0 is nobody.
pub(super) const DEPTH: (u32, &str) = (2, "snaptree:depth");

/// What the handshake has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The export's place in the list.
    pub export: usize,
    /// Whether answers are structured.
    pub structured: bool,
    /// What `BLOCK_STATUS` tells.
    pub contexts: Contexts,
}

struct Negotiation<'a, S> {
    stream: &'a mut S,
    exports: &'a [Export],
    no_zeroes: bool,
    structured: bool,
    /// Of which export the contexts were agreed.
    contexts: (usize, Contexts),
}

/// Speaks with a client until it chooses an export; `None` where it leaves.
///
/// # Errors
/// What isn't the protocol, and failures of the stream.
pub(super) fn negotiate<S: Read + Write>(stream: &mut S, exports: &[Export]) -> io::Result<Option<Agreed>> {
    let ours = (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) as u16;
    stream.write_all(&[&GREETING[..], &OPTION_MAGIC, &ours.to_be_bytes()].concat())?;
    let mut theirs = [0; 4];
    stream.read_exact(&mut theirs)?;
    let theirs = u32::from_be_bytes(theirs);
    if theirs & !u32::from(ours) != 0 {
        return Err(broken(format!("a client with unknown flags {theirs:#x}")));
    }
    let no_zeroes = theirs & handshake::NO_ZEROES != 0;
    let mut negotiation = Negotiation { stream, exports, no_zeroes, structured: false, contexts: (0, Contexts::default()) };
    loop {
        let mut head = [0; 16];
        negotiation.stream.read_exact(&mut head)?;
        let mut fields = Fields(&head);
        if fields.array() != Some(OPTION_MAGIC) {
            return Err(broken("an option doesn't begin with its magic number"));
        }
        let (Some(kind), Some(length)) = (fields.u32(), fields.u32()) else { return Err(broken("half an option")) };
        if theirs & handshake::FIXED_NEWSTYLE == 0 && kind != option::EXPORT_NAME {
            return Err(broken("a client that doesn't speak fixed newstyle sends an option"));
        }
        if length > OPTION_MAX {
            if kind == option::EXPORT_NAME || length > PAYLOAD_MAX {
                return Err(broken(format!("an option of {length} bytes")));
            }
            let skipped = io::copy(&mut (&mut *negotiation.stream).take(length.into()), &mut io::sink())?;
            if skipped < length.into() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            negotiation.refuse(kind, reply::ERR_TOO_BIG, "the option is too long")?;
            continue;
        }
        let mut data = vec![0; length as usize];
        negotiation.stream.read_exact(&mut data)?;
        match kind {
            option::EXPORT_NAME => return negotiation.export_name(&data).map(Some),
            option::ABORT => {
                // A client may be gone already.
                let _ = negotiation.answer(kind, reply::ACK, &[]);
                return Ok(None);
            }
            option::INFO | option::GO => {
                if let Some(export) = negotiation.info(kind, &data)?
                    && kind == option::GO
                {
                    return Ok(Some(negotiation.agreed(export)));
                }
            }
            option::LIST => negotiation.list(&data)?,
            option::STRUCTURED_REPLY => negotiation.structured(&data)?,
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => negotiation.contexts(kind, &data)?,
            _ => negotiation.refuse(kind, reply::ERR_UNSUP, "this option isn't known here")?,
        }
    }
}

impl<S: Read + Write> Negotiation<'_, S> {
    fn answer(&mut self, kind: u32, reply: u32, data: &[u8]) -> io::Result<()> {
        let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        bytes.extend([kind, reply, data.len() as u32].map(u32::to_be_bytes).concat());
        bytes.extend(data);
        self.stream.write_all(&bytes)
    }

    fn refuse(&mut self, kind: u32, reply: u32, text: &str) -> io::Result<()> {
        self.answer(kind, reply, text.as_bytes())
    }

    /// The export with this name; the empty one is the first's.
    fn find(&self, name: &str) -> Option<usize> {
        let named = self.exports.iter().position(|export| export.name == name);
        named.or_else(|| (name.is_empty() && !self.exports.is_empty()).then_some(0))
    }

    fn agreed(&self, export: usize) -> Agreed {
        let contexts = if self.contexts.0 == export { self.contexts.1 } else { Contexts::default() };
        Agreed { export, structured: self.structured, contexts }
    }

    /// Size and abilities.
    fn facts(&self, export: usize) -> Vec<u8> {
        let export = &self.exports[export];
        let mut flags = can::HAS_FLAGS | can::FLUSH | can::FUA | can::MULTI_CONN;
        flags |= if export.read_only { can::READ_ONLY } else { can::TRIM | can::WRITE_ZEROES };
        if self.structured {
            flags |= can::DF;
        }
        [&export.device.size().0.to_be_bytes()[..], &flags.to_be_bytes()].concat()
    }

    fn export_name(&mut self, data: &[u8]) -> io::Result<Agreed> {
        let export = std::str::from_utf8(data).ok().and_then(|name| self.find(name));
        let export = export.ok_or_else(|| broken("a client asks for an export that isn't there"))?;
        let mut bytes = self.facts(export);
        if !self.no_zeroes {
            bytes.extend([0; 124]);
        }
        self.stream.write_all(&bytes)?;
        Ok(self.agreed(export))
    }

    /// Tells about an export; its place, where it is there.
    fn info(&mut self, kind: u32, data: &[u8]) -> io::Result<Option<usize>> {
        let mut fields = Fields(data);
        let name = fields.string().filter(|name| name.len() <= STRING_MAX);
        let count = name.and(fields.u16());
        let asked: Option<Vec<u16>> = count.and_then(|count| (0..count).map(|_| fields.u16()).collect());
        let (Some(name), Some(asked), true) = (name, asked, fields.0.is_empty()) else {
            self.refuse(kind, reply::ERR_INVALID, "the option's data isn't a name and a list")?;
            return Ok(None);
        };
        let Some(place) = self.find(name) else {
            self.refuse(kind, reply::ERR_UNKNOWN, "there is no such export")?;
            return Ok(None);
        };
        let export = &self.exports[place];
        let (own, description) = (export.name.clone(), export.description.clone());
        let sector = export.device.sector_size();
        let facts = self.facts(place);
        self.answer(kind, reply::INFO, &[&info::EXPORT.to_be_bytes()[..], &facts].concat())?;
        if asked.contains(&info::NAME) {
            self.answer(kind, reply::INFO, &[&info::NAME.to_be_bytes()[..], own.as_bytes()].concat())?;
        }
        if asked.contains(&info::DESCRIPTION) {
            self.answer(kind, reply::INFO, &[&info::DESCRIPTION.to_be_bytes()[..], description.as_bytes()].concat())?;
        }
        // Told whether it was asked for or not: what isn't whole sectors is refused.
        let sizes = [sector, PREFERRED.max(sector), PAYLOAD_MAX].map(u32::to_be_bytes).concat();
        self.answer(kind, reply::INFO, &[&info::BLOCK_SIZE.to_be_bytes()[..], &sizes].concat())?;
        self.answer(kind, reply::ACK, &[])?;
        Ok(Some(place))
    }

    fn list(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.refuse(option::LIST, reply::ERR_INVALID, "this option has no data");
        }
        for export in self.exports {
            let length = (export.name.len() as u32).to_be_bytes();
            let bytes = [&length[..], export.name.as_bytes(), export.description.as_bytes()].concat();
            self.answer(option::LIST, reply::SERVER, &bytes)?;
        }
        self.answer(option::LIST, reply::ACK, &[])
    }

    fn structured(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() || self.structured {
            return self.refuse(option::STRUCTURED_REPLY, reply::ERR_INVALID, "agreed already, or with data");
        }
        self.structured = true;
        self.answer(option::STRUCTURED_REPLY, reply::ACK, &[])
    }

    /// Lists the contexts that are asked for, or agrees on them.
    fn contexts(&mut self, kind: u32, data: &[u8]) -> io::Result<()> {
        let is_set = kind == option::SET_META_CONTEXT;
        let mut fields = Fields(data);
        let name = fields.string().filter(|name| name.len() <= STRING_MAX);
        let count = name.and(fields.u32());
        let mut asked = Vec::new();
        for _ in 0..count.unwrap_or(0) {
            let Some(query) = fields.string().filter(|query| query.len() <= STRING_MAX) else {
                return self.refuse(kind, reply::ERR_INVALID, "the option's data isn't a name and a list");
            };
            asked.push(query);
        }
        let (Some(name), Some(_), true) = (name, count, fields.0.is_empty()) else {
            return self.refuse(kind, reply::ERR_INVALID, "the option's data isn't a name and a list");
        };
        if !self.structured {
            return self.refuse(kind, reply::ERR_INVALID, "structured replies come first");
        }
        let Some(export) = self.find(name) else {
            // What was agreed before doesn't outlive an attempt that fails.
            self.contexts.1 = Contexts::default();
            return self.refuse(kind, reply::ERR_UNKNOWN, "there is no such export");
        };
        // A namespace alone stands for all of it in a list, and a list without queries is one of everything.
        let matches = |context: &str| {
            let in_list = |query: &str| query.ends_with(':') && context.starts_with(query);
            let asks = |query: &&str| *query == context || (!is_set && in_list(query));
            asked.iter().any(asks) || (!is_set && asked.is_empty())
        };
        let found = Contexts { allocation: matches(ALLOCATION.1), depth: matches(DEPTH.1) };
        for ((id, context), chosen) in [(ALLOCATION, found.allocation), (DEPTH, found.depth)] {
            if chosen {
                let id = if is_set { id } else { 0 };
                self.answer(kind, reply::META_CONTEXT, &[&id.to_be_bytes()[..], context.as_bytes()].concat())?;
            }
        }
        if is_set {
            self.contexts = (export, found);
        }
        self.answer(kind, reply::ACK, &[])
    }
}
