# Sourced by ./run and ./test: `need COMMAND=PACKAGE …` makes sure that the commands are
# there. As root on Debian it installs the packages of those that are missing; otherwise it prints
# the one line that would, and ends.

need() {
    local pair command missing=()
    for pair in "$@"; do
        command=${pair%%=*}
        # Some commands live where only root looks.
        PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || missing+=("${pair#*=}")
    done
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust 1.90 or later, see https://rustup.rs" >&2
        exit 1
    fi
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        echo "Installing ${missing[*]} …" >&2
        export DEBIAN_FRONTEND=noninteractive
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null || {
            echo "Installing failed; try: apt-get install ${missing[*]}" >&2
            exit 1
        }
    else
        echo "Missing. This line installs what is needed on Debian:" >&2
        echo "  sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
}
