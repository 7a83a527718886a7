/** What a page may rely on: files in any form, pictures one by one, seeds, aborts, wrong options, ends; and the element's attributes. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { call as callIn, draw, open, openClient, request, until } from "./client.mjs";
import { openPage, setUp } from "./harness.mjs";

const { server, browser } = await setUp();

describe("the engine", () => {
  test("takes a picture's file as bytes, as a Blob and as a File, wherever it lies in a request", async () => {
    const { context, call, errors } = await openClient(browser, server.url);
    await call(open);
    const { value, error } = await call(
      async (client, request) => {
        const png = await client.render({ seed: 3, style: "photo", size: 64 });
        const { hash } = /** @type {any} */ (globalThis);
        const forms = [png, new Blob([png]), new File([png], "a.png")];
        const hashes = [];
        for (const file of forms) {
          const [made] = await client.generate({ ...request, style: file, alpha: 0.5, init: { image: file, strength: 0.5 } });
          hashes.push(await hash(made.png));
        }
        const sizes = await Promise.all(forms.map((file) => client.inspect(file)));
        return { hashes: new Set(hashes).size, sizes };
      },
      request({ steps: 2 }),
    );
    assert.equal(error, undefined);
    assert.deepEqual(value, { hashes: 1, sizes: Array.from({ length: 3 }, () => ({ width: 64, height: 64 })) });
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("hands pictures over one by one, those of the seeds that follow; what is there stays when the rest is aborted", async () => {
    const { context, call } = await openClient(browser, server.url);
    await call(open);
    const { value, error } = await call(
      async (client, request) => {
        const { hash } = /** @type {any} */ (globalThis);
        /** @type {[number, number][]} */
        const seen = [];
        const onPicture = (/** @type {any} */ picture, /** @type {number} */ index) => seen.push([index, Number(picture.seed)]);
        const together = await client.generate({ ...request, count: 3 }, { onPicture });
        const [second] = await client.generate({ ...request, seed: request.seed + 1 });
        const last = await client.generate({ ...request, seed: 2n ** 64n - 1n, count: 2 });
        const stop = new AbortController();
        let kept = 0;
        const aborted = client.generate(
          { ...request, count: 50 },
          {
            signal: stop.signal,
            onPicture: () => {
              kept += 1;
              stop.abort(new Error("enough"));
            },
          },
        );
        return {
          seen,
          same: (await hash(together[1].png)) === (await hash(second.png)),
          wrapped: last.map((/** @type {any} */ { seed }) => String(seed)),
          reason: await aborted.catch((/** @type {any} */ reason) => reason.message),
          kept,
        };
      },
      request({ steps: 1 }),
    );
    assert.equal(error, undefined);
    assert.deepEqual(value, {
      seen: [
        [0, 7],
        [1, 8],
        [2, 9],
      ],
      same: true,
      wrapped: ["18446744073709551615", "0"],
      reason: "enough",
      kept: 1,
    });
    await context.close();
  });

  test("draws with another seed each time unless one is given", async () => {
    const { context, call } = await openClient(browser, server.url);
    await call(open);
    const { value } = await call(
      async (client, request) => {
        const seeds = new Set();
        for (let i = 0; i < 3; i += 1) {
          const [{ seed }] = await client.generate({ ...request, seed: undefined });
          seeds.add(seed);
        }
        return seeds.size;
      },
      request({ steps: 1 }),
    );
    assert.equal(value, 3);
    assert.notEqual((await call(draw, request({ steps: 1 }))).value, undefined);
    await context.close();
  });

  test("names an option that there is not, and what a closed engine was asked", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    const misspelt = await call((client) => client.open({ model: "/models/mini/", backend: "cpu", sginal: null }));
    assert.equal(misspelt.error?.code, "argument-type");
    assert.match(misspelt.error?.message ?? "", /sginal/);
    assert.match(misspelt.error?.remedy ?? "", /signal/);
    await call(open);
    const ends = await call(async (client) => {
      const { FaceStudio } = await import(new URL("/index.js", location.href).href);
      const studio = new FaceStudio({ model: "/models/mini/", backend: "cpu" });
      await studio.load();
      const drawing = studio.generate({ people: [], prompt: "a man", steps: 1000 });
      client.close();
      studio.close();
      const said = [];
      for (const asked of [
        drawing,
        ...[studio, client].flatMap((one) => [one.inspect(new Uint8Array(1)), one.stored(), one.faceMaker()]),
        client.generate({ people: [], prompt: "a man" }),
        studio.load(),
      ]) {
        said.push(await asked.catch((/** @type {any} */ error) => error.code));
      }
      return said;
    });
    assert.deepEqual(new Set(ends.value), new Set(["cancelled"]));
    await until(() => page.workers().length === 0);
    await context.close();
  });

  test("is aborted with the signal's reason, while it loads too", async () => {
    const { context, call } = await openClient(browser, server.url);
    server.fault = (path) => (path.endsWith(".safetensors") ? { stall: 1000 } : undefined);
    const { value } = await call(async () => {
      const { FaceStudio } = await import(new URL("/index.js", location.href).href);
      const studio = new FaceStudio({ model: "/models/mini/", backend: "cpu" });
      const stop = new AbortController();
      const loading = studio.load({ signal: stop.signal });
      setTimeout(() => stop.abort("because"), 300);
      const why = await loading.catch((/** @type {any} */ reason) => reason);
      const timed = await studio.load({ signal: AbortSignal.timeout(300) }).catch((/** @type {any} */ reason) => reason.name);
      studio.close();
      return [why, timed];
    });
    assert.deepEqual(value, ["because", "TimeoutError"]);
    await context.close();
  });
});

