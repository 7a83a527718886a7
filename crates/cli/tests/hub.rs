//! The hub, as a small server of this test plays it: redirects, ranges, gates, rate limits, breaks.

#[path = "../../../tests/support/tiny_model.rs"]
mod tiny_model;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use facestudio::weights::{Manifest, ModelCard, sha256};
use facestudio_convert::presets::{Becomes, Part, Preset, SourceFile};

const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

/// What the hub holds and what it does.
#[derive(Default)]
struct Hub {
    /// By `owner/name/path`.
    files: BTreeMap<String, Vec<u8>>,
    /// Repositories that ask who one is.
    gated: Vec<String>,
    /// What a path ends with that is answered with 429 so often.
    busy: BTreeMap<String, usize>,
    /// After how many bytes each further answer of the storage breaks off, and how often still.
    breaks: (usize, usize),
    /// What was asked for: method and path, whether with a token, and from which byte on.
    asked: Vec<(String, bool, usize)>,
}

/// A hub and its storage on another port, which is another host.
struct Server {
    hub: Arc<Mutex<Hub>>,
    endpoint: String,
    home: tempfile::TempDir,
}

impl Server {
    fn new(hub: Hub) -> Self {
        let hub = Arc::new(Mutex::new(hub));
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (front, storage) = (listen(), listen());
        let endpoint = format!("http://{}", front.local_addr().unwrap());
        let behind = format!("http://{}", storage.local_addr().unwrap());
        for (listener, is_front) in [(front, true), (storage, false)] {
            let (hub, behind) = (hub.clone(), behind.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (hub, behind) = (hub.clone(), behind.clone());
                    std::thread::spawn(move || answer(stream, &hub, is_front.then_some(behind.as_str())));
                }
            });
        }
        Self { hub, endpoint, home: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_facestudio"));
        command.args(arguments).env("HF_ENDPOINT", &self.endpoint).env("HF_HOME", self.home.path());
        command.env_remove("HF_TOKEN").env_remove("HF_HUB_CACHE").output().unwrap()
    }

    fn asked(&self) -> Vec<(String, bool, usize)> {
        std::mem::take(&mut self.hub.lock().unwrap().asked)
    }
}

/// Answers one request, and closes.
fn answer(mut stream: TcpStream, hub: &Mutex<Hub>, storage: Option<&str>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> =
        lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let header = |name: &str| headers.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let token = header("authorization");
    let start: usize = header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0);
    let mut hub = hub.lock().unwrap();
    hub.asked.push((format!("{method} {path}"), token.is_some(), start));
    let mut send = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    // The storage knows no tokens, and serves by hash.
    let Some(storage) = storage else {
        assert!(token.is_none(), "a token went to another host");
        let Some(bytes) = hub.files.values().find(|bytes| path == format!("/{}", sha256(bytes))).cloned()
        else {
            return send("404 Not Found", "Content-Length: 0\r\n", b"");
        };
        let rest = &bytes[start.min(bytes.len())..];
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
        let sent = if hub.breaks.1 > 0 && rest.len() > hub.breaks.0 {
            hub.breaks.1 -= 1;
            // Never twice after as many.
            hub.breaks.0 = (hub.breaks.0 * 7 + 13) % 20_000 + 1;
            &rest[..hub.breaks.0.min(rest.len() - 1)]
        } else {
            rest
        };
        return send(status, &format!("Content-Length: {}\r\n{range}", rest.len()), sent);
    };
    // One was renamed.
    if let Some(rest) = path.strip_prefix("/old/") {
        return send(
            "307 Temporary Redirect",
            &format!("Location: /me/{rest}\r\nContent-Length: 0\r\n"),
            b"",
        );
    }
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
    let [owner, name, "resolve", revision, file] = parts[..] else {
        return send("400 Bad Request", "Content-Length: 0\r\n", b"");
    };
    let repository = format!("{owner}/{name}");
    if let Some((_, left)) =
        hub.busy.iter_mut().find(|(end, left)| path.ends_with(end.as_str()) && **left > 0)
    {
        *left -= 1;
        return send("429 Too Many Requests", "Retry-After: 0\r\nContent-Length: 0\r\n", b"");
    }
    if hub.gated.contains(&repository) && token != Some("bearer secret") {
        let status = if token.is_none() { "401 Unauthorized" } else { "403 Forbidden" };
        return send(status, "Content-Length: 0\r\n", b"");
    }
    let bytes =
        hub.files.get(&format!("{repository}/{file}")).filter(|_| ["main", COMMIT].contains(&revision));
    let Some(bytes) = bytes else { return send("404 Not Found", "Content-Length: 0\r\n", b"") };
    let hash = sha256(bytes);
    let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
    if bytes.len() > 2000 {
        // A large file is elsewhere.
        let headers = format!(
            "{commit}X-Linked-Etag: \"{hash}\"\r\nX-Linked-Size: {}\r\nLocation: {storage}/{hash}\r\nContent-Length: 0\r\n",
            bytes.len()
        );
        return send("302 Found", &headers, b"");
    }
    let headers = format!("{commit}ETag: \"{}\"\r\nContent-Length: {}\r\n", &hash[..40], bytes.len());
    send("200 OK", &headers, if method == "HEAD" { b"" } else { bytes });
}

fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/parity")).join(name)
}

/// A UNet with its config in one repository, a LoRA for it in another, and the recipe in a file.
fn recipe(folder: &Path, change: impl FnOnce(&mut Preset)) -> (Hub, String, Preset) {
    let mut hub = Hub::default();
    let mut part = |repository: &str, becomes: Becomes, files: &[(&str, &str)]| Part {
        what: format!("What {repository} holds"),
        repository: repository.to_owned(),
        revision: None,
        url: None,
        archive: None,
        license: "MIT".to_owned(),
        license_url: "https://example.org/license".to_owned(),
        research_only: false,
        becomes,
        files: files
            .iter()
            .map(|(path, from)| {
                let bytes = std::fs::read(fixture(from)).unwrap();
                hub.files.insert(format!("{repository}/{path}"), bytes.clone());
                SourceFile {
                    path: (*path).to_owned(),
                    bytes: Some(bytes.len() as u64),
                    about_bytes: None,
                    sha256: Some(sha256(&bytes)),
                }
            })
            .collect(),
    };
    let unet = [
        ("unet/config.json", "prompt/model/unet/config.json"),
        ("unet/model.safetensors", "prompt/model/unet/model.safetensors"),
    ];
    let parts = vec![
        part("me/networks", Becomes::Component(facestudio_convert::Slot::Unet), &unet),
        part(
            "me/style",
            Becomes::Lora { scale: 0.5 },
            &[("style.safetensors", "lora/styles.comfy.safetensors")],
        ),
    ];
    let mut preset = Preset {
        name: "mine".to_owned(),
        says: "what I draw".to_owned(),
        family: "sd15".to_owned(),
        people: None,
        arc2face: false,
        face_id_plus: None,
        sampling: Default::default(),
        parts,
    };
    change(&mut preset);
    let path = folder.join("mine.json");
    std::fs::write(&path, serde_json::to_vec(&preset).unwrap()).unwrap();
    (hub, path.display().to_string(), preset)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_recipe_is_fetched_over_breaks_and_limits_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (mut hub, name, preset) = recipe(folder.path(), |_| {});
    hub.breaks = (5_000, 30);
    hub.busy.insert("style.safetensors".to_owned(), 3);
    let by_hand = folder.path().join("by-hand");
    for (part, file) in preset.files() {
        let place = part.at(&by_hand, file);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, &hub.files[&format!("{}/{}", part.repository, file.path)]).unwrap();
    }
    let server = Server::new(hub);
    // Nothing is fetched unless it is asked for.
    assert!(server.run(&["presets", &name]).status.success());
    assert_eq!(server.asked(), []);

    let fetched = server.run(&["presets", &name, "--fetch", "--dtype", "f32", "--out", &at("fetched")]);
    assert!(fetched.status.success(), "{}", said(&fetched));
    let asked = server.asked();
    let resumed: Vec<usize> = asked.iter().map(|(.., start)| *start).filter(|start| *start > 0).collect();
    assert!(resumed.len() > 10, "{resumed:?}");
    assert_eq!(server.hub.lock().unwrap().busy["style.safetensors"], 0);

    let files = by_hand.display().to_string();
    let converted =
        server.run(&["presets", &name, "--files", &files, "--dtype", "f32", "--out", &at("converted")]);
    assert!(converted.status.success(), "{}", said(&converted));
    let weights =
        |model: &str| std::fs::read(folder.path().join(model).join("unet/model.safetensors")).unwrap();
    assert!(weights("fetched") == weights("converted"));

    // What is there is not fetched again.
    assert_eq!(server.asked(), []);
    let again = server.run(&["presets", &name, "--fetch", "--dtype", "f32", "--out", &at("again")]);
    assert!(again.status.success(), "{}", said(&again));
    assert!(server.asked().iter().all(|(request, ..)| request.starts_with("HEAD ")));
}

