/** Downloads from servers as bad as they come, against Node's own network: no browser. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";

import { download } from "../../web/engine/download.js";
import { readManifest } from "../../web/engine/manifest.js";
import { readModel } from "../../web/engine/model.js";
import { Sink } from "../../web/engine/sink.js";

/** @typedef {import("node:http").IncomingMessage} Request */
/** @typedef {import("node:http").ServerResponse} Response */

const BYTES = Buffer.from(Array.from({ length: 1000 }, (_, i) => (i * 7) & 255));
const FILE = { path: "a.bin", bytes: BYTES.length, sha256: createHash("sha256").update(BYTES).digest("hex") };

/** What the server does. @type {(request: Request, response: Response) => void} */
let serve = () => {};
/** Ranges that it was asked for. @type {(string | undefined)[]} */
let asked = [];
let url = "";
const server = createServer((request, response) => {
  asked.push(request.headers.range);
  serve(request, response);
});

before(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}/`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

const hash = () => {
  const digest = createHash("sha256");
  return { update: (/** @type {Uint8Array} */ bytes) => void digest.update(bytes), finish: () => digest.digest("hex"), free() {} };
};

const startOf = (/** @type {Request} */ request) => Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);

/**
 * Sends the part that was asked for, of which the connection brings so many bytes and then nothing more.
 * @param {Request} request
 * @param {Response} response
 * @param {{ most?: number, then?: "stall" | "break", status?: number, range?: string, start?: number, body?: Buffer }} [how]
 */
function send(
  request,
  response,
  { most = Infinity, then = "break", status, range, start = startOf(request), body = BYTES.subarray(start) } = {},
) {
  const partial = request.headers.range !== undefined;
  response.writeHead(status ?? (partial ? 206 : 200), {
    "content-length": body.length,
    ...(partial && range !== "" ? { "content-range": range ?? `bytes ${start}-${BYTES.length - 1}/${BYTES.length}` } : {}),
  });
  response.flushHeaders();
  response.write(body.subarray(0, most), () => {
    if (most >= body.length) {
      response.end();
    } else if (then === "break") {
      setTimeout(() => response.destroy(), 50);
    }
  });
}

/**
 * Fetches the file from a server that behaves so.
 * @param {typeof serve} behaviour
 * @param {{ signal?: AbortSignal, stall?: number, pauses?: number[], store?: any }} [options]
 */
async function fetchFrom(behaviour, { signal = new AbortController().signal, stall = 200, pauses = [1, 1], store = null } = {}) {
  serve = behaviour;
  asked = [];
  const sink = await Sink.open(store, FILE.sha256, signal);
  const fetched = await download(`${url}a.bin`, FILE, sink, { hash, signal, stall, pauses });
  assert.deepEqual(Buffer.from(await (await sink.blob()).arrayBuffer()), BYTES);
  return { fetched, sink };
}

/** A storage in memory that takes so many bytes, and loses what it is told to. */
class Storage {
  /** @type {Map<string, Buffer>} */
  files = new Map();
  /** Set while somebody has the storage to himself. */
  held = false;
  /** What happens after each write. @type {(name: string) => void} */
  written = () => {};

  constructor(room = Infinity) {
    this.room = room;
  }

  async alone(/** @type {() => Promise<any>} */ body) {
    assert.equal(this.held, false);
    this.held = true;
    try {
      return await body();
    } finally {
      this.held = false;
    }
  }

  async fetching(/** @type {string} */ _name, /** @type {() => Promise<any>} */ body) {
    return body();
  }

  async file(/** @type {string} */ name) {
    const bytes = this.files.get(name);
    return bytes === undefined ? null : new Blob([bytes]);
  }

  async text(/** @type {string} */ name) {
    return this.files.get(name)?.toString() ?? null;
  }

  async putText(/** @type {string} */ name, /** @type {string} */ text) {
    this.files.set(name, Buffer.from(text));
  }

  async remove(/** @type {string} */ name) {
    this.files.delete(name);
  }

  async writer(/** @type {string} */ name, /** @type {number} */ offset) {
    let at = offset;
    return {
      write: async (/** @type {Uint8Array} */ bytes) => {
        const used = [...this.files.values()].reduce((sum, file) => sum + file.length, 0);
        const before = this.files.get(name) ?? Buffer.alloc(0);
        const fits = bytes.subarray(0, Math.max(0, this.room - used));
        const after = Buffer.alloc(Math.max(before.length, at + fits.length));
        before.copy(after);
        after.set(fits, at);
        this.files.set(name, after);
        at += fits.length;
        if (fits.length < bytes.length) {
          throw new DOMException("full", "QuotaExceededError");
        }
      },
      close: async () => this.written(name),
    };
  }
}

describe("a server that stalls", () => {
  test("before it answers is given up after a stated number of times", async () => {
    const began = performance.now();
    await assert.rejects(
      fetchFrom(() => {}),
      { code: "network", fault: "io", message: /no byte came for 0.2 s, 3 times in a row/ },
    );
    assert.equal(asked.length, 3);
    assert.ok(performance.now() - began < 5000);
  });

  test("in the middle is asked again by range, and no byte comes twice", async () => {
    const { fetched } = await fetchFrom((request, response) => send(request, response, { most: 300, then: "stall" }));
    assert.equal(fetched, BYTES.length);
    assert.deepEqual(asked, [undefined, "bytes=300-", "bytes=600-", "bytes=900-"]);
  });

  test("at the same place each time is given up", async () => {
    const stuck = (/** @type {Request} */ request, /** @type {Response} */ response) =>
      send(request, response, { most: startOf(request) === 0 ? 300 : 0, then: "stall" });
    await assert.rejects(fetchFrom(stuck), { code: "network", message: /3 times in a row/ });
    assert.deepEqual(asked, [undefined, "bytes=300-", "bytes=300-"]);
    // So is one that knows no ranges.
    const whole = (/** @type {Request} */ _request, /** @type {Response} */ response) => {
      response.writeHead(200, { "content-length": BYTES.length });
      response.write(BYTES.subarray(0, 300));
    };
    await assert.rejects(fetchFrom(whole), { code: "network" });
    assert.equal(asked.length, 3);
  });

  test("is left at once when the download is cancelled, wherever it stands", async () => {
    const stalls = [
      () => {},
      (/** @type {any} */ request, /** @type {any} */ response) => send(request, response, { most: 300, then: "stall" }),
    ];
    for (const behaviour of stalls) {
      const stop = new AbortController();
      const began = performance.now();
      setTimeout(() => stop.abort("stopped"), 100);
      await assert.rejects(fetchFrom(behaviour, { signal: stop.signal, stall: 60_000 }), (reason) => reason === "stopped");
      assert.ok(performance.now() - began < 5000);
    }
  });

  test("holds nobody's storage up", async () => {
    const store = new Storage();
    const stop = new AbortController();
    const stalled = fetchFrom((request, response) => send(request, response, { most: 300, then: "stall" }), {
      signal: stop.signal,
      stall: 60_000,
      store,
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(store.held, false);
    stop.abort("stopped");
    await assert.rejects(stalled, (reason) => reason === "stopped");
    // What has arrived is there for the next visit.
    assert.equal(store.files.get(FILE.sha256)?.length, 300);
  });

  test("keeps nobody waiting for its manifest: the stored one is used, and without one the server is given up", async () => {
    serve = () => {};
    asked = [];
    const stored = JSON.stringify({ format: 1, name: "tiny", version: "1", components: {} });
    const { offline, manifest } = await readManifest(url, stored, undefined, 100);
    assert.deepEqual([offline, manifest.name, asked.length], [true, "tiny", 1]);
    await assert.rejects(readManifest(url, null, undefined, 100), { code: "network", message: /3 times in a row/ });
    // One that is stored but none is as good as none.
    await assert.rejects(readManifest(url, "{", undefined, 100), { code: "network" });
    const stop = new AbortController();
    setTimeout(() => stop.abort("stopped"), 50);
    await assert.rejects(readManifest(url, null, stop.signal), (reason) => reason === "stopped");
    serve = (_request, response) => response.writeHead(200).write("{");
    await assert.rejects(readManifest(url, null, undefined, 100), { code: "network" });
    serve = (_request, response) => {
      response.writeHead(200);
      const more = () => (response.write(Buffer.alloc(1 << 20, " ")) ? setImmediate(more) : response.once("drain", more));
      more();
    };
    await assert.rejects(readManifest(url, null), { code: "manifest", message: /16 MiB/ });
  });
});

describe("a server that answers something else", () => {
  test("comes to an end: empty parts, other parts, no parts, more than there is, redirects in a circle", async () => {
    const broken = (/** @type {any} */ how) => (/** @type {Request} */ request, /** @type {Response} */ response) =>
      startOf(request) === 0 ? send(request, response, { most: 300 }) : send(request, response, how);
    // A 206 that never advances.
    await assert.rejects(fetchFrom(broken({ body: Buffer.alloc(0) })), { code: "network" });
    assert.equal(asked.length, 4);
    // Always another part, also where none was asked for.
    await assert.rejects(
      fetchFrom((request, response) => {
        response.writeHead(206, { "content-range": `bytes 500-999/1000`, "content-length": 500 });
        response.end(BYTES.subarray(500));
      }),
      { code: "network", message: /was not asked for/ },
    );
    await assert.rejects(
      fetchFrom((request, response) => response.writeHead(302, { location: request.url }).end()),
      { code: "network" },
    );
    await assert.rejects(
      fetchFrom((_request, response) => response.writeHead(204).end()),
      { code: "file-missing" },
    );
    // Without an end: no more is taken than the manifest says.
    const { fetched } = await fetchFrom((_request, response) => {
      response.writeHead(200);
      response.write(BYTES);
      const more = () => response.destroyed || (response.write(Buffer.alloc(1 << 16)) ? setImmediate(more) : response.once("drain", more));
      more();
    });
    assert.equal(fetched, BYTES.length);
    await assert.rejects(
      fetchFrom((_request, response) => response.end(Buffer.alloc(5000))),
      { code: "file-corrupt" },
    );
    await assert.rejects(
      fetchFrom((_request, response) => response.end(BYTES.subarray(1))),
      { code: "network" },
    );
  });

  test("gets the right bytes out of a range that it answers wrongly once", async () => {
    for (const how of [
      { range: "bytes 0-999/1000", start: 0 },
      { range: "bytes 301-999/1000" },
      { range: "nonsense" },
      { status: 200, start: 0, range: "" },
      { status: 416, body: Buffer.from("no") },
    ]) {
      let broken = false;
      const { fetched } = await fetchFrom((request, response) => {
        if (startOf(request) > 0) {
          send(request, response, how);
        } else {
          send(request, response, broken ? {} : { most: 300 });
          broken = true;
        }
      });
      assert.ok(fetched >= BYTES.length, JSON.stringify(how));
    }
  });
});

describe("storage", () => {
  test("that runs full midway costs no byte twice, now or at the next visit", async () => {
    for (const room of [0, 1, 300, 999]) {
      const store = new Storage(room);
      const stall = { most: 250, then: /** @type {const} */ ("break") };
      const { fetched, sink } = await fetchFrom((request, response) => send(request, response, stall), { store });
      assert.equal(fetched, BYTES.length, `room for ${room}`);
      assert.ok(sink.inMemory);
      assert.equal(sink.why, "full");
      // The next visit has more room.
      const kept = store.files.get(FILE.sha256)?.length ?? 0;
      assert.equal(kept, room);
      store.room = Infinity;
      const next = await fetchFrom((request, response) => send(request, response), { store });
      assert.deepEqual([next.fetched, next.sink.inMemory], [BYTES.length - kept, false]);
    }
  });

  test("that loses what it took is left, and the rest goes on from what it still has", async () => {
    // Of what was written last nothing has to come again, of what was written before that what is lost.
    for (const [left, again] of [
      [300, 0],
      [200, 300],
    ]) {
      const store = new Storage();
      let lost = false;
      store.written = (name) => {
        const bytes = store.files.get(name);
        if (!lost && bytes && bytes.length >= 500) {
          lost = true;
          store.files.set(name, bytes.subarray(0, left));
        }
      };
      const { fetched, sink } = await fetchFrom((request, response) => send(request, response, { most: 250 }), { store });
      assert.ok(sink.inMemory);
      assert.equal(fetched, BYTES.length + again);
    }
  });

  test("that another tab empties, fills or damages does not stop a download", async () => {
    const emptied = new Storage();
    let writes = 0;
    emptied.written = (name) => {
      writes += 1;
      if (writes === 2) {
        setTimeout(() => emptied.files.delete(name));
      }
    };
    const slow = (/** @type {Request} */ request, /** @type {Response} */ response) => send(request, response, { most: 250 });
    assert.ok((await fetchFrom(slow, { store: emptied, pauses: [50, 50] })).sink.inMemory);
    // Another tab is further: its bytes are checked with ours.
    for (const theirs of [BYTES, Buffer.concat([BYTES.subarray(0, 600), Buffer.alloc(400)])]) {
      const filled = new Storage();
      filled.written = (name) => {
        filled.written = () => {};
        setTimeout(() => filled.files.set(name, theirs));
      };
      await fetchFrom(slow, { store: filled, pauses: [50, 50] });
      assert.deepEqual(filled.files.get(FILE.sha256), BYTES);
    }
    const unreadable = new Storage();
    unreadable.files.set(FILE.sha256, BYTES);
    const file = unreadable.file.bind(unreadable);
    let refused = false;
    unreadable.file = async (name) => {
      const blob = await file(name);
      return blob && !refused
        ? /** @type {any} */ ({
            size: blob.size,
            stream: () => ((refused = true), new ReadableStream({ start: (it) => it.error(new DOMException("gone", "NotReadableError")) })),
          })
        : blob;
    };
    assert.equal((await fetchFrom((request, response) => send(request, response), { store: unreadable })).fetched, BYTES.length);
  });

  test("is not asked for what this visit already holds in memory", async () => {
    const manifest = /** @type {any} */ ({ format: 1, name: "x", version: "1", components: { unet: { files: [FILE] } } });
    const held = new Map();
    const { signal } = new AbortController();
    const read = () =>
      readModel(url, manifest, /** @type {any} */ (new Storage(400)), {
        hash,
        signal,
        report() {},
        held,
        hold: (sha256, bytes) => held.set(sha256, bytes),
      });
    serve = (request, response) => send(request, response);
    const first = await read();
    assert.deepEqual([first.fetched, first.notices[0]?.code], [BYTES.length, "storage-full"]);
    const second = await read();
    assert.deepEqual([second.fetched, second.notices[0]?.code], [0, "storage-full"]);
    assert.deepEqual(Buffer.from(await /** @type {Blob} */ (second.files.get("a.bin")).arrayBuffer()), BYTES);
  });
});
