//! The intake's surfaces: HTTP with its three paths, and gRPC.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, Response, header};
use bytes::{Buf as _, Bytes};

use super::answer::{Voice, accepted, grpc_accepted, grpc_refused, refused};
use super::body::{Held, Packing};
use super::intake::{Accepted, Format, Intake};
use super::metrics::Protocol;
use super::refusal::RequestRefusal;

/// What is spoken on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, Prometheus remote write and plain JSON.
    Http,
}

const EXPORT: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

impl Intake {
    /// Answers one request.
    pub async fn answer<B>(&self, surface: Surface, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        match surface {
            Surface::Grpc => self.answer_grpc(request).await,
            Surface::Http => self.answer_http(request).await,
        }
    }

    async fn answer_http<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let (protocol, voice) = match request.uri().path() {
            "/v1/metrics" if content_type(request.headers()).0 == "application/json" => {
                (Protocol::OtlpHttp, Voice::OtlpJson)
            }
            "/v1/metrics" => (Protocol::OtlpHttp, Voice::OtlpProtobuf),
            "/api/v1/write" => (Protocol::RemoteWrite, Voice::Text),
            "/api/v1/telemetry" => (Protocol::Json, Voice::Json),
            _ => (Protocol::Other, Voice::Json),
        };
        let taken = self.take_http(protocol, voice, request).await;
        self.note(protocol, &taken);
        match taken {
            Ok(taken) => accepted(voice, &taken),
            Err(refusal) => refused(voice, &refusal),
        }
    }

    async fn take_http<B>(
        &self,
        protocol: Protocol,
        voice: Voice,
        request: Request<B>,
    ) -> Result<Accepted, RequestRefusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        if protocol == Protocol::Other {
            return Err(RequestRefusal::NotFound);
        }
        if request.method() != Method::POST {
            return Err(RequestRefusal::Method);
        }
        let (head, body) = request.into_parts();
        let admitted = self.admit(&head)?;
        let format = format(voice, &head.headers)?;
        let packing = Packing::of(&head.headers)?;
        check_packing(format, packing)?;
        let body = self.limits().read(&head.headers, body).await?;
        let place = self.place(admitted.sender)?;
        self.take(protocol, format, packing, body, admitted, place).await
    }

    async fn answer_grpc<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let taken = self.take_grpc(request).await;
        self.note(Protocol::OtlpGrpc, &taken);
        match taken {
            Ok(taken) => grpc_accepted(&taken),
            Err(refusal) => grpc_refused(&refusal),
        }
    }

    async fn take_grpc<B>(&self, request: Request<B>) -> Result<Accepted, RequestRefusal>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        if request.uri().path() != EXPORT {
            return Err(RequestRefusal::NotFound);
        }
        let (head, body) = request.into_parts();
        let (kind, _) = content_type(&head.headers);
        if head.method != Method::POST
            || !matches!(kind.as_str(), "application/grpc" | "application/grpc+proto")
        {
            return Err(RequestRefusal::Unsupported(format!("content type {kind:?} is no gRPC of protobuf")));
        }
        let admitted = self.admit(&head)?;
        let body = self.limits().read(&head.headers, body).await?;
        let place = self.place(admitted.sender)?;
        let (body, packing) = unframe(body, &head.headers)?;
        self.take(Protocol::OtlpGrpc, Format::OtlpProtobuf, packing, body, admitted, place).await
    }

    pub(super) fn note(&self, protocol: Protocol, taken: &Result<Accepted, RequestRefusal>) {
        let outcome = match taken {
            Ok(taken) if taken.tally.refused() > 0 => "partial",
            Ok(_) => "ok",
            Err(refusal) => refusal.kind(),
        };
        self.metrics().request(protocol, outcome);
    }
}

/// The type without parameters, in small letters, and the parameters.
fn content_type(headers: &HeaderMap) -> (String, String) {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    let cut = |text: &str| text.trim().chars().take(200).collect::<String>().to_ascii_lowercase();
    (cut(kind), cut(parameters))
}

fn format(voice: Voice, headers: &HeaderMap) -> Result<Format, RequestRefusal> {
    let (kind, parameters) = content_type(headers);
    let schema = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("proto="));
    match (voice, kind.as_str()) {
        (Voice::OtlpProtobuf, "application/x-protobuf") => Ok(Format::OtlpProtobuf),
        (Voice::OtlpJson, "application/json") => Ok(Format::OtlpJson),
        (Voice::Json, "application/json") => Ok(Format::Plain),
        (Voice::Text, "application/x-protobuf") => match schema {
            None | Some("prometheus.writerequest") => Ok(Format::RemoteWrite),
            Some(other) => {
                let message =
                    format!("{other:?} is not understood, only prometheus.WriteRequest (version 1.0) is");
                Err(RequestRefusal::Unsupported(message))
            }
        },
        _ => Err(RequestRefusal::Unsupported(format!("content type {kind:?} is not understood here"))),
    }
}

fn check_packing(format: Format, packing: Packing) -> Result<(), RequestRefusal> {
    match (format, packing) {
        (Format::RemoteWrite, Packing::Snappy) => Ok(()),
        (Format::RemoteWrite, _) => {
            Err(RequestRefusal::Unsupported("remote write has the content encoding snappy".to_owned()))
        }
        (_, Packing::Snappy) => {
            Err(RequestRefusal::Unsupported("snappy is for remote write only".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Takes the one message of a unary call out of its frame.
pub(super) fn unframe(mut held: Held, headers: &HeaderMap) -> Result<(Held, Packing), RequestRefusal> {
    let malformed = |what: &str| RequestRefusal::Malformed(what.to_owned());
    if held.bytes.len() < 5 {
        return Err(malformed("no message"));
    }
    let packed = held.bytes.get_u8();
    let length = held.bytes.get_u32();
    if held.bytes.len() as u64 != u64::from(length) {
        return Err(malformed("not one whole message"));
    }
    let packing = match packed {
        0 => Packing::Plain,
        1 => match headers.get("grpc-encoding").map(|value| value.as_bytes()) {
            Some(b"gzip") => Packing::Gzip,
            _ => return Err(RequestRefusal::Unsupported("grpc-encoding is not gzip".to_owned())),
        },
        _ => return Err(malformed("a frame that is neither packed nor not")),
    };
    Ok((held, packing))
}
