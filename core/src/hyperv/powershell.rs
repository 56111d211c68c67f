//! Texts as PowerShell reads them.

/// A text as a literal string. PowerShell takes four curved marks for a quotation mark as well; each is written twice
/// inside of a string (about_Quoting_Rules).
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for letter in text.chars() {
        if matches!(letter, '\'' | '\u{2018}'..='\u{201b}') {
            quoted.push(letter);
        }
        quoted.push(letter);
    }
    quoted.push('\'');
    quoted
}

/// A machine's name where patterns are taken too, so that it means this machine only (about_Wildcards).
pub fn pattern(name: &str) -> String {
    let escaped: String =
        name.chars().flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '`').then_some('`').into_iter().chain([c])).collect();
    quoted(&escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_string() {
        assert_eq!(quoted("WEB01"), "'WEB01'");
        assert_eq!(quoted("it's; Remove-Item *"), "'it''s; Remove-Item *'");
        assert_eq!(quoted("a\u{2019}b\u{201b}$(x)`n"), "'a\u{2019}\u{2019}b\u{201b}\u{201b}$(x)`n'");
        assert_eq!(pattern("VM[1]*"), "'VM`[1`]`*'");
    }
}
