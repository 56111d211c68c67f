//! Reads a data store: which header counts, what the log still holds, the objects, the keys, the tree.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Value;
use super::error::Flaw;
use super::format::{
    FilePointer, HEADER_OFFSETS, Header, Key, KeyTable, LogEntry, LogHeader, OBJECT_TABLE_OFFSET, ObjectEntry, ObjectTable,
    VERSION, kind, object, sealed,
};

/// The deepest nesting of names.
const DEPTH_MAX: usize = 64;

type Outcome<T> = Result<T, Flaw>;

/// A key's table and its offset in there.
type KeyId = (u16, u32);

/// Reads a `.vmcx` or `.VMRS` file's bytes.
///
/// What a log still holds is put in its place first, in memory.
///
/// # Errors
/// Where the bytes aren't a data store, of another version, or damaged.
pub fn parse_store(bytes: &[u8]) -> Outcome<Value> {
    let header = current_header(bytes)?;
    let bytes = replay(bytes, &header)?;
    let objects = Objects::read(&bytes)?;
    let keys = Keys::read(&bytes, &objects)?;
    keys.tree()
}

/// A structure at a place.
fn at<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8], offset: usize, field: &str) -> Outcome<T> {
    let rest = bytes.get(offset..).unwrap_or_default();
    T::read_from_prefix(rest).map(|(found, _)| found).map_err(|_| Flaw::new(offset, field, "lies past the end of the file"))
}

/// A range of the file.
fn range<'a>(bytes: &'a [u8], offset: u64, length: u64, field: &str) -> Outcome<&'a [u8]> {
    let (start, end) = (usize::try_from(offset), offset.checked_add(length).map(usize::try_from));
    let found = match (start, end) {
        (Ok(start), Some(Ok(end))) => bytes.get(start..end),
        _ => None,
    };
    let place = usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
    found.ok_or_else(|| Flaw::new(place, field, format!("of {length} bytes at {offset} goes past the end of the file")))
}

fn check_sum(bytes: &[u8], offset: usize, length: usize, place: usize, stored: u32, field: &str) -> Outcome<()> {
    let part = range(bytes, offset as u64, length as u64, field)?;
    if sealed(part, place) == stored {
        return Ok(());
    }
    Err(Flaw::new(offset, field, format!("has a checksum that doesn't fit ({stored:#010x})")))
}

fn current_header(bytes: &[u8]) -> Outcome<Header> {
    let valid = HEADER_OFFSETS.into_iter().filter_map(|offset| {
        let header: Header = at(bytes, offset, "header").ok()?;
        let part = bytes.get(offset..offset + size_of::<Header>())?;
        let sum = sealed(part, offset_of!(Header, checksum));
        (header.signature == Header::SIGNATURE && header.checksum == sum).then_some((offset, header))
    });
    // The number goes round: the later of two is less than half of it ahead.
    let later = |a: &Header, b: &Header| a.sequence.get().wrapping_sub(b.sequence.get()) as i16 > 0;
    let found = valid.reduce(|first, second| if later(&second.1, &first.1) { second } else { first });
    let Some((offset, header)) = found else {
        return Err(Flaw::new(0, "header", "is damaged or of another format, and so is its copy at 4096"));
    };
    if header.version != VERSION {
        let problem = format!("is {:#06x}; only {VERSION:#06x} is read", header.version.get());
        return Err(Flaw::new(offset + offset_of!(Header, version), "version", problem));
    }
    Ok(header)
}

