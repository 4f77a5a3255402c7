#!/bin/sh
# The same on a kernel that has IPVS itself: the first process of private namespaces.
#
# Takes: $1 the scripts' folder, and in the environment LAB_SETTINGS and LAB_JOB.
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/lab/memory
cp "$1"/*.sh /run/lab/
printf '%s\n' "$LAB_SETTINGS" >/run/lab/settings
printf '%s\n' "$LAB_JOB" >/run/lab/job
hostname lab
ip link set lo up
sh /run/lab/inside.sh || true
exit "$(cat /run/lab/machine/run/lab/status 2>/dev/null || echo 70)"
