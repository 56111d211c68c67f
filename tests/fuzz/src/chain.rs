//! Chains: damaged images, links that lead anywhere, journals of file merges that name anything.

use std::path::{Path, PathBuf};

use snaptree_core::chain::{Chain, Folder, Gate, trace};
use snaptree_core::disk::{self, CreateOptions, ImageFormat};
use snaptree_core::host_file::{Access, Host, publish_file, read_file};
use snaptree_core::merge::{MergeError, merge_files};
use snaptree_core::store::open_folder;
use snaptree_core::testing::{MemHost, Random};
use snaptree_core::units::ByteCount;
use uuid::Uuid;

use super::json;
use super::runner::Target;
use super::vhdx::{Bytes, damage, key, pending, table};

const NAMES: [&str; 4] = ["base.vhdx", "one.avhdx", "two.avhdx", "leaf.avhdx"];
const OTHER: &str = "other.avhdx";
const SIZE: u64 = 4 << 20;

pub struct ChainTarget {
    hosts: Vec<MemHost>,
}

fn path(name: &str) -> PathBuf {
    Path::new("/vms").join(name)
}

impl ChainTarget {
    pub fn new() -> Self {
        Self { hosts: (0..4).map(build).collect() }
    }
}

/// Four images, in some variants another reader of the second, and a file outside that nobody may touch.
fn build(variant: u64) -> MemHost {
    let (host, mut random) = (MemHost::new(), Random::new(variant));
    host.create_dir_all(Path::new("/vms/folder")).expect("a folder");
    host.create_dir_all(Path::new("/outside")).expect("a folder");
    publish_file(&host, Path::new("/outside/secret.vhdx"), b"nobody's business").expect("a file");
    host.link(Path::new("/vms/way-out"), Path::new("/outside")).expect("a link");
    host.link(Path::new("/vms/circle"), Path::new("circle")).expect("a link");
    let shared = host.shared();
    let options = CreateOptions {
        block_size: Some(ByteCount::mib(1 << (variant % 2))),
        logical_sector_size: if variant == 3 { 4096 } else { 512 },
        ..CreateOptions::dynamic(ByteCount(SIZE))
    };
    let mut below = disk::create(&shared, &path(NAMES[0]), ImageFormat::Vhdx, &options).expect("a base");
    // Where another image reads through the second one, no merge into it is allowed.
    let other = (variant % 2 == 1).then_some(OTHER);
    for name in NAMES[1..].iter().copied().chain(other) {
        for _ in 0..4 {
            let at = random.below(SIZE / 4096) * 4096;
            let length = (1 + random.below(300)) * 4096;
            let bytes = random.bytes(length.min(SIZE - at) as usize);
            below.write_at(&bytes, at).expect("a write");
        }
        below.write_zeroes(random.below(3) << 20, 1 << 20).expect("zeros");
        below.freeze().expect("frozen");
        let parent = if name == OTHER {
            disk::open(&shared, &path(NAMES[1]), ImageFormat::Vhdx, Access::Read).expect("an image")
        } else {
            below
        };
        below = disk::create_child(&shared, &path(name), &*parent, options.block_size).expect("a child");
    }
    below.freeze().expect("frozen");
    drop(below);
    host
}

impl Target for ChainTarget {
    fn case(&mut self, random: &mut Random) -> Result<(), String> {
        let host = self.hosts[random.below(self.hosts.len() as u64) as usize].fork();
        host.set_capacity(Some(ByteCount::mib(256)));
        for _ in 0..random.below(3) {
            change(&host, random)?;
        }
        let gate = Gate::new([PathBuf::from("/vms")]);
        let steps = host.steps();
        for access in [Access::Look, Access::Read] {
            if let Ok(chain) = Chain::open(&host.shared(), &path(NAMES[3]), access, &gate) {
                exercise(&chain, random)?;
            }
            if let Ok(trace) = trace(&host.shared(), &path(NAMES[3]), access, &gate)
                && trace.images.iter().any(|image| !image.path().starts_with("/vms"))
            {
                return Err("the gate let something through".into());
            }
        }
        let _ = Folder::scan(&host.shared(), Path::new("/vms"));
        let _ = open_folder(&host.shared(), Path::new("/vms"));
        if host.steps() != steps {
            return Err("a look has changed something".into());
        }
        if random.chance(1, 2) { merge(&host, &gate, random) } else { write(&host, &gate, random) }
    }
}

