//! Drives the state machine of one stream.
//!
//! The session is the body of the response: it runs within the task that writes it, and the next response is
//! worked out when the client has taken the last one. There is no queue that a slow client could fill.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::Message;
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use super::cell::{Cell, CellState};
use super::groups::Group;
use super::grpc::Messages;
use super::quarantine::Poison;
use super::{Admission, Change, Shared};
use crate::clients::{ClientEvent, ClientEventKind, Nack};
use crate::delivery::Membership;
use crate::resource_type::ResourceType;
use crate::stream::{Feedback, RequestError, Response, Variant};
use crate::transport::Order;

/// Requests read in a row before others get their turn.
const MAX_REQUESTS_IN_A_ROW: usize = 32;

/// The responses of a stream, as the body of an HTTP response.
pub(super) struct Session {
    shared: Arc<Shared>,
    messages: Messages,
    cell: Arc<Cell>,
    /// What the cell has, for a look without its lock.
    group: Option<Arc<Group>>,
    /// Of the client in that group.
    membership: Option<Membership>,
    /// The first request has come.
    greeted: bool,
    /// The second part of a message whose first has been handed out.
    rest: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
    /// Given when the connection is to end.
    drain: Option<(Order, Pin<Box<WaitForCancellationFutureOwned>>)>,
    /// What the timer and the drain are waiting for: they are not asked again with each request and response.
    waiting: Option<Waker>,
    /// Regroupings that have been followed.
    regroupings: u64,
    ended: bool,
    _admission: Admission,
}

impl Session {
    pub(super) fn new(
        admission: Admission,
        cell: Arc<Cell>,
        messages: Messages,
        drain: Option<Order>,
    ) -> Self {
        let shared = admission.shared.clone();
        Self {
            regroupings: shared.control.regroupings(),
            shared,
            messages,
            cell,
            group: None,
            membership: None,
            greeted: false,
            rest: Bytes::new(),
            timer: None,
            drain: drain.map(|order| (order.clone(), Box::pin(order.cancelled_owned()))),
            waiting: None,
            ended: false,
            _admission: admission,
        }
    }

