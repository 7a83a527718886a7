/**
 * The theme and the page's frame. The custom properties at the top are the theme: an embedding page may set them on the
 * element. `styles.panels.js` has the looks of the panels.
 */

const TEXT = `
:host {
  --accent: var(--facestudio-accent, light-dark(#b8400f, #ff9d66));
  --on-accent: var(--facestudio-on-accent, light-dark(#ffffff, #2a1004));
  --ink: var(--facestudio-ink, light-dark(#1e1b18, #f2efea));
  --soft: var(--facestudio-soft, light-dark(#645d55, #aaa39a));
  --line: var(--facestudio-line, light-dark(#e0dbd3, #34343b));
  --ground: var(--facestudio-ground, light-dark(#f6f4f0, #141418));
  --card: var(--facestudio-card, light-dark(#ffffff, #1d1d22));
  --well: var(--facestudio-well, light-dark(#f2efea, #27272e));
  --error: var(--facestudio-error, light-dark(#b0271d, #ff8d82));
  --radius: var(--facestudio-radius, 14px);

  --person-0: light-dark(#b8400f, #ff9d66);
  --person-1: light-dark(#1f6fb8, #6db6f5);
  --person-2: light-dark(#2f7d3b, #74cf83);
  --person-3: light-dark(#8a3fa8, #d490ee);
  --person-4: light-dark(#8a6a00, #e6c14a);
  --person-5: light-dark(#0f7d80, #5fd0d3);
  --person-6: light-dark(#b02a63, #ff86b5);
  --person-7: light-dark(#5a5f6b, #b3b9c6);

  display: block;
  color-scheme: light dark;
  background: var(--ground);
  color: var(--ink);
  font: 400 15px/1.5 var(--facestudio-font, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif);
  container-type: inline-size;
}
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([hidden]), [hidden] { display: none !important; }

*, ::before, ::after { box-sizing: border-box; }

.studio { max-width: 1240px; margin: 0 auto; padding: 24px 16px 40px; }

header { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 20px; margin-bottom: 20px; }
h1, h2, p { margin: 0; }
h1 { font-size: 1.45rem; font-weight: 680; letter-spacing: -0.022em; line-height: 1.25; }
h2, .title { display: block; font-size: 1rem; font-weight: 640; letter-spacing: -0.006em; line-height: 1.4; }
.tagline { color: var(--soft); text-wrap: pretty; }
.hint { color: var(--soft); font-size: 0.865rem; line-height: 1.45; text-wrap: pretty; }
.label { display: block; margin-bottom: 4px; font-weight: 560; font-size: 0.92rem; }
.ends.strong .label { margin: 0; }

.badge {
  display: inline-flex;
  align-items: center;
  gap: 8px;
  min-height: 30px;
  padding: 3px 12px;
  border: 1px solid var(--line);
  border-radius: 99px;
  background: var(--card);
  color: var(--soft);
  font-size: 0.83rem;
}
.badge::before { content: ""; flex: none; width: 8px; height: 8px; border-radius: 50%; background: var(--line); }
.badge[data-backend]::before { background: light-dark(#2c8a57, #55c98a); }

.columns { display: grid; gap: 20px; }
form { display: grid; gap: 12px; align-content: start; min-width: 0; }
.stage { display: grid; gap: 20px; align-content: start; min-width: 0; }

.panel, .stage-main, .gallery {
  min-width: 0;
  padding: 18px;
  border: 1px solid var(--line);
  border-radius: var(--radius);
  background: var(--card);
}
.panel:not(details) { display: grid; gap: 12px; align-content: start; }
.panel > h2 + .hint { margin-top: -8px; }
.folded { display: grid; gap: 16px; padding-top: 14px; }
.view { display: grid; gap: 12px; }

summary {
  display: flex;
  align-items: center;
  gap: 8px;
  margin: -18px;
  padding: 13px 18px;
  border-radius: var(--radius);
  font-weight: 560;
  list-style: none;
  cursor: pointer;
}
summary::-webkit-details-marker { display: none; }
summary::after {
  content: "";
  width: 7px;
  height: 7px;
  margin-inline-start: auto;
  border: solid var(--soft);
  border-width: 0 1.6px 1.6px 0;
  rotate: 45deg;
  translate: 0 -2px;
}
details[open] > summary { margin-bottom: -14px; }
details[open] > summary::after { rotate: -135deg; translate: 0 2px; }
summary:hover { color: var(--accent); }

button, .button, select, textarea, input[type="number"], input[type="text"] {
  min-height: 40px;
  border: 1px solid var(--line);
  border-radius: 10px;
  background: var(--card);
  color: inherit;
  font: inherit;
  font-size: 0.92rem;
}
button, .button {
  display: inline-flex;
  align-items: center;
  justify-content: center;
  gap: 7px;
  padding: 6px 13px;
  text-decoration: none;
  cursor: pointer;
}
button:hover:enabled, .button:hover { border-color: var(--accent); }
button:disabled { color: var(--soft); opacity: 0.62; cursor: default; }
.primary { border-color: transparent; background: var(--accent); color: var(--on-accent); font-weight: 620; }
.primary:hover:not(:disabled) { filter: brightness(1.07); }
.primary:disabled { background: var(--well); color: var(--soft); opacity: 1; }
.large { min-height: 48px; font-size: 1rem; }

select, textarea, input[type="number"], input[type="text"] { width: 100%; padding: 8px 11px; background: var(--well); }
select { appearance: none; padding-inline-end: 30px; background-image: linear-gradient(45deg, transparent 50%, var(--soft) 50%), linear-gradient(-45deg, transparent 50%, var(--soft) 50%); background-position: right 17px center, right 12px center; background-size: 5px 5px; background-repeat: no-repeat; }
textarea { display: block; min-height: 70px; line-height: 1.45; resize: vertical; }
::placeholder { color: var(--soft); opacity: 1; }
textarea:disabled, input:disabled { cursor: default; }

input[type="range"] { width: 100%; height: 26px; margin: 0; accent-color: var(--accent); cursor: pointer; }
input[type="range"]:disabled { opacity: 0.5; cursor: default; }
input[type="checkbox"] { flex: none; width: 18px; height: 18px; margin: 2px 0 0; accent-color: var(--accent); }
.check { display: flex; gap: 9px; align-items: start; cursor: pointer; }
.row + .check { margin: 8px 0 4px; }
.check + .hint { margin-top: -8px; padding-inline-start: 27px; }
.row + .check + .hint { margin-top: 0; }

:is(button, a, textarea, input, select, summary, [tabindex]):focus-visible, label:focus-within:has(.hidden-input:focus-visible) {
  outline: 2.5px solid var(--accent);
  outline-offset: 2px;
}
.hidden-input { position: absolute; width: 1px; height: 1px; margin: 0; opacity: 0; pointer-events: none; }

.drawing { flex: none; width: 16px; height: 16px; fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linecap: round; stroke-linejoin: round; }
.icon { flex: none; width: 30px; min-height: 30px; padding: 0; border-color: transparent; border-radius: 8px; background: none; color: var(--soft); }
.icon:hover { color: var(--accent); }
.icon .drawing { width: 14px; height: 14px; }
.icon.framed { width: 40px; min-height: 40px; border-color: var(--line); background: var(--card); border-radius: 10px; }
.icon.framed .drawing { width: 19px; height: 19px; }

.row { display: flex; align-items: center; gap: 8px; }
.row > input { flex: 1; min-width: 0; }
.wrap { flex-wrap: wrap; }
.ends { display: flex; justify-content: space-between; gap: 12px; color: var(--soft); font-size: 0.865rem; }
.ends.strong { color: inherit; }
output { font-variant-numeric: tabular-nums; }

.actions {
  position: sticky;
  top: 0;
  bottom: 0;
  z-index: 3;
  display: flex;
  gap: 8px;
  margin: -4px -4px;
  padding: 8px 4px;
  background: var(--ground);
}
.actions .primary { flex: 1; }

footer { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 12px 24px; margin-top: 24px; color: var(--soft); font-size: 0.865rem; }
.look { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 8px; }
.look select { width: auto; min-height: 34px; padding-block: 4px; font-size: 0.865rem; }
.look select + label { margin-inline-start: 8px; }
.waiting { visibility: hidden; }

@container (min-width: 700px) {
  .badge { margin-inline-start: auto; }
}

@container (min-width: 900px) {
  .columns { grid-template-columns: minmax(360px, 420px) minmax(0, 1fr); gap: 24px; align-items: start; }
  .stage { position: sticky; top: 16px; max-height: calc(100vh - 32px); overflow-y: auto; scrollbar-width: thin; }
}

@container (max-width: 899.9px) {
  .studio { padding-top: 14px; }
  header { margin-bottom: 12px; }
  .tagline { display: none; }
  .columns { gap: 12px; }
  .stage { order: -1; gap: 12px; }
  .stage-main, .gallery { padding: 12px; }
  .stage .frame { max-width: min(100%, 34vh); }
  .stage .frame.comparing { max-width: min(100%, 68vh); }
  .stage .below { min-height: 0; }
  .stage .empty-title ~ p { display: none; }
  #words .chips { flex-wrap: nowrap; overflow-x: auto; scrollbar-width: none; margin: -3px; padding: 3px; }
  #words .chip { flex: none; }
  .stage .finished .row { flex-wrap: nowrap; overflow-x: auto; scrollbar-width: none; margin: -3px; padding: 3px; }
  .stage .finished .row > * { flex: none; }
  .gallery:has(.hint:not([hidden])) { display: none; }
  .stage .gallery { gap: 8px; }
  .gallery-head { order: 1; flex-wrap: nowrap; overflow-x: auto; scrollbar-width: none; margin: -3px; padding: 3px; }
  .gallery-head h2 { display: none; }
  .gallery-head .row { flex-wrap: nowrap; }
  .gallery-head .row > * { flex: none; }
  .stage .results { display: flex; overflow-x: auto; padding: 4px; margin: -4px; }
  .stage .results > .result { flex: 0 0 76px; }
  .stage .results > .result .result-text { display: none; }
  .stage .results > .strip { flex: 0 0 auto; }
}

@media (prefers-reduced-motion: reduce) {
  *, ::before, ::after { animation: none !important; transition: none !important; scroll-behavior: auto !important; }
}
`;

/** @type {CSSStyleSheet | undefined} */
let sheet;

/** The style sheet, once for all elements; made when one is there, since servers have none. */
export function styles() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(TEXT);
  }
  return sheet;
}
