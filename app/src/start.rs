//! Starts the window, and says in words why it can't.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use snaptree_core::clock::{SharedClock, SystemClock};
use snaptree_core::engine::{Engine as Worker, EngineOptions};
use snaptree_core::host_file::OsHost;

use crate::app::{App, Content, Window};
use crate::demo::{self, Hold};
use crate::pages::making::{Making, News};
use crate::theme;
use crate::view::View;

/// What the window begins with.
#[derive(Debug, Default)]
pub struct Opening {
    /// The name of the machine that is shown when none was chosen before.
    pub machine: Option<String>,
    /// A sentence or two that stand above that machine's tree.
    pub hint: Option<String>,
}

/// Opens the window on a library.
pub fn desktop(library: &Path, opening: Opening) -> ExitCode {
    if let Err(why) = display() {
        return no_window(&why);
    }
    match Worker::start(on(library)) {
        Ok(engine) => window(opening, |ctx, view, clock| Content::Open(Box::new(App::new(ctx, view, Box::new(engine), clock)))),
        Err(refusal) => {
            eprintln!("snaptree: {refusal}");
            ExitCode::FAILURE
        }
    }
}

fn on(library: &Path) -> EngineOptions {
    EngineOptions {
        host: OsHost::shared(),
        clock: SystemClock::shared(),
        library: std::path::absolute(library).unwrap_or_else(|_| library.to_path_buf()),
        executable: std::env::current_exe().ok(),
    }
}

/// Opens the window at once, and makes the demo beside it where it isn't there yet. Then its machines are started.
pub fn demo(library: &Path, hint: &str) -> anyhow::Result<ExitCode> {
    if let Err(why) = display() {
        return Ok(no_window(&why));
    }
    let (news, making) = unbounded();
    let closed = Arc::new(AtomicBool::new(false));
    let opening = Opening { machine: Some(demo::FIRST_MACHINE.to_owned()), hint: Some(hint.to_owned()) };
    // Where the window can't be opened, nothing was begun.
    let mut maker = None;
    let shown = window(opening, |ctx, view, _| {
        theme::install(ctx);
        maker = Some(make(library.to_path_buf(), news, ctx.clone(), closed.clone()));
        Content::Making(Box::new(Making::new(making, view)))
    });
    closed.store(true, Ordering::Relaxed);
    let Some(maker) = maker else { return Ok(shown) };
    match maker.join() {
        Ok(Ok(hold)) if hold.is_last() => demo::stop_machines(library)?,
        Ok(Ok(_)) => {}
        Ok(Err(error)) if error.is::<Closed>() => {}
        Ok(Err(error)) => return Err(error),
        Err(panic) => panic::resume_unwind(panic),
    }
    Ok(shown)
}

/// The window was closed before the demo was complete.
#[derive(Debug, thiserror::Error)]
#[error("the window was closed")]
struct Closed;

/// Makes the demo on a thread of its own, which ends soon after the window was closed.
fn make(library: PathBuf, news: Sender<News>, ctx: egui::Context, closed: Arc<AtomicBool>) -> JoinHandle<anyhow::Result<Hold>> {
    std::thread::spawn(move || {
        // A window that is gone hears nothing.
        let tell = |told| {
            let _ = news.send(told);
            ctx.request_repaint();
        };
        let made = demo::prepare(&library, &mut |progress| {
            tell(News::Progress(progress));
            if closed.load(Ordering::Relaxed) { Err(Closed.into()) } else { Ok(()) }
        });
        let opened = made.and_then(|hold| {
            // Without it there is still a demo to look at.
            if let Err(error) = demo::start_machines(&library) {
                eprintln!("snaptree: the demo's machines could not be started: {error:#}");
            }
            Ok((hold, Worker::start(on(&library))?))
        });
        match opened {
            Ok((hold, engine)) => {
                tell(News::Ready(Box::new(engine)));
                Ok(hold)
            }
            Err(error) => {
                tell(News::Failed(format!("{error:#}")));
                Err(error)
            }
        }
    })
}

