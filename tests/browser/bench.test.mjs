/** The page that measures: one press, one block of JSON. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { RELEASE } from "../../web/engine/protocol.js";
import { openPage, setUp } from "./harness.mjs";

const { server, browser } = await setUp();

test("one press measures the adapter and every model at hand, and makes one block of JSON that is sent nowhere", async () => {
  const { context, page, errors, requests } = await openPage(browser);
  await page.goto(`${server.url}bench.html`);
  await page.locator("#measure").click();
  await page.waitForFunction(() => document.querySelector("#now")?.textContent?.match(/^(done|it failed)/), null, { timeout: 600_000 });
  assert.equal(await page.locator("#now").textContent(), "done");
  const report = JSON.parse((await page.locator("#report").textContent()) ?? "");
  assert.equal(report.facestudio, RELEASE);
  assert.match(report.adapter.architecture, /swiftshader/);
  assert.ok(report.adapter.limits.maxBufferSize >= 2 ** 28 && report.adapter.features.length > 0);
  assert.deepEqual(report.wrong, []);
  assert.ok(report.copy_gb_s > 0 && report.multiply_adds_a_ms > 0 && report.prove_ms > 0);
  assert.equal(report.tiles.length, 2);
  // SwiftShader has no f16, and is passed over where a launch would take long; the shortest shape is measured anywhere.
  const shortest = report.kernels.filter((/** @type {any} */ { sizes }) => sizes.join() === "77,768,768");
  assert.deepEqual(
    shortest.map((/** @type {any} */ { numbers }) => numbers),
    ["f32", "q8", "q4"],
  );
  for (const { ms, gflops, passed_over } of report.kernels) {
    assert.ok(passed_over ? ms === undefined : ms > 0 && Math.abs(gflops) > 0);
  }
  assert.equal(report.onnxruntime_web, null);
  const [{ model, runs }] = report.models;
  assert.equal(model, "models/mini/");
  assert.deepEqual(
    runs.map((/** @type {any} */ { backend, error }) => [backend, error]),
    [
      ["webgpu", undefined],
      ["cpu", undefined],
    ],
  );
  for (const { step_ms, picture_ms, open_ms, precision } of runs) {
    assert.ok(step_ms > 0 && picture_ms > step_ms && open_ms > 0);
    assert.equal(precision, "f32");
  }
  assert.ok(requests.every((url) => url.startsWith(server.url) || url.startsWith("blob:")));
  // Where onnxruntime-web would lie nothing does, and that is no fault.
  assert.deepEqual(
    errors.filter((error) => !error.includes("onnxruntime-web")),
    [],
  );
  await context.close();
});
