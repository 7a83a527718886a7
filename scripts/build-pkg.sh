#!/usr/bin/env bash
# Makes pkg/, the browser package: wasm, its JavaScript, the element and the page. Needs setup.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

# bind FOLDER TARGET: a built module and its JavaScript in pkg/FOLDER.
bind() {
  local built=$2/wasm32-unknown-unknown/release/facestudio_wasm.wasm bound=$2/bindgen wasm=pkg/$1/facestudio_bg.wasm
  mkdir -p "pkg/$1"
  # wasm-opt takes minutes: only when the module changed. For size: the compiler has already made it fast, and -O2 adds code
  # (5.28 MB gzipped against 5.22).
  if [ ! -f "$wasm" ] || [ "$built" -nt "$wasm" ]; then
    rm -rf "$bound"
    scripts/wasm-bindgen.sh --target web --out-name facestudio --out-dir "$bound" "$built"
    npx wasm-opt "${WASM_OPT_LEVEL:--Oz}" --strip-debug --strip-producers --enable-threads \
      --enable-simd --enable-bulk-memory --enable-bulk-memory-opt --enable-nontrapping-float-to-int \
      --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
      "$bound/facestudio_bg.wasm" -o "$bound/optimised.wasm"
    cp "$bound/facestudio.js" "$bound"/*.d.ts "pkg/$1/"
    mv "$bound/optimised.wasm" "$wasm"
  fi
}

scripts/cargo-wasm.sh build
bind wasm target-wasm
scripts/cargo-wasm.sh threads build
bind wasm-threads target-wasm-threads

rm -rf pkg/engine pkg/face-studio
cp -R web/index.html web/page.css web/page.js web/index.js web/element.d.ts web/package.json web/engine \
  README.md LICENSE-MIT LICENSE-APACHE THIRD-PARTY-NOTICES.txt pkg/
# TypeScript's declarations come from the JSDoc.
npx tsc --project web --noEmit false --declaration --emitDeclarationOnly --outDir pkg
# The interface in one file: half the bytes of its parts. The engine stays apart, because its worker and its wasm are found beside it.
npx esbuild web/face-studio/face-studio.js web/face-studio/session.js --bundle --splitting '--external:../engine/*' \
  --format=esm --minify --target=es2022 --outdir=pkg/face-studio --log-level=warning
# Each side of the engine is one file too, but for what others read too, and for the storage, which tests take away from the worker.
apart=(arguments protocol store trap)
npx esbuild web/engine/client.js web/engine/worker.js --bundle '--external:../wasm/*' '--external:../wasm-threads/*' \
  $(printf -- '--external:./%s.js ' "${apart[@]}") --format=esm --minify --target=es2022 --outdir=pkg/engine \
  --allow-overwrite --log-level=warning
for script in pkg/engine/*.js; do
  case " client worker thread ${apart[*]} " in *" $(basename "$script" .js) "*) ;; *) rm "$script" ;; esac
done
# terser makes some 2 % less of it than esbuild.
pack() { npx terser "$1" --module --compress passes=3,ecma=2022,unsafe_arrows --mangle --output "$1"; }
find pkg -name '*.js' -not -name sw.js | while read -r script; do pack "$script"; done
node scripts/fill-shell.mjs
pack pkg/sw.js
for wasm in pkg/wasm*/facestudio_bg.wasm; do
  echo "$wasm: $(($(wc -c <"$wasm") / 1024)) KiB, $(($(gzip -c "$wasm" | wc -c) / 1024)) KiB gzipped"
done
