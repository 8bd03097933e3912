//! `hiresmed ingest`: a folder or a bucket of what scanners made, de-identified, checked and without duplicates, in a folder that can
//! travel.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use hiresmed_imaging::{
    dicom::{
        ReadOptions,
        deidentify::{Deidentified, Policy, Report, SiteSecret, deidentify},
        write::Syntax,
    },
    files::{write_all_atomically, write_atomically},
};
use hiresmed_protocol::Digest;
use serde::{Deserialize, Serialize};

mod source;

use self::source::{Item, Source};
use crate::{failure, progress::Progress, stamp::Stamp, state::StateFolder};

/// How often it is shown how far all is.
const SHOWN_EVERY: Duration = Duration::from_millis(50);
/// Files that are written and recorded together at most, and as many that wait for it.
const WRITTEN_TOGETHER: usize = 16;
/// Larger images do not wait to be written: those that do are in memory.
const WAITING_BYTES: usize = 4 << 20;
/// Hexadecimal digits of a file's digest that name it, as among inputs.
const DIGITS: usize = 16;
/// The folder of images below the output, and the two records beside it.
const IMAGES: &str = "images";
const INDEX: &str = "index.csv";
const RECORD: &str = "ingest.jsonl";
/// The columns of the index.
const COLUMNS: &str = "file,sha256,patient,study,series,modality,view,rows,columns,frames,row_mm,column_mm";

/// De-identify DICOM images and leave out what cannot be read or was there before
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder with DICOM files, at any depth, or s3://BUCKET[/PREFIX]; key and secret of a bucket are found as AWS' tools find them
    /// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, a profile, a role)
    #[arg(value_name = "DIR|s3://BUCKET")]
    source: PathBuf,
    /// Address of an S3 server that is not AWS
    #[arg(long, env = "AWS_ENDPOINT_URL_S3", value_name = "URL")]
    s3_url: Option<String>,
    /// Folder for the result: images/ and index.csv, which can travel, and ingest.jsonl, which names your files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// File with the site's secret, from which pseudonyms and UIDs follow: at least 16 bytes, the same for all data of a
    /// site [default: site-secret in the state folder, made where it is missing]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What else is kept (PS3.15 E.3): device (maker, model, serial number, station), characteristics (sex, age, size, weight)
    #[arg(long, value_enum, value_name = "WHAT")]
    retain: Vec<Retained>,
    /// Take images although they say, or look as if, they had text burned in
    #[arg(long)]
    waive_burned_in: bool,
    /// How pixels are written; what JPEG-LS cannot hold is written uncompressed
    #[arg(long, value_enum, default_value_t = Compression::JpegLs)]
    compression: Compression,
    /// Largest file, and largest decoded frame, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=16_384), value_name = "MIB")]
    limit_mib: u64,
    /// Files at a time [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256), value_name = "N")]
    threads: Option<u64>,
    /// Folder with the site's secret, where none is named [default: $HIRESMED_STATE, else $XDG_STATE_HOME/hiresmed, else
    /// ~/.local/state/hiresmed]
    #[arg(long = "state", value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Retained {
    Device,
    Characteristics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    JpegLs,
    Deflated,
    None,
}

/// The first line of the record.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// What pseudonyms and kept attributes follow from: secret and options. Nothing can be told from it.
    settings: String,
}

/// A line of the record: a source file and what became of it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    /// The file, from the source folder on. It may name a patient: the record stays at the site.
    source: String,
    size_bytes: u64,
    /// Time of the last change, nanoseconds since 1970.
    changed_ns: i64,
    #[serde(flatten)]
    end: End,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
enum End {
    Taken {
        file: String,
        sha256: String,
        /// Its line of the index.
        index: String,
        report: Box<Report>,
    },
    /// The same image, without its identity, came from another file.
    Duplicate {
        file: String,
    },
    Refused {
        error: String,
    },
}

/// How many came to which end, over all runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    taken: usize,
    duplicates: usize,
    refused: usize,
}

