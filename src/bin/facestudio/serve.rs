//! `facestudio serve`: the page and the models over HTTP, for one's own machine. Static files, GET and HEAD, with
//! entity tags and byte ranges (RFC 9110), so that an interrupted download of a model goes on where it stopped.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use facestudio::Error;

use crate::output::print;

/// Most bytes of a request's head.
const MAX_HEAD: u64 = 16 * 1024;
/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long a silent peer is waited for.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Scripts only from here, no inline ones, wasm allowed; the worker inherits it from its own response.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; \
     connect-src 'self'; img-src 'self' blob: data:; style-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'none'";

#[derive(clap::Args)]
pub struct Args {
    /// Port; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Address to listen on; 0.0.0.0 lets other machines in.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The browser package, served at /.
    #[arg(long, default_value = "pkg")]
    root: PathBuf,
    /// The model folders, served at /models/.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// Leave out the header that isolates the page from other origins (COEP), as many hosts do: the CPU backend then has one
    /// thread, until the page's service worker adds the header at the second visit.
    #[arg(long)]
    not_isolated: bool,
}

/// Serves until it is stopped.
pub fn run(args: Args) -> anyhow::Result<()> {
    let site = Site::new(&args.root, &args.models, !args.not_isolated)?;
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).map_err(|e| {
        Error::input("port-taken", format!("cannot listen on {address}: {e}"), "choose another --port")
    })?;
    print(&format!("FaceStudio is at http://{}/ (stop with Ctrl-C)\n", listener.local_addr()?))?;
    serve(&listener, site);
    Ok(())
}

/// What is served.
struct Site {
    root: PathBuf,
    /// Absent until a model is there.
    models: Option<PathBuf>,
    isolated: bool,
}

impl Site {
    fn new(root: &Path, models: &Path, isolated: bool) -> Result<Self, Error> {
        if !root.join("index.html").is_file() {
            return Err(Error::input(
                "page-missing",
                format!("{} holds no index.html", root.display()),
                "build the browser package with `make pkg`, or name its folder with --root",
            ));
        }
        let root = root.canonicalize().map_err(|e| Error::io(root.display(), &e))?;
        Ok(Self { root, models: models.canonicalize().ok(), isolated })
    }

    /// The file behind a request's target; `None` where there is none that may be seen.
    fn file(&self, target: &str) -> Option<PathBuf> {
        let path = percent_decode(target.split(['?', '#']).next()?)?;
        let (base, rest) = match path.strip_prefix("/models/") {
            Some(rest) => (self.models.as_deref()?, rest),
            None => (self.root.as_path(), path.strip_prefix('/')?),
        };
        let rest = if rest.is_empty() || rest.ends_with('/') {
            format!("{rest}index.html")
        } else {
            rest.to_owned()
        };
        // Hidden files, drive letters and Windows' own separators are refused along with the way up.
        let plain =
            |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '\0']);
        if !rest.split('/').all(plain) {
            return None;
        }
        // Links are followed before the comparison, so that none of them leads out.
        let file = base.join(rest).canonicalize().ok()?;
        (file.starts_with(base) && file.is_file()).then_some(file)
    }
}

