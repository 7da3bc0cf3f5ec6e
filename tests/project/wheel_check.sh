#!/usr/bin/env bash
# Builds the wheel, installs it with all that it needs into an empty environment, and runs the quickstart from there.
set -euo pipefail
cd "$(dirname "$0")/../.."
source=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
since() { echo "wheel-check: $1 after $SECONDS s"; }

mkdir "$work/source" "$work/empty"
git ls-files -z -- pyproject.toml README.md LICENSE ogpsa_cli pipelines data_registry | xargs -0 cp --parents -t "$work/source"
"${PYTHON:-python3.11}" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet -c constraints.txt pip setuptools wheel
pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheel" "$work/source"
since "$(basename "$work"/wheel/*.whl) was built"
# torch comes first and without build isolation, because building DeepSpeed imports it.
pip install --quiet -c constraints.txt torch numpy
DS_BUILD_OPS=0 pip install --quiet --no-build-isolation -c constraints.txt "$work"/wheel/*.whl
since "it was installed with $(pip list --format freeze | wc -l) packages"
cd "$work/empty"
unset PYTHONPATH
"$work/venv/bin/python" -c "
import sys, ogpsa_cli, pipelines, data_registry
for module in (ogpsa_cli, pipelines, data_registry):
    assert module.__file__.startswith(sys.prefix), module.__file__
"
"$work/venv/bin/ogpsa" --version
"$work/venv/bin/ogpsa" quickstart --out quickstart
test -s quickstart/report/report.html
since "the quickstart ran outside of $source"
