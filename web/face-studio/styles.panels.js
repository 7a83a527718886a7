/** The looks of the panels, the stage and the gallery. */

const TEXT = `
.note {
  padding: 10px 13px;
  border-radius: 10px;
  background: var(--well);
  font-size: 0.865rem;
  line-height: 1.45;
}

.chips { display: flex; flex-wrap: wrap; gap: 6px; }
.chip {
  min-height: 32px;
  padding: 3px 12px;
  border-radius: 99px;
  color: var(--soft);
  font-size: 0.865rem;
  line-height: 1.3;
  text-align: start;
}
.chip[aria-pressed="true"] { border-color: var(--ink); color: var(--ink); }
.chip-pair { display: inline-flex; align-items: center; gap: 1px; }
.dot { flex: none; width: 10px; height: 10px; border-radius: 50%; background: var(--color); }
.person-0 { --color: var(--person-0); }
.person-1 { --color: var(--person-1); }
.person-2 { --color: var(--person-2); }
.person-3 { --color: var(--person-3); }
.person-4 { --color: var(--person-4); }
.person-5 { --color: var(--person-5); }
.person-6 { --color: var(--person-6); }
.person-7 { --color: var(--person-7); }

.identities { display: flex; flex-wrap: wrap; gap: 12px; min-height: 104px; }
.identity { display: grid; gap: 6px; width: 104px; align-content: start; }
.tile-holder { position: relative; }

.tile {
  position: relative;
  display: grid;
  place-items: center;
  gap: 2px;
  width: 100%;
  min-height: 0;
  aspect-ratio: 1;
  padding: 0;
  overflow: hidden;
  border: 1px solid transparent;
  border-radius: 10px;
  background: var(--well);
  color: var(--soft);
  font-size: 0.8rem;
  line-height: 1.25;
  text-align: center;
  cursor: pointer;
}
.tile img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; }
.tile span { padding: 0 7px; }
.tile[aria-pressed="true"] { outline: 2.5px solid var(--accent); outline-offset: 1.5px; }
.tile[aria-pressed="true"]:focus-visible { outline-width: 4px; }
.tile.dashed { place-content: center; border: 1.5px dashed var(--line); background: none; }
.tile.dashed:hover { border-color: var(--accent); color: var(--ink); }
.identities > .tile { width: 104px; height: 104px; }
.tile.face[aria-busy="true"] { animation: breathe 1.4s ease-in-out infinite alternate; }
.tile .over-text { position: absolute; inset: auto 0 0; padding: 4px; background: var(--card); color: var(--ink); font-size: 0.78rem; }
@keyframes breathe { to { opacity: 0.6; } }

.over-tile {
  position: absolute;
  top: 4px;
  inset-inline-end: 4px;
  width: 24px;
  min-height: 24px;
  border-radius: 50%;
  background: color-mix(in srgb, var(--card) 88%, transparent);
  color: var(--ink);
}
.over-tile .drawing { width: 11px; height: 11px; }

.thumbs { display: flex; flex-wrap: wrap; gap: 4px; }
.thumb { width: 31px; min-height: 31px; height: 31px; padding: 0; overflow: hidden; border-radius: 7px; }
.thumb img { width: 100%; height: 100%; object-fit: cover; }
.share { display: flex; align-items: center; gap: 6px; }
.share-text { flex: none; width: 3.2em; font-size: 0.83rem; font-variant-numeric: tabular-nums; text-align: end; }

.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(46px, 1fr)); gap: 8px; min-height: 46px; align-content: start; }
#style .tiles { grid-template-columns: repeat(auto-fill, minmax(68px, 1fr)); min-height: 144px; }
.tiles.large { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)); }

.over { outline: 2.5px dashed var(--accent); outline-offset: 3px; }

.balance { display: grid; gap: 2px; margin-top: 2px; }
.balance .hint { min-height: 1.45em; }

.picture-input { position: relative; width: 128px; }
.drop {
  position: relative;
  display: grid;
  place-content: center;
  place-items: center;
  gap: 4px;
  aspect-ratio: 1;
  overflow: hidden;
  border: 1.5px dashed var(--line);
  border-radius: 10px;
  color: var(--soft);
  font-size: 0.83rem;
  line-height: 1.3;
  text-align: center;
  cursor: pointer;
}
.drop:hover { border-color: var(--accent); color: var(--ink); }
.drop span { padding: 0 10px; }
.drop img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: cover; }

.segments { display: grid; grid-template-columns: repeat(auto-fit, minmax(76px, 1fr)); gap: 3px; padding: 3px; border-radius: 11px; background: var(--well); }
.segment { min-height: 34px; padding: 3px 6px; border-color: transparent; background: none; color: var(--soft); font-size: 0.865rem; line-height: 1.2; }
.segment[aria-pressed="true"] { border-color: var(--line); background: var(--card); color: var(--ink); }

.plane {
  position: relative;
  aspect-ratio: 1;
  overflow: hidden;
  border: 1px solid var(--line);
  border-radius: 10px;
  background: var(--well) conic-gradient(from 90deg at 1px 1px, transparent 90deg, var(--line) 0) 0 0 / 25% 25%;
  touch-action: none;
}
.plane.photo { background: var(--well); max-height: 60vh; margin: 0 auto; max-width: 100%; }
.plane.photo img { display: block; width: 100%; height: 100%; }
.boxes, .brush { position: absolute; inset: 0; }
.box {
  position: absolute;
  border: 2px solid var(--color);
  border-radius: 6px;
  background: color-mix(in srgb, var(--color) 18%, transparent);
  cursor: move;
  touch-action: none;
  user-select: none;
}
.box-name { position: absolute; top: 0; inset-inline-start: 0; max-width: 100%; padding: 1px 8px; overflow: hidden; border-radius: 3px 0 6px; background: var(--card); color: var(--ink); font-size: 0.78rem; white-space: nowrap; }
.corner { position: absolute; width: 24px; height: 24px; }
.corner::after { content: ""; position: absolute; inset: 7px; border-radius: 50%; background: var(--color); box-shadow: 0 0 0 2px var(--card); }
.nw { top: -6px; left: -6px; cursor: nwse-resize; }
.ne { top: -6px; right: -6px; cursor: nesw-resize; }
.sw { bottom: -6px; left: -6px; cursor: nesw-resize; }
.se { bottom: -6px; right: -6px; cursor: nwse-resize; }
.brush { cursor: crosshair; touch-action: none; }
.brush:focus-visible { outline-offset: -3px; }
.mask { position: absolute; inset: 0; width: 100%; height: 100%; color: var(--color); opacity: 0.6; pointer-events: none; }
.brush-cursor { position: absolute; z-index: 1; aspect-ratio: 1; border: 2px solid var(--ink); border-radius: 50%; translate: -50% -50%; pointer-events: none; }

.stage-main { display: grid; gap: 14px; }
.frame {
  position: relative;
  display: grid;
  grid-template-columns: minmax(0, 1fr);
  place-items: center;
  width: 100%;
  max-width: min(560px, 52vh);
  margin: 0 auto;
  aspect-ratio: 1;
  overflow: hidden;
  border-radius: 10px;
  background: var(--well);
}
.enlarge { display: grid; place-items: center; width: 100%; height: 100%; min-height: 0; padding: 0; border: 0; border-radius: 0; background: none; cursor: zoom-in; }
.enlarge:focus-visible { outline-offset: -4px; }
.frame #picture { width: 100%; height: 100%; object-fit: contain; }
.frame.busy::after {
  content: "";
  position: absolute;
  inset: 0;
  background: linear-gradient(100deg, transparent 35%, color-mix(in srgb, var(--card) 55%, transparent) 50%, transparent 65%) 100% 0 / 260% 100%;
  animation: sweep 1.8s linear infinite;
}
@keyframes sweep { from { background-position: 100% 0; } to { background-position: -60% 0; } }
.frame.comparing { grid-template-columns: repeat(2, minmax(0, 1fr)); grid-template-rows: minmax(0, 1fr); max-width: min(936px, 104vh); aspect-ratio: 2; }
.references { display: grid; grid-template-columns: repeat(auto-fit, minmax(40%, 1fr)); grid-auto-rows: minmax(0, 1fr); width: 100%; height: 100%; }
.reference { position: relative; margin: 0; }
.reference img { display: block; width: 100%; height: 100%; object-fit: cover; }
.reference figcaption { position: absolute; bottom: 6px; inset-inline-start: 6px; padding: 1px 8px; border-radius: 99px; background: color-mix(in srgb, var(--card) 88%, transparent); font-size: 0.8rem; }
.empty { display: grid; gap: 6px; justify-items: center; max-width: 36ch; padding: 20px; color: var(--soft); text-align: center; text-wrap: balance; }
.empty-title { color: var(--ink); font-size: 1.05rem; font-weight: 600; }
.chosen { display: flex; flex-wrap: wrap; align-items: center; justify-content: center; gap: 10px; min-height: 84px; margin-bottom: 10px; }
.chosen img { width: 76px; height: 76px; border-radius: 12px; object-fit: cover; box-shadow: 0 0 0 3px var(--card); }

.below { display: grid; gap: 12px; min-height: 78px; align-content: start; }
.status { display: grid; gap: 8px; }
.status p { font-size: 0.9rem; font-variant-numeric: tabular-nums; }
progress { width: 100%; height: 8px; overflow: hidden; appearance: none; border: 0; border-radius: 99px; background: var(--well); }
progress::-webkit-progress-bar { background: var(--well); }
progress::-webkit-progress-value { border-radius: 99px; background: var(--accent); }
progress::-moz-progress-bar { border-radius: 99px; background: var(--accent); }

.error {
  position: relative;
  display: grid;
  gap: 2px;
  padding: 11px 42px 11px 14px;
  border: 1px solid color-mix(in srgb, var(--error) 55%, transparent);
  border-radius: 10px;
  background: color-mix(in srgb, var(--error) 7%, var(--card));
  overflow-wrap: anywhere;
  font-size: 0.92rem;
}
.error-title { color: var(--error); font-weight: 620; }
.error p:first-letter { text-transform: uppercase; }
.error code { color: var(--soft); font-size: 0.8rem; }
.error .icon { position: absolute; top: 6px; inset-inline-end: 6px; }

.finished { display: grid; gap: 8px; }
.notices { padding: 8px 12px; border: 1px solid var(--line); border-radius: 8px; font-size: 0.9rem; overflow-wrap: anywhere; }
.told { position: relative; padding-inline-end: 42px; }
.told .icon { position: absolute; top: 4px; inset-inline-end: 4px; }
.made { color: var(--soft); font-size: 0.865rem; font-variant-numeric: tabular-nums; }
#compare[aria-pressed="true"] { border-color: var(--ink); }

.gallery { display: grid; gap: 14px; }
.gallery-head { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 10px; }
.gallery-head button { min-height: 34px; font-size: 0.865rem; }
.results, .strip-row { display: grid; gap: 12px; margin: 0; padding: 0; list-style: none; }
.results { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); }
.strip { grid-column: 1 / -1; overflow-x: auto; padding: 4px; margin: -4px; }
.strip-row { grid-template-columns: repeat(5, minmax(84px, 1fr)); gap: 6px; }
.result { position: relative; display: grid; gap: 5px; align-content: start; }
.result .tile { border-radius: 9px; }
.result-text { display: grid; color: var(--soft); font-size: 0.78rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
.result-text span:first-child { color: var(--ink); }
`;

/** @type {CSSStyleSheet | undefined} */
let sheet;

/** The style sheet, once for all elements; made when one is there, since servers have none. */
export function panelStyles() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(TEXT);
  }
  return sheet;
}
