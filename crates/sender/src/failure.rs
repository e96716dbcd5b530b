//! What the HTTP client's errors mean.

use std::error::Error;

use carillon_core::outcome::Failure;

use crate::resolver::Unresolved;

/// The class of a request that got no answer.
pub(crate) fn failure(error: &reqwest::Error) -> Failure {
    if let Some(unresolved) = cause::<Unresolved>(error) {
        return match unresolved {
            Unresolved::Inside(_) => Failure::Blocked,
            Unresolved::NoAddress(_) => Failure::Dns,
        };
    }
    if cause::<rustls::Error>(error).is_some() {
        Failure::Tls
    } else if error.is_builder() {
        // Plain HTTP where the deployment forbids it.
        Failure::Blocked
    } else if error.is_connect() {
        Failure::Unreachable
    } else {
        Failure::Broken
    }
}

/// The first error of this type among the causes, those that hide in an [`std::io::Error`] included.
pub(crate) fn cause<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| cause::<T>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
