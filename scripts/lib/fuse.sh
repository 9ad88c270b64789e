# What the scripts need of the machine: FUSE, a Rust compiler and a C compiler, a few tools.
# Sourced by them. As root, or with sudo, it installs Debian packages that are missing; otherwise it names them.

say() { printf '%s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

as_root() { # as_root COMMAND...: false if we can't become root
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    sudo "$@"
  else
    return 1
  fi
}

install_packages() { # install_packages PACKAGE...
  say "installing $*"
  command -v apt-get >/dev/null || stop "Please install: $* (this machine has no apt-get; the names are Debian's)"
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; } ||
    stop "Please install as root: apt-get install $*"
}

need_fuse() {
  command -v fusermount3 >/dev/null || install_packages fuse3
  if [ ! -e /dev/fuse ]; then
    as_root modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || stop "There is no /dev/fuse. Load the kernel module as root: modprobe fuse
In a container, start that with: --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined"
  fi
  # Debian's udev rule makes it so; without udev, in a container, nobody did.
  [ "$(stat -c %a /dev/fuse)" = 666 ] || as_root chmod 666 /dev/fuse ||
    { [ -r /dev/fuse ] && [ -w /dev/fuse ]; } ||
    stop "/dev/fuse is not open to you. As root: chmod 666 /dev/fuse"
}

need_tools() { # need_tools COMMAND...: programs whose Debian packages have the same name
  local tool missing=()
  for tool in "$@"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

need_compilers() {
  command -v cc >/dev/null || install_packages build-essential
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
  local wanted have
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  command -v cargo >/dev/null || stop "There is no cargo. Install Rust $wanted or newer, from https://rustup.rs:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt,clippy"
  have=$(cargo --version | cut -d' ' -f2)
  [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -1)" = "$wanted" ] ||
    stop "cargo is $have, but Rust $wanted or newer is needed. With rustup: rustup update stable"
}

# The test repository is on this machine; no proxy should be asked for it.
export NO_PROXY="${NO_PROXY:+$NO_PROXY,}127.0.0.1,localhost" no_proxy="${no_proxy:+$no_proxy,}127.0.0.1,localhost"
