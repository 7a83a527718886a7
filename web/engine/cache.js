/** The model's files: fetched once, checked against the manifest's hashes, kept in the browser's Cache storage. */

/**
 * @typedef {{ path: string, bytes: number, sha256: string }} FileEntry
 * @typedef {object} Manifest
 * @property {number} format
 * @property {string} name
 * @property {string} version
 * @property {FileEntry[]} [files]
 * @property {Record<string, { files: FileEntry[] }>} components
 */

/** The manifest format that this release reads. */
const FORMAT = 1;

/** Name of the Cache storage. Entries are addressed by content, so that models and versions can share it. */
const STORE = "facestudio-models-1";

/**
 * Reads every file of a model; `receive` gets each in turn.
 *
 * @param {string} base URL of the model folder, ending in "/"
 * @param {(path: string, bytes: Uint8Array) => void} receive
 * @param {(done: number, total: number) => void} report in bytes
 * @returns {Promise<{ manifest: Manifest, bytes: number }>}
 */
export async function readModel(base, receive, report) {
  if (!globalThis.crypto?.subtle) {
    throw weights("insecure-context", "model files cannot be checked on an insecure page", "serve the page over HTTPS or from localhost");
  }
  const store = await openStore();
  const manifest = await readManifest(base, store);
  const files = [...(manifest.files ?? []), ...Object.values(manifest.components).flatMap((part) => part.files)];
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let done = 0;
  report(0, total);
  for (const file of files) {
    const before = done;
    const bytes = await readFile(base, file, store, (count) => report(before + Math.min(count, file.bytes), total));
    receive(file.path, bytes);
    done += file.bytes;
    report(done, total);
  }
  await dropOthers(base, store, files);
  return { manifest, bytes: total };
}

/** Removes every stored model file. */
export async function forgetModels() {
  if (globalThis.caches) {
    await caches.delete(STORE);
  }
}

/** @returns {Promise<Cache | null>} null where storage is missing or forbidden: then every visit fetches */
async function openStore() {
  try {
    return await caches.open(STORE);
  } catch {
    return null;
  }
}

/**
 * The network's manifest, or the stored one when there is no network.
 * @param {string} base
 * @param {Cache | null} store
 * @returns {Promise<Manifest>}
 */
async function readManifest(base, store) {
  const url = new URL("manifest.json", base).href;
  let response;
  try {
    response = await fetch(url, { cache: "no-cache" });
  } catch {
    response = await store?.match(url);
  }
  if (!response?.ok) {
    const status = response ? `the server says ${response.status}` : "the server cannot be reached";
    throw weights("model-missing", `no model at ${url}: ${status}`, "check the “model” attribute, or try again later");
  }
  const copy = response.clone();
  let manifest;
  try {
    manifest = await response.json();
  } catch {
    throw weights("manifest", `${url} is not JSON`, "serve the model folder again");
  }
  if (manifest?.format !== FORMAT || typeof manifest.components !== "object") {
    throw weights("manifest-format", `${url} has format ${manifest?.format}; this release reads ${FORMAT}`, "reload the page");
  }
  await store?.put(url, copy).catch(() => {});
  return manifest;
}

/**
 * One file, from the store or the network; never with another hash than the manifest's.
 * @param {string} base
 * @param {FileEntry} file
 * @param {Cache | null} store
 * @param {(count: number) => void} report
 * @returns {Promise<Uint8Array>}
 */
async function readFile(base, file, store, report) {
  const url = new URL(file.path, base);
  if (!url.href.startsWith(base)) {
    throw weights("manifest", `“${file.path}” is not a path inside the model`, "serve the model folder again");
  }
  const key = `${url.href}?sha256=${file.sha256}`;
  const stored = await store?.match(key);
  if (stored) {
    const bytes = new Uint8Array(await stored.arrayBuffer());
    if ((await sha256(bytes)) === file.sha256) {
      return bytes;
    }
    await store?.delete(key);
  }
  const bytes = await fetchBytes(url.href, report);
  if (bytes.length !== file.bytes || (await sha256(bytes)) !== file.sha256) {
    throw weights("file-corrupt", `${file.path} is not what the manifest says`, "reload the page to fetch it again");
  }
  // A full disk must not stop a picture: without a stored copy the next visit fetches again.
  await store?.put(key, new Response(bytes.slice())).catch(() => {});
  return bytes;
}

/**
 * @param {string} url
 * @param {(count: number) => void} report
 * @returns {Promise<Uint8Array>}
 */
async function fetchBytes(url, report) {
  let response;
  try {
    response = await fetch(url);
  } catch {
    throw failure("io", "network", `${url} cannot be reached`, "check the connection, then try again");
  }
  if (!response.ok || !response.body) {
    throw weights("file-missing", `${url}: the server says ${response.status}`, "serve the whole model folder");
  }
  /** @type {Uint8Array[]} */
  const parts = [];
  let count = 0;
  const reader = response.body.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      parts.push(part.value);
      count += part.value.length;
      report(count);
    }
  } catch {
    throw failure("io", "network", `${url} broke off after ${count} bytes`, "check the connection, then try again");
  }
  const bytes = new Uint8Array(count);
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

/**
 * Removes files of this model folder that its manifest no longer names.
 * @param {string} base
 * @param {Cache | null} store
 * @param {FileEntry[]} files
 */
async function dropOthers(base, store, files) {
  const kept = new Set(files.map((file) => `${new URL(file.path, base).href}?sha256=${file.sha256}`));
  for (const { url } of (await store?.keys().catch(() => [])) ?? []) {
    if (url.startsWith(base) && url.includes("?sha256=") && !kept.has(url)) {
      await store?.delete(url);
    }
  }
}

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<string>}
 */
async function sha256(bytes) {
  const digest = await crypto.subtle.digest("SHA-256", /** @type {BufferSource} */ (bytes));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} code
 * @param {string} message
 * @param {string} remedy
 */
function weights(code, message, remedy) {
  return failure("weights", code, message, remedy);
}

/**
 * @param {string} fault
 * @param {string} code
 * @param {string} message
 * @param {string} remedy
 */
function failure(fault, code, message, remedy) {
  return { code, fault, message, remedy };
}