/// The bytes as they are once the changes that the log holds are in their place.
fn replay<'a>(bytes: &'a [u8], header: &Header) -> Outcome<Cow<'a, [u8]>> {
    let (offset, length) = (header.log_offset.get(), header.log_length.get());
    // A copy may end before the log does: what counts of it is checked piece by piece.
    let log = range(bytes, offset, length.min((bytes.len() as u64).saturating_sub(offset)), "replay log")?;
    let start = offset as usize;
    let head: LogHeader = at(log, 0, "replay log").map_err(|flaw| Flaw { offset: flaw.offset + offset, ..flaw })?;
    if head.signature != LogHeader::SIGNATURE {
        return Err(Flaw::new(start, "replay log", format!("has the signature {:#010x}", head.signature.get())));
    }
    check_sum(bytes, start, size_of::<LogHeader>(), offset_of!(LogHeader, checksum), head.checksum.get(), "replay log")?;
    let mut changed = Cow::Borrowed(bytes);
    // Each change has its own bytes in the log, so all together are no longer than it.
    let mut left = log.len() as u64;
    for index in 0..head.entries.get() as usize {
        let place = size_of::<LogHeader>() + index * size_of::<LogEntry>();
        let field = format!("entry {index} of the replay log");
        let wrong = |problem: &str| Flaw::new(start + place.min(log.len()), field.clone(), problem);
        let entry: LogEntry = at(log, place, &field).map_err(|_| wrong("lies past the log's end"))?;
        let stored = entry.checksum.get();
        check_sum(bytes, start + place, size_of::<LogEntry>(), offset_of!(LogEntry, checksum), stored, &field)?;
        let size = u64::from(entry.length.get());
        left = left.checked_sub(size).ok_or_else(|| wrong("holds more than the log"))?;
        let data = range(log, entry.data_offset.get(), size, &field).map_err(|_| wrong("has its data past the log's end"))?;
        if crc32fast::hash(data) != entry.data_checksum.get() {
            return Err(wrong("has data whose checksum doesn't fit"));
        }
        range(bytes, entry.offset.get(), size, &field)?;
        let to = entry.offset.get() as usize;
        changed.to_mut()[to..to + data.len()].copy_from_slice(data);
    }
    Ok(changed)
}

/// Where things are.
#[derive(Default)]
struct Objects {
    /// Offset and length of each key table.
    key_tables: Vec<(usize, usize)>,
    /// Length by offset.
    files: BTreeMap<u64, u64>,
}

impl Objects {
    fn read(bytes: &[u8]) -> Outcome<Self> {
        let mut found = Self::default();
        let mut tables = vec![OBJECT_TABLE_OFFSET];
        let mut seen = BTreeSet::new();
        while let Some(offset) = tables.pop() {
            if !seen.insert(offset) {
                return Err(Flaw::new(offset, "object table", "is named twice"));
            }
            let head: ObjectTable = at(bytes, offset, "object table")?;
            if head.signature != ObjectTable::SIGNATURE {
                return Err(Flaw::new(offset, "object table", format!("has the signature {:#010x}", head.signature.get())));
            }
            let (count, size) = (u64::from(head.entries.get()), size_of::<ObjectEntry>());
            let first = offset + size_of::<ObjectTable>();
            range(bytes, first as u64, count * size as u64, "object table")?;
            for index in 0..count as usize {
                found.entry(bytes, first + index * size, &mut tables)?;
            }
        }
        Ok(found)
    }

    fn entry(&mut self, bytes: &[u8], place: usize, tables: &mut Vec<usize>) -> Outcome<()> {
        const FIELD: &str = "object table's entry";
        let entry: ObjectEntry = at(bytes, place, FIELD)?;
        check_sum(bytes, place, size_of::<ObjectEntry>(), offset_of!(ObjectEntry, checksum), entry.checksum.get(), FIELD)?;
        if entry.flags & 1 == 0 {
            return Ok(());
        }
        let (offset, length) = (entry.offset.get(), u64::from(entry.length.get()));
        match entry.kind {
            object::OBJECT_TABLE | object::KEY_TABLE | object::FILE => {
                range(bytes, offset, length, "object")?;
            }
            _ => return Ok(()),
        }
        match entry.kind {
            object::OBJECT_TABLE => tables.push(offset as usize),
            object::KEY_TABLE => self.key_tables.push((offset as usize, length as usize)),
            _ => {
                self.files.insert(offset, length);
            }
        }
        Ok(())
    }
}

/// One key.
struct Found {
    offset: usize,
    name: String,
    order: u32,
    parent: KeyId,
    /// `None` for a node.
    value: Option<Value>,
}

/// All keys, by table and offset in it.
struct Keys(BTreeMap<KeyId, Found>);

