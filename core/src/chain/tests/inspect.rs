//! What is said of images, against what was put into them.

use std::path::Path;

use crate::chain::{Blocks, Gate, inspect};
use crate::disk::{self, CreateOptions, ImageFormat, ImageType};
use crate::host_file::SharedHost;
use crate::testing::MemHost;
use crate::units::ByteCount;

const SIZE: u64 = (96 << 20) + (1 << 19);

/// A base with its first four blocks, a child with parts of two, one of zeros where the format can say that, and one whole.
fn chain(host: &SharedHost, format: ImageFormat) {
    let options = CreateOptions { block_size: Some(ByteCount::mib(2)), ..CreateOptions::dynamic(ByteCount(SIZE)) };
    let base = disk::create(host, Path::new("/base"), format, &options).unwrap();
    base.write_at(&vec![1; 8 << 20], 0).unwrap();
    base.freeze().unwrap();
    let child = disk::create_child(host, Path::new("/child"), &*base, options.block_size).unwrap();
    child.write_at(&[2; 512], 2 << 20).unwrap();
    child.write_at(&[2; 512], SIZE - 512).unwrap();
    child.write_at(&vec![2; 2 << 20], 40 << 20).unwrap();
    child.write_zeroes(4 << 20, 2 << 20).unwrap();
    child.freeze().unwrap();
}

#[test]
fn blocks_map_and_parts_are_those_of_the_files() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let host = MemHost::new().shared();
        chain(&host, format);
        let gate = Gate::around(Path::new("/child"));
        let seen = inspect(&host, Path::new("/child"), &gate).unwrap();
        assert_eq!(seen.broken, None);
        let [base, child] = &seen.images[..] else { panic!("two images") };
        assert_eq!((base.path.as_path(), child.path.as_path()), (Path::new("/base"), Path::new("/child")));
        assert_eq!(base.blocks, Blocks { data: 4, partial: 0, zero: 0, absent: 45 });
        let zero = u64::from(format == ImageFormat::Vhdx);
        assert_eq!(child.blocks, Blocks { data: 2 - zero, partial: 2, zero, absent: 45 });
        assert_eq!((&base.problems, child.info.kind), (&Vec::new(), ImageType::Differencing));
        assert!(base.held >= ByteCount::mib(8) && base.length > ByteCount::mib(8), "{} of {}", base.held, base.length);
        for image in &seen.images {
            let told: Vec<&str> = image.parts.iter().flat_map(|part| &part.says).map(|(_, value)| &**value).collect();
            let id = image.info.data_write_id.to_string();
            assert!(told.contains(&&*id), "{id} is among {told:?}");
            let places: Vec<u64> = image.parts.iter().map(|part| part.offset).collect();
            assert!(
                places.len() >= 4 && image.parts.iter().all(|part| part.offset + part.length <= image.length.0),
                "{places:?}"
            );
        }
        let parents = child.parts.iter().flat_map(|part| &part.says).filter(|(_, value)| value.ends_with(r"\base")).count();
        assert!(parents >= 2, "{:?}", child.parts);
        // Squares of so many bytes, each with its owner.
        let square = seen.map.square.0;
        assert_eq!(seen.map.squares.len() as u64, SIZE.div_ceil(square));
        let at = |offset: u64| seen.map.squares[(offset / square) as usize];
        assert_eq!((at(0).owner, at(0).data), (Some(0), 255));
        assert_eq!((at(2 << 20).owner, at(2 << 20).data), (Some(0), 255), "the child holds one sector of it");
        assert_eq!((at(41 << 20).owner, at(41 << 20).data), (Some(1), 255));
        assert_eq!((at(20 << 20).owner, at(20 << 20).data), (None, 0));
        assert_eq!((at(5 << 20).owner, at(5 << 20).data > 0), (Some(1), format == ImageFormat::Vhd));
        assert_eq!((at(SIZE - 1).owner, at(SIZE - 1).data > 0), (Some(1), true));
        // Without its parent: what is left.
        host.remove_file(Path::new("/base")).unwrap();
        let seen = inspect(&host, Path::new("/child"), &gate).unwrap();
        assert!(seen.images.len() == 1 && seen.broken.is_some());
        let at = |offset: u64| seen.map.squares[(offset / square) as usize];
        assert_eq!((at(0).owner, at(41 << 20).owner), (None, Some(0)));
    }
}

#[test]
fn a_damaged_part_is_told() {
    let host = MemHost::new().shared();
    chain(&host, ImageFormat::Vhd);
    host.open(Path::new("/base"), crate::host_file::Access::Write).unwrap().write_all_at(&[1], 70).unwrap();
    let seen = inspect(&host, Path::new("/child"), &Gate::around(Path::new("/child"))).unwrap();
    assert_eq!(seen.images[0].parts[0].says[0].0, "Damaged");
    assert_eq!(seen.images[0].problems.len(), 1);
}
