//! What takes a while and isn't the engine's, on a thread of its own: the system's dialogs for choosing a folder or a
//! file, and its manager of services.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use snaptree_core::vm::qemu::OtherFormat;

use crate::dialogs::PickFor;
use crate::service::Service;
use crate::{text, viewer};

/// How the names of images end.
const IMAGES: &[&str] = &["vhdx", "avhdx", "vhd", "avhd"];

/// A dialog of the system's that ends sooner was never shown: nobody is that quick.
const SHOWN: Duration = Duration::from_millis(300);
const NOT_SHOWN: &str = "The system can't show its dialog for choosing files. Type the path, or use the command line; on \
                         Debian and Ubuntu it comes with xdg-desktop-portal-gtk, or with zenity.";

/// What came of a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picked {
    /// A path was chosen.
    Path(PickFor, PathBuf),
    /// What came of something, in words; or why nothing did.
    Told(Result<String, String>),
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
                    let all = [IMAGES, &OtherFormat::EXTENSIONS].concat();
                    dialog.set_title("Import a disk image").add_filter("Disk images", &all).pick_file()
                }
                PickFor::Image => dialog
                    .set_title("Choose a disk image")
                    .add_filter("Disk images", IMAGES)
                    .add_filter("Raw disks", &["raw", "img"])
                    .pick_file(),
                PickFor::NewFile => dialog.set_title("Write the disk to").save_file(),
            };
            path.map(|path| Picked::Path(why, path))
        });
    }

    /// Asks where to write a text, and writes it there.
    pub fn save(&mut self, name: &'static str, text: String, ctx: Option<&egui::Context>) {
        self.beside(ctx, move || {
            let path = rfd::FileDialog::new().set_title("Export the plan").set_file_name(name).save_file()?;
            Some(Picked::Told(match std::fs::write(&path, text) {
                Ok(()) => Ok(format!("Written: {}", path.display())),
                Err(error) => Err(format!("{} could not be written: {error}", path.display())),
            }))
        });
    }

    /// Has the agent work on a library as a service of the user, or no longer.
    pub fn agent(&mut self, library: &Path, on: bool, ctx: Option<&egui::Context>) {
        let library = library.to_owned();
        self.beside(ctx, move || {
            let Some(service) = Service::of_user() else { return Some(Picked::Told(Err("There is no home directory.".into()))) };
            let is_ours = service.is_for(&library);
            Some(Picked::Told(match (on, std::env::current_exe()) {
                (true, Ok(program)) => service.install(&program, &library),
                (true, Err(error)) => Err(format!("This program can't be found: {error}")),
                (false, _) if !is_ours => Err("The agent isn't a service here: whoever started it ends it.".into()),
                (false, _) => service.remove(),
            }))
        });
    }

    /// Shows a machine's screen in a viewer.
    pub fn viewer(&mut self, socket: &Path, ctx: Option<&egui::Context>) {
        let socket = socket.to_owned();
        self.beside(ctx, move || Some(Picked::Told(viewer::open(&socket).map_err(text::sentence))));
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
            let began = Instant::now();
            let picked = dialog().or_else(|| (began.elapsed() < SHOWN).then(|| Picked::Told(Err(NOT_SHOWN.into()))));
            // The window may be gone by now; then nobody waits for it.
            let _ = sender.send(picked);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_of(dialog: impl FnOnce() -> Option<Picked> + Send + 'static) -> Option<Picked> {
        let mut picker = Picker::default();
        picker.beside(None, dialog);
        let answer = picker.receiver.recv_timeout(Duration::from_secs(60)).expect("it ends");
        picker.sender.send(answer).expect("it is there");
        picker.poll()
    }

    #[test]
    fn a_dialog_that_cannot_be_shown_is_told_of_and_a_cancelled_one_is_not() {
        assert_eq!(comes_of(|| None), Some(Picked::Told(Err(NOT_SHOWN.into()))));
        let cancelled = || {
            std::thread::sleep(SHOWN);
            None
        };
        assert_eq!(comes_of(cancelled), None);
    }
}
