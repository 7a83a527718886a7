/** Graphics adapters that compute wrongly, or have no room: found before a picture is drawn with them, told, and passed over. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { RELEASE } from "../../web/engine/protocol.js";
import { askForRoom, pictures, trust, tune } from "../../web/engine/tuning.js";
import { attach, open, openClient, request } from "./client.mjs";
import { ROOT, setUp } from "./harness.mjs";

const { server, browser } = await setUp();

/**
 * Serves a worker whose WebGPU is another's: `code` runs in it first.
 * @param {string} code
 */
function adapterThat(code) {
  const body = `${code}\n${readFileSync(`${ROOT}pkg/engine/worker.js`, "utf8")}`;
  server.fault = (path) => (path.endsWith("engine/worker.js") ? { body } : undefined);
}

/** Changes the texts of shaders, as a driver's compiler might misread them. @param {string} change of `code` */
const misread = (change) => `{
  const { createShaderModule } = GPUDevice.prototype;
  GPUDevice.prototype.createShaderModule = function (options) {
    const { code } = options;
    return createShaderModule.call(this, { ...options, code: ${change} });
  };
}`;

/** Group normalisation of groups that fit into a workgroup: half as much again. */
const WRONG_NORM = misread(
  'code.includes("inverseSqrt(total(") && code.includes("group_channels") ? code.replaceAll("= Out(", "= Out(1.5) * Out(") : code',
);
/** Nothing is ever written. */
const NOTHING = misread(String.raw`code.replace(/@workgroup_size[^{]*\{/, (start) => start + " if (true) { return; }")`);
/** An adapter that is not known to be emulated. */
const REAL = `{
  const info = Object.getOwnPropertyDescriptor(GPUAdapter.prototype, "info").get;
  Object.defineProperty(GPUAdapter.prototype, "info", { get() {
    const { device, description, subgroupMinSize, subgroupMaxSize } = info.call(this);
    return { vendor: "acme", architecture: "one", device, description, subgroupMinSize, subgroupMaxSize, isFallbackAdapter: false };
  } });
}`;

const openGpu = (/** @type {any} */ client) => client.open({ model: "/models/mini/", backend: "webgpu" });
const pixels = async (/** @type {any} */ client, /** @type {any} */ request) => {
  const [picture] = await client.generate(request);
  const image = await createImageBitmap(new Blob([picture.png]));
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(image.width, image.height).getContext("2d"));
  context.drawImage(image, 0, 0);
  return [...context.getImageData(0, 0, image.width, image.height).data];
};
const measured = async () => {
  const handle = await (await navigator.storage.getDirectory()).getFileHandle("facestudio-measured.json");
  return JSON.parse(await (await handle.getFile()).text());
};
/** @param {number[]} a @param {number[]} b */
const apart = (a, b) => a.reduce((sum, x, i) => sum + Math.abs(x - (b[i] ?? 0)), 0) / a.length;

