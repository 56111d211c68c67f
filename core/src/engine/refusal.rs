//! How the rooms' errors become refusals.

use super::{Refusal, RefusalKind};
use crate::disk::{DiskError, DiskErrorKind};
use crate::merge::MergeError;
use crate::snapshot::WhyNot;
use crate::store::StoreError;
use crate::vm::VmError;

impl From<WhyNot> for Refusal {
    fn from(why: WhyNot) -> Self {
        Self::rule(why.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let kind = if error.is_refusal() { RefusalKind::Rule } else { RefusalKind::Failed };
        Self { kind, reason: error.to_string() }
    }
}

impl From<DiskError> for Refusal {
    fn from(error: DiskError) -> Self {
        let kind = match &*error.kind {
            DiskErrorKind::InUse | DiskErrorKind::Refused(_) => RefusalKind::Rule,
            _ => RefusalKind::Failed,
        };
        Self { kind, reason: error.to_string() }
    }
}

impl From<VmError> for Refusal {
    fn from(error: VmError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<MergeError> for Refusal {
    fn from(error: MergeError) -> Self {
        let kind = match &error {
            MergeError::Refused(_) | MergeError::NoSpace { .. } | MergeError::Changed(_) => RefusalKind::Rule,
            _ => RefusalKind::Failed,
        };
        Self { kind, reason: error.to_string() }
    }
}

impl From<crate::repair::RepairError> for Refusal {
    fn from(error: crate::repair::RepairError) -> Self {
        if error.is_refusal() { Self::rule(error.to_string()) } else { Self::failed(error.to_string()) }
    }
}
