//! The server as a peer sees it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::answer::Server;
use super::connections::MAX_CONNECTIONS;
use super::site::ServedFile;
use super::*;

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn folders() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        ("pkg/index.html", "page"),
        ("pkg/engine/a b.js", "script"),
        ("pkg/.hidden", "hidden"),
        ("models/mini/manifest.json", "{}"),
        ("models/mini/index.html", "<script>steal()</script>"),
        ("models/mini/look.svg", "<svg xmlns='http://www.w3.org/2000/svg'><script>steal()</script></svg>"),
        ("secret", "secret"),
    ];
    write(dir.path(), &files);
    dir
}

fn site(dir: &TempDir) -> Site {
    Site::new(&dir.path().join("pkg"), &dir.path().join("models")).unwrap()
}

fn start_patiently(dir: &TempDir, patience: Patience) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let others = vec![hosts::alone("studio.local").unwrap()];
    let server = Server::new(site(dir), Hosts::new(address.ip(), others), true);
    std::thread::spawn(move || serve(listener, server, patience));
    address
}

fn start(dir: &TempDir) -> SocketAddr {
    start_patiently(dir, PATIENCE)
}

/// Head and body of the answer to what is sent as it is.
fn send(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // What is refused may be cut off before it has been sent whole.
    let _ = stream.read_to_end(&mut answer);
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (String::from_utf8(answer).unwrap(), Vec::new());
    };
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

/// The answer to a GET of `path` with more headers.
fn get(address: SocketAddr, path: &str, headers: &str) -> (String, Vec<u8>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    send(address, &request)
}

fn status(head: &str) -> u16 {
    head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

/// A header's value; headers that are there twice would hide one another.
#[track_caller]
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let found: Vec<&str> = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v).collect();
    assert!(found.len() < 2, "{name} twice in {head}");
    found.first().copied()
}

#[test]
fn paths_lead_to_files_and_never_out() {
    let dir = folders();
    let site = site(&dir);
    for (target, file, model) in [
        ("/", "pkg/index.html", false),
        ("/index.html", "pkg/index.html", false),
        ("/engine/a%20b.js", "pkg/engine/a b.js", false),
        ("/models/mini/manifest.json", "models/mini/manifest.json", true),
        ("/%6dodels/mini/index.html", "models/mini/index.html", true),
    ] {
        let path = dir.path().join(file).canonicalize().unwrap();
        assert_eq!(site.file(target), Some(ServedFile { path, model }), "{target}");
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
        "/models/mini/",
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
    let dir = folders();
    std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("pkg/link")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), dir.path().join("models/mini/link.json")).unwrap();
    std::os::unix::fs::symlink("/", dir.path().join("models/all")).unwrap();
    let site = site(&dir);
    for target in ["/link", "/models/mini/link.json", "/models/all/etc/passwd"] {
        assert_eq!(site.file(target), None, "{target}");
    }
}

