#!/bin/sh
# Boots user-mode Linux. Runs as the first process of private mount and PID namespaces on the
# machine, so that all it mounts and starts is gone with it, however it ends.
#
# Takes: $1 the unpacked kernel's folder, $2 the scripts' folder, $3 memory, $4 a name for the
# processes, and in the environment LAB_SETTINGS and LAB_JOB, the texts for /run/lab/settings and job.
set -eu
kernel=$1 scripts=$2 memory=$3 name=$4

mount -t tmpfs tmpfs /run
mkdir -p /run/lab/memory /run/lab/modules/lib
cp "$scripts"/*.sh /run/lab/
chmod +x /run/lab/guest.sh
printf '%s\n' "$LAB_SETTINGS" >/run/lab/settings
printf '%s\n' "$LAB_JOB" >/run/lab/job
ln -s "$kernel/usr/lib/uml/modules" /run/lab/modules/lib/modules

# The kernel sees this machine's files under /host; its memory is a deleted file in its /tmp.
mount --rbind / "$kernel/host"
mount --bind /dev "$kernel/dev"
mount -t proc proc "$kernel/proc"
mount -t tmpfs -o "size=110%" tmpfs "$kernel/tmp"

# Its console is a log that is shown if it fails; the command talks on the second one.
env -i PATH="$PATH" HOME=/tmp TERM="${TERM:-dumb}" chroot "$kernel" /usr/bin/linux.uml \
    umid="$name" uml_dir=/tmp/ mem="$memory" seccomp=on \
    rootfstype=hostfs root=/dev/root rootflags=/host rw init=/run/lab/guest.sh \
    con=null con0=null,fd:3 con1=fd:0,fd:1 quiet 3>/run/lab/kernel.log 2>&3 || true
status=$(cat /run/lab/status 2>/dev/null) || {
    cat /run/lab/kernel.log >&2
    echo "lab: user-mode Linux ended before the command did (its messages are above)" >&2
    status=70
}
exit "$status"
