//! Single VHDX images: what other programs wrote reads right here, and what we write reads right there.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use snaptree_core::disk::{self, CreateOptions, Image, ImageFormat, ImageType, Presence};
use snaptree_core::host_file::{Access, OsHost};
use snaptree_core::testing::Random;
use snaptree_core::units::ByteCount;
use snaptree_tests::witness::{Witness, samples, sha256_of, skip, unpack};

/// An image's own content, in order.
struct Content {
    image: Arc<dyn Image>,
    at: u64,
}

impl std::io::Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let rest = self.image.info().virtual_size.0 - self.at;
        let length = rest.min(buf.len() as u64 / 4096 * 4096) as usize;
        self.image.read_at(&mut buf[..length], self.at).map_err(std::io::Error::other)?;
        self.at += length as u64;
        Ok(length)
    }
}

fn hash(image: Arc<dyn Image>) -> Result<String> {
    sha256_of(std::io::BufReader::with_capacity(1 << 20, Content { image, at: 0 }))
}

fn open(path: &Path, access: Access) -> Result<Arc<dyn Image>> {
    Ok(disk::open(&OsHost::shared(), path, ImageFormat::Vhdx, access)?)
}

#[test]
fn samples_read_as_others_read_them() -> Result<()> {
    let Some(samples) = samples() else {
        skip("there are no samples");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    for (name, expected) in [
        ("windows10/ntfs-parent.vhdx", "c5523065bc6ef822"),
        ("windows10/ntfs-dynamic.vhdx", "b92731f8e4bf3532"),
        ("windows10/ntfs-fixed.vhdx", "5237dd895f380523"),
        ("windows-dirty-log/vhdx-log-replay.vhdx", "3ba3b309425b7ff5"),
        ("disk2vhd/test-disk2vhd.vhdx", "96d964042be9b58dda1725567abfb0cf9fd8380e2118754afa979c2ad445938a"),
    ] {
        let path = unpack(&samples, name, folder.path())?;
        let before = sha256_of(std::fs::File::open(&path)?)?;
        let image = open(&path, Access::Look)?;
        assert_eq!(image.check()?, Vec::<String>::new(), "{name}");
        assert!(hash(image)?.starts_with(expected), "{name}, only looked at");
        assert_eq!(sha256_of(std::fs::File::open(&path)?)?, before, "{name} was changed by a look");
        // A log is replayed into the file, and the content stays through a change and a close.
        let image = open(&path, Access::Write)?;
        let mut sector = vec![0; image.info().logical_sector_size as usize];
        image.read_at(&mut sector, 0)?;
        image.write_at(&sector, 0)?;
        image.freeze()?;
        drop(image);
        assert!(hash(open(&path, Access::Look)?)?.starts_with(expected), "{name}, opened for writing");
        std::fs::remove_file(&path)?;
    }
    Ok(())
}

#[test]
fn a_differencing_sample_holds_what_it_holds() -> Result<()> {
    let Some(samples) = samples() else {
        skip("there are no samples");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let parent = open(&unpack(&samples, "windows10/ntfs-parent.vhdx", folder.path())?, Access::Look)?;
    let child = open(&unpack(&samples, "windows10/ntfs-differential.vhdx", folder.path())?, Access::Look)?;
    let link = child.info().parent.expect("a parent");
    assert_eq!(link.linkage, parent.info().data_write_id);
    assert_eq!(link.linkage2, None);
    assert_eq!(link.relative_path.as_deref(), Some(r".\ntfs-parent.vhdx"));
    assert_eq!(child.info().disk_id, parent.info().disk_id);
    assert_eq!(child.check()?, Vec::<String>::new());

    let size = child.info().virtual_size.0;
    let mut disk = vec![0; size as usize];
    parent.read_at(&mut disk, 0)?;
    for extent in child.extents(0, size)? {
        let part = &mut disk[extent.offset as usize..][..extent.length as usize];
        match extent.presence {
            Presence::Data { host_offset } => child.read_host(part, host_offset)?,
            Presence::Zero => part.fill(0),
            Presence::Absent => {}
        }
    }
    assert!(sha256_of(&disk[..])?.starts_with("1ef1fb5360247aa7"));
    Ok(())
}

#[test]
fn others_read_our_single_images() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (seed, kind, block_mib, sector) in
        [(1, ImageType::Dynamic, 1, 512), (2, ImageType::Dynamic, 32, 4096), (3, ImageType::Fixed, 2, 512)]
    {
        let path = folder.path().join(format!("{seed}.vhdx"));
        let options = CreateOptions {
            kind,
            block_size: Some(ByteCount::mib(block_mib)),
            logical_sector_size: sector,
            ..CreateOptions::dynamic(ByteCount::mib(40))
        };
        let image = disk::create(&OsHost::shared(), &path, ImageFormat::Vhdx, &options)?;
        let mut random = Random::new(seed);
        for round in 0..60 {
            let offset = random.below(40 << 20 >> 12) << 12;
            let length = ((1 + random.below(64)) << 12).min((40 << 20) - offset);
            if random.chance(1, 4) {
                image.write_zeroes(offset, length)?;
            } else {
                image.write_at(&random.bytes(length as usize), offset)?;
            }
            if round % 20 == 7 {
                image.flush()?;
            }
        }
        image.grow(ByteCount::mib(44))?;
        image.freeze()?;
        let ours = hash(image)?;
        for witness in [Witness::SevenZip, Witness::QemuImg] {
            if (witness == Witness::QemuImg && sector == 4096) || !witness.is_there() {
                continue;
            }
            assert_eq!(witness.sha256(std::slice::from_ref(&path))?, ours, "{witness:?}, seed {seed}, {kind:?}");
        }
    }
    Ok(())
}
