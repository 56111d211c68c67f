//! The real program in a real window on a display of its own, seen and used as a person does: what is
//! there is found by what it is called, and used by mouse and keys.
//!
//! ```text
//! Display (Xvfb) ── DISPLAY ──> the program, in a Home of its own
//! Desktop ── events, over loopback ──> its window      <── Seen (widgets), a picture
//! ```

mod display;
mod seen;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use egui::{Event, Key, Modifiers, PointerButton, Pos2};
use egui_inspection::protocol::read_handshake;
use egui_inspection::{INSPECTION_ENV_VAR, PROTOCOL_VERSION, Request, Response, read_message, write_message};

use crate::program::{self, Home};

pub use display::Display;
pub use seen::{Seen, Widget};

/// How long something may take that a person waits for: computers that run tests can be slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the demo may take to be made.
const MAKING: Duration = Duration::from_secs(600);

/// The program, running in its window.
#[derive(Debug)]
pub struct Desktop {
    // Ended in this order.
    program: Child,
    connection: TcpStream,
    _display: Display,
    home: Rc<Home>,
}

impl Desktop {
    /// Starts the program on a display of this size in pixels, and waits for the demo if it is to make one;
    /// `None` where there is no Xvfb.
    pub fn open(arguments: &[&str], width: u32, height: u32, variables: &[(&str, &str)]) -> Option<Self> {
        let mut desktop = Self::open_in(&Rc::new(Home::new()), arguments, width, height, variables)?;
        desktop.wait_within(MAKING, "the demo", |seen| (!seen.says("Making the demo")).then_some(()));
        Some(desktop)
    }

    /// Starts the program in a home that others may share.
    pub fn open_in(home: &Rc<Home>, arguments: &[&str], width: u32, height: u32, variables: &[(&str, &str)]) -> Option<Self> {
        let display = Display::open(width, height)?;
        let address = free_address();
        let log = File::options().create(true).append(true).open(home.path().join("program.log")).expect("a log");
        let program = home
            .command(&program::program())
            .args(arguments)
            .env("DISPLAY", display.name())
            .env(INSPECTION_ENV_VAR, &address)
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let mut program = program;
        let connection = match connect(&address, &mut program) {
            Ok(connection) => connection,
            Err(error) => {
                let _ = program.kill();
                let log = fs::read_to_string(home.path().join("program.log")).unwrap_or_default();
                panic!("the window doesn't open: {error}\nit says:\n{log}");
            }
        };
        let mut desktop = Self { program, connection, _display: display, home: home.clone() };
        // A window that has just opened hears first where the display's own mouse is.
        desktop.watch(Duration::from_millis(500));
        Some(desktop)
    }

    /// The home that it runs in.
    pub fn home(&self) -> &Home {
        &self.home
    }

    fn ask(&mut self, request: &Request) -> Response {
        let answer = write_message(&mut self.connection, request).and_then(|()| read_message(&mut self.connection));
        match answer {
            Ok(Response::Error { message }) => panic!("the window doesn't answer: {message}\n{}", self.log()),
            Ok(response) => response,
            Err(error) => panic!("the program is gone: {error}, {:?}\n{}", self.program.try_wait(), self.log()),
        }
    }

