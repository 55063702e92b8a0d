#!/usr/bin/env bash
# Install what the tests need and this machine lacks: tests/setup.sh [COMMAND|PACKAGE …]
#
# Without arguments: everything for the whole suite. As root on Debian or Ubuntu missing things are
# installed by package name; anywhere else the script says what is missing, how to get it, and
# fails. It starts nothing: the tests start their own engines, and stop what they started. Nor may
# a package start its service while it is installed, or a daemon of the system would run after us.
set -euo pipefail

# what we look for : the Debian packages that bring it. An absolute path is a file, a word a command.
needs=(
  "dockerd:docker.io"
  "docker:docker.io docker-cli"
  "/bin/busybox:busybox-static"
  "ip:iproute2"
  "iptables:iptables"
  "nsenter:util-linux"
  "sysctl:procps"
  "prometheus:prometheus"
  "promtool:prometheus"
  "docker-compose:docker-compose"
  "systemd-analyze:systemd"
  "docker-registry:docker-registry"
  "curl:curl"
  "npm:npm"
  "etcd:etcd-server"
  "etcdctl:etcd-client"
)

present() {
  case $1 in
    /*) [ -e "$1" ] ;;
    python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
  esac
}

wanted=()
if [ $# -gt 0 ]; then
  for name in "$@"; do
    found=
    for need in "${needs[@]}"; do
      if [ "${need%%:*}" = "$name" ]; then wanted+=("$need"); found=yes; fi
    done
    [ -n "$found" ] || wanted+=("$name:$name")
  done
else
  wanted=("${needs[@]}")
fi

missing_of() {   # fills `missing` (what we look for) and `packages`
  missing=() packages=()
  for need in "${wanted[@]}"; do
    if ! present "${need%%:*}"; then
      missing+=("${need%%:*}")
      read -ra names <<<"${need#*:}"
      packages+=("${names[@]}")
    fi
  done
}

missing_of
[ ${#missing[@]} -eq 0 ] && exit 0

refuse() {
  echo "missing for this target: ${missing[*]}" >&2
  echo "$1" >&2
  exit 1
}

if ! command -v apt-get >/dev/null; then
  refuse "Install them with your system's packages; on Debian and Ubuntu they are called: ${packages[*]}"
fi
if [ "$(id -u)" -ne 0 ]; then
  refuse "Install them as root: apt-get install --no-install-recommends ${packages[*]}"
fi

# invoke-rc.d asks this file before it starts a service; 101 says no. One that was there comes back.
policy=/usr/sbin/policy-rc.d
kept=
if [ -e "$policy" ] || [ -L "$policy" ]; then
  kept=$(mktemp -d)
  cp -a "$policy" "$kept/"
  rm -f "$policy"
fi
restore() {
  rm -f "$policy"
  if [ -n "$kept" ]; then cp -a "$kept/policy-rc.d" "$policy"; rm -rf "$kept"; fi
}
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
known() { apt-cache show --no-all-versions "$1" >/dev/null 2>&1; }

# Fresh machines have no package lists. A name that the lists do not know is left out below:
# docker-cli, for one, is part of docker.io in older releases.
lists_known=yes
for package in "${packages[@]}"; do
  case $package in docker-cli) ;; *) known "$package" || lists_known= ;; esac
done
if [ -z "$lists_known" ]; then apt-get update -qq; fi

available=()
for package in "${packages[@]}"; do
  if known "$package"; then available+=("$package"); fi
done
if [ ${#available[@]} -gt 0 ]; then echo "installing ${available[*]}"; fi
install() { apt-get install -y -qq --no-install-recommends "${available[@]}" >"$log" 2>&1; }
log=$(mktemp)
# Package lists may be older than the mirror's files: a second try with fresh ones, then the truth.
if [ ${#available[@]} -gt 0 ] && ! install && ! { apt-get update -qq && install; }; then
  tail -n 20 "$log" >&2
  rm -f "$log"
  refuse "apt-get could not install them; its last words are above."
fi
rm -f "$log"

missing_of
if [ ${#missing[@]} -gt 0 ]; then
  refuse "This release has no package for them under the names: ${packages[*]}"
fi
