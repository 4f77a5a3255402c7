#!/bin/sh
# The first process of user-mode Linux: what a kernel finds bare and inside.sh needs mounted.
set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
# Python's multiprocessing keeps its locks here.
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
modprobe -d /run/lab/modules overlay
sh /run/lab/inside.sh || true
echo o >/proc/sysrq-trigger
sleep 60
