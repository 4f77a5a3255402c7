#!/bin/sh
# The inside of the lab: the machine's files under a layer of memory, then the job.
#
# Nothing done inside reaches the machine's files, but for the shared folder (the checkout).
# /run/lab/settings says: LAYERS (mount points to cover, parted by colons), SHARE, TERMINAL (yes or
# no), MODULES (the kernel's modules, or empty). The job's exit status goes to /run/lab/status.
set -eu
. /run/lab/settings

memory=/run/lab/memory
root=$memory/root
mount -t tmpfs -o mode=755,size=80% memory $memory
IFS=:
number=0
for layer in $LAYERS; do
    number=$((number + 1))
    mkdir -p $memory/$number/upper $memory/$number/work "$root$layer"
    mount -t overlay -o "lowerdir=$layer,upperdir=$memory/$number/upper,workdir=$memory/$number/work" \
        overlay "$root$layer"
done
unset IFS
mount --bind "$SHARE" "$root$SHARE"
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount --rbind /dev $root/dev
mount -t tmpfs -o mode=755 tmpfs $root/run
mkdir -p $root/run/lab/machine $root/run/lock
cd $root
pivot_root . run/lab/machine
cd /

if [ -n "$MODULES" ]; then
    mkdir -p /lib/modules
    mount --bind "/run/lab/machine$MODULES" /lib/modules
fi
job=/run/lab/machine/run/lab/job
status=0
if [ "$TERMINAL" = yes ]; then
    sh $job </dev/tty >/dev/tty 2>&1 || status=$?
else
    # A pipe, so that programs see that they do not write to a terminal.
    mkfifo /run/lab/output
    cat /run/lab/output &
    reader=$!
    sh $job </dev/null >/run/lab/output 2>&1 || status=$?
    # What the job left running holds the pipe open.
    for folder in /proc/[0-9]*; do
        process=${folder#/proc/}
        case $process in 1 | $$ | $PPID | $reader) continue ;; esac
        kill -9 "$process" 2>/dev/null || true
    done
    wait $reader
fi
echo $status >/run/lab/machine/run/lab/status
