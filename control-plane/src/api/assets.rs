use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::ApiError;

/// The dashboard as it was built. In debug builds it is read from disk, so a new build of the page needs none of ours.
#[derive(RustEmbed)]
#[folder = "../dashboards/web/dist"]
struct Dashboard;

/// The page loads nothing from elsewhere, and nobody may put it into a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'";

pub(super) async fn serve(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    if path.starts_with("api/") {
        return ApiError::not_found(format!("there is no /{path}")).into_response();
    }
    // Files that the build wrote beside each other for transfer are not pages of their own.
    let Some((file, encoding)) = find(path, &headers) else {
        return ApiError::not_found(format!("there is no /{path}")).into_response();
    };
    let kind = mime_type(path);
    let mut response = (StatusCode::OK, Body::from(file.data.into_owned())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching(path)));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn find(path: &str, headers: &HeaderMap) -> Option<(rust_embed::EmbeddedFile, Option<&'static str>)> {
    let accepts =
        headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    for (encoding, extension) in [("br", "br"), ("gzip", "gz")] {
        if accepts.split(',').any(|offer| offer.trim().split(';').next() == Some(encoding))
            && let Some(file) = Dashboard::get(&format!("{path}.{extension}"))
        {
            return Some((file, Some(encoding)));
        }
    }
    Dashboard::get(path).map(|file| (file, None))
}

/// Names of assets carry a hash of their content; the page that names them does not.
fn caching(path: &str) -> &'static str {
    if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" }
}

fn mime_type(path: &str) -> HeaderValue {
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    let text = if guess.type_() == "text" { format!("{guess}; charset=utf-8") } else { guess.to_string() };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}