impl Counts {
    fn add(&mut self, end: &End) {
        match end {
            End::Taken { .. } => self.taken += 1,
            End::Duplicate { .. } => self.duplicates += 1,
            End::Refused { .. } => self.refused += 1,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The source cannot be listed or fails, the secret cannot be used, or the output cannot be written. A file that is refused is no error: the
/// record says why, the rest goes on, and the exit code is 2.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let source = Source::open(&arguments.source, arguments.s3_url.as_deref())?;
    let secret = secret(arguments)?;
    let images = arguments.out.join(IMAGES);
    // The nearest folder that is there tells where it will be.
    let there = arguments.out.ancestors().find_map(|folder| folder.canonicalize().ok());
    if there.is_some_and(|there| source.holds(&there)) {
        let text = format!("--out {} lies in the source; name a folder beside it", arguments.out.display());
        return Err(failure::refused(anyhow!(text)));
    }
    fs::create_dir_all(&images).with_context(|| format!("{} cannot be made", images.display()))?;
    let files = source.list()?;
    if files.is_empty() {
        return Err(failure::refused(anyhow!("there are no files in {}", arguments.source.display())));
    }
    let policy = Policy {
        retain_device: arguments.retain.contains(&Retained::Device),
        retain_characteristics: arguments.retain.contains(&Retained::Characteristics),
        waive_burned_in: arguments.waive_burned_in,
        syntax: match arguments.compression {
            Compression::JpegLs => Syntax::JpegLs,
            Compression::Deflated => Syntax::Deflated,
            Compression::None => Syntax::Explicit,
        },
    };
    let retained = format!("{} {}", policy.retain_device, policy.retain_characteristics);
    let (mut output, before) = Output::open(&arguments.out, &secret.fingerprint(&retained))?;
    let options = ReadOptions { limit_bytes: arguments.limit_mib << 20 };
    let Before { seen, there } = before;
    let (root, there) = (&arguments.out, Mutex::new(there));
    let work = Work { source: &source, secret: &secret, policy, options, root, seen, there };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    work.all(&files, arguments.threads.map_or(cores, |threads| threads as usize), &mut output)?;
    let Counts { taken, duplicates, refused } = output.counts;
    output.finish()?;
    eprintln!("{taken} images taken, {duplicates} duplicates left out, {refused} files refused");
    if refused > 0 {
        eprintln!(
            "{} says why, a line a file; it names your files and stays here",
            arguments.out.join(RECORD).display()
        );
    }
    println!("{}", arguments.out.join(INDEX).display());
    Ok(if refused > 0 { ExitCode::from(failure::REFUSED) } else { ExitCode::SUCCESS })
}

/// The site's secret: of the named file, or the state folder's, which is made where it is missing.
fn secret(arguments: &Arguments) -> Result<SiteSecret> {
    let path = match &arguments.secret_file {
        Some(path) => path.clone(),
        None => {
            let path = StateFolder::open(arguments.state.as_deref())?.root().join("site-secret");
            if !path.exists() {
                let mut bytes = [0u8; 32];
                getrandom::fill(&mut bytes)
                    .map_err(|error| anyhow!("this machine gives no random numbers: {error}"))?;
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
                file.write_all(&bytes).and_then(|()| file.sync_all())?;
                eprintln!(
                    "a secret for this site was made: {}\n  Keep a copy where nobody else can read it: with it, other files of the same \
                     patients get the same pseudonyms and UIDs.",
                    path.display()
                );
            }
            path
        }
    };
    let bytes = fs::read(&path).with_context(|| format!("the secret {} cannot be read", path.display()));
    let secret = SiteSecret::new(bytes.map_err(failure::refused)?);
    secret.ok_or_else(|| {
        let text = format!("the secret {} has fewer than {} bytes", path.display(), SiteSecret::LEAST_BYTES);
        failure::refused(anyhow!(text))
    })
}

/// Everything that the threads share.
struct Work<'a> {
    source: &'a Source,
    secret: &'a SiteSecret,
    policy: Policy,
    options: ReadOptions,
    /// The output folder.
    root: &'a Path,
    /// What an earlier run has seen.
    seen: HashSet<Seen>,
    /// Digests of the images that there are, the first half of each. Who adds one sends its line before anybody else looks: no record names
    /// a duplicate before the image.
    there: Mutex<HashSet<u128>>,
}

impl Work<'_> {
    /// Takes all files but those that an earlier run has seen as they are now: some threads read and de-identify them, and this one writes, so
    /// that neither waits for the other.
    fn all(&self, files: &[Item], threads: usize, output: &mut Output) -> Result<()> {
        let mut progress = Progress::begin("files", files.len() as u64, 0);
        let (next, done, stopped) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let turn = &|sender: SyncSender<Ended>| -> Result<()> {
            while !stopped.load(Ordering::Relaxed)
                && let Some(item) = files.get(next.fetch_add(1, Ordering::Relaxed))
            {
                self.one(item, &sender).inspect_err(|_| stopped.store(true, Ordering::Relaxed))?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let (sender, receiver) = mpsc::sync_channel(WRITTEN_TOGETHER);
        std::thread::scope(|scope| {
            let begin = |sender: SyncSender<Ended>| scope.spawn(move || turn(sender));
            let workers: Vec<_> = (0..threads).map(|_| begin(sender.clone())).collect();
            drop(sender);
            let written = output.take_all(receiver, || progress.done(done.load(Ordering::Relaxed) as u64));
            let worked = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
            // Where writing has failed, so has sending.
            std::iter::once(written).chain(worked).collect()
        })
    }

    /// # Errors
    /// The source is gone, or nothing can be written any more. What is wrong with the file is its end.
    fn one(&self, item: &Item, sender: &SyncSender<Ended>) -> Result<()> {
        let source = item.name.clone();
        let Stamp { size_bytes, changed_ns } = self.source.stamp(item);
        let seen = (source, size_bytes, changed_ns);
        if self.seen.contains(&seen) {
            return Ok(());
        }
        let refused = |error: String| End::Refused { error };
        let end = if size_bytes > self.options.limit_bytes {
            refused(format!("it has {size_bytes} bytes, the limit is {}; raise --limit-mib", self.options.limit_bytes))
        } else {
            // The name is in the line already.
            match self.source.read(item)?.and_then(|bytes| self.deidentify(&bytes)) {
                Ok(made) => return self.take(seen, made, sender),
                Err(error) => refused(error),
            }
        };
        send(sender, Ended { line: line(seen, end), image: None })
    }

    fn deidentify(&self, bytes: &[u8]) -> Result<Deidentified, String> {
        deidentify(bytes, "", self.secret, &self.policy, self.options).map_err(|error| error.fault.to_string())
    }

    /// Sends an image to be written, unless the same one is there.
    fn take(&self, seen: Seen, made: Deidentified, sender: &SyncSender<Ended>) -> Result<()> {
        let sha256 = Digest::of(&made.bytes).to_string();
        let file = format!("{IMAGES}/{}.dcm", &sha256[..DIGITS]);
        let index = row(&file, &sha256, &made);
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        if key(&sha256).is_some_and(|key| !there.insert(key)) {
            return send(sender, Ended { line: line(seen, End::Duplicate { file }), image: None });
        }
        let mut image = Some((self.root.join(&file), made.bytes));
        if let Some((path, bytes)) = image.take_if(|(_, bytes)| bytes.len() > WAITING_BYTES) {
            write_atomically(&path, &bytes)?;
        }
        let end = End::Taken { file, sha256, index, report: Box::new(made.report) };
        send(sender, Ended { line: line(seen, end), image })
    }
}

/// A file that is done with, but for writing.
struct Ended {
    line: Line,
    /// Path and bytes of an image that is to be written.
    image: Option<(PathBuf, Vec<u8>)>,
}

fn line((source, size_bytes, changed_ns): Seen, end: End) -> Line {
    Line { source, size_bytes, changed_ns, end }
}

/// # Errors
/// Writing has failed, which is reported where it did.
fn send(sender: &SyncSender<Ended>, ended: Ended) -> Result<()> {
    sender.send(ended).map_err(|_| anyhow!("nothing can be written any more"))
}

/// A source file as it was: its name, size and time.
type Seen = (String, u64, i64);

/// What earlier runs have left.
#[derive(Default)]
struct Before {
    seen: HashSet<Seen>,
    /// Digests of the images, the first half of each.
    there: HashSet<u128>,
}

/// The output folder.
struct Output {
    root: PathBuf,
    record: File,
    /// Lines of the index, by file.
    index: BTreeSet<String>,
    counts: Counts,
}

impl Output {
    /// Opens a folder, with what an earlier run left in it. What that run refused is tried again: a limit may have been raised, a check
    /// waived.
    fn open(root: &Path, settings: &str) -> Result<(Self, Before)> {
        let path = root.join(RECORD);
        let mut output = Self {
            root: root.to_path_buf(),
            record: OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("{} cannot be written", path.display()))?,
            index: BTreeSet::new(),
            counts: Counts::default(),
        };
        let mut before = Before::default();
        let (mut whole, mut begun) = (true, false);
        for text in BufReader::new(File::open(&path)?).lines() {
            let text = text.with_context(|| format!("{} cannot be read", path.display()))?;
            if let Ok(head) = serde_json::from_str::<Head>(&text) {
                begun = true;
                if head.settings != settings {
                    let text = format!(
                        "{} was begun with another secret, or other attributes were kept; go on with those, or name another --out",
                        root.display()
                    );
                    return Err(failure::refused(anyhow!(text)));
                }
                continue;
            }
            // A run that was cut off may leave half a line at the end: its file is taken again.
            let Ok(line) = serde_json::from_str::<Line>(&text) else {
                whole = text.is_empty();
                continue;
            };
            whole = true;
            if let End::Taken { sha256, index, .. } = &line.end {
                before.there.extend(key(sha256));
                output.index.insert(index.clone());
            }
            if !matches!(line.end, End::Refused { .. }) {
                output.counts.add(&line.end);
                before.seen.insert((line.source, line.size_bytes, line.changed_ns));
            }
        }
        if !whole {
            output.record.write_all(b"\n")?;
        }
        if !begun {
            let mut head = serde_json::to_vec(&Head { settings: settings.to_owned() })?;
            head.push(b'\n');
            output.record.write_all(&head)?;
        }
        Ok((output, before))
    }

    /// Writes what comes until nobody is left to send, and says when to show how far all is.
    fn take_all(&mut self, receiver: Receiver<Ended>, mut show: impl FnMut()) -> Result<()> {
        loop {
            let first = receiver.recv_timeout(SHOWN_EVERY);
            show();
            match first {
                Ok(first) => {
                    let others = receiver.try_iter().take(WRITTEN_TOGETHER - 1);
                    self.take(std::iter::once(first).chain(others).collect())?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Writes images, and then their lines of the record: what is recorded is on the disk.
    fn take(&mut self, ended: Vec<Ended>) -> Result<()> {
        let images = ended.iter().filter_map(|ended| ended.image.as_ref());
        let images: Vec<_> = images.map(|(path, bytes)| (path.as_path(), bytes.as_slice())).collect();
        write_all_atomically(&images)?;
        let mut text = Vec::new();
        for Ended { line, .. } in ended {
            self.counts.add(&line.end);
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            if let End::Taken { index, .. } = line.end {
                self.index.insert(index);
            }
        }
        let path = self.root.join(RECORD);
        self.record.write_all(&text).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Writes the index.
    fn finish(&self) -> Result<()> {
        let rows: Vec<&str> = self.index.iter().map(String::as_str).collect();
        let text = format!("{COLUMNS}\n{}{}", rows.join("\n"), if rows.is_empty() { "" } else { "\n" });
        let path = self.root.join(INDEX);
        write_atomically(&path, text.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))
    }
}

/// Half of a digest, which is enough to tell images apart.
fn key(sha256: &str) -> Option<u128> {
    u128::from_str_radix(sha256.get(..32)?, 16).ok()
}

/// A line of the index: nothing in it is of a patient, but the pseudonym.
fn row(file: &str, sha256: &str, made: &Deidentified) -> String {
    let (attributes, report) = (&made.attributes, &made.report);
    let number = |value: Option<String>| value.unwrap_or_default();
    [
        file.to_owned(),
        sha256.to_owned(),
        report.patient.clone(),
        report.study.clone(),
        report.series.clone(),
        number(report.modality.clone()),
        attributes.view().map_or("", |view| view.as_str()).to_owned(),
        number(attributes.rows.map(|rows| rows.to_string())),
        number(attributes.columns.map(|columns| columns.to_string())),
        number(attributes.frames.map(|frames| frames.to_string())),
        number(attributes.spacing.map(|spacing| spacing.row_mm.to_string())),
        number(attributes.spacing.map(|spacing| spacing.column_mm.to_string())),
    ]
    .join(",")
}
