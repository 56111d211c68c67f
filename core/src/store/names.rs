//! Names that are safe as folder names, here and on Windows.

/// Why a text can't be a machine's name, if it can't.
pub fn name_problem(name: &str) -> Option<String> {
    const RESERVED: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];
    if let Some(problem) = crate::snapshot::label_problem(name) {
        return Some(problem.into());
    }
    if name.len() > 100 {
        return Some("is longer than 100 bytes".into());
    }
    if let Some(wrong) = name.chars().find(|c| r#"/\:*?"<>|"#.contains(*c)) {
        return Some(format!("has the character {wrong:?}, which a folder's name can't have"));
    }
    if name.starts_with(['.', ' ', '-']) || name.ends_with(['.', ' ']) {
        return Some("must not start with a point, space or hyphen, nor end with a point or space".into());
    }
    let stem = name.split('.').next().unwrap_or_default().to_uppercase();
    let port =
        stem.strip_prefix("COM").or(stem.strip_prefix("LPT")).is_some_and(|n| n.len() == 1 && n.chars().all(char::is_numeric));
    (port || RESERVED.contains(&stem.as_str())).then(|| "is reserved on Windows".into())
}

#[cfg(test)]
mod tests {
    use super::name_problem;

    #[test]
    fn names_that_leave_the_folder_or_mean_a_device_are_refused() {
        for name in ["", " ", "..", "a/b", "a\\b", "c:", "-x", "x.", "x ", "nul", "Con.txt", "LPT1", "a\nb", &"x".repeat(101)] {
            assert!(name_problem(name).is_some(), "{name:?}");
        }
        for name in ["web", "Web server 2", "Büro", "a.b", "comet", "LPT10"] {
            assert_eq!(name_problem(name), None, "{name:?}");
        }
    }
}
