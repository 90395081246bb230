#!/bin/sh
# Run the command of a phase so that nothing of it outlives it, and end what is left.
#
#   contained.sh run NAME OUT BYTES COMMAND ARGS...
#   contained.sh end NAME
#
# The command and all that it starts are in a control group NAME of their own, which no setsid() leaves, and are the first
# that the kernel ends where memory runs out: sshd and this script live on. Files in OUT that the workload or a tool printed
# and that are larger than BYTES are cut. stdout gets one line of JSON: the machine's uptime before and after, how many
# processes had to be ended, how many the kernel ended for lack of memory, which files were cut. Exit status: the command's.
# On a kernel without control groups (one's own) only the command itself is known to be gone.
set -u

# end_group FOLDER: end everything in a control group and remove it.
end_group() {
	[ -d "$1" ] || return 0
	tries=0
	while [ "$tries" -lt 100 ]; do
		ids=$(cat "$1/cgroup.procs")
		[ -n "$ids" ] || break
		# cgroup.kill came with 5.14; without it new processes may appear in between, so it is done until none is left.
		# shellcheck disable=SC2086
		echo 1 2>/dev/null >"$1/cgroup.kill" || kill -KILL $ids 2>/dev/null
		tries=$((tries + 1))
		sleep 0.05
	done
	rmdir "$1"
}

ended_for_memory() {
	sed -n 's/^oom_kill //p' /proc/vmstat # since 4.13
}

mode=$1
group=/sys/fs/cgroup/kmlab-$2
if [ "$mode" = end ]; then
	end_group "$group"
	exit
fi
out=$3
bytes=$4
shift 4

mkdir -p "$out"
# cgroup.procs in the root itself: version 2 of control groups is mounted there, and not a folder of version 1's.
[ -e /sys/fs/cgroup/cgroup.procs ] && mkdir "$group" 2>/dev/null || group=""
before=$(ended_for_memory)
read -r began _ </proc/uptime
(
	[ -z "$group" ] || echo 0 >"$group/cgroup.procs"
	echo 1000 >/proc/self/oom_score_adj
	exec "$@"
)
status=$?
read -r ended _ </proc/uptime

left=0
if [ -n "$group" ]; then
	left=$(wc -w <"$group/cgroup.procs")
	end_group "$group"
fi
after=$(ended_for_memory)

cut=""
for file in "$out"/workload.json "$out"/stderr "$out"/tool-*.json "$out"/tool-*.err "$out"/loader.err "$out"/tools.err; do
	[ -f "$file" ] || continue
	if [ "$(stat -c %s "$file")" -gt "$bytes" ]; then
		truncate -s 65536 "$file"
		cut="$cut${cut:+, }\"${file##*/}\""
	fi
done
printf '{"began": %s, "ended": %s, "left": %d, "out_of_memory": %d, "cut": [%s]}\n' \
	"$began" "$ended" "$left" "$((${after:-0} - ${before:-0}))" "$cut"
exit "$status"
