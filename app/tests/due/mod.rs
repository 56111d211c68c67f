//! A machine whose merge is due.

use crate::home::Home;

/// Makes it, stopped, as WEB01, with a merge that takes a while; answers the bytes to move.
pub fn make(home: &Home) -> u64 {
    home.done(&["machine", "create", "WEB01", "--disk", "32M", "--memory", "8M", "--seed", "17"]);
    for label in ["one", "two", "three"] {
        home.done(&["workload", "run", "WEB01", "--seconds", "40"]);
        home.done(&["snapshot", "take", "WEB01", label]);
    }
    home.done(&["snapshot", "delete", "WEB01", "one", "two"]);
    bytes(home)
}

/// Bytes that are to be merged.
pub fn bytes(home: &Home) -> u64 {
    home.json(0, &["merge", "WEB01", "--what-if"])["plan"]["merge"]["total"]["data"].as_u64().unwrap_or(0)
}
