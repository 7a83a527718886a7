/** Servers that stall: nothing hangs for good, no other tab is held up, and whoever cancels waits no longer. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { attach, call as callIn, open, openClient, until } from "./client.mjs";
import { startFaultyServer } from "./faulty-server.mjs";
import { setUp, tinyModel } from "./harness.mjs";

/** The largest file of the tiny model. */
const BIG = "/models/mini/unet/model.safetensors";

const { server, browser } = await setUp("adapters");

const asked = (/** @type {string} */ path) => server.log.filter((entry) => entry.path === path);

/** Begins to open the model, and does not wait for it. @param {any} client */
const begin = (client) => {
  const all = /** @type {any} */ (globalThis);
  all.stop = new AbortController();
  all.opening = client.open({ model: "/models/mini/", backend: "cpu", signal: all.stop.signal });
  all.opening.catch(() => {});
};

/** What comes of an opening that was begun, and after how many milliseconds. */
const outcome = async () => {
  const began = performance.now();
  const code = await /** @type {any} */ (globalThis).opening.then(
    () => "open",
    (/** @type {any} */ error) => error.code,
  );
  return { code, waited: performance.now() - began };
};

describe("a model's server that stalls", () => {
  test("holds up no other tab: neither with other models, nor with this one, nor in listing and forgetting", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG && asked(BIG).length === 1 ? { stall: 1000 } : undefined);
    await call(begin);
    await until(() => asked(BIG).length === 1);

    const other = await context.newPage();
    await attach(other, server.url);
    const began = Date.now();
    const there = (/** @type {any} */ body) => callIn(other, body);
    const opened = await there((/** @type {any} */ client) => client.open({ model: "/models/adapters/", backend: "cpu" }));
    assert.equal(opened.error, undefined);
    assert.equal((await there((/** @type {any} */ client) => client.stored())).value?.models.length, 2);
    assert.equal((await there((/** @type {any} */ client) => client.forget("/models/adapters/"))).error, undefined);
    // The same model: what the first tab does not get is fetched.
    assert.equal((await there(open)).error, undefined);
    assert.ok(Date.now() - began < 60_000, `${Date.now() - began} ms`);
    // The first one goes on when its connection counts as broken.
    const first = await call(outcome);
    assert.equal(first.value?.code, "open");
    assert.deepEqual((await callIn(page, (client) => client.stored())).value.models.length, 1);
    await context.close();
  });

  test("is asked once by two tabs that open one model at the same time", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    const other = await context.newPage();
    await attach(other, server.url);
    server.log.length = 0;
    const opened = await Promise.all([call(open), callIn(other, open)]);
    assert.deepEqual(
      opened.map(({ error }) => error),
      [undefined, undefined],
    );
    const files = server.log.filter(({ path }) => path.endsWith(".safetensors")).map(({ path }) => path);
    assert.deepEqual(files, [...new Set(files)]);
    assert.equal((await callIn(page, (client) => client.stored())).value.models.length, 1);
    await context.close();
  });

  test("is left at once by whoever cancels, and asked anew for the next picture", async () => {
    for (const stalls of [
      ["/models/mini/manifest.json", true],
      [BIG, true],
      [BIG, 1000],
      ["/wasm/facestudio_bg.wasm", true],
      ["/wasm/facestudio_bg.wasm", 4],
      ["/wasm/facestudio.js", true],
      ["/engine/worker.js", true],
    ]) {
      const [path, stall] = /** @type {[string, true | number]} */ (stalls);
      const { context, call } = await openClient(browser, server.url);
      server.log.length = 0;
      server.fault = (asked) => (asked === path ? { stall } : undefined);
      await call(begin);
      await until(() => asked(path).length > 0);
      const cancelled = await call(async () => {
        const { stop, opening } = /** @type {any} */ (globalThis);
        const began = performance.now();
        stop.abort();
        const code = await opening.catch((/** @type {any} */ error) => error.name);
        return { code, waited: performance.now() - began };
      });
      assert.equal(cancelled.value?.code, "AbortError", path);
      assert.ok(cancelled.value.waited < 5000, `${path}: ${cancelled.value.waited} ms`);
      server.fault = () => undefined;
      if (path.startsWith("/models/")) {
        // The worker is free at once, too.
        const began = Date.now();
        assert.equal((await call(open)).error, undefined, path);
        assert.ok(Date.now() - began < 15_000, path);
      }
      await context.close();
    }
  });

  test("is asked again after 20 seconds, as is the engine's, and the model opens", async () => {
    const stalls = [
      ["/models/mini/manifest.json", true],
      [BIG, 1000],
      ["/wasm/facestudio_bg.wasm", true],
      ["/wasm/facestudio_bg.wasm", 4],
    ];
    // One after the other they would take a minute and a half.
    const runs = stalls.map(async (stalled) => {
      const [path, stall] = /** @type {[string, true | number]} */ (stalled);
      const own = await startFaultyServer(tinyModel());
      const { context, call } = await openClient(browser, own.url);
      own.fault = (asked) => (asked === path && own.log.filter((entry) => entry.path === path).length === 1 ? { stall } : undefined);
      const { error } = await call(open);
      assert.equal(error, undefined, `${path}: ${error?.message}`);
      assert.ok(own.log.filter((entry) => entry.path === path).length >= 2);
      await context.close();
      own.stop();
    });
    await Promise.all(runs);
  });

  test("is given up after a minute, with a word for it", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG ? { stall: true } : undefined);
    const began = Date.now();
    const { error } = await call(open);
    assert.deepEqual([error?.code, error?.fault], ["network", "io"]);
    assert.match(error?.message ?? "", /no byte came for 20 s, 3 times in a row/);
    assert.notEqual(error?.remedy, "");
    assert.ok(Date.now() - began < 150_000);
    assert.equal(asked(BIG).length, 3);
    await context.close();
  });

  test("leads in a circle, and is given up", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG ? { redirect: BIG } : undefined);
    assert.equal((await call(open)).error?.code, "network");
    server.fault = (path) => (path.endsWith("manifest.json") ? { redirect: path } : undefined);
    assert.equal((await call((client) => client.open({ model: "/models/adapters/", backend: "cpu" }))).error?.code, "network");
    await context.close();
  });
});