/// Shows the window until it is closed.
fn window(opening: Opening, content: impl FnOnce(&egui::Context, View, &SharedClock) -> Content) -> ExitCode {
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("Snaptree")
            .with_app_id("snaptree")
            .with_inner_size([1280.0, 800.0])
            .with_min_inner_size([760.0, 480.0])
            .with_drag_and_drop(true),
        ..Default::default()
    };
    let create: eframe::AppCreator<'_> = Box::new(|cc| {
        let clock = SystemClock::shared();
        let mut view = View::load(cc.storage);
        view.opening = opening;
        let content = content(&cc.egui_ctx, view, &clock);
        Ok(Box::new(Window { content, clock }))
    });
    match quietly(|| eframe::run_native("snaptree", options, create)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => no_window(&format!("the window could not be opened: {error}.{}", missing(&error.to_string()))),
        Err(panic) => no_window(&format!("{panic}{}", missing(&panic))),
    }
}

fn no_window(why: &str) -> ExitCode {
    eprintln!("snaptree: {why}");
    eprintln!("Everything can be done from the command line too: see `snaptree --help`.");
    ExitCode::FAILURE
}

/// Whether there is a display at all.
fn display() -> Result<(), String> {
    if !cfg!(all(unix, not(target_os = "macos"))) {
        return Ok(());
    }
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    if set("WAYLAND_DISPLAY") || set("WAYLAND_SOCKET") || set("DISPLAY") {
        return Ok(());
    }
    Err("there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set).".into())
}

/// Libraries that are loaded at run time, and Debian's packages that have them. The longer names first.
const PACKAGES: &[(&str, &str)] = &[
    ("libxkbcommon-x11", "libxkbcommon-x11-0"),
    ("libxkbcommon", "libxkbcommon0"),
    ("libX11-xcb", "libx11-xcb1"),
    ("libX11", "libx11-6"),
    ("libXcursor", "libxcursor1"),
    ("libXi", "libxi6"),
    ("libwayland-egl", "libwayland-egl1"),
    ("libwayland-client", "libwayland-client0"),
    ("libEGL", "libegl1"),
    ("libGL", "libgl1"),
    ("NoGlutinConfigs", "libgl1 libegl1 libgl1-mesa-dri"),
];

/// The package to install, where an error names a library.
fn missing(error: &str) -> String {
    match PACKAGES.iter().find(|(library, _)| error.contains(library)) {
        Some((_, package)) => format!("\nOn Debian or Ubuntu: sudo apt install {package}"),
        None => String::new(),
    }
}

/// Runs something in which a missing library is a panic: that panic becomes an error, any other one stays a panic.
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let caught: Arc<Mutex<Option<String>>> = Arc::default();
    let (seen, usual) = (caught.clone(), Arc::new(panic::take_hook()));
    let behind = usual.clone();
    panic::set_hook(Box::new(move |info| {
        let said = info.payload_as_str().unwrap_or_default();
        if said.contains("could not be loaded") {
            if let Ok(mut seen) = seen.lock() {
                *seen = Some(said.to_owned());
            }
        } else {
            behind(info);
        }
    }));
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    panic::set_hook(Box::new(move |info| usual(info)));
    match result {
        Ok(value) => Ok(value),
        Err(payload) => match caught.lock().ok().and_then(|mut c| c.take()) {
            Some(said) => Err(said),
            None => panic::resume_unwind(payload),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_its_package() {
        let said = quietly(|| panic!("Library libxkbcommon-x11.so could not be loaded.")).unwrap_err();
        assert_eq!(missing(&said), "\nOn Debian or Ubuntu: sudo apt install libxkbcommon-x11-0");
        assert_eq!(missing("something else"), "");
        assert_eq!(quietly(|| 3), Ok(3));
    }
}
