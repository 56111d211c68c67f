//! Runs cases in a second process, and watches it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use snaptree_core::disk::ImageFormat;
use snaptree_core::testing::Random;

use super::{chain, image, manifest, nbd, socket};

const USAGE: &str = "fuzz [--target image|vhd|chain|manifest|socket|nbd] [--seed S] [--seconds N] [--only CASE]
Feeds damaged and made-up input to the engine; without --target to all, each for N seconds (60). Seed 1 if not said.
A line FAILED: ... ends with the arguments that repeat the case.";
const TARGETS: [&str; 6] = ["image", "vhd", "chain", "manifest", "socket", "nbd"];

/// A case that takes longer stands still.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so many failures there is enough to look at.
const FAILURES_MAX: u32 = 5;

/// What is fed, and to whom.
pub trait Target {
    /// One case. What is found wrong is the error; a panic is found too.
    fn case(&mut self, random: &mut Random) -> Result<(), String>;
}

#[derive(Clone)]
struct Options {
    target: String,
    seed: u64,
    seconds: u64,
    only: Option<u64>,
    /// In the process that runs the cases: the first one, and the file that says where it is.
    child: Option<(u64, PathBuf)>,
}

impl Options {
    fn parse() -> Option<Self> {
        let mut options = Self { target: String::new(), seed: 1, seconds: 60, only: None, child: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next()?;
            match &*word {
                "--target" => options.target = value,
                "--seed" => options.seed = value.parse().ok()?,
                "--seconds" => options.seconds = value.parse().ok()?,
                "--only" => options.only = Some(value.parse().ok()?),
                "--child" => options.child = Some((value.parse().ok()?, words.next()?.into())),
                _ => return None,
            }
        }
        (options.target.is_empty() || TARGETS.contains(&&*options.target)).then_some(options)
    }

    fn line(&self, case: u64) -> String {
        format!("fuzz --target {} --seed {} --only {case}", self.target, self.seed)
    }
}

pub fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let failed = match &options.child {
        Some((first, place)) => run_cases(&options, *first, place),
        None if options.target.is_empty() => {
            TARGETS.map(|target| supervise(&Options { target: target.into(), ..options.clone() })).iter().sum()
        }
        None => supervise(&options),
    };
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs cases in other processes, one after the other, until the time is over; returns the number of failures.
fn supervise(options: &Options) -> u32 {
    let folder = tempfile::Builder::new().prefix("fuzz-").tempdir().expect("a temporary folder");
    let place = folder.path().join("case");
    let (began, end) = (Instant::now(), Duration::from_secs(options.seconds));
    let (mut next, mut failed) = (options.only.unwrap_or(0), 0);
    while failed < FAILURES_MAX && (began.elapsed() < end || options.only.is_some()) {
        std::fs::write(&place, next.to_le_bytes()).expect("a file");
        let left = end.saturating_sub(began.elapsed()).as_secs().max(1);
        // A process that dies leaves a socket behind: the next one has its own folder.
        let own = folder.path().join(format!("from-{next}"));
        std::fs::create_dir(&own).expect("a folder");
        let outcome = watch(&mut spawn(options, next, left, &place, &own), &place);
        let _ = std::fs::remove_dir_all(&own);
        let at = read_case(&place);
        next = at + 1;
        match outcome {
            Ok(true) => break,
            Ok(false) => failed += 1,
            Err(what) => {
                println!("FAILED: {what}: {}", options.line(at));
                failed += 1;
            }
        }
        if options.only.is_some() {
            break;
        }
    }
    let (cases, seconds) = (next - options.only.unwrap_or(0), began.elapsed().as_secs_f64());
    let rate = cases as f64 / seconds;
    println!("fuzz {}: seed {}, {cases} cases in {seconds:.0} s ({rate:.0}/s), {failed} failed", options.target, options.seed);
    failed
}

fn spawn(options: &Options, first: u64, seconds: u64, place: &Path, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--target", &options.target, "--seed", &options.seed.to_string(), "--seconds", &seconds.to_string()]);
    if let Some(only) = options.only {
        command.args(["--only", &only.to_string()]);
    }
    command.arg("--child").arg(first.to_string()).arg(place);
    // What a socket's owner needs, and everything temporary, lies in the folder that goes with this process.
    command.env("XDG_RUNTIME_DIR", folder).env("TMPDIR", folder).stdin(Stdio::null());
    command.spawn().expect("the same program again")
}

/// Whether the cases were all right, or why the process had to be ended or died.
fn watch(child: &mut Child, place: &Path) -> Result<bool, String> {
    let (mut seen, mut since) = (read_case(place), Instant::now());
    loop {
        if let Some(status) = child.try_wait().expect("the child's status") {
            return match status.code() {
                Some(0) => Ok(true),
                Some(1) => Ok(false),
                _ => Err(format!("the process died ({status})")),
            };
        }
        let now = read_case(place);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("nothing happened for {} s", PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn read_case(place: &Path) -> u64 {
    let mut bytes = [0; 8];
    File::open(place).and_then(|mut file| file.read_exact(&mut bytes)).map_or(0, |()| u64::from_le_bytes(bytes))
}

/// Panics of any thread since the last look, in words.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs cases in this process, from `first` on, until one fails.
fn run_cases(options: &Options, first: u64, place: &Path) -> u32 {
    let began = Instant::now();
    let mut target: Box<dyn Target> = match &*options.target {
        "image" => Box::new(image::ImageTarget::new(ImageFormat::Vhdx)),
        "vhd" => Box::new(image::ImageTarget::new(ImageFormat::Vhd)),
        "chain" => Box::new(chain::ChainTarget::new()),
        "manifest" => Box::new(manifest::ManifestTarget::new()),
        "nbd" => Box::new(nbd::NbdTarget::new()),
        _ => Box::new(socket::SocketTarget::new()),
    };
    std::panic::set_hook(Box::new(|panic| {
        if let Ok(mut panics) = PANICS.lock() {
            panics.push(panic.to_string());
        }
    }));
    // What the target itself needs is there: from now on memory is what a case takes.
    let most = Some(if ["socket", "nbd"].contains(&&*options.target) { 4 << 30 } else { 1 << 30 });
    setrlimit(Resource::As, Rlimit { current: most, maximum: most }).expect("a limit of memory");
    let progress = File::options().write(true).open(place).expect("the file of progress");
    for case in first.. {
        progress.write_all_at(&case.to_le_bytes(), 0).expect("progress");
        let mut random = Random::new(Random::new(options.seed).next_u64() ^ Random::new(case).next_u64());
        let found = catch_unwind(AssertUnwindSafe(|| target.case(&mut random))).unwrap_or(Ok(()));
        let panics = std::mem::take(&mut *PANICS.lock().expect("panics"));
        let problem = panics.first().cloned().map_or(found, Err);
        if let Err(problem) = problem {
            println!("FAILED: {problem}: {}", options.line(case));
            return 1;
        }
        if options.only.is_some() || began.elapsed() >= Duration::from_secs(options.seconds) {
            break;
        }
    }
    0
}
