//! A folder of images: what is wrong with it.

use std::path::Path;

use snaptree_core::diagnose::{DiagnoseError, Diagnosis, Finding, diagnose};

use super::Image;
use crate::cli::output::{Align, Output, table};
use crate::cli::{Done, Failure};
use crate::text::{bytes, count, inside};

impl From<DiagnoseError> for Failure {
    fn from(error: DiagnoseError) -> Self {
        Self::failed(error.to_string())
    }
}

/// `disk check --folder`.
pub fn check(folder: &Path, output: &Output) -> Done {
    let found = diagnose(&Image::host(), folder)?;
    output.say(&found, || lines(&found));
    match found.defects().count() + found.problems.len() {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{} found", count(n, "problem")))),
    }
}

fn lines(found: &Diagnosis) -> Vec<String> {
    let columns = [("FILE", Align::Left), ("STATE", Align::Left), ("HOLDS", Align::Right), ("WHY", Align::Left)];
    let row = |image: &Finding| {
        let file = inside(&image.path, &found.folder);
        vec![file, image.standing().word().to_owned(), bytes(image.held), image.reason.clone()]
    };
    let mut lines = table(&columns, &found.images.iter().map(row).collect::<Vec<_>>());
    lines.extend(found.problems.iter().cloned());
    let pending = |machine: &String| format!("Hyper-V has a merge of {machine} before it, and does it while the machine is off.");
    lines.extend(found.merges_pending.iter().map(pending));
    lines.extend(found.in_use.iter().map(|why| format!("In use: {why}.")));
    lines
}
