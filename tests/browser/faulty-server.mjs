/** The browser package and a model from a server that fails on demand, and notes what it was asked for. */

import { once } from "node:events";
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";

import { ROOT } from "./harness.mjs";

const TYPES = /** @type {Record<string, string>} */ ({
  ".html": "text/html",
  ".css": "text/css",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".ico": "image/x-icon",
});

/**
 * How an answer fails: it breaks off after so many bytes, stalls after so many (before the answer itself where that is `true`), has
 * another status, another place, another text, is a whole file where a part was asked for, or has its last byte changed.
 * @typedef {{ cut?: number, stall?: number | true, status?: number, redirect?: string, body?: string, ignoreRange?: boolean,
 *   flip?: boolean }} Fault
 * @typedef {{ path: string, range: string | undefined, ifRange: string | undefined, status: number, sent: number }} Entry
 */

/** @param {string} models the folder behind /models/ */
export async function startFaultyServer(models) {
  const faulty = {
    url: "",
    /** Every request, in order. @type {Entry[]} */
    log: [],
    /** Decides how a request fails. @type {(path: string) => Fault | undefined} */
    fault: () => undefined,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? "/", "http://x").pathname;
    const { range } = request.headers;
    const ifRange = /** @type {string | undefined} */ (request.headers["if-range"]);
    const entry = { path, range, ifRange, status: 200, sent: 0 };
    faulty.log.push(entry);
    const file = path.startsWith("/models/") ? join(models, path.slice(8)) : join(ROOT, "pkg", path === "/" ? "index.html" : path);
    const { cut = Infinity, stall = Infinity, status, redirect, body, ignoreRange = false, flip = false } = faulty.fault(path) ?? {};
    const head = { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "cache-control": "no-cache" };
    if (path === "/blank.html") {
      response
        .writeHead(200, { ...head, "content-type": "text/html" })
        .end('<!doctype html><link rel="icon" href="data:,"><title>blank</title>');
      return;
    }
    if (stall === true) {
      return;
    }
    if (redirect !== undefined) {
      entry.status = 302;
      response.writeHead(302, { location: redirect }).end();
      return;
    }
    if (body !== undefined) {
      response.writeHead(200, head).end(body);
      return;
    }
    if (status || !existsSync(file) || !statSync(file).isFile()) {
      entry.status = status ?? 404;
      response.writeHead(entry.status).end();
      return;
    }
    const { size: all, mtimeMs } = statSync(file);
    const tag = `"${all}-${mtimeMs}"`;
    const partial = range && !ignoreRange && (!ifRange || ifRange === tag);
    // The engine asks for all the rest; the browser's own cache, which completes what broke off, may ask for a part of it.
    const [, first = "0", last = ""] = (partial && /^bytes=(\d+)-(\d*)$/.exec(range)) || [];
    const [start, size] = [Number(first), last ? Math.min(all, Number(last) + 1) : all];
    entry.status = partial ? 206 : 200;
    response.writeHead(entry.status, {
      ...head,
      etag: tag,
      "content-length": size - start,
      ...(partial ? { "content-range": `bytes ${start}-${size - 1}/${all}` } : {}),
    });
    const end = Math.min(size, start + cut, start + stall);
    if (end === start) {
      response.flushHeaders();
      if (end === size) {
        response.end();
      }
      return;
    }
    const stream = createReadStream(file, { start, end: end - 1 });
    // What the browser has not read when the connection breaks is lost: it gets a second for that.
    const breakOff = () => cut <= stall && setTimeout(() => response.destroy(), 1000);
    stream.on("data", (bytes) => {
      const chunk = /** @type {Buffer} */ (bytes);
      entry.sent += chunk.length;
      if (flip && start + entry.sent === size) {
        chunk[chunk.length - 1] ^= 1;
      }
      response.write(chunk, () => start + entry.sent >= end && end < size && breakOff());
    });
    stream.on("end", () => end === size && response.end());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  faulty.url = `http://127.0.0.1:${address.port}/`;
  return faulty;
}
