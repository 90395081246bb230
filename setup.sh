#!/usr/bin/env bash
# Prepares a host for the lab: a few host packages, subordinate ids, and .venv with everything else.
# Safe to run again; a second run only checks (well under two seconds, no network).
set -euo pipefail

readonly EXIT_USAGE=10 EXIT_SETUP=12 # the same numbers as vm/errors.py
readonly MINIMUM_MINOR=11            # Python 3.11: what Debian 12 brings
readonly SUBID_COUNT=65536

# What the host must bring. Everything that shapes bytes (QEMU, clang, mke2fs) comes from the locked tools root.
#   mmdebstrap, uidmap      the base image, built without root
#   gpgv, …-keyring         checking the archive's signatures when the lock is made
#   python3, python3-venv   the lab itself
readonly PACKAGES=(mmdebstrap uidmap passwd gpgv debian-archive-keyring ca-certificates python3 python3-venv)

# Only with --with-vagrant; none of these pulls in what it merely recommends.
#   vagrant, vagrant-libvirt     bring bsdtar, curl, rsync and an SSH client
#   libvirt-daemon-system, …     the daemon, with iptables, and the definition of its default network
#   qemu-system-x86, qemu-utils  Vagrant runs the host's own QEMU, not the locked one
#   dnsmasq-base                 DHCP of libvirt's network, which libvirt only recommends
readonly VAGRANT_PACKAGES=(vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-config-network libvirt-clients
  qemu-system-x86 qemu-utils dnsmasq-base)

# QEMU 7.2 of Debian 12 locks up now and then where it emulates several CPUs. The backports have 10.0.
readonly SOUND_QEMU=1:8 BACKPORTED=(qemu-system-x86 qemu-utils)
readonly BACKPORTS=/etc/apt/sources.list.d/kmlab-backports.sources

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
readonly here venv="$here/.venv"
readonly stamp="$venv/.kmlab-stamp"

usage() {
  cat <<'TEXT'
usage: ./setup.sh [--with-vagrant] [--help]

Prepares this host (Debian 12, Debian 13, Ubuntu 24.04; as root or with sudo) and makes .venv beside this file:

  1. host packages that are missing: mmdebstrap uidmap passwd gpgv debian-archive-keyring ca-certificates
     python3 python3-venv
  2. a range of 65536 subordinate user and group ids for root and for you, where there is none
  3. .venv from requirements.txt (every file pinned by hash), which brings the Go toolchain and all test tools, too

With --with-vagrant, for those who want Vagrant as a second way to machines (nobody needs it):

  4. host packages that are missing: vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-config-network
     libvirt-clients qemu-system-x86 qemu-utils dnsmasq-base
     On Debian 12, where KVM cannot be used, QEMU comes from Debian's backports, because 7.2 locks up when it emulates;
     /etc/apt/sources.list.d/kmlab-backports.sources then names them
  5. you, where you are not root, in the group libvirt
  6. libvirtd and its default network started, where systemd runs; where it does not, nothing is started and you are
     told how to. Where the network cannot start, you are told so, and the setup goes on

QEMU, clang and the images are not installed: the lab builds them below ~/.cache/kmlab when they are first needed.
Exit codes: 0 done, 10 wrong argument, 12 the host cannot be prepared (the message says why).
TEXT
}

say() { printf 'setup: %s\n' "$*" >&2; }

# die MESSAGE HINT: the same frame as every error of the lab.
die() {
  printf 'error: %s\n' "$1" >&2
  [[ -n ${2:-} ]] && printf 'hint: %s\n' "$2" >&2
  exit "$EXIT_SETUP"
}

check_platform() {
  local system machine
  system=$(uname -s) machine=$(uname -m)
  [[ $system == Linux && $machine == x86_64 ]] ||
    die "the lab runs on Linux on x86-64, this is $system on $machine" \
      "use a Linux virtual machine (see README.md, \"What you need\")"
}

