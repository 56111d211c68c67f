//! Every invariant of a manifest. A manifest is hostile input.

use super::Machine;

/// Checks every invariant; the error lists everything that is wrong, in words with the field.
/// Run before each publish and on each load.
#[expect(unused_variables, reason = "to be written")]
pub fn validate(machine: &Machine) -> Result<(), Vec<String>> {
    todo!()
}
