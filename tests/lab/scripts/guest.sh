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
# The command's end of the wire. Programs that see no terminal write no carriage returns.
[ "$(. /run/lab/settings && echo $TERMINAL)" = yes ] || stty -F /dev/tty1 -opost
setsid --ctty --wait sh /run/lab/inside.sh </dev/tty1 >/dev/tty1 2>&1 || true
# Waits until all output is out.
stty -F /dev/tty1 opost
echo o >/proc/sysrq-trigger
sleep 60
