/**
 * Serves the examples, with the headers that each needs: `node examples/web/serve.mjs`, after `make pkg`.
 *
 * Two origins, since the iframe example is about two: the pages, and the one that is embedded.
 */

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { build } from "esbuild";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

/** What is served where; the first that fits counts. @type {[string, string][]} */
const FOLDERS = [
  ["/facestudio/models/", "models/"],
  ["/facestudio/", "pkg/"],
  ["/", "examples/web/"],
];

/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".jsx": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/**
 * @param {string} path
 * @returns {Promise<Buffer>}
 */
async function read(path) {
  const [prefix, folder] = FOLDERS.find(([prefix]) => path.startsWith(prefix)) ?? ["/", "examples/web/"];
  const rest = normalize(path.slice(prefix.length));
  if (rest.startsWith("..")) {
    throw new Error(`${path} leads out`);
  }
  const file = join(ROOT, folder, rest);
  if (extname(file) !== ".jsx") {
    return readFile(file);
  }
  // React is bundled. FaceStudio is not: its worker and its wasm lie beside its scripts, and must stay there.
  const { outputFiles } = await build({
    entryPoints: [file],
    bundle: true,
    format: "esm",
    external: ["facestudio", "facestudio/*"],
    define: { "process.env.NODE_ENV": '"production"' },
    write: false,
  });
  return Buffer.from(outputFiles[0]?.contents ?? []);
}

/**
 * The policy that FaceStudio needs, and what the page adds: its import map, where it is inline, and who may frame it.
 * @param {string} page
 * @param {string} embedded origin of the embedded page
 */
function policy(page, embedded) {
  const map = /<script type="importmap">(.*?)<\/script>/s.exec(page)?.[1];
  const hash = map === undefined ? "" : ` 'sha256-${createHash("sha256").update(map).digest("base64")}'`;
  return [
    "default-src 'none'",
    `script-src 'self' 'wasm-unsafe-eval'${hash}`,
    "worker-src 'self'",
    "connect-src 'self'",
    "img-src 'self' blob: data:",
    "style-src 'self'",
    "base-uri 'none'",
    `frame-src ${embedded}`,
  ].join("; ");
}

/** @param {(path: string, html: string | null) => Record<string, string>} headers of a page, or of any other file */
async function listen(headers) {
  const server = createServer(async (request, response) => {
    // Another site's name that points here (DNS rebinding) reads nothing.
    if (!/^(127\.0\.0\.1|localhost)(:\d+)?$/.test(request.headers.host ?? "")) {
      response.writeHead(421).end();
      return;
    }
    try {
      const { pathname } = new URL(request.url ?? "/", "http://localhost");
      const path = decodeURIComponent(pathname.endsWith("/") ? `${pathname}index.html` : pathname);
      const body = await read(path);
      const type = TYPES[extname(path)] ?? "application/octet-stream";
      const html = type.startsWith("text/html") ? body.toString() : null;
      response.writeHead(200, { "Content-Type": type, "Cache-Control": "no-cache", ...headers(path, html) });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(null)));
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  return { server, origin: `http://127.0.0.1:${port}` };
}

/** Starts both origins on free ports. */
export async function serve() {
  /** @type {string} */
  let host = "'none'";
  const embedded = await listen((_, html) =>
    // The worker takes its policy from its own response.
    ({ "Content-Security-Policy": `${policy(html ?? "", "'none'")}; frame-ancestors 'self' ${host}` }),
  );
  const pages = await listen((path, html) => ({
    "Content-Security-Policy": policy(html ?? "", embedded.origin),
    // The embedded page may ask for the camera; the frame's `allow` hands it on.
    ...(path.startsWith("/iframe/") ? { "Permissions-Policy": `camera=(self "${embedded.origin}")` } : {}),
  }));
  host = pages.origin;
  const close = () => {
    pages.server.close();
    embedded.server.close();
  };
  return { url: pages.origin, embedded: embedded.origin, close };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { url, embedded } = await serve();
  for (const example of ["plain", "react", "two"]) {
    console.log(`${url}/${example}/`);
  }
  console.log(`${url}/iframe/?${embedded}`);
}
