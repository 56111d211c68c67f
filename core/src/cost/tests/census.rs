//! The census against a model that looks at every sector.

use std::time::Instant;

use crate::cost::*;
use crate::disk::{Extent, Presence};
use crate::snapshot::ImageId;
use crate::testing::Random;
use crate::units::{ByteCount, ByteRate};

const SECTOR: u64 = 512;

/// A tree of images, sector by sector.
struct Model {
    ids: Vec<ImageId>,
    parents: Vec<Option<usize>>,
    /// Per image and sector; its length is the image's size.
    sectors: Vec<Vec<Option<HeldAs>>>,
}

impl Model {
    fn random(rng: &mut Random) -> Self {
        let count = 1 + rng.below(9) as usize;
        let mut model = Self { ids: Vec::new(), parents: Vec::new(), sectors: Vec::new() };
        for i in 0..count {
            let parent = if i == 0 || rng.below(12) == 0 { None } else { Some(rng.below(i as u64) as usize) };
            let size = if rng.below(4) == 0 { 40 + rng.below(30) } else { 64 };
            let share = 1 + rng.below(6);
            let mut kind = None;
            let sectors = (0..size)
                .map(|_| {
                    if rng.below(3) == 0 {
                        kind = match rng.below(8) {
                            0 => Some(HeldAs::Zero),
                            n if n < share => Some(HeldAs::Data),
                            _ => None,
                        };
                    }
                    kind
                })
                .collect();
            model.ids.push(ImageId::new());
            model.parents.push(parent);
            model.sectors.push(sectors);
        }
        model
    }

    fn at(&self, image: usize, sector: usize) -> Option<HeldAs> {
        self.sectors[image].get(sector).copied().unwrap_or(Some(HeldAs::Beyond))
    }

    fn layout(&self, image: usize) -> Layout {
        layout(&self.sectors[image])
    }

    fn path(&self, leaf: usize) -> Vec<usize> {
        let mut path = vec![leaf];
        while let Some(parent) = self.parents[path[path.len() - 1]] {
            path.push(parent);
        }
        path.reverse();
        path
    }

    fn ids(&self, path: &[usize]) -> Vec<ImageId> {
        path.iter().map(|i| self.ids[*i]).collect()
    }

    fn census(&self, rng: &mut Random) -> Census {
        let layouts: Vec<_> = (0..self.ids.len()).map(|i| self.layout(i)).collect();
        let mut images: Vec<_> = (0..self.ids.len())
            .map(|i| CensusImage { id: self.ids[i], parent: self.parents[i].map(|p| self.ids[p]), layout: &layouts[i] })
            .collect();
        for i in (1..images.len()).rev() {
            images.swap(i, rng.below(i as u64 + 1) as usize);
        }
        census_of(&images)
    }

    /// The newest owner of a sector on a path, as a place of the path.
    fn owner(&self, path: &[usize], sector: usize) -> Option<(usize, HeldAs)> {
        path.iter().enumerate().rev().find_map(|(place, image)| Some((place, self.at(*image, sector)?)))
    }
}

fn layout(sectors: &[Option<HeldAs>]) -> Layout {
    let extents = sectors.iter().enumerate().map(|(i, held_as)| Extent {
        offset: i as u64 * SECTOR,
        length: SECTOR,
        presence: match held_as {
            Some(HeldAs::Data) => Presence::Data { host_offset: 0 },
            Some(_) => Presence::Zero,
            None => Presence::Absent,
        },
    });
    Layout::new(sectors.len() as u64 * SECTOR, extents)
}

#[test]
fn merge_bytes_equal_a_count_of_every_sector() {
    for seed in 0..300 {
        let mut rng = Random::new(seed);
        let model = Model::random(&mut rng);
        let census = model.census(&mut rng);
        for leaf in 0..model.ids.len() {
            let path = model.path(leaf);
            for from in 0..path.len() {
                let run = &path[from..];
                let end = model.sectors[leaf].len();
                for target in 0..run.len() {
                    let mut expected = MergeBytes::default();
                    for sector in 0..end {
                        match model.owner(run, sector) {
                            Some((place, HeldAs::Data)) => {
                                expected.union.0 += SECTOR;
                                expected.data.0 += if place == target { 0 } else { SECTOR };
                            }
                            Some((place, _)) if place != target => expected.zero.0 += SECTOR,
                            _ => {}
                        }
                    }
                    let held: usize = run.iter().map(|i| data_sectors(&model.sectors[*i])).sum();
                    let in_target = ByteCount(data_sectors(&model.sectors[run[target]]) as u64 * SECTOR);
                    expected.shadowed = ByteCount(held as u64 * SECTOR) - expected.union;
                    expected.growth = expected.union.saturating_sub(in_target);
                    let counted = census.merge_bytes(&model.ids(run), model.ids[run[target]]).expect("a known run");
                    expected.stretches = counted.stretches;
                    assert_eq!(counted, expected, "seed {seed}, run {run:?}, target {target}");
                    assert_eq!(counted.stretches == 0, counted.data.0 == 0, "seed {seed}");
                    assert!(counted.stretches <= counted.data.0 / SECTOR, "seed {seed}");
                }
            }
        }
    }
}

