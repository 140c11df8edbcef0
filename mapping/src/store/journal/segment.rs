//! The files of the journal: how a frame is written, and how frames are found again after a crash.
//!
//! ```text
//! segment  := magic (8) version (4) salt (4) base (8) checksum of these (4), then frames
//! frame    := magic (4) length of the changes (4) checksum (4) synced (8) changes
//! ```
//!
//! Numbers are big-endian. A *position* counts the octets of all frames ever written; `base` is that of a segment's first frame,
//! so that a missing segment shows. `synced` is the position up to which the disk had everything when the frame was written: it
//! tells damage (an error) from the tail that a power failure took (cut off). The salt, the position and `synced` are part of a
//! frame's checksum, so that a frame inside a value is not taken for one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::checksum::crc32c;
use super::courtesy::Courtesy;
use crate::store::{Change, decode};

const MAGIC: [u8; 8] = *b"ISTHMUSJ";
const VERSION: u32 = 1;
const HEADER: usize = 28;
const FRAME_MAGIC: [u8; 4] = *b"FRM1";
const FRAME_HEADER: usize = 20;
const PREFIX: &str = "journal-";
const WRONG_CHECKSUM: &str = "the checksum is wrong";
/// Octets that a closed segment is read by.
const READ_AT_ONCE: usize = 64 << 10;
/// What a new segment is called until its header is written.
const NEW: &str = "new-journal";

/// A segment on disk with all its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) base: u64,
    pub(super) end: u64,
}

impl Segment {
    pub(super) fn octets(&self) -> u64 {
        self.end - self.base
    }

    /// Every change with the offset of its value in the file, oldest first; in little memory, and giving way.
    ///
    /// # Errors
    /// The file is not as it was when it was closed; then some of the changes were told already.
    pub(super) fn each(
        &self,
        courtesy: &Courtesy,
        mut each: impl FnMut(Change<'_>, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = BufReader::with_capacity(READ_AT_ONCE, File::open(&self.path)?);
        let wrong = |offset: u64, what: &str| damaged(&self.path, offset as usize, what);
        let mut header = Vec::new();
        file.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        let salt = salt_of(&header, self.base).map_err(|what| wrong(0, what))?;
        let (mut position, mut changes) = (self.base, Vec::new());
        while position < self.end {
            let offset = HEADER as u64 + position - self.base;
            let mut header = [0; FRAME_HEADER];
            file.read_exact(&mut header).map_err(|_| wrong(offset, WRONG_CHECKSUM))?;
            let length = u64::from(word(&header[4..8]));
            changes.clear();
            let room = self.end - position;
            if header[..4] == FRAME_MAGIC && length + FRAME_HEADER as u64 <= room {
                file.by_ref().take(length).read_to_end(&mut changes)?;
            }
            let sum = checksum(salt, position, &header[12..20], &changes);
            if changes.len() as u64 != length || sum != word(&header[8..12]) {
                return Err(wrong(offset, WRONG_CHECKSUM));
            }
            // A quarter of a nanosecond for an octet that is read and again for its checksum.
            courtesy.did(changes.len() as u32 / 2);
            let mut rest = changes.as_slice();
            while !rest.is_empty() {
                let change;
                (change, rest) =
                    decode(rest).ok_or_else(|| wrong(offset, "a change does not decode"))?;
                let behind = changes.len() - rest.len() - change.1.map_or(0, <[u8]>::len);
                each(change, offset as usize + FRAME_HEADER + behind)?;
            }
            position += length + FRAME_HEADER as u64;
        }
        Ok(())
    }
}

/// Removes the file of a segment that nobody needs any more, in steps: what the kernel does for many octets at once holds up others.
pub(super) fn remove(path: &Path, courtesy: &Courtesy) -> io::Result<()> {
    const STEP: u64 = 1 << 20;
    /// Nanoseconds, about, that freeing so many octets takes.
    const FREEING: u32 = 100_000;
    let file = OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    for end in (0..length.div_ceil(STEP)).rev().map(|step| step * STEP) {
        file.set_len(end)?;
        courtesy.did(FREEING);
    }
    fs::remove_file(path)
}

/// The octets of a segment file, and where its frames are.
pub(super) struct Contents {
    octets: Vec<u8>,
    base: u64,
    salt: u32,
    /// The changes of each frame, up to the first octets that are no frame.
    frames: Vec<Range<usize>>,
    /// Where the last frame ends.
    end: usize,
}

/// A frame with a right checksum.
struct Frame {
    changes: Range<usize>,
    synced: u64,
}

impl Contents {
    fn scan(octets: Vec<u8>, base: u64, salt: u32) -> Self {
        let mut contents = Self { octets, base, salt, frames: Vec::new(), end: HEADER };
        while let Some(frame) = contents.frame(contents.end) {
            contents.end = frame.changes.end;
            contents.frames.push(frame.changes);
        }
        contents
    }

