#!/bin/sh
# The first process of a host: puts the disk together, boots, and then reaps what is orphaned.
#
# Takes: $1 the host's name, $2 the folder of its disk, $3 its addresses (parted by spaces), $4 the
# machine's mount points to cover (parted by colons), $5 the services it may start (parted by spaces).
# Says its process number, waits for a line (the network card is in), and says "up" when booted.
set -eu
name=$1 disk=$2 addresses=$3 layers=$4 services=$5
read -r own _ </proc/self/stat
echo "$own"

root=$disk/root
base=/run/lab/base/upper:
IFS=:
number=0
for layer in $layers; do
    number=$((number + 1))
    mkdir -p $disk/$number/upper $disk/$number/work $root
    mount -t overlay -o "lowerdir=$base/run/lab/machine$layer,upperdir=$disk/$number/upper,workdir=$disk/$number/work" \
        overlay "$root$layer"
    base=
done
unset IFS
mount -t proc proc $root/proc
# Read-only, as systemd-networkd wants it where it is not the first process.
mount -t sysfs -o ro sysfs $root/sys
mount --rbind /dev $root/dev
mount -t tmpfs tmpfs $root/dev/shm
mount -t tmpfs -o mode=755 tmpfs $root/run
# User-mode Linux tells less of its processor than ps insists on, and Salt finds services with ps.
if ! grep -q '^core id' $root/proc/cpuinfo; then
    { cat $root/proc/cpuinfo && printf 'core id\t\t: 0\n\n'; } >$root/run/cpuinfo
    mount --bind $root/run/cpuinfo $root/proc/cpuinfo
fi
[ ! -d /lib/modules ] || mount --bind /lib/modules $root/lib/modules
mkdir -p $root/run/lock $root/run/before
cd $root
pivot_root . run/before
umount -l /run/before
rmdir /run/before
cd /
hostname "$name"

load_modules() {
    cat /etc/modules /etc/modules-load.d/*.conf 2>/dev/null | while read -r module options; do
        case $module in '' | '#'* | ';'*) continue ;; esac
        # shellcheck disable=SC2086
        modprobe -q "$module" $options || echo "no module $module"
    done
}

bring_up_network() {
    ip link set lo up
    for address in $addresses; do
        ip address add "$address" brd + dev eth0
    done
    ip link set eth0 up
}

start_services() {
    for script in /etc/rc2.d/S*; do
        for service in $services; do
            case $script in */S[0-9][0-9]"$service") "$script" start </dev/null || true ;; esac
        done
    done
}

read -r _
{
    load_modules
    sysctl --system
    bring_up_network
    start_services
} >>/var/log/boot 2>&1
touch /run/booted
echo up
exec </dev/null >/dev/null 2>&1
while :; do
    sleep 3600 &
    wait $!
done
