#!/usr/bin/env bash
# Takes the vendored files anew from the npm registry, whose client checks what it downloads, and writes their checksums.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

ECHARTS=6.1.0
DEJAVU=2.37.3

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# take PACKAGE@VERSION FOLDER FILE...: files of a package, into a folder.
take() {
    local package="$1" into="$2"
    shift 2
    mkdir "$folder/$into"
    npm pack --silent --pack-destination "$folder/$into" "$package" > /dev/null
    tar -xzf "$folder/$into"/*.tgz -C "$folder/$into"
    mkdir -p "$into"
    for file in "$@"; do
        install -m 644 "$folder/$into/package/$file" "$into/"
    done
}

take "echarts@$ECHARTS" echarts dist/echarts.common.min.js LICENSE NOTICE
take "dejavu-fonts-ttf@$DEJAVU" dejavu ttf/DejaVuSans.ttf LICENSE
sha256sum echarts/* dejavu/* > SHA256SUMS
