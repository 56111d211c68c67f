//! The rules that keep every byte, by name, so that a test can leave one out and see that it is missed.

/// One rule of merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The start is recorded durably before the first change; from then on undelete is refused.
    Started,
    /// New identifiers reach the child before the parent, with the old one still accepted.
    Identifiers,
    /// The target and everything between it and the top is grown to the top's size first.
    Sizes,
    /// Explicit zeros are content: they reach the target.
    Zeros,
    /// From below, only sectors that the target lacks are copied.
    Absent,
    /// The target is durable before anything is marked in a source.
    TargetFlush,
    /// The images between target and source are marked first, the newest owner last.
    ShadowFirst,
    /// Space is punched only after the mark is durable.
    PunchAfterMark,
    /// The children of the top are read at the switch, not taken from the plan.
    Children,
    /// Before the switch, one more look that nothing is left.
    LookAgain,
    /// The switch is journaled, and completed at the next open.
    Journal,
}

/// Which rules are kept: all of them, outside of tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rules {
    #[cfg(any(test, feature = "testing"))]
    off: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(any(test, feature = "testing"))]
    pub fn without(rule: Rule) -> Self {
        Self { off: Some(rule) }
    }

    /// Whether the rule is kept.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn keep(self, rule: Rule) -> bool {
        self.off != Some(rule)
    }

    /// Whether the rule is kept.
    #[cfg(not(any(test, feature = "testing")))]
    pub(crate) const fn keep(self, _rule: Rule) -> bool {
        true
    }
}
