/** Weights that arrive safely: downloads that break off, files that rot, storage that is full, versions that change. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";

import { chromium } from "playwright-core";

import { RELEASE } from "../../web/engine/protocol.js";
import { attach, call as callIn, draw, open, openClient, request, until } from "./client.mjs";
import { EXECUTABLE, FLAGS, PATIENCE, setUp } from "./harness.mjs";

/** The largest file of the tiny model. */
const BIG = "/models/mini/unet/model.safetensors";

const { models, server, browser } = await setUp();

const manifest = () => JSON.parse(readFileSync(`${models}/mini/manifest.json`, "utf8"));
const big = () => manifest().components.unet.files.find((/** @type {any} */ file) => BIG.endsWith(file.path));
const total = () =>
  Object.values(manifest().components)
    .flatMap((/** @type {any} */ part) => part.files)
    .concat(manifest().files ?? [])
    .reduce((sum, file) => sum + file.bytes, 0);
const asked = (/** @type {string} */ path) => server.log.filter((entry) => entry.path === path);
const askedForFiles = () => server.log.filter(({ path }) => /^\/models\/.*(safetensors|config\.json)$/.test(path));

/**
 * Changes one byte of a stored file.
 * @param {any} _client
 * @param {string} sha256
 */
const rot = async (_client, sha256) => {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("facestudio-models");
  for await (const folder of /** @type {any} */ (root).values()) {
    const handle = await folder.getFileHandle(sha256);
    const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    bytes[bytes.length >> 1] ^= 1;
    const stream = await handle.createWritable();
    await stream.write(bytes);
    await stream.close();
  }
};

/**
 * The text of what was measured of graphics adapters, after it was replaced where there is another.
 * @param {any} _client
 * @param {string} [text]
 */
const measured = async (_client, text) => {
  const handle = await (await navigator.storage.getDirectory()).getFileHandle("facestudio-measured.json");
  if (text) {
    const stream = await handle.createWritable();
    await stream.write(text);
    await stream.close();
  }
  return (await handle.getFile()).text();
};

