//! Any format to any other, and what is refused or ended leaves nothing.

use std::path::Path;

use crate::chain::{Chain, Conversion, Gate, Source, Target, convert};
use crate::disk::{self, CreateOptions, DiskErrorKind, ImageFormat, ImageType};
use crate::host_file::{Access, SharedHost};
use crate::testing::{CrashMode, EveryStep, MemHost, Random};
use crate::units::ByteCount;

const SIZE: u64 = (24 << 20) + 512;

fn image(format: ImageFormat, kind: ImageType) -> Target {
    Target::Image { format, kind, block_size: None }
}

fn open(host: &SharedHost, path: &str) -> Source {
    let path = Path::new(path);
    if path.extension().is_some_and(|extension| extension == "raw") {
        return Source::raw(host, path).unwrap();
    }
    Source::Chain(Box::new(Chain::open(host, path, Access::Look, &Gate::around(path)).unwrap()))
}

fn content(source: &Source) -> Vec<u8> {
    let mut bytes = vec![1; SIZE as usize];
    match source {
        Source::Chain(chain) => chain.read_at(&mut bytes, 0).unwrap(),
        Source::Raw(file, size) => {
            assert_eq!(size.0, SIZE);
            file.read_exact_at(&mut bytes, 0).unwrap();
        }
    }
    bytes
}

/// A base and a child of a format, with data, zeros over data, and nothing.
fn chain(host: &SharedHost, format: ImageFormat) -> String {
    let mut random = Random::new(8);
    let base = disk::create(host, Path::new("/base"), format, &CreateOptions::dynamic(ByteCount(SIZE))).unwrap();
    base.write_at(&random.bytes(3 << 20), 1 << 20).unwrap();
    base.freeze().unwrap();
    let leaf = disk::create_child(host, Path::new("/leaf"), &*base, None).unwrap();
    leaf.write_at(&random.bytes(100 << 10), SIZE - (100 << 10)).unwrap();
    leaf.write_at(&random.bytes(512), 2 << 20).unwrap();
    leaf.write_zeroes(3 << 20, 512 << 10).unwrap();
    leaf.freeze().unwrap();
    "/leaf".into()
}

#[test]
fn every_format_becomes_every_other() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let host = MemHost::new();
        let shared = host.shared();
        let mut from = chain(&shared, format);
        let expected = content(&open(&shared, &from));
        for (name, target) in [
            ("/1.vhd", image(ImageFormat::Vhd, ImageType::Dynamic)),
            ("/2.vhdx", image(ImageFormat::Vhdx, ImageType::Dynamic)),
            ("/3.raw", Target::Raw),
            ("/4.vhd", image(ImageFormat::Vhd, ImageType::Fixed)),
            ("/5.vhdx", image(ImageFormat::Vhdx, ImageType::Fixed)),
            ("/6.raw", Target::Raw),
            ("/7.vhdx", image(ImageFormat::Vhdx, ImageType::Dynamic)),
        ] {
            let mut last = Conversion::default();
            let source = open(&shared, &from);
            let done = convert(&shared, &source, Path::new(name), target, &mut |stands| {
                assert!(stands.done > last.done && stands.done <= stands.total);
                last = stands;
                true
            });
            let done = done.unwrap().expect("it wasn't ended");
            assert_eq!((done, done.done), (last, done.total));
            assert!(done.written < ByteCount::mib(4), "{name}: zeros aren't written: {}", done.written);
            drop(source);
            let source = open(&shared, name);
            assert!(content(&source) == expected, "{from} to {name}");
            if let Source::Chain(chain) = &source {
                let alone = chain.images();
                assert_eq!((alone.len(), alone[0].check().unwrap()), (1, Vec::new()));
            }
            from = name.into();
        }
        let after = host.crash(CrashMode::PowerLoss, 1).shared();
        assert!(content(&open(&after, &from)) == expected, "it is durable");
    }
}

#[test]
fn what_cannot_be_is_refused_before_it_begins_and_an_ended_one_leaves_nothing() {
    let host = MemHost::new();
    let shared = host.shared();
    let from = chain(&shared, ImageFormat::Vhdx);
    let large = CreateOptions::dynamic(ByteCount::gib(2041));
    disk::create(&shared, Path::new("/large.vhdx"), ImageFormat::Vhdx, &large).unwrap().freeze().unwrap();
    let coarse = CreateOptions { logical_sector_size: 4096, ..CreateOptions::dynamic(ByteCount::mib(8)) };
    disk::create(&shared, Path::new("/coarse.vhdx"), ImageFormat::Vhdx, &coarse).unwrap().freeze().unwrap();
    let before = host.files();
    let vhd = image(ImageFormat::Vhd, ImageType::Dynamic);
    let attempt = |from: &str, to: &str| convert(&shared, &open(&shared, from), Path::new(to), vhd, &mut |_| true);
    for (from, to, word) in [
        ("/large.vhdx", "/new.vhd", "at most 2040 GiB, and this one has 2041 GiB"),
        ("/coarse.vhdx", "/new.vhd", "sectors of 4096"),
        (&*from, "/base", "there already"),
    ] {
        let error = attempt(from, to).unwrap_err();
        assert!(matches!(&*error.kind, DiskErrorKind::Refused(reason) if reason.contains(word)), "{error}");
    }
    host.set_capacity(Some(host.used() + ByteCount::mib(1)));
    assert!(matches!(*attempt(&from, "/new.vhd").unwrap_err().kind, DiskErrorKind::Refused(_)));
    host.set_capacity(None);
    assert_eq!(host.files(), before);
    for target in [vhd, image(ImageFormat::Vhdx, ImageType::Dynamic), Target::Raw] {
        let ended = convert(&shared, &open(&shared, &from), Path::new("/new"), target, &mut |_| false).unwrap();
        assert_eq!(ended, None);
        assert_eq!(host.files(), before);
    }
}

#[test]
fn a_crash_leaves_a_whole_file_or_none() {
    for (format, seed) in [(ImageFormat::Vhd, 70), (ImageFormat::Vhdx, 71)] {
        EveryStep { name: "convert", seed, power_losses: 2, least_steps: 8, most_points: 40 }.crash(
            |host| {
                let from = chain(&host.shared(), ImageFormat::Vhdx);
                content(&open(&host.shared(), &from))
            },
            |host, _| {
                let (shared, path) = (host.shared(), Path::new("/leaf"));
                let Ok(chain) = Chain::open(&shared, path, Access::Look, &Gate::around(path)) else { return false };
                let target = image(format, ImageType::Dynamic);
                convert(&shared, &Source::Chain(Box::new(chain)), Path::new("/new"), target, &mut |_| true).is_ok()
            },
            |host, expected, done, _| {
                let shared = host.shared();
                let is_there = shared.exists(Path::new("/new"));
                assert!(is_there || !done);
                if is_there {
                    assert!(content(&open(&shared, "/new")) == *expected);
                }
                let target = image(format, ImageType::Dynamic);
                let again = convert(&shared, &open(&shared, "/leaf"), Path::new("/again"), target, &mut |_| true);
                assert!(again.unwrap().is_some() && content(&open(&shared, "/again")) == *expected);
            },
        );
    }
}