# The person that the lab is for: whoever called sudo, where this runs through sudo.
lab_user() {
  if [[ $EUID -eq 0 && -n ${SUDO_USER:-} && $SUDO_USER != root ]]; then
    printf '%s\n' "$SUDO_USER"
  else
    id -un
  fi
}

as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  else
    command -v sudo >/dev/null ||
      die "root is needed for: $*" "run ./setup.sh as root once, or install sudo"
    sudo -- "$@"
  fi
}

as_lab_user() {
  local user
  user=$(lab_user)
  if [[ $EUID -eq 0 && $user != root ]]; then
    # pip looks for its cache and configuration there.
    runuser -u "$user" -- env HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"
  else
    "$@"
  fi
}

missing_packages() { # PACKAGE...
  local package
  for package in "$@"; do
    # One call for all would be faster still, but fails as a whole where one is unknown.
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
  done
}

# apt-get with only the distribution's own sources: where a third-party source is broken, it must not stop the lab.
own_sources() {
  local folder=$1 file
  mkdir -p "$folder"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    if [[ -f $file ]] && grep -qsE '(debian|ubuntu)' "$file" && [[ $file =~ /(sources\.list|debian\.[a-z]+|ubuntu\.[a-z]+)$ ||
      $(cat "$file") =~ (debian|ubuntu)-archive-keyring ]]; then
      cp -- "$file" "$folder/"
    fi
  done
  compgen -G "$folder/*" >/dev/null
}

# The environment goes through env(1), because sudo drops it.
apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >&2
}