impl Keys {
    fn read(bytes: &[u8], objects: &Objects) -> Outcome<Self> {
        // Of tables with one index the newest counts.
        let mut newest: BTreeMap<u16, (u16, usize, usize)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (offset, length) in &objects.key_tables {
            if !seen.insert(*offset) {
                return Err(Flaw::new(*offset, "key table", "is named twice"));
            }
            let head: KeyTable = at(bytes, *offset, "key table")?;
            if head.signature != KeyTable::SIGNATURE {
                return Err(Flaw::new(*offset, "key table", format!("has the signature {:#06x}", head.signature.get())));
            }
            let stored = head.checksum.get();
            check_sum(bytes, *offset, size_of::<KeyTable>(), offset_of!(KeyTable, checksum), stored, "key table")?;
            let sequence = head.sequence.get();
            let known = newest.entry(head.index.get()).or_insert((sequence, *offset, *length));
            if sequence > known.0 {
                *known = (sequence, *offset, *length);
            }
        }
        let mut keys = BTreeMap::new();
        let mut copied = 0;
        let mut last_end = 0;
        let mut places: Vec<_> = newest.into_iter().map(|(index, (_, offset, length))| (offset, length, index)).collect();
        places.sort_unstable();
        for (offset, length, index) in places {
            if offset < last_end {
                return Err(Flaw::new(offset, "key table", "lies inside another one"));
            }
            last_end = offset + length;
            let table = Table { bytes, objects, offset, end: offset + length, index };
            table.read(&mut keys, &mut copied)?;
        }
        Ok(Self(keys))
    }

    /// Hangs every key below its parent.
    fn tree(self) -> Outcome<Value> {
        let mut below: BTreeMap<KeyId, Vec<(u32, KeyId)>> = BTreeMap::new();
        for (id, key) in &self.0 {
            let parent = if key.parent.0 == 0 { ROOT } else { key.parent };
            let is_node = self.0.get(&parent).is_some_and(|parent| parent.value.is_none());
            if parent != ROOT && !is_node {
                return Err(Flaw::new(key.offset, &*key.name, "has a parent that isn't there"));
            }
            below.entry(parent).or_default().push((key.order, *id));
        }
        for children in below.values_mut() {
            children.sort_unstable();
        }
        let mut keys = self.0;
        let mut tree = Tree { below, keys: &mut keys };
        let root = tree.node(ROOT, 0)?;
        // What is left hangs from itself.
        match keys.into_values().next() {
            None => Ok(root),
            Some(key) => Err(Flaw::new(key.offset, key.name, "has parents that lead in a circle")),
        }
    }
}

/// What hangs from table 0 hangs from the root, which isn't written.
const ROOT: KeyId = (0, 0);

struct Tree<'a> {
    below: BTreeMap<KeyId, Vec<(u32, KeyId)>>,
    keys: &'a mut BTreeMap<KeyId, Found>,
}

impl Tree<'_> {
    fn node(&mut self, id: KeyId, depth: usize) -> Outcome<Value> {
        let mut children = Vec::new();
        for (_, id) in self.below.remove(&id).unwrap_or_default() {
            let Some(key) = self.keys.remove(&id) else { continue };
            if depth >= DEPTH_MAX {
                return Err(Flaw::new(key.offset, key.name, format!("is nested more than {DEPTH_MAX} deep")));
            }
            let value = match key.value {
                Some(value) => value,
                None => self.node(id, depth + 1)?,
            };
            children.push((key.name, value));
        }
        Ok(Value::Node(children))
    }
}

/// One key table.
struct Table<'a> {
    bytes: &'a [u8],
    objects: &'a Objects,
    offset: usize,
    end: usize,
    index: u16,
}

