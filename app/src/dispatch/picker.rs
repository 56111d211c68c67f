//! The system's dialogs for choosing a folder or a file, on a thread of their own.

use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::dialogs::PickFor;

/// What came of a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picked {
    /// A path was chosen.
    Path(PickFor, PathBuf),
    /// A file was written.
    Saved(PathBuf),
    /// It could not be written.
    NotSaved(String),
}

/// Waits for what the person chooses.
pub struct Picker {
    sender: Sender<Option<Picked>>,
    receiver: Receiver<Option<Picked>>,
    open: bool,
}

impl Default for Picker {
    fn default() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender, receiver, open: false }
    }
}

impl Picker {
    /// Opens the dialog, unless one is open.
    pub fn ask(&mut self, why: PickFor, ctx: Option<&egui::Context>) {
        self.beside(ctx, move || {
            let dialog = rfd::FileDialog::new();
            let path = match why {
                PickFor::OpenFolder => dialog.set_title("Open a folder of disk images").pick_folder(),
                PickFor::Import => {
                    dialog.set_title("Import a VHDX file").add_filter("Disk images", &["vhdx", "avhdx"]).pick_file()
                }
            };
            path.map(|path| Picked::Path(why, path))
        });
    }

    /// Asks where to write a text, and writes it there.
    pub fn save(&mut self, name: &'static str, text: String, ctx: Option<&egui::Context>) {
        self.beside(ctx, move || {
            let path = rfd::FileDialog::new().set_title("Export the plan").set_file_name(name).save_file()?;
            Some(match std::fs::write(&path, text) {
                Ok(()) => Picked::Saved(path),
                Err(error) => Picked::NotSaved(format!("{} could not be written: {error}", path.display())),
            })
        });
    }

    /// Runs a dialog on a thread of its own, unless one is open.
    fn beside(&mut self, ctx: Option<&egui::Context>, dialog: impl FnOnce() -> Option<Picked> + Send + 'static) {
        if self.open {
            return;
        }
        self.open = true;
        let sender = self.sender.clone();
        let ctx = ctx.cloned();
        std::thread::spawn(move || {
            // The window may be gone by now; then nobody waits for it.
            let _ = sender.send(dialog());
            if let Some(ctx) = ctx {
                ctx.request_repaint();
            }
        });
    }

    /// What was chosen since the last call.
    pub fn poll(&mut self) -> Option<Picked> {
        let answer = self.receiver.try_recv().ok()?;
        self.open = false;
        answer
    }
}