    /// The next response, or how the stream ends.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Bytes, Bytes), Status>> {
        self.cell.waker.register(cx.waker());
        loop {
            if self.shared.control.is_shutting_down() {
                return Poll::Ready(Err(Status::unavailable("the server is shutting down")));
            }
            if self.is_draining(cx) {
                return Poll::Ready(Err(Status::unavailable("the connection ends: connect again")));
            }
            self.follow_regrouping();
            let all_read = self.read(cx)?;
            let now = Instant::now();
            let newest = self.group.as_ref().map(|group| group.look());
            let newest = newest.as_ref().and_then(|newest| newest.as_deref());
            let mut state = self.cell.lock();
            if let Some(response) = state.stream.next_response(newest, now) {
                self.shared.metrics.count_response(&response);
                log_response(&state, &response);
                drop(state);
                self.renew();
                return Poll::Ready(Ok(response.message.into_parts()));
            }
            let deadline = state.stream.deadline(newest, now);
            drop(state);
            if !all_read {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.timer_fired(deadline, cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes in the requests that have come. False if there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Status> {
        for _ in 0..MAX_REQUESTS_IN_A_ROW {
            match self.messages.poll_next(cx) {
                Poll::Ready(Some(message)) => self.take_in(&message?)?,
                // The client has ended its side.
                Poll::Ready(None) => return Err(Status::ok("")),
                Poll::Pending => return Ok(true),
            }
        }
        Ok(false)
    }

    fn is_draining(&mut self, cx: &mut Context<'_>) -> bool {
        let waits = self.waits(cx);
        let Some((order, given)) = &mut self.drain else { return false };
        (!waits || order.is_cancelled()) && given.as_mut().poll(cx).is_ready()
    }

    /// True when timer and drain wake this very task.
    fn waits(&self, cx: &Context<'_>) -> bool {
        self.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    /// True when the deadline has come. A timer that is set for an earlier time is left as it is: waking once
    /// too often costs less than setting it with each response.
    fn timer_fired(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let mut waits = self.waits(cx);
        if !waits {
            self.waiting = Some(cx.waker().clone());
        }
        let Some(deadline) = deadline else {
            self.timer = None;
            return false;
        };
        let timer = self.timer.get_or_insert_with(|| {
            waits = false;
            Box::pin(tokio::time::sleep_until(deadline.into()))
        });
        if timer.is_elapsed() || timer.deadline() > deadline.into() {
            timer.as_mut().reset(deadline.into());
            waits = false;
        }
        // Without the budget of the task: a timer that is turned away has not been set.
        !waits && pin!(unconstrained(timer.as_mut())).poll(cx).is_ready()
    }

    fn take_in(&mut self, message: &Bytes) -> Result<(), Status> {
        let garbled = |error: prost::DecodeError| Status::invalid_argument(format!("no request: {error}"));
        let now = Instant::now();
        let feedback = match self.cell.service.variant {
            Variant::Delta => {
                let mut request = DeltaDiscoveryRequest::decode(message.clone()).map_err(garbled)?;
                self.greet(request.node.take());
                self.cell.lock().stream.delta_request(&request, now)
            }
            Variant::Sotw => {
                let mut request = DiscoveryRequest::decode(message.clone()).map_err(garbled)?;
                self.greet(request.node.take());
                self.cell.lock().stream.sotw_request(&request, now)
            }
        };
        self.renew();
        match feedback {
            Ok(feedback) => {
                feedback.into_iter().for_each(|feedback| self.note(feedback, now));
                self.note_received(now);
            }
            Err(error) => {
                tracing::warn!(node.id = self.node_id(), %error, "request refused");
                return Err(match error {
                    RequestError::TooManyNames { .. } => Status::resource_exhausted(error.to_string()),
                    _ => Status::invalid_argument(error.to_string()),
                });
            }
        }
        Ok(())
    }

    /// Has other streams of the client send again what it waits for.
    fn renew(&self) {
        if self.cell.service.only.is_none() {
            return;
        }
        let renewal = self.cell.lock().stream.take_renewal();
        if let Some(renewal) = renewal {
            self.shared.clients.renew(&self.node_id(), &renewal);
        }
    }

    /// Takes in the node of the first request.
    fn greet(&mut self, node: Option<Node>) {
        if std::mem::replace(&mut self.greeted, true) {
            return;
        }
        let mut node = node.unwrap_or_default();
        let group = (self.shared.options.node_group)(&node, self.cell.peer.as_deref());
        if !self.shared.options.keep_extensions {
            // A list of tens of kilobytes.
            node.extensions = Vec::new();
        }
        tracing::info!(node.id = node.id, node.cluster = node.cluster, service = ?self.cell.service, "client connected");
        self.shared.clients.note_node(&self.cell, &node.id);
        self.cell.lock().node = Some(Arc::new(node));
        self.join(group);
        self.emit(ClientEventKind::Connected);
    }

    fn follow_regrouping(&mut self) {
        let regroupings = self.shared.control.regroupings();
        if self.regroupings != regroupings {
            self.regroupings = regroupings;
            let node = self.cell.lock().node.clone();
            if let Some(node) = node {
                self.join((self.shared.options.node_group)(&node, self.cell.peer.as_deref()));
            }
        }
    }

    /// Follows a group. Without one, whatever was followed is followed no more.
    fn join(&mut self, group: Option<Arc<str>>) {
        let before = self.cell.lock().group.clone();
        if before.as_ref().map(|group| group.name()) == group.as_ref() {
            return;
        }
        tracing::info!(node.id = self.node_id(), group = group.as_deref(), "client joins group");
        if let Some(before) = &before {
            self.leave(before, group.is_some());
        }
        let joined = group.map(|group| self.shared.groups.join(&group, &self.cell, before.is_some()));
        let (group, membership) = joined.unzip();
        {
            let mut state = self.cell.lock();
            state.group.clone_from(&group);
            // Each group counts its states by itself.
            state.synced = 0;
            if let Some(newest) = group.as_ref().and_then(|group| group.newest()) {
                state.stream.follow(&newest.delivery);
            }
        }
        (self.group, self.membership) = (group, membership);
        self.note_received(Instant::now());
    }

    fn note(&self, feedback: Feedback, now: Instant) {
        self.shared.metrics.count_feedback(&feedback);
        match feedback {
            Feedback::Acked { resource_type, latency } => {
                self.note_ack(latency);
                self.emit(ClientEventKind::Acked { resource_type, latency });
            }
            Feedback::Nacked { resource_type, resources, message } => {
                let nack = Nack::new(resource_type, resources.iter().map(|(name, _)| &**name), &message);
                tracing::warn!(
                    node.id = self.node_id(),
                    xds.r#type = resource_type.service(),
                    resources = ?nack.resources,
                    error = nack.message,
                    "client refused a response"
                );
                self.cell.lock().last_nack = Some(Box::new(nack.clone()));
                self.emit(ClientEventKind::Nacked(nack));
                self.note_refusals(resource_type, now);
            }
        }
    }

    /// Tells the group when the client has all of the newest state, as long as that is of interest.
    fn note_ack(&self, latency: Duration) {
        let mut state = self.cell.lock();
        state.last_latency = Some(latency);
        let Some(group) = &self.group else { return };
        let newest = group.look();
        let Some(newest) = newest.as_deref() else { return };
        if newest.number == state.synced || group.is_proven(newest) || !state.stream.in_sync(&newest.snapshot)
        {
            return;
        }
        state.synced = newest.number;
        drop(state);
        group.note_synced(newest);
    }

    /// Tells those who published endpoints what became of them.
    fn note_received(&self, now: Instant) {
        let mut state = self.cell.lock();
        let Some(received) = state.stream.take_received() else { return };
        let node_id = state.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        let message = match &state.last_nack {
            Some(nack) if !received.refused.is_empty() => nack.message.clone(),
            _ => String::new(),
        };
        drop(state);
        if let Some(membership) = self.membership {
            received.delivery.note(membership, &node_id, received.refused, &message, now);
        }
    }

    /// Tells the group that the client goes, be it into another one.
    fn leave(&self, group: &Arc<Group>, is_moved: bool) {
        let newest = self.shared.groups.leave(group, self.cell.id);
        let (Some(newest), Some(membership)) = (newest, self.membership) else { return };
        if !self.cell.service.takes_endpoints() {
            return;
        }
        let has_received = self.cell.lock().stream.has_received(&newest);
        if is_moved {
            newest.note_moved(membership, has_received);
        } else if !has_received {
            newest.note_left(membership);
        }
    }

    /// Tells the group what the client refuses, each by itself.
    fn note_refusals(&self, resource_type: ResourceType, now: Instant) {
        let state = self.cell.lock();
        let Some(group) = &self.group else { return };
        let refused: Vec<Poison> = state
            .stream
            .refused_alone(resource_type)
            .map(|(name, version)| Poison { resource_type, name, version })
            .collect();
        drop(state);
        let share = self.shared.options.quarantine_share;
        let change = group.note_refused(self.cell.id, &refused, share, now);
        if change != Change::Nothing {
            let quarantined: Vec<_> = group
                .quarantined()
                .iter()
                .map(|(p, _)| format!("{} {:?}", p.resource_type, p.name))
                .collect();
            tracing::error!(
                group = &**group.name(),
                resources = ?quarantined,
                "many clients refuse these resources: the group goes back to what it had"
            );
            self.shared.wake(group, change, now);
        }
    }

    fn emit(&self, kind: ClientEventKind) {
        if self.shared.events.receiver_count() > 0 {
            let node_id = self.node_id().into();
            // An error says that nobody listens any more.
            let _ = self.shared.events.send(ClientEvent { client: self.cell.id, node_id, kind });
        }
    }

    fn node_id(&self) -> String {
        self.cell.lock().node.as_ref().map(|node| node.id.clone()).unwrap_or_default()
    }
}

fn log_response(state: &CellState, response: &Response) {
    tracing::debug!(
        node.id = state.node.as_ref().map(|node| node.id.as_str()),
        xds.r#type = response.resource_type.map(|resource_type| resource_type.service()),
        resources = response.resources,
        removed = response.removed,
        bytes = response.message.len(),
        "response"
    );
}

impl Body for Session {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let session = &mut *self;
        if session.ended {
            return Poll::Ready(None);
        }
        if !session.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut session.rest)))));
        }
        match session.poll_response(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((head, rest))) => {
                session.rest = rest;
                Poll::Ready(Some(Ok(Frame::data(head))))
            }
            Poll::Ready(Err(status)) => {
                session.ended = true;
                tracing::debug!(node.id = session.node_id(), code = ?status.code(), "stream ends");
                let mut trailers = HeaderMap::new();
                // It fails for a message that is no header value, and then leaves the code.
                let _ = status.add_header(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (group, known) = {
            let mut state = self.cell.lock();
            (state.group.take(), state.node.is_some())
        };
        if let Some(group) = group {
            self.leave(&group, false);
        }
        self.shared.clients.remove(&self.cell, &self.node_id());
        if known {
            tracing::info!(node.id = self.node_id(), "client disconnected");
            self.emit(ClientEventKind::Disconnected);
        }
    }
}
