/** What the repository's JavaScript keeps to besides its formatting, which is prettier's, and its types, which are TypeScript's. */

import js from "@eslint/js";
import globals from "globals";

/** Of the package: an error has a code, a model says itself what it is, and an engine has no look. */
const PACKAGE = [
  {
    selector: "NewExpression[callee.name=/^(Eval|Range|Reference|Syntax|Type|URI)?Error$/]",
    message: "An error has a code: use `failure` of engine/protocol.js.",
  },
  { selector: "Literal[value='mini']", message: "No model is told by its name: it says what it is through its abilities." },
];

export default [
  { ignores: ["pkg/", "target*/", "runs/", "fuzz/", "benches/node_modules/", "tests/bundlers/project-*/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: "module" },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      curly: "error",
      eqeqeq: "error",
      "max-lines": ["error", 600],
      "no-implicit-coercion": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_", caughtErrors: "all" }],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "error",
    },
  },
  {
    files: ["web/**"],
    languageOptions: { globals: { ...globals.browser } },
    rules: { "no-restricted-syntax": ["error", ...PACKAGE] },
  },
  { files: ["web/{engine,face-studio}/**"], rules: { "no-console": "error" } },
  { files: ["web/engine/**"], rules: { "no-restricted-imports": ["error", { patterns: ["**/face-studio/**"] }] } },
  { files: ["web/engine/{worker,thread}.js"], languageOptions: { globals: { ...globals.worker } } },
  { files: ["web/sw.js"], languageOptions: { globals: { ...globals.serviceworker } } },
  {
    files: ["examples/web/**"],
    languageOptions: { globals: { ...globals.browser, ...globals.node }, parserOptions: { ecmaFeatures: { jsx: true } } },
  },
  // What a test hands to its page runs there.
  { files: ["tests/**", "benches/**", "scripts/draw-icons.mjs"], languageOptions: { globals: { ...globals.browser, ...globals.node } } },
  { files: ["scripts/**", "*.config.js"], languageOptions: { globals: { ...globals.node } } },
];