fn serve(listener: &TcpListener, site: Site) {
    let site = Arc::new(site);
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (site, open) = (site.clone(), open.clone());
        std::thread::spawn(move || {
            // A peer that goes away is its own affair.
            let _ = answer(&stream, &site);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Answers the requests of one connection until it closes.
fn answer(stream: &TcpStream, site: &Site) -> io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_head(&mut reader)? {
        let reply = reply(&request, site)?;
        let isolation = if site.isolated { "Cross-Origin-Embedder-Policy: require-corp\r\n" } else { "" };
        let connection = if request.close { "close" } else { "keep-alive" };
        let mut out = stream;
        write!(
            out,
            "HTTP/1.1 {}\r\n{}Content-Length: {}\r\nConnection: {connection}\r\nCache-Control: no-cache\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Content-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n{isolation}\r\n",
            reply.status, reply.headers, reply.length
        )?;
        if request.method != "HEAD" {
            match reply.file {
                // A file that grows or shrinks meanwhile must not run into the next answer.
                Some(file) => {
                    if io::copy(&mut file.take(reply.length), &mut out)? < reply.length {
                        break;
                    }
                }
                None => out.write_all(&reply.status.as_bytes()[..reply.length as usize])?,
            }
        }
        if request.close {
            break;
        }
    }
    Ok(())
}

/// What a request is answered with: the status as text, or `length` bytes of a file from where it stands.
struct Reply {
    status: &'static str,
    headers: String,
    length: u64,
    file: Option<File>,
}

fn reply(request: &Request, site: &Site) -> io::Result<Reply> {
    let text = |status: &'static str, headers: String| Reply {
        status,
        headers: format!("Content-Type: text/plain; charset=utf-8\r\n{headers}"),
        length: status.len() as u64,
        file: None,
    };
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Ok(text("405 Method Not Allowed", "Allow: GET, HEAD\r\n".to_owned()));
    }
    let Some(path) = site.file(&request.target) else { return Ok(text("404 Not Found", String::new())) };
    let mut file = File::open(&path)?;
    let metadata = file.metadata()?;
    let (size, tag) = (metadata.len(), entity_tag(&metadata));
    let entity = format!("ETag: {tag}\r\nAccept-Ranges: bytes\r\n");
    if request.if_none_match.as_deref().is_some_and(|tags| lists(tags, &tag)) {
        return Ok(Reply { length: 0, ..text("304 Not Modified", entity) });
    }
    // A part is worth something only to whom holds the rest of the same file.
    let range =
        request.range.as_deref().filter(|_| request.if_range.as_ref().is_none_or(|held| *held == tag));
    let (status, start, length) = match range.map_or(Part::Whole, |range| part(range, size)) {
        Part::Whole => ("200 OK", 0, size),
        Part::Bytes { start, end } => ("206 Partial Content", start, end - start),
        Part::Outside => {
            return Ok(text("416 Range Not Satisfiable", format!("Content-Range: bytes */{size}\r\n")));
        }
    };
    file.seek(SeekFrom::Start(start))?;
    let mut headers = format!("Content-Type: {}\r\n{entity}", mime(&path));
    if status.starts_with("206") {
        headers.push_str(&format!("Content-Range: bytes {start}-{}/{size}\r\n", start + length - 1));
    }
    Ok(Reply { status, headers, length, file: Some(file) })
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

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Bytes { start: u64, end: u64 },
    Outside,
}

/// Reads a `Range` header: one range of bytes, or everything for what this server does not know.
fn part(range: &str, size: u64) -> Part {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let (start, end) = match (first, number(first), last, number(last)) {
        // The last bytes of the file.
        ("", _, _, Some(count)) => (size.saturating_sub(count), size),
        (_, Some(start), "", _) => (start, size),
        (_, Some(start), _, Some(last)) if start <= last => (start, size.min(last.saturating_add(1))),
        _ => return Part::Whole,
    };
    if start < end { Part::Bytes { start, end } } else { Part::Outside }
}

struct Request {
    method: String,
    target: String,
    close: bool,
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Option<String>,
}

