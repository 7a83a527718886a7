/** The element's looks. The custom properties at the top are its theme: an embedding page may set them. */

export const styles = new CSSStyleSheet();

styles.replaceSync(`
:host {
  --facestudio-accent: light-dark(#c2410c, #fb923c);
  --facestudio-on-accent: light-dark(#ffffff, #1c0f05);
  --facestudio-ink: light-dark(#1d1b18, #f1efeb);
  --facestudio-soft: light-dark(#635d55, #a8a29a);
  --facestudio-line: light-dark(#dcd7ce, #34353d);
  --facestudio-card: light-dark(#ffffff, #1e1f25);
  --facestudio-well: light-dark(#f0ede7, #26272e);
  --facestudio-error: light-dark(#b3261e, #ff8a80);
  --facestudio-radius: 12px;

  display: block;
  color-scheme: light dark;
  color: var(--facestudio-ink);
  font: 400 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  container-type: inline-size;
}

:host([hidden]), [hidden] { display: none !important; }

*, ::before, ::after { box-sizing: border-box; }

.studio {
  max-width: 1180px;
  margin: 0 auto;
  padding: 20px 16px 32px;
}

header {
  display: flex;
  flex-wrap: wrap;
  align-items: baseline;
  gap: 4px 14px;
  margin-bottom: 16px;
}

h1 { margin: 0; font-size: 1.5rem; letter-spacing: -0.02em; }
.tagline { margin: 0; color: var(--facestudio-soft); }

.badge {
  display: inline-flex;
  align-items: center;
  gap: 7px;
  margin: 0 0 0 auto;
  padding: 3px 11px;
  border: 1px solid var(--facestudio-line);
  border-radius: 99px;
  background: var(--facestudio-card);
  color: var(--facestudio-soft);
  font-size: 0.83rem;
}

.badge::before {
  content: "";
  flex: none;
  width: 8px;
  height: 8px;
  border-radius: 50%;
  background: var(--facestudio-soft);
}
.badge[data-backend="webgpu"]::before { background: #22a06b; }
.badge[data-backend="cpu"]::before { background: #d99a1c; }

.columns { display: grid; gap: 16px; }

form, .stage {
  min-width: 0;
  padding: 16px;
  border: 1px solid var(--facestudio-line);
  border-radius: calc(var(--facestudio-radius) + 4px);
  background: var(--facestudio-card);
}

form { display: grid; gap: 18px; align-content: start; }

fieldset { min-width: 0; margin: 0; padding: 0; border: 0; }
legend, .label { padding: 0; margin-bottom: 6px; font-weight: 600; }
.label { display: block; }
.hint { margin: 4px 0 0; color: var(--facestudio-soft); font-size: 0.85rem; }

.picker { display: grid; grid-template-columns: 104px minmax(0, 1fr); gap: 10px; }

.drop {
  position: relative;
  display: grid;
  place-items: center;
  aspect-ratio: 1;
  align-self: start;
  overflow: hidden;
  border: 1.5px dashed var(--facestudio-line);
  border-radius: var(--facestudio-radius);
  background: var(--facestudio-well);
  color: var(--facestudio-soft);
  font-size: 0.8rem;
  line-height: 1.3;
  text-align: center;
  cursor: pointer;
}
.drop:hover, .drop.over { border-color: var(--facestudio-accent); color: var(--facestudio-ink); }
.drop img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; }
.drop span { padding: 6px; }

.samples {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(42px, 1fr));
  gap: 6px;
  align-content: start;
}
.samples label { position: relative; display: block; cursor: pointer; }
.samples img, .samples .none {
  display: grid;
  place-items: center;
  width: 100%;
  aspect-ratio: 1;
  border-radius: 9px;
  background: var(--facestudio-well);
  color: var(--facestudio-soft);
  font-size: 0.75rem;
}
.samples input:checked + * { outline: 2.5px solid var(--facestudio-accent); outline-offset: 1px; }

.hidden-input {
  position: absolute;
  width: 1px;
  height: 1px;
  margin: 0;
  opacity: 0;
  pointer-events: none;
}
.samples input:focus-visible + *, .drop:focus-within {
  outline: 3px solid var(--facestudio-ink);
  outline-offset: 2px;
}

textarea, input[type="number"] {
  width: 100%;
  padding: 9px 11px;
  border: 1px solid var(--facestudio-line);
  border-radius: 9px;
  background: var(--facestudio-well);
  color: inherit;
  font: inherit;
}
textarea { display: block; min-height: 64px; resize: vertical; }
::placeholder { color: var(--facestudio-soft); opacity: 1; }

.examples { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 7px; }

button {
  padding: 8px 14px;
  border: 1px solid var(--facestudio-line);
  border-radius: 9px;
  background: var(--facestudio-card);
  color: inherit;
  font: inherit;
  cursor: pointer;
}
button:hover:enabled { border-color: var(--facestudio-accent); }
button:disabled { opacity: 0.55; cursor: default; }
.examples button {
  padding: 2px 10px;
  border-radius: 99px;
  color: var(--facestudio-soft);
  font-size: 0.83rem;
  text-align: start;
}

:is(button, a, textarea, input, summary):focus-visible {
  outline: 3px solid var(--facestudio-ink);
  outline-offset: 2px;
}

input[type="range"] { width: 100%; margin: 0; accent-color: var(--facestudio-accent); }
.ends { display: flex; justify-content: space-between; color: var(--facestudio-soft); font-size: 0.85rem; }
input[type="range"]:disabled + .ends { opacity: 0.5; }
output { font-variant-numeric: tabular-nums; }

summary { color: var(--facestudio-soft); cursor: pointer; }
.more { display: grid; gap: 14px; padding-top: 12px; }
.row { display: flex; gap: 8px; }
.row > input { flex: 1; min-width: 0; }

.actions { display: flex; gap: 8px; }
.primary {
  flex: 1;
  padding: 12px;
  border-color: transparent;
  background: var(--facestudio-accent);
  color: var(--facestudio-on-accent);
  font-weight: 650;
}

.stage { display: grid; gap: 12px; align-content: start; }
.frame {
  position: relative;
  display: grid;
  place-items: center;
  width: 100%;
  max-width: min(560px, 74vh);
  margin: 0 auto;
  aspect-ratio: 1;
  overflow: hidden;
  border-radius: var(--facestudio-radius);
  background: var(--facestudio-well);
  color: var(--facestudio-soft);
  text-align: center;
}
.frame img { width: 100%; height: 100%; object-fit: contain; }
.frame p { max-width: 30ch; margin: 0; padding: 16px; }

.status { display: grid; gap: 6px; min-height: 44px; }
.status p { margin: 0; color: var(--facestudio-soft); font-variant-numeric: tabular-nums; }
progress {
  width: 100%;
  height: 8px;
  overflow: hidden;
  appearance: none;
  border: 0;
  border-radius: 99px;
  background: var(--facestudio-well);
}
progress::-webkit-progress-bar { background: var(--facestudio-well); }
progress::-webkit-progress-value { background: var(--facestudio-accent); border-radius: 99px; }
progress::-moz-progress-bar { background: var(--facestudio-accent); border-radius: 99px; }

.error {
  padding: 10px 13px;
  border: 1px solid currentColor;
  border-radius: 9px;
  color: var(--facestudio-error);
  overflow-wrap: anywhere;
}
.error p { margin: 0; }
.error .remedy { color: var(--facestudio-ink); }
.error code { font-size: 0.8rem; opacity: 0.8; }

.finished { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 14px; }
.finished a {
  padding: 8px 14px;
  border: 1px solid var(--facestudio-line);
  border-radius: 9px;
  color: inherit;
  text-decoration: none;
}
.finished a:hover { border-color: var(--facestudio-accent); }
.finished span { color: var(--facestudio-soft); font-size: 0.85rem; }

footer { margin-top: 14px; color: var(--facestudio-soft); font-size: 0.85rem; }
footer p { margin: 0; }

@container (min-width: 860px) {
  .columns { grid-template-columns: minmax(340px, 430px) minmax(0, 1fr); align-items: start; }
  .stage { position: sticky; top: 16px; }
}
`);
