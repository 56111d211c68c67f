//! The tree of names and values that a configuration is.

/// A value, or a node with more of them below.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    UInt(u64),
    /// A floating-point number.
    Double(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Yes or no.
    Bool(bool),
    /// Named values, in their order. A name can occur more than once.
    Node(Vec<(String, Value)>),
}

impl Value {
    /// The value at a path of names, such as `properties/name`; of several with one name the last.
    pub fn get(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |at, name| at.children().iter().rev().find(|(other, _)| other == name).map(|(_, v)| v))
    }

    /// The named values of a node; none of anything else.
    pub fn children(&self) -> &[(String, Self)] {
        match self {
            Self::Node(children) => children,
            _ => &[],
        }
    }

    /// The text at a path.
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.get(path)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number at a path, where it isn't negative.
    pub fn number(&self, path: &str) -> Option<u64> {
        match self.get(path)? {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::UInt(number) => Some(*number),
            _ => None,
        }
    }

    /// Whether the value at a path says yes.
    pub fn is_set(&self, path: &str) -> bool {
        matches!(self.get(path), Some(Self::Bool(true)))
    }
}
