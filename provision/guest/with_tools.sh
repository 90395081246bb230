#!/bin/sh
# Run a workload while kernel-side tools look on.
#
#   with_tools.sh OUT SECONDS [-t NAME COMMAND]... -- WORKLOAD ARGS...
#
# Starts each tool, waits until each has said READY on stderr, for SECONDS (and up to one more), runs the workload, ends the tools with SIGINT.
# Leaves OUT/workload.json, OUT/stderr and, per tool, OUT/tool-NAME.json and OUT/tool-NAME.err. Exit status: the
# workload's; 96 where no tool became ready. A tool that fails leaves its words; the others go on. What a tool that was ready too late
# saw is not kept: it missed some of the workload, and its zeros would be none.
set -u
out=$1
seconds=$2
shift 2

names=""
while [ "$1" = -t ]; do
	# A background job of a shell without job control ignores SIGINT (POSIX 2.11); env gives it back.
	env --default-signal=INT sh -c "exec $3" >"$out/tool-$2.json" 2>"$out/tool-$2.err" </dev/null &
	echo $! >"$out/tool-$2.pid"
	names="$names $2"
	shift 3
done
shift

# settled NAME: whether the tool has said READY or has ended.
settled() {
	grep -q '^READY' "$out/tool-$1.err" || ! kill -0 "$(cat "$out/tool-$1.pid")" 2>/dev/null
}

end=$(($(date +%s) + seconds))
for name in $names; do
	until settled "$name" || [ "$(date +%s)" -gt "$end" ]; do # whole seconds: at least SECONDS, never less
		sleep 0.1
	done
done

status=96
if grep -q '^READY' "$out"/tool-*.err; then
	late=""
	for name in $names; do
		settled "$name" || late="$late $name"
	done
	"$@" >"$out/workload.json" 2>"$out/stderr" </dev/null
	status=$?
fi

for name in $names; do kill -INT "$(cat "$out/tool-$name.pid")" 2>/dev/null; done
end=$(($(date +%s) + 15))
for name in $names; do
	pid=$(cat "$out/tool-$name.pid")
	while kill -0 "$pid" 2>/dev/null && [ "$(date +%s)" -lt "$end" ]; do
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null
	wait "$pid" 2>/dev/null
	rm -f "$out/tool-$name.pid"
done
for name in ${late:-}; do
	# A tool that says itself why it has failed keeps its words.
	grep -q '"error"' "$out/tool-$name.json" ||
		echo "{\"schema\": 1, \"error\": \"it was not attached within $seconds s\"}" >"$out/tool-$name.json"
done
exit "$status"
