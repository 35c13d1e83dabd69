#!/bin/busybox sh
# The first process of a booted kernel: mounts what tests need, runs them, reports on the console, powers off.
# Lines that begin with @ are for `console.rs`; `image.rs` adds the runs and the end.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 none /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
ip link set lo up
ulimit -n 65536
# Where this is set, a test whose programs are not installed fails instead of passing unseen.
export SIDESTEP_BIN=/t/sidestep SIDESTEP_FAULTS_BIN=/t/sidestep-faults SIDESTEP_TOOLS=/t/tools RUST_BACKTRACE=0
# Emulated, everything takes twenty times as long.
export SIDESTEP_TEST_TRIES_PERCENT=10
echo "@ kernel $(uname -r)"
dmesg -c

# run SECONDS BINARY FILTER...
run() {
    seconds=$1 binary=$2
    shift 2
    echo "@ begin $binary"
    timeout -s KILL "$seconds" "/t/$binary" --include-ignored --test-threads=1 "$@"
    echo "@ end $binary $?"
    dmesg -c
}

