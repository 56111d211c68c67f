//! What a chain costs to read and to write.

use serde::{Deserialize, Serialize};

use super::Census;
use crate::snapshot::ImageId;
use crate::units::ByteCount;

/// What one chain costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReadCost {
    /// Images in the chain.
    pub depth: u32,
    /// Images that a plain stack consults per read, from the leaf down to the owner: mean over
    /// the bytes that some image holds as data. With no data at all it is the depth.
    pub mean: f64,
    /// The same, 95th percentile.
    pub p95: u32,
    /// Bytes of the disk that some image of the chain holds as data, visible from the leaf.
    pub allocated: ByteCount,
    /// Share of the disk (0 to 1) whose first write must allocate in the leaf: what the leaf doesn't hold as data
    /// (by sectors; blocks that are there in part count in part).
    pub first_write: f64,
}

impl Census {
    /// What the chain behind `leaf` costs. `None` if the census doesn't know it.
    pub fn read_cost(&self, leaf: ImageId) -> Option<ReadCost> {
        self.read_cost_after(leaf, &[])
    }

    /// The same once these runs (each bottom to top) are one image each.
    pub fn read_cost_after(&self, leaf: ImageId, merged: &[Vec<ImageId>]) -> Option<ReadCost> {
        let path = self.path_to(leaf)?;
        let size = self.sizes[*path.last()? as usize];
        let owned = self.owned(&path);
        // From the leaf down: how many images have been asked when this one answers.
        let mut asked = 0;
        let mut above = None;
        let mut by_images: Vec<u64> = Vec::new();
        for (index, o) in path.iter().zip(&owned).rev() {
            let image = self.images[*index as usize];
            let run = merged.iter().position(|run| run.contains(&image));
            if run.is_none() || run != above {
                asked += 1;
                by_images.push(0);
            }
            above = run;
            if let Some(bytes) = by_images.last_mut() {
                *bytes += o.data();
            }
        }
        let allocated: u64 = by_images.iter().sum();
        let in_leaf = by_images.first().copied().unwrap_or(0);
        let weighted: f64 = by_images.iter().zip(1..).map(|(bytes, images)| *bytes as f64 * f64::from(images)).sum();
        let mut counted = 0;
        let most = allocated - allocated / 20;
        let p95 = by_images.iter().zip(1..).find_map(|(bytes, images)| {
            counted += bytes;
            (counted >= most).then_some(images)
        });
        Some(ReadCost {
            depth: asked,
            mean: if allocated == 0 { f64::from(asked) } else { weighted / allocated as f64 },
            p95: if allocated == 0 { asked } else { p95.unwrap_or(asked) },
            allocated: ByteCount(allocated),
            first_write: if size == 0 { 0.0 } else { 1.0 - in_leaf as f64 / size as f64 },
        })
    }
}
