# shellcheck shell=bash
# What `app/run` and `tests/run` share: a Rust that is new enough, and packages. Sourced, not run.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# Checks for the Rust that Cargo.toml asks for; names the one command that brings it.
need_rust() {
    local wanted have toolchain
    # rustup puts its programs here, and a shell that was open before doesn't look here.
    [[ -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] && PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"$/\1/p' "$root/Cargo.toml")
    have=$(cd "$root" && rustc --version 2>/dev/null | cut -d' ' -f2) || have=
    if [[ -n $have && $(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1) == "$wanted" ]] &&
        command -v cargo >/dev/null; then
        return
    fi
    if [[ -n $have ]]; then have="there is only $have"; else have="there is none"; fi
    say "Snaptree needs Rust $wanted or later; $have." >&2
    if command -v rustup >/dev/null; then
        toolchain=$(rustup default 2>/dev/null) || toolchain=
        case $toolchain in
            stable*) fail "Update it with:" "    rustup update stable" ;;
            *) fail "Bring it with:" "    rustup update stable && rustup default stable" ;;
        esac
    fi
    fail "Bring it with rustup's own command (see https://rustup.rs), then run this again:" \
        "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

# True where a C program can be built and linked: Rust links through it.
have_c_compiler() {
    local probe
    probe=$(mktemp) || return 1
    printf 'int main(void) { return 0; }\n' | cc -x c -o "$probe" - 2>/dev/null
    local status=$?
    rm -f "$probe"
    return $status
}

# Prints the packages without which cargo can't build: a C compiler, and the certificates it downloads with.
missing_for_building() {
    have_c_compiler || printf '%s\n' gcc libc6-dev
    if command -v dpkg-query >/dev/null && [[ ! -e /etc/ssl/certs/ca-certificates.crt ]]; then
        say ca-certificates
    fi
}

# Prints those of the named Debian packages that aren't installed.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || say "$package"
    done
}

# Installs packages (Debian's names) with apt, asking through sudo where that is needed. Elsewhere,
# and where it can't be, says which they are and gives up.
install_packages() {
    local as_root=() apt=(env DEBIAN_FRONTEND=noninteractive apt-get)
    (($# > 0)) || return 0
    if ! command -v apt-get >/dev/null; then
        fail "These have to be installed first (the names are Debian's):" "    $*"
    fi
    local by_hand="    apt-get update && apt-get install --no-install-recommends $*"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "Packages are missing, and there is no sudo. As root, run:" "$by_hand"
        say "Packages are missing: $*" "sudo may ask for your password to install them."
        as_root=(sudo)
    else
        say "Installing packages: $*"
    fi
    # A list that can't be fetched (another program's source, say) needn't matter: installing tells.
    "${as_root[@]}" "${apt[@]}" update -qq || say "apt-get update failed; trying with the lists that are here." >&2
    "${as_root[@]}" "${apt[@]}" install -y -qq --no-install-recommends "$@" >/dev/null ||
        fail "Packages could not be installed. As root, run:" "$by_hand"
}
