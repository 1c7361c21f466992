#!/usr/bin/env bash
# Packs the checkout into an archive, for scripts that send it elsewhere. They source this file after common.sh.
# shellcheck disable=SC2154 # top is from common.sh.
set -euo pipefail

checkout_files() { # checkout_files: prints every file of the checkout that .gitignore does not name, each followed by a NUL
  if [[ "$(git -C "$top" rev-parse --show-toplevel 2>/dev/null)" == "$top" ]]; then
    local file
    git -C "$top" ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
      [[ ! -e $top/$file && ! -L $top/$file ]] || printf './%s\0' "$file" # Leaves out a file that was deleted and is still in the index.
    done
  else # A ZIP download, or no git on this machine.
    local tests=() line pattern
    while IFS= read -r line || [[ -n $line ]]; do
      pattern=${line%/}
      case $pattern in
        '' | '#'*) continue ;;
        '!'* | *\\* | *'**'* | ?*/*) fail ".gitignore: '$line' is not understood without git; install git, or remove this line" ;;
        /*) tests+=(-o -path ".$pattern") ;;
        *) tests+=(-o -name "$pattern") ;;
      esac
      [[ $line != */ ]] || tests+=(-type d)
    done <"$top/.gitignore"
    (cd "$top" && find . \( -name .git "${tests[@]}" \) -prune -o \( -type f -o -type l \) -print0)
  fi
}

pack_checkout() { # pack_checkout ARCHIVE: writes these files to it
  local names=$1.names
  checkout_files >"$names"
  [[ -s $names ]] || fail "$top: found no files to send; check that .gitignore does not name all of them"
  COPYFILE_DISABLE=1 tar -czf "$1" -C "$top" --null -T "$names" # With the variable, tar on a Mac leaves extended attributes out.
  echo "packed $(tr -cd '\0' <"$names" | wc -c) files, $(wc -c <"$1") bytes" >&2
}
