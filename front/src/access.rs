//! Who may ask what. Credentials are read here, and go no further.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION},
    },
    middleware::Next,
    response::{IntoResponse, Response},
    serve::{IncomingStream, Listener},
};
use baton_tenancy::{About, Call, Tenant};

use crate::{App, Owner, api_error::ApiError, body, id::RequestId, operators::OperatorState};

/// Where clients of other APIs put their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What may hold credentials.
const CREDENTIALS: [HeaderName; 5] =
    [AUTHORIZATION, API_KEY, HeaderName::from_static("api-key"), COOKIE, PROXY_AUTHORIZATION];

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddr(IpAddr);

/// A listener whose connections say where they come from.
pub(crate) struct Peers<L>(pub(crate) L);

impl<L: Listener<Addr = SocketAddr>> Listener for Peers<L> {
    type Io = L::Io;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (L::Io, SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl<L: Listener<Addr = SocketAddr>> Connected<IncomingStream<'_, Peers<L>>> for ClientAddr {
    fn connect_info(stream: IncomingStream<'_, Peers<L>>) -> Self {
        Self(stream.remote_addr().ip())
    }
}

/// Whose request it is; nothing is counted.
pub(crate) fn identify(app: &App, headers: &HeaderMap) -> Result<Tenant, ApiError> {
    Ok(app.edge.tenancy.identify(credential(headers).as_deref())?)
}

/// A request to `endpoint` begins: it takes one of its key's requests and places.
pub(crate) fn begin(app: &App, request: &Request, endpoint: &'static str) -> Result<Call, ApiError> {
    let extensions = request.extensions();
    let about = About {
        request_id: extensions.get::<RequestId>().map_or_else(String::new, |RequestId(id)| id.clone()),
        endpoint,
        client: extensions.get::<ConnectInfo<ClientAddr>>().map(|ConnectInfo(ClientAddr(ip))| *ip),
    };
    Ok(app.edge.tenancy.begin(credential(request.headers()).as_deref(), about)?)
}

/// Answers a request that is counted and recorded, but generates nothing.
pub(crate) async fn counted(
    app: &App,
    endpoint: &'static str,
    request: Request,
    answer: impl AsyncFnOnce(&mut Call, Request) -> Result<Response, ApiError>,
) -> Response {
    let mut call = match begin(app, &request, endpoint) {
        Ok(call) => call,
        Err(refused) => return refuse(refused, request).await,
    };
    let answered = answer(&mut call, request).await;
    let (status, outcome) = match &answered {
        Ok(response) => (response.status().as_u16(), "ok"),
        Err(error) => (error.status.as_u16(), error.body.code.unwrap_or(error.outcome())),
    };
    call.ends_as(status, outcome);
    with_rates(app, call.tenant(), answered.into_response())
}

/// Tells a client that it is refused before its body is read.
pub(crate) async fn refuse(refused: ApiError, request: Request) -> Response {
    body::discard(request.into_body()).await;
    refused.into_response()
}

/// Lets through who may see what operators see.
pub(crate) async fn admins_only(
    State(state): State<Arc<OperatorState>>,
    request: Request,
    next: Next,
) -> Response {
    match state.tenancy.identify_admin(credential(request.headers()).as_deref()) {
        Ok(_) => next.run(request).await,
        Err(refusal) => ApiError::from(refusal).into_response(),
    }
}

/// Says in the answer how much is left of the key's limits.
pub(crate) fn with_rates(app: &App, tenant: &Tenant, mut response: Response) -> Response {
    for (name, value) in app.edge.tenancy.rates(tenant) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Whose a generation is, for whoever generates; `None`: everybody is served alike.
pub(crate) fn owner(app: &App, tenant: &Tenant) -> Option<Owner> {
    let owner =
        || Owner { tenant: tenant.name().into(), priority: tenant.priority(), weight: tenant.weight() };
    app.edge.tenancy.knows_tenants().then(owner)
}

/// Takes the credentials out.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in CREDENTIALS {
        headers.remove(name);
    }
}

/// The `Authorization`, or what it would be.
fn credential(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    match (headers.get(AUTHORIZATION), headers.get(API_KEY)) {
        (Some(authorization), _) => Some(authorization.as_bytes().into()),
        (None, Some(key)) => Some([b"Bearer ", key.as_bytes()].concat().into()),
        (None, None) => None,
    }
}