#[test]
fn one_connection_answers_several_requests() {
    let dir = folders();
    let (answers, body) = send(
        start(&dir),
        "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n\
         POST / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    let rest = String::from_utf8(body).unwrap();
    assert!(
        answers.starts_with("HTTP/1.1 200 OK") && header(&answers, "content-length") == Some("4"),
        "{answers}"
    );
    let found: Vec<u16> = rest.match_indices("HTTP/1.1 ").map(|(at, _)| status(&rest[at..])).collect();
    assert_eq!(found, [404, 405, 200], "{rest}");
    for expected in ["allow: GET, HEAD", "cross-origin-embedder-policy: require-corp"] {
        assert!(rest.contains(expected), "{expected} in {rest}");
    }
    assert!(rest.ends_with("\r\n\r\npage"), "{rest}");
}

#[test]
fn parts_are_sent_to_whom_holds_the_rest() {
    let dir = folders();
    let address = start(&dir);
    let (head, body) = get(address, "/", "");
    assert!(status(&head) == 200 && body == b"page", "{head}");
    let tag = header(&head, "etag").unwrap().to_owned();

    let (head, body) = get(address, "/", &format!("Range: bytes=1-\r\nIf-Range: {tag}\r\n"));
    assert!(status(&head) == 206 && header(&head, "content-range") == Some("bytes 1-3/4"), "{head}");
    assert_eq!(body, b"age");
    let (head, _) = get(address, "/", "Range: bytes=4-\r\n");
    assert!(status(&head) == 416 && header(&head, "content-range") == Some("bytes */4"), "{head}");
    let (head, body) = get(address, "/", &format!("If-None-Match: \"x\", W/{tag}\r\n"));
    assert!(status(&head) == 304 && body.is_empty(), "{head}");

    write(dir.path(), &[("pkg/index.html", "other page")]);
    for header in ["Range: bytes=1-\r\nIf-Range", "If-None-Match"] {
        let (head, body) = get(address, "/", &format!("{header}: {tag}\r\n"));
        assert!(status(&head) == 200 && body == b"other page", "{head}");
    }
}

#[test]
fn long_files_arrive_whole_and_in_parts() {
    let dir = folders();
    let bytes: Vec<u8> = (0..5 * file::PIECE as u32 / 2).map(|i| (i % 251) as u8).collect();
    std::fs::write(dir.path().join("models/mini/weights"), &bytes).unwrap();
    let address = start(&dir);
    let (head, body) = get(address, "/models/mini/weights", "");
    assert!(body == bytes && header(&head, "content-length") == Some("163840"), "{head}");
    let (head, body) = get(address, "/models/mini/weights", "Range: bytes=70000-140000\r\n");
    assert!(status(&head) == 206 && body == bytes[70000..=140000], "{head}");
}

#[test]
fn a_peer_that_has_it_hears_nothing_of_the_content() {
    let dir = folders();
    let address = start(&dir);
    let (head, _) = get(address, "/", "");
    let tag = header(&head, "etag").unwrap().to_owned();
    let (head, body) = get(address, "/", &format!("If-None-Match: {tag}\r\n"));
    assert!(status(&head) == 304 && body.is_empty(), "{head}");
    assert_eq!(header(&head, "etag"), Some(tag.as_str()));
    for name in [
        "content-type",
        "content-length",
        "content-range",
        "content-encoding",
        "accept-ranges",
        "transfer-encoding",
    ] {
        assert_eq!(header(&head, name), None, "{name}");
    }
}

#[test]
fn other_sites_names_are_not_answered() {
    let dir = folders();
    let address = start(&dir);
    let port = address.port();
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("GET / HTTP/1.1\r\nhost: LOCALHOST.:1234\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: Studio.Local\r\n", 200),
        ("GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n", 200),
        ("GET /models/mini/manifest.json HTTP/1.1\r\nHost: rebound.example\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: localhost.rebound.example\r\n", 421),
        ("HEAD / HTTP/1.1\r\nHost: 10.9.8.7\r\n", 421),
        ("POST / HTTP/1.1\r\nHost: rebound.example\r\n", 421),
        ("GET http://rebound.example/ HTTP/1.1\r\nHost: localhost\r\n", 421),
        ("GET http://localhost/ HTTP/1.1\r\nHost: rebound.example\r\n", 421),
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@localhost\r\n", 400),
        ("GET / HTTP/1.0\r\n", 400),
    ] {
        let (answer, body) = send(address, &format!("{head}Connection: close\r\n\r\n"));
        let answered = answer.replacen("HTTP/1.0", "HTTP/1.1", 1);
        assert_eq!(status(&answered), expected, "{head}");
        assert!(expected == 200 || !body.windows(4).any(|w| w == b"page" || w == b"{}"), "{head}");
    }
    let (head, _) =
        send(address, &format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"));
    assert_eq!(status(&head), 200);
}

#[test]
fn what_was_packed_beforehand_is_sent_as_long_as_it_is_of_the_file() {
    let dir = folders();
    let script = "x".repeat(5000);
    write(dir.path(), &[("pkg/a.js", &script), ("pkg/a.js.br", "brotli"), ("pkg/a.js.gz", "packed")]);
    let address = start(&dir);
    let mut tags = Vec::new();
    for (accepted, coding, expected) in [
        ("gzip, deflate, br", "br", "brotli"),
        ("gzip", "gzip", "packed"),
        ("br;q=0, gzip", "gzip", "packed"),
    ] {
        let accept = format!("Accept-Encoding: {accepted}\r\n");
        let (head, body) = get(address, "/a.js", &accept);
        assert_eq!(header(&head, "content-encoding"), Some(coding), "{accepted}");
        assert_eq!(body, expected.as_bytes(), "{accepted}");
        assert_eq!(header(&head, "content-length"), Some("6"), "{head}");
        assert_eq!(header(&head, "content-type"), Some("text/javascript; charset=utf-8"));
        let tag = header(&head, "etag").unwrap().to_owned();
        let (head, _) = get(address, "/a.js", &format!("{accept}If-None-Match: {tag}\r\n"));
        assert_eq!(status(&head), 304, "{accepted}");
        tags.push(tag);
    }
    assert!(tags[0] != tags[1] && tags[1] == tags[2], "{tags:?}");
    let (head, body) = get(address, "/a.js", "");
    assert!(header(&head, "content-encoding").is_none() && body == script.as_bytes(), "{head}");

    // The file has changed, and its packings have not.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    let file = std::fs::File::options().write(true).open(dir.path().join("pkg/a.js")).unwrap();
    file.set_modified(later).unwrap();
    let (head, body) = get(address, "/a.js", "Accept-Encoding: br, gzip\r\n");
    assert_eq!(header(&head, "content-encoding"), Some("gzip"));
    assert!(body != b"packed", "{head}");
}

#[test]
fn what_makes_the_page_installable_is_what_it_is() {
    let dir = folders();
    write(
        dir.path(),
        &[
            ("pkg/manifest.webmanifest", "{}"),
            ("pkg/icons/favicon.ico", "icon"),
            ("pkg/icons/icon.svg", "<svg/>"),
        ],
    );
    let address = start(&dir);
    for (path, kind) in [
        ("/manifest.webmanifest", "application/manifest+json"),
        ("/icons/favicon.ico", "image/x-icon"),
        ("/icons/icon.svg", "image/svg+xml"),
    ] {
        let (head, _) = get(address, path, "");
        assert_eq!((status(&head), header(&head, "content-type")), (200, Some(kind)), "{path}");
    }
}

#[test]
fn what_a_model_brings_is_data_and_the_page_is_framed_by_none() {
    let dir = folders();
    let address = start(&dir);
    for (path, kind) in [
        ("/models/mini/manifest.json", "application/json"),
        ("/models/mini/index.html", "application/octet-stream"),
        ("/models/mini/look.svg", "application/octet-stream"),
    ] {
        for headers in ["", "Range: bytes=0-0\r\n"] {
            let (head, _) = get(address, path, headers);
            assert_eq!(header(&head, "content-type"), Some(kind), "{path}");
            let policy = header(&head, "content-security-policy").unwrap();
            assert!(policy.starts_with("sandbox; default-src 'none'"), "{policy}");
            assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"));
        }
    }
    let (head, _) = get(address, "/models/mini/", "");
    assert_eq!(status(&head), 404);
    let (head, _) = get(address, "/", "");
    let policy = header(&head, "content-security-policy").unwrap();
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("script-src 'self'"), "{policy}");
    assert_eq!(header(&head, "content-type"), Some("text/html; charset=utf-8"));
    // The worker that makes models, and nothing else, may ask the hub.
    assert!(policy.contains("connect-src 'self';"), "{policy}");
    write(dir.path(), &[("pkg/engine/converter.js", "1"), ("pkg/engine/worker.js", "1")]);
    for (name, asks) in [("converter.js", true), ("worker.js", false)] {
        let (head, _) = get(address, &format!("/engine/{name}"), "");
        let policy = header(&head, "content-security-policy").unwrap();
        assert_eq!(policy.contains("https://huggingface.co"), asks, "{name}: {policy}");
    }
}

