//! The body of a store: DICOM files as parts of `multipart/related` (PS3.18 8.6.1.2.2 and 10.5.1, RFC 2387, RFC 2046 5.1.1),
//! read from the disk as they are sent, 64 KiB at a time.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{Stream, stream::try_unfold};
use tokio::{fs::File, io::AsyncReadExt};

use crate::stamp::Stamp;

const PIECE: usize = 64 << 10;
const HEAD: &str = "Content-Type: application/dicom\r\n\r\n";

/// A file to be sent as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Part {
    pub path: PathBuf,
    pub stamp: Stamp,
}

/// The body of one request.
pub struct Multipart {
    boundary: String,
    parts: Arc<[Part]>,
    unreadable: Unreadable,
}

/// The part that ended a body because its file could not be read, and why: no fault of the archive's.
#[derive(Debug, Clone, Default)]
pub struct Unreadable(Arc<Mutex<Option<(usize, String)>>>);

impl Unreadable {
    fn set(&self, number: usize, reason: String) -> io::Error {
        let error = io::Error::other(reason.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((number, reason));
        error
    }

    /// What was found so far.
    pub fn get(&self) -> Option<(usize, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

enum Place {
    Head(usize),
    Data { number: usize, file: File, left: u64 },
    End,
}

impl Multipart {
    /// A body under a boundary of 128 random bits, fresh for each request: that one occurs in a file is less likely than that a disk
    /// returns other bytes than were written.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(parts: Arc<[Part]>) -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let boundary = format!("hiresmed-{:032x}", u128::from_be_bytes(bytes));
        Ok(Self { boundary, parts, unreadable: Unreadable::default() })
    }

    pub fn content_type(&self) -> String {
        format!("multipart/related; type=\"application/dicom\"; boundary={}", self.boundary)
    }

    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        let around = (head(&self.boundary).len() + 2) as u64;
        let parts: u64 = self.parts.iter().map(|part| part.stamp.size_bytes + around).sum();
        parts + end(&self.boundary).len() as u64
    }

    pub fn unreadable(&self) -> Unreadable {
        self.unreadable.clone()
    }

    /// The bytes.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let body = Arc::new(self);
        try_unfold(Place::Head(0), move |place| {
            let body = body.clone();
            async move { body.next(place).await }
        })
    }

    async fn next(&self, place: Place) -> io::Result<Option<(Bytes, Place)>> {
        Ok(match place {
            Place::Head(number) => match self.parts.get(number) {
                None => Some((end(&self.boundary).into(), Place::End)),
                Some(part) => {
                    let file = open(part).await.map_err(|error| self.unreadable.set(number, error))?;
                    let data = Place::Data { number, file, left: part.stamp.size_bytes };
                    Some((head(&self.boundary).into(), data))
                }
            },
            Place::Data { number, left: 0, .. } => Some((Bytes::from_static(b"\r\n"), Place::Head(number + 1))),
            Place::Data { number, mut file, left } => {
                let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
                let read = file.read(&mut piece).await;
                let read = read.map_err(|error| self.unreadable.set(number, format!("it cannot be read ({error})")))?;
                if read == 0 {
                    return Err(self.unreadable.set(number, CHANGED.to_owned()));
                }
                piece.truncate(read);
                Some((piece.into(), Place::Data { number, file, left: left - read as u64 }))
            }
            Place::End => None,
        })
    }
}

const CHANGED: &str = "it has changed since it was looked at; deliver again";

async fn open(part: &Part) -> Result<File, String> {
    let unreadable = |error: io::Error| format!("it cannot be read ({error})");
    let file = File::open(&part.path as &Path).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    // What it was found to be holds for the file that was looked at, and for no other that has its name now.
    if Stamp::of(&metadata) == part.stamp { Ok(file) } else { Err(CHANGED.to_owned()) }
}

fn head(boundary: &str) -> String {
    format!("--{boundary}\r\n{HEAD}")
}

fn end(boundary: &str) -> String {
    format!("--{boundary}--\r\n")
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn parts(folder: &Path, contents: &[&[u8]]) -> Arc<[Part]> {
        let part = |(number, content): (usize, &&[u8])| {
            let path = folder.join(number.to_string());
            std::fs::write(&path, content).unwrap();
            let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
            Part { path, stamp }
        };
        contents.iter().enumerate().map(part).collect()
    }

    async fn written(body: Multipart) -> io::Result<Vec<u8>> {
        let pieces: Vec<Bytes> = body.stream().try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn parts_come_out_as_they_are_between_boundaries_that_are_in_none() {
        let folder = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..200_000u32).map(|at| (at * 31) as u8).collect();
        let earlier = Multipart::new(Arc::new([])).unwrap();
        // A file with another request's boundary, and with what looks like an end.
        let hostile = format!("\r\n--{}--\r\n--hiresmed-\r\n--", earlier.boundary);
        let contents = [&large[..], hostile.as_bytes(), b"", b"\r\n"];
        let body = Multipart::new(parts(folder.path(), &contents)).unwrap();
        let (boundary, length) = (body.boundary.clone(), body.length());
        assert_eq!(body.content_type(), format!("multipart/related; type=\"application/dicom\"; boundary={boundary}"));
        assert!(boundary != earlier.boundary && boundary.len() <= 70, "RFC 2046 allows 70 characters");
        let bytes = written(body).await.unwrap();
        assert_eq!(bytes.len() as u64, length);
        let mut expected = Vec::new();
        for content in contents {
            expected.extend(format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").bytes());
            expected.extend(content);
            expected.extend(b"\r\n");
        }
        expected.extend(format!("--{boundary}--\r\n").bytes());
        assert!(bytes == expected);
        let occurrences = bytes.windows(boundary.len()).filter(|window| *window == boundary.as_bytes()).count();
        assert_eq!(occurrences, contents.len() + 1);
    }

    #[tokio::test]
    async fn a_file_that_changed_or_went_ends_the_body_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let parts = parts(folder.path(), &[b"first", b"second"]);
        std::fs::write(&parts[1].path, b"longer than before").unwrap();
        let body = Multipart::new(parts.clone()).unwrap();
        let unreadable = body.unreadable();
        written(body).await.unwrap_err();
        assert_eq!(unreadable.get(), Some((1, CHANGED.to_owned())));
        std::fs::remove_file(&parts[0].path).unwrap();
        let body = Multipart::new(parts).unwrap();
        let unreadable = body.unreadable();
        written(body).await.unwrap_err();
        assert!(unreadable.get().is_some_and(|(number, reason)| number == 0 && reason.contains("cannot be read")));
    }
}
