//! A display without a screen.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// An X server of its own; ended when dropped.
#[derive(Debug)]
pub struct Display {
    server: Child,
    name: String,
}

impl Display {
    /// Starts one of this size in pixels; `None` where Xvfb isn't installed.
    pub fn open(width: u32, height: u32) -> Option<Self> {
        let mut server = Command::new("Xvfb")
            // The server chooses a free number and writes it to its standard output.
            .args(["-displayfd", "1", "-nolisten", "tcp", "-noreset", "-screen", "0", &format!("{width}x{height}x24")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut number = String::new();
        let read = BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut number);
        assert!(read.is_ok() && !number.trim().is_empty(), "Xvfb ended before it was ready: {:?}", server.wait());
        Some(Self { server, name: format!(":{}", number.trim()) })
    }

    /// Its name, for `DISPLAY`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