    /// The position behind the last frame.
    fn position(&self) -> u64 {
        self.base + (self.end - HEADER) as u64
    }

    /// Every change with the offset of its value in the file, oldest first.
    pub(super) fn changes(&self) -> impl Iterator<Item = (Change<'_>, usize)> {
        self.frames.iter().flat_map(move |frame| {
            let mut rest = &self.octets[frame.clone()];
            std::iter::from_fn(move || {
                let change;
                (change, rest) = decode(rest)?;
                let behind = frame.end - rest.len();
                Some((change, behind - change.1.map_or(0, <[u8]>::len)))
            })
        })
    }

    /// Whether every octet of every frame belongs to a change; the offset of the frame if not.
    fn check(&self) -> Result<(), usize> {
        for frame in &self.frames {
            let mut rest = &self.octets[frame.clone()];
            while !rest.is_empty() {
                rest = decode(rest).ok_or(frame.start - FRAME_HEADER)?.1;
            }
        }
        Ok(())
    }

    fn frame(&self, at: usize) -> Option<Frame> {
        let (header, rest) = self.octets.get(at..)?.split_first_chunk::<FRAME_HEADER>()?;
        let (magic, length) = (&header[..4], word(&header[4..8]) as usize);
        if magic != FRAME_MAGIC || rest.len() < length {
            return None;
        }
        let position = self.base + (at - HEADER) as u64;
        let (synced, changes) = (&header[12..20], &rest[..length]);
        if checksum(self.salt, position, synced, changes) != word(&header[8..12]) {
            return None;
        }
        let start = at + FRAME_HEADER;
        Some(Frame { changes: start..start + length, synced: long(synced) })
    }

