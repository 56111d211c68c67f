//! Which paths an image may name as its parent.

use std::path::{Component, Path, PathBuf};

use crate::disk::{DiskError, DiskErrorKind, ParentLink, Result};
use crate::host_file::Host;

/// Which paths an image may name as its parent: only what lies inside folders that
/// the user opened. A parent locator is input from a stranger.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    roots: Vec<PathBuf>,
}

impl Gate {
    /// A gate that lets through what lies inside these folders, links resolved.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { roots: roots.into_iter().collect() }
    }

    /// A gate that lets through what lies inside an image's own folder.
    pub fn around(image: &Path) -> Self {
        let folder = image.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self::new([folder.unwrap_or(Path::new(".")).to_owned()])
    }

    /// Whether a file that is there lies inside, links resolved.
    pub fn admits(&self, host: &dyn Host, path: &Path) -> bool {
        let Ok(path) = host.canonical(path) else { return false };
        self.roots.iter().filter_map(|root| host.canonical(root).ok()).any(|root| path.starts_with(root))
    }

    /// The files that a child's link may mean, links resolved, the relative path's first.
    /// `child` is the child's path, links resolved.
    ///
    /// What lies outside isn't touched at all: on some systems a look at a path is harmful already.
    pub fn candidates(&self, host: &dyn Host, child: &Path, link: &ParentLink) -> Result<Vec<PathBuf>> {
        let roots: Vec<PathBuf> = self.roots.iter().filter_map(|root| host.canonical(root).ok()).collect();
        let folder = child.parent().unwrap_or(Path::new("/"));
        let relative = link.relative_path.as_deref().and_then(host_path).map(|path| folder.join(path));
        let absolute = link.absolute_path.as_deref().and_then(host_path).filter(|path| path.is_absolute());
        let (mut found, mut outside) = (Vec::new(), None);
        for named in relative.into_iter().chain(absolute) {
            let named = without_dots(&named);
            if !self.roots.iter().chain(&roots).any(|root| named.starts_with(root)) {
                outside.get_or_insert(named);
                continue;
            }
            let Ok(canonical) = host.canonical(&named) else { continue };
            if !roots.iter().any(|root| canonical.starts_with(root)) {
                outside.get_or_insert(canonical);
            } else if !found.contains(&canonical) {
                found.push(canonical);
            }
        }
        match outside {
            Some(outside) if found.is_empty() => Err(DiskError::new(child, DiskErrorKind::OutsideGate(outside))),
            _ => Ok(found),
        }
    }
}

/// The parent's path as the child has it, for messages.
pub fn parent_name(link: &ParentLink) -> String {
    let names = [&link.relative_path, &link.absolute_path, &link.volume_path];
    names.into_iter().flatten().next().cloned().unwrap_or_else(|| "without a path".into())
}

/// A path of a locator as one of this computer; `None` where it can only be one of another kind of computer
/// (a drive letter, a server's share, a volume).
fn host_path(text: &str) -> Option<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return None;
    }
    if cfg!(windows) {
        return Some(PathBuf::from(text));
    }
    let text = text.replace('\\', "/");
    let drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
    (!drive && !text.starts_with("//")).then(|| PathBuf::from(text))
}

/// Takes `.` and `..` out, by the text alone.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
