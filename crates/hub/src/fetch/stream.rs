//! One request for a part of a file, whose bytes are written as they come.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use reqwest::{
    Response, StatusCode, Url,
    header::{CONTENT_RANGE, HeaderMap},
};

use super::{Fetching, Job, Origin};
use crate::{
    endpoint::shown,
    error::{HubError, causes},
    part::{PART, Part},
    tries::Failure,
};

/// Bytes that are written at once.
const WRITTEN: usize = 1 << 20;
/// A connection that brings fewer bytes than this in [`SLOW_TIME`] is given up.
const SLOW_BYTES: u64 = 60 << 10;
const SLOW_TIME: Duration = Duration::from_secs(60);

/// The outcome of a request for a part.
pub(super) enum Came {
    /// The part.
    Part,
    /// The whole file, since the server knows no ranges.
    Whole,
}

/// A request for what is missing of a part.
pub(super) struct PartRequest<'a> {
    pub(super) fetching: &'a Fetching<'a>,
    pub(super) job: &'a Job<'a>,
    pub(super) origin: &'a Origin,
    pub(super) part: &'a Part,
    /// The part's number.
    pub(super) number: usize,
}

impl PartRequest<'_> {
    /// Sends it and writes the answer; `done` is how much of the part is there.
    pub(super) async fn send(&self, done: &mut u64) -> Result<Came, Failure> {
        let size = self.job.entry.size;
        let (start, end) = self.part.bounds(self.number);
        if start + *done == end {
            // The request of its last bytes failed behind them.
            self.note(self.number)?;
            return Ok(Came::Part);
        }
        let is_all = (start + *done, end) == (0, size);
        let range = (!is_all).then_some((start + *done, end));
        let Origin { endpoint, url } = self.origin;
        let response = self.fetching.client.open(endpoint, url, range).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let expected = format!("bytes {}-{}/{size}", start + *done, end - 1);
            let got = text(response.headers(), CONTENT_RANGE.as_str());
            if range.is_none() || got.as_deref() != Some(&*expected) {
                let got = got.unwrap_or_default();
                let problem = format!("{expected} was asked for, {got:?} is given");
                return Err(self.broken(response.url(), problem));
            }
            self.write(response, start..end, done).await?;
            self.note(self.number)?;
            return Ok(Came::Part);
        }
        if let Some(length) = response.content_length().filter(|length| *length != size) {
            let problem = format!("{length} bytes are given, {size} are listed");
            return Err(self.broken(response.url(), problem));
        }
        if start != 0 {
            let problem = "the range that was asked for is ignored".into();
            return Err(self.broken(response.url(), problem));
        }
        self.write_whole(response, done).await?;
        Ok(Came::Whole)
    }

    /// Writes an answer that is the whole file, whatever was asked for: what is there of this part comes again.
    async fn write_whole(&self, response: Response, done: &mut u64) -> Result<(), Failure> {
        let (size, (_, end)) = (self.job.entry.size, self.part.bounds(self.number));
        let is_sized = response.content_length() == Some(size);
        let progress = self.fetching.progress;
        progress.lost(self.job.number, *done);
        *done = 0;
        let mut all = 0;
        let came = self.write(response, 0..size, &mut all).await;
        // Parts that came whole are noted, even where the rest did not.
        let n_whole = if is_sized { all / PART } else { 0 };
        for number in 0..usize::try_from(n_whole).unwrap_or(0) {
            self.note(number)?;
        }
        if let Err(failure) = came {
            // The next try goes on from there, unless it may have been a page of words.
            *done = if is_sized { all.min(end) } else { 0 };
            progress.lost(self.job.number, all - *done);
            return Err(failure);
        }
        for number in self.part.missing() {
            self.note(number)?;
        }
        Ok(())
    }

    /// Writes a body to its range of the file, which it must fill.
    async fn write(
        &self,
        response: Response,
        range: Range<u64>,
        done: &mut u64,
    ) -> Result<(), Failure> {
        let url = response.url().clone();
        let mut body = response.bytes_stream();
        let mut buffer: Vec<u8> = Vec::with_capacity(WRITTEN);
        let (mut window, mut in_window) = (Instant::now(), 0);
        let wanted = range.end - range.start;
        let write = |buffer: &mut Vec<u8>, done: &mut u64| -> Result<(), HubError> {
            self.part
                .write(buffer, range.start + *done)
                .map_err(HubError::file(self.fetching.parts))?;
            *done += buffer.len() as u64;
            self.fetching
                .progress
                .came(self.job.number, buffer.len() as u64);
            buffer.clear();
            Ok(())
        };
        let ended = loop {
            let Some(piece) = body.next().await else {
                break None;
            };
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => break Some(causes(&error)),
            };
            if *done + buffer.len() as u64 + piece.len() as u64 > wanted {
                break Some("more bytes come than were asked for".into());
            }
            buffer.extend_from_slice(&piece);
            in_window += piece.len() as u64;
            if buffer.len() >= WRITTEN {
                write(&mut buffer, done)?;
            }
            if window.elapsed() > SLOW_TIME {
                if in_window < SLOW_BYTES {
                    break Some(format!(
                        "{in_window} bytes came in {} s",
                        SLOW_TIME.as_secs()
                    ));
                }
                (window, in_window) = (Instant::now(), 0);
            }
        };
        write(&mut buffer, done)?;
        match ended {
            Some(problem) => Err(self.broken(&url, problem)),
            None if *done < wanted => {
                let problem = format!("the body ends after {} of {wanted} bytes", *done);
                Err(self.broken(&url, problem))
            }
            None => Ok(()),
        }
    }

    /// Notes that a part is whole.
    fn note(&self, number: usize) -> Result<(), HubError> {
        let noted = self.part.note(number);
        noted.map_err(HubError::file(self.fetching.parts))
    }

    fn broken(&self, url: &Url, problem: String) -> Failure {
        let what = format!("{} from {}", self.job.entry.path, shown(url));
        HubError::Network { what, problem }.into()
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}
