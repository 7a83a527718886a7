/** The page without a network: opened by its service worker, with the model from the browser's storage. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { call, draw, request, until } from "./client.mjs";
import { startFaultyServer } from "./faulty-server.mjs";
import { ROOT, openPage, startBrowser, startServer, tinyModel } from "./harness.mjs";

/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
});

/** Puts a client of its own beside the page's element. @param {import("playwright-core").Page} page */
const addClient = (page) =>
  page.evaluate(async () => {
    const { EngineClient } = await import(new URL("engine/client.js", document.baseURI).href);
    const all = /** @type {any} */ (globalThis);
    all.client = new EngineClient();
    all.hash = async (/** @type {Uint8Array} */ bytes) =>
      Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)))).join();
  });

const open = (/** @type {any} */ client) => client.open({ model: "models/mini/", backend: "cpu" });

test("a second visit without a network draws the same picture", async () => {
  const server = await startServer(["--models", tinyModel()]);
  const { context, page, errors } = await openPage(browser);
  try {
    await page.goto(server.url);
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    await addClient(page);
    assert.deepEqual((await call(page, open)).value?.notices, []);
    const online = await call(page, draw, request());
    assert.equal(online.error, undefined);
    // The real page, with its policy, from `facestudio serve`.
    assert.deepEqual(errors, []);

    server.stop();
    await until(() =>
      fetch(server.url).then(
        () => false,
        () => true,
      ),
    );
    await page.reload();
    await page.waitForFunction(() => customElements.get("face-studio"));
    await addClient(page);
    const opened = await call(page, open);
    assert.deepEqual(
      opened.value?.notices.map((/** @type {any} */ notice) => notice.code),
      ["model-offline"],
    );
    assert.equal(opened.value.fetched, 0);
    assert.deepEqual(await call(page, draw, request()), online);
  } finally {
    server.stop();
    await context.close();
  }
});

test("the service worker keeps the page of one release, and neither models nor anything else", async () => {
  const server = await startServer(["--models", tinyModel()]);
  const { context, page } = await openPage(browser);
  try {
    await page.goto(server.url);
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    await page.reload();
    await addClient(page);
    await call(page, open);
    await call(page, draw, request());
    const caches = await page.evaluate(async () => {
      const found = /** @type {Record<string, string[]>} */ ({});
      for (const name of await globalThis.caches.keys()) {
        const keys = await (await globalThis.caches.open(name)).keys();
        found[name] = keys.map(({ url }) => url);
      }
      return found;
    });
    const [[name, urls], ...others] = Object.entries(caches);
    assert.deepEqual(others, []);
    const { version } = JSON.parse(readFileSync(`${ROOT}pkg/package.json`, "utf8"));
    assert.match(name, new RegExp(`^facestudio-shell ${server.url} ${version}-[0-9a-f]{12} wasm(-threads)?$`));
    const module = name.split(" ").at(-1);
    for (const path of ["", "face-studio/face-studio.js", "engine/worker.js", `${module}/facestudio_bg.wasm`]) {
      assert.ok(urls.includes(server.url + path), path);
    }
    // The module that does not compute here would be megabytes for nothing.
    assert.equal(urls.filter((url) => url.endsWith(".wasm")).length, 1);
    assert.deepEqual(
      urls.filter((url) => /\/models\/|\.(png|safetensors|json)$/.test(url) && !url.includes("/icons/")),
      [],
    );
  } finally {
    server.stop();
    await context.close();
  }
});

test("a server that stalls or fails is as good as none: the kept page opens, of one release and within seconds", async () => {
  const server = await startFaultyServer(tinyModel());
  const { context, page } = await openPage(browser);
  /** Opens the page while the server fails so, and says how long that took. @param {typeof server.fault} fault */
  const visit = async (fault) => {
    // A page lives until the next one is there, and may still ask for parts that it needs later: that is not this visit's.
    await page.goto("about:blank");
    for (let asked = -1; asked !== server.log.length; await page.waitForTimeout(1000)) {
      asked = server.log.length;
    }
    server.fault = fault;
    server.log.length = 0;
    const began = Date.now();
    await page.goto(server.url);
    await page.waitForFunction(() => customElements.get("face-studio"));
    await page.locator("#style .tile img:not([hidden])").first().waitFor();
    return Date.now() - began;
  };
  try {
    await page.goto(server.url);
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
    await visit(() => undefined);
    const failures = /** @type {[string, ReturnType<typeof server.fault>][]} */ ([
      ["answers nothing", { stall: true }],
      ["stops in the middle", { stall: 100 }],
      ["breaks off", { cut: 100 }],
      ["answers 500", { status: 500 }],
      ["answers 503", { status: 503 }],
      ["is asked too much", { status: 429 }],
    ]);
    for (const [name, fault] of failures) {
      const took = await visit((path) => (path.startsWith("/models/") ? undefined : fault));
      assert.ok(took < 15_000, `${name}: ${took} ms`);
      // The first file tells: nothing else of the page is waited for.
      const others = server.log.filter(({ path }) => !path.startsWith("/models/") && path !== "/sw.js" && path !== "/");
      assert.deepEqual(others, [], name);
    }
    // What fails only later comes from what is kept, too.
    for (const [name, fault] of failures) {
      const took = await visit((path) => (path.endsWith("engine/worker.js") ? fault : undefined));
      assert.ok(took < 15_000, `${name}: ${took} ms`);
    }
    // A page goes on with what is kept, though the browser has ended the service worker meanwhile.
    await visit((path) => (path === "/" ? { status: 503 } : undefined));
    // What a stopped service worker was answering would go to the server.
    await page.locator("#engine[data-backend]").waitFor();
    const devtools = await context.newCDPSession(page);
    await devtools.send("ServiceWorker.enable");
    await devtools.send("ServiceWorker.stopAllWorkers");
    server.log.length = 0;
    server.fault = () => undefined;
    assert.equal(await page.evaluate(async () => (await fetch("engine/client.js")).ok), true);
    // The page may still be asking for its model; of its own files it asks for none.
    assert.deepEqual(
      server.log.filter(({ path }) => !path.startsWith("/models/")),
      [],
    );
    // A server that is there again is asked again.
    await visit(() => undefined);
    assert.ok(server.log.some(({ path }) => path.endsWith("engine/worker.js")));
    // A refusal is the server's word.
    server.fault = (path) => (path === "/" ? { status: 404 } : undefined);
    await assert.rejects(page.goto(server.url), /HTTP_RESPONSE_CODE_FAILURE/);
  } finally {
    server.stop();
    await context.close();
  }
});
