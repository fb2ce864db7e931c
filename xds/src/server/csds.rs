//! The client status discovery service (CSDS): what each client was sent, and what it said to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use envoy_types::pb::envoy::service::status::v3::{
    ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::Any;
use futures::stream::{self, BoxStream, StreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::cell::{Cell, CellState};
use crate::resource_type::ResourceType;
use crate::stream::{Held, Mark, Subscription};

/// Contents in one answer; clients of this service take no more than a few MiB by default anyway.
const MAX_CONTENT_BYTES: usize = 32 << 20;

/// The groups whose clients a caller of the client status discovery service is told of. As an extension of the request, set
/// by a layer that knows who calls; without it, all clients are told of. Clients that belong to no group are not among those of
/// any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisibleGroups(Arc<BTreeSet<String>>);

impl VisibleGroups {
    /// These groups, by name.
    pub fn new<Name: Into<String>>(groups: impl IntoIterator<Item = Name>) -> Self {
        Self(Arc::new(groups.into_iter().map(Into::into).collect()))
    }
}

/// Whether a client is told of.
fn is_visible(cell: &Cell, visible: Option<&VisibleGroups>) -> bool {
    visible.is_none_or(|VisibleGroups(groups)| {
        cell.lock().group.as_ref().is_some_and(|group| groups.contains(&**group.name()))
    })
}

pub(super) fn service(shared: Arc<Shared>) -> ClientStatusDiscoveryServiceServer<Csds> {
    ClientStatusDiscoveryServiceServer::new(Csds { shared })
}

#[derive(Debug)]
pub(super) struct Csds {
    shared: Arc<Shared>,
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for Csds {
    type StreamClientStatusStream = BoxStream<'static, Result<ClientStatusResponse, Status>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let shared = self.shared.clone();
        let visible = request.extensions().get::<VisibleGroups>().cloned();
        let answers = stream::unfold(request.into_inner(), move |mut requests| {
            let (shared, visible) = (shared.clone(), visible.clone());
            async move {
                let answer = match requests.message().await {
                    Ok(Some(request)) => answer(&shared, visible.as_ref(), &request),
                    Ok(None) => return None,
                    Err(status) => Err(status),
                };
                Some((answer, requests))
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        let visible = request.extensions().get::<VisibleGroups>();
        answer(&self.shared, visible, request.get_ref()).map(Response::new)
    }
}

fn answer(
    shared: &Shared,
    visible: Option<&VisibleGroups>,
    request: &ClientStatusRequest,
) -> Result<ClientStatusResponse, Status> {
    let mut room = if request.exclude_resource_contents { 0 } else { MAX_CONTENT_BYTES };
    let mut config = Vec::new();
    for cell in shared.clients.all() {
        let Some(node_id) = cell.lock().node.as_ref().map(|node| node.id.clone()) else { continue };
        if is_visible(&cell, visible) && is_wanted(&node_id, &request.node_matchers)? {
            config.push(client_config(&cell, !request.exclude_resource_contents, &mut room)?);
        }
    }
    Ok(ClientStatusResponse { config })
}

/// Without matchers every node is wanted, else those that one of them takes.
fn is_wanted(node_id: &str, matchers: &[NodeMatcher]) -> Result<bool, Status> {
    let mut wanted = matchers.is_empty();
    for matcher in matchers {
        if !matcher.node_metadatas.is_empty() {
            return Err(Status::invalid_argument("node_metadatas: only node_id can be matched"));
        }
        wanted |= match &matcher.node_id {
            Some(matcher) => matches(node_id, matcher)?,
            None => true,
        };
    }
    Ok(wanted)
}

fn matches(text: &str, matcher: &StringMatcher) -> Result<bool, Status> {
    let fold = |text: &str| if matcher.ignore_case { text.to_lowercase() } else { text.to_owned() };
    let text = fold(text);
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(exact)) => Ok(text == fold(exact)),
        Some(MatchPattern::Prefix(prefix)) => Ok(text.starts_with(&fold(prefix))),
        Some(MatchPattern::Suffix(suffix)) => Ok(text.ends_with(&fold(suffix))),
        Some(MatchPattern::Contains(part)) => Ok(text.contains(&fold(part))),
        _ => Err(Status::invalid_argument("node_id: only exact, prefix, suffix and contains are matched")),
    }
}

fn client_config(cell: &Cell, contents: bool, room: &mut usize) -> Result<ClientConfig, Status> {
    let state = cell.lock();
    let mut configs = Vec::new();
    for resource_type in ResourceType::ALL {
        let Some(subscription) = state.stream.subscription(resource_type) else { continue };
        for (name, held) in subscription.holdings.all(&subscription.wants) {
            let mut config = generic_config(&state, resource_type, subscription, &name, &held);
            // A key does not leave the server but for those whose it is.
            let shown = held.mark().filter(|_| contents && resource_type != ResourceType::Secret);
            if let Some(resource) = shown.and_then(|mark| mark.resource.as_ref()) {
                let any = resource.entry.any();
                *room = room.checked_sub(any.len()).ok_or_else(too_much)?;
                config.xds_config = Any::decode(any).ok();
            }
            configs.push(config);
        }
    }
    Ok(ClientConfig {
        node: state.node.as_deref().cloned(),
        generic_xds_configs: configs,
        ..Default::default()
    })
}

fn too_much() -> Status {
    Status::resource_exhausted(format!(
        "more than {MAX_CONTENT_BYTES} bytes of contents: name one node, or set exclude_resource_contents"
    ))
}

fn generic_config(
    state: &CellState,
    resource_type: ResourceType,
    subscription: &Subscription,
    name: &str,
    held: &Held,
) -> GenericXdsConfig {
    let newest = state.newest();
    let resource = newest.as_ref().and_then(|newest| newest.snapshot.table(resource_type).get(name));
    let (config_status, client_status) = match held {
        Held::Has(mark) => {
            let is_newest = resource.is_some_and(|resource| resource.version == mark.version);
            let is_acked = !subscription.is_in_flight(name);
            let status = if is_newest && is_acked { ConfigStatus::Synced } else { ConfigStatus::Stale };
            (status, if is_acked { ClientResourceStatus::Acked } else { ClientResourceStatus::Requested })
        }
        Held::Refused { .. } => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        Held::Absent => (ConfigStatus::Synced, ClientResourceStatus::DoesNotExist),
        Held::Nothing => (ConfigStatus::NotSent, ClientResourceStatus::Requested),
    };
    let error_state = match held {
        Held::Refused { version, .. } => Some(UpdateFailureState {
            version_info: version.to_string(),
            details: state.last_nack.as_ref().map(|nack| nack.message.clone()).unwrap_or_default(),
            ..Default::default()
        }),
        _ => None,
    };
    GenericXdsConfig {
        type_url: resource_type.type_url().to_owned(),
        name: name.to_owned(),
        version_info: held.mark().map(|Mark { version, .. }| version.to_string()).unwrap_or_default(),
        config_status: config_status as i32,
        client_status: client_status as i32,
        error_state,
        ..Default::default()
    }
}
