/**
 * The demo page's service worker: keeps the page itself, so that it opens without a network. Models are kept by the
 * engine (see engine/store.js), photos and pictures by nobody.
 *
 * The network comes first, so that the page is never an old one while the server can be reached.
 */

/** Filled in by scripts/fill-shell.mjs: the release with a digest of its files, and the files' paths. */
const SHELL = { version: "", files: [""] };

const scope = /** @type {any} */ (self);

/** Caches of this scope only: another copy of the page on the same origin has its own. */
const PREFIX = `facestudio-shell ${scope.registration.scope} `;
const CACHE = PREFIX + SHELL.version;

const urls = new Set(SHELL.files.map((path) => new URL(path, scope.registration.scope).href));

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
    event.respondWith(answer(event.request, url.href));
  }
});

/**
 * @param {Request} request
 * @param {string} url without query and fragment
 */
async function answer(request, url) {
  try {
    return isolated(request, await fetch(request));
  } catch (unreachable) {
    const kept = await caches.match(url, { cacheName: CACHE });
    if (!kept) {
      throw unreachable;
    }
    return isolated(request, kept);
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
  // Pages and workers need them. A redirect is for the browser to follow.
  if (!["document", "worker"].includes(destination) || response.type !== "basic" || !response.ok) {
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