describe("storage", () => {
  test("is asked first: the second visit fetches the manifest alone, and draws the same picture", async () => {
    const { context, page, call, errors } = await openClient(browser, server.url);
    const first = await call(open);
    assert.deepEqual(first.value?.notices, []);
    assert.equal(first.value.fetched, total());
    const picture = await call(draw, request());
    assert.equal(picture.error, undefined);

    await attach(page, server.url);
    server.log.length = 0;
    const second = await call(open);
    assert.equal(second.value?.fetched, 0);
    assert.deepEqual(askedForFiles(), []);
    assert.equal(asked("/models/mini/manifest.json").length, 1);
    assert.deepEqual(await call(draw, request()), picture);
    assert.notDeepEqual(await call(draw, request({ seed: 8 })), picture);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("tells what it holds, and forgets it", async () => {
    const { context, call } = await openClient(browser, server.url);
    const stored = (/** @type {any} */ client) => client.stored();
    assert.deepEqual((await call(stored)).value?.models, []);
    await call(open);
    const { value } = await call(stored);
    assert.equal(value.models.length, 1);
    const [model] = value.models;
    assert.deepEqual([model.url, model.name, model.version], [`${server.url}models/mini/`, "tiny", "1"]);
    // The files, and the manifest itself.
    assert.equal(model.bytes, total() + readFileSync(`${models}/mini/manifest.json`).length);
    assert.equal(value.bytes, model.bytes);
    await call((client) => client.forget("/models/other/"));
    assert.equal((await call(stored)).value.models.length, 1);
    await call((client) => client.forget("/models/mini/"));
    assert.deepEqual((await call(stored)).value.models, []);
    // What is open stays open.
    assert.equal((await call(draw, request())).error, undefined);
    await call(open);
    await call((client) => client.forget());
    assert.equal((await call(stored)).value.bytes, 0);
    await context.close();
  });

  test("keeps what was measured of the graphics adapter, and measures again what nobody measured", async () => {
    const { context, page, call, errors } = await openClient(browser, server.url);
    const openGpu = () => call((client) => client.open({ model: "/models/mini/", backend: "webgpu" }));
    const opened = await openGpu();
    const key = `${opened.value?.choice.adapter} ${RELEASE}`;
    const found = JSON.parse((await call(measured)).value)[key];
    assert.deepEqual([found.wrong, found.tiles], [[], opened.value.tiles]);
    assert.ok(found.rate > 0);
    const picture = await call(draw, request());
    assert.equal(picture.error, undefined);

    // As on another machine: the pictures do not depend on it.
    const others = opened.value.tiles[0] === 16 ? [32, 512] : [16, 16];
    for (const tiles of [others, [0, 0], ["x", null], null]) {
      const known = { [key]: { ...found, tiles }, "another adapter": [2, 3] };
      assert.deepEqual((await call(measured, JSON.stringify(known))).error, undefined);
      await attach(page, server.url);
      const again = await openGpu();
      const used = again.value?.tiles;
      assert.ok(
        used.every((/** @type {number} */ border) => [16, 32, 64, 128, 256, 512].includes(border)),
        `${used}`,
      );
      if (tiles === others) {
        assert.deepEqual(used, others);
        assert.deepEqual(await call(draw, request()), picture);
      }
      const { [key]: kept, ...rest } = JSON.parse((await call(measured)).value);
      assert.deepEqual([kept.wrong, kept.tiles, rest], [[], used, { "another adapter": [2, 3] }]);
    }
    await call(measured, "{");
    await attach(page, server.url);
    const { tiles } = (await openGpu()).value;
    const anew = JSON.parse((await call(measured)).value);
    assert.deepEqual([Object.keys(anew), anew[key].tiles], [[key], tiles]);
    await call((client) => client.forget());
    assert.equal((await call(measured)).error?.code, "NotFoundError");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("heals a file that has rotted, and fetches no other", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    assert.deepEqual(await call(rot, big().sha256), { value: undefined });
    await attach(page, server.url);
    server.log.length = 0;
    assert.equal((await call(open)).value?.fetched, big().bytes);
    assert.deepEqual(
      askedForFiles().map(({ path }) => path),
      [BIG],
    );
    await attach(page, server.url);
    assert.equal((await call(open)).value?.fetched, 0);
    await context.close();
  });

  test("falls back to memory when the browser's quota is used up, and says so", async () => {
    // A browser of its own: the override reaches the default profile's storage alone.
    const profile = mkdtempSync(join(tmpdir(), "facestudio-profile-"));
    const context = await chromium.launchPersistentContext(profile, { executablePath: EXECUTABLE, args: FLAGS, timeout: PATIENCE });
    try {
      const page = await context.newPage();
      await attach(page, server.url);
      const call = (/** @type {any} */ body, /** @type {any} */ argument) => callIn(page, body, argument);
      const session = await context.newCDPSession(page);
      await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize: 20_000 });
      const opened = await call(open);
      assert.deepEqual(
        opened.value?.notices.map((/** @type {any} */ notice) => notice.code),
        ["storage-full"],
      );
      assert.notEqual(opened.value.notices[0].remedy, "");
      // What storage took before it was full was not fetched a second time.
      assert.equal(opened.value.fetched, total());
      assert.equal((await call(draw, request())).error, undefined);
    } finally {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    }
  });

  test("is done without where the browser has none", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    // The worker is of the page's origin: what its script lacks, the engine lacks.
    await page.route("**/engine/worker.js", async (route) => {
      const response = await route.fetch();
      const none = "navigator.storage.getDirectory = () => Promise.reject(new DOMException('no', 'SecurityError'));\n";
      await route.fulfill({ response, body: none + (await response.text()) });
    });
    const check = await call((client) => client.check({ model: "/models/mini/", backend: "cpu" }));
    assert.equal(check.value?.storage.kind, "memory");
    assert.ok(check.value.problems.some((/** @type {any} */ problem) => problem.code === "storage-missing"));
    const opened = await call(open);
    assert.deepEqual(
      opened.value?.notices.map((/** @type {any} */ notice) => notice.code),
      ["storage-missing"],
    );
    assert.equal((await call(draw, request())).error, undefined);
    assert.deepEqual((await call((client) => client.stored())).value?.models, []);
    await context.close();
  });

  test("drops the files of an older version once the newer one has loaded", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    const old = readFileSync(`${models}/mini/manifest.json`, "utf8");
    const changed = `${models}/mini/scheduler/scheduler_config.json`;
    const config = readFileSync(changed, "utf8");
    try {
      const text = `${config}\n`;
      const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
      const newer = JSON.parse(old);
      const [entry] = newer.components.scheduler.files;
      const before = entry.sha256;
      Object.assign(entry, { bytes: text.length, sha256: Buffer.from(digest).toString("hex") });
      newer.version = "2";
      writeFileSync(changed, text);
      writeFileSync(`${models}/mini/manifest.json`, JSON.stringify(newer));
      const names = async () =>
        (
          await call(async () => {
            const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("facestudio-models");
            const found = [];
            for await (const folder of /** @type {any} */ (root).values()) {
              for await (const name of folder.keys()) {
                found.push(name);
              }
            }
            return found;
          })
        ).value;
      // While the newer version cannot be completed, the older one stays whole.
      server.fault = (path) => (path.includes("scheduler") ? { status: 404 } : undefined);
      await attach(page, server.url);
      assert.equal((await call(open)).error?.code, "file-missing");
      assert.ok((await names()).includes(before));
      assert.equal((await call((client) => client.stored())).value.models[0].version, "1");
      server.fault = () => undefined;
      assert.equal((await call(open)).value?.version, "2");
      assert.ok(!(await names()).includes(before));
      assert.ok((await names()).includes(entry.sha256));
      assert.equal((await call((client) => client.stored())).value.models[0].version, "2");
    } finally {
      writeFileSync(`${models}/mini/manifest.json`, old);
      writeFileSync(changed, config);
    }
    await context.close();
  });
});

