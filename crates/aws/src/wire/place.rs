//! Where a service is: as configured, or as the SDK knows it for the region.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;
use http::Uri;

use super::{Failed, Service};

/// A service's place, and what of it is signed.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) uri: Uri,
    /// With its port, if the URL has one.
    pub(super) host: String,
    pub(super) region: String,
}

impl Place {
    pub(super) fn of(service: &Service, config: &SdkConfig) -> Result<Self, Failed> {
        let region = config.region().ok_or(Failed::NoEndpoint("no region is set"))?;
        let key = ServiceConfigKey::builder()
            .service_id(service.id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let of_service = || config.service_config()?.load_config(key.ok()?);
        let url = of_service().or_else(|| config.endpoint_url().map(str::to_owned));
        let url = url.or_else(|| (service.endpoint)(config));
        let url = url.ok_or(Failed::NoEndpoint("the region is unknown"))?;
        let uri: Uri = url.parse().map_err(|_| Failed::NoEndpoint("its URL is none"))?;
        let host = uri.authority().ok_or(Failed::NoEndpoint("its URL has no host"))?.to_string();
        Ok(Self { uri, host, region: region.to_string() })
    }

    pub(super) fn is_secure(&self) -> bool {
        self.uri.scheme() == Some(&http::uri::Scheme::HTTPS)
    }
}
