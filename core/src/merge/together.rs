//! The same done to several images: at once where there is much to do, as what takes time then is waiting for flushes.

use std::thread;

use super::Result;

/// Images that are worked on at once.
const AT_ONCE: usize = 32;

/// Calls `work` for each image, in order or (`at_once`) side by side, and returns what it gave. After an error those
/// that have begun are ended.
pub(super) fn together<T: Send>(
    images: impl IntoIterator<Item = usize>,
    at_once: bool,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<(usize, T)>> {
    let images: Vec<usize> = images.into_iter().collect();
    if !at_once || images.len() < 2 {
        return images.into_iter().map(|image| Ok((image, work(image)?))).collect();
    }
    let mut done = Vec::with_capacity(images.len());
    for group in images.chunks(AT_ONCE) {
        let outcomes: Vec<Result<(usize, T)>> = thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> =
                group.iter().map(|&image| scope.spawn(move || work(image).map(|given| (image, given)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        for outcome in outcomes {
            done.push(outcome?);
        }
    }
    Ok(done)
}
