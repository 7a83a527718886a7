# For scripts that train variants of a model.

# A folder that is there is whole: others are removed from a copy under another name.
copy() { # from, to, what is left out
  local from=$1 to=$2
  shift 2
  [ ! -d "$to" ] || return 0
  rm -rf "$to.partial"
  cp -r "$from" "$to.partial"
  (cd "$to.partial" && rm -rf "$@")
  mv "$to.partial" "$to"
}