    /// What the program has written to its standard output and error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("program.log")).unwrap_or_default()
    }

    /// What is in the window now.
    pub fn look(&mut self) -> Seen {
        match self.ask(&Request::GetTree) {
            Response::Tree { pixels_per_point, accesskit: Some(update), .. } => Seen::of(&update, pixels_per_point),
            other => panic!("no widgets: {other:?}"),
        }
    }

    /// Waits until what is in the window answers; gives up with a picture and all that it shows.
    pub fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&Seen) -> Option<T>) -> T {
        self.wait_within(PATIENCE, what, wanted)
    }

    fn wait_within<T>(&mut self, patience: Duration, what: &str, wanted: impl Fn(&Seen) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let seen = self.look();
            if let Some(found) = wanted(&seen) {
                return found;
            }
            if started.elapsed() > patience {
                let picture = self.picture("waited-in-vain");
                panic!(
                    "waited in vain for {what}; {}\nthe window has:\n{seen}\nthe program says:\n{}",
                    picture.display(),
                    self.log()
                );
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until some widget says this.
    pub fn wait_to_read(&mut self, text: &str) {
        self.wait_for(&format!("the words {text:?}"), |seen| seen.says(text).then_some(()));
    }

    /// Sends events, each in a frame of its own as hands would.
    fn events(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.ask(&Request::ApplyEvents { events: vec![event] });
        }
    }

    /// Moves the mouse to the middle of the control with this name.
    pub fn point_at(&mut self, name: &str) -> Pos2 {
        let at = self.find(name);
        self.events([Event::PointerMoved(at)]);
        at
    }

    /// Where the control with this name is, once it is there and can be used.
    fn find(&mut self, name: &str) -> Pos2 {
        self.wait_for(&format!("{name:?} that can be clicked"), |seen| {
            seen.control(name).filter(|widget| !widget.disabled).and_then(Widget::middle)
        })
    }

    /// Clicks the control with this name, once it is there and can be used.
    pub fn click(&mut self, name: &str) {
        let mut at = self.find(name);
        loop {
            let before = std::mem::replace(&mut at, self.point_at(name));
            // A label beside it may have grown meanwhile.
            if at == before {
                return self.click_at(at, PointerButton::Primary);
            }
        }
    }

    /// Clicks the first row whose name starts so.
    pub fn click_row(&mut self, start: &str) {
        let at = self.wait_for(&format!("a row {start:?}"), |seen| seen.row(start).and_then(Widget::middle));
        self.click_at(at, PointerButton::Primary);
    }

    /// Clicks at a place.
    pub fn click_at(&mut self, at: Pos2, button: PointerButton) {
        let modifiers = Modifiers::NONE;
        self.events([Event::PointerMoved(at)]);
        // What is under the mouse is known a frame later.
        self.look();
        self.events([
            Event::PointerButton { pos: at, button, pressed: true, modifiers },
            Event::PointerButton { pos: at, button, pressed: false, modifiers },
        ]);
    }

    /// Takes hold at one place, and lets go at another.
    pub fn drag(&mut self, from: Pos2, to: Pos2) {
        let (button, modifiers) = (PointerButton::Primary, Modifiers::NONE);
        self.events([Event::PointerMoved(from)]);
        self.look();
        self.events([Event::PointerButton { pos: from, button, pressed: true, modifiers }]);
        self.events([0.1, 0.5, 1.0].map(|share| Event::PointerMoved(from + (to - from) * share)));
        self.look();
        self.events([Event::PointerButton { pos: to, button, pressed: false, modifiers }]);
    }

    /// Presses a key, with those held.
    pub fn press(&mut self, modifiers: Modifiers, key: Key) {
        let event = |pressed| Event::Key { key, physical_key: None, pressed, repeat: false, modifiers };
        self.events([event(true), event(false)]);
    }

    /// Types into what has the keyboard.
    pub fn write(&mut self, text: &str) {
        self.events([Event::Text(text.to_owned())]);
    }

    /// Clicks the text field with this name, and types over what it holds.
    pub fn fill(&mut self, name: &str, text: &str) {
        self.click(name);
        self.press(Modifiers::COMMAND, Key::A);
        self.write(text);
    }

    /// Keeps a picture of the window among the reports, and says where.
    pub fn picture(&mut self, name: &str) -> PathBuf {
        let Response::Screenshot(picture) = self.ask(&Request::GetScreenshot { pixels_per_point: None }) else {
            panic!("no picture");
        };
        let folder = reports();
        let path = folder.join(format!("{name}.png"));
        fs::create_dir_all(&folder).and_then(|()| fs::write(&path, picture.bytes)).expect("the picture is kept");
        path
    }

    /// Makes the window this large, in points.
    pub fn resize(&mut self, width: u32, height: u32) {
        self.ask(&Request::Resize { width, height });
        self.watch(Duration::from_millis(500));
    }

    /// Lets a while pass, for what is shown to change by itself.
    pub fn watch(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            self.look();
            sleep(Duration::from_millis(100));
        }
    }

    /// Ends the program as the window's close button does not: at once. What it started goes on.
    pub fn kill(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where pictures of the window are kept.
fn reports() -> PathBuf {
    program::build_folder().parent().map_or_else(|| PathBuf::from("reports"), |target| target.join("reports"))
}

/// An address on this computer that nobody listens at.
fn free_address() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of this computer");
    listener.local_addr().expect("its address").to_string()
}

/// Waits until the window serves its widgets.
fn connect(address: &str, program: &mut Child) -> io::Result<TcpStream> {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(connection) => {
                connection.set_read_timeout(Some(PATIENCE))?;
                connection.set_nodelay(true)?;
                let version = read_handshake(&connection)?;
                if version != PROTOCOL_VERSION {
                    return Err(io::Error::other(format!("protocol {version}, {PROTOCOL_VERSION} is expected")));
                }
                return Ok(connection);
            }
            Err(error) if started.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
        }
        if let Some(status) = program.try_wait()? {
            return Err(io::Error::other(format!("the program ended with {status}")));
        }
        sleep(Duration::from_millis(50));
    }
}
