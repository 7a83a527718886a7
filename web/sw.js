/**
 * The demo page's service worker: keeps the page itself, so that it opens without a network. Models are kept by the
 * engine (see engine/store.js), photos and pictures by nobody.
 *
 * The network comes first, so that the page is never an old one while the server can be reached; a server that stalls or fails is
 * as good as none.
 */

/** Filled in by scripts/fill-shell.mjs: the release with a digest of its files, and the files' paths. */
const SHELL = { version: "", files: [""] };

const scope = /** @type {any} */ (self);

/** The folder of the module that computes here, as the page says: the other one is not kept. */
const MODULE = new URL(scope.location.href).search.slice(1) || "wasm";

/** Caches of this scope only: another copy of the page on the same origin has its own. */
const PREFIX = `facestudio-shell ${scope.registration.scope} `;
const CACHE = `${PREFIX}${SHELL.version} ${MODULE}`;

/** Milliseconds without a byte after which the kept page is opened. */
const STALL = 3000;

/** Most pages and workers that are remembered. */
const MOST = 100;

/** Where they are written down: the browser ends this script when nothing was asked for a while, and its pages live on. */
const NOTES = new URL("opened-from", scope.registration.scope).href;

/**
 * Whether pages and workers, by their ids, were opened from what is kept: all of theirs comes from there, so that it is of one release.
 * Under no id, whether the page was that was opened last. What a thread asks for names nobody that is known: it is of that page.
 * @type {Promise<Map<string, boolean>>}
 */
const notes = caches
  .match(NOTES, { cacheName: CACHE })
  .then((response) => response?.json())
  .then(
    (entries) => new Map(entries),
    () => new Map(),
  );

/** @param {string} path */
const kept = (path) => !/^wasm(-threads)?\//.test(path) || path.startsWith(`${MODULE}/`);
const urls = new Set(SHELL.files.filter(kept).map((path) => new URL(path, scope.registration.scope).href));

scope.addEventListener("install", (/** @type {any} */ event) => {
  const fill = async () => {
    const cache = await caches.open(CACHE);
    // All or nothing, and past the browser's own cache: the files must be of one release.
    await cache.addAll([...urls].map((url) => new Request(url, { cache: "no-cache" })));
    await scope.skipWaiting();
  };
  event.waitUntil(fill());
});

scope.addEventListener("activate", (/** @type {any} */ event) => {
  const drop = async () => {
    const names = await caches.keys();
    const old = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
  };
  event.waitUntil(drop());
});

scope.addEventListener("fetch", (/** @type {any} */ event) => {
  const url = new URL(event.request.url);
  url.hash = "";
  url.search = "";
  if (event.request.method === "GET" && urls.has(url.href)) {
    event.respondWith(answer(event, url.href));
  }
});

/**
 * @param {any} event
 * @param {string} url without query and fragment
 */
async function answer(event, url) {
  const { request, clientId, resultingClientId } = event;
  const stored = await caches.match(url, { cacheName: CACHE });
  if (!stored) {
    return isolated(request, await fetch(request));
  }
  // A navigation leaves the page that it comes from.
  const leaves = request.mode === "navigate";
  const opened = await notes;
  const response = !leaves && (opened.get(clientId) ?? opened.get("")) ? null : await whole(request);
  let news = false;
  for (const id of leaves ? [resultingClientId, ""] : [clientId, resultingClientId].filter(Boolean)) {
    news ||= opened.get(id) !== !response;
    // Those that were asked for last come last, and are dropped last.
    opened.delete(id);
    opened.set(id, !response);
  }
  if (news) {
    event.waitUntil(write([...opened].slice(-MOST)));
  }
  return isolated(request, response ?? stored);
}

/** @param {[string, boolean][]} entries of {@link notes} */
async function write(entries) {
  try {
    await (await caches.open(CACHE)).put(NOTES, new Response(JSON.stringify(entries)));
  } catch {
    // Storage is full: what is known is so until this script ends.
  }
}

/**
 * The network's answer once all of it is there; null where it stalls, breaks off, or is a server's failure.
 * @param {Request} request
 * @returns {Promise<Response | null>}
 */
async function whole(request) {
  // What stalls is ended: the browser would let the next visit wait for it.
  const controller = new AbortController();
  /** @template T @param {Promise<T>} next @returns {Promise<T>} */
  const alive = async (next) => {
    const timer = setTimeout(() => controller.abort(), STALL);
    try {
      return await next;
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const response = await alive(fetch(request, { signal: AbortSignal.any([controller.signal, request.signal]) }));
    const { status, statusText, headers, ok, body } = response;
    if (status >= 500 || status === 408 || status === 429) {
      controller.abort();
      return null;
    }
    // A redirect is for the browser to follow. The engine's megabytes are handed on as they come: whoever fetches them watches the
    // connection, and a slow one is none that stalls.
    if (!ok || !body || request.url.includes(".wasm")) {
      return response;
    }
    // Handed on when it is whole: a page that gets half of a script does not open.
    const parts = [];
    const reader = body.getReader();
    for (let part = await alive(reader.read()); !part.done; part = await alive(reader.read())) {
      parts.push(part.value);
    }
    return new Response(new Blob(parts), { status, statusText, headers });
  } catch {
    return null;
  }
}

/** What isolates a page from other origins. */
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

/**
 * The response with the headers that isolate the page, where the host says nothing of them: the CPU backend then has all
 * processors from the second visit on.
 * @param {Request} request
 * @param {Response} response
 */
function isolated({ destination }, response) {
  // Pages and workers need them.
  if (!["document", "worker"].includes(destination) || !response.ok) {
    return response;
  }
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) {
    if (!headers.has(name)) {
      headers.set(name, value);
    }
  }
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
