#!/bin/bash
# Prints the packages of packages.txt, and of those named, that are not
# installed.
set -euo pipefail
wanted="$(sed 's/#.*//' "$(dirname "$0")/packages.txt" | xargs) $*"
comm -23 <(tr ' ' '\n' <<<"$wanted" | sort -u) \
  <(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $wanted 2>/dev/null |
    sed -n 's/ installed$//p' | sort -u)
