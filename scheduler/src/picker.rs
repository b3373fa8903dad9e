//! The endpoint picker: answers gateways that ask where a request is to go (Envoy's ext_proc, as the Gateway API Inference Extension has it).
//!
//! The same router decides as for the scheduler's own front; only who then sends the request differs, and how much is heard of it.

mod health;
mod sent;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use baton_endpoint_picker::{EndpointPicker, Limits, Pick, PickRequest, Picker, Refusal};
use baton_front::{Front, Outline};
use baton_process::{BindError, Readiness, Span, SpanKind, TraceContext, bind};
use baton_proto::MAX_STREAMS;
use baton_tls::Tls;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Error, Server};

use crate::{
    config::{PickerConfig, Priorities},
    dispatch::Wishes,
    epp::{Asked, Underway, Who},
    fleet::Fleet,
    router::{Ask, Reach, Refused, Route, Router, describe, not_now},
};
use health::serve_health;
use sent::Sent;

/// llm-d's name for where the prompt is to be computed.
const PREFILLER: &str = "x-prefiller-host-port";
const REQUEST_ID: &str = "x-request-id";
/// Where a request does not say how much it may generate.
const MAX_TOKENS_UNKNOWN: u64 = 4_096;

/// Chooses for gateways.
pub(crate) struct GatewayPicker {
    /// `None`: there is no model, and prompts are known by their text.
    pub(crate) front: Option<Arc<Front>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) router: Arc<Router>,
    pub(crate) priorities: Priorities,
    /// Longer prompts are compared by their text.
    pub(crate) most_encoded_bytes: usize,
}

impl Picker for GatewayPicker {
    async fn pick(&self, request: PickRequest) -> Result<Pick, Refusal> {
        let mut counted = None;
        let caller = TraceContext::read(|name| request.headers.get(name));
        let mut span = Span::begin("pick", SpanKind::Internal, &caller);
        let picked = self.choose(&request, &mut counted, &mut span).await;
        match picked {
            Ok((request_id, route)) => Ok(self.pick_of(request_id, route, counted, span.context())),
            Err(refusal) => {
                span.fail(refusal.status.to_string(), refusal.message.clone());
                if let Some(counted) = counted {
                    counted.failed(refusal.status, true);
                }
                Err(refusal)
            }
        }
    }
}

impl GatewayPicker {
    /// `counted`: the request, once it is known whose it is; one without a body asks for nothing to be generated.
    async fn choose(
        &self,
        request: &PickRequest,
        counted: &mut Option<Underway>,
        span: &mut Span,
    ) -> Result<(String, Route), Refusal> {
        let epp = &self.router.epp;
        let bytes = request.body.len() as u64;
        let count = |who: Who| (bytes > 0).then(|| epp.begin(who, bytes));
        let request_id = match request.headers.get(REQUEST_ID) {
            Some(id) if !id.is_empty() && id.len() <= 256 => id.to_owned(),
            _ => baton_front::new_request_id(),
        };
        let header = |name: &str| request.headers.get(name).map(str::to_owned);
        let wishes = Wishes::read(header, &self.priorities, None).map_err(|error| {
            *counted = count(Wishes::default().who(epp, Asked::Unknown));
            refusal(400, error.to_string())
        })?;
        let outline = match request.body.is_empty() {
            true => Outline::default(),
            false => {
                // Where nobody says what they have cached, prompts are compared by their text in any case.
                let most = if self.router.cache().has_tellers() { self.most_encoded_bytes } else { 0 };
                let outlined = match &self.front {
                    Some(front) => front.outline(&request.body, most).await,
                    None => Outline::of_text(&request.body),
                };
                outlined.map_err(|error| {
                    *counted = count(wishes.who(epp, Asked::Unknown));
                    refusal(400, error.to_string())
                })?
            }
        };
        let adapters = self.fleet.adapters();
        let adapter =
            outline.model.as_ref().filter(|model| adapters.iter().any(|adapter| adapter.name == **model));
        let asked = match (adapter, &outline.model) {
            (Some(adapter), _) => Asked::Adapter(adapter),
            (None, Some(model)) => Asked::Named(model),
            (None, None) => Asked::Model,
        };
        *counted = count(wishes.who(epp, asked));
        let ask = Ask {
            request_id: &request_id,
            prompt: &outline.tokens,
            prompt_tokens: outline.prompt_tokens(),
            text: &outline.text,
            max_tokens: outline.max_tokens.unwrap_or(MAX_TOKENS_UNKNOWN),
            adapter: adapter.map(String::as_str),
            cache_salt: outline.cache_salt.as_deref(),
            reach: Reach::Gateway,
            subset: request.subset.as_deref(),
            asked,
            bytes,
            ..wishes.ask()
        };
        let route = self.router.route(&ask).await.map_err(|refused| refused_as(&refused))?;
        span.set("baton.request_id", request_id.clone());
        describe(span, &route);
        Ok((request_id, route))
    }