impl Table<'_> {
    fn read(&self, keys: &mut BTreeMap<KeyId, Found>, copied: &mut usize) -> Outcome<()> {
        const HEAD: usize = size_of::<Key>();
        let mut place = self.offset + size_of::<KeyTable>();
        while place + HEAD <= self.end {
            let key: Key = at(self.bytes, place, "key")?;
            let length = key.length.get() as usize;
            if length == 0 {
                break;
            }
            if length < HEAD || length > self.end - place {
                return Err(Flaw::new(place, "key", format!("is {length} bytes long, which doesn't fit into its table")));
            }
            if key.kind != kind::FREE {
                let found = self.key(&key, place, &self.bytes[place + HEAD..place + length], copied)?;
                keys.insert((self.index, (place - self.offset) as u32), found);
            }
            place += length;
        }
        Ok(())
    }

    fn key(&self, key: &Key, place: usize, rest: &[u8], copied: &mut usize) -> Outcome<Found> {
        let wrong = |problem: &str| Flaw::new(place, "key", problem);
        let name_length = usize::from(key.name_length);
        let name = rest.get(..name_length).ok_or_else(|| wrong("has a name longer than itself"))?;
        let text = name.strip_suffix(&[0]).unwrap_or(name);
        let name = std::str::from_utf8(text).map_err(|_| wrong("has a name that isn't UTF-8"))?.to_owned();
        let wrong = |problem: &str| Flaw::new(place, &*name, problem);
        let data = &rest[name_length..];
        let (value, used) = if key.flags & Key::IN_FILE != 0 {
            let pointer: FilePointer = at(data, 0, &name).map_err(|_| wrong("is shorter than its value"))?;
            (Some(self.in_file(key.kind, &pointer, place, &name, copied)?), size_of::<FilePointer>())
        } else {
            self.inline(key.kind, data).map_err(|problem| wrong(&problem))?
        };
        let meant = size_of::<Key>() + name_length + used;
        check_sum(self.bytes, place, meant, offset_of!(Key, checksum), key.checksum.get(), &name)?;
        let parent = (key.parent_table.get(), key.parent_offset.get());
        Ok(Found { offset: place, name, order: key.order.get(), parent, value })
    }

    /// A value that stands in the key, and how many bytes it takes there.
    fn inline(&self, kind: u8, data: &[u8]) -> Result<(Option<Value>, usize), String> {
        let short = || "is shorter than its value".to_owned();
        let word = |length| data.get(..length).ok_or_else(short);
        let long = || word(8).and_then(|bytes| bytes.try_into().map_err(|_| short()));
        Ok(match kind {
            kind::INT => (Some(Value::Int(i64::from_le_bytes(long()?))), 8),
            kind::UINT => (Some(Value::UInt(u64::from_le_bytes(long()?))), 8),
            kind::DOUBLE => (Some(Value::Double(f64::from_le_bytes(long()?))), 8),
            kind::BOOL => (Some(Value::Bool(word(4)? != [0; 4])), 4),
            kind::NODE => (word(12).map(|_| None)?, 12),
            kind::TEXT | kind::BYTES => {
                let length = u32::from_le_bytes(word(4)?.try_into().map_err(|_| short())?) as usize;
                let bytes = data[4..].get(..length).ok_or_else(short)?;
                (Some(variable(kind, bytes)?), 4 + length)
            }
            _ => return Err(format!("is of the unknown kind {kind}")),
        })
    }

    fn in_file(&self, kind: u8, pointer: &FilePointer, place: usize, name: &str, copied: &mut usize) -> Outcome<Value> {
        let wrong = |problem: &str| Flaw::new(place, name, problem);
        let (offset, length) = (pointer.offset.get(), u64::from(pointer.length.get()));
        match self.objects.files.get(&offset) {
            None => return Err(wrong("points to an object that isn't there")),
            Some(whole) if *whole < length => return Err(wrong("is longer than the object that it points to")),
            Some(_) => {}
        }
        // An object is one key's: all together aren't longer than the file.
        *copied += length as usize;
        if *copied > self.bytes.len() {
            return Err(wrong("shares its object with others"));
        }
        variable(kind, range(self.bytes, offset, length, name)?).map_err(|problem| wrong(&problem))
    }
}

/// A text's or bytes' value.
fn variable(kind: u8, bytes: &[u8]) -> Result<Value, String> {
    match kind {
        kind::TEXT => {
            let units = bytes.chunks_exact(2);
            if !units.remainder().is_empty() {
                return Err("is a text of half a character".into());
            }
            let units = units.map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            let text: Result<String, _> = char::decode_utf16(units).collect();
            text.map(Value::Text).map_err(|_| "isn't UTF-16".into())
        }
        kind::BYTES => Ok(Value::Bytes(bytes.to_vec())),
        _ => Err(format!("is of the kind {kind}, which can't point to an object")),
    }
}