describe("a download", () => {
  test("that breaks off goes on by range, and fetches no byte twice", async () => {
    const { context, call } = await openClient(browser, server.url);
    const cut = big().bytes >> 1;
    let broken = 0;
    server.fault = (path) => (path === BIG && broken++ === 0 ? { cut } : undefined);
    assert.equal((await call(open)).value?.fetched, total());
    const [first, second, ...more] = asked(BIG);
    assert.deepEqual(more, []);
    assert.equal(first.range, undefined);
    assert.deepEqual([second.range, second.status], [`bytes=${cut}-`, 206]);
    assert.match(second.ifRange ?? "", /^".+"$/);
    assert.equal(first.sent + second.sent, big().bytes);
    assert.equal((await call(draw, request())).error, undefined);
    await context.close();
  });

  test("that the page was closed over goes on at the next visit", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    const cut = big().bytes >> 1;
    // Never more than half of it, until the visit ends.
    server.fault = (path) => (path === BIG ? (asked(BIG).length === 1 ? { cut } : { status: 503 }) : undefined);
    await call((client) => {
      const all = /** @type {any} */ (globalThis);
      all.stop = new AbortController();
      all.opening = client.open({ model: "/models/mini/", backend: "cpu", signal: all.stop.signal });
    });
    await until(() => asked(BIG).length > 1);
    const cancelled = await call(() => {
      const { stop, opening } = /** @type {any} */ (globalThis);
      stop.abort();
      return opening;
    });
    assert.equal(cancelled.error?.code, "AbortError");
    const check = await call((client) => client.check({ model: "/models/mini/", backend: "cpu" }));
    assert.ok(check.value.stored_bytes >= cut);
    assert.equal(check.value.fetch_bytes, total() - check.value.stored_bytes);

    await attach(page, server.url);
    server.fault = () => undefined;
    server.log.length = 0;
    assert.equal((await call(open)).value?.fetched, check.value.fetch_bytes);
    const [resumed] = asked(BIG);
    assert.deepEqual([resumed.range, resumed.status, resumed.sent], [`bytes=${cut}-`, 206, big().bytes - cut]);
    assert.match(resumed.ifRange ?? "", /^".+"$/);
    await context.close();
  });

  test("begins anew where the server knows no ranges", async () => {
    const { context, call } = await openClient(browser, server.url);
    const cut = big().bytes >> 1;
    server.fault = (path) => (path === BIG ? (asked(BIG).length === 1 ? { cut } : { ignoreRange: true }) : undefined);
    assert.equal((await call(open)).value?.fetched, total() + cut);
    assert.deepEqual(
      asked(BIG).map(({ status }) => status),
      [200, 200],
    );
    assert.equal((await call(draw, request())).error, undefined);
    await context.close();
  });

  test("is tried again when the server fails for a while, and given up when it does not recover", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG && asked(BIG).length <= 2 ? { status: 503 } : undefined);
    assert.equal((await call(open)).value?.fetched, total());
    assert.equal(asked(BIG).length, 3);
    await call((client) => client.unload());
    await call((client) => client.forget());
    server.fault = (path) => (path === BIG ? { status: 503 } : undefined);
    const { error } = await call(open);
    assert.equal(error?.code, "network");
    assert.match(error?.message ?? "", /503/);
    await context.close();
  });

  test("that arrives damaged is fetched once more, then refused", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG && asked(BIG).length === 1 ? { flip: true } : undefined);
    assert.equal((await call(open)).value?.fetched, total() + big().bytes);
    await call((client) => client.forget());
    await call((client) => client.unload());
    server.fault = (path) => (path === BIG ? { flip: true } : undefined);
    const { error } = await call(open);
    assert.deepEqual([error?.code, error?.fault], ["file-corrupt", "weights"]);
    await context.close();
  });

  test("is announced by a check that reads the manifest alone", async () => {
    const { context, call } = await openClient(browser, server.url);
    const { value } = await call((client) => client.check({ model: "/models/mini/", backend: "auto" }));
    assert.deepEqual(
      server.log.filter(({ path }) => path.startsWith("/models/")).map(({ path }) => path),
      ["/models/mini/manifest.json"],
    );
    assert.ok(!server.log.some(({ path }) => path.endsWith(".wasm")));
    assert.deepEqual([value.model, value.bytes, value.stored_bytes, value.fetch_bytes], ["tiny", total(), 0, total()]);
    assert.equal(value.choice.backend, "cpu");
    assert.equal(value.storage.kind, "opfs");
    assert.ok(value.storage.quota > 0);
    assert.ok(value.limits.maxStorageBufferBindingSize > 0);
    assert.ok(value.device_bytes > 0);
    // The tests' browser emulates WebGPU, and the check says so.
    assert.deepEqual(
      value.problems.map((/** @type {any} */ { code, severity }) => [code, severity]),
      [["webgpu-software", "warn"]],
    );
    const missing = await call((client) => client.check({ model: "/models/none/" }));
    assert.equal(missing.error?.code, "model-missing");
    await context.close();
  });
});
