//! Pictures of screens: read and decoded on a thread, kept as textures.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use egui::{ColorImage, Context, TextureFilter, TextureHandle, TextureOptions};
use snaptree_core::engine::Screen;
use snaptree_core::snapshot::MachineId;

/// Which picture.
#[derive(Debug, Clone)]
pub enum Picture {
    /// A file that doesn't change once it is there.
    File(PathBuf),
    /// A running machine's screen.
    Live(MachineId, Arc<Screen>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    File(PathBuf),
    Live(MachineId),
}

impl Picture {
    fn key(&self) -> Key {
        match self {
            Self::File(path) => Key::File(path.clone()),
            Self::Live(machine, _) => Key::Live(*machine),
        }
    }
}

struct Entry {
    texture: Option<TextureHandle>,
    /// What was asked for: a screen by its address, so that a new one is decoded.
    asked: usize,
    used: u64,
}

/// Pictures that are there, and those on their way.
#[derive(Default)]
pub struct Pictures {
    entries: HashMap<Key, Entry>,
    worker: Option<Worker>,
    frame: u64,
}

struct Worker {
    todo: Sender<(Key, Picture)>,
    done: Receiver<(Key, Option<ColorImage>)>,
}

/// Screens are mostly shown smaller than they are, and stay readable as long as they can.
const SHRUNK: TextureOptions = TextureOptions { mipmap_mode: Some(TextureFilter::Linear), ..TextureOptions::LINEAR };
/// Textures kept; a picture of 160 x 100 takes 64 KiB.
const KEPT: usize = 300;
/// No picture of a screen is larger; what a file says about its size is input.
const MOST_PIXELS: u32 = 4096;

impl Pictures {
    /// The texture, once it is there; asks for it otherwise.
    pub fn texture(&mut self, ctx: &Context, picture: &Picture) -> Option<TextureHandle> {
        self.receive(ctx);
        self.frame += 1;
        let key = picture.key();
        let asked = match picture {
            Picture::File(_) => 0,
            Picture::Live(_, screen) => Arc::as_ptr(screen) as usize,
        };
        let frame = self.frame;
        let known = self.entries.get_mut(&key);
        if known.as_ref().is_none_or(|e| e.asked != asked) {
            let worker = self.worker.get_or_insert_with(|| start(ctx.clone()));
            // A worker that has ended only means that no picture comes.
            let _ = worker.todo.send((key.clone(), picture.clone()));
        }
        let entry = self.entries.entry(key).or_insert(Entry { texture: None, asked, used: frame });
        entry.asked = asked;
        entry.used = frame;
        let texture = entry.texture.clone();
        self.trim();
        texture
    }

    fn receive(&mut self, ctx: &Context) {
        let Some(worker) = &self.worker else { return };
        for (key, image) in worker.done.try_iter() {
            let (Some(entry), Some(image)) = (self.entries.get_mut(&key), image) else { continue };
            match &mut entry.texture {
                Some(texture) => texture.set(image, SHRUNK),
                None => entry.texture = Some(ctx.load_texture("screen", image, SHRUNK)),
            }
        }
    }

    fn trim(&mut self) {
        if self.entries.len() > KEPT
            && let Some(oldest) = self.entries.iter().min_by_key(|(_, e)| e.used).map(|(k, _)| k.clone())
        {
            self.entries.remove(&oldest);
        }
    }
}

fn start(ctx: Context) -> Worker {
    let (todo, jobs) = unbounded::<(Key, Picture)>();
    let (results, done) = unbounded();
    std::thread::spawn(move || {
        for (key, picture) in jobs {
            if results.send((key, decode(&picture))).is_err() {
                return;
            }
            ctx.request_repaint();
        }
    });
    Worker { todo, done }
}

fn decode(picture: &Picture) -> Option<ColorImage> {
    let bytes = match picture {
        Picture::File(path) => std::fs::read(path).ok()?,
        Picture::Live(_, screen) => screen.png.clone(),
    };
    let mut reader = image::ImageReader::with_format(std::io::Cursor::new(bytes), image::ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(MOST_PIXELS);
    limits.max_image_height = Some(MOST_PIXELS);
    reader.limits(limits);
    let image = reader.decode().ok()?.to_rgba8();
    let size = [image.width() as usize, image.height() as usize];
    Some(ColorImage::from_rgba_unmultiplied(size, image.as_raw()))
}
