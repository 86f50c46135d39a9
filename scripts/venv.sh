# Sourced by the other scripts: a virtual environment in .venv with the project in it.
# Works in any POSIX shell; wants Python 3.11 or newer and nothing else.

find_python() {
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 or newer with venv was found; name one with PYTHON=/path/to/python" >&2
    return 1
}

# set_up EXTRAS: installs the project once per state of pyproject.toml.
set_up() {
    stamp=".venv/.installed$1"
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python) || exit 1
        echo "Making .venv with $("$python" --version)" >&2
        "$python" -m venv .venv
    fi
    if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "Installing (this takes a moment the first time)" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$1" >&2
        touch "$stamp"
    fi
}
