//! The demo's folder belongs to whoever makes it, alone, and then to all who show it. A lock on one file
//! says so, and goes with its process: what a killed start left is made anew.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::unflushed::flush_all;
use super::{Progress, Tell};

/// Says that a folder is a demo's; the lock is on it.
const MARK: &str = ".demo";

/// Beside the demo's machines, once all of them are complete.
const COMPLETE: &str = ".demo-complete";

/// Whether a demo may be made or shown in this folder: it is one, or empty, or not there.
pub fn check(library: &Path) -> Result<()> {
    // In this order: what was seen in it may be the mark of another start at the same time.
    let stranger = library.exists() && fs::read_dir(library)?.next().is_some() && !library.join(MARK).exists();
    anyhow::ensure!(!stranger, "{} isn't empty and isn't a demo; nothing in it was touched", library.display());
    Ok(())
}

/// A complete demo, in use.
#[derive(Debug)]
pub struct Hold {
    mark: File,
}

impl Hold {
    /// Waits for others who make the demo, makes it where it isn't complete, and holds it.
    pub fn take(library: &Path, tell: Tell<'_>, build: impl FnOnce(&Path, Tell<'_>) -> Result<()>) -> Result<Self> {
        check(library)?;
        fs::create_dir_all(library).with_context(|| format!("creating {}", library.display()))?;
        let mark = OpenOptions::new().append(true).create(true).open(library.join(MARK))?;
        loop {
            let complete = is_complete(library);
            match if complete { mark.try_lock_shared() } else { mark.try_lock() } {
                Ok(()) if complete => return Ok(Self { mark }),
                // It may have become complete just now.
                Ok(()) if is_complete(library) => mark.unlock()?,
                Ok(()) => {
                    make(library, &mark, tell, build)?;
                    mark.lock_shared()?;
                    return Ok(Self { mark });
                }
                Err(TryLockError::WouldBlock) => {
                    tell(Progress { what: "Another start of the demo is busy with it".into(), ..Progress::default() })?;
                    sleep(Duration::from_millis(100));
                }
                Err(TryLockError::Error(error)) => return Err(error).context("locking the demo"),
            }
        }
    }

    /// Whether nobody else shows the demo.
    pub fn is_last(&self) -> bool {
        self.mark.try_lock().is_ok()
    }
}

fn is_complete(library: &Path) -> bool {
    library.join(COMPLETE).exists()
}

/// Makes the demo; when that fails or is given up, nothing of it stays.
fn make(library: &Path, mut mark: &File, tell: Tell<'_>, build: impl FnOnce(&Path, Tell<'_>) -> Result<()>) -> Result<()> {
    empty(library)?;
    if mark.metadata()?.len() == 0 {
        mark.write_all(b"made by `snaptree demo`; may be deleted\n")?;
    }
    let made = build(library, tell).and_then(|()| flush_all(library).context("flushing the demo"));
    if let Err(error) = made {
        let _ = empty(library);
        return Err(error);
    }
    fs::write(library.join(COMPLETE), "")?;
    Ok(())
}

/// Removes everything but the mark.
fn empty(library: &Path) -> Result<()> {
    let unfinished = |path: &PathBuf| format!("removing an unfinished demo's {}", path.display());
    for entry in fs::read_dir(library)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name() != MARK {
            let removed = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| unfinished(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread::scope;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let above = tempfile::tempdir().expect("a temporary folder");
        let library = above.path().join("demo");
        (above, library)
    }

    fn names(library: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(library)
            .expect("it is there")
            .map(|e| e.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    fn small(library: &Path, _: Tell<'_>) -> Result<()> {
        fs::create_dir(library.join("WEB01"))?;
        Ok(fs::write(library.join("WEB01/machine.json"), "new")?)
    }

    fn unheard(_: Progress) -> Result<()> {
        Ok(())
    }

    #[test]
    fn two_starts_at_once_make_one_demo() -> Result<()> {
        let (_above, library) = folder();
        let made = AtomicU32::new(0);
        let slow = |library: &Path, tell: Tell<'_>| {
            made.fetch_add(1, Ordering::SeqCst);
            sleep(Duration::from_millis(100));
            small(library, tell)
        };
        let holds: Vec<Hold> = scope(|scope| {
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| Hold::take(&library, &mut unheard, slow))).collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect::<Result<_>>()
        })?;
        assert_eq!(made.load(Ordering::SeqCst), 1);
        assert_eq!(names(&library), [MARK, COMPLETE, "WEB01"]);
        assert!(!holds[0].is_last(), "three others show it");
        let [.., last] = &holds[..] else { unreachable!() };
        holds[..3].iter().for_each(|hold| hold.mark.unlock().expect("unlocked"));
        assert!(last.is_last());
        Ok(())
    }

    #[test]
    fn what_was_cut_short_is_made_anew_and_what_is_given_up_goes() -> Result<()> {
        let (_above, library) = folder();
        fs::create_dir_all(library.join("WEB01"))?;
        fs::write(library.join(MARK), "")?;
        fs::write(library.join("WEB01/machine.json"), "old")?;
        let given_up = Hold::take(&library, &mut |_| anyhow::bail!("given up"), |library, tell| {
            small(library, tell)?;
            tell(Progress::default())
        });
        assert_eq!(given_up.unwrap_err().to_string(), "given up");
        assert_eq!(names(&library), [MARK]);
        let _hold = Hold::take(&library, &mut unheard, small)?;
        assert_eq!(fs::read_to_string(library.join("WEB01/machine.json"))?, "new");
        let again = Hold::take(&library, &mut unheard, |_, _| anyhow::bail!("it is complete"))?;
        assert!(!again.is_last());
        Ok(())
    }

    #[test]
    fn what_is_no_demo_is_not_touched() -> Result<()> {
        let (above, _) = folder();
        fs::write(above.path().join("letter.txt"), "dear")?;
        let refused = Hold::take(above.path(), &mut unheard, small).unwrap_err().to_string();
        assert!(refused.ends_with("isn't empty and isn't a demo; nothing in it was touched"), "{refused}");
        assert_eq!(names(above.path()), ["letter.txt"]);
        Ok(())
    }
}
