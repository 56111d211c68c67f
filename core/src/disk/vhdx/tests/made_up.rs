//! Files that somebody made up: each field with a value that can't be, and structures that would cost without bound. Every
//! one ends in an error that names file, place and field, and changes nothing.

use std::path::Path;

use zerocopy::FromZeros;

use super::super::format::{Guid, LogEntryHeader, MIB, PAGE, PAGE_SIZE, checksum};
use super::super::header::{self, Headers};
use super::super::{log, parent_locator::ParentLocator};
use super::options;
use crate::disk::pages::{Overlay, Page, RawFile};
use crate::disk::pending::Pending;
use crate::disk::{self, DiskErrorKind, Image, ImageFormat, Result};
use crate::host_file::Access;
use crate::testing::MemHost;
use crate::units::ByteCount;

const PATH: &str = "/image.vhdx";
/// Where [`made`] has what.
const LOG: u64 = MIB;
const METADATA: u64 = 5 * MIB;
const BAT: u64 = 6 * MIB;
const DATA: u64 = 7 * MIB;
/// Entries of the metadata table, as they are written.
const FILE_PARAMETERS: u64 = 0;
const VIRTUAL_SIZE: u64 = 1;
const LOGICAL_SECTOR: u64 = 2;
const LOCATOR: u64 = 5;

/// A differencing image with a full, a partial and a zero block, closed.
fn made() -> MemHost {
    let host = MemHost::new();
    let options = options(1, 512, 5 << 20);
    let base = super::super::create(&host.shared(), Path::new("/base.vhdx"), &options).unwrap();
    let image = super::super::create_child(&host.shared(), Path::new(PATH), &*base, options.block_size).unwrap();
    image.write_at(&vec![1; 1 << 20], 0).unwrap();
    image.write_at(&[2; 4096], (1 << 20) + 512).unwrap();
    image.write_zeroes(2 << 20, 1 << 20).unwrap();
    image.freeze().unwrap();
    drop((image, base));
    host.crash(crate::testing::CrashMode::Kill, 0)
}

