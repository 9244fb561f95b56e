//! Errors of a request: the caller gets a kind, a code and a message; only the log gets the source.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

/// An error that leaves the service. Cheap to clone: coalesced requests share one.
#[derive(Clone, Debug)]
pub struct Error {
    /// The kind of the problem; the dialect makes a status of it.
    pub kind: ErrorKind,
    /// Machine-readable, such as `model_not_found`.
    pub code: Option<Cow<'static, str>>,
    /// The request's field that is wrong.
    pub param: Option<&'static str>,
    /// The entry of one of the request's lists that it is about.
    pub entry: Option<ListEntry>,
    /// For the client: what is wrong, with the value, and what would be right. The entry stands in front of it when shown.
    pub message: String,
    /// The time after which it makes sense to try again.
    pub retry_after: Option<Duration>,
    /// Added to the headers of the answer.
    pub headers: Option<Arc<Vec<(String, String)>>>,
    /// For the log.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// An entry of one of the request's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The list.
    pub list: List,
    /// Its place in the list, from 0.
    pub index: u32,
}

/// A list of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// The inputs to embed.
    Inputs,
    /// The documents to rank.
    Documents,
}

impl fmt::Display for ListEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            List::Inputs => "input",
            List::Documents => "documents",
        };
        write!(f, "{list}[{}]", self.index)
    }
}

/// The sorts of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong; the same request fails again.
    InvalidRequest,
    /// No or an unknown credential.
    Unauthenticated,
    /// The credential does not allow this.
    Forbidden,
    /// No such model.
    ModelNotFound,
    /// No such route.
    RouteNotFound,
    /// The route has other methods.
    MethodNotAllowed,
    /// The client was too slow in sending its request.
    RequestTimeout,
    /// The body or its parts are too large.
    PayloadTooLarge,
    /// The queue is full.
    Overloaded,
    /// A bug or a broken model; what went wrong is the log's.
    Internal,
    /// Not now: loading, draining, or the model is down.
    Unavailable,
    /// The request's time is over.
    DeadlineExceeded,
    /// A plugin refused it, with this status of 400 to 599.
    Refused(u16),
}

impl Error {
    /// Makes an error of a kind with a message for the client.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            param: None,
            entry: None,
            message: message.into(),
            retry_after: None,
            headers: None,
            source: None,
        }
    }

    /// Makes an error about one field of the request.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::new(ErrorKind::InvalidRequest, message)
        }
    }

    /// Makes the error of a list with too many entries.
    #[must_use]
    pub fn too_many(name: &'static str, n: usize, max: usize) -> Self {
        let message = format!("{name} must hold at most {max} entries, got {n}: split the request");
        Self::invalid(name, message)
    }

    /// Says which input it is about, where it is about one: a full queue is not.
    #[must_use]
    pub fn of_input(self, index: usize) -> Self {
        let is_of_one = matches!(self.kind, ErrorKind::InvalidRequest | ErrorKind::Internal);
        let entry = is_of_one.then_some(ListEntry {
            list: List::Inputs,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        });
        Self { entry, ..self }
    }

    /// Says which document it is about, where the inputs were made of documents.
    #[must_use]
    pub fn of_document(self, document_of: impl FnOnce(usize) -> usize) -> Self {
        let entry = self.entry.map(|entry| ListEntry {
            list: List::Documents,
            index: u32::try_from(document_of(entry.index as usize)).unwrap_or(u32::MAX),
        });
        let param = match entry {
            Some(_) => self.param.map(|_| "documents"),
            None => self.param,
        };
        Self {
            entry,
            param,
            ..self
        }
    }

    /// Returns the headers that are added to the answer.
    #[must_use]
    pub fn headers(&self) -> &[(String, String)] {
        self.headers
            .as_ref()
            .map_or(&[], |headers| headers.as_slice())
    }

    /// Makes an error that the client cannot mend and need not understand.
    pub fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self {
            source: Some(Arc::new(source)),
            ..Self::new(ErrorKind::Internal, "internal error")
        }
    }

    /// Makes an error that passes with time.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(ErrorKind::Unavailable, message)
        }
    }

    /// Adds the machine-readable code.
    #[must_use]
    pub fn with_code(self, code: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: Some(code.into()),
            ..self
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(entry) = self.entry else {
            return f.write_str(&self.message);
        };
        match self.kind {
            ErrorKind::Internal => write!(f, "{} at {entry}", self.message),
            _ => write!(f, "{entry}: {}", self.message),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