fn contents(host: &MemHost) -> Vec<(PathBuf, u32)> {
    let sum = |path: &PathBuf| {
        let file = host.open(path, Access::Look).ok()?;
        let mut bytes = vec![0; file.len().ok()?.min(32 << 20) as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        Some(crc32c::crc32c(&bytes))
    };
    host.files().into_iter().map(|path| (path.clone(), sum(&path).unwrap_or(0))).collect()
}

/// Damages an image, or makes its link lead somewhere else.
fn change(host: &MemHost, random: &mut Random) -> Result<(), String> {
    let name = NAMES[random.below(4) as usize];
    let bytes = Bytes(host.open(&path(name), Access::Write).map_err(|error| error.to_string())?);
    match random.below(4) {
        0 => damage(&bytes, random),
        1 => pending(host, &path(name), (key(&bytes), table(&bytes)), random),
        _ => {
            let to = match random.below(12) {
                0 => r"..\outside\secret.vhdx".into(),
                1 => r".\way-out\secret.vhdx".into(),
                2 => r".\circle".into(),
                3 => r".\folder".into(),
                4 => "/outside/secret.vhdx".into(),
                5 => "base.vhdx\0.txt".into(),
                6 => "x".repeat(random.below(30_000) as usize),
                7 => r".\..\vms\.\folder\..\".to_owned() + NAMES[random.below(4) as usize],
                8 => String::new(),
                _ => format!(r".\{}", NAMES[random.below(4) as usize]),
            };
            // A link that leads in a circle is to be followed as far as possible.
            let linkage = host.open(&path(NAMES[random.below(4) as usize]), Access::Look).map(|file| Bytes(file).data_write_id());
            let linkage = linkage.map_or_else(|_| Uuid::nil(), Uuid::from_bytes_le);
            let mut pairs = vec![("relative_path".into(), to.clone()), ("parent_linkage".into(), format!("{{{linkage}}}"))];
            if random.chance(1, 3) {
                pairs.push((["absolute_win32_path", "relative_path", "volume_path"][random.below(3) as usize].into(), to));
            }
            if random.chance(1, 3) {
                // All images say that they are the same one.
                for name in NAMES {
                    if let Ok(file) = host.open(&path(name), if name == NAMES[0] { Access::Look } else { Access::Write }) {
                        Bytes(file).set_header(32, linkage.to_bytes_le().as_slice());
                    }
                }
            }
            bytes.set_locator(&pairs);
        }
    }
    Ok(())
}

fn exercise(chain: &Chain, random: &mut Random) -> Result<(), String> {
    let (size, sector) = (chain.virtual_size().0, u64::from(chain.logical_sector_size()));
    let window = size.min(4 << 30);
    if let Ok(stretches) = chain.stretches(0, window)
        && stretches.iter().map(|stretch| stretch.length).sum::<u64>() != window
    {
        return Err("stretches don't add up".into());
    }
    for _ in 0..4 {
        let at = random.below(size / sector) * sector;
        let length = ((1 + random.below(64)) * sector).min(size - at);
        let _ = chain.read_at(&mut vec![0; length as usize], at);
    }
    Ok(())
}

fn content(host: &MemHost, name: &str, gate: &Gate) -> Option<Vec<u8>> {
    let chain = Chain::open(&host.shared(), &path(name), Access::Look, gate).ok()?;
    let mut bytes = vec![0; Some(chain.virtual_size().0).filter(|size| *size <= 16 << 20)? as usize];
    chain.read_at(&mut bytes, 0).ok().map(|()| bytes)
}

/// What a merge says is done reads as before; what it refuses is as before.
fn merge(host: &MemHost, gate: &Gate, random: &mut Random) -> Result<(), String> {
    let (top, into) = (NAMES[2 + random.below(2) as usize], NAMES[random.below(2) as usize]);
    let journal = path(&format!(".{top}.merge.json"));
    if random.chance(1, 2) {
        // A journal as a merge that was cut short leaves it, and then something else in it.
        let mut left = 1 + random.below(8);
        let mut go_on = |_| {
            left -= 1;
            left > 0
        };
        if random.chance(1, 2) {
            host.crash_at(host.steps() + random.below(120));
        }
        let _ = merge_files(&host.shared(), &path(top), Some(&path(into)), gate, &mut go_on);
    }
    let host = &host.crash(snaptree_core::testing::CrashMode::Kill, 0);
    if let Ok(bytes) = read_file(host, &journal, 1 << 20) {
        let changed = if random.chance(1, 2) { json::damage(&bytes, random) } else { bytes };
        publish_file(host, &journal, &changed).map_err(|error| error.to_string())?;
    } else if random.chance(1, 2) {
        publish_file(host, &journal, made_up(top, random).as_bytes()).map_err(|error| error.to_string())?;
    }
    let before = contents(host);
    let kept: Vec<_> = [NAMES[3], OTHER, top].map(|name| content(host, name, gate)).into();
    let result = merge_files(&host.shared(), &path(top), Some(&path(into)), gate, &mut |_| true);
    let after = contents(host);
    if before.iter().any(|(path, sum)| path.starts_with("/outside") && !after.contains(&(path.clone(), *sum))) {
        return Err("a file outside was changed".into());
    }
    if matches!(result, Err(MergeError::Refused(_))) && before != after {
        return Err(format!("a merge that is refused has changed something: {result:?}"));
    }
    for name in [NAMES[3], OTHER] {
        let was_there = before.iter().any(|(file, _)| *file == path(name));
        if was_there && !host.exists(&path(name)) && name != top {
            return Err(format!("{name} was removed, which isn't part of the merge: {result:?}"));
        }
    }
    // The images' own damage may come out in mid-merge; what was readable and is still refused or reads the same.
    for (name, kept) in [NAMES[3], OTHER].into_iter().zip(&kept) {
        if let (Some(kept), Ok(Some(_))) = (kept, &result)
            && name != top
            && content(host, name, gate).as_ref() != Some(kept)
        {
            return Err(format!("{name} reads differently after the merge of {top} into {into}"));
        }
    }
    if let (Some(kept), Ok(Some(_))) = (&kept[2], &result)
        && !host.exists(&path(top))
        && !NAMES[..3].iter().any(|name| content(host, name, gate).as_ref() == Some(kept))
    {
        return Err(format!("what {top} showed is gone after its merge into {into}"));
    }
    Ok(())
}

/// A journal that nobody wrote, of files that are there.
fn made_up(top: &str, random: &mut Random) -> String {
    let names = ["/vms/base.vhdx", "/vms/one.avhdx", "/vms/two.avhdx", "/vms/leaf.avhdx", "/vms/other.avhdx", "/vms/gone.vhdx"];
    let more = ["/outside/secret.vhdx", "/vms/way-out/secret.vhdx"];
    let file = |random: &mut Random| {
        let names = if random.chance(1, 8) { &more[..] } else { &names[..] };
        serde_json::json!({ "file": names[random.below(names.len() as u64) as usize], "format": "vhdx" })
    };
    let (below, above, last) = (file(random), file(random), file(random));
    let top = serde_json::json!({ "file": path(top), "format": "vhdx" });
    let run = [below, above, if random.chance(7, 8) { top } else { last }];
    let children: Vec<_> = [file(random)].into_iter().take(random.below(2) as usize).collect();
    let (id, ids) = (Uuid::nil(), [Uuid::nil(); 2]);
    let switch = serde_json::json!({
        "run": run, "target": 0, "kept": run[0]["file"], "parent": null, "data_write_id": id, "children": children });
    let switch = if random.chance(1, 2) { switch } else { serde_json::Value::Null };
    let journal = serde_json::json!({
        "format": "snaptree-file-merge", "run": run, "new_ids": ids, "children": children, "switch": switch });
    journal.to_string()
}

/// Writes to the leaf; what lies below stays as it is.
fn write(host: &MemHost, gate: &Gate, random: &mut Random) -> Result<(), String> {
    let below = contents(host);
    let Ok(chain) = Chain::open(&host.shared(), &path(NAMES[3]), Access::Write, gate) else { return Ok(()) };
    let (size, sector) = (chain.virtual_size().0, u64::from(chain.logical_sector_size()));
    let mut wrote = Vec::new();
    for _ in 0..4 {
        let at = random.below(size / sector) * sector;
        let bytes = random.bytes(sector as usize);
        if chain.write_at(&bytes, at).is_err() {
            return Ok(());
        }
        wrote.retain(|(other, _)| *other != at);
        wrote.push((at, bytes));
    }
    let flushed = chain.flush().is_ok();
    let reread = |chain: &Chain, what: &str| {
        for (at, bytes) in &wrote {
            // A place is looked up in all images, together with its neighbours: one that is damaged there is an error.
            let mut found = vec![0; bytes.len()];
            if chain.read_at(&mut found, *at).is_ok() && found != *bytes {
                return Err(format!("{what}, the sector at {at} reads differently"));
            }
        }
        Ok(())
    };
    reread(&chain, "once it was written")?;
    drop(chain);
    if flushed {
        let chain = Chain::open(&host.shared(), &path(NAMES[3]), Access::Look, gate).map_err(|error| error.to_string())?;
        reread(&chain, "once it was flushed and opened again")?;
    }
    let after = contents(host);
    let leaf = |path: &Path| path.to_string_lossy().starts_with("/vms/leaf.avhdx");
    match below.iter().find(|(path, sum)| !leaf(path) && !after.contains(&(path.clone(), *sum))) {
        Some((path, _)) => Err(format!("{} was changed by a write to the leaf", path.display())),
        None => Ok(()),
    }
}
