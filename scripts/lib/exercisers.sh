# The programs that exercise file systems, from crates.io: tests/posix.rs runs them. Sourced after fuse.sh.

need_exercisers() { # sets RDMFS_TEST_EXERCISERS, unless they can't be had: then those tests do nothing
  local root program
  [ -z "${RDMFS_TEST_EXERCISERS:-}" ] || return 0
  root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/exercisers
  for program in fsx@0.3.2 pjdfstest@0.2.2; do
    have_exerciser "$root/bin/${program%@*}" "${program#*@}" && continue
    say "== installing $program"
    if ! cargo install --quiet --locked --root "$root" --target-dir "$root/build" "$program" >&2; then
      say "== $program can't be installed (no network?): the tests that run it are skipped, all others run"
      return 0
    fi
  done
  export RDMFS_TEST_EXERCISERS=$root/bin
}

have_exerciser() { # have_exerciser PATH VERSION
  [ -x "$1" ] && [ "$("$1" --version)" = "${1##*/} $2" ]
}
