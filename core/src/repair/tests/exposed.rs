//! What an image reads from a parent that has changed.

use std::collections::BTreeSet;

use super::*;
use crate::disk::{Image, Presence};

const SECTOR: u64 = 512;
const DISK: ByteCount = ByteCount::mib(8);

/// A base of blocks of 1 MiB and its child, with what is written to each; both closed.
fn pair(host: &MemHost, format: ImageFormat, base: &[(u64, u64)], child: &[(u64, u64)]) -> [String; 2] {
    let names = [format!("base.{}", format.extension()), format!("child.{}", format.child_extension())];
    let shared = host.shared();
    host.create_dir_all(Path::new("/vms")).unwrap();
    let block = Some(ByteCount::mib(1));
    let below =
        disk::create(&shared, &path(&names[0]), format, &CreateOptions { block_size: block, ..CreateOptions::dynamic(DISK) });
    let below = below.unwrap();
    write(&*below, base, 1);
    below.freeze().unwrap();
    let above = disk::create_child(&shared, &path(&names[1]), &*below, block).unwrap();
    write(&*above, child, 2);
    above.freeze().unwrap();
    names
}

fn write(image: &dyn Image, ranges: &[(u64, u64)], byte: u8) {
    for (offset, length) in ranges {
        image.write_at(&vec![byte; *length as usize], *offset).unwrap();
    }
}

fn change_base(host: &MemHost, names: &[String; 2], ranges: &[(u64, u64)]) {
    let base = open(&host.shared(), &names[0], Access::Write);
    write(&*base, ranges, 3);
    base.freeze().unwrap();
}

fn exposed(plan: &Plan) -> &Exposed {
    let [Step { change: Change::Relink { may_differ, .. }, .. }] = &plan.steps[..] else { panic!("{plan:?}") };
    may_differ
}

#[test]
fn what_is_read_from_a_changed_parent_is_listed() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let host = MemHost::new();
        let mib = 1 << 20;
        // A block of the base that the child has in a part, one that it lacks; one that only the child has.
        let names = pair(&host, format, &[(0, mib), (3 * mib, mib)], &[(4096, 8192), (2 * mib, mib)]);
        change_base(&host, &names, &[(3 * mib + 512, 512)]);
        let choices = parent(&names[1], &names[0]);
        let plan = planned(&host, &choices);
        let range = |offset: u64, end: u64| Range { offset, length: end - offset };
        let expected = Exposed {
            bytes: ByteCount(2 * mib - 8192),
            blocks: 2,
            ranges: vec![range(0, 4096), range(12288, mib), range(3 * mib, 4 * mib)],
            more: 0,
        };
        assert_eq!(exposed(&plan), &expected);
        assert!(plan.steps[0].warnings[0].contains("2.0 MiB in 2 blocks may differ"), "{plan:?}");
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}

#[test]
fn nothing_differs_where_the_image_holds_all_of_it() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let host = MemHost::new();
        let mib = 1 << 20;
        let names = pair(&host, format, &[(mib, mib)], &[(mib, mib)]);
        let expected = shown(&host, &names[1]);
        change_base(&host, &names, &[(mib + 4096, 4096)]);
        let choices = parent(&names[1], &names[0]);
        let plan = planned(&host, &choices);
        assert_eq!(exposed(&plan), &Exposed::default());
        assert!(plan.steps[0].words.ends_with("so nothing differs"), "{plan:?}");
        repaired_and_undone(&host, &choices, &names[1], &expected);
    }
}

/// Whatever the parent's change was: what the image shows differs only where it was said.
#[test]
fn nothing_else_differs() {
    for format in [ImageFormat::Vhdx, ImageFormat::Vhd] {
        let mut differ = 0;
        for seed in 0..12 {
            let mut random = Random::new(seed);
            let mut some = |most: u64| -> Vec<(u64, u64)> {
                let mut range = || {
                    let (first, length) = (random.below(DISK.0 / SECTOR), 1 + random.below(2000));
                    (first * SECTOR, length.min(DISK.0 / SECTOR - first) * SECTOR)
                };
                (0..most).map(|_| range()).collect()
            };
            let host = MemHost::new();
            let names = pair(&host, format, &some(4), &some(4));
            let before = shown(&host, &names[1]);
            change_base(&host, &names, &some(3));
            let choices = parent(&names[1], &names[0]);
            let plan = planned(&host, &choices);
            let said = exposed(&plan);
            let sectors = |range: &Range| range.offset / SECTOR..(range.offset + range.length) / SECTOR;
            let listed: BTreeSet<u64> = said.ranges.iter().flat_map(sectors).collect();
            let blocks: BTreeSet<u64> = listed.iter().map(|sector| (sector * SECTOR) >> 20).collect();
            assert_eq!((said.bytes.0, said.blocks, said.more), (listed.len() as u64 * SECTOR, blocks.len() as u64, 0));
            execute(&host.shared(), &plan, &choices).unwrap();
            let after = shown(&host, &names[1]);
            let [base, child] = [0, 1].map(|at: usize| open(&host.shared(), &names[at], Access::Look));
            let is_absent =
                |image: &dyn Image, sector: u64| image.extents(sector * SECTOR, SECTOR).unwrap()[0].presence == Presence::Absent;
            for sector in 0..DISK.0 / SECTOR {
                let place = (sector * SECTOR) as usize..((sector + 1) * SECTOR) as usize;
                let reads = is_absent(&*child, sector) && !is_absent(&*base, sector);
                assert_eq!(listed.contains(&sector), reads, "{format:?}, {seed}, sector {sector}");
                if before[place.clone()] != after[place] {
                    assert!(reads, "{format:?}, {seed}: sector {sector} differs");
                    differ += 1;
                }
            }
        }
        assert!(differ > 0, "some change was seen");
    }
}
