/**
 * Puts the element into one file of pkg/, and what it loads later into one each. Its style sheets are minified too, which no packer of
 * scripts looks into.
 */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { build, transform } from "esbuild";

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** The style sheets, which are texts of scripts. */
const SHEET = /(?<=const TEXT = `)[^`]+(?=`)/;

await build({
  absWorkingDir: ROOT,
  entryPoints: ["web/face-studio/face-studio.js"],
  outdir: "pkg/face-studio",
  bundle: true,
  splitting: true,
  chunkNames: "[name]-[hash]",
  external: ["../engine/*"],
  format: "esm",
  minify: true,
  target: "es2022",
  logLevel: "warning",
  plugins: [
    {
      name: "styles",
      setup({ onLoad }) {
        onLoad({ filter: /\bstyles[.\w]*\.js$/ }, async ({ path }) => {
          const script = await readFile(path, "utf8");
          const [sheet] = script.match(SHEET) ?? [];
          if (!sheet || sheet.includes("\\") || sheet.includes("${")) {
            throw new Error(`${path} has no plain style sheet`);
          }
          const { code } = await transform(sheet, { loader: "css", minify: true });
          return { contents: script.replace(SHEET, () => code.trim()) };
        });
      },
    },
  ],
});
