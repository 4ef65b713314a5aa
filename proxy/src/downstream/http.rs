//! pingora's HTTP with what a listener says of its connections: pingora asks that of the proxy, which all listeners share.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use crate::http2;
use crate::proxy::Proxy;

/// See the module's documentation.
pub(super) struct Http {
    proxy: Arc<HttpProxy<Proxy>>,
    options: HttpServerOptions,
}

impl Http {
    /// `idle_timeout`: of connections that speak HTTP/2; those of HTTP/1 are told per request.
    pub(super) fn new(proxy: Arc<HttpProxy<Proxy>>, idle_timeout: Duration) -> Self {
        Self { proxy, options: http2::server_options(idle_timeout) }
    }
}

#[async_trait]
impl HttpServerApp for Http {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}
