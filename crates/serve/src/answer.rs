//! What a request is answered with.

use std::fs::Metadata;
use std::io::{self, SeekFrom};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::AsyncSeekExt;

use super::compress::{Compressed, Packed, takes};
use super::connections::Connection;
use super::file::FilePart;
use super::hosts::Hosts;
use super::range::{RequestedRange, parse_range};
use super::site::{ServedFile, Site};

/// Scripts only from here, no inline ones, wasm allowed, and no page around it; the worker takes it from its own response.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
     connect-src 'self'; img-src 'self' blob: data:; style-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";
/// The worker that makes models may ask Hugging Face's hub for files, which redirects to hosts of its own; the page may not.
const CONVERTER_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self' \
     https://huggingface.co https://*.huggingface.co https://*.hf.co; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Its script.
const CONVERTER: &str = "engine/converter.js";
/// A model's files and our own messages are no pages, whoever opens them as one.
const DATA_POLICY: &str =
    "sandbox; default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Text or compressed bytes from memory, or a file.
pub type Body = Either<Full<Bytes>, FilePart>;

/// Everything that an answer depends on beside the request.
pub struct Server {
    site: Site,
    hosts: Hosts,
    isolated: bool,
    compressed: Compressed,
}

impl Server {
    /// `isolated` pages may load nothing from other origins, and have all processors for it.
    pub fn new(site: Site, hosts: Hosts, isolated: bool) -> Self {
        Self { site, hosts, isolated, compressed: Compressed::default() }
    }

