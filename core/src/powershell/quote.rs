//! Text of strangers inside a command.

/// Text as one word: nothing in it is expanded or ends it. PowerShell takes typographic quotation marks for plain ones.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("'");
    for char in text.chars() {
        if matches!(char, '\'' | '\u{2018}'..='\u{201b}') {
            quoted.push(char);
        }
        quoted.push(char);
    }
    quoted.push('\'');
    quoted
}
