//! The last lines of a file that grows, such as what a machine's serial port said: read on a thread, a few times a second
//! while somebody looks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use egui::Context;

/// How much of the file's end is read.
const READ: u64 = 16 << 10;
/// How often.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known of one file.
#[derive(Default)]
pub struct Tail {
    file: PathBuf,
    lines: Vec<String>,
    asked: Option<Instant>,
    /// What is being read.
    reading: Option<Receiver<Vec<String>>>,
}

impl Tail {
    /// Its last lines, as far as they are known; has them read anew now and then.
    pub fn lines(&mut self, ctx: &Context, file: &Path) -> &[String] {
        if self.file != file {
            *self = Self { file: file.to_owned(), ..Self::default() };
        }
        match self.reading.as_ref().map(Receiver::try_recv) {
            Some(Ok(lines)) => (self.lines, self.reading) = (lines, None),
            Some(Err(TryRecvError::Disconnected)) => self.reading = None,
            Some(Err(TryRecvError::Empty)) | None => {}
        }
        if self.reading.is_none() && self.asked.is_none_or(|asked| asked.elapsed() >= AGAIN) {
            self.asked = Some(Instant::now());
            let (sender, receiver) = bounded(1);
            self.reading = Some(receiver);
            let (file, ctx) = (file.to_owned(), ctx.clone());
            std::thread::spawn(move || {
                // A file that isn't there yet has no lines. Whoever asked may look elsewhere by now.
                let _ = sender.send(last_lines(&file).unwrap_or_default());
                ctx.request_repaint();
            });
        }
        ctx.request_repaint_after(AGAIN);
        &self.lines
    }
}

/// The last lines of a file, as a terminal would show them.
pub fn last_lines(file: &Path) -> std::io::Result<Vec<String>> {
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ)))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    let text = plain(&String::from_utf8_lossy(&bytes));
    let mut lines: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    if length > READ && lines.len() > 1 {
        // It may have begun in the middle.
        lines.remove(0);
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Ok(lines)
}

/// Without what moves a terminal's cursor, sets colours, or rings.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => match letters.next() {
                // A control sequence ends with a letter or one of a few signs (ECMA-48, 5.4).
                Some('[') => while letters.next().is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c)) {},
                // An operating system command ends with a bell or an escape.
                Some(']') => while letters.next().is_some_and(|c| c != '\u{7}' && c != '\u{1b}') {},
                _ => {}
            },
            '\r' if letters.peek() != Some(&'\n') => plain.push('\n'),
            '\n' | '\t' => plain.push(letter),
            _ if letter.is_control() => {}
            _ => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_does_is_left_out() {
        assert_eq!(plain("\u{1b}[1;31mred\u{1b}[0m\r\nnext\u{7}\u{1b}]0;title\u{7}!\r\n"), "red\nnext!\n");
        assert_eq!(plain("\u{1b}[2J\u{1b}c\u{0}a\u{8}b"), "ab");
        assert_eq!(plain("\u{1b}["), "");
    }

    #[test]
    fn only_whole_lines_of_a_long_file_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("console");
        let text: String = (0..4000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&file, text + "\n\n").unwrap();
        let lines = last_lines(&file).unwrap();
        assert_eq!(lines.last().unwrap(), "line 3999");
        assert!(lines.len() > 500 && lines[0].starts_with("line "), "{}", lines[0]);
        let first: u32 = lines[0]["line ".len()..].parse().unwrap();
        assert_eq!(first as usize + lines.len(), 4000);
        assert!(last_lines(&folder.path().join("none")).is_err());
    }
}