describe("an adapter that computes wrongly", () => {
  test("is used without the kernels that do, as it is told, and the picture is right", async () => {
    const { context, page, call } = await openClient(browser, server.url);
    await call(open);
    const right = (await call(pixels, request())).value;
    adapterThat(`${REAL}\n${WRONG_NORM}`);
    for (const visit of ["first", "second"]) {
      await attach(page, server.url);
      const { value, error } = await call(openGpu);
      assert.equal(error, undefined, visit);
      assert.equal(value.choice.backend, "webgpu");
      const [notice, ...others] = value.notices;
      assert.deepEqual(others, []);
      assert.equal(notice.code, "kernels-wrong");
      assert.deepEqual(notice.values, { adapter: value.choice.adapter, kernels: "group_norm", release: RELEASE });
      assert.ok(notice.message.includes(value.choice.adapter) && notice.message.includes("group_norm"));
      const drawn = await call(pixels, request());
      assert.equal(drawn.error, undefined);
      assert.ok(apart(drawn.value, right) < 1, `${visit}: ${apart(drawn.value, right)} levels from the CPU's picture`);
      const kept = Object.values((await call(measured)).value);
      assert.deepEqual(
        kept.map(({ wrong }) => wrong),
        [["group_norm"]],
      );
    }
    await context.close();
  });

  test("in everything is refused by name, and the CPU computes where nobody named it", async () => {
    adapterThat(`${REAL}\n${NOTHING}`);
    const { context, page, call } = await openClient(browser, server.url);
    const { error } = await call(openGpu);
    assert.deepEqual([error?.code, error?.fault], ["webgpu-wrong", "device"]);
    assert.match(error?.message ?? "", /acme one.*burn/);
    adapterThat(`${REAL}\n${NOTHING}`);
    await attach(page, server.url);
    const { value, error: none } = await call((client) => client.open({ model: "/models/mini/" }));
    assert.equal(none, undefined);
    assert.deepEqual([value?.choice.backend, value?.choice.why], ["cpu", "webgpu-wrong"]);
    assert.equal(value.notices[0].code, "kernels-wrong");
    assert.match(value.choice.reason, /acme one computes wrongly/);
    assert.equal((await call(pixels, request())).error, undefined);
    await context.close();
  });
});

