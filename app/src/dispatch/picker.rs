//! The system's dialog for choosing a folder, on a thread of its own.

use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::dialogs::PickFor;

/// Waits for what the person chooses.
pub struct Picker {
    sender: Sender<Option<(PickFor, PathBuf)>>,
    receiver: Receiver<Option<(PickFor, PathBuf)>>,
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
        if self.open {
            return;
        }
        self.open = true;
        let sender = self.sender.clone();
        let ctx = ctx.cloned();
        std::thread::spawn(move || {
            let dialog = rfd::FileDialog::new();
            let path = match why {
                PickFor::OpenFolder => dialog.set_title("Open a folder of disk images").pick_folder(),
                PickFor::Import => {
                    dialog.set_title("Import a VHDX file").add_filter("Disk images", &["vhdx", "avhdx"]).pick_file()
                }
            };
            // The window may be gone by now; then nobody waits for it.
            let _ = sender.send(path.map(|p| (why, p)));
            if let Some(ctx) = ctx {
                ctx.request_repaint();
            }
        });
    }

    /// What was chosen since the last call.
    pub fn poll(&mut self) -> Option<(PickFor, PathBuf)> {
        let answer = self.receiver.try_recv().ok()?;
        self.open = false;
        answer
    }
}