fn data_sectors(sectors: &[Option<HeldAs>]) -> usize {
    sectors.iter().filter(|s| **s == Some(HeldAs::Data)).count()
}

#[test]
fn read_cost_equals_a_count_of_every_sector() {
    for seed in 0..300 {
        let mut rng = Random::new(seed);
        let model = Model::random(&mut rng);
        let census = model.census(&mut rng);
        for leaf in 0..model.ids.len() {
            let path = model.path(leaf);
            // A run somewhere on the path counts as one image.
            let from = rng.below(path.len() as u64) as usize;
            let to = from + rng.below((path.len() - from) as u64) as usize;
            let merged = vec![model.ids(&path[from..=to])];
            let images_at = |place: usize| {
                let above = path.len() - place;
                let joined = (from..to).filter(|i| *i >= place).count();
                (above - joined) as u32
            };
            let mut asked: Vec<u32> = (0..model.sectors[leaf].len())
                .filter_map(|sector| model.owner(&path, sector).filter(|(_, kind)| *kind == HeldAs::Data))
                .map(|(place, _)| images_at(place))
                .collect();
            asked.sort_unstable();
            let cost = census.read_cost_after(model.ids[leaf], &merged).expect("a known leaf");
            assert_eq!(cost.depth, images_at(0), "seed {seed}");
            assert_eq!(cost.allocated.0, asked.len() as u64 * SECTOR, "seed {seed}");
            if let Some(last) = asked.len().checked_sub(1) {
                let mean = asked.iter().sum::<u32>() as f64 / asked.len() as f64;
                assert!((cost.mean - mean).abs() < 1e-9, "seed {seed}: {} is not {mean}", cost.mean);
                let below = asked.iter().filter(|n| **n <= cost.p95).count();
                let without = asked.iter().filter(|n| **n < cost.p95).count();
                assert!(below * 20 >= asked.len() * 19 && (without * 20 < asked.len() * 19), "seed {seed}, of {last}");
            } else {
                assert_eq!((cost.mean, cost.p95), (f64::from(cost.depth), cost.depth), "seed {seed}");
            }
        }
    }
}

#[test]
fn first_write_is_what_the_leaf_does_not_hold() {
    let (base, leaf) = (ImageId::new(), ImageId::new());
    let full = layout(&[Some(HeldAs::Data); 8]);
    let some = layout(&[None, Some(HeldAs::Data), Some(HeldAs::Zero), None, None, None, None, Some(HeldAs::Data)]);
    let census = census_of(&[
        CensusImage { id: leaf, parent: Some(base), layout: &some },
        CensusImage { id: base, parent: None, layout: &full },
    ]);
    assert_eq!(census.chain(leaf), Some(vec![base, leaf]));
    let cost = census.read_cost(leaf).expect("known");
    assert_eq!(cost.first_write, 0.75);
    assert_eq!(cost.allocated.0, 7 * SECTOR);
    assert_eq!(census.read_cost(base).expect("known").first_write, 0.0);
    assert_eq!(census.read_cost_after(leaf, &[vec![base, leaf]]).expect("known").first_write, 0.125);
    assert_eq!(census.read_cost(ImageId::new()), None);
    assert_eq!(census.merge_bytes(&[leaf, base], base), None);
}

#[test]
fn links_that_go_in_circles_are_cut() {
    let (a, b) = (ImageId::new(), ImageId::new());
    let full = layout(&[Some(HeldAs::Data); 4]);
    let census = census_of(&[
        CensusImage { id: a, parent: Some(b), layout: &full },
        CensusImage { id: b, parent: Some(a), layout: &full },
    ]);
    assert_eq!(census.images.len(), 2);
    assert_eq!(census.parents.iter().flatten().count(), 1);
}