test("room for weights and pictures is asked for before it is needed, and its lack is told", async () => {
  /** Has no room for so many bytes at once. @param {number} most */
  const small = (most) => `{
    const { createBuffer, popErrorScope } = GPUDevice.prototype;
    let asked = 0;
    GPUDevice.prototype.createBuffer = function (options) {
      asked += options.usage === 128 ? options.size : 0;
      return createBuffer.call(this, options);
    };
    GPUDevice.prototype.popErrorScope = async function () {
      const error = await popErrorScope.call(this);
      const none = asked > ${most};
      asked = 0;
      return none ? new GPUOutOfMemoryError("no room") : error;
    };
  }`;
  adapterThat(small(1000));
  const { context, page, call } = await openClient(browser, server.url);
  const { error } = await call(openGpu);
  assert.deepEqual([error?.code, error?.fault], ["device-memory", "device"]);
  assert.match(error?.message ?? "", /the model's weights: \d+ MiB/);
  adapterThat(small(8 * 2 ** 20));
  await attach(page, server.url);
  assert.equal((await call(openGpu)).error, undefined);
  const large = await call((client, request) => client.generate(request), request({ width: 1024, height: 1024, steps: 1 }));
  assert.equal(large.error?.code, "device-memory");
  assert.match(large.error?.message ?? "", /the picture: \d+ MiB/);
  // The worker goes on.
  assert.equal((await call(pixels, request())).error, undefined);
  await context.close();
});

test("what was found out is kept, unless nothing can be trusted", async () => {
  /** @type {Record<string, unknown>} */
  let kept = {};
  const store = {
    measured: async () => kept,
    putMeasured: async (/** @type {Record<string, unknown>} */ known) => {
      kept = known;
    },
  };
  /** @type {[string, unknown][]} */
  let asked = [];
  /** @param {string[]} wrong @returns {any} */
  const device = (wrong) => {
    const note = (/** @type {string} */ name, /** @type {unknown} */ value) => async () => {
      asked.push([name, value]);
      return value;
    };
    const set = (/** @type {string} */ name) => (/** @type {any} */ value) => {
      if (name === "leave_out" && value.includes("softmax")) {
        throw new Error("no such kernel");
      }
      asked.push([name, [value].flat().flatMap((one) => (one instanceof Uint32Array ? [...one] : one))]);
    };
    return {
      prove: note("prove", wrong),
      measure_tiles: note("measure_tiles", Uint32Array.of(16, 32)),
      measure_rate: note("measure_rate", 2e6),
      set_tiles: set("set_tiles"),
      set_rate: set("set_rate"),
      leave_out: set("leave_out"),
    };
  };
  const names = () => asked.map(([name]) => name);
  assert.deepEqual(await tune(device(["gelu"]), "a", store), ["gelu"]);
  assert.deepEqual(names(), ["prove", "measure_tiles", "measure_rate", "set_tiles", "set_rate", "leave_out"]);
  assert.deepEqual(kept, { [`a ${RELEASE}`]: { wrong: ["gelu"], tiles: [16, 32], rate: 2e6 } });
  asked = [];
  assert.deepEqual(await tune(device([]), "a", store), ["gelu"], "as it was found");
  assert.deepEqual(names(), ["set_tiles", "set_rate", "leave_out"]);
  for (const damaged of [
    null,
    [16, 32],
    { tiles: [16, 32], rate: 1 },
    { wrong: ["burn"], tiles: [1, 2], rate: 1 },
    { wrong: ["softmax"], tiles: [], rate: 1 },
  ]) {
    kept = { [`a ${RELEASE}`]: damaged, b: 1 };
    asked = [];
    assert.deepEqual(await tune(device([]), "a", store), []);
    assert.ok(names().includes("prove"), JSON.stringify(damaged));
    assert.deepEqual(kept, { [`a ${RELEASE}`]: { wrong: [], tiles: [16, 32], rate: 2e6 }, b: 1 });
  }
  kept = {};
  assert.deepEqual(await tune(device(["linear", "burn"]), "a", store), ["linear", "burn"]);
  assert.deepEqual(kept, {});
  /** @type {any} */
  const choice = { backend: "webgpu", why: "webgpu", adapter: "a" };
  assert.deepEqual(await trust(device([]), { ...choice }, store), []);
  kept = {};
  const [notice] = await trust(device(["burn"]), choice, store);
  assert.equal(notice?.code, "kernels-wrong");
  assert.deepEqual([choice.backend, choice.why, choice.reason], ["cpu", "webgpu-wrong", notice?.message]);
  await assert.rejects(trust(device(["burn"]), { ...choice, why: "asked" }, store), { code: "webgpu-wrong", fault: "device" });
});

test("room is asked for in pieces, and given back", async () => {
  /** @type {number[]} */
  const sizes = [];
  let destroyed = 0;
  /** @type {object | null} */
  let error = null;
  const device = {
    limits: { maxBufferSize: 2 ** 30 },
    pushErrorScope: (/** @type {string} */ filter) => assert.equal(filter, "out-of-memory"),
    popErrorScope: async () => error,
    createBuffer: (/** @type {{ size: number }} */ { size }) => {
      sizes.push(size);
      return { destroy: () => (destroyed += 1) };
    },
  };
  await askForRoom(device, 600 * 2 ** 20 + 1, "it");
  assert.deepEqual(sizes, [2 ** 28, 2 ** 28, 88 * 2 ** 20 + 4]);
  assert.equal(destroyed, 3);
  error = {};
  await assert.rejects(askForRoom(device, 5, "a test"), { code: "device-memory", message: /a test: 1 MiB/ });
  assert.equal(destroyed, 4);
  await askForRoom(null, 5, "no device");
  await askForRoom(device, 0, "nothing");
  assert.equal(destroyed, 4);

  // Of pictures, only what is more than before.
  error = null;
  sizes.length = 0;
  const ask = await pictures(device, new Blob(['{ "block_out_channels": [128, 256, 512, 512] }']));
  /** @type {any} */
  const usual = { width: 64, height: 64 };
  await ask({ people: [] }, usual);
  await ask({ people: [], width: 64, height: 32 }, usual);
  await ask({ people: [], width: 128 }, usual);
  assert.deepEqual(sizes, [3 * 4 * 256 * 64 * 64, 3 * 4 * 256 * 64 * 64]);
  await (
    await pictures(device, new Blob(['{ "decoder_block_out_channels": [8, 16] }']))
  )({ people: [] }, usual);
  assert.equal(sizes.pop(), 3 * 4 * 8 * 64 * 64);
  await (
    await pictures(device, undefined)
  )({ people: [] }, usual);
  assert.equal(sizes.length, 2);
});