# Fetches the package index and leaves in apt_options what an installation needs to know of how.
apt_options=()
scratch=""
refresh_index() {
  apt_options=()
  apt_get update && return
  say "apt-get update failed; trying again with the distribution's own package sources alone"
  [[ -n $scratch ]] || scratch=$(mktemp -d)
  trap 'rm -rf -- "$scratch"' EXIT
  rm -f -- "$scratch"/*
  own_sources "$scratch" || die "no package source of the distribution is configured" "see /etc/apt/sources.list.d"
  chmod -R a+rX "$scratch"
  # Without List-Cleanup=0 the indexes of all other sources would be deleted.
  apt_options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$scratch" -o APT::Get::List-Cleanup=0)
  apt_get "${apt_options[@]}" update
}

apt_install() {
  apt_get ${apt_options[@]+"${apt_options[@]}"} install --yes --no-install-recommends "$@"
}

install_packages() {
  local -a missing=("$@")
  say "installing host packages: ${missing[*]}"
  refresh_index ||
    die "the package index cannot be fetched" "check the network and 'apt-get update', then run ./setup.sh again"
  apt_install "${missing[@]}" ||
    die "these packages could not be installed: ${missing[*]}" \
      "see apt-get's words above; on Ubuntu, mmdebstrap needs the universe component"
}

check_packages() { # PACKAGE...
  local -a missing
  if ! command -v dpkg-query >/dev/null; then
    local tool
    for tool in mmdebstrap newuidmap gpgv usermod; do
      command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [[ ${#missing[@]} -eq 0 ]] ||
      die "this host has no dpkg, and lacks ${missing[*]}" "install them with the host's own package manager"
    return
  fi
  mapfile -t missing < <(missing_packages "$@")
  [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
}

has_range() { # FILE USER
  local uid
  uid=$(id -u "$2")
  awk -F: -v name="$2" -v uid="$uid" -v count="$SUBID_COUNT" \
    '($1 == name || $1 == uid) && $3 >= count { found = 1 } END { exit !found }' "$1" 2>/dev/null
}

# The first id above every range that is given out already: usermod does not look for overlaps.
next_range() { # FILE
  awk -F: 'BEGIN { next_id = 100000 } $2 + $3 > next_id { next_id = $2 + $3 } END { print next_id }' \
    "$([[ -f $1 ]] && printf %s "$1" || printf /dev/null)"
}

check_ranges() {
  local user first file
  for file in /etc/subuid /etc/subgid; do
    # usermod refuses where the file is not there at all.
    [[ -e $file ]] || as_root touch "$file"
  done
  for user in root "$(lab_user)"; do
    if ! has_range /etc/subuid "$user"; then
      first=$(next_range /etc/subuid)
      say "giving $user the subordinate user ids $first to $((first + SUBID_COUNT - 1))"
      as_root usermod --add-subuids "$first-$((first + SUBID_COUNT - 1))" "$user" ||
        die "no subordinate user ids for $user" "add the line '$user:$first:$SUBID_COUNT' to /etc/subuid"
    fi
    if ! has_range /etc/subgid "$user"; then
      first=$(next_range /etc/subgid)
      say "giving $user the subordinate group ids $first to $((first + SUBID_COUNT - 1))"
      as_root usermod --add-subgids "$first-$((first + SUBID_COUNT - 1))" "$user" ||
        die "no subordinate group ids for $user" "add the line '$user:$first:$SUBID_COUNT' to /etc/subgid"
    fi
  done
}

# The distribution's own Python first: one on PATH may be a shim that points nowhere.
find_python() {
  local candidate
  for candidate in /usr/bin/python3 python3; do
    if "$candidate" -c "import sys, venv; sys.exit(sys.version_info < (3, $MINIMUM_MINOR))" 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python 3.$MINIMUM_MINOR or newer with venv was found" "Debian 12, Debian 13 and Ubuntu 24.04 have one"
}

# What .venv must have been made of: requirements, interpreter and its own place (scripts in it name it).
wanted_stamp() { # PYTHON
  { cat -- "$here/requirements.txt" && "$1" -c 'import sys; print(sys.version)' && printf '%s\n' "$venv"; } | sha256sum | cut -c 1-64
}

check_venv() {
  local python wanted
  python=$(find_python)
  wanted=$(wanted_stamp "$python")
  if [[ -f $stamp && $(<"$stamp") == "$wanted" && -x $venv/bin/invoke ]] && "$venv/bin/python" -c '' 2>/dev/null; then
    return
  fi
  say "installing the Python packages of requirements.txt into .venv (Go and all test tools are among them)"
  # A virtual environment that was moved or whose interpreter is gone cannot be mended.
  if [[ -e $venv ]] && ! { "$venv/bin/python" -c '' 2>/dev/null && grep -qsF "$venv/bin/python" "$venv/bin/pip"; }; then
    [[ ! -L $venv ]] ||
      die "$venv is a link to an environment that was made for another place" "remove the link, then run ./setup.sh again"
    as_lab_user "$python" -m venv --clear "$venv" || die "$venv could not be made" "remove it and run ./setup.sh again"
  fi
  rm -f -- "$stamp"
  [[ -x $venv/bin/pip ]] || as_lab_user "$python" -m venv "$venv" ||
    die "$venv could not be made" "check that $here is yours and the disk is not full"
  as_lab_user "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
    --require-hashes --requirement "$here/requirements.txt" >&2 ||
    die "the Python packages could not be installed" \
      "see pip's words above; check the network and the disk, then run ./setup.sh again"
  printf '%s\n' "$wanted" | as_lab_user tee -- "$stamp" >/dev/null
}

# Whether machines of Vagrant's are emulated here, by the same signs as the Vagrantfile's.
emulates() {
  [[ ! -r /dev/kvm || ! -w /dev/kvm ]] || grep -qsE '^flags.*\<hypervisor\>' /proc/cpuinfo
}

# Where apt gets a release from: the URI of a suite that is configured.
archive_of() { # SUITE
  # shellcheck disable=SC2016 # apt-get's own variables
  apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v suite="$1" '$1 == suite { print $2; exit }'
}

backported_qemu() {
  local archive
  if [[ -z $(archive_of bookworm-backports) ]]; then
    archive=$(archive_of bookworm)
    [[ -n $archive ]] || return 1
    printf '%s\n' "# Made by setup.sh of the kernel-matrix lab, for QEMU." "Types: deb" "URIs: $archive" \
      "Suites: bookworm-backports" "Components: main" "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" |
      as_root tee -- "$BACKPORTS" >/dev/null
  fi
  refresh_index && apt_install --target-release bookworm-backports "${BACKPORTED[@]}"
}

check_qemu() {
  local codename version
  emulates || return 0
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null)
  [[ $codename == bookworm ]] || return 0
  version=$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null) || version=""
  [[ -z $version ]] || dpkg --compare-versions "$version" lt "$SOUND_QEMU" || return 0
  say "installing QEMU from Debian's backports: 7.2 locks up now and then where it emulates several CPUs"
  if ! backported_qemu; then
    as_root rm -f -- "$BACKPORTS"
    say "the backports cannot be had here, so QEMU is Debian 12's own; where a machine locks up, give it one CPU"
  fi
}

# Who may use libvirt's socket; root may anyway.
check_libvirt_group() {
  local user
  user=$(lab_user)
  [[ $user == root || " $(id -nG "$user") " == *" libvirt "* ]] && return
  say "adding $user to the group libvirt; it holds from the next login on"
  as_root usermod -aG libvirt "$user" || die "$user cannot be added to the group libvirt" "usermod -aG libvirt $user"
}

# virsh to the system's libvirtd, never to one of this user's own; as root where the group does not hold yet.
virsh_system() {
  if [[ $EUID -eq 0 ]]; then
    virsh -q -c qemu:///system "$@"
  else
    virsh -q -c qemu:///system "$@" 2>/dev/null ||
      { command -v sudo >/dev/null && sudo -- virsh -q -c qemu:///system "$@"; }
  fi
}

has_network() { # [--all]
  local names
  names=$(virsh_system net-list "$@" --name) && grep -qx default <<<"$names"
}

# Machines of the Vagrantfile are on this network, and nothing else of the lab is: without it the setup goes on.
check_network() {
  has_network && return
  say "starting libvirt's network default"
  if ! has_network --all; then
    virsh_system net-define /usr/share/libvirt/networks/default.xml >/dev/null || true # net-start says what is wrong
  fi
  virsh_system net-start default >/dev/null && return
  say "it does not start, and until it does Vagrant starts no machine; the rest of the lab does without"
  say "  virsh -c qemu:///system net-start default     tries it again"
  say "  virsh -c qemu:///system net-edit default      gives it other addresses, where another network has its"
}

check_libvirt_runs() {
  if virsh_system version >/dev/null 2>&1; then
    check_network
    return
  fi
  if [[ -d /run/systemd/system ]]; then
    say "starting libvirtd and its default network, now and at each start of this host"
    as_root systemctl enable --now libvirtd >&2 || die "libvirtd does not start" "journalctl -u libvirtd"
    check_network
    virsh_system net-autostart default >/dev/null || say "libvirt's network default will not start with this host"
    return
  fi
  say "libvirtd does not run, and this host has no systemd to start it. As root, before Vagrant is used:"
  say "  virtlogd -d && libvirtd -d && virsh -c qemu:///system net-start default"
  say "or, where /dev/kvm is useless, too: .venv/bin/python -m tests.vagrant_host up (ended by: … down)"
}

with_vagrant() {
  command -v dpkg-query >/dev/null ||
    die "this host has no dpkg" "install vagrant, vagrant-libvirt, libvirt and QEMU with the host's own package manager"
  check_qemu
  check_packages "${VAGRANT_PACKAGES[@]}"
  check_libvirt_group
  check_libvirt_runs
}

main() {
  local vagrant=no argument
  for argument in "$@"; do
    case $argument in
    --with-vagrant) vagrant=yes ;;
    --help | -h)
      usage
      return
      ;;
    *)
      printf 'error: setup.sh knows no argument %q\nhint: ./setup.sh --help\n' "$argument" >&2
      exit "$EXIT_USAGE"
      ;;
    esac
  done
  check_platform
  check_packages "${PACKAGES[@]}"
  check_ranges
  [[ $vagrant == no ]] || with_vagrant
  check_venv
  say "ready; now: .venv/bin/invoke lab mutex --kernel 6.1"
}

# Tests read the functions alone.
[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