fn get(host: &MemHost, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    host.shared().open(Path::new(PATH), Access::Look).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn put(host: &MemHost, offset: u64, bytes: &[u8]) {
    let file = host.shared().open(Path::new(PATH), Access::Write).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

fn open(host: &MemHost, access: Access) -> Result<std::sync::Arc<dyn Image>> {
    disk::open(&host.shared(), Path::new(PATH), ImageFormat::Vhdx, access)
}

/// Bytes of both region tables, from an offset in them; checksums made right.
fn put_regions(host: &MemHost, offset: u64, bytes: &[u8]) {
    for table in [192 << 10, 256 << 10] {
        put(host, table + offset, bytes);
        let crc = checksum([&get(host, table, 64 << 10), &[]]);
        put(host, table + 4, &crc.to_le_bytes());
    }
}

/// The same for both headers.
fn put_headers(host: &MemHost, offset: u64, bytes: &[u8]) {
    for at in [64 << 10, 128 << 10] {
        put(host, at + offset, bytes);
        let crc = checksum([&get(host, at, PAGE_SIZE), &[]]);
        put(host, at + 4, &crc.to_le_bytes());
    }
}

/// Where an item's table entry stands, and its content.
fn item(host: &MemHost, index: u64) -> (u64, u64) {
    let entry = METADATA + 32 + index * 32;
    let offset = u32::from_le_bytes(get(host, entry + 16, 4).try_into().unwrap());
    (entry, METADATA + u64::from(offset))
}

/// Opening is refused with all of these words, for a look and for a change, and nothing is changed by it.
fn refused(host: &MemHost, words: &[&str]) {
    let steps = host.steps();
    for access in [Access::Look, Access::Read, Access::Write] {
        let Err(error) = open(host, access) else { panic!("{words:?}: it is opened") };
        let text = error.to_string();
        assert!(text.starts_with(PATH) && error.offset.is_some() && text.contains("at byte"), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    }
    assert_eq!(host.steps(), steps, "{words:?}: something was changed");
}

#[test]
fn items_that_cannot_be_are_named() {
    let values: &[(u64, u64, &[u8], &str)] = &[
        (FILE_PARAMETERS, 0, &[0; 4], "BlockSize is 0"),
        (FILE_PARAMETERS, 0, &(3_u32 << 20).to_le_bytes(), "BlockSize"),
        (FILE_PARAMETERS, 0, &(512_u32 << 20).to_le_bytes(), "BlockSize"),
        (FILE_PARAMETERS, 0, &u32::MAX.to_le_bytes(), "BlockSize"),
        (LOGICAL_SECTOR, 0, &[0; 4], "Logical Sector Size is 0"),
        (LOGICAL_SECTOR, 0, &1000_u32.to_le_bytes(), "Logical Sector Size is 1000"),
        (LOGICAL_SECTOR + 1, 0, &[0; 4], "Physical Sector Size is 0"),
        (VIRTUAL_SIZE, 0, &[0; 8], "Virtual Disk Size is 0"),
        (VIRTUAL_SIZE, 0, &513_u64.to_le_bytes(), "Virtual Disk Size is 513"),
        (VIRTUAL_SIZE, 0, &((64_u64 << 40) + 512).to_le_bytes(), "Virtual Disk Size"),
        (VIRTUAL_SIZE, 0, &u64::MAX.to_le_bytes(), "Virtual Disk Size"),
        (VIRTUAL_SIZE, 0, &(64_u64 << 40).to_le_bytes(), "Length of the BAT region"),
        (LOCATOR, 0, &[7; 16], "unknown type"),
        (LOCATOR, 18, &u16::MAX.to_le_bytes(), "KeyValueCount 65535"),
        (LOCATOR, 18, &[0; 2], "parent_linkage"),
        (LOCATOR, 20, &u32::MAX.to_le_bytes(), "outside the item"),
        (LOCATOR, 28, &[3, 0], "outside the item"),
    ];
    for (index, offset, bytes, words) in values {
        let host = made();
        let (_, content) = item(&host, *index);
        put(&host, content + offset, bytes);
        refused(&host, &[words]);
    }
}

#[test]
fn tables_of_metadata_that_cannot_be_are_named() {
    let entry = |index: u64, offset: u64| METADATA + 32 + index * 32 + offset;
    let first = get(&made(), entry(0, 0), 16);
    let values: &[(u64, &[u8], &[&str])] = &[
        (METADATA, b"metadat?", &["Signature"]),
        (METADATA + 10, &u16::MAX.to_le_bytes(), &["EntryCount", "65535"]),
        (METADATA + 10, &[0; 2], &["File Parameters is missing"]),
        (entry(1, 16), &u32::MAX.to_le_bytes(), &["Offset", "outside the region"]),
        (entry(1, 16), &[0; 4], &["Offset"]),
        (entry(1, 20), &u32::MAX.to_le_bytes(), &["Offset", "outside the region"]),
        (entry(1, 20), &[7, 0, 0, 0], &["Virtual Disk Size has 7 bytes"]),
        (entry(1, 0), &first, &["ItemId", "twice"]),
        (entry(1, 0), &[9; 16], &["required metadata item"]),
    ];
    for (place, bytes, words) in values {
        let host = made();
        put(&host, *place, bytes);
        refused(&host, words);
    }
    let host = made();
    put(&host, entry(1, 16), &get(&host, entry(0, 16), 4));
    refused(&host, &["inside another item"]);
    // Parent, but no way to it.
    put(&host, entry(1, 16), &get(&made(), entry(1, 16), 4));
    put(&host, METADATA + 10, &[5, 0]);
    refused(&host, &["Parent Locator is missing"]);
}

#[test]
fn regions_and_headers_that_cannot_be_are_named() {
    let regions: &[(u64, &[u8], &[&str])] = &[
        (16 + 16, &0_u64.to_le_bytes(), &["FileOffset"]),
        (16 + 16, &(BAT + 4096).to_le_bytes(), &["FileOffset", "multiple of 1 MiB"]),
        (16 + 16, &(1_u64 << 62).to_le_bytes(), &["FileOffset", "after the file"]),
        (16 + 16, &(u64::MAX - MIB + 1).to_le_bytes(), &["FileOffset", "after the file"]),
        (16 + 16, &LOG.to_le_bytes(), &["FileOffset", "overlaps"]),
        (16 + 16, &METADATA.to_le_bytes(), &["FileOffset", "overlaps"]),
        (16 + 24, &[0; 4], &["Length"]),
        (16 + 24, &0xfff0_0000_u32.to_le_bytes(), &["FileOffset", "after the file"]),
        (8, &5000_u32.to_le_bytes(), &["Region Table", "damaged"]),
        (8, &[0; 4], &["no BAT region"]),
        (8, &[1, 0, 0, 0], &["no metadata region"]),
        (16, &[5; 16], &["required region"]),
    ];
    for (offset, bytes, words) in regions {
        let host = made();
        put_regions(&host, *offset, bytes);
        refused(&host, words);
    }
    // A third entry: the BAT once more, elsewhere.
    let host = made();
    let mut again = get(&host, (192 << 10) + 16, 32);
    again[16..24].copy_from_slice(&DATA.to_le_bytes());
    put_regions(&host, 16 + 64, &again);
    put_regions(&host, 8, &[3, 0, 0, 0]);
    refused(&host, &["Region Table", "twice"]);

    let headers: &[(u64, &[u8], &[&str])] = &[
        (66, &[2, 0], &["Version is 2"]),
        (68, &[1, 0, 0, 0], &["LogLength"]),
        (72, &4096_u64.to_le_bytes(), &["LogOffset"]),
        (72, &(u64::MAX - MIB + 1).to_le_bytes(), &["LogOffset"]),
        (48, &[1; 16], &["LogGuid", "no valid sequence"]),
        (8, &[0; 4], &[]),
    ];
    for (offset, bytes, words) in headers {
        let host = made();
        put_headers(&host, *offset, bytes);
        if words.is_empty() {
            open(&host, Access::Look).unwrap();
        } else {
            refused(&host, words);
        }
    }
    for (length, words) in [(MIB / 2, "Signature"), (MIB, "ends after the file"), (BAT, "ends after the file"), (0, "Signature")]
    {
        let host = made();
        host.shared().open(Path::new(PATH), Access::Write).unwrap().set_len(length).unwrap();
        refused(&host, &[words]);
    }
}

/// What one block's entry says is wrong when the block is asked for; the others are read, nothing can be written.
#[test]
fn blocks_that_lie_where_they_cannot_are_named() {
    for (entry, word) in [
        (6, "inside the headers"),
        (LOG | 6, "inside a region or the log"),
        (BAT | 6, "inside a region or the log"),
        (METADATA | 7, "inside a region or the log"),
        ((1 << 40) | 6, "ends after the file"),
        ((u64::MAX - MIB + 1) | 6, "ends after the file"),
        (DATA | 4, "State"),
        (DATA | 5, "State"),
    ] {
        let host = made();
        put(&host, BAT + 4 * 8, &u64::to_le_bytes(entry));
        let image = open(&host, Access::Look).unwrap();
        let error = image.extents(4 << 20, 1 << 20).unwrap_err();
        let text = error.to_string();
        assert!(error.offset == Some(BAT + 32) && text.contains(word) && text.contains("block 4"), "{text}");
        let mut content = vec![0; 4 << 20];
        image.read_at(&mut content, 0).unwrap();
        assert!(image.check().unwrap().iter().any(|problem| problem.contains(word)), "{word}");
        assert!(content[..1 << 20] == [1; 1 << 20]);
        only_read(&host, word);
    }
}

/// A change is refused before anything is touched.
fn only_read(host: &MemHost, word: &str) {
    let image = open(host, Access::Write).unwrap();
    let steps = host.steps();
    for error in [
        image.write_at(&[9; 512], 0).unwrap_err(),
        image.write_zeroes(3 << 20, 512).unwrap_err(),
        image.release(&[(0, 4096)]).unwrap_err(),
        image.grow(ByteCount::mib(6)).unwrap_err(),
        image.become_base().unwrap_err(),
        image.pin_data_write_id().unwrap_err(),
    ] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    assert_eq!(host.steps(), steps, "{word}");
}

#[test]
fn bitmaps_and_blocks_that_overlap_are_never_written_to() {
    let bitmap = BAT + 4096 * 8;
    for (place, entry, word) in [
        // Its end is past what a number can say: the free space after it would begin at the file's start.
        (bitmap, (u64::MAX - MIB + 1) | 6, "sector bitmap block"),
        (bitmap, (1 << 40) | 6, "sector bitmap block"),
        (bitmap, BAT | 6, "sector bitmap block"),
        (bitmap, DATA | 7, "sector bitmap block"),
        (BAT + 3 * 8, DATA | 6, "overlaps"),
    ] {
        let host = made();
        put(&host, place, &u64::to_le_bytes(entry));
        only_read(&host, word);
    }
    let host = made();
    put(&host, BAT + 3 * 8, &get(&host, BAT, 8));
    let problems = open(&host, Access::Look).unwrap().check().unwrap();
    assert!(problems.iter().any(|problem| problem.contains("overlap")), "{problems:?}");
    only_read(&host, "overlaps");
}

#[test]
fn a_check_lists_what_can_be_read() {
    let host = MemHost::new();
    super::super::create(&host.shared(), Path::new(PATH), &options(1, 512, 200 << 30)).unwrap();
    let host = host.crash(crate::testing::CrashMode::Kill, 0);
    put(&host, BAT, &4_u64.to_le_bytes().repeat(200 << 10));
    let problems = open(&host, Access::Look).unwrap().check().unwrap();
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100], "and perhaps more: the rest wasn't looked at");
}

/// A log with these entries, one after the other, as the current one.
fn put_log(host: &MemHost, entries: &[Vec<u8>], guid: Guid) {
    put(host, LOG, &entries.concat());
    put_headers(host, 48, &guid.0);
}

/// Changes an entry's header, and makes its checksum right.
fn change(entry: &mut [u8], offset: usize, bytes: &[u8]) {
    entry[offset..offset + bytes.len()].copy_from_slice(bytes);
    let crc = checksum([entry, &[]]);
    entry[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn entry(host: &MemHost, guid: Guid) -> Vec<u8> {
    let length = host.shared().open(Path::new(PATH), Access::Look).unwrap().len().unwrap();
    let mut page = Page::new_zeroed();
    page.copy_from_slice(&get(host, BAT, PAGE_SIZE));
    log::encode(guid, 0, length, &[(BAT, page.into())])
}

#[test]
fn log_entries_that_cannot_be_are_named() {
    let guid = Guid([5; 16]);
    let descriptor = 64;
    let values: &[(usize, &[u8], &[&str])] = &[
        (descriptor + 16, &(64_u64 << 10).to_le_bytes(), &["FileOffset", "inside the headers"]),
        (descriptor + 16, &LOG.to_le_bytes(), &["FileOffset", "inside the headers or the log"]),
        (descriptor + 16, &(BAT + 1).to_le_bytes(), &["FileOffset", "multiple of 4 KiB"]),
        (descriptor + 16, &(1_u64 << 60).to_le_bytes(), &["FileOffset", "past any file's end"]),
        (descriptor + 16, &(u64::MAX - 4095).to_le_bytes(), &["FileOffset", "past any file's end"]),
        (48, &(1_u64 << 50).to_le_bytes(), &["FlushedFileOffset"]),
        (56, &u64::MAX.to_le_bytes(), &["LastFileOffset"]),
        // These make it no entry at all.
        (8, &0_u32.to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (8, &u32::MAX.to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (8, &(4_u32 << 20).to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (12, &4096_u32.to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (12, &u32::MAX.to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (16, &0_u64.to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (24, &u32::MAX.to_le_bytes(), &["LogGuid", "no valid sequence"]),
        (24, &2_u32.to_le_bytes(), &["LogGuid", "no valid sequence"]),
    ];
    for (offset, bytes, words) in values {
        let host = made();
        let mut made_up = entry(&host, guid);
        change(&mut made_up, *offset, bytes);
        put_log(&host, &[made_up], guid);
        refused(&host, words);
    }
    let host = made();
    put_log(&host, &[entry(&host, guid)], guid);
    open(&host, Access::Look).unwrap();
    // A log that is longer than any, in a file that has room for it.
    host.shared().open(Path::new(PATH), Access::Write).unwrap().set_len(8 << 30).unwrap();
    put_headers(&host, 72, &(4_u64 << 30).to_le_bytes());
    put_headers(&host, 68, &(1_u32 << 30).to_le_bytes());
    refused(&host, &["its log has 1073741824 bytes"]);
}

/// The log would put something into the file that can't be: it isn't replayed into it.
#[test]
fn a_log_that_makes_no_file_of_it_changes_nothing() {
    let (host, guid) = (made(), Guid([5; 16]));
    let length = host.shared().open(Path::new(PATH), Access::Look).unwrap().len().unwrap();
    let pages = [(DATA, [9; PAGE_SIZE]), (METADATA, [b'x'; PAGE_SIZE])].map(|(at, bytes)| {
        let mut page = Page::new_zeroed();
        page.copy_from_slice(&bytes);
        (at, page.into())
    });
    put_log(&host, &[log::encode(guid, 0, length, &pages)], guid);
    refused(&host, &["Signature"]);
}

/// The same of a side file, whose changes are all looked at before the first is applied.
#[test]
fn a_side_file_that_makes_no_file_of_it_changes_nothing() {
    for (last, words) in [
        ((METADATA, b"metadat?".to_vec()), "Signature"),
        ((192 << 10, vec![0; 8]), "Region Table"),
        ((u64::MAX, vec![1]), "side file"),
        ((64 << 10, vec![1]), "side file"),
    ] {
        let host = made();
        if words == "Region Table" {
            put(&host, 256 << 10, &[0; 8]);
        }
        let file = host.shared().open(Path::new(PATH), Access::Look).unwrap();
        let id = Headers::read(&RawFile::new(file).unwrap()).unwrap().current.file_write_guid;
        let mut side = Pending::new(&host.shared(), Path::new(PATH));
        side.append(id.0, &vec![(BAT, get(&host, BAT, 8))]).unwrap();
        drop(open(&host, Access::Look).unwrap());
        side.append(id.0, &vec![last]).unwrap();
        drop(side);
        refused(&host, &[words]);
    }
}

#[test]
fn a_log_of_nothing_but_starts_holds_none() {
    // Each start claims all that follows, and its checksum is right: to believe them would cost the log's square.
    let (host, guid) = (made(), Guid([6; 16]));
    let pages = 64;
    let mut all = vec![0; pages * PAGE_SIZE];
    for page in (0..pages).rev() {
        let (length, at) = (all.len() - page * PAGE_SIZE, page * PAGE_SIZE);
        let mut header = LogEntryHeader::new_zeroed();
        (header.signature, header.log_guid) = (*b"loge", guid);
        (header.entry_length, header.tail) = ((length as u32).into(), (at as u32).into());
        header.sequence_number = (page as u64 + 1).into();
        (header.flushed_file_offset, header.last_file_offset) = (DATA.into(), DATA.into());
        all[at..at + 64].copy_from_slice(zerocopy::IntoBytes::as_bytes(&header));
        change(&mut all[at..], 0, b"loge");
    }
    // Only the last one, a page long, stands alone.
    put_log(&host, &[all], guid);
    let raw = RawFile::new(host.shared().open(Path::new(PATH), Access::Look).unwrap()).unwrap();
    let headers = Headers::read(&raw).unwrap();
    assert!(headers.log_in_use());
    put(&host, LOG + (pages as u64 - 1) * PAGE, &[0; 64]);
    refused(&host, &["LogGuid", "no valid sequence"]);
    assert!(header::parse(get(&host, 64 << 10, PAGE_SIZE).as_slice().try_into().unwrap()).is_some());
}

#[test]
fn zeros_of_a_log_are_kept_and_replayed_as_what_they_cover() {
    let mut overlay = Overlay::default();
    for round in 0..1000_u64 {
        for (from, to) in [(10, 20), (15, 30), (40, 50), (5, 12), (29, 41)] {
            overlay.put_zeros(DATA + from * PAGE, DATA + (to + round % 3) * PAGE);
        }
    }
    assert_eq!(overlay.zeros.iter().collect::<Vec<_>>(), [(&(DATA + 5 * PAGE), &(DATA + 52 * PAGE))]);
    overlay.put_zeros(DATA, DATA + PAGE);
    overlay.put_zeros(DATA + 60 * PAGE, 60 << 40);
    assert_eq!(overlay.zeros.len(), 3);

    // Sixty tebibytes of zeros: the file gets longer, and takes no more space.
    let host = made();
    host.set_can_punch(false);
    host.set_capacity(Some(ByteCount::mib(64)));
    overlay.length = 60 << 40;
    let file = host.shared().open(Path::new(PATH), Access::Write).unwrap();
    let steps = host.steps();
    log::replay(&RawFile::new(file.clone()).unwrap(), &overlay).unwrap();
    assert_eq!(file.len().unwrap(), 60 << 40);
    assert!(host.steps() - steps < 20, "{} steps", host.steps() - steps);
    assert!(get(&host, DATA + 5 * PAGE, 47 * PAGE_SIZE).iter().all(|byte| *byte == 0));
}

#[test]
fn a_locator_is_no_longer_than_its_item() {
    // 200 keys and values that are all the same 64 KiB.
    let plain = ParentLocator::new(uuid::Uuid::nil(), "/a".into(), "a".into()).encode();
    let (count, text) = (200_u16, 20 + 200 * 12_u32);
    let mut item = plain[..18].to_vec();
    item.extend(count.to_le_bytes());
    for _ in 0..count {
        item.extend([text, text].map(u32::to_le_bytes).concat());
        item.extend([0xfffe_u16; 2].map(u16::to_le_bytes).concat());
    }
    item.resize(text as usize + (64 << 10), b'x');
    let problem = ParentLocator::parse(&item).unwrap_err();
    assert!(problem.contains("share their bytes"), "{problem}");
}

#[test]
fn unknown_items_are_kept_up_to_a_limit() {
    let host = made();
    // Twenty items of a mebibyte each: the region moves to where there is room, and most of it is a hole.
    let (region, length) = (16 * MIB, 64 * MIB);
    host.shared().open(Path::new(PATH), Access::Write).unwrap().set_len(region + length).unwrap();
    let mut table = get(&host, METADATA, PAGE_SIZE);
    for index in 0..20_u64 {
        let at = 32 + (6 + index as usize) * 32;
        table[at..at + 16].copy_from_slice(&(index as u128 + 99).to_le_bytes());
        table[at + 16..at + 20].copy_from_slice(&((2 * MIB + index * MIB) as u32).to_le_bytes());
        table[at + 20..at + 24].copy_from_slice(&(MIB as u32).to_le_bytes());
    }
    table[10..12].copy_from_slice(&26_u16.to_le_bytes());
    let items = get(&host, METADATA + (64 << 10), 64 << 10);
    put(&host, region, &table);
    put(&host, region + (64 << 10), &items);
    put_regions(&host, 16 + 32 + 16, &region.to_le_bytes());
    put_regions(&host, 16 + 32 + 24, &(length as u32).to_le_bytes());
    let image = open(&host, Access::Look).unwrap();
    let error = image.optional_items().unwrap_err();
    assert!(matches!(*error.kind, DiskErrorKind::Unsupported(_)) && error.to_string().contains("20971520"), "{error}");
}
