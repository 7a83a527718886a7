#!/usr/bin/env bash
# Makes pkg/, the browser package: wasm, its JavaScript, the element and the page. Needs setup.sh. After the word `demo` it makes
# what the page needs on this machine alone: the module with one thread, not made smaller, and no types. After the word `page` it
# leaves the modules in pkg/ as they are, and packs what lies in web/ anew.
set -euo pipefail
cd "$(dirname "$0")/.."

demo=
if [ "${1:-}" = demo ]; then demo=yes; fi
modules=yes
if [ "${1:-}" = page ]; then modules=; fi

say() { echo "pkg: $*"; }

# bind FOLDER TARGET: a built module and its JavaScript in pkg/FOLDER.
bind() {
  local built=$2/wasm32-unknown-unknown/release/facestudio_wasm.wasm bound=$2/bindgen
  local module=$bound/facestudio_bg.wasm optimised=$bound/optimised.wasm
  if [ ! -f "$module" ] || [ "$built" -nt "$module" ]; then
    rm -rf "$bound" "$bound.part"
    scripts/wasm-bindgen.sh --target web --out-name facestudio --remove-name-section --remove-producers-section \
      --out-dir "$bound.part" "$built"
    mv "$bound.part" "$bound"
  fi
  # For what is transferred. After -Oz the module is shorter (15.6 MB against 19.3) and compresses worse: 4.54 MB gzipped against
  # 4.36, 2.93 MB in Brotli against 2.70; and it takes twice as long. Parameters that nobody needs are another hundredth.
  if [ -z "$demo" ] && [ ! -f "$optimised" ]; then
    say "making the module smaller (some two minutes of processor time)"
    npx wasm-opt -O1 --duplicate-function-elimination --dae-optimizing --duplicate-function-elimination --vacuum \
      --strip-debug --strip-producers --enable-threads \
      --enable-simd --enable-bulk-memory --enable-bulk-memory-opt --enable-nontrapping-float-to-int \
      --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
      "$module" -o "$optimised.part"
    mv "$optimised.part" "$optimised"
  fi
  if [ -f "$optimised" ]; then module=$optimised; fi
  rm -rf "pkg/$1"
  mkdir -p "pkg/$1"
  cp "$bound/facestudio.js" "$bound"/*.d.ts "pkg/$1/"
  cp "$module" "pkg/$1/facestudio_bg.wasm"
}

# The converter, which a page fetches where it makes a model itself.
converter() {
  rm -rf pkg/wasm-convert
  if [ ! -d "$(rustc --print sysroot)/lib/rustlib/wasm32-wasip1/lib" ]; then
    say "the converter is left out: 'rustup target add wasm32-wasip1' is missing"
    return
  fi
  say "compiling the converter (some three minutes of processor time the first time)"
  CARGO_TARGET_DIR=target-convert cargo build --quiet --release --package facestudio-convert-wasi --target wasm32-wasip1
  local built=target-convert/wasm32-wasip1/release/facestudio-convert-wasi.wasm optimised=target-convert/optimised.wasm
  if [ ! -f "$optimised" ] || [ "$built" -nt "$optimised" ]; then
    npx wasm-opt -O1 --strip-debug --strip-producers --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext \
      --enable-mutable-globals --enable-reference-types --enable-multivalue "$built" -o "$optimised.part"
    mv "$optimised.part" "$optimised"
  fi
  mkdir -p pkg/wasm-convert
  cp "$optimised" pkg/wasm-convert/facestudio_convert.wasm
}

modules() {
  say "compiling the engine with both backends (some twenty minutes of processor time the first time, a few after a change)"
  scripts/cargo-wasm.sh build
  bind wasm target-wasm
  if [ -z "$demo" ]; then
    say "compiling the engine with threads (some eight minutes of processor time the first time)"
    scripts/cargo-wasm.sh threads build
    bind wasm-threads target-wasm-threads
  else
    # In the place of the module with threads a word why it is not there, which the page shows where it would take it.
    rm -rf pkg/wasm-threads
    mkdir -p pkg/wasm-threads
    echo 'throw new Error("the demo is built without threads; `make pkg` builds them");' >pkg/wasm-threads/facestudio.js
  fi
}
if [ -n "$modules" ]; then
  modules
  converter
fi

say "packing the page"
rm -rf pkg/engine pkg/face-studio pkg/types pkg/icons
cp -R web/*.html web/page.css web/page.js web/bench.js web/index.js web/vite.js web/*.d.ts web/types web/package.json web/engine web/icons web/manifest.webmanifest CHANGELOG.md \
  README.md LICENSE-MIT LICENSE-APACHE THIRD-PARTY-NOTICES.txt pkg/
# TypeScript's declarations come from the JSDoc.
[ -n "$demo" ] || npx tsc --project web --noEmit false --declaration --emitDeclarationOnly --outDir pkg
# The interface in one file, and one for each part that is loaded later: half the bytes of their parts. The engine stays apart, because its worker and its wasm are found beside it.
node scripts/bundle-element.mjs
# Each side of the engine is one file too, but for what others read too.
apart=(arguments protocol trap tuning)
# side "OTHERS" SCRIPT...: each script with all that it imports but the others.
side() {
  npx esbuild "${@:2}" --bundle '--external:../wasm/*' '--external:../wasm-threads/*' $(printf -- '--external:./%s.js ' $1) \
    --format=esm --minify --target=es2022 --outdir=pkg/engine --allow-overwrite --log-level=warning
}
side "${apart[*]}" web/engine/client.js web/engine/worker.js
side "${apart[*]} client" web/engine/session.js
side "${apart[*]}" web/engine/converter.js web/engine/models.js
node scripts/pack-recipes.mjs
for script in pkg/engine/*.js; do
  case " client session worker thread converter models ${apart[*]} " in *" $(basename "$script" .js) "*) ;; *) rm "$script" ;; esac
done
# terser makes some 2 % less of it than esbuild.
pack() { npx terser "$1" --module --compress passes=3,ecma=2022,unsafe_arrows --mangle --output "$1"; }
find pkg -name '*.js' -not -name sw.js -not -name vite.js | while read -r script; do pack "$script"; done
# The element's description for editors, and as a page.
(cd web && ../node_modules/.bin/cem analyze)
node scripts/describe-element.mjs
node scripts/fill-shell.mjs
pack pkg/sw.js
[ -n "$demo" ] || node scripts/compress.mjs
for wasm in pkg/wasm*/facestudio_bg.wasm; do
  echo "$wasm: $(($(wc -c <"$wasm") / 1024)) KiB, $(($(gzip -c "$wasm" | wc -c) / 1024)) KiB gzipped"
done
