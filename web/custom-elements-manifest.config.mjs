/** What the analyzer reads to describe the element: `cem analyze` in this folder. */

export default { globs: ["face-studio/face-studio.js"], outdir: "../pkg", packagejson: false, quiet: true };
