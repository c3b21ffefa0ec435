# shellcheck shell=bash
# Common to the scripts: where the tree is, how to speak, how to become root. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by those who source this
target=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}")
export PATH=$PATH:/usr/sbin:/sbin
[[ -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH

say() { echo "${0##*/}: $*" >&2; }

# Ends the script: die EXIT-CODE TEXT...
die() {
    local code=$1
    shift
    say "$@"
    exit "$code"
}

# Whether as_root can work without asking a question nobody answers.
can_be_root() {
    ((EUID == 0)) && return
    command -v sudo >/dev/null || return
    [[ -t 0 ]] || sudo -n true 2>/dev/null
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die 3 "this step needs root and there is no sudo: $*"
    fi
}
