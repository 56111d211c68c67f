//! What stands in our files, and in what order it gets there.

use std::path::Path;

use zerocopy::FromBytes;

use super::super::format::{DynamicHeader, Footer};
use crate::disk::{self, CreateOptions, DiskErrorKind, Image, ImageFormat, ImageType, ParentTarget, Presence};
use crate::host_file::{Access, SharedHost};
use crate::testing::{CrashMode, MemHost};
use crate::units::ByteCount;

const VHD: ImageFormat = ImageFormat::Vhd;

fn length(host: &SharedHost, path: &str) -> u64 {
    host.open(Path::new(path), Access::Look).unwrap().len().unwrap()
}

fn bytes(host: &SharedHost, path: &str, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    host.open(Path::new(path), Access::Look).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn put(host: &SharedHost, path: &str, offset: u64, bytes: &[u8]) {
    host.open(Path::new(path), Access::Write).unwrap().write_all_at(bytes, offset).unwrap();
}

fn footer(host: &SharedHost, path: &str) -> Footer {
    Footer::read_from_bytes(&bytes(host, path, length(host, path) - 512, 512)).unwrap()
}

fn header(host: &SharedHost, path: &str) -> DynamicHeader {
    DynamicHeader::read_from_bytes(&bytes(host, path, 512, 1024)).unwrap()
}

fn open(host: &SharedHost, path: &str, access: Access) -> disk::Result<std::sync::Arc<dyn Image>> {
    disk::open(host, Path::new(path), VHD, access)
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_child_names_its_parent_as_windows_does() {
    let host = MemHost::new().shared();
    for folder in ["/m", "/m/Virtual Hard Disks", "/m/Snapshots"] {
        host.create_dir_all(Path::new(folder)).unwrap();
    }
    let options = CreateOptions::dynamic(ByteCount::gib(1));
    let base = disk::create(&host, Path::new("/m/Virtual Hard Disks/disk.vhd"), VHD, &options).unwrap();
    let path = "/m/Snapshots/a.avhd";
    let child = disk::create_child(&host, Path::new(path), &*base, None).unwrap();
    let link = child.info().parent.unwrap();
    assert_eq!(link.relative_path.as_deref(), Some(r"..\Virtual Hard Disks\disk.vhd"));
    assert_eq!(link.absolute_path.as_deref(), Some(r"\m\Virtual Hard Disks\disk.vhd"));
    assert_eq!(link.linkage, base.info().data_write_id);
    let check = |relative: &str, absolute: &str| {
        let (footer, header) = (footer(&host, path), header(&host, path));
        assert_eq!((footer.data_offset.get(), footer.disk_type.get(), footer.features.get()), (512, 4, 2));
        assert_eq!(header.parent_time_stamp.get(), 0);
        assert_eq!(header.parent_unique_id, base.info().data_write_id.into_bytes());
        assert_eq!(bytes(&host, path, 0, 512), bytes(&host, path, length(&host, path) - 512, 512), "the copy");
        for (entry, code, text) in [(0, b"W2ku", absolute), (1, b"W2ru", relative)] {
            let entry = header.locators[entry];
            assert_eq!(&entry.platform_code, code);
            let stands = bytes(&host, path, entry.data_offset.get(), entry.data_length.get() as usize);
            assert_eq!(stands, utf16(text));
            assert!(entry.data_space.get() >= entry.data_length.get() && entry.data_space.get().is_multiple_of(512));
        }
        let name: Vec<u8> = absolute.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(header.parent_unicode_name.starts_with(&name));
    };
    check(r"..\Virtual Hard Disks\disk.vhd", r"\m\Virtual Hard Disks\disk.vhd");
    let target = ParentTarget { path: "/m/Snapshots/b.avhd".into(), data_write_id: link.linkage };
    child.set_parent(&target).unwrap();
    child.freeze().unwrap();
    // The header is where it was, and nothing is left behind.
    check(r".\b.avhd", r"\m\Snapshots\b.avhd");
    let size = length(&host, path);
    assert!(size < 16 << 10, "{size} bytes long");
}

#[test]
fn data_is_aligned_and_the_footer_is_behind_it() {
    let host = MemHost::new().shared();
    let base = disk::create(&host, Path::new("/a.vhd"), VHD, &CreateOptions::dynamic(ByteCount::mib(64))).unwrap();
    let mut at = Vec::new();
    for block in [5, 0, 30, 7] {
        base.write_at(&[1; 512], block << 21).unwrap();
        match base.extents(block << 21, 1 << 21).unwrap()[..] {
            [extent] => match extent.presence {
                Presence::Data { host_offset } => at.push(host_offset),
                other => panic!("{other:?}"),
            },
            ref other => panic!("without a parent the whole block is there: {other:?}"),
        }
    }
    assert!(at.iter().all(|offset| offset.is_multiple_of(4096)) && at.is_sorted(), "{at:?}");
    base.freeze().unwrap();
    assert_eq!(length(&host, "/a.vhd"), at[3] + (2 << 20) + 512, "the footer is right behind the last block");
    assert_eq!(footer(&host, "/a.vhd").creator_application, *b"snap");
    assert!(bytes(&host, "/a.vhd", at[0] - 512, 512).iter().all(|byte| *byte == 0xFF));
}

#[test]
fn what_is_unknown_between_bat_and_footer_survives() {
    let host = MemHost::new().shared();
    let options = CreateOptions { block_size: Some(ByteCount(512 << 10)), ..CreateOptions::dynamic(ByteCount::mib(8)) };
    drop(disk::create(&host, Path::new("/a.vhd"), VHD, &options).unwrap());
    // As blktap puts its map of full blocks: behind the BAT, the footer behind it.
    let end = length(&host, "/a.vhd") - 512;
    let footer = bytes(&host, "/a.vhd", end, 512);
    put(&host, "/a.vhd", end, &[b"tdbatmap".repeat(128), footer].concat());
    let image = open(&host, "/a.vhd", Access::Write).unwrap();
    for block in 0..16_u64 {
        image.write_at(&[block as u8 + 1; 4096], block << 19).unwrap();
    }
    let released = image.release(&[(3 << 19, 1 << 19)]).unwrap();
    image.flush().unwrap();
    image.punch(released).unwrap();
    image.write_at(&[9; 512], 3 << 19).unwrap();
    image.grow(ByteCount::gib(2)).unwrap();
    image.write_at(&[9; 512], 2000 << 20).unwrap();
    assert_eq!(image.check().unwrap(), Vec::<String>::new());
    image.freeze().unwrap();
    assert_eq!(bytes(&host, "/a.vhd", end, 1024), b"tdbatmap".repeat(128));
    let image = open(&host, "/a.vhd", Access::Look).unwrap();
    let mut sector = [0; 512];
    for block in 0..16_u64 {
        image.read_at(&mut sector, block << 19).unwrap();
        assert_eq!(sector, [if block == 3 { 9 } else { block as u8 + 1 }; 512], "block {block}");
    }
}

/// Its tables are named by the sector: nothing of ours may stand between two.
#[test]
fn a_footer_between_two_sectors_is_no_place_for_what_is_new() {
    let host = MemHost::new().shared();
    let options = CreateOptions { block_size: Some(ByteCount(4 << 10)), ..CreateOptions::dynamic(ByteCount::mib(1)) };
    let base = disk::create(&host, Path::new("/a.vhd"), VHD, &options).unwrap();
    drop(disk::create_child(&host, Path::new("/b.avhd"), &*base, options.block_size).unwrap());
    let end = length(&host, "/b.avhd") - 512;
    let footer = bytes(&host, "/b.avhd", end, 512);
    put(&host, "/b.avhd", end, &[&[0xEE; 100][..], &footer].concat());
    for round in 0..3_u8 {
        let child = open(&host, "/b.avhd", Access::Write).unwrap();
        // The table goes elsewhere, as it has no room for more.
        child.grow(ByteCount(child.info().virtual_size.0 + (8 << 20))).unwrap();
        child
            .set_parent(&ParentTarget { path: format!("/{round}.vhd").into(), data_write_id: base.info().data_write_id })
            .unwrap();
        child.write_at(&[round + 1; 512], u64::from(round) << 12).unwrap();
        child.freeze().unwrap();
        drop(child);
        let child = open(&host, "/b.avhd", Access::Look).unwrap();
        assert_eq!(child.check().unwrap(), Vec::<String>::new());
        assert_eq!(child.info().parent.unwrap().relative_path.unwrap(), format!(r".\{round}.vhd"));
        let mut sector = [0; 512];
        for written in 0..=round {
            child.read_at(&mut sector, u64::from(written) << 12).unwrap();
            assert_eq!(sector, [written + 1; 512]);
        }
    }
}

/// "Max Table Entries" is the number of blocks, also of a disk that grew or that a merge made smaller: 7-Zip refuses others.
#[test]
fn a_disk_of_another_size_has_as_many_entries_as_blocks() {
    let host = MemHost::new().shared();
    let options = CreateOptions { block_size: Some(ByteCount(64 << 10)), ..CreateOptions::dynamic(ByteCount::mib(1)) };
    let base = disk::create(&host, Path::new("/a.vhd"), VHD, &options).unwrap();
    base.freeze().unwrap();
    let child = disk::create_child(&host, Path::new("/b.avhd"), &*base, options.block_size).unwrap();
    let mut before = 1 << 20;
    for (number, size) in [(1 << 20) + 512, 3 << 20, 64 << 20, 2 << 20, 512, 8 << 20].into_iter().enumerate() {
        let other = format!("/{number}.vhd");
        let other = disk::create(&host, Path::new(&other), VHD, &CreateOptions::dynamic(ByteCount(size))).unwrap();
        child.take_identity_of(&*other).unwrap();
        child.write_at(&[number as u8 + 1; 512], size - 512).unwrap();
        let read = |image: &dyn Image| {
            let mut sector = [0; 512];
            image.read_at(&mut sector, size - 512).unwrap();
            assert_eq!(sector, [number as u8 + 1; 512]);
            assert_eq!(image.check().unwrap(), Vec::<String>::new(), "of {size} bytes");
        };
        read(&*child);
        child.flush().unwrap();
        let header = header(&host, "/b.avhd");
        assert_eq!(u64::from(header.max_table_entries.get()), size.div_ceil(64 << 10), "of {size} bytes");
        let looked_at = open(&host, "/b.avhd", Access::Look).unwrap();
        assert_eq!(looked_at.info().virtual_size.0, size);
        read(&*looked_at);
        // What is new is zeros, and this image's.
        if before + 512 < size {
            assert!(looked_at.extents(before, 512).unwrap().iter().all(|extent| extent.presence != Presence::Absent));
            let mut sector = [1; 512];
            looked_at.read_at(&mut sector, before).unwrap();
            assert_eq!(sector, [0; 512]);
        }
        before = size;
    }
}

#[test]
fn the_footer_at_the_end_decides_and_the_copy_is_the_fallback() {
    let host = MemHost::new().shared();
    let image = disk::create(&host, Path::new("/a.vhd"), VHD, &CreateOptions::dynamic(ByteCount::mib(8))).unwrap();
    image.write_at(&[7; 512], 0).unwrap();
    drop(image);
    let end = length(&host, "/a.vhd") - 512;
    let right = bytes(&host, "/a.vhd", end, 512);
    let read = |path: &str, access| -> disk::Result<u8> {
        let mut sector = [0; 512];
        open(&host, path, access)?.read_at(&mut sector, 0)?;
        Ok(sector[0])
    };
    // The copy is damaged.
    put(&host, "/a.vhd", 100, &[1]);
    assert_eq!(open(&host, "/a.vhd", Access::Look).unwrap().check().unwrap().len(), 1);
    assert_eq!(read("/a.vhd", Access::Write).unwrap(), 7);
    assert_eq!(bytes(&host, "/a.vhd", 0, 512), right, "a writable opening has put it right");
    // The footer is damaged.
    put(&host, "/a.vhd", end, &[0; 512]);
    assert_eq!(read("/a.vhd", Access::Look).unwrap(), 7);
    assert_eq!(bytes(&host, "/a.vhd", end, 512), [0; 512], "a look changes nothing");
    assert_eq!(open(&host, "/a.vhd", Access::Look).unwrap().check().unwrap().len(), 1);
    assert_eq!(disk::probe(&host, Path::new("/a.vhd")).unwrap(), VHD);
    assert_eq!(read("/a.vhd", Access::Write).unwrap(), 7);
    let end = length(&host, "/a.vhd") - 512;
    assert_eq!(bytes(&host, "/a.vhd", end, 512), right);
    // Old programs' footers have 511 bytes.
    host.open(Path::new("/a.vhd"), Access::Write).unwrap().set_len(end + 511).unwrap();
    assert_eq!(read("/a.vhd", Access::Look).unwrap(), 7);
    let image = open(&host, "/a.vhd", Access::Write).unwrap();
    image.write_at(&[8; 512], 0).unwrap();
    image.freeze().unwrap();
    assert_eq!(length(&host, "/a.vhd"), end + 512);
    assert_eq!(image.check().unwrap(), Vec::<String>::new());
    drop(image);
    // Both are.
    put(&host, "/a.vhd", 100, &[1]);
    put(&host, "/a.vhd", end + 100, &[1]);
    assert!(matches!(*open(&host, "/a.vhd", Access::Look).unwrap_err().kind, DiskErrorKind::Invalid { field: "Cookie", .. }));
}

#[test]
fn a_raw_disk_is_not_taken_for_what_its_guest_wrote_at_its_head() {
    let host = MemHost::new().shared();
    drop(disk::create(&host, Path::new("/a.vhd"), VHD, &CreateOptions::dynamic(ByteCount::mib(8))).unwrap());
    let whole = bytes(&host, "/a.vhd", 0, length(&host, "/a.vhd") as usize);
    let raw = host.create_new(Path::new("/disk.raw")).unwrap();
    raw.write_all_at(&[&whole[..whole.len() - 512], &[0; 512]].concat(), 0).unwrap();
    drop(raw);
    assert!(disk::probe(&host, Path::new("/disk.raw")).is_err());
    assert_eq!(disk::probe(&host, Path::new("/a.vhd")).unwrap(), VHD);
}

#[test]
fn what_the_format_cannot_hold_is_refused_and_leaves_nothing() {
    let host = MemHost::new();
    let size = |size| CreateOptions::dynamic(ByteCount(size));
    for (wrong, word) in [
        (size((2040 << 30) + 512), "2040 GiB"),
        (size(0), "2040 GiB"),
        (size(1000), "512"),
        (CreateOptions { logical_sector_size: 4096, ..size(1 << 20) }, "512"),
        (CreateOptions { block_size: Some(ByteCount(3 << 20)), ..size(1 << 20) }, "power of two"),
    ] {
        let error = disk::create(&host.shared(), Path::new("/a.vhd"), VHD, &wrong).unwrap_err();
        assert!(matches!(&*error.kind, DiskErrorKind::Refused(reason) if reason.contains(word)), "{error}");
    }
    assert_eq!(host.files(), Vec::<std::path::PathBuf>::new());
    let image = disk::create(&host.shared(), Path::new("/a.vhd"), VHD, &size(2040 << 30)).unwrap();
    image.write_at(&[1; 512], (2040 << 30) - 512).unwrap();
    assert!(image.grow(ByteCount((2040 << 30) + 512)).is_err());
}

#[test]
fn a_fixed_disk_grows_with_its_footer_or_not() {
    let fixed = CreateOptions { kind: ImageType::Fixed, ..CreateOptions::dynamic(ByteCount::mib(1)) };
    for (new, salt) in [((1 << 20) + 512, 1), ((1 << 20) + (5 << 10), 2), (3 << 20, 3)] {
        crate::testing::for_each_crash_point(
            salt,
            |host| {
                let image = disk::create(&host.shared(), Path::new("/a.vhd"), VHD, &fixed).unwrap();
                image.write_at(&vec![5; 1 << 20], 0).unwrap();
                image.freeze().unwrap();
            },
            |host, ()| {
                let image = open(&host.shared(), "/a.vhd", Access::Write)?;
                image.grow(ByteCount(new))?;
                std::mem::forget(image);
                disk::Result::<()>::Ok(())
            },
            |host, (), done, point| {
                for access in [Access::Look, Access::Write, Access::Look] {
                    let image = open(&host.shared(), "/a.vhd", access).unwrap();
                    let size = image.info().virtual_size.0;
                    assert!(size == new || (size == 1 << 20 && done.is_err()), "{point:?}");
                    let mut content = vec![9; size as usize];
                    image.read_at(&mut content, 0).unwrap();
                    let (old, grown) = content.split_at(1 << 20);
                    assert!(old.iter().all(|byte| *byte == 5), "{point:?}");
                    assert!(grown.iter().all(|byte| *byte == 0), "{access:?} {point:?}");
                }
                let shared = host.shared();
                assert_eq!(footer(&shared, "/a.vhd").note.signature, [0; 8], "{point:?}");
            },
        );
    }
    // And shrinks; closed each time, the footer is where the disk ends.
    let host = MemHost::new().shared();
    let image = disk::create(&host, Path::new("/a.vhd"), VHD, &fixed).unwrap();
    image.write_at(&vec![5; 1 << 20], 0).unwrap();
    drop(image);
    for size in [3 << 20, (3 << 20) + 512, 2 << 20, 512 << 10, 1 << 20] {
        let other = disk::create(&host, Path::new("/b.vhd"), VHD, &CreateOptions::dynamic(ByteCount(size))).unwrap();
        let image = open(&host, "/a.vhd", Access::Write).unwrap();
        image.take_identity_of(&*other).unwrap();
        drop((image, other));
        host.remove_file(Path::new("/b.vhd")).unwrap();
        let image = open(&host, "/a.vhd", Access::Look).unwrap();
        assert_eq!((image.info().virtual_size.0, length(&host, "/a.vhd")), (size, size + 512));
        assert_eq!(image.check().unwrap(), Vec::<String>::new());
        let mut content = vec![9; size as usize];
        image.read_at(&mut content, 0).unwrap();
        let (old, grown) = content.split_at(512 << 10);
        assert!(old.iter().all(|byte| *byte == 5) && grown.iter().skip(512 << 10).all(|byte| *byte == 0), "{size}");
    }
}

#[test]
fn a_changed_identifier_is_remembered_until_it_is_forgotten() {
    let host = MemHost::new();
    let shared = host.shared();
    let base = disk::create(&shared, Path::new("/a.vhd"), VHD, &CreateOptions::dynamic(ByteCount::mib(8))).unwrap();
    let child = disk::create_child(&shared, Path::new("/b.avhd"), &*base, None).unwrap();
    let (old, new) = (base.info().data_write_id, uuid::Uuid::from_u128(7));
    let link = || child.info().parent.unwrap();
    base.set_data_write_id(new).unwrap();
    assert!(link().accepts(&base.info()));
    // A later change of content isn't told: that is what identifiers are for.
    base.write_at(&[1; 512], 0).unwrap();
    assert_eq!((base.info().data_write_id, base.info().former_id), (new, Some(old)));
    std::mem::forget(base);
    let after = host.crash(CrashMode::Kill, 1).shared();
    let base = open(&after, "/a.vhd", Access::Write).unwrap();
    assert!(link().accepts(&base.info()));
    base.forget_former_id().unwrap();
    assert!(!link().accepts(&base.info()));
    drop(base);
    let base = open(&after, "/a.vhd", Access::Write).unwrap();
    assert!(!link().accepts(&base.info()));
    base.set_data_write_id(old).unwrap();
    assert!(link().accepts(&base.info()));
    drop(base);
    open(&after, "/a.vhd", Access::Write).unwrap().write_at(&[2; 512], 0).unwrap();
    assert!(!link().accepts(&open(&after, "/a.vhd", Access::Look).unwrap().info()), "changed under its child");
}

/// Where a block's bitmap comes to stand where the footer stood, the table may not name it before it is there. Each point
/// is crossed with many draws of what a loss of power keeps.
#[test]
fn an_old_footer_is_never_taken_for_a_bitmap() {
    (0..64).for_each(allocation_in_order);
}

fn allocation_in_order(draw: u64) {
    let options = CreateOptions { block_size: Some(ByteCount(4 << 10)), ..CreateOptions::dynamic(ByteCount::mib(1)) };
    crate::testing::for_each_crash_point(
        draw,
        |host| {
            let shared = host.shared();
            let base = disk::create(&shared, Path::new("/a.vhd"), VHD, &options).unwrap();
            base.freeze().unwrap();
            disk::create_child(&shared, Path::new("/b.avhd"), &*base, options.block_size).unwrap();
            assert_eq!((length(&shared, "/b.avhd") - 512) % 4096, 3584, "the first block's place is the footer's");
        },
        |host, ()| {
            let image = open(&host.shared(), "/b.avhd", Access::Write)?;
            image.write_at(&[5; 512], 0)?;
            image.flush()?;
            std::mem::forget(image);
            disk::Result::<()>::Ok(())
        },
        |host, (), done, point| {
            for access in [Access::Look, Access::Write] {
                let image = open(&host.shared(), "/b.avhd", access).unwrap();
                let held = image.extents(0, 1 << 20).unwrap();
                let held: Vec<_> = held.iter().filter(|extent| extent.presence != Presence::Absent).collect();
                let written = held.len() == 1 && (held[0].offset, held[0].length) == (0, 512);
                assert!(written || (held.is_empty() && done.is_err()), "{held:?}, {point:?}");
            }
        },
    );
}

/// Of a block that has its place, a sector's bit is there only with its data: else it would hide the parent's.
#[test]
fn a_sector_that_is_added_is_there_with_its_data() {
    (0..64).for_each(|draw| {
        crate::testing::for_each_crash_point(
            draw,
            |host| {
                let shared = host.shared();
                let options = CreateOptions::dynamic(ByteCount::mib(4));
                let base = disk::create(&shared, Path::new("/a.vhd"), VHD, &options).unwrap();
                base.freeze().unwrap();
                let child = disk::create_child(&shared, Path::new("/b.avhd"), &*base, options.block_size).unwrap();
                child.write_at(&[5; 512], 0).unwrap();
                child.freeze().unwrap();
            },
            |host, ()| {
                let image = open(&host.shared(), "/b.avhd", Access::Write)?;
                image.write_at(&[6; 512], 1 << 20)?;
                image.flush()?;
                std::mem::forget(image);
                disk::Result::<()>::Ok(())
            },
            |host, (), done, point| {
                for access in [Access::Look, Access::Write] {
                    let image = open(&host.shared(), "/b.avhd", access).unwrap();
                    let held = image.extents(0, 4 << 20).unwrap();
                    let held: Vec<_> = held.iter().filter(|extent| extent.presence != Presence::Absent).collect();
                    assert!(held.len() == 2 || (held.len() == 1 && done.is_err()), "{held:?}, {point:?}");
                    let mut sector = [0; 512];
                    for (extent, byte) in held.iter().zip([5, 6]) {
                        assert_eq!((extent.offset, extent.length), (u64::from(byte == 6) << 20, 512), "{point:?}");
                        image.read_at(&mut sector, extent.offset).unwrap();
                        assert_eq!(sector, [byte; 512], "{point:?}");
                    }
                }
            },
        );
    });
}