    fn pick_of(
        &self,
        request_id: String,
        route: Route,
        counted: Option<Underway>,
        trace: &TraceContext,
    ) -> Pick {
        let mut headers = vec![(REQUEST_ID.to_owned(), request_id)];
        headers.extend(trace.headers().into_iter().map(|(name, value)| (name.to_owned(), value)));
        if !route.prefill_addresses.is_empty() {
            headers.push((PREFILLER.to_owned(), route.prefill_addresses.join(",")));
        }
        let endpoints = route.addresses.clone();
        Pick {
            endpoints,
            headers,
            body: None,
            watch: Box::new(Sent::new(route, self.router.clone(), counted)),
        }
    }
}

fn refused_as(refused: &Refused) -> Refusal {
    match refused {
        Refused::Nobody(error) => {
            let status = match error {
                baton_front::GenerateError::NeverFits(_) => 400,
                baton_front::GenerateError::NoSuchAdapter(_) => 404,
                _ => 503,
            };
            refusal(status, error.to_string())
        }
        Refused::NotNow(reason) => {
            let not_now = not_now(reason);
            let refused = refusal(reason.reason.status(), not_now.to_string());
            Refusal { retry_after: Some(not_now.retry_after), ..refused }
        }
    }
}

fn refusal(status: u16, message: String) -> Refusal {
    let kind = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "service_unavailable_error",
    };
    let retry_after = (status == 503).then_some(Duration::from_secs(1));
    Refusal { status, kind, message, retry_after }
}

/// The picker's listeners.
pub(crate) struct Ports {
    picker: TcpListener,
    /// Gateways speak TLS, and show no certificate.
    has_gateway_tls: bool,
    health: Option<TcpListener>,
}

impl Ports {
    /// Those that are asked for; `None`: no picker is.
    pub(crate) async fn bind(config: &PickerConfig) -> Result<Option<Self>, BindError> {
        let Some(address) = config.listen else { return Ok(None) };
        let picker = bind(address, "--picker-listen").await?;
        let health = match config.health_listen {
            Some(address) => Some(bind(address, "--picker-health-listen").await?),
            None => None,
        };
        Ok(Some(Self { picker, has_gateway_tls: config.tls, health }))
    }

    /// Where they listen, by what for.
    pub(crate) fn addresses(&self) -> std::io::Result<Vec<(&'static str, SocketAddr)>> {
        let mut addresses = vec![("picker", self.picker.local_addr()?)];
        if let Some(health) = &self.health {
            addresses.push(("picker-health", health.local_addr()?));
        }
        Ok(addresses)
    }

    /// Serves gateways until `stop`.
    pub(crate) async fn serve(
        self,
        picker: GatewayPicker,
        limits: Limits,
        tls: Tls,
        readiness: Readiness,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let fleet = picker.fleet.clone();
        let is_ready = move || readiness.check().is_ok() && fleet.has_gateway_endpoint();
        let listener = match self.has_gateway_tls {
            true => tls.gateway_listener(self.picker),
            false => tls.grpc_listener(self.picker),
        };
        let serving = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(EndpointPicker::service(Arc::new(picker), limits))
            .serve_with_incoming_shutdown(listener.into_stream(), stop.clone().cancelled_owned());
        match self.health {
            None => serving.await,
            Some(health) => tokio::try_join!(serving, serve_health(health, is_ready, stop)).map(|_| ()),
        }
    }
}
