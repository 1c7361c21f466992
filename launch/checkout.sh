#!/usr/bin/env bash
# The checkout as an archive, for the scripts that send it elsewhere. Sourced after common.sh, not run.
# shellcheck disable=SC2154 # top is from common.sh.
set -euo pipefail

checkout_files() { # checkout_files: every file of the checkout that .gitignore does not name, each followed by a NUL
  if [[ "$(git -C "$top" rev-parse --show-toplevel 2>/dev/null)" == "$top" ]]; then
    local file
    git -C "$top" ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
      [[ ! -e $top/$file && ! -L $top/$file ]] || printf './%s\0' "$file" # Not one that was deleted and is still in the index.
    done
  else # A ZIP download, or no git on this machine.
    local tests=() line pattern
    while IFS= read -r line || [[ -n $line ]]; do
      pattern=${line%/}
      case $pattern in
        '' | '#'*) continue ;;
        '!'* | *\\* | *'**'* | ?*/*) fail ".gitignore: '$line' is not understood without git; install git, or take out the line" ;;
        /*) tests+=(-o -path ".$pattern") ;;
        *) tests+=(-o -name "$pattern") ;;
      esac
      [[ $line != */ ]] || tests+=(-type d)
    done <"$top/.gitignore"
    (cd "$top" && find . \( -name .git "${tests[@]}" \) -prune -o \( -type f -o -type l \) -print0)
  fi
}

pack_checkout() { # pack_checkout ARCHIVE: these files
  local names=$1.names
  checkout_files >"$names"
  [[ -s $names ]] || fail "$top: found no files to send"
  COPYFILE_DISABLE=1 tar -czf "$1" -C "$top" --null -T "$names" # The variable keeps a Mac's attributes out.
  echo "packed $(tr -cd '\0' <"$names" | wc -c) files, $(wc -c <"$1") bytes" >&2
}
