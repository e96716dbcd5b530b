//! The SDK's own calls, over the same connections as those beside it.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::Response;
use http::uri::Scheme;

use super::transport::{self, Transport};

/// What the SDK sends its requests with. How long connecting may take is the transport's; how long a call may, the SDK sees
/// to itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SdkTransport;

impl HttpClient for SdkTransport {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(*self)
    }
}

impl HttpConnector for SdkTransport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(send(request))
    }
}

async fn send(request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body = body.bytes().ok_or_else(|| ConnectorError::user("its body is streamed".into()))?;
    let body = Bytes::copy_from_slice(body);
    let is_secure = head.uri.scheme() == Some(&Scheme::HTTPS);
    let transport = Transport::to(is_secure).map_err(|failed| ConnectorError::other(failed.into(), None))?;
    let request = http::Request::from_parts(head, transport::Body::new(body));
    let (head, body) = transport.send(request).await.map_err(|failed| ConnectorError::io(failed.into()))?;
    let answer = Response::from_parts(head, SdkBody::from(body));
    HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
}
