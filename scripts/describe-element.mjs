/**
 * Makes of pkg/custom-elements.json, which the analyzer wrote from the element's comments, the page pkg/element.html: what the element
 * takes and tells, with live examples. Writes pkg/integrity.json too, the hashes of the scripts that a page loads.
 */

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PKG = fileURLToPath(new URL("../pkg/", import.meta.url));

const manifest = JSON.parse(readFileSync(`${PKG}custom-elements.json`, "utf8"));
const { modules } = manifest;
const element = modules
  .flatMap((/** @type {any} */ module) => module.declarations ?? [])
  .find((/** @type {any} */ declaration) => declaration.tagName === "face-studio");
if (!element?.attributes?.length || !element.events?.length) {
  throw new Error("custom-elements.json does not describe <face-studio>");
}
// The analyzer takes the name of a variable for an event's: those that there are the comments list.
element.events = element.events.filter((/** @type {any} */ { name }) => name.startsWith("facestudio-"));
writeFileSync(`${PKG}custom-elements.json`, `${JSON.stringify(manifest, null, 2)}\n`);

/** @param {unknown} text */
const escaped = (text) =>
  String(text ?? "")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;");
/** `code` in backquotes, as comments have it. @param {unknown} text */
const prose = (text) => escaped(text).replace(/`([^`]+)`/g, "<code>$1</code>");
const code = (/** @type {unknown} */ text) => (text ? `<code>${escaped(text)}</code>` : "");

/**
 * @param {string} title
 * @param {string[]} heads
 * @param {string[][]} rows
 */
const table = (title, heads, rows) => `
    <section aria-label="${title}">
      <h2>${title}</h2>
      <table>
        <thead><tr>${heads.map((head) => `<th scope="col">${head}</th>`).join("")}</tr></thead>
        <tbody>
${rows.map((row) => `          <tr>${row.map((cell) => `<td>${cell}</td>`).join("")}</tr>`).join("\n")}
        </tbody>
      </table>
    </section>`;

/** @type {(list: any[] | undefined, row: (entry: any) => string[]) => string[][]} */
const rows = (list, row) => (list ?? []).map(row);
const methods = element.members.filter(
  (/** @type {any} */ { kind, name, privacy }) => kind === "method" && privacy !== "private" && !/^(#|form\w+Callback)/.test(name),
);

/** Shown with what they are written as. */
const EXAMPLES = [
  ['<face-studio model="models/mini/"></face-studio>', "The studio as it comes."],
  ['<face-studio model="models/mini/" theme="dark" lang="de"></face-studio>', "In German, dark whatever the browser says."],
];

writeFileSync(
  `${PKG}element.html`,
  `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>&lt;face-studio&gt;</title>
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="description" content="What the face-studio element takes and tells.">
    <meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src 'self' blob: data:; style-src 'self'; base-uri 'none'; form-action 'none'">
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="page.css">
    <script type="module" src="face-studio/face-studio.js"></script>
  </head>
  <body class="document">
    <h1><code>&lt;face-studio&gt;</code></h1>
    ${element.description
      .split("\n\n")
      .map((/** @type {string} */ part) => `<p>${prose(part)}</p>`)
      .join("\n    ")}
    <p>Made from <a href="custom-elements.json"><code>custom-elements.json</code></a>, which editors read too.</p>${table(
      "Attributes, each of which is a property too",
      ["name", "type", "default", "meaning"],
      rows(element.attributes, ({ name, type, default: usual, description }) => [
        code(name),
        code(type?.text),
        code(usual),
        prose(description),
      ]),
    )}${table(
      "Methods",
      ["name", "gives", "meaning"],
      rows(methods, ({ name, parameters = [], return: made, description }) => [
        code(`${name}(${parameters.map((/** @type {any} */ { name }) => name).join(", ")})`),
        code(made?.type?.text),
        prose(description),
      ]),
    )}${table(
      "Events, which bubble and leave its shadow tree",
      ["name", "type", "meaning"],
      rows(element.events, ({ name, type, description }) => [code(name), code(type?.text), prose(description)]),
    )}${table(
      "Slots",
      ["name", "what goes there"],
      rows(element.slots, ({ name, description }) => [code(name), prose(description)]),
    )}${table(
      "Parts, for ::part()",
      ["name", "what it is"],
      rows(element.cssParts, ({ name, description }) => [code(name), prose(description)]),
    )}${table(
      "Custom properties",
      ["name", "what it colours or shapes"],
      rows(element.cssProperties, ({ name, description }) => [code(name), prose(description)]),
    )}
    <section aria-label="Examples">
      <h2>Examples</h2>
${EXAMPLES.map(([markup = "", said = ""]) => `      <figure>\n        <figcaption>${said}</figcaption>\n        <pre>${escaped(markup)}</pre>\n        ${markup}\n      </figure>`).join("\n")}
    </section>
  </body>
</html>
`,
);

const scripts = readdirSync(PKG, { recursive: true, encoding: "utf8" })
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => /^(engine|face-studio|wasm|wasm-threads)\/[^/]+\.js$/.test(path) || path === "index.js")
  .sort();
const integrity = Object.fromEntries(
  scripts.map((path) => [
    path,
    `sha384-${createHash("sha384")
      .update(readFileSync(PKG + path))
      .digest("base64")}`,
  ]),
);
writeFileSync(`${PKG}integrity.json`, `${JSON.stringify(integrity, null, 2)}\n`);
