//! How a child names its parent's file.

use std::path::{Component, Path};

use crate::host_file::SharedHost;

/// The parent's paths as Windows writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentPaths {
    /// With its folder, from the root.
    pub absolute: String,
    /// From the child's folder: `.\name`, `..\folder\name`.
    pub relative: String,
}

impl ParentPaths {
    /// For a child at `child` of a parent at `parent`.
    pub fn new(host: &SharedHost, child: &Path, parent: &Path) -> Self {
        let folder = |path: &Path| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            host.canonical(folder).unwrap_or_else(|_| folder.to_owned())
        };
        let parent_path = match parent.file_name() {
            Some(name) => folder(parent).join(name),
            None => parent.to_owned(),
        };
        Self { absolute: windows_text(&parent_path), relative: relative_text(&folder(child), &parent_path) }
    }
}

/// A path as Windows writes it.
fn windows_text(path: &Path) -> String {
    path.to_string_lossy().replace('/', "\\")
}

/// The way from a folder to a file, as Windows writes it: `.\name`, `..\folder\name`.
/// Both paths are absolute. Where there is no way (another drive), the file's own path.
fn relative_text(folder: &Path, file: &Path) -> String {
    let (from, to): (Vec<_>, Vec<_>) = (folder.components().collect(), file.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if common == 0 {
        return windows_text(file);
    }
    let up = from.len() - common;
    let mut parts = if up == 0 { vec![".".to_owned()] } else { vec!["..".to_owned(); up] };
    parts.extend(to[common..].iter().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    }));
    parts.join("\\")
}