    /// Answers a request that arrived at the address `local`.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        local: IpAddr,
        connection: &Arc<Connection>,
    ) -> Result<Response<Body>, io::Error> {
        connection.answers();
        let mut response = match self.refusal(&request, local) {
            Some(status) => message(status),
            None => match self.site.file(request.uri().path()) {
                None => message(StatusCode::NOT_FOUND),
                Some(found) => match self.entity(&request, &found, connection).await {
                    Ok(response) => response,
                    Err(error) => message(match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => StatusCode::NOT_FOUND,
                        _ => StatusCode::INTERNAL_SERVER_ERROR,
                    }),
                },
            },
        };
        self.protect(response.headers_mut());
        // A file says by itself when it is sent.
        if matches!(response.body(), Either::Left(_)) {
            connection.waits();
        }
        Ok(response)
    }

    /// The status for a request that is not for this server.
    fn refusal(&self, request: &Request<Incoming>, local: IpAddr) -> Option<StatusCode> {
        let mut named = request.headers().get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else { return Some(StatusCode::BAD_REQUEST) };
        let target = request.uri().authority().map(|authority| authority.as_str());
        for authority in [host.to_str().ok(), target.or(Some("localhost"))] {
            match authority.and_then(|authority| self.hosts.allow(authority, local)) {
                Some(true) => {}
                Some(false) => return Some(StatusCode::MISDIRECTED_REQUEST),
                None => return Some(StatusCode::BAD_REQUEST),
            }
        }
        let known = [Method::GET, Method::HEAD].contains(request.method());
        (!known).then_some(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// A file, a part of it, or word that the peer's own is as new.
    async fn entity(
        &self,
        request: &Request<Incoming>,
        file: &ServedFile,
        connection: &Arc<Connection>,
    ) -> io::Result<Response<Body>> {
        let ServedFile { path, model } = file;
        let mut file = tokio::fs::File::open(path).await?;
        let metadata = file.metadata().await?;
        let (size, plain_tag) = (metadata.len(), entity_tag(&metadata));
        let asked = |name: HeaderName| text(request.headers(), name);
        let range = asked(header::RANGE).filter(|_| request.method() == Method::GET);

        // Models come as they are: they hardly shrink, and are fetched in parts. So does any other part.
        let varies = !model && Compressed::suits(path, size);
        let accepted = asked(header::ACCEPT_ENCODING).filter(|_| varies && range.is_none());
        let packed = match &accepted {
            Some(accepted) => Packed::of(path, &metadata, accepted).await,
            None => None,
        };
        let coding = match &packed {
            Some(packed) => Some(packed.coding),
            None => accepted.filter(|accepted| takes(accepted, "gzip")).map(|_| "gzip"),
        };
        let tag = match coding {
            Some(coding) => plain_tag.replacen('"', &format!("\"{coding}-"), 1),
            None => plain_tag.clone(),
        };
        let mut response = Response::new(Either::Left(Full::default()));
        let headers = response.headers_mut();
        headers.insert(header::ETAG, value(&tag));
        if varies {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        if asked(header::IF_NONE_MATCH).is_some_and(|tags| lists(&tags, &tag)) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy(path, *model));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        // A part is worth something only to whom holds the rest of the same file.
        let range = range.filter(|_| asked(header::IF_RANGE).is_none_or(|held| held == tag));
        let (start, end) = match range.map_or(RequestedRange::Whole, |range| parse_range(&range, size)) {
            RequestedRange::Whole => (0, size),
            RequestedRange::Bytes { start, end } => {
                let content = format!("bytes {start}-{}/{size}", end - 1);
                headers.insert(header::CONTENT_RANGE, value(&content));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                (start, end)
            }
            RequestedRange::Outside => {
                let mut response = message(StatusCode::RANGE_NOT_SATISFIABLE);
                response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{size}")));
                return Ok(response);
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy(path, *model));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(mime(path, *model)));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(coding) = coding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let (file, length) = match (packed, coding) {
            (Some(packed), _) => (packed.file, packed.size),
            (None, Some(_)) => {
                *response.body_mut() = Either::Left(Full::new(self.compressed.gzip(path, &plain_tag).await?));
                return Ok(response);
            }
            (None, None) => {
                file.seek(SeekFrom::Start(start)).await?;
                (file, end - start)
            }
        };
        if request.method() == Method::HEAD {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        } else {
            *response.body_mut() = Either::Right(FilePart::new(file, length, connection.clone()));
        }
        Ok(response)
    }

    /// What every answer says to the browser, whatever it is.
    fn protect(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if self.isolated {
            let embedder = HeaderName::from_static("cross-origin-embedder-policy");
            headers.insert(embedder, HeaderValue::from_static("require-corp"));
        }
    }
}

/// A status, with its name as text and what there is to do.
fn message(status: StatusCode) -> Response<Body> {
    let remedy = match status {
        StatusCode::MISDIRECTED_REQUEST => {
            "start the server with --host-name and the name that the address has\n"
        }
        _ => "",
    };
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(format!("{status}\n{remedy}")))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DATA_POLICY));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn policy(path: &Path, model: bool) -> HeaderValue {
    HeaderValue::from_static(match model {
        true => DATA_POLICY,
        false if path.ends_with(CONVERTER) => CONVERTER_POLICY,
        false => PAGE_POLICY,
    })
}

/// All values of a header that is a list, as one.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// What this file writes has no byte that a header could not hold.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// Changes whenever the file does, as far as its size and its time of change tell.
fn entity_tag(metadata: &Metadata) -> String {
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("\"{:x}-{:x}\"", metadata.len(), changed.unwrap_or_default().as_nanos())
}

/// Whether the list of an `If-None-Match` names `tag`.
fn lists(tags: &str, tag: &str) -> bool {
    tags.split(',').map(str::trim).any(|listed| listed == "*" || listed.trim_start_matches("W/") == tag)
}

/// What a browser may take a file for; of a `model`, nothing that it would run or draw.
fn mime(path: &Path, model: bool) -> &'static str {
    let ending = path.extension().and_then(|e| e.to_str());
    if model {
        return match ending {
            Some("json") => "application/json",
            _ => "application/octet-stream",
        };
    }
    match ending {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("wasm") => "application/wasm",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("ico") => "image/x-icon",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("txt" | "md" | "ts") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
