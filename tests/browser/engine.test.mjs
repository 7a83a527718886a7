/** The engine's plain parts, which need no browser. */

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { chooseBackend } from "../../web/engine/capabilities.js";
import { FaceStudioError, RELEASE, mismatch, toFailure } from "../../web/engine/protocol.js";
import { ROOT } from "./harness.mjs";

/** @param {object} info @returns {any} */
const gpu = (info) => ({ requestAdapter: async () => ({ info, features: new Set(["shader-f16"]) }) });

test("a real adapter is used, and named", async () => {
  const choice = await chooseBackend("auto", gpu({ vendor: "nvidia", architecture: "hopper" }));
  assert.equal(choice.backend, "webgpu");
  assert.equal(choice.adapter, "nvidia hopper");
  assert.deepEqual(choice.features, ["shader-f16"]);
});

test("emulated WebGPU is passed over unless it is asked for", async () => {
  const emulated = gpu({ vendor: "google", architecture: "swiftshader" });
  const choice = await chooseBackend("auto", emulated);
  assert.equal(choice.backend, "cpu");
  assert.match(choice.reason, /swiftshader/);
  assert.equal((await chooseBackend("webgpu", emulated)).backend, "webgpu");
  assert.equal((await chooseBackend("auto", gpu({ vendor: "x", isFallbackAdapter: true }))).backend, "cpu");
});

test("without WebGPU the CPU computes, and a wish for WebGPU is refused", async () => {
  const failing = { requestAdapter: () => Promise.reject(new Error("lost")) };
  for (const none of [undefined, { requestAdapter: async () => null }, failing]) {
    const choice = await chooseBackend("auto", none);
    assert.equal(choice.backend, "cpu");
    assert.notEqual(choice.reason, "");
    await assert.rejects(chooseBackend("webgpu", none), { code: "webgpu-missing", fault: "device" });
    assert.equal((await chooseBackend("cpu", none)).backend, "cpu");
  }
});

test("page and worker must be of one release", () => {
  const ours = { protocol: 1, release: "0.1.0" };
  assert.equal(mismatch(ours, { ...ours }), null);
  assert.equal(mismatch(ours, { ...ours, release: "0.2.0" })?.code, "version-mismatch");
  assert.equal(mismatch(ours, { ...ours, protocol: 2 })?.code, "version-mismatch");
});

test("failures keep their code, anything else becomes an internal one", () => {
  const failure = { code: "alpha-range", fault: "input", message: "alpha is 2", remedy: "use 1" };
  assert.deepEqual(toFailure(failure), failure);
  assert.deepEqual(toFailure(new FaceStudioError(/** @type {any} */ (failure))), failure);
  assert.equal(toFailure(new TypeError("x")).fault, "internal");
  assert.equal(toFailure(undefined).code, "unexpected");
});

test("the release is the same everywhere", () => {
  const read = (/** @type {string} */ path) => readFileSync(ROOT + path, "utf8");
  assert.equal(/^version = "(.+)"$/m.exec(read("Cargo.toml"))?.[1], RELEASE);
  assert.equal(JSON.parse(read("web/package.json")).version, RELEASE);
});

test("every code of the page is documented", () => {
  const errors = readFileSync(`${ROOT}docs/errors.md`, "utf8");
  const codes = ["web/engine/", "web/face-studio/"].flatMap((folder) =>
    readdirSync(ROOT + folder).flatMap((name) => {
      const text = readFileSync(ROOT + folder + name, "utf8");
      return [...text.matchAll(/\bcode: "([^"]+)"|weights\(\s*"([^"]+)"|failure\("\w+", "([^"]+)"/g)].map(
        ([, ...found]) => found.find(Boolean) ?? "",
      );
    }),
  );
  assert.ok(codes.length > 12);
  assert.deepEqual(
    [...new Set(codes)].filter((code) => !errors.includes(`\`${code}\``)),
    [],
  );
});