#[test]
fn who_may_not_is_told_how_and_who_may_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (mut hub, name, _) = recipe(folder.path(), |_| {});
    hub.gated.push("me/style".to_owned());
    let server = Server::new(hub);
    let refused = server.run(&["presets", &name, "--fetch"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said(&refused).contains("[hub-denied]") && said(&refused).contains("HF_TOKEN"),
        "{}",
        said(&refused)
    );
    assert!(said(&refused).contains("me/style/style.safetensors"));
    std::fs::write(server.home.path().join("token"), "wrong\n").unwrap();
    assert!(said(&server.run(&["presets", &name, "--fetch"])).contains("403"));
    std::fs::write(server.home.path().join("token"), "secret\n").unwrap();
    let served = server.run(&["presets", &name, "--fetch"]);
    assert!(served.status.success(), "{}", said(&served));
    let to_the_hub = server.asked().into_iter().filter(|(_, token, _)| *token).count();
    assert!(to_the_hub > 0);
}

#[test]
fn another_file_than_the_recipe_states_is_refused_and_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    for (what, code) in [("hash", "[hub-damaged]"), ("bytes", "[hub-damaged]"), ("path", "[hub-missing]")] {
        let (hub, name, _) = recipe(folder.path(), |preset| {
            let file = &mut preset.parts[0].files[1];
            match what {
                "hash" => file.sha256 = Some("0".repeat(64)),
                "bytes" => file.bytes = Some(7),
                _ => file.path = "unet/none.safetensors".to_owned(),
            }
        });
        let server = Server::new(hub);
        let refused = server.run(&[
            "presets",
            &name,
            "--fetch",
            "--out",
            &folder.path().join("out").display().to_string(),
        ]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(
            said(&refused).contains(code) && said(&refused).contains("me/networks/unet/"),
            "{}",
            said(&refused)
        );
        assert!(!folder.path().join("out").exists());
        let blobs = server.home.path().join("hub/models--me--networks/blobs");
        // The config is kept, what was wrong is not.
        assert_eq!(
            std::fs::read_dir(blobs)
                .unwrap()
                .filter(|entry| {
                    let entry = entry.as_ref().unwrap();
                    entry.metadata().unwrap().len() > 2000
                })
                .count(),
            0,
            "{what}"
        );
    }
}

#[test]
fn a_published_model_draws() {
    let folder = tempfile::tempdir().unwrap();
    let files = tiny_model::files();
    let manifest = Manifest::build(
        &files,
        ModelCard { name: "tiny".to_owned(), license: "MIT".to_owned(), ..ModelCard::default() },
    )
    .unwrap();
    let mut hub = Hub::default();
    hub.files.insert("me/tiny/manifest.json".to_owned(), manifest.to_json().unwrap());
    hub.files.extend(files.0.iter().map(|(path, bytes)| (format!("me/tiny/{path}"), bytes.clone())));
    let server = Server::new(hub);
    let draw = |model: &str, out: &str| {
        let out = folder.path().join(out);
        let drawn = server.run(&[
            "generate",
            "--model",
            model,
            "--prompt",
            "a man",
            "--steps",
            "1",
            "--out",
            &out.display().to_string(),
        ]);
        assert!(drawn.status.success(), "{}", said(&drawn));
        std::fs::read(out).unwrap()
    };
    let first = draw("hf:old/tiny", "first.png");
    assert!(first.starts_with(b"\x89PNG"));
    server.asked();
    assert!(draw(&format!("hf:me/tiny@{COMMIT}"), "second.png") == first);
    let none = server.run(&["generate", "--model", "hf:me/none", "--prompt", "a man"]);
    assert!(said(&none).contains("[hub-missing]") && none.status.code() == Some(2), "{}", said(&none));
    let wrong = server.run(&["generate", "--model", "hf:tiny", "--prompt", "a man"]);
    assert!(said(&wrong).contains("[hub-address]"), "{}", said(&wrong));
}
