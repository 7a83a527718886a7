//! Files of Hugging Face's hub, fetched where they are asked for: `presets NAME --fetch` and `--model hf:owner/name`.
//!
//! They lie in the cache that Hugging Face's own programs share (`HF_HUB_CACHE`, `HF_HOME`), as these lay it out: `blobs/ETAG`, and in
//! `snapshots/COMMIT` links to them. `HF_ENDPOINT` names another hub, `HF_TOKEN` or the cache's `token` who asks. A download that
//! broke off goes on by range; what was fetched is held against its SHA-256, which is the entity tag of large files.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use facestudio::internal::is_inside;
use facestudio::weights::{Folder, Manifest, sha256_file};
use facestudio::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// Where the hub is.
const ENDPOINT: &str = "https://huggingface.co";
/// How often a file is asked for again without a byte more than before.
const PATIENCE: u32 = 8;
/// Longest wait that a hub may ask for.
const MOST_WAIT: Duration = Duration::from_secs(300);
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How many hosts a file may be passed on to.
const MOST_REDIRECTS: usize = 5;
/// Bytes that are written at a time.
const PIECE: usize = 1 << 16;

/// The hub, and what was fetched from it.
pub struct Hub {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    cache: PathBuf,
    /// Between two attempts; doubled each time.
    pause: Duration,
}

/// What is known of a file before it is fetched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// Its size.
    pub bytes: Option<u64>,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: Option<&'a str>,
}

/// What the hub says of a file.
struct Metadata {
    commit: String,
    etag: String,
    bytes: u64,
}