/// Twelve layers of 5 % each over a full disk: the figures that the usual orders are known for.
#[test]
fn other_orders_move_more() {
    let mut rng = Random::new(12);
    let blocks = 20_000;
    let mut ids = vec![ImageId::new()];
    let mut layouts = vec![layout(&vec![Some(HeldAs::Data); blocks])];
    for _ in 0..12 {
        ids.push(ImageId::new());
        let sectors: Vec<_> = (0..blocks).map(|_| (rng.below(20) == 0).then_some(HeldAs::Data)).collect();
        layouts.push(layout(&sectors));
    }
    let images: Vec<_> = (0..ids.len())
        .map(|i| CensusImage { id: ids[i], parent: i.checked_sub(1).map(|p| ids[p]), layout: &layouts[i] })
        .collect();
    let census = census_of(&images);
    let orders = merge_orders(&census, &ids).expect("a chain").scaled_to(ByteCount(1_000_000_000_000));
    let near = |bytes: ByteCount, terabytes: f64| (bytes.0 as f64 / 1e12 / terabytes - 1.0).abs() < 0.02;
    // 5 % x 12; 1 - 0.95^12; and the sum of the last over 12 .. 1 layers.
    assert!(near(orders.oldest_first, 0.6), "{orders:?}");
    assert!(near(orders.one_pass, 1.0 - 0.95f64.powi(12)), "{orders:?}");
    assert!(near(orders.newest_first, (1..=12).map(|n| 1.0 - 0.95f64.powi(n)).sum()), "{orders:?}");
    let [newest, oldest, one] = orders.seconds_at(ByteRate(20e6));
    assert!(newest > oldest && oldest > one && (one / 22_982.0 - 1.0).abs() < 0.02, "{one}");
}

/// A million extents in 64 images are counted in bounded time, and the result stays small.
#[test]
fn a_million_extents() {
    let mut rng = Random::new(5);
    let ids: Vec<_> = (0..64).map(|_| ImageId::new()).collect();
    let layouts: Vec<_> = ids
        .iter()
        .map(|_| {
            let extents = (0..15_625u64).map(|i| Extent {
                offset: i << 21,
                length: 1 << 21,
                presence: if rng.below(2) == 0 { Presence::Absent } else { Presence::Data { host_offset: 0 } },
            });
            Layout::new(15_625 << 21, extents)
        })
        .collect();
    let images: Vec<_> = (0..64)
        .map(|i: usize| CensusImage { id: ids[i], parent: i.checked_sub(1).map(|p| ids[p]), layout: &layouts[i] })
        .collect();
    let began = Instant::now();
    let census = census_of(&images);
    println!("counted in {:?}", began.elapsed());
    assert!(census.covers.len() <= 64 * 63 / 2);
    assert!(census.held.len() <= 64);
    let json = serde_json::to_vec(&census).expect("serializable");
    assert!(json.len() < 256 << 10, "{} bytes", json.len());
    assert_eq!(serde_json::from_slice::<Census>(&json).expect("the same back"), census);
    assert_eq!(census.read_cost(ids[63]).expect("known").depth, 64);
}

#[test]
fn stretches_are_about_right() {
    let (base, leaf) = (ImageId::new(), ImageId::new());
    for seed in 0..20 {
        let mut rng = Random::new(seed);
        // Scattered blocks, and a few long runs: both halves of the approximation.
        let unit = if seed % 2 == 0 { 1 } else { 200 };
        let mut sectors = |share: u64| -> Vec<Option<HeldAs>> {
            (0..20_000 / unit).flat_map(|_| vec![(rng.below(100) < share).then_some(HeldAs::Data); unit]).collect()
        };
        let (lower, upper) = (sectors(20), sectors(15));
        let layouts = [layout(&lower), layout(&upper)];
        let census = census_of(&[
            CensusImage { id: base, parent: None, layout: &layouts[0] },
            CensusImage { id: leaf, parent: Some(base), layout: &layouts[1] },
        ]);
        let owned: Vec<bool> = lower.iter().zip(&upper).map(|(l, u)| l.is_some() && u.is_none()).collect();
        let exact = owned.iter().enumerate().filter(|(i, o)| **o && (*i == 0 || !owned[i - 1])).count() as f64;
        let counted = census.merge_bytes(&[base, leaf], leaf).expect("a run").stretches as f64;
        assert!((counted / exact - 1.0).abs() < 0.3, "seed {seed}: {counted} for {exact}");
    }
}