/// Reads one request's head; `None` at the connection's end and for what is not HTTP.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = reader.take(MAX_HEAD);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Ok(None);
    };
    if !version.starts_with("HTTP/1.") {
        return Ok(None);
    }
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        close: version == "HTTP/1.0",
        range: None,
        if_range: None,
        if_none_match: None,
    };
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        let header = header.trim_end();
        if header.is_empty() {
            return Ok(Some(request));
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "connection" => request.close |= value.to_ascii_lowercase().contains("close"),
            "range" => request.range = Some(value),
            "if-range" => request.if_range = Some(value),
            "if-none-match" => request.if_none_match = Some(value),
            // Nothing here takes a body; one that is sent would be read as the next request.
            "content-length" | "transfer-encoding" => request.close = true,
            _ => {}
        }
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn mime(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("txt" | "md" | "ts") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (tempfile::TempDir, Site) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("pkg/index.html", "page"),
            ("pkg/engine/a b.js", "script"),
            ("pkg/.hidden", "hidden"),
            ("models/mini/manifest.json", "{}"),
            ("secret", "secret"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let site = Site::new(&dir.path().join("pkg"), &dir.path().join("models"), true).unwrap();
        (dir, site)
    }

    #[test]
    fn paths_lead_to_files_and_never_out() {
        let (dir, site) = site();
        for (target, file) in [
            ("/", "pkg/index.html"),
            ("/index.html?v=1#top", "pkg/index.html"),
            ("/engine/a%20b.js", "pkg/engine/a b.js"),
            ("/models/mini/manifest.json", "models/mini/manifest.json"),
        ] {
            let expected = dir.path().join(file).canonicalize().unwrap();
            assert_eq!(site.file(target), Some(expected), "{target}");
        }
        for target in [
            "/../secret",
            "/%2e%2e/secret",
            "/engine/../../secret",
            "/models/../secret",
            "/models/..%2fsecret",
            "//etc/passwd",
            "/.hidden",
            "/engine",
            "/engine/",
            "/models/",
            "/%",
            "/%ff",
            "/a%00b",
            "index.html",
            "",
        ] {
            assert_eq!(site.file(target), None, "{target}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_not_followed() {
        let (dir, site) = site();
        std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("pkg/link")).unwrap();
        assert_eq!(site.file("/link"), None);
    }

    #[test]
    fn one_connection_answers_several_requests() {
        let (_dir, site) = site();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, site));
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(
                b"HEAD / HTTP/1.1\r\n\r\nGET /nothing HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n\r\n\
                  GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let status: Vec<&str> = answers.matches("HTTP/1.1 ").collect();
        assert_eq!(status.len(), 4, "{answers}");
        for expected in
            ["200 OK", "404 Not Found", "405 Method", "Cross-Origin-Embedder-Policy: require-corp"]
        {
            assert!(answers.contains(expected), "{expected} in {answers}");
        }
        assert!(answers.ends_with("\r\n\r\npage"), "{answers}");
    }

    /// Head and body of the answer to a GET of `/` with one more header.
    fn get(address: SocketAddr, header: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nConnection: close\r\n{header}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn parts_are_sent_to_whom_holds_the_rest() {
        let (dir, site) = site();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, site));
        let (head, body) = get(address, "");
        assert!(head.starts_with("HTTP/1.1 200 OK") && body == "page", "{head}");
        let (_, tag) = head.split_once("ETag: ").unwrap();
        let tag = tag.lines().next().unwrap().to_owned();

        let (head, body) = get(address, &format!("Range: bytes=1-\r\nIf-Range: {tag}\r\n"));
        assert!(head.starts_with("HTTP/1.1 206") && head.contains("Content-Range: bytes 1-3/4"), "{head}");
        assert_eq!(body, "age");
        let (head, body) = get(address, "Range: bytes=4-\r\n");
        assert!(
            head.starts_with("HTTP/1.1 416") && head.contains("Content-Range: bytes */4"),
            "{head} {body}"
        );
        let (head, body) = get(address, &format!("If-None-Match: \"x\", W/{tag}\r\n"));
        assert!(head.starts_with("HTTP/1.1 304") && body.is_empty(), "{head}");

        std::fs::write(dir.path().join("pkg/index.html"), "other page").unwrap();
        for header in ["Range: bytes=1-\r\nIf-Range", "If-None-Match"] {
            let (head, body) = get(address, &format!("{header}: {tag}\r\n"));
            assert!(head.starts_with("HTTP/1.1 200") && body == "other page", "{head}");
        }
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let bytes = |start, end| Part::Bytes { start, end };
        for (range, expected) in [
            ("bytes=0-", bytes(0, 10)),
            ("bytes=3-5", bytes(3, 6)),
            ("bytes=3-99", bytes(3, 10)),
            ("bytes=-4", bytes(6, 10)),
            ("bytes=-99", bytes(0, 10)),
            ("bytes=9-18446744073709551615", bytes(9, 10)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=5-3", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=18446744073709551616-", Part::Whole),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
    }

    #[test]
    fn a_folder_without_a_page_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let Err(error) = Site::new(dir.path(), dir.path(), false) else { panic!("there is no page") };
        assert_eq!(error.code, "page-missing");
    }
}
