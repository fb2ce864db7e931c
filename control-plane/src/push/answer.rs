//! What each protocol says to its sender.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tonic::{Code, Status};

use super::intake::{Accepted, RETRY_AFTER_SECONDS};
use super::refusal::{PointRefusal, RequestRefusal};
use super::wire::{put_bytes, put_number};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    OtlpProtobuf,
    OtlpJson,
    Text,
    Json,
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// The answer to a request that was understood.
pub(super) fn accepted(voice: Voice, accepted: &Accepted) -> Response<Body> {
    let Accepted { points, tally } = accepted;
    let refused = tally.refused();
    let message = tally.message();
    match voice {
        Voice::OtlpProtobuf => answer(StatusCode::OK, PROTOBUF, export_response(accepted)),
        Voice::OtlpJson => {
            let body = match message {
                // 64-bit integers are strings in this form.
                Some(message) => json!({"partialSuccess":
                    {"rejectedDataPoints": refused.to_string(), "errorMessage": message}}),
                None => json!({}),
            };
            answer(StatusCode::OK, JSON, body.to_string())
        }
        Voice::Text | Voice::Json => {
            let status = match refused {
                // Prometheus drops what was answered with 4xx and logs an error; series of other backends among those of
                // one job are none.
                refused
                    if voice == Voice::Text && refused == tally.refused_as(PointRefusal::UnknownBackend) =>
                {
                    StatusCode::NO_CONTENT
                }
                0 => StatusCode::OK,
                _ if tally.refused_as(PointRefusal::Forbidden) > 0 => StatusCode::FORBIDDEN,
                _ => StatusCode::BAD_REQUEST,
            };
            if voice == Voice::Text {
                let told = message.filter(|_| status != StatusCode::NO_CONTENT);
                return answer(status, "text/plain; charset=utf-8", told.unwrap_or_default());
            }
            let mut body = json!({"accepted": points, "refused": refused});
            if let Some(message) = message {
                body["error"] = json!({"message": message, "type": "refused"});
            }
            answer(status, JSON, body.to_string())
        }
    }
}

/// An `ExportMetricsServiceResponse`.
fn export_response(accepted: &Accepted) -> Vec<u8> {
    let mut response = Vec::new();
    if let Some(message) = accepted.tally.message() {
        let mut partial = Vec::new();
        put_number(&mut partial, 1, accepted.tally.refused());
        put_bytes(&mut partial, 2, message.as_bytes());
        put_bytes(&mut response, 1, &partial);
    }
    response
}

/// The answer to a request of which nothing was taken.
pub(super) fn refused(voice: Voice, refusal: &RequestRefusal) -> Response<Body> {
    let (status, code) = codes(refusal);
    let message = refusal.to_string();
    let mut answer = match voice {
        Voice::OtlpProtobuf => answer(status, PROTOBUF, rpc_status(code, &message, &[])),
        Voice::OtlpJson => answer(status, JSON, json!({"code": code as i32, "message": message}).to_string()),
        Voice::Text => answer(status, "text/plain; charset=utf-8", message),
        Voice::Json => {
            let body = json!({"error": {"message": message, "type": refusal.kind()}});
            answer(status, JSON, body.to_string())
        }
    };
    let headers = answer.headers_mut();
    match refusal {
        RequestRefusal::Busy(_) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        RequestRefusal::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"Clairvoy\""));
        }
        RequestRefusal::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    answer
}

/// The answer of a gRPC call that was understood.
pub(super) fn grpc_accepted(accepted: &Accepted) -> Response<Body> {
    let message = export_response(accepted);
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    let trailers = HeaderMap::from_iter([(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(framed)).with_trailers(async move { Some(Ok(trailers)) });
    answer(StatusCode::OK, "application/grpc", Body::new(body))
}

/// The answer of a gRPC call of which nothing was taken.
pub(super) fn grpc_refused(refusal: &RequestRefusal) -> Response<Body> {
    let (_, code) = codes(refusal);
    let message = refusal.to_string();
    let status = match refusal {
        RequestRefusal::Busy(_) => {
            let details = rpc_status(code, &message, &[retry_info()]);
            Status::with_details(code, message, details.into())
        }
        _ => Status::new(code, message),
    };
    let mut answer: Response<Body> = status.into_http();
    if matches!(refusal, RequestRefusal::Unsupported(_)) {
        let known = HeaderValue::from_static("identity,gzip");
        answer.headers_mut().insert("grpc-accept-encoding", known);
    }
    answer
}

fn codes(refusal: &RequestRefusal) -> (StatusCode, Code) {
    match refusal {
        RequestRefusal::TooLarge { .. }
        | RequestRefusal::TooMuch { .. }
        | RequestRefusal::TooManyPoints { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted),
        RequestRefusal::Malformed(_) | RequestRefusal::Broken => {
            (StatusCode::BAD_REQUEST, Code::InvalidArgument)
        }
        RequestRefusal::Unsupported(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented),
        RequestRefusal::Unauthenticated => (StatusCode::UNAUTHORIZED, Code::Unauthenticated),
        RequestRefusal::Browser => (StatusCode::FORBIDDEN, Code::PermissionDenied),
        // Not 429, which Prometheus does not retry unless it is told to.
        RequestRefusal::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        RequestRefusal::TooSlow(_) => (StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
        RequestRefusal::NotFound => (StatusCode::NOT_FOUND, Code::Unimplemented),
        RequestRefusal::Method => (StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented),
    }
}

/// A `google.rpc.Status` with details.
fn rpc_status(code: Code, message: &str, details: &[Vec<u8>]) -> Vec<u8> {
    let mut status = Vec::new();
    put_number(&mut status, 1, code as u64);
    put_bytes(&mut status, 2, message.as_bytes());
    for detail in details {
        put_bytes(&mut status, 3, detail);
    }
    status
}

/// A `google.rpc.RetryInfo`, as `google.protobuf.Any`.
fn retry_info() -> Vec<u8> {
    let (mut delay, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
    put_number(&mut delay, 1, RETRY_AFTER_SECONDS);
    put_bytes(&mut info, 1, &delay);
    put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    put_bytes(&mut any, 2, &info);
    any
}