impl Hub {
    /// The hub and the cache that the environment names.
    ///
    /// Fails with `hub-cache` where there is no home to keep a cache in.
    pub fn from_env() -> Result<Self> {
        let said = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let folder = |name: &str| said(name).map(PathBuf::from);
        let home = folder("HF_HOME").or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
        let cache = folder("HF_HUB_CACHE").or_else(|| home.as_ref().map(|home| home.join("hub")));
        let cache = cache.ok_or_else(|| {
            Error::input("hub-cache", "there is no folder to keep fetched files in", "set HF_HOME to one")
        })?;
        let text = |name: &str| Some(said(name)?.to_string_lossy().trim().to_owned());
        let kept = home.and_then(|home| fs::read_to_string(home.join("token")).ok());
        let token = text("HF_TOKEN").or(kept.map(|token| token.trim().to_owned()));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Whom the token is sent to is decided here.
            .max_redirects(0)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("facestudio/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.filter(|token| !token.is_empty()),
            cache,
            pause: Duration::from_millis(200),
        })
    }

    /// Where a file of a repository lies in the cache, after it was fetched if it was not there.
    ///
    /// Fails with `hub-denied`, `hub-missing`, `hub-address`, `hub-failed` or `hub-damaged`; each names the file.
    pub fn fetch(&self, repository: &str, revision: &str, path: &str, expected: Expected) -> Result<PathBuf> {
        let named = |error: Error| error.context(format!("{repository}/{path}"));
        if !is_repository(repository) || !is_inside(path) || !is_plain(revision) {
            return Err(Error::input(
                "hub-address",
                format!("'{repository}', '{revision}' and '{path}' name no file of the hub"),
                "write owner/name, a revision without '/', and a path inside the repository",
            ));
        }
        let folder = self.cache.join(format!("models--{}", repository.replace('/', "--")));
        // A commit never changes: what was fetched of one is asked for no more.
        let known = folder.join("snapshots").join(revision).join(path);
        if is_commit(revision) && known.is_file() {
            check(&known, expected, None).map_err(named)?;
            return Ok(known);
        }
        let url = format!("{}/{repository}/resolve/{revision}/{path}", self.endpoint);
        let metadata = self.metadata(&url).map_err(named)?;
        let blob = folder.join("blobs").join(&metadata.etag);
        if !blob.is_file() {
            self.download(&url, path, &metadata, expected, &blob).map_err(named)?;
        } else {
            check(&blob, expected, None).map_err(named)?;
        }
        let place = folder.join("snapshots").join(&metadata.commit).join(path);
        link(&blob, &place).map_err(|e| Error::io(place.display(), &e))?;
        if revision != metadata.commit {
            let reference = folder.join("refs").join(revision);
            let write = || {
                fs::create_dir_all(folder.join("refs"))?;
                fs::write(&reference, &metadata.commit)
            };
            write().map_err(|e| Error::io(reference.display(), &e))?;
        }
        Ok(place)
    }

    /// The folder of a converted model that was published as a repository, after what its manifest lists was fetched.
    pub fn model(&self, repository: &str, revision: &str) -> Result<PathBuf> {
        let place = self.fetch(repository, revision, Manifest::NAME, Expected::default())?;
        let folder = place.parent().map(Path::to_owned).unwrap_or_default();
        let manifest = Manifest::read(&Folder(folder.clone())).map_err(|e| e.context(repository))?;
        // All of one commit, whatever becomes of the branch meanwhile.
        let commit = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for file in manifest.files() {
            let expected = Expected { bytes: Some(file.bytes), sha256: Some(&file.sha256) };
            // What is there is hashed when it is read.
            if !folder.join(&file.path).is_file() {
                self.fetch(repository, &commit, &file.path, expected)?;
            }
        }
        Ok(folder)
    }

    /// Asks for a file without its bytes, as often as it takes.
    fn metadata(&self, url: &str) -> Result<Metadata> {
        let response = self.ask(url, |url, token| {
            let request = self.agent.head(url);
            let request = match token {
                Some(token) => request.header("Authorization", format!("Bearer {token}")),
                None => request,
            };
            request.header("Accept-Encoding", "identity").call()
        })?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let failed = |what: &str| failed(format!("the hub does not say its {what}"));
        let etag = header("x-linked-etag").or(header("etag")).ok_or_else(|| failed("entity tag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let commit = header("x-repo-commit").ok_or_else(|| failed("commit"))?.to_owned();
        if !is_plain(&etag) || !is_plain(&commit) {
            return Err(failed("names in letters and digits"));
        }
        let bytes = header("x-linked-size").or(header("content-length")).and_then(|bytes| bytes.parse().ok());
        Ok(Metadata { commit, etag, bytes: bytes.ok_or_else(|| failed("size"))? })
    }

    /// Asks until there is an answer: 2xx, or a redirect to another host. The hub's own redirects, of repositories that were renamed,
    /// are followed.
    fn ask(
        &self,
        url: &str,
        send: impl Fn(&str, Option<&str>) -> Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>> {
        let (mut url, mut attempt, mut redirects) = (url.to_owned(), 0, 0);
        loop {
            let answer = send(&url, self.token.as_deref());
            match answer.map(|response| (response.status(), response)) {
                Ok((status, response)) if status.is_redirection() => {
                    let next = location(&url, &response)?;
                    if host(&next) != host(&url) {
                        return Ok(response);
                    }
                    redirects += 1;
                    if redirects > MOST_REDIRECTS {
                        return Err(failed("it is passed on in a circle"));
                    }
                    url = next;
                }
                Ok((status, response)) if status.is_success() => return Ok(response),
                Ok((status, response)) => self.wait(&mut attempt, status, &response)?,
                Err(e) => self.wait_after(&mut attempt, &e.to_string())?,
            }
        }
    }

    /// Waits before another attempt where that may help. Fails where it does not, or did not.
    fn wait(&self, attempt: &mut u32, status: StatusCode, response: &Response<Body>) -> Result<()> {
        match status.as_u16() {
            401 | 403 => Err(Error::input(
                "hub-denied",
                format!("the hub does not give it to you ({status})"),
                "read and accept its terms on the repository's page, and set HF_TOKEN to a token of yours that may read it",
            )),
            404 | 410 => Err(Error::input(
                "hub-missing",
                format!("there is no such file on the hub ({status})"),
                "check the names of owner, repository, revision and file",
            )),
            429 | 500.. => {
                let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
                if let Some(seconds) = header.and_then(|text| text.trim().parse().ok()) {
                    let asked = Duration::from_secs(seconds);
                    *attempt += 1;
                    if asked > MOST_WAIT || *attempt > PATIENCE {
                        return Err(failed(format!("the hub asks to wait for {seconds} s ({status})")));
                    }
                    sleep(asked);
                    return Ok(());
                }
                self.wait_after(attempt, &format!("the hub answers {status}"))
            }
            _ => Err(failed(format!("the hub answers {status}"))),
        }
    }

    fn wait_after(&self, attempt: &mut u32, reason: &str) -> Result<()> {
        if *attempt >= PATIENCE {
            return Err(failed(reason));
        }
        sleep(self.pause * 2u32.pow(*attempt));
        *attempt += 1;
        Ok(())
    }

    /// Fetches a file to its blob: from where an earlier attempt ended, and once more from the beginning where that gives
    /// another file.
    fn download(
        &self,
        url: &str,
        path: &str,
        metadata: &Metadata,
        expected: Expected,
        blob: &Path,
    ) -> Result<()> {
        let part = blob.with_file_name(format!("{}.incomplete", metadata.etag));
        let io = |e: std::io::Error| Error::io(part.display(), &e);
        if let Some(folder) = blob.parent() {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part).map_err(io)?;
        // Another program may be at it.
        file.lock().map_err(io)?;
        if blob.is_file() {
            return Ok(());
        }
        if expected.bytes.is_some_and(|bytes| bytes != metadata.bytes) {
            return check_size(metadata.bytes, expected);
        }
        let begun = file.metadata().map_err(io)?.len() > 0;
        self.receive(url, path, metadata.bytes, &mut file).map_err(|e| e.context(part.display()))?;
        let mut sound = check(&part, expected, Some(&metadata.etag));
        if sound.is_err() && begun {
            file.set_len(0).map_err(io)?;
            self.receive(url, path, metadata.bytes, &mut file)?;
            sound = check(&part, expected, Some(&metadata.etag));
        }
        if let Err(error) = sound {
            // What is wrong is not gone on with.
            fs::remove_file(&part).map_err(io)?;
            return Err(error);
        }
        fs::rename(&part, blob).map_err(io)
    }

    /// Appends what a file lacks of `bytes`, over as many connections as it takes.
    fn receive(&self, url: &str, path: &str, bytes: u64, file: &mut File) -> Result<()> {
        let bar = ProgressBar::new(bytes).with_message(crate::output::line(path));
        if let Ok(style) =
            ProgressStyle::with_template("{msg} {bar:20} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
        {
            bar.set_style(style);
        }
        let io = |e: std::io::Error| Error::io("the cache", &e);
        let mut attempt = 0;
        loop {
            let mut have = file.seek(SeekFrom::End(0)).map_err(io)?;
            if have > bytes {
                file.set_len(0).map_err(io)?;
                have = file.seek(SeekFrom::Start(0)).map_err(io)?;
            }
            bar.set_position(have);
            if have == bytes {
                bar.finish_and_clear();
                return Ok(());
            }
            let reason = match self.open(url, have) {
                Ok((status, response))
                    if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT =>
                {
                    if status == StatusCode::OK && have > 0 {
                        // It knows no ranges.
                        file.set_len(0).map_err(io)?;
                        file.seek(SeekFrom::Start(0)).map_err(io)?;
                        have = 0;
                    }
                    let (now, reason) = copy(response, file, bytes, have, &bar)?;
                    // Whoever sends is not given up.
                    attempt = if now > have { 0 } else { attempt };
                    match reason {
                        None if now == bytes => continue,
                        reason => reason.unwrap_or_else(|| format!("it ends after {now} of {bytes} bytes")),
                    }
                }
                Ok((status, response)) => {
                    self.wait(&mut attempt, status, &response)?;
                    continue;
                }
                Err(reason) => reason,
            };
            self.wait_after(&mut attempt, &reason)?;
        }
    }

    /// The answer of whoever has the bytes, from `start` on. The token goes to the hub alone.
    fn open(&self, url: &str, start: u64) -> Result<(StatusCode, Response<Body>), String> {
        let mut url = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.agent.get(&url).header("Accept-Encoding", "identity");
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| host(&url) == host(&self.endpoint)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| e.to_string())?;
            let status = response.status();
            if !status.is_redirection() {
                return Ok((status, response));
            }
            url = location(&url, &response).map_err(|e| e.message)?;
        }
        Err("it is passed on in a circle".to_owned())
    }
}

/// Writes an answer's bytes behind each other; how many there are then, and why there are no more where it broke off.
fn copy(
    response: Response<Body>,
    file: &mut File,
    bytes: u64,
    mut have: u64,
    bar: &ProgressBar,
) -> Result<(u64, Option<String>)> {
    let mut body = response.into_body().into_reader();
    let mut piece = vec![0; PIECE];
    loop {
        match body.read(&mut piece) {
            Ok(0) => return Ok((have, None)),
            Ok(read) => {
                have += read as u64;
                if have > bytes {
                    return Err(failed(format!("more than its {bytes} bytes are sent")));
                }
                file.write_all(&piece[..read]).map_err(|e| Error::io("the cache", &e))?;
                bar.set_position(have);
            }
            Err(e) => return Ok((have, Some(e.to_string()))),
        }
    }
}

/// Fails with `hub-damaged` unless a file is what is known of it.
fn check(path: &Path, expected: Expected, etag: Option<&str>) -> Result<()> {
    let bytes = fs::metadata(path).map_err(|e| Error::io(path.display(), &e))?.len();
    check_size(bytes, expected)?;
    // The hub's tag of a large file is its SHA-256.
    let tag = etag.filter(|etag| etag.len() == 64 && etag.bytes().all(|b| b.is_ascii_hexdigit()));
    let Some(stated) = expected.sha256.or(tag) else { return Ok(()) };
    let sha256 = sha256_file(path)?;
    if sha256 == stated {
        return Ok(());
    }
    Err(damaged(format!("it has the SHA-256 {sha256}, not {stated}")))
}

fn check_size(bytes: u64, expected: Expected) -> Result<()> {
    match expected.bytes {
        Some(stated) if stated != bytes => Err(damaged(format!("it has {bytes} bytes, not {stated}"))),
        _ => Ok(()),
    }
}

fn damaged(reason: String) -> Error {
    Error::input(
        "hub-damaged",
        format!("it is not the file that was asked for: {reason}"),
        "its publisher may have changed it: state the revision that is meant, or what the file is now",
    )
}

fn failed(reason: impl Into<String>) -> Error {
    Error {
        fault: facestudio::error::Fault::Io,
        ..Error::input("hub-failed", reason, "try again later: what was fetched is kept")
    }
}

/// Where an answer passes on to.
fn location(url: &str, response: &Response<Body>) -> Result<String> {
    let next = response.headers().get("location").and_then(|value| value.to_str().ok());
    let next = next.ok_or_else(|| failed("the hub passes it on to nowhere"))?;
    if next.starts_with("https://") || next.starts_with("http://") {
        return Ok(next.to_owned());
    }
    match next.strip_prefix('/') {
        Some(path) if !path.starts_with('/') => Ok(format!("{}/{path}", host(url))),
        _ => Err(failed("the hub passes it on to another kind of address")),
    }
}

/// Scheme, host and port.
fn host(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find('/').map_or(url, |end| &url[..start + end])
}

/// Puts a link to a blob in its place, or the blob itself where links cannot be made.
fn link(blob: &Path, place: &Path) -> std::io::Result<()> {
    if place.is_file() {
        return Ok(());
    }
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    // One that leads nowhere.
    let _ = fs::remove_file(place);
    #[cfg(unix)]
    if std::os::unix::fs::symlink(fs::canonicalize(blob)?, place).is_ok() {
        return Ok(());
    }
    fs::hard_link(blob, place).or_else(|_| fs::copy(blob, place).map(|_| ()))
}

/// `owner/name`.
fn is_repository(text: &str) -> bool {
    text.split_once('/').is_some_and(|(owner, name)| is_plain(owner) && is_plain(name))
}

/// Letters, digits, `-`, `_` and `.`, but no dots alone: a name for a file.
fn is_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.chars().all(plain) && !text.starts_with('.')
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A repository on the hub, as `owner/name` or `owner/name@revision`.
pub fn parse(text: &str) -> Result<(&str, &str)> {
    let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
    if is_repository(repository) && is_plain(revision) {
        return Ok((repository, revision));
    }
    Err(Error::input(
        "hub-address",
        format!("'{text}' names no repository of the hub"),
        "write owner/name, and @revision behind it for another than main",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        assert_eq!(parse("me/model").unwrap(), ("me/model", "main"));
        assert_eq!(parse("me/model@v1.0").unwrap(), ("me/model", "v1.0"));
        for other in [
            "",
            "me",
            "me/",
            "/model",
            "me/model/x",
            "../x",
            "me/..",
            "me/model@",
            "me/model@../x",
            "me/mo del",
        ] {
            assert_eq!(parse(other).unwrap_err().code, "hub-address", "{other}");
        }
        assert_eq!(host("https://a.b:1/c/d"), "https://a.b:1");
        assert_eq!(host("http://a"), "http://a");
    }
}
