//! Reads the project's own source, as far as its tests look at its shape: paths that code names, and lines.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// One source file.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// The modules that it lies in, outermost first; empty for `lib.rs` and `main.rs`.
    pub modules: Vec<String>,
    /// Whether all of it is for tests.
    pub for_tests: bool,
    /// Its lines.
    pub lines: usize,
    /// Its code: comments, strings and what is for tests blanked out, lines kept.
    code: String,
}

/// A path that code names, such as `crate::disk::Image`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPath {
    /// The line, from 1.
    pub line: usize,
    /// The name behind the crate's.
    pub room: String,
}

/// All source files below a folder, sorted by path; build folders are left out.
pub fn files(folder: &Path) -> Vec<SourceFile> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(dir) = folders.pop() {
        let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let mut file = SourceFile::parse(path.strip_prefix(folder).expect("below the folder"), &text);
                file.path = path;
                found.push(file);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl SourceFile {
    /// Looks at a file's text; `path` is relative to the crate's `src`.
    pub fn parse(path: &Path, text: &str) -> Self {
        let mut modules: Vec<String> =
            path.with_extension("").components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect();
        if modules.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
            modules.pop();
        }
        let for_tests = modules.iter().any(|module| module == "tests" || module.ends_with("_tests"));
        Self { path: path.to_path_buf(), modules, for_tests, lines: text.lines().count(), code: without_tests(&blanked(text)) }
    }

    /// The names behind `crate::`, and behind chains of `super::` that lead to the crate's root.
    pub fn crate_paths(&self) -> Vec<NamedPath> {
        let up = "super::".repeat(self.modules.len());
        let mut found = self.paths_of("crate");
        if !self.modules.is_empty() {
            found.extend(self.paths_behind(&up));
        }
        found.sort_by(|a, b| (a.line, &a.room).cmp(&(b.line, &b.room)));
        found
    }

    /// The names behind `NAME::`, groups in braces included.
    pub fn paths_of(&self, name: &str) -> Vec<NamedPath> {
        self.paths_behind(&format!("{name}::"))
    }

    fn paths_behind(&self, prefix: &str) -> Vec<NamedPath> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices(prefix) {
            let before = self.code[..at].chars().next_back();
            if before.is_some_and(|c| is_name(c) || c == ':') {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            for room in first_names(&self.code[at + prefix.len()..]) {
                // `super::super::` inside a longer chain is found where the chain begins.
                if room != "super" {
                    found.push(NamedPath { line, room });
                }
            }
        }
        found
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The name at the start of `rest`, or the first names of a group `{a::b, c}` there.
fn first_names(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        let name: String = rest.chars().take_while(|&c| is_name(c)).collect();
        return if name.is_empty() { Vec::new() } else { vec![name] };
    };
    let mut names = Vec::new();
    let (mut depth, mut name, mut first) = (0, String::new(), true);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                first = true;
            }
            c if depth == 0 && first && is_name(c) => name.push(c),
            c if depth == 0 && !c.is_whitespace() => first = false,
            _ => {}
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty() && name != "self");
    names
}

/// The text with comments and the insides of strings blanked out.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_string(rest).filter(|_| !out.ends_with(is_name)) {
            raw
        } else if c == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find("'").map_or(rest.len(), |end| end + 2)
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.extend(rest[..taken].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[taken..];
    }
    out
}

/// Length of the string literal at the start.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string literal at the start, if there is one.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - inside.len();
    Some(inside.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// The code with what stands behind `#[cfg(test)]` blanked out: up to the `;` or the closing brace.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_owned();
    while let Some(start) = out.find(MARK) {
        let (mut end, mut depth) = (out.len(), 0);
        for (at, c) in out[start + MARK.len()..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(c, ';' | '}') {
                end = start + MARK.len() + at + 1;
                break;
            }
        }
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}