    /// The position up to which frames behind [`Self::end`] say that the disk had everything.
    fn promise(&self) -> u64 {
        let starts = (self.end..self.octets.len()).filter(|&at| {
            self.octets[at] == FRAME_MAGIC[0] && self.octets[at..].starts_with(&FRAME_MAGIC)
        });
        starts.filter_map(|at| self.frame(at)).map(|frame| frame.synced).max().unwrap_or(0)
    }
}

/// The segment that is written.
pub(super) struct Writer {
    file: Arc<File>,
    segment: Segment,
    salt: u32,
    buffer: Vec<u8>,
    created: Instant,
    /// Octets of a failed write may be behind the end.
    torn: bool,
}

impl Writer {
    /// Starts a segment at the position `base`; an empty one that starts there is replaced.
    pub(super) fn create(directory: &Path, base: u64) -> io::Result<Self> {
        let salt = rand::random();
        let mut header = [MAGIC.as_slice(), &VERSION.to_be_bytes()].concat();
        header.extend_from_slice(&u32::to_be_bytes(salt));
        header.extend_from_slice(&base.to_be_bytes());
        let sum = crc32c(0, &header);
        header.extend_from_slice(&sum.to_be_bytes());
        let (new, path) = (directory.join(NEW), directory.join(format!("{PREFIX}{base:016x}")));
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = file.map_err(|error| named(&new, &error))?;
        file.write_all_at(&header, 0)?;
        fs::rename(&new, &path)?;
        Ok(Self {
            file: Arc::new(file),
            segment: Segment { path, base, end: base },
            salt,
            buffer: Vec::new(),
            created: Instant::now(),
            torn: false,
        })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(super) fn created(&self) -> Instant {
        self.created
    }

    /// Writes encoded changes as one frame, whole or not at all.
    pub(super) fn append(&mut self, changes: &[u8], synced: u64) -> io::Result<()> {
        let length = u32::try_from(changes.len()).map_err(io::Error::other)?;
        let offset = HEADER as u64 + self.segment.octets();
        if self.torn {
            self.file.set_len(offset)?;
            self.torn = false;
        }
        let synced = synced.to_be_bytes();
        let sum = checksum(self.salt, self.segment.end, &synced, changes);
        self.buffer.clear();
        self.buffer.extend_from_slice(&FRAME_MAGIC);
        self.buffer.extend_from_slice(&length.to_be_bytes());
        self.buffer.extend_from_slice(&sum.to_be_bytes());
        self.buffer.extend_from_slice(&synced);
        self.buffer.extend_from_slice(changes);
        if let Err(error) = self.file.write_all_at(&self.buffer, offset) {
            // When this fails too, it is done before the next frame.
            self.torn = self.file.set_len(offset).is_err();
            return Err(error);
        }
        self.segment.end += self.buffer.len() as u64;
        Ok(())
    }
}

/// The segments of `directory` in order, with everything up to `folded` left out and the torn tail cut off.
///
/// # Errors
/// A segment is damaged, missing or of another version; the error names file and offset.
pub(super) fn recover(directory: &Path, folded: u64) -> io::Result<Vec<(Segment, Contents)>> {
    let mut files = list(directory)?;
    while files.get(1).is_some_and(|(base, _)| *base <= folded) {
        fs::remove_file(files.remove(0).1)?;
    }
    let mut segments = Vec::new();
    let mut position = folded;
    for (number, (base, path)) in files.iter().enumerate() {
        if *base != position {
            let what = format!("begins at position {base}; what starts at {position} is missing");
            return Err(damaged(path, 0, &what));
        }
        let Some(contents) = check(path, *base, number + 1 == files.len())? else { break };
        position = contents.position();
        let is_torn = contents.end < contents.octets.len();
        if position > *base {
            segments.push((Segment { path: path.clone(), base: *base, end: position }, contents));
        }
        if is_torn {
            cut(&files[number..], position)?;
            break;
        }
    }
    Ok(segments)
}

/// Whether there is any segment.
pub(super) fn any(directory: &Path) -> io::Result<bool> {
    Ok(!list(directory)?.is_empty())
}

fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let base = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(base) = base.and_then(|base| u64::from_str_radix(base, 16).ok()) {
            files.push((base, entry.path()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// What is good of a segment; `None` if it is the last one and was just begun.
fn check(path: &Path, base: u64, last: bool) -> io::Result<Option<Contents>> {
    let octets = read(path)?;
    let salt = match salt_of(&octets, base) {
        Ok(salt) => salt,
        // A power failure may take the header of a segment that was just begun.
        Err(_) if last && octets.iter().all(|octet| *octet == 0) => return Ok(None),
        Err(what) => return Err(damaged(path, 0, what)),
    };
    let contents = Contents::scan(octets, base, salt);
    contents.check().map_err(|at| damaged(path, at, "a change does not decode"))?;
    if contents.promise() > contents.position() {
        return Err(damaged(path, contents.end, WRONG_CHECKSUM));
    }
    Ok(Some(contents))
}

/// Cuts off what lies behind `position`: the rest of the first file, and the other files.
fn cut(files: &[(u64, PathBuf)], position: u64) -> io::Result<()> {
    let Some(((base, first), others)) = files.split_first() else { return Ok(()) };
    let offset = HEADER + (position - base) as usize;
    for (base, path) in others {
        let octets = read(path)?;
        let Ok(salt) = salt_of(&octets, *base) else { continue };
        let contents = Contents { octets, base: *base, salt, frames: Vec::new(), end: HEADER };
        if contents.promise() > position {
            return Err(damaged(first, offset, WRONG_CHECKSUM));
        }
    }
    let file = OpenOptions::new().write(true).open(first)?;
    let length = file.metadata()?.len();
    tracing::warn!(
        file = %first.display(),
        offset,
        octets = length.saturating_sub(offset as u64),
        "the last write before the crash was not complete; its remains are cut off"
    );
    others.iter().try_for_each(|(_, path)| fs::remove_file(path))?;
    if length > offset as u64 {
        file.set_len(offset as u64)?;
    }
    file.sync_all()
}

/// The salt of a segment whose header is right.
fn salt_of(octets: &[u8], base: u64) -> Result<u32, &'static str> {
    let header = octets.first_chunk::<HEADER>().ok_or("shorter than a header")?;
    if header[..8] != MAGIC {
        return Err("not a journal of isthmus");
    }
    if crc32c(0, &header[..24]) != word(&header[24..]) {
        return Err("the header's checksum is wrong");
    }
    if word(&header[8..12]) != VERSION {
        return Err("written by another version of isthmus");
    }
    if long(&header[16..24]) != base {
        return Err("the file has the name of another segment");
    }
    Ok(word(&header[12..16]))
}

fn checksum(salt: u32, position: u64, synced: &[u8], changes: &[u8]) -> u32 {
    let mut about = [0; 24];
    about[..4].copy_from_slice(&salt.to_be_bytes());
    about[4..12].copy_from_slice(&position.to_be_bytes());
    about[12..20].copy_from_slice(synced);
    about[20..].copy_from_slice(&(changes.len() as u32).to_be_bytes());
    crc32c(crc32c(0, &about), changes)
}

fn word(octets: &[u8]) -> u32 {
    octets.iter().fold(0, |word, octet| word << 8 | u32::from(*octet))
}

fn long(octets: &[u8]) -> u64 {
    octets.iter().fold(0, |long, octet| long << 8 | u64::from(*octet))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| named(path, &error))
}

/// An error with the file that it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// An error about a file that is not as this program left it.
pub(super) fn damaged(path: &Path, offset: usize, what: &str) -> io::Error {
    let text = format!("{}: offset {offset}: {what}", path.display());
    io::Error::new(io::ErrorKind::InvalidData, text)
}
