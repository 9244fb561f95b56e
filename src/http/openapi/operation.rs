//! The description of a route, as its line in the route table gives it.

use embedgate_request::ErrorKind;
use utoipa::{
    ToSchema,
    openapi::{HttpMethod, Ref, RefOr, Schema},
};

use super::super::dialect::Dialect;

/// The description of one method of a path in the document.
pub(in crate::http) struct Operation {
    /// One line.
    pub(super) summary: &'static str,
    /// The rest.
    pub(super) description: &'static str,
    pub(super) method: HttpMethod,
    pub(super) request: Option<Body>,
    /// A body that whoever tries it out gets an answer for, from the default model.
    pub(super) example: Option<&'static str>,
    /// None: a body without anything in it.
    pub(super) answer: Option<Body>,
    pub(super) failures: &'static [ErrorKind],
    /// The second dialect of the path, when a body tells which dialect its sender knows.
    pub(super) also: Option<Dialect>,
}

impl Operation {
    /// Work for a model.
    pub(super) fn post<T: ToSchema, A: ToSchema>(
        summary: &'static str,
        description: &'static str,
    ) -> Self {
        Self {
            summary,
            description,
            method: HttpMethod::Post,
            request: Some(Body::of::<T>()),
            example: None,
            answer: Some(Body::of::<A>()),
            failures: &[
                ErrorKind::InvalidRequest,
                ErrorKind::Unauthenticated,
                ErrorKind::Forbidden,
                ErrorKind::ModelNotFound,
                ErrorKind::RequestTimeout,
                ErrorKind::PayloadTooLarge,
                ErrorKind::Overloaded,
                ErrorKind::Internal,
                ErrorKind::Unavailable,
                ErrorKind::DeadlineExceeded,
            ],
            also: None,
        }
    }

    /// A look at what there is.
    pub(super) fn get<A: ToSchema>(summary: &'static str, description: &'static str) -> Self {
        Self {
            summary,
            description,
            method: HttpMethod::Get,
            request: None,
            example: None,
            answer: Some(Body::of::<A>()),
            failures: &[
                ErrorKind::InvalidRequest,
                ErrorKind::Unauthenticated,
                ErrorKind::Forbidden,
                ErrorKind::ModelNotFound,
                ErrorKind::Internal,
                ErrorKind::Unavailable,
                ErrorKind::DeadlineExceeded,
            ],
            also: None,
        }
    }

    /// A look at what anybody may see, which is there in any state.
    pub(super) fn probe<A: ToSchema>(summary: &'static str, description: &'static str) -> Self {
        Self {
            failures: &[],
            ..Self::get::<A>(summary, description)
        }
    }

    /// Describes a route that tells by its status alone whether requests are served.
    pub(super) fn status(summary: &'static str, description: &'static str) -> Self {
        Self {
            summary,
            description,
            method: HttpMethod::Get,
            request: None,
            example: None,
            answer: None,
            failures: &[ErrorKind::Unavailable],
            also: None,
        }
    }

    /// Describes a route whose bodies may be another dialect's.
    pub(super) fn also_fails_as(self, dialect: Dialect) -> Self {
        Self {
            also: Some(dialect),
            ..self
        }
    }

    /// The same with a body that is answered.
    pub(super) fn tried_with(self, example: &'static str) -> Self {
        Self {
            example: Some(example),
            ..self
        }
    }

    pub(super) fn verb(&self) -> &'static str {
        match self.method {
            HttpMethod::Get => "get",
            _ => "post",
        }
    }
}

/// The type of a body: its name, and itself with all that it refers to.
#[derive(Clone)]
pub(super) struct Body {
    name: String,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
}

impl Body {
    /// The body of a type.
    pub(super) fn of<T: ToSchema>() -> Self {
        let name = T::name().into_owned();
        let mut schemas = vec![(name.clone(), T::schema())];
        T::schemas(&mut schemas);
        Self { name, schemas }
    }

    pub(super) fn reference(&self) -> Ref {
        Ref::from_schema_name(&self.name)
    }
}
