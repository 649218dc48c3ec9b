#!/usr/bin/env bash
# The checks that need a GPU, on a machine that has one, Python, torch and transformers, and no network.
#
#   pip freeze > have.txt                          on that machine
#   cluster/gpu-check.sh bundle have.txt           here: what it lacks, as build/gpu/site-00, site-01, ...
#   cluster/gpu-check.sh run [pytest's options]    there, in a checkout with build/gpu beside it
#
# PYTHON is a Python of that machine's version (python3.12), PIECE the largest file that may travel (54m). What is there is
# kept as it is, and its versions bind the rest; but for what is named in RENEW (aiohttp), which is too old there for Ray.
# Each check stands alone; the last line but pytest's own is JSON with all figures.
set -euo pipefail
[ "${1:-}" != bundle ] || [ ! -f "${2:-}" ] || set -- bundle "$(realpath "$2")"
cd "$(dirname "$0")/.."
pieces=build/gpu

bundle() {
    local have=$1 python=${PYTHON:-python3.12}
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m venv "$work/venv"
    # A local version such as 2.11.0+cu130 is no name of an index. What is not there gets the tested version.
    sed -E 's/\+[A-Za-z0-9.]+$//; / @ /d' "$have" | grep -vxE "(${RENEW:-aiohttp})==.*" > "$work/have"
    awk -F== 'function plain(n) { gsub(/[-_.]+/, "-", n); return tolower(n) }
        NR == FNR { there[plain($1)]; print; next } !(plain($1) in there)' "$work/have" cluster/constraints.txt > "$work/bounds"
    "$work/venv/bin/pip" install --quiet --dry-run --ignore-installed --report "$work/report" \
        --constraint "$work/bounds" '.[qlora,metrics]'
    "$work/venv/bin/python" - "$work" <<'PY'
import json, re, sys
from pathlib import Path

work = Path(sys.argv[1])
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
have = {plain(line.split("==")[0]) for line in (work / "have").read_text().split()} | {"kdray"}
found = [(plain(one["metadata"]["name"]), one["metadata"]["version"]) for one in json.loads((work / "report").read_text())["install"]]
lacking = [f"{name}=={version}" for name, version in found if name not in have and not name.startswith("nvidia-")]
(work / "lacking").write_text("\n".join(lacking))
PY
    "$work/venv/bin/pip" install --quiet --no-deps --no-compile --target "$work/site" --requirement "$work/lacking"
    # What no check reads: bitsandbytes for other versions of CUDA, Ray for other languages.
    find "$work/site/bitsandbytes" -name '*.so' ! -name '*cuda130*' ! -name '*cpu*' -delete
    rm -rf "$work"/site/ray/{jars,rllib,cpp} "$work/site/bin"
    rm -rf "$pieces"
    mkdir -p "$pieces"
    tar -C "$work/site" -cJf - . | split --bytes "${PIECE:-54m}" --numeric-suffixes - "$pieces/site-"
    ls -l "$pieces"
}

run() {
    [ -f "$pieces/site-00" ] || needs "run: no $pieces/site-00; make it by \`bundle\`, and bring it along"
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    cat "$pieces"/site-* | tar -C "$site" -xJf -
    PYTHONPATH="$PWD:$site" HF_HUB_OFFLINE=1 python3 -m pytest -m gpu tests/gpu -p no:cacheprovider --durations 10 "$@"
}

needs() {
    echo "error $1" >&2
    exit 2
}

case ${1:-} in
    bundle)
        [ -f "${2:-}" ] || needs "bundle: no file '${2:-}'; give what \`pip freeze\` prints on the machine"
        bundle "$2" ;;
    run) run "${@:2}" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