describe("the element", () => {
  test("mirrors its attributes, follows another model, and is part of a form", async () => {
    const { context, page } = await openPage(browser);
    await page.goto(`${server.url}blank.html`);
    const seen = await page.evaluate(async () => {
      document.body.innerHTML = '<form><face-studio name="portrait" model="/models/none/" backend="cpu"></face-studio></form>';
      const element = /** @type {any} */ (document.querySelector("face-studio"));
      await import(new URL("/face-studio/face-studio.js", location.href).href);
      element.theme = "dark";
      element.preload = true;
      element.disabled = true;
      const mirrored = [element.getAttribute("theme"), element.hasAttribute("preload"), element.inert, element.name, element.model];
      element.disabled = false;
      element.theme = null;
      const back = [element.hasAttribute("theme"), element.theme, element.inert];
      const missing = await element.load().catch((/** @type {any} */ error) => error.code);
      // Another model counts at once.
      element.model = "/models/mini/";
      await Promise.resolve();
      const { model } = await element.load();
      const pictures = [];
      element.addEventListener("facestudio-picture", (/** @type {any} */ event) => pictures.push(event.detail));
      const data = () => new FormData(/** @type {HTMLFormElement} */ (document.querySelector("form")));
      const empty = data().get("portrait");
      await element.generate({ people: [], prompt: "a man", steps: 1, seed: 5, count: 2 });
      const file = /** @type {File} */ (data().get("portrait"));
      document.querySelector("form")?.reset();
      return {
        ...{ mirrored, back, missing, model, empty, reset: data().get("portrait") },
        ...{ pictures: pictures.length, file: [file.name, file.type], form: element.form === document.querySelector("form") },
      };
    });
    assert.deepEqual(seen, {
      mirrored: ["dark", true, true, "portrait", `${server.url}models/none/`],
      back: [false, "auto", false],
      missing: "model-missing",
      model: "tiny",
      empty: null,
      reset: null,
      pictures: 2,
      file: ["facestudio-6.png", "image/png"],
      form: true,
    });
    await context.close();
  });
});

test("wrong types are refused by the name of their field", async () => {
  const { context, page } = await openClient(browser, server.url);
  await callIn(page, open);
  for (const [field, value] of Object.entries({
    seed: "x",
    steps: "x",
    alpha: "x",
    prompt: 5,
    width: 0.5,
    sampler: "fastest",
    count: 0.5,
    watermark: 1,
  })) {
    const { error } = await callIn(page, (client, changes) => client.generate({ people: [], prompt: "a man", ...changes }), {
      [field]: value,
    });
    assert.equal(error?.fault, "input", field);
    assert.match(`${error?.message}`, new RegExp(field), `${field}: ${error?.message}`);
  }
  await context.close();
});
