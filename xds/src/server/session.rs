//! Drives the state machine of one stream.
//!
//! The session is a stream of responses and runs within the task that writes them: the next response is
//! worked out when the client has taken the last one. There is no queue that a slow client could fill.

use std::sync::Arc;
use std::time::Instant;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Status, Streaming};

use super::{Admission, Control, Shared};
use crate::clients::{ClientEntry, ClientEvent, ClientEventKind, ClientId, ClientStatus, Nack, SyncState};
use crate::encode::EncodedResponse;
use crate::stream::{DeltaStream, Feedback, Published, RequestError, Response};

type Newest = Option<Arc<Published>>;

/// The responses to a stream of requests. Ends with `OK` when the client ends its side.
pub(super) fn run(
    admission: Admission,
    requests: Streaming<DeltaDiscoveryRequest>,
) -> BoxStream<'static, Result<EncodedResponse, Status>> {
    let session = Session::new(admission, requests);
    stream::unfold(Some(session), |session| async move {
        let mut session = session?;
        match session.next_response().await {
            Ok(Some(response)) => Some((Ok(response), Some(session))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
    .boxed()
}

struct Session {
    admission: Admission,
    requests: Streaming<DeltaDiscoveryRequest>,
    stream: DeltaStream,
    control: watch::Receiver<Control>,
    client: Option<Client>,
    newest: Option<watch::Receiver<Newest>>,
}

/// Known from the first request on.
struct Client {
    shared: Arc<Shared>,
    id: ClientId,
    node_id: Arc<str>,
    node: Node,
    group: Option<Arc<str>>,
    entry: Arc<ClientEntry>,
}

enum Wake {
    Request(Result<Option<Box<DeltaDiscoveryRequest>>, Status>),
    Control,
    Look,
}

impl Session {
    fn new(admission: Admission, requests: Streaming<DeltaDiscoveryRequest>) -> Self {
        let shared = &admission.shared;
        let nonce_prefix = format!("{:x}-{:x}-", shared.epoch, admission.id);
        let limits = shared.options.stream_limits();
        Self {
            requests,
            stream: DeltaStream::new(nonce_prefix, limits, Instant::now()),
            control: shared.control.subscribe(),
            client: None,
            newest: None,
            admission,
        }
    }

    async fn next_response(&mut self) -> Result<Option<EncodedResponse>, Status> {
        loop {
            if self.control.borrow().shutting_down {
                return Err(Status::unavailable("the server is shutting down"));
            }
            let now = Instant::now();
            let newest = self.newest.as_mut().and_then(|newest| newest.borrow_and_update().clone());
            let response = self.stream.next_response(newest.as_deref(), now);
            self.report(newest.as_ref());
            if let Some(response) = response {
                self.log_response(&response);
                self.admission.shared.metrics.count_response(&response);
                return Ok(Some(response.encoded));
            }
            let request = match self.wait(self.stream.deadline(now)).await {
                Wake::Look => continue,
                Wake::Control => {
                    self.regroup();
                    continue;
                }
                Wake::Request(request) => request,
            };
            match request {
                Ok(Some(request)) => self.take_in(request)?,
                Ok(None) => return Ok(None),
                Err(status) => {
                    tracing::debug!(node.id = self.node_id(), %status, "stream broke off");
                    return Err(status);
                }
            }
        }
    }

    async fn wait(&mut self, deadline: Option<Instant>) -> Wake {
        let Self { requests, control, newest, .. } = self;
        let newest_changes = async {
            match newest {
                // The group keeps its sender while there are receivers, so this is no error.
                Some(newest) => drop(newest.changed().await),
                None => std::future::pending().await,
            }
        };
        let deadline_passes = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = requests.message() => Wake::Request(request.map(|request| request.map(Box::new))),
            _ = control.changed() => Wake::Control,
            () = newest_changes => Wake::Look,
            () = deadline_passes => Wake::Look,
        }
    }

    fn take_in(&mut self, mut request: Box<DeltaDiscoveryRequest>) -> Result<(), Status> {
        if self.client.is_none() {
            let mut node = request.node.take().unwrap_or_default();
            node.extensions = Vec::new();
            self.client = Some(Client::connect(&self.admission, node));
            self.regroup();
        }
        let feedback = self.stream.request(&request, Instant::now()).map_err(|error| {
            tracing::warn!(node.id = self.node_id(), %error, "request refused");
            match error {
                RequestError::MissingTypeUrl => Status::invalid_argument(error.to_string()),
                RequestError::TooManyNames { .. } => Status::resource_exhausted(error.to_string()),
            }
        })?;
        if let (Some(feedback), Some(client)) = (feedback, &self.client) {
            client.note(feedback);
        }
        Ok(())
    }

    /// Follows the group of the node. Without one, whatever was followed is followed no more.
    fn regroup(&mut self) {
        let Some(client) = &mut self.client else { return };
        let shared = &client.shared;
        let group = (shared.options.node_group)(&client.node);
        if group == client.group {
            return;
        }
        tracing::info!(node.id = &*client.node_id, group = group.as_deref(), "client joins group");
        self.newest = group.as_deref().map(|group| shared.groups.subscribe(group));
        client.entry.update(|status| status.group.clone_from(&group));
        client.group = group;
    }

    fn report(&self, newest: Option<&Arc<Published>>) {
        let Some(client) = &self.client else { return };
        let sync = match newest {
            Some(newest) if self.stream.refuses(&newest.snapshot) => SyncState::Nacked,
            Some(newest) if self.stream.in_sync(&newest.snapshot) => SyncState::InSync,
            _ => SyncState::Pending,
        };
        client.entry.update(|status| {
            status.sync = sync;
            status.snapshot_seen = newest.map(Arc::downgrade).unwrap_or_default();
            for (resource_type, status) in &mut status.types {
                *status = self.stream.subscription(*resource_type).status();
            }
        });
    }

    fn log_response(&self, response: &Response) {
        tracing::debug!(
            node.id = self.node_id(),
            xds.r#type = response.resource_type.map(|resource_type| resource_type.service()),
            resources = response.resources,
            removed = response.removed,
            bytes = response.encoded.len(),
            "response"
        );
    }

    fn node_id(&self) -> &str {
        self.client.as_ref().map_or("", |client| &*client.node_id)
    }
}

impl Client {
    fn connect(admission: &Admission, node: Node) -> Self {
        let shared = admission.shared.clone();
        let id = ClientId(admission.id);
        let entry = shared.clients.insert(ClientStatus::new(id, &node));
        let client = Self { shared, id, node_id: node.id.as_str().into(), node, group: None, entry };
        tracing::info!(node.id = &*client.node_id, node.cluster = client.node.cluster, "client connected");
        client.emit(ClientEventKind::Connected);
        client
    }

    fn note(&self, feedback: Feedback) {
        self.shared.metrics.count_feedback(&feedback);
        match feedback {
            Feedback::Acked { resource_type, latency } => {
                self.emit(ClientEventKind::Acked { resource_type, latency });
            }
            Feedback::Nacked { resource_type, resources, message } => {
                let nack = Nack::new(resource_type, &resources, &message);
                tracing::warn!(
                    node.id = &*self.node_id,
                    xds.r#type = resource_type.service(),
                    resources = ?nack.resources,
                    message = nack.message,
                    "client refused a response"
                );
                self.entry.update(|status| status.last_nack = Some(nack.clone()));
                self.emit(ClientEventKind::Nacked(nack));
            }
        }
    }

    fn emit(&self, kind: ClientEventKind) {
        let event = ClientEvent { client: self.id, node_id: self.node_id.clone(), kind };
        // An error says that nobody listens.
        let _ = self.shared.events.send(event);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.clients.remove(self.id);
        tracing::info!(node.id = &*self.node_id, "client disconnected");
        self.emit(ClientEventKind::Disconnected);
    }
}
