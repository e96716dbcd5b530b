//! Routes, and apart from them what is said of each. A function that serves has no use for that, and making it would take
//! longer than all else at its start.

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter};
use utoipa::openapi::{HttpMethod, OpenApi};
use utoipa_axum::PathItemExt as _;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

#[doc(hidden)]
pub use utoipa_axum::{paste, routes as described};

/// Routes that can be described.
#[derive(Debug)]
pub struct Routes<S = ()> {
    router: Router<S>,
    described: Vec<Describe<S>>,
}

/// The operations of one path, as [`routes!`](crate::routes!) gives them.
#[derive(Debug)]
pub struct Operations<S> {
    /// As the router has it.
    pub path: String,
    /// What answers, by method.
    pub router: MethodRouter<S>,
    /// Makes their description.
    pub describe: Describe<S>,
}

type Describe<S> = fn() -> UtoipaMethodRouter<S>;

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { router: Router::new(), described: Vec::new() }
    }

    /// These as well.
    #[must_use]
    pub fn routes(mut self, operations: Operations<S>) -> Self {
        self.router = self.router.route(&operations.path, operations.router);
        self.described.push(operations.describe);
        self
    }

    /// Those of another module as well.
    #[must_use]
    pub fn merge(mut self, others: Self) -> Self {
        self.router = self.router.merge(others.router);
        self.described.extend(others.described);
        self
    }

    /// To serve them.
    pub fn router(self) -> Router<S> {
        self.router
    }

    /// Adds what is said of each to a document.
    #[must_use]
    pub fn document(&self, about: OpenApi) -> OpenApi {
        let about = OpenApiRouter::with_openapi(about);
        let described = self.described.iter().fold(about, |all, describe| all.routes(describe()));
        described.into_openapi()
    }
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[doc(hidden)]
#[must_use]
pub fn filter(methods: &[HttpMethod]) -> MethodFilter {
    let mut filters = methods.iter().map(HttpMethod::to_method_filter);
    let first = filters.next().unwrap_or(MethodFilter::GET);
    filters.fold(first, MethodFilter::or)
}

/// The [`Operations`] of one path, by the names of their handlers, each with a `#[utoipa::path(...)]`.
#[macro_export]
macro_rules! routes {
    ($first:ident $(, $other:ident)* $(,)?) => {
        $crate::routes::paste! {
            $crate::routes::Operations {
                path: <[<__path_ $first>] as ::utoipa::Path>::path(),
                router: ::axum::routing::MethodRouter::new()
                    .on($crate::routes::filter(&<[<__path_ $first>] as ::utoipa::Path>::methods()), $first)
                    $(.on($crate::routes::filter(&<[<__path_ $other>] as ::utoipa::Path>::methods()), $other))*,
                describe: || $crate::routes::described!($first $(, $other)*),
            }
        }
    };
}