/// As the README has it copied for other hosts, and found in another way than by its address.
#[cfg(unix)]
#[test]
fn a_model_inside_the_page_is_data_by_any_way() {
    let dir = folders();
    write(dir.path(), &[("pkg/models/mini/index.html", "<script>steal()</script>")]);
    std::os::unix::fs::symlink("models", dir.path().join("pkg/other")).unwrap();
    let site = Site::new(&dir.path().join("pkg"), &dir.path().join("pkg/models")).unwrap();
    for target in ["/models/mini/index.html", "/other/mini/index.html", "/other/mini/"] {
        assert!(site.file(target).unwrap().model, "{target}");
    }
    assert!(!site.file("/index.html").unwrap().model);
}

#[test]
fn heads_that_cannot_be_read_are_told_so() {
    let dir = folders();
    let address = start(&dir);
    let long = "x".repeat(2 * MAX_HEAD);
    let many = "A: b\r\n".repeat(500);
    for (request, expected) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nLong: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431),
    ] {
        let (head, _) = send(address, &request);
        assert_eq!(status(&head), expected, "{head} for {}", &request[..40.min(request.len())]);
    }
    // None of it disturbs others.
    assert_eq!(status(&get(address, "/", "").0), 200);
}

#[test]
fn peers_that_never_finish_their_heads_shut_out_nobody() {
    let dir = folders();
    let address = start(&dir);
    let mut dripping: Vec<TcpStream> = Vec::new();
    for _ in 0..3 * MAX_CONNECTIONS {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: local").unwrap();
        dripping.push(stream);
        if dripping.len().is_multiple_of(MAX_CONNECTIONS) {
            let begun = Instant::now();
            let (head, body) = get(address, "/", "");
            assert!(status(&head) == 200 && body == b"page", "{head} beside {}", dripping.len());
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }
}

#[test]
fn a_head_has_to_come_in_time_however_it_drips() {
    let dir = folders();
    let patience = Patience { head: Duration::from_millis(400), stall: Duration::from_secs(30) };
    let mut stream = TcpStream::connect(start_patiently(&dir, patience)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // A byte every 50 ms is never silent.
    let ended = loop {
        let sent = stream.write_all(b"a");
        match stream.read(&mut [0; 64]) {
            Ok(0) => break true,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            _ => break true,
        }
        if sent.is_err() || begun.elapsed() > Duration::from_secs(10) {
            break sent.is_err();
        }
    };
    assert!(ended, "the connection is still open after {:?}", begun.elapsed());
}

#[test]
fn an_answer_that_is_not_taken_ends() {
    let dir = folders();
    // More than the sockets on both sides hold.
    std::fs::write(dir.path().join("models/mini/weights"), vec![7; 64 << 20]).unwrap();
    let patience = Patience { head: Duration::from_secs(30), stall: Duration::from_millis(300) };
    let mut stream = TcpStream::connect(start_patiently(&dir, patience)).unwrap();
    stream.write_all(b"GET /models/mini/weights HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let (mut taken, mut buffer) = (0, vec![0; 1 << 20]);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        taken += read;
    }
    assert!(taken < 64 << 20, "all {taken} bytes came");
}

#[test]
fn what_shrinks_comes_compressed_to_those_who_ask() {
    let dir = folders();
    let script = "const words = 'and again';\n".repeat(2000);
    let files = [("pkg/long.js", script.as_str()), ("pkg/long.wasm", &script), ("pkg/long.png", &script)];
    write(dir.path(), &files);
    write(dir.path(), &[("models/mini/long.json", &script)]);
    let address = start(&dir);
    for path in ["/long.js", "/long.wasm"] {
        let (plain, body) = get(address, path, "");
        assert!(header(&plain, "content-encoding").is_none() && body == script.as_bytes(), "{plain}");
        assert_eq!(header(&plain, "vary"), Some("accept-encoding"));
        for _ in 0..2 {
            let (head, body) = get(address, path, "Accept-Encoding: br, gzip\r\n");
            assert_eq!(header(&head, "content-encoding"), Some("gzip"), "{path}");
            assert_eq!(header(&head, "vary"), Some("accept-encoding"));
            assert_eq!(header(&head, "content-length"), Some(body.len().to_string().as_str()));
            assert!(body.len() < script.len() / 10);
            let mut text = String::new();
            GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            assert_eq!(text, script);
            // The two are not the same bytes, and are told apart.
            let tag = header(&head, "etag").unwrap();
            assert_ne!(header(&plain, "etag"), Some(tag));
            let held = format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n");
            assert_eq!(status(&get(address, path, &held).0), 304);
        }
        // A part is of the file itself.
        let (head, body) = get(address, path, "Accept-Encoding: gzip\r\nRange: bytes=6-10\r\n");
        assert!(
            status(&head) == 206 && body == b"words" && header(&head, "content-encoding").is_none(),
            "{head}"
        );
    }
    for path in ["/long.png", "/models/mini/long.json"] {
        let (head, body) = get(address, path, "Accept-Encoding: gzip\r\n");
        assert!(header(&head, "content-encoding").is_none() && body == script.as_bytes(), "{head}");
    }
    let changed = "let other = 'words entirely';\n".repeat(2000);
    write(dir.path(), &[("pkg/long.js", &changed)]);
    let (_, body) = get(address, "/long.js", "Accept-Encoding: gzip\r\n");
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, changed);
}

#[test]
fn a_folder_without_a_page_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let Err(error) = Site::new(dir.path(), dir.path()) else { panic!("there is no page") };
    assert!(matches!(error, Error::Refused { code: "page-missing", .. }), "{error}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let dir = folders();
    let args = Args {
        port: start(&dir).port(),
        host: Ipv4Addr::LOCALHOST.into(),
        host_name: Vec::new(),
        root: dir.path().join("pkg"),
        models: dir.path().join("models"),
        not_isolated: false,
    };
    let Err(error) = listen(args) else { panic!("two servers have one address") };
    assert!(matches!(error, Error::Refused { code: "port-taken", .. }), "{error}");
}

#[test]
fn the_address_that_is_told_can_be_opened() {
    for (bound, told) in
        [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "[::1]:80"), ("10.0.0.9:80", "10.0.0.9:80")]
    {
        assert_eq!(reachable(bound.parse().unwrap()).to_string(), told);
    }
}

/// What the README tells embedders to send is what this server sends, and more than what the page itself says where it may.
#[test]
fn the_policy_of_the_readme_is_the_one_that_is_sent() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let dir = folders();
    let (head, _) = get(start(&dir), "/", "");
    let policy = header(&head, "content-security-policy").unwrap();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let readme = read("README.md");
    let block = readme.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(words(block), policy);
    let page = read("web/index.html");
    let own =
        page.split("Content-Security-Policy\" content=\"").nth(1).and_then(|rest| rest.split('"').next());
    for directive in own.unwrap().split("; ") {
        assert!(policy.contains(directive), "{directive} is not sent");
    }
}
