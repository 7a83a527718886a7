/**
 * Draws what web/icons/ holds beside icon.svg: PNG of each size that is asked for, favicon.ico, and the picture that social networks
 * show beside a link, made of the renderer's sample people. Needs pkg/ and Chromium; run it when icon.svg changes, and commit what comes.
 */

import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { startBrowser } from "../tests/browser/harness.mjs";
import { startFaultyServer } from "../tests/browser/faulty-server.mjs";

const ICONS = fileURLToPath(new URL("../web/icons/", import.meta.url));

const svg = readFileSync(`${ICONS}icon.svg`, "utf8");
/** Without round corners, and smaller: what a mask leaves of it everywhere is a circle of 40 % of its side. */
const maskable = svg
  .replace(' rx="112"', "")
  .replace(/(<rect[^>]*>)([\s\S]*)(<\/svg>)/, '$1<g transform="translate(77 77) scale(.7)">$2</g>$3');

const server = await startFaultyServer(mkdtempSync(join(tmpdir(), "facestudio-")));
const browser = await startBrowser();
const page = await browser.newPage();

/**
 * @param {string} drawing
 * @param {number} side
 */
async function png(drawing, side) {
  await page.setViewportSize({ width: side, height: side });
  const source = `data:image/svg+xml;base64,${Buffer.from(drawing).toString("base64")}`;
  await page.setContent(`<style>body{margin:0}img{display:block}</style><img width=${side} height=${side} src="${source}">`);
  await page.locator("img").evaluate((image) => /** @type {HTMLImageElement} */ (image).decode());
  return page.screenshot({ omitBackground: true });
}

/** An icon file that holds a PNG, as every browser since 2010 reads it. @param {Buffer} image @param {number} side */
function ico(image, side) {
  const head = Buffer.alloc(22);
  head.writeUInt16LE(1, 2);
  head.writeUInt16LE(1, 4);
  head.writeUInt8(side, 6);
  head.writeUInt8(side, 7);
  head.writeUInt16LE(1, 10);
  head.writeUInt16LE(32, 12);
  head.writeUInt32LE(image.length, 14);
  head.writeUInt32LE(head.length, 18);
  return Buffer.concat([head, image]);
}

for (const side of [192, 512]) {
  writeFileSync(`${ICONS}icon-${side}.png`, await png(svg, side));
}
// Apple's system rounds the corners itself.
writeFileSync(`${ICONS}apple-touch-icon.png`, await png(svg.replace(' rx="112"', ""), 180));
writeFileSync(`${ICONS}maskable-512.png`, await png(maskable, 512));
writeFileSync(`${ICONS}favicon.ico`, ico(await png(svg, 32), 32));

// Rendered people, each in a style, as the page's own samples are.
await page.goto(`${server.url}blank.html`);
await page.setViewportSize({ width: 1200, height: 630 });
await page.evaluate(
  async ([base, icon]) => {
    const wasm = await import(`${base}wasm/facestudio.js`);
    await wasm.default();
    const people = [
      [3, "photo"],
      [101, "watercolor"],
      [105, "pop_art"],
      [14, "photo"],
      [107, "neon"],
      [104, "oil"],
    ];
    const style = document.createElement("style");
    style.textContent = `body{margin:0;width:1200px;height:630px;display:grid;grid-template-columns:520px 1fr;background:#f6f4f0;color:#1e1b18;font-family:system-ui,sans-serif}
      header{padding:72px 0 0 64px}header img{width:120px}h1{font-size:72px;margin:28px 0 12px}p{font-size:30px;line-height:1.35;margin:0}
      main{display:grid;grid-template-columns:repeat(3,200px);gap:14px;align-content:center;justify-content:center}main img{width:200px;height:200px;border-radius:18px}`;
    const pictures = people.map(([seed, style]) => {
      const image = document.createElement("img");
      image.src = URL.createObjectURL(new Blob([wasm.render_face(seed, style, 400)], { type: "image/png" }));
      return image;
    });
    document.head.append(style);
    document.body.innerHTML = `<header><img src="${icon}"><h1>FaceStudio</h1><p>A face into a new picture, on your own machine.</p></header><main></main>`;
    document.querySelector("main")?.append(...pictures);
    await Promise.all([...document.images].map((image) => image.decode()));
  },
  [server.url, `data:image/svg+xml;base64,${Buffer.from(svg).toString("base64")}`],
);
writeFileSync(`${ICONS}social.jpg`, await page.screenshot({ type: "jpeg", quality: 85 }));
await browser.close();
server.stop();