describe("a studio whose server stalls", () => {
  /** Begins a picture. */
  const picture = async () => {
    const all = /** @type {any} */ (globalThis);
    const { FaceStudio } = await import(new URL("/index.js", location.href).href);
    all.studio ??= new FaceStudio({ model: "/models/mini/", backend: "cpu" });
    all.opening = all.studio.generate({ people: [], prompt: "a man", steps: 2 });
    all.opening.catch(() => {});
  };

  test("is cancelled as a whole: the picture, the opening, and every wait for the model", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG ? { stall: 1000 } : undefined);
    await call(picture);
    await until(() => asked(BIG).length === 1);
    const codes = await call(async () => {
      const { studio, opening } = /** @type {any} */ (globalThis);
      const waits = [opening, studio.load(), studio.faces(new Uint8Array(1)), studio.similarity(new Uint8Array(1), { identities: [] })];
      const stop = new AbortController();
      const alone = studio.load({ signal: stop.signal });
      stop.abort();
      const code = (/** @type {any} */ promise) =>
        promise.then(
          () => "open",
          (/** @type {any} */ error) => error.code,
        );
      const first = await alone.catch((/** @type {any} */ error) => error.name);
      // What has arrived by then is kept.
      setTimeout(() => studio.cancel(), 2000);
      return [first, ...(await Promise.all(waits.map(code))), studio.loading, studio.busy];
    });
    assert.deepEqual(codes.value, ["AbortError", "cancelled", "cancelled", "cancelled", "cancelled", false, false]);
    server.fault = () => undefined;
    await call(picture);
    assert.equal((await call(outcome)).value?.code, "open");
    // What had come before was not fetched again.
    assert.equal(asked(BIG).at(-1)?.range, "bytes=1000-");
    await context.close();
  });

  test("goes on opening when a newer picture is asked for", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path === BIG && asked(BIG).length === 1 ? { cut: 1000 } : undefined);
    await call(picture);
    await until(() => asked(BIG).length === 1);
    const first = await call(async () => {
      const all = /** @type {any} */ (globalThis);
      const { opening } = all;
      all.opening = all.studio.generate({ people: [], prompt: "a woman", steps: 2 });
      return opening.catch((/** @type {any} */ error) => error.code);
    });
    assert.equal(first.value, "cancelled");
    assert.equal((await call(outcome)).value?.code, "open");
    assert.equal(asked("/models/mini/manifest.json").length, 1);
    await context.close();
  });
});
