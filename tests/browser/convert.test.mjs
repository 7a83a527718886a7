/** A recipe becomes a model in the tab: from a hub that redirects, breaks off, is gated and busy, to the folder that the command line makes. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";

import { ROOT, openPage, setUp, waitForSamples } from "./harness.mjs";

/** @typedef {import("../../web/engine/recipes.js").Recipe} Recipe */

const skip = existsSync(`${ROOT}pkg/wasm-convert/facestudio_convert.wasm`)
  ? false
  : "the package was built without the converter: wasm32-wasip1 is missing";

const { server, browser, models } = await setUp("adapters");
const hub = await startHub();
const folder = mkdtempSync(join(tmpdir(), "facestudio-convert-"));
after(() => {
  hub.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** What a hub serves, by repository and path. @type {Map<string, Buffer>} */
const served = new Map();

const sha256 = (/** @type {Uint8Array} */ bytes) => createHash("sha256").update(bytes).digest("hex");
const sha1 = (/** @type {Uint8Array} */ bytes) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** The recipe `sd15-plus-face` of small files in the published layouts; with what the hub lists where `stated` is false. */
function recipe(name = "mine", stated = true) {
  const stand = JSON.parse(readFileSync(`${ROOT}tests/stand-ins.json`, "utf8"));
  const all = JSON.parse(readFileSync(`${ROOT}pkg/recipes.json`, "utf8"));
  const found = /** @type {Recipe} */ (all.find((/** @type {Recipe} */ { name }) => name === "sd15-plus-face"));
  found.name = name;
  for (const part of found.parts) {
    for (const file of part.files) {
      const bytes = readFileSync(`${ROOT}tests/parity/${stand[file.path]}`);
      served.set(`${part.repository}/${file.path}`, bytes);
      delete file.about_bytes;
      if (stated) {
        Object.assign(file, { bytes: bytes.length, sha256: sha256(bytes) });
      } else {
        delete file.bytes;
        delete file.sha256;
      }
    }
  }
  return found;
}

/** A hub that redirects to another origin, as Hugging Face's does. */
async function startHub() {
  const played = {
    url: "",
    token: "",
    /** The next answers: after which share of their bytes they break off, or whole. @type {(number | "whole")[]} */
    breaks: /** @type {(number | "whole")[]} */ ([]),
    /** How many answers say that it is busy. */
    busy: 0,
    /** Paths whose bytes are damaged. */
    damaged: new Set(),
    /** @type {string[]} */
    log: /** @type {string[]} */ ([]),
    stop: () => {
      listening.closeAllConnections();
      listening.close();
    },
  };
  const cors = {
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "authorization, range",
    "access-control-expose-headers": "content-range, etag, retry-after",
  };
  const listening = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://x");
    const path = decodeURIComponent(url.pathname);
    if (request.method === "OPTIONS") {
      response.writeHead(204, cors).end();
      return;
    }
    played.log.push(path);
    const [, listed] = /^\/api\/models\/(.+)\/tree\//.exec(path) ?? [];
    const [, repository, file] = /^\/([^/]+\/[^/]+)\/resolve\/[^/]+\/(.+)$/.exec(path) ?? [];
    const [, stored] = /^\/cdn\/(.+)$/.exec(path) ?? [];
    if (!stored && played.token && request.headers.authorization !== `Bearer ${played.token}`) {
      response.writeHead(401, cors).end();
    } else if (played.busy > 0) {
      played.busy -= 1;
      response.writeHead(429, { ...cors, "retry-after": "0.05" }).end();
    } else if (listed) {
      const entries = [...served].filter(([path]) => path.startsWith(`${listed}/`));
      const list = entries.map(([path, bytes]) => ({
        type: "file",
        path: path.slice(listed.length + 1),
        size: bytes.length,
        oid: sha1(bytes),
        ...(/\.(json|txt)$/.test(path) ? {} : { lfs: { oid: sha256(bytes), size: bytes.length } }),
      }));
      response.writeHead(200, { ...cors, "content-type": "application/json" }).end(JSON.stringify(list));
    } else if (repository && file && served.has(`${repository}/${file}`)) {
      response.writeHead(302, { ...cors, location: `${played.url.replace("127.0.0.1", "localhost")}/cdn/${repository}/${file}` }).end();
    } else if (stored && served.has(stored)) {
      assert.equal(request.headers.authorization, undefined, "the token stays with the hub");
      let bytes = /** @type {Buffer} */ (served.get(stored));
      if (played.damaged.has(stored)) {
        bytes = Buffer.from(bytes);
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
      }
      const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
      const range = start > 0 ? { "content-range": `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {};
      response.writeHead(start > 0 ? 206 : 200, { ...cors, ...range, "content-length": bytes.length - start });
      const share = played.breaks.pop() ?? "whole";
      if (share === "whole") {
        response.end(bytes.subarray(start));
      } else {
        response.write(bytes.subarray(start, start + Math.floor(share * (bytes.length - start))));
        setTimeout(() => response.destroy(), 50);
      }
    } else {
      response.writeHead(404, cors).end();
    }
  });
  listening.listen(0);
  await once(listening, "listening");
  played.url = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (listening.address()).port}`;
  return played;
}

/**
 * Makes a model in a page; its stored manifest's text, or the error's code and message.
 * @param {import("playwright-core").Page} page
 * @param {Recipe} recipe
 * @param {{ token?: string, cancelAfter?: string }} [options] a component after whose first tensor it is cancelled
 */
function made(page, recipe, options = {}) {
  return page.evaluate(
    async ({ recipe, endpoint, token, cancelAfter }) => {
      const models = await import(/** @type {any} */ (new URL("engine/models.js", document.baseURI).href));
      const controller = new AbortController();
      /** @type {Set<string>} */
      const components = new Set();
      const onProgress = (/** @type {any} */ progress) => {
        if (progress.phase === "convert") {
          components.add(progress.component);
          if (progress.component === cancelAfter) {
            controller.abort();
          }
        }
      };
      try {
        const done = await models.make(recipe, { endpoint, token, onProgress, signal: controller.signal });
        const folder = await (
          await (await navigator.storage.getDirectory()).getDirectoryHandle("facestudio-models")
        ).getDirectoryHandle(encodeURIComponent(done.model));
        const names = [];
        for await (const name of /** @type {any} */ (folder).keys()) {
          names.push(name);
        }
        const text = await (await (await folder.getFileHandle("manifest.json")).getFile()).text();
        return { ...done, text, names: names.sort(), components: [...components] };
      } catch (thrown) {
        const { code, message, name } = /** @type {any} */ (thrown);
        return { code: code === 20 ? name : code, message, components: [...components] };
      }
    },
    { recipe, endpoint: hub.url, ...options },
  );
}

/** The manifest that the command line makes of the same files. @param {Recipe} recipe */
function byCommand(recipe) {
  const files = join(folder, recipe.name);
  for (const part of recipe.parts) {
    for (const file of part.files) {
      const to = join(files, part.repository, file.path);
      mkdirSync(dirname(to), { recursive: true });
      writeFileSync(to, served.get(`${part.repository}/${file.path}`) ?? "");
    }
  }
  const document = join(folder, `${recipe.name}.json`);
  writeFileSync(document, JSON.stringify(recipe));
  const out = join(folder, `${recipe.name}-out`);
  execFileSync(`${ROOT}target/debug/facestudio`, ["presets", document, "--files", files, "--dtype", "q8", "--out", out]);
  cpSync(out, join(folder, "kept"), { recursive: true });
  return readFileSync(join(out, "manifest.json"), "utf8");
}

async function blank() {
  const opened = await openPage(browser);
  await opened.page.goto(`${server.url}blank.html`);
  return opened;
}

test("what the tab makes is what the command line makes, whatever breaks on the way", { skip }, async () => {
  const { context, page } = await blank();
  const mine = recipe();
  // Thirty, two for each of fifteen files.
  hub.breaks = Array.from({ length: 45 }, (_, k) => (k % 3 === 0 ? "whole" : Math.random()));
  hub.busy = 3;
  const found = /** @type {any} */ (await made(page, mine));
  assert.equal(hub.breaks.length, 0, "all of them happened");
  assert.equal(found.message, undefined);
  const expected = byCommand(mine);
  assert.equal(found.text, expected, "every shard has the same hash");
  const hashes = [...expected.matchAll(/"sha256": "([0-9a-f]{64})"/g)].map(([, hash]) => hash);
  assert.deepEqual(found.names, [...new Set([...hashes, "manifest.json"])].sort(), "nothing else is kept: sources are gone");
  assert.ok(found.memory < 600e6, `${found.memory} bytes`);
  await context.close();
});

test("a conversion that is cancelled goes on where it was, and asks the hub for sizes that a recipe does not state", { skip }, async () => {
  const { context, page } = await blank();
  const mine = recipe("later", false);
  const first = /** @type {any} */ (await made(page, mine, { cancelAfter: "vision_encoder" }));
  assert.equal(first.code, "AbortError");
  await page.reload();
  hub.log.length = 0;
  const found = /** @type {any} */ (await made(page, mine));
  assert.equal(found.message, undefined);
  assert.ok(!found.components.includes("unet"), `made before: ${found.components}`);
  assert.ok(!hub.log.some((path) => path.includes("unet/diffusion")), "and not fetched again");
  assert.ok(hub.log.some((path) => path.startsWith("/api/models/")));
  assert.equal(found.text, byCommand(mine));
  await context.close();
});

test("a gated file asks for a token, a wrong hash is refused, and a hub that lacks a file is told so", { skip }, async () => {
  const { context, page } = await blank();
  const mine = recipe("gated");
  hub.token = "hf_secret";
  try {
    const refused = /** @type {any} */ (await made(page, mine));
    assert.equal(refused.code, "hub-denied");
    assert.match(refused.message, /asks who you are/);
    assert.equal(/** @type {any} */ (await made(page, mine, { token: "hf_other" })).code, "hub-denied");
    assert.equal(/** @type {any} */ (await made(page, mine, { token: "hf_secret" })).message, undefined);
  } finally {
    hub.token = "";
  }
  const other = recipe("damaged");
  const weights = "stable-diffusion-v1-5/stable-diffusion-v1-5/unet/diffusion_pytorch_model.fp16.safetensors";
  hub.damaged.add(weights);
  const corrupt = /** @type {any} */ (await made(page, other));
  assert.equal(corrupt.code, "file-corrupt");
  assert.ok(corrupt.message.includes(weights), corrupt.message);
  hub.damaged.clear();
  const absent = recipe("absent");
  served.delete(weights);
  const missing = /** @type {any} */ (await made(page, absent));
  assert.equal(missing.code, "hub-missing");
  assert.ok(missing.message.includes("diffusion_pytorch_model.fp16.safetensors"), missing.message);
  await context.close();
});

/** A recipe whose networks fit each other: a picture can be drawn with it. */
function drawing() {
  const part = (/** @type {string} */ name, /** @type {unknown} */ becomes, /** @type {string[]} */ paths) => ({
    what: `The tests' ${name}`,
    repository: `tiny/${name}`,
    license: "MIT",
    license_url: "https://example.org/licence",
    becomes,
    files: paths.map((path) => {
      const bytes = readFileSync(join(models, "adapters", path));
      served.set(`tiny/${name}/${path}`, bytes);
      return { path, bytes: bytes.length, sha256: sha256(bytes) };
    }),
  });
  const network = (/** @type {string} */ name) => [`${name}/config.json`, `${name}/model.safetensors`];
  return {
    name: "tiny",
    says: "nothing that anyone knows",
    family: "sd15",
    people: "drawn",
    parts: [
      part("base", "base", [
        ...["unet", "vae", "text_encoder"].flatMap(network),
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
      ]),
      part("vision", { component: "vision_encoder" }, network("vision_encoder")),
      part("detector", { component: "detector" }, network("detector")),
      part("style", { adapter: { role: "style", scale: 1 } }, ["ip_adapter_2/model.safetensors"]),
    ],
  };
}

test("a press in the studio leads to a picture, and a reload opens the model without the hub", { skip }, async () => {
  const list = JSON.stringify([drawing()]);
  server.fault = (path) => (path === "/recipes.json" ? { body: list } : undefined);
  const { context, page, errors } = await openPage(browser);
  await page.goto(server.url);
  await waitForSamples(page);
  await page.evaluate((hub) => document.querySelector("face-studio")?.setAttribute("hub", hub), hub.url);
  await page.locator("#device summary").click();
  await page.locator("#models").click();
  const card = page.locator(".model-card[data-recipe=tiny]");
  assert.equal(await card.locator(".make").isDisabled(), true, "the licences come first");
  await card.locator("summary").click();
  assert.match((await card.locator("li").first().textContent()) ?? "", /The tests' base: MIT/);
  await card.locator("input[type=checkbox]").check();
  await card.locator(".make").click();
  await page.waitForFunction(() => document.querySelector("face-studio")?.getAttribute("model") === "local://tiny-q8/");
  const asked = hub.log.length;

  const draw = async () => {
    await page.locator("#prompt").fill("a person");
    await page.locator("#advanced summary").click();
    await page.locator("#steps").fill("1");
    await page.locator("#generate").click();
    await page.locator("#picture").waitFor({ timeout: 300_000 });
    assert.equal(await page.locator("#error").isVisible(), false);
  };
  await draw();
  await page.reload();
  await page.evaluate(() => document.querySelector("face-studio")?.setAttribute("model", "local://tiny-q8/"));
  await draw();
  assert.equal(hub.log.length, asked, "the hub is not asked again");
  await page.evaluate(() => document.querySelector("face-studio")?.setAttribute("model", "local://nobody-q8/"));
  await page.locator("#generate").click();
  await page.locator("#error").waitFor();
  assert.match((await page.locator("#error").textContent()) ?? "", /holds no model/);
  assert.deepEqual(errors, []);
  await context.close();
});
